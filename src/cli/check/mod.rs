//! `apiban check`: is an address listed, by whom, and until when?

mod answer;
mod live;

use std::io::Write;

use serde::Serialize;

use super::args::{CheckOptions, Part, Selection};
use super::config::Settings;
use super::exit::{Exit, Failure};
use super::lines;
use super::listing::{self, Item, Listing, TrustList};
use super::times;
use crate::address::Subnet;
use crate::clock::UnixSeconds;
use answer::Answer;
use live::Live;

/// What is known of one address.
#[derive(Debug, Default, Serialize)]
struct Verdict {
    ip: String,
    listed: bool,
    /// `feed`, `local`, `service` (asked just now) or `none`.
    source: &'static str,
    /// The entry that covers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<UnixSeconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<UnixSeconds>,
    /// The rule that trusts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted: Option<String>,
    /// Of a prefix: how many entries lie in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    inside: Option<usize>,
}

/// Looks every address up; with `--live` the service is asked for those that are not listed here.
pub fn run(settings: &Settings, options: &CheckOptions, json: bool) -> Result<Exit, Failure> {
    let asked = parse_all(&options.addresses)?;
    let trust = TrustList::new(&settings.trusted()?, settings.config.trust_self);
    let items = known(settings, options.live)?;
    let mut live = options.live.then(|| Live::new(settings)).transpose()?;
    let mut verdicts = Vec::with_capacity(asked.len());
    for subnet in asked {
        let mut verdict = look_up(&items, subnet);
        verdict.trusted = trust.spares(subnet).map(|rule| rule.to_string());
        if let Some(live) = live.as_mut().filter(|_| !verdict.listed) {
            ask(live, subnet, &mut verdict)?;
        }
        verdicts.push(verdict);
    }
    if json {
        lines::json(&verdicts)?;
    } else {
        let now = times::now();
        let mut out = lines::stdout();
        for verdict in &verdicts {
            writeln!(out, "{}", in_words(verdict, now))?;
        }
        out.flush()?;
    }
    let any = verdicts.iter().any(|verdict| verdict.listed);
    Ok(if any { Exit::Ok } else { Exit::None })
}

fn parse_all(texts: &[String]) -> Result<Vec<Subnet>, Failure> {
    let parse = |text: &String| {
        text.parse().map_err(|error| {
            Failure::trouble(format!(
                "{error}; give addresses such as 192.0.2.7 or 2001:db8::/64"
            ))
        })
    };
    texts.iter().map(parse).collect()
}

/// What the state file holds. Who asks the service needs no state file.
fn known(settings: &Settings, live: bool) -> Result<Vec<Item>, Failure> {
    let everything = Selection {
        source: Part::All,
        ..Selection::default()
    };
    if live {
        let path = listing::state_path(settings);
        if !path.is_ok_and(|path| path.exists()) {
            return Ok(Vec::new());
        }
    }
    Ok(Listing::read(settings, everything)?.items)
}

fn look_up(items: &[Item], subnet: Subnet) -> Verdict {
    let mut verdict = Verdict {
        ip: subnet.to_string(),
        source: "none",
        ..Verdict::default()
    };
    let covering = items
        .iter()
        .filter(|item| covers(item.subnet, subnet))
        .max_by_key(|item| item.until);
    if let Some(item) = covering {
        verdict.listed = true;
        verdict.source = item.source.name();
        verdict.entry = Some(item.subnet.to_string());
        verdict.since = Some(item.since);
        verdict.until = Some(item.until);
    }
    if !subnet.is_host() {
        let inside = items.iter().filter(|item| covers(subnet, item.subnet));
        verdict.inside = Some(inside.count());
    }
    verdict
}

/// True if every address of `inner` lies in `outer`.
fn covers(outer: Subnet, inner: Subnet) -> bool {
    outer.prefix_len() <= inner.prefix_len() && outer.contains(inner.address())
}

fn ask(live: &mut Live<'_>, subnet: Subnet, verdict: &mut Verdict) -> Result<(), Failure> {
    if !subnet.is_host() {
        return Err(Failure::trouble(format!(
            "{subnet}: the service checks single addresses only; leave --live out"
        )));
    }
    match live.ask(subnet.address())? {
        Answer::Listed => {
            verdict.listed = true;
            verdict.source = "service";
        }
        _ => verdict.source = "none",
    }
    Ok(())
}

fn in_words(verdict: &Verdict, now: UnixSeconds) -> String {
    let ip = &verdict.ip;
    let mut text = match (verdict.source, verdict.until) {
        ("none", _) => format!("{ip}: not listed"),
        ("service", _) => format!("{ip}: listed by the service, not in the state file yet"),
        (source, until) => {
            let who = match source {
                "local" => "banned locally",
                _ => "listed by APIBAN",
            };
            let until = until.unwrap_or_default();
            let left = times::span(until.seconds_since(now));
            let entry = verdict.entry.as_ref().filter(|entry| *entry != ip);
            let by = entry
                .map(|entry| format!(" as {entry}"))
                .unwrap_or_default();
            format!("{ip}: {who}{by} until {}, {left} left", times::point(until))
        }
    };
    if let Some(inside) = verdict.inside.filter(|_| !verdict.listed) {
        text.push_str(&format!(" as a whole; {inside} entries lie in it"));
    }
    if let Some(rule) = &verdict.trusted {
        text.push_str(&format!("; trusted by {rule}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::at;

    fn item(text: &str, until: u32) -> Item {
        Item {
            subnet: text.parse().unwrap(),
            source: Part::Feed,
            since: at(1),
            until: at(until),
            hits: 0,
        }
    }

    #[test]
    fn prefixes_cover_and_hold() {
        let items = [item("192.0.2.1", 100), item("198.51.100.0/24", 90)];
        let look = |text: &str| in_words(&look_up(&items, text.parse().unwrap()), at(40));
        assert_eq!(
            look("192.0.2.1"),
            "192.0.2.1: listed by APIBAN until 1970-01-01 00:01 UTC, 1 min left"
        );
        assert!(look("198.51.100.77").contains("as 198.51.100.0/24 until"));
        assert!(look("198.51.100.0/25").contains("as 198.51.100.0/24 until"));
        assert_eq!(
            look("192.0.2.0/24"),
            "192.0.2.0/24: not listed as a whole; 1 entries lie in it"
        );
        assert_eq!(look("203.0.113.1"), "203.0.113.1: not listed");
        assert_eq!(look("2001:db8::1"), "2001:db8::1: not listed");
    }
}
