//! h. What a ban costs the worker.

use std::path::Path;
use std::time::Duration;

use crate::options::Options;
use crate::report::Section;
use crate::samples::Samples;
use crate::setup::{self, timed, timed_once, unrolled, Lap, STRANGER};
use apiban_testing::iptables_api::Daemon;

/// What one call of the real daemon took, which runs iptables several times.
const DAEMON: Duration = Duration::from_millis(23);
const UNROLLED: usize = 100;
const TURNS: usize = 10;

const TEXT: &str = "\
Bans of 1,000 addresses a run in a worker, with `block_budget=0` and no firewall, less the same with \
`noop(\"...\")`. The peer is a call of http_client to a stand-in for iptables-api on loopback that takes 23 ms \
to answer, as the real one was measured to; the worker waits for it. What the next packet waits is the \
time on the clock; \"CPU\" leaves out the time that other programs took. The first bans after a start \
are slower: the kernel has to provide each page of the table.";

/// Runs the part.
pub fn run(options: &Options, stopwatch: &Path) -> Section {
    let mut section = Section::new("A ban in the worker", TEXT);
    let daemon = Daemon::start();
    daemon.state().delay = DAEMON;
    let address = |n: usize| format!("31.{n}.$var(i).$var(run)");
    let many = |name: &str, statement: &dyn Fn(usize) -> String| {
        timed(name, &unrolled(UNROLLED, statement), TURNS)
    };
    let routes = format!(
        "route[bans] {{\n$var(run) = $var(run) + 1;\n{}{}{}{}}}\nroute[peer] {{ {} }}\n{}",
        many("noop_new", &|n| format!("noop(\"{}\");", address(n))),
        many("new", &|n| format!("apiban_block(\"{}\");", address(n))),
        many("noop_again", &|_| "noop(\"31.255.0.1\");".into()),
        many("again", &|_| "apiban_block(\"31.255.0.1\");".into()),
        timed_once(
            "http_client",
            &format!(
                "http_client_query(\"{}/addip/192.0.2.77\", \"$var(result)\");",
                daemon.url()
            )
        ),
        setup::WRITE_LAPS
    );
    let kamailio = setup::builder(stopwatch, 1)
        .load("http_client")
        .param("block_budget", 0)
        .param("max_local_entries", 262_144)
        .routes(&routes)
        .start();
    let runs = options.runs(7, 41);
    let mut laps: Vec<(String, Lap)> = Vec::new();
    for _ in 0..runs {
        setup::run_route(&kamailio, STRANGER, "bans");
        setup::run_route(&kamailio, STRANGER, "peer");
        laps.extend(setup::laps(&kamailio));
    }
    let expected = (runs * UNROLLED * TURNS + 1) as u64;
    assert_eq!(kamailio.statistic("apiban", "local_entries"), expected);
    let per = |name: &str, count: usize, clock: fn(&Lap) -> f64| -> Samples {
        let found = laps.iter().filter(|lap| lap.0 == name);
        found
            .map(|lap| clock(&lap.1) / count as f64 / 1000.0)
            .collect()
    };
    let peer = "http_client to iptables-api (23 ms stand-in)";
    for (title, clock) in [
        ("a ban, CPU", (|lap| lap.cpu) as fn(&Lap) -> f64),
        ("a ban", |lap| lap.wall),
    ] {
        let all = UNROLLED * TURNS;
        let net = |name: &str, less: &str| per(name, all, clock).less(&per(less, all, clock));
        let new = net("new", "noop_new");
        let table = section.table(title, "us of the worker");
        table.row("apiban_block(), a new address", new.clone());
        table.row("the same, the first 1,000 after the start", new.0[0].into());
        table.row(
            "apiban_block(), the same address again",
            net("again", "noop_again"),
        );
        table.row(peer, per("http_client", 1, clock));
        table.compared_with(peer);
        section.target(
            &format!("{title}, a new address, in the worker"),
            new,
            1.0,
            "us",
        );
    }
    section
}
