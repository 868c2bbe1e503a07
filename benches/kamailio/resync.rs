//! f. What the workers notice of a full fetch.

use std::path::Path;
use std::time::Duration;

use crate::options::Options;
use crate::report::Section;
use crate::samples::Samples;
use crate::setup::{self, timed_once, unrolled, STRANGER};
use apiban_testing::feed_server::{FeedServer, Options as Service};
use apiban_testing::kamailio::Kamailio;
use apiban_testing::wait::wait_until;

const ENTRIES: usize = 100_000;
/// Checks in one block.
const CHECKS: usize = 100;
/// Blocks in one run of the route.
const BLOCKS: usize = 500;

const TEXT: &str = "\
100,000 listed; a worker runs blocks of 100 checks, `if (!apiban_check(\"...\"))` with addresses from all over \
the list, while the updater walks through 401 pages after `apiban.reload` and then sweeps. Each block's time \
is kept: \"wall\" is what a packet would wait, other programs on the machine included; \"CPU\" leaves out the \
time in which the worker had none. Blocks of 100 `noop(\"...\")` run in between, for comparison. No check \
may find an address missing.";

/// Runs the part.
pub fn run(options: &Options, stopwatch: &Path) -> Section {
    let mut section = Section::new("Checks during a full fetch", TEXT);
    let server = FeedServer::start(Service::new("benchmarkkey")).expect("feed server");
    server.list(&(0..ENTRIES).map(setup::listed).collect::<Vec<_>>());
    let kamailio = start(stopwatch, &server);
    let all = || kamailio.statistic("apiban", "feed_entries") == ENTRIES as u64;
    wait_until("the first fetch", Duration::from_secs(120), all);
    // The walk's last request, which finds nothing newer, has been answered.
    wait_until("the end of the walk", Duration::from_secs(20), || {
        pages(&server) > ENTRIES / 250
    });

    let mut seen: Vec<(&str, &str, Samples)> = Vec::new();
    let mut keep = |when: &'static str| {
        for (name, lap) in setup::laps(&kamailio) {
            let what = if name == "check" {
                "100 checks"
            } else {
                "100 noops"
            };
            for (clock, value) in [("wall", lap.wall), ("CPU", lap.cpu)] {
                let key = match (what, clock) {
                    ("100 checks", "wall") => "100 checks, wall",
                    ("100 checks", _) => "100 checks, CPU",
                    (_, "wall") => "100 noops, wall",
                    _ => "100 noops, CPU",
                };
                let found = seen.iter_mut().find(|one| one.0 == when && one.1 == key);
                match found {
                    Some(one) => one.2 .0.push(value / 1000.0),
                    None => seen.push((when, key, (value / 1000.0).into())),
                }
            }
        }
    };
    for round in 0..options.runs(1, 5) {
        eprintln!("f: full fetch {round}");
        for _ in 0..options.pick(5, 20) {
            setup::run_route(&kamailio, STRANGER, "blocks");
        }
        keep("idle");
        let before = pages(&server);
        kamailio.kamcmd(&["apiban.reload"]).expect("apiban.reload");
        while pages(&server) <= before + ENTRIES / 250 {
            setup::run_route(&kamailio, STRANGER, "blocks");
        }
        keep("full fetch");
    }
    let gaps = kamailio.log().matches("GAP").count();
    assert_eq!(gaps, 0, "checks missed a listed address");
    for (q, name) in [(0.5, "median"), (0.99, "99 %"), (0.999, "99.9 %")] {
        let table = section.table(&format!("{name} of the blocks"), "us");
        for (when, what, samples) in &seen {
            table.row(&format!("{what}, {when}"), samples.quantile(q).into());
        }
    }
    let find = |when: &str| {
        let found = seen
            .iter()
            .find(|one| one.0 == when && one.1 == "100 checks, CPU");
        found.map(|one| one.2.clone()).unwrap_or_default()
    };
    let blocks = find("full fetch").0.len();
    section.text.push_str(&format!(
        " {blocks} blocks of checks ran during full fetches; none was missed."
    ));
    section
}

fn start(stopwatch: &Path, server: &FeedServer) -> Kamailio {
    let step = ENTRIES / CHECKS;
    let checks = unrolled(CHECKS, |i| {
        let ip = setup::listed(i * step + i);
        format!("if (!apiban_check(\"{ip}\")) {{ xlog(\"L_ERR\", \"GAP {ip}\\n\"); }}")
    });
    let noops = unrolled(CHECKS, |i| {
        format!(
            "if (!noop(\"{}\")) {{ $var(x) = 1; }}",
            setup::listed(i * step + i)
        )
    });
    let blocks = format!(
        "route[blocks] {{
            $var(block) = 0;
            while ($var(block) < {BLOCKS}) {{
                {}{}
                $var(block) = $var(block) + 1;
            }}
        }}\n",
        timed_once("check", &checks),
        timed_once("noop", &noops)
    );
    setup::builder(stopwatch, ENTRIES)
        .file("apiban.state", "")
        .param("state_file", "")
        .param("api_key", "benchmarkkey")
        .param("api_url", server.url())
        .param("rate_limit_requests", 10_000)
        .param("rate_limit_window", 1)
        .routes(&blocks)
        .routes(setup::WRITE_LAPS)
        .start()
}

/// Answers of the service so far, the "nothing newer" at the end of a walk included.
fn pages(server: &FeedServer) -> usize {
    server.requests().len()
}
