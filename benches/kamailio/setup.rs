//! Kamailios with full tables, and how they are asked to run one of their routes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use apiban::clock::UnixSeconds;
use apiban::config::Config;
use apiban::feed::Saved;
use apiban::state::{self, Ban, State};

use apiban_testing::kamailio::{Builder, Kamailio};
use apiban_testing::sip::{Answer, Sip};
use apiban_testing::wait::wait_until;

/// The banned source, in every list.
pub const BANNED: &str = "127.0.0.9";
/// A source that is in no list.
pub const STRANGER: &str = "127.0.0.8";
/// How many sources there are of either kind.
pub const SOURCES: usize = 8;
/// Longest that one route may run.
const PATIENCE: Duration = Duration::from_secs(600);

/// The `n`th source like [`BANNED`], from 0, which is itself. Where an entry happens to lie in memory can cost
/// more than what is measured, so that one source alone tells little.
pub fn banned_source(n: usize) -> String {
    format!("127.0.{}.9", n % SOURCES)
}

/// The `n`th source like [`STRANGER`].
pub fn strange_source(n: usize) -> String {
    format!("127.0.{}.8", n % SOURCES)
}

/// The `n`th source that is trusted, if [`trust`] is the value of the parameter `trust`. Far from [`BANNED`] and
/// [`STRANGER`], so that a check of those need not look for a rule, as almost no check need.
pub fn trusted_source(n: usize) -> String {
    format!("127.64.{}.7", n % SOURCES)
}

/// The `n`th source in no list that is so near to a trusted one that a check looks for a rule.
pub fn neighbour_source(n: usize) -> String {
    format!("127.64.{}.8", n % SOURCES)
}

/// All of [`trusted_source`], for the parameter.
pub fn trust() -> String {
    let sources: Vec<String> = (0..SOURCES).map(trusted_source).collect();
    sources.join(" ")
}

/// The `i`th listed address. [`FILL`] makes the same ones in the script.
pub fn listed(i: usize) -> String {
    format!("{}.{}.{}.7", 20 + (i >> 16), i >> 8 & 255, i & 255)
}

/// An address near it that is in no list.
pub fn unlisted(i: usize) -> String {
    format!("{}.{}.{}.9", 20 + (i >> 16), i >> 8 & 255, i & 255)
}

/// `count` bans as the state file holds them: the banned sources and the first of [`listed`].
pub fn bans(count: usize) -> Vec<Ban> {
    let now = UnixSeconds::saturating(apiban_testing::feed_server::now());
    let ban = |ip: String| Ban {
        ip,
        end: now.shifted(600_000),
        since: now,
        reason: String::new(),
        hits: 0,
    };
    let others = (0..count.saturating_sub(SOURCES)).map(listed);
    let sources = (0..SOURCES).map(banned_source);
    sources.chain(others).map(ban).collect()
}

/// The bytes of a state file with that list, as a module with the default source takes it.
pub fn state_file(count: usize, api_url: Option<&str>) -> Vec<u8> {
    let mut config = Config::default();
    if let Some(url) = api_url {
        config.api_url = url.parse().expect("a URL");
    }
    let source = config.source().expect("source").fingerprint();
    let now = UnixSeconds::saturating(apiban_testing::feed_server::now());
    let state = State {
        written: now,
        feed: Some(Saved {
            id: None,
            last_success: Some(now),
            last_full: Some(now),
            source,
            ..Saved::default()
        }),
        trusted: Vec::new(),
        listed: bans(count),
        local: Vec::new(),
    };
    state::encode(&state).expect("state file")
}

/// Builds the module with the stopwatch; gives its path without `.so`.
pub fn stopwatch() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let module = std::env::temp_dir().join(format!("apiban-bench-{}", std::process::id()));
    let status = Command::new("gcc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(module.with_extension("so"))
        .arg(root.join("benches/kamailio/bench.c"))
        .status()
        .expect("gcc is installed");
    assert!(status.success(), "benches/kamailio/bench.c does not build");
    module
}

/// A Kamailio with one worker, our module with `entries` listed addresses, htable, the stopwatch, and
/// requests to user `NAME` running `route[NAME]`.
pub fn builder(stopwatch: &Path, entries: usize) -> Builder {
    Kamailio::builder()
        .children(1)
        .without_tcp()
        .debug(1)
        .memory(512, 512)
        .global("max_while_loops=100000000")
        .load("htable")
        .load(stopwatch.to_str().expect("path"))
        .param("trust_self", 0)
        .param(
            "max_feed_entries",
            i64::try_from(entries.max(1000)).expect("count"),
        )
        .file("apiban.state", state_file(entries, None))
        .request_route("if ($rU != $null) { $var(route) = $rU; route($var(route)); }")
}

/// `route[fill_TABLE]`: puts the banned sources and the first of [`listed`] into a hash table, `entries` in all.
pub fn fill(table: &str, entries: usize) -> String {
    let sources: String = (0..SOURCES)
        .map(|n| format!("$sht({table}=>{}) = 1;\n", banned_source(n)))
        .collect();
    format!(
        "route[fill_{table}] {{
            {sources}
            $var(i) = 0;
            while ($var(i) < {}) {{
                $var(a) = 20 + ($var(i) >> 16);
                $var(b) = ($var(i) >> 8) & 255;
                $var(c) = $var(i) & 255;
                $var(ip) = \"\" + $var(a) + \".\" + $var(b) + \".\" + $var(c) + \".7\";
                $sht({table}=>$var(ip)) = 1;
                $var(i) = $var(i) + 1;
            }}
        }}\n",
        entries - SOURCES
    )
}

/// A route that runs `statements` over and over under the stopwatch. A loop costs microseconds a turn,
/// so the statement to be measured stands there many times.
pub fn timed(name: &str, statements: &str, turns: usize) -> String {
    format!(
        "$var(i) = 0;
        bench_start();
        while ($var(i) < {turns}) {{
            {statements}
            $var(i) = $var(i) + 1;
        }}
        bench_stop(\"{name}\");\n"
    )
}

/// Options of setpriv for a user who never was root and can do nothing.
pub const NO_RIGHTS: &[&str] = &[
    "--reuid=kamailio",
    "--regid=kamailio",
    "--init-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
];

/// Waits until so many addresses are in the socket filter.
pub fn wait_for_filter(kamailio: &Kamailio, entries: usize) {
    wait_until("the list in the filter", Duration::from_secs(20), || {
        kamailio.ask("apiban.status", &[])["socket_filter"]["elements"] == entries
    });
}

/// Has Kamailio run a route, as the message of `from`; gives back when it is through.
pub fn run_route(kamailio: &Kamailio, from: &str, route: &str) {
    let mut sip = kamailio.udp(from).with_deadline(PATIENCE);
    run_route_on(&mut sip, route, "");
}

/// The same on a client that is there already, with a header such as `X: y\r\n`.
pub fn run_route_on(sip: &mut Sip, route: &str, header: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let id = format!("bench-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let text = sip
        .text("OPTIONS", &id)
        .replacen("OPTIONS sip:", &format!("OPTIONS sip:{route}@"), 1)
        .replacen("Contact:", &format!("{header}Contact:"), 1);
    let answer = sip.raw(text.as_bytes());
    assert_eq!(
        answer,
        Answer::Status(200),
        "route {route} did not end well"
    );
}

/// Fills a hash table by its route and makes sure that it is full.
pub fn fill_table(kamailio: &Kamailio, table: &str, entries: usize) {
    run_route(kamailio, STRANGER, &format!("fill_{table}"));
    let stats = kamailio
        .jsonrpc("htable.stats", serde_json::json!([]))
        .expect("htable.stats");
    let found = stats
        .as_array()
        .expect("tables")
        .iter()
        .find(|one| one["name"] == table);
    assert_eq!(found.expect("table")["all"], entries, "{stats}");
}

/// A time that the stopwatch kept, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Lap {
    /// From start to stop.
    pub wall: f64,
    /// Of it, on the CPU.
    pub cpu: f64,
    /// When it was started, by the monotonic clock.
    pub start: u64,
}

/// The route that writes down what the stopwatch kept.
pub const WRITE_LAPS: &str = "route[write_laps] { bench_write(\"@DIR@/laps\"); }\n";

/// All times kept since the last call, with their names.
pub fn laps(kamailio: &Kamailio) -> Vec<(String, Lap)> {
    run_route(kamailio, STRANGER, "write_laps");
    let text = fs::read_to_string(kamailio.dir().join("laps")).expect("laps");
    let lap = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| words[i].parse::<u64>().expect("a number");
        let lap = Lap {
            wall: number(1) as f64,
            cpu: number(2) as f64,
            start: number(3),
        };
        (words[0].to_owned(), lap)
    };
    text.lines().map(lap).collect()
}

/// `count` copies of a statement, one a line.
pub fn unrolled(count: usize, statement: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for i in 0..count {
        let _ = writeln!(text, "{}", statement(i));
    }
    text
}

/// `statements` once under the stopwatch.
pub fn timed_once(name: &str, statements: &str) -> String {
    format!("bench_start();\n{statements}\nbench_stop(\"{name}\");\n")
}
