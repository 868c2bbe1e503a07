//! a. What one check costs the script.

use std::collections::HashMap;
use std::path::Path;

use crate::options::Options;
use crate::report::Section;
use crate::samples::Samples;
use crate::setup::{self, unrolled};

/// Statements in one turn of a loop, from a fixed source.
const UNROLLED: usize = 100;
/// Turns of a hundred `noop()` before each run. Statements took up to 1.6 times as long in the first milliseconds after
/// the random addresses of a list of a million, also those that do nothing.
const SETTLE_TURNS: usize = 10_000;
/// Kamailios among which the runs are shared out.
const STARTS: usize = 3;
/// Different addresses in one turn of a loop, where they are random.
const ADDRESSES: usize = 1000;

/// Statements about the source of the packet in hand.
const FIXED: [(&str, &str); 9] = [
    ("loop", ""),
    ("variable", "if ($var(zero) == 1) { ; }"),
    ("noop", "noop();"),
    ("if_noop", "if (noop()) { ; }"),
    ("if_nope", "if (nope()) { ; }"),
    ("check", "apiban_check();"),
    ("if_check", "if (apiban_check()) { ; }"),
    ("sht11", "if ($sht(size11=>$si) != $null) { ; }"),
    ("sht14", "if ($sht(size14=>$si) != $null) { ; }"),
];

/// The `n`th address of a kind.
type Address = fn(usize) -> String;

/// Whom the packet in hand is from, and whether all of [`FIXED`] is measured with it.
const STATES: [(&str, Address, bool); 4] = [
    ("hit", setup::banned_source, true),
    ("miss", setup::strange_source, true),
    ("trusted", setup::trusted_source, false),
    ("near", setup::neighbour_source, false),
];

/// Whose addresses are the random ones.
const LISTS: [(&str, Address); 2] = [("hit", setup::listed), ("miss", setup::unlisted)];

/// Those of [`FIXED`] that a source needs from which only `if (apiban_check())` is measured.
const FEW: [&str; 3] = ["loop", "if_nope", "if_check"];

/// Statements about `$var(ip)`.
const RANDOM: [(&str, &str); 5] = [
    ("set", ""),
    ("noop", "if (noop(\"$var(ip)\")) { ; }"),
    ("check", "if (apiban_check(\"$var(ip)\")) { ; }"),
    ("sht11", "if ($sht(size11=>$var(ip)) != $null) { ; }"),
    ("sht14", "if ($sht(size14=>$var(ip)) != $null) { ; }"),
];

const TEXT: &str = "\
All in a Kamailio with one worker, which runs each statement thousands of times in a row: a hundred \
copies in a loop, the empty loop measured as well and taken off (\"net\"). Time on the CPU by the clock of \
the thread, so that other programs on the machine do not count. The runs take turns with eight sources, \
and are shared out among three starts of Kamailio, since it matters where things happen to lie in memory. \
Each run measures all statements one after another, those that read much memory last, and ratios are those \
of the same run. `noop()` is an exported function of a module that does nothing (benches/kamailio/bench.c), \
`nope()` the same where the answer is no: no function of a module can cost less. Hash tables are htable's, \
with `size=11` as in APIBAN's recipe and with `size=14`. \"Random\" takes one of 1,000 addresses spread \
over the whole list each time, as `$var(ip)`; the assignment is taken off. \"Near a trusted address\" is a source \
that shares the first 13 bits with one: only then a check looks for a rule of trust.";

type Times = HashMap<String, Samples>;

/// Runs the part.
pub fn run(options: &Options, stopwatch: &Path) -> Section {
    let mut section = Section::new("Script cost of one check", TEXT);
    let sizes = options.pick(&[1_300, 100_000][..], &[1_300, 5_000, 100_000, 1_000_000]);
    let mut worst_noop = Samples::default();
    for &entries in sizes {
        eprintln!("a: script cost with {entries} entries");
        let times = measure(options, stopwatch, entries);
        let net = |kind: &str, less: &str| times[kind].less(&times[less]);
        let size = thousands(entries);

        let table = section.table(&format!("{size} listed, the packet's source"), "ns, net");
        table.row("`noop()`", net("hit_noop", "hit_loop"));
        table.row("`apiban_check()`, listed", net("hit_check", "hit_loop"));
        table.row(
            "`apiban_check()`, not listed",
            net("miss_check", "miss_loop"),
        );
        table.row("`if ($var(zero) == 1)`", net("hit_variable", "hit_loop"));
        table.row("`if (noop())`", net("hit_if_noop", "hit_loop"));
        table.row("`if (nope())`", net("hit_if_nope", "hit_loop"));
        for (state, word) in [("hit", "listed"), ("miss", "not listed")] {
            for (kind, name) in [
                ("if_check", "`if (apiban_check())`"),
                ("sht11", "`if ($sht(apiban=>$si) != $null)`, size 11"),
                ("sht14", "the same, size 14"),
            ] {
                let kind = format!("{state}_{kind}");
                table.row(
                    &format!("{name}, {word}"),
                    net(&kind, &format!("{state}_loop")),
                );
            }
        }
        table.row(
            "`if (apiban_check())`, trusted",
            net("trusted_if_check", "trusted_loop"),
        );
        table.row(
            "`if (apiban_check())`, not listed, near a trusted address",
            net("near_if_check", "near_loop"),
        );
        table.compared_with("`if (noop())`");

        let table = section.table(&format!("{size} listed, random addresses"), "ns, net");
        table.row(
            "`if (noop(\"$var(ip)\"))`",
            net("random_hit_noop", "random_hit_set"),
        );
        for (state, word) in [("hit", "listed"), ("miss", "not listed")] {
            for (kind, name) in [
                ("check", "`if (apiban_check(\"$var(ip)\"))`"),
                ("sht11", "`if ($sht(apiban=>$var(ip)) != $null)`, size 11"),
                ("sht14", "the same, size 14"),
            ] {
                let kind = format!("random_{state}_{kind}");
                let set = format!("random_{state}_set");
                table.row(&format!("{name}, {word}"), net(&kind, &set));
            }
        }
        table.compared_with("`if (noop(\"$var(ip)\"))`");

        for (state, peer) in [
            ("hit", "if_noop"),
            ("miss", "if_nope"),
            ("trusted", "if_nope"),
        ] {
            let check = &times[&format!("{state}_if_check")];
            let ratio = check.ratio(&times[&format!("{state}_{peer}")]);
            if worst_noop.0.is_empty() || ratio.median() > worst_noop.median() {
                worst_noop = ratio;
            }
        }
        if entries == 100_000 {
            for (state, word) in [("hit", "listed"), ("miss", "not listed")] {
                for (sht, size) in [("sht11", 11), ("sht14", 14)] {
                    let of = |kind: &str| net(&format!("{state}_{kind}"), &format!("{state}_loop"));
                    section.target(
                        &format!(
                            "a check against `$sht` (size {size}), 100,000 entries, {word}, net"
                        ),
                        of("if_check").ratio(&of(sht)),
                        0.4,
                        "times",
                    );
                }
            }
            let bare = times["miss_check"].ratio(&times["miss_noop"]);
            section.target(
                "bare `apiban_check()` against bare `noop()`, 100,000 entries, not listed, total",
                bare,
                1.15,
                "times",
            );
        }
    }
    section.target(
        "`if (apiban_check())` against an `if` with a function that does nothing, total, the worst of listed, not listed and trusted",
        worst_noop,
        1.15,
        "times",
    );
    section
}

/// CPU time in ns of one statement, by kind, one sample a run.
fn measure(options: &Options, stopwatch: &Path, entries: usize) -> Times {
    let mut times = Times::new();
    let starts = options.pick(1, STARTS);
    let runs = options.runs(7, 41).div_ceil(starts);
    for _ in 0..starts {
        measure_once(options, stopwatch, entries, runs, &mut times);
    }
    times
}

/// So many runs in one Kamailio.
fn measure_once(
    options: &Options,
    stopwatch: &Path,
    entries: usize,
    runs: usize,
    times: &mut Times,
) {
    let fixed_turns = options.pick(50, 200);
    let random_turns = options.pick(5, 20);
    let mut builder = setup::builder(stopwatch, entries)
        .param("trust", setup::trust())
        .modparam("htable", "htable", "size11=>size=11;")
        .modparam("htable", "htable", "size14=>size=14;")
        .routes(&setup::fill("size11", entries))
        .routes(&setup::fill("size14", entries))
        .routes(setup::WRITE_LAPS);
    for (state, _, whole) in STATES {
        let fixed: String = FIXED
            .iter()
            .filter(|(kind, _)| whole || FEW.contains(kind))
            .map(|(kind, statement)| {
                let copies = unrolled(UNROLLED, |_| (*statement).into());
                setup::timed(&format!("{state}_{kind}"), &copies, fixed_turns)
            })
            .collect();
        builder = builder.routes(&format!("route[{state}] {{ $var(zero) = 0; {fixed} }}"));
    }
    for (state, address) in LISTS {
        let random: String = RANDOM
            .iter()
            .map(|(kind, statement)| {
                let mut dice = Dice(entries as u64);
                let picks: Vec<usize> = (0..ADDRESSES)
                    .map(|_| dice.roll(entries - setup::SOURCES))
                    .collect();
                let copies = unrolled(ADDRESSES, |n| {
                    format!("$var(ip) = \"{}\"; {statement}", address(picks[n]))
                });
                setup::timed(&format!("random_{state}_{kind}"), &copies, random_turns)
            })
            .collect();
        builder = builder.routes(&format!("route[random_{state}] {{ {random} }}"));
    }
    let noops = unrolled(UNROLLED, |_| "noop();".into());
    let settle = setup::timed("settle", &noops, SETTLE_TURNS);
    builder = builder.routes(&format!("route[settle] {{ {settle} }}"));
    let kamailio = builder.start();
    for table in ["size11", "size14"] {
        setup::fill_table(&kamailio, table, entries);
    }
    // The first run warms caches up and is thrown away.
    for run in 0..=runs {
        setup::run_route(&kamailio, setup::STRANGER, "settle");
        for (state, source, _) in STATES {
            setup::run_route(&kamailio, &source(run), state);
        }
        for (state, _) in LISTS {
            setup::run_route(&kamailio, setup::STRANGER, &format!("random_{state}"));
        }
        for (kind, lap) in setup::laps(&kamailio) {
            let count = if kind.starts_with("random") {
                ADDRESSES * random_turns
            } else {
                UNROLLED * fixed_turns
            };
            if run > 0 {
                times
                    .entry(kind)
                    .or_default()
                    .0
                    .push(lap.cpu / count as f64);
            }
        }
    }
    assert_eq!(kamailio.statistic("apiban", "feed_entries"), entries as u64);
    let blocked = kamailio.statistic("apiban", "blocked_feed");
    assert!(blocked > 0, "nobody was blocked");
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }
}

/// `1300` as `1,300`.
fn thousands(number: usize) -> String {
    let (high, low) = (number / 1000, number % 1000);
    if high >= 1000 {
        format!("{},{:03},{low:03}", high / 1000, high % 1000)
    } else {
        format!("{high},{low:03}")
    }
}
