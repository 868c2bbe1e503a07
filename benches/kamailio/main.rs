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
    let machine = machine::describe();
    let stopwatch = setup::stopwatch();
    let sections = measure(&options, &stopwatch);
    let _ = fs::remove_file(stopwatch.with_extension("so"));

    let mut head = String::from("Written by `tests/tools/bench`; do not edit.");
    if options.quick {
        head.push_str(" **A quick run: the figures are rough.**");
    }
    let head = format!("{head}\n\n{machine}");
    let table = options
        .table
        .as_ref()
        .and_then(|path| fs::read_to_string(path).ok());
    let text = report::markdown(&head, &sections, table.as_deref());
    fs::write(options.out.join("BENCHMARKS.md"), text).expect("BENCHMARKS.md");
}

/// All parts that are wanted, one after another.
fn measure(options: &Options, stopwatch: &Path) -> Vec<Section> {
    let mut sections = Vec::new();
    let root = machine::is_root();
    if !root {
        eprintln!("not root: no network namespaces, so nothing with nft; no other user, so no socket filter");
    }
    if options.wants('a') {
        sections.push(script::run(options, stopwatch));
    }
    if options.wants('c') {
        type Part = fn(&Options, &Path, bool) -> Section;
        for part in [packets::run as Part, flood::run] {
            sections.push(apart(options, stopwatch, root, part));
        }
    }
    if options.wants('d') {
        sections.push(protection::run(options));
    }
    if options.wants('e') {
        sections.push(memory::run(options, stopwatch));
    }
    if options.wants('f') {
        sections.push(resync::run(options, stopwatch));
    }
    if options.wants('g') && root {
        let part = |options: &Options, stopwatch: &Path, _| kernel::run(options, stopwatch);
        sections.push(apart(options, stopwatch, root, part));
    }
    if options.wants('h') {
        sections.push(block::run(options, stopwatch));
    }
    if options.wants('i') && root {
        sections.push(filter::run(options, stopwatch));
    }
    if options.wants('j') {
        sections.push(apart(options, stopwatch, root, cluster::run));
    }
    if options.wants('k') {
        sections.push(apart(options, stopwatch, root, program::run));
    }
    if options.wants('n') && root {
        let part = |options: &Options, _: &Path, _| hooks::run(options);
        sections.push(apart(options, stopwatch, root, part));
    }
    sections
}

/// Runs a part in a network namespace of its own, where that is possible.
fn apart(
    options: &Options,
    stopwatch: &Path,
    root: bool,
    part: impl FnOnce(&Options, &Path, bool) -> Section + Send + 'static,
) -> Section {
    if !root {
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
