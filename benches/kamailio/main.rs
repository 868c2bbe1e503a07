//! The module in a real Kamailio, measured against APIBAN's own recipe for Kamailio and other peers.
//!
//! `tests/bench` runs it and describes its options. Traffic stays on loopback; what touches the
//! firewall runs in a network namespace of its own.

mod machine;
mod options;
mod proc;
mod report;
mod samples;
mod script;
mod setup;

#[path = "../../tests/support/feed_server.rs"]
mod feed_server;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::fs;

use options::Options;
use report::Section;

fn main() {
    let options = Options::parse();
    let machine = machine::describe();
    let stopwatch = setup::stopwatch();
    let mut sections: Vec<Section> = Vec::new();
    if options.wants('a') {
        sections.push(script::run(&options, &stopwatch));
    }
    let _ = fs::remove_file(stopwatch.with_extension("so"));

    let mut head = String::from("Written by `tests/bench`; do not edit.");
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
