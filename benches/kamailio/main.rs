//! The module in a real Kamailio, measured against APIBAN's own recipe for Kamailio and other peers.
//!
//! `tests/tools/bench` runs it and describes its options. Traffic stays on loopback; what touches the
//! firewall runs in a network namespace of its own.

mod block;
mod cluster;
mod cron;
mod filter;
mod flood;
mod hooks;
mod kernel;
mod machine;
mod memory;
mod options;
mod packets;
mod proc;
mod program;
mod protection;
mod recipe;
mod report;
mod resync;
mod samples;
mod script;
mod setup;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use options::Options;
use report::Section;

fn main() {
    let options = Options::parse();
    if !machine::is_root() {
        eprintln!("not root: no network namespaces, so nothing with nft; no other user, so no socket filter");
    }
    let stopwatch = setup::stopwatch();
    for (letter, part) in PARTS {
        if options.wants(letter) {
            let when = when(&options);
            let sections = part(&options, &stopwatch);
            write(&options, &when, &sections);
        }
    }
    if let Some(text) = options
        .table
        .as_ref()
        .and_then(|path| fs::read_to_string(path).ok())
    {
        let text = format!(
            "Without Kamailio, in one process (`cargo bench --bench table`).\n\n```\n{}\n```\n",
            text.trim_end()
        );
        let section = Section::new("The ban table by itself", &text);
        write(&options, &when(&options), &[section]);
    }
    let _ = fs::remove_file(stopwatch.with_extension("so"));
}

/// When and how a section was measured.
fn when(options: &Options) -> String {
    let rough = match options.quick {
        true => " A quick run: the figures are rough.",
        false => "",
    };
    format!("{}{rough}", machine::now())
}

/// Puts sections into the report, which has what earlier runs measured too.
fn write(options: &Options, when: &str, sections: &[Section]) {
    let path = options.out.join("BENCHMARKS.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let head = format!(
        "Written by `tests/tools/bench`; do not edit.\n\n{}",
        machine::describe()
    );
    fs::write(&path, report::markdown(&head, &before, when, sections)).expect("BENCHMARKS.md");
}

/// A part of the benchmark: without root, some give nothing.
type Part = fn(&Options, &Path) -> Vec<Section>;

/// The parts and their letters, in order.
const PARTS: [(char, Part); 12] = [
    ('a', |options, stopwatch| {
        vec![script::run(options, stopwatch)]
    }),
    ('b', |options, stopwatch| {
        vec![apart(options, stopwatch, packets::run)]
    }),
    ('c', |options, stopwatch| {
        vec![apart(options, stopwatch, flood::run)]
    }),
    ('d', |options, _| vec![protection::run(options)]),
    ('e', |options, stopwatch| {
        vec![memory::run(options, stopwatch)]
    }),
    ('f', |options, stopwatch| {
        vec![resync::run(options, stopwatch)]
    }),
    ('g', |options, stopwatch| {
        with_root(|| {
            apart(options, stopwatch, |options, stopwatch, _| {
                kernel::run(options, stopwatch)
            })
        })
    }),
    ('h', |options, stopwatch| {
        vec![block::run(options, stopwatch)]
    }),
    ('i', |options, stopwatch| {
        with_root(|| filter::run(options, stopwatch))
    }),
    ('j', |options, stopwatch| {
        vec![apart(options, stopwatch, cluster::run)]
    }),
    ('k', |options, stopwatch| {
        vec![apart(options, stopwatch, program::run)]
    }),
    ('n', |options, stopwatch| {
        with_root(|| apart(options, stopwatch, |options, _, _| hooks::run(options)))
    }),
];

fn with_root(part: impl FnOnce() -> Section) -> Vec<Section> {
    machine::is_root().then(part).into_iter().collect()
}

/// Runs a part in a network namespace of its own, where that is possible.
fn apart(
    options: &Options,
    stopwatch: &Path,
    part: impl FnOnce(&Options, &Path, bool) -> Section + Send + 'static,
) -> Section {
    if !machine::is_root() {
        return part(options, stopwatch, false);
    }
    let (options, stopwatch): (Options, PathBuf) = (options.clone(), stopwatch.into());
    let (sender, receiver) = mpsc::channel();
    apiban_testing::netns::in_namespace(move || {
        let section = part(&options, &stopwatch, true);
        sender.send(section).expect("the main thread waits");
    });
    receiver.recv().expect("a section")
}
