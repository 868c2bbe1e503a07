//! The README says what the module has, and the module has what the README says.
//!
//! Each thing of the module has a heading of the fourth level in the README, such as
//! `#### poll_interval (int)`; the lists of code and headings must be equal, order included.

use apiban::config::{parameter, Config, Kind, Parameter, RawValue, PARAMETERS};
use apiban::feed::FeedState;
use apiban::firewall::runner::State;
use apiban::rpc::COMMANDS;
use apiban::script::{Argument, FUNCTIONS, VARIABLES};
use apiban::shared::events::EventKind;
use apiban::statistics::STATISTICS;
use apiban_testing::kamailio::{Kamailio, Release};
use apiban_testing::sip::Answer;
use apiban_testing::wait::SOON;
use std::collections::BTreeSet;
use std::time::Duration;

const README: &str = include_str!("../../../README.md");
const SAMPLE: &str = include_str!("../../../kamailio.cfg.sample");
const MOMENT: Duration = Duration::from_millis(50);

/// The README from the heading that begins with `begin` to the next one of its level or above.
fn section(begin: &str) -> &'static str {
    let level = begin.chars().take_while(|c| *c == '#').count();
    let start = README
        .match_indices(begin)
        .map(|(at, _)| at)
        .find(|at| *at == 0 || README[..*at].ends_with('\n'))
        .unwrap_or_else(|| panic!("README has no heading {begin:?}"));
    let body = &README[start..];
    let mut length = 0;
    let mut fenced = false;
    for (index, line) in body.split_inclusive('\n').enumerate() {
        let hashes = line.chars().take_while(|c| *c == '#').count();
        if index > 0 && !fenced && (1..=level).contains(&hashes) {
            break;
        }
        fenced ^= line.starts_with("```");
        length += line.len();
    }
    &body[..length]
}

/// The headings of the fourth level in a section.
fn headings(section: &'static str) -> Vec<&'static str> {
    let mut fenced = false;
    section
        .lines()
        .filter_map(|line| {
            fenced ^= line.starts_with("```");
            line.strip_prefix("#### ").filter(|_| !fenced)
        })
        .collect()
}

/// The text behind `- name: ` under a heading.
fn entry(section: &'static str, name: &str) -> Option<&'static str> {
    let begin = format!("- {name}: ");
    section.lines().find_map(|line| line.strip_prefix(&begin))
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    names.into_iter().collect()
}

/// The default of a parameter as the README writes it.
fn default_of(parameter: &Parameter) -> String {
    let scope = |firewall: &str| {
        let mut config = Config::default();
        let row = apiban::config::parameter("firewall").expect("there");
        config.set(row, RawValue::Text(firewall)).expect("accepted");
        let facts = config.firewall.facts().expect("a backend");
        format!("{:?}", facts.default_scope).to_lowercase()
    };
    match (parameter.name, parameter.default) {
        ("firewall_scope", _) => format!(
            "`{}` for nft, `{}` for iptables-api",
            scope("nft"),
            scope("iptables-api")
        ),
        (_, None) => "none".to_owned(),
        (_, Some(RawValue::Int(number))) => number.to_string(),
        (_, Some(RawValue::Text(text))) => format!("`{text}`"),
    }
}

#[test]
fn parameters() {
    let section_of_all = section("## 7 Parameters");
    let documented = headings(section_of_all);
    // A second name stands in the section of the first.
    for row in PARAMETERS {
        if let Some(name) = row.alias_of {
            let text = section(&format!("#### {name} ("));
            assert!(text.contains(&format!("`{}`", row.name)), "{}", row.name);
        }
    }
    let rows: Vec<&Parameter> = PARAMETERS
        .iter()
        .filter(|row| row.alias_of.is_none())
        .collect();
    let there: Vec<String> = rows
        .iter()
        .map(|parameter| {
            let kind = match parameter.kind {
                Kind::Int { .. } => "int",
                Kind::Text { .. } => "str",
            };
            format!("{} ({kind})", parameter.name)
        })
        .collect();
    assert_eq!(
        set(documented.iter().copied()),
        set(there.iter().map(String::as_str))
    );
    assert_eq!(
        documented.len(),
        there.len(),
        "a parameter stands there twice"
    );

    let overview: Vec<&str> = section_of_all
        .lines()
        .filter(|line| line.starts_with("| [`"))
        .collect();
    assert_eq!(
        overview.len(),
        there.len(),
        "rows of the table of parameters"
    );
    for (parameter, heading) in rows.into_iter().zip(&there) {
        let text = section(&format!("#### {heading}"));
        let name = parameter.name;
        let accepted = match parameter.kind {
            Kind::Int { .. } => entry(text, "Range"),
            Kind::Text { .. } => entry(text, "Accepted"),
        };
        assert_eq!(
            accepted,
            Some(parameter.accepted().as_str()),
            "what {name} accepts"
        );
        assert_eq!(
            entry(text, "Default"),
            Some(default_of(parameter).as_str()),
            "the default of {name}"
        );
        let row = format!(
            "| [`{name}`](#{}) | {} |",
            heading.replace(['(', ')'], "").replace(' ', "-"),
            default_of(parameter)
        );
        assert_eq!(
            overview
                .iter()
                .filter(|line| line.starts_with(&row))
                .count(),
            1,
            "the table of parameters has no row {row}"
        );
        let unit = entry(text, "Unit").unwrap_or_default();
        assert_eq!(unit, parameter.unit, "the unit of {name}");
        let example = entry(text, "Example").unwrap_or_else(|| panic!("{name} has no example"));
        let value = example
            .strip_prefix(&format!("`modparam(\"apiban\", \"{name}\", "))
            .and_then(|rest| rest.strip_suffix(")`"))
            .unwrap_or_else(|| panic!("the example of {name}: {example}"));
        accept(name, value);
    }
}

/// Takes a value as `modparam` has it.
fn accept(name: &str, value: &str) {
    let parameter = parameter(name).unwrap_or_else(|| panic!("no parameter {name}"));
    let given = match value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(text) => RawValue::Text(text),
        None => RawValue::Int(value.parse().expect("a number or a string in quotes")),
    };
    let taken = Config::default().set(parameter, given);
    assert_eq!(taken, Ok(()), "{name}");
}

/// Every `modparam` line of the README, wherever it stands, is one that the module takes.
#[test]
fn every_modparam_line_is_right() {
    let mut count = 0;
    for (at, begin) in README.match_indices("modparam(\"apiban\", \"") {
        let line = README[at + begin.len()..].lines().next().unwrap_or("");
        // One line of the migration is broken in two for its narrow column.
        if let Some((name, rest)) = line.split_once("\", ") {
            let value = rest.rsplit_once(')').expect("a closing bracket").0;
            accept(name, value);
            count += 1;
        }
    }
    assert!(count > PARAMETERS.len(), "{count}");
}

/// The name of a documented function and its arguments, all of them optional or all of them needed.
fn signature(heading: &str) -> (&str, Vec<&str>) {
    let (name, arguments) = heading
        .split_once('(')
        .unwrap_or_else(|| panic!("no function: {heading}"));
    let arguments = arguments
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    (name, arguments.collect())
}

fn names(arguments: &[Argument]) -> Vec<&'static str> {
    arguments.iter().map(|argument| argument.name()).collect()
}

#[test]
fn functions() {
    let there: Vec<(&str, Vec<&str>)> = FUNCTIONS
        .iter()
        .map(|function| (function.name, names(function.arguments)))
        .collect();
    let documented: Vec<(&str, Vec<&str>)> = headings(section("## 8 Functions"))
        .into_iter()
        .map(signature)
        .collect();
    assert_eq!(documented, there);
}

#[test]
fn kemi_functions() {
    let there: Vec<(String, Vec<&str>)> = FUNCTIONS
        .iter()
        .flat_map(|function| {
            let forms = function.kemi.iter().enumerate();
            forms.map(|(count, name)| {
                let arguments = names(&function.arguments[..count]);
                (format!("KSR.apiban.{name}"), arguments)
            })
        })
        .collect();
    let documented: Vec<(String, Vec<&str>)> = headings(section("## 12 KEMI"))
        .into_iter()
        .map(|heading| {
            let (name, arguments) = signature(heading);
            (name.to_owned(), arguments)
        })
        .collect();
    assert_eq!(documented, there);
}

#[test]
fn rpc_commands() {
    let there: Vec<(&str, Vec<&str>)> = COMMANDS
        .iter()
        .map(|command| (command.name, command.arguments.to_vec()))
        .collect();
    let documented: Vec<(&str, Vec<&str>)> = headings(section("## 10 RPC"))
        .into_iter()
        .map(|heading| {
            let mut words = heading
                .split([' ', '[', ']'])
                .filter(|word| !word.is_empty());
            (words.next().unwrap_or(""), words.collect())
        })
        .collect();
    let sorted = |mut commands: Vec<_>| {
        commands.sort();
        commands
    };
    assert_eq!(sorted(documented), sorted(there));
}

/// The first cells of a table's rows, which are in backquotes.
fn rows(section: &'static str) -> Vec<&'static str> {
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect()
}

#[test]
fn statistics() {
    let there: Vec<&str> = STATISTICS.iter().map(|statistic| statistic.name).collect();
    assert_eq!(rows(section("## 11 Statistics")), there);
}

#[test]
fn event_routes_and_variables() {
    let documented = headings(section("## 9 Event routes"));
    let routes = EventKind::ALL.map(|kind| format!("event_route[{}]", kind.route()));
    let variables = VARIABLES
        .iter()
        .map(|variable| format!("$apiban({})", variable.name));
    let there: Vec<String> = routes.into_iter().chain(variables).collect();
    assert_eq!(documented, there);
}

#[test]
fn states() {
    // The numbers go up without a gap; one beyond the last is taken for the first.
    let first = FeedState::from_number(0);
    let feed: Vec<&str> = std::iter::once(first)
        .chain(
            (1..)
                .map(FeedState::from_number)
                .take_while(|state| *state != first),
        )
        .map(FeedState::as_str)
        .collect();
    assert_eq!(rows(section("### 6.1 feed.state")), feed);
    let firewall = [
        State::Off,
        State::Starting,
        State::Ok,
        State::Degraded,
        State::NoPermission,
    ];
    // A new one makes this incomplete.
    let _ = |state| match state {
        State::Off | State::Starting | State::Ok | State::Degraded | State::NoPermission => (),
    };
    let firewall = firewall.map(State::name);
    assert_eq!(rows(section("### 6.3 firewall.state")), firewall);
}

#[test]
fn links_lead_somewhere() {
    let anchors: BTreeSet<String> = README
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect();
    for (at, _) in README.match_indices("](#") {
        let anchor = README[at + 3..].split(')').next().unwrap_or("");
        assert!(anchors.contains(anchor), "no heading for #{anchor}");
    }
}

/// The documented functions and variables are what a running Kamailio knows.
#[test]
fn kamailio_knows_what_is_documented() {
    let call = |name: &str, count: usize| {
        let arguments = vec!["\"$si\""; count].join(", ");
        format!("{name}({arguments});\n")
    };
    let functions: Vec<_> = headings(section("## 8 Functions"))
        .into_iter()
        .map(signature)
        .map(|(name, arguments)| (name, arguments.len()))
        .collect();
    let mut statements = String::new();
    for &(name, most) in &functions {
        (0..=most).for_each(|count| statements.push_str(&call(name, count)));
    }
    let mut routes = String::new();
    let events = headings(section("## 9 Event routes"));
    let (events, variables): (Vec<_>, Vec<_>) = events
        .into_iter()
        .partition(|heading| heading.starts_with("event_route"));
    // A variable in a text is looked up later than `kamailio -c` goes; one in an assignment is not.
    for variable in variables {
        statements.push_str(&format!("$var(x) = {variable};\n"));
    }
    for event in events {
        routes.push_str(&format!("{event} {{ {statements} }}\n"));
    }
    for release in Release::all() {
        let all = Kamailio::builder()
            .release(&release)
            .request_route(&statements)
            .routes(&routes)
            .check();
        assert!(all.is_ok(), "{}: {all:?}", release.name());
    }
    for (name, most) in functions {
        let one_more = Kamailio::builder()
            .request_route(&call(name, most + 1))
            .check();
        assert!(one_more.is_err(), "{name} takes more than {most}");
    }
    let unknown = Kamailio::builder()
        .request_route("$var(x) = $apiban(nonsense);")
        .check();
    assert!(unknown.is_err());
}

#[test]
fn the_sample_is_accepted_in_every_release() {
    for release in Release::all() {
        for defines in [
            &[][..],
            &["APIBAN_EARLY"],
            &["APIBAN_DEMO", "APIBAN_EARLY"],
            &["APIBAN_PBX=\"sip:192.0.2.10\""],
        ] {
            let mut builder = Kamailio::builder().release(&release).config(SAMPLE);
            for define in defines {
                builder = builder.define(define);
            }
            let result = builder.check();
            assert!(result.is_ok(), "{} {defines:?}: {result:?}", release.name());
        }
    }
}

/// Garbage and a scanner that gives its name get their sources banned, and an event route says so.
#[test]
fn the_sample_bans_in_every_release() {
    for (release, early) in Release::all()
        .into_iter()
        .zip([true, false].into_iter().cycle())
    {
        let mut builder = Kamailio::builder()
            .release(&release)
            .config(SAMPLE)
            .file("key", "a-key\n")
            .define("APIBAN_KEY_FILE=\"@DIR@/key\"")
            // Nobody listens there.
            .define("APIBAN_URL=\"http://127.0.0.1:9/api\"")
            .define("APIBAN_DEMO");
        if early {
            builder = builder.define("APIBAN_EARLY");
        }
        let kamailio = builder.start();
        kamailio.assert_answered("127.0.0.66");
        let mut sip = kamailio.udp("127.0.0.66").with_deadline(MOMENT);
        assert_eq!(sip.raw(&[b'x'; 64]), Answer::Nothing);
        kamailio.wait_for_log("apiban: 127.0.0.66 banned: bad SIP", SOON);
        kamailio.assert_dropped("127.0.0.66");

        let mut sip = kamailio.udp("127.0.0.77").with_deadline(MOMENT);
        let scan = sip.text("OPTIONS", "scan");
        let scan = scan.replacen("apiban-test", "friendly-scanner", 1);
        assert_eq!(sip.raw(scan.as_bytes()), Answer::Nothing);
        kamailio.wait_for_log("127.0.0.77 banned: scanner: friendly-scanner", SOON);
        kamailio.assert_dropped("127.0.0.77");
        kamailio.assert_answered("127.0.0.5");
    }
}

/// One forged UDP packet is enough for most of the examples, so none of them bans for long.
#[test]
fn examples_ban_for_an_hour_at_most() {
    let sample = include_str!("../../../kamailio.cfg.sample");
    let begin = "apiban_block(\"$si\", \"";
    let mut seen = 0;
    for text in [README, sample] {
        for (at, begin) in text.match_indices(begin) {
            let rest = &text[at + begin.len()..];
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            // A ttl that is an error on purpose has other characters.
            if rest[digits.len()..].starts_with('"') {
                let seconds: u32 = digits.parse().expect("seconds");
                assert!(seconds <= 3_600, "{}", rest.lines().next().unwrap_or(""));
                seen += 1;
            }
        }
    }
    assert!(seen >= 4, "{seen} examples");
}
