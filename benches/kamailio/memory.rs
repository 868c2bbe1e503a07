//! e. What an entry weighs.

use std::path::Path;

use crate::options::Options;
use crate::proc::shared_pss;
use crate::report::Section;
use crate::setup;
use apiban_testing::kamailio::Kamailio;

/// Kamailio's own pool, in bytes: 512 MB.
const POOL: u64 = 512 << 20;

const TEXT: &str = "\
apiban: pages of its shared mappings that any process of Kamailio has touched (the sum of their Pss), with \
that many entries and `max_feed_entries` set to it, less the same of a module with one entry and \
`max_feed_entries` 1,000. What a record keeps besides address and end is counted as far as its pages are \
touched. htable (`size=14`): what Kamailio's shared memory has used more after the table was filled, \
`real_used` of `core.shmmem`.";

/// Runs the part.
pub fn run(options: &Options, stopwatch: &Path) -> Section {
    let mut section = Section::new("Memory", TEXT);
    let sizes = options.pick(&[100_000][..], &[100_000, 1_000_000]);
    let mut rows = Vec::new();
    let mut unused_rows = Vec::new();
    for &entries in sizes {
        eprintln!("e: memory of {entries} entries");
        let empty = touched(&start(stopwatch, 1_000, 1));
        let kamailio = start(stopwatch, entries, entries);
        let full = touched(&kamailio);
        let before = shm(&kamailio);
        setup::fill_table(&kamailio, "apiban", entries);
        let htable = (shm(&kamailio) - before) / entries as f64;
        let ours = (full - empty) / entries as f64;
        rows.push((format!("apiban, {entries} entries"), ours));
        rows.push((format!("htable, {entries} entries"), htable));
        unused_rows.push((
            format!("max_feed_entries {entries}, one entry"),
            empty / 1024.0,
        ));
        let what = format!("memory of an entry, {entries} entries");
        section.target(&what, ours.into(), 24.0, "bytes");
    }
    let table = section.table("memory of an entry", "bytes");
    for (name, bytes) in &rows {
        table.row(name, (*bytes).into());
    }
    let table = section.table("touched memory of the module with an unused list", "KiB");
    for (name, kilobytes) in &unused_rows {
        table.row(name, (*kilobytes).into());
    }
    section
}

fn start(stopwatch: &Path, capacity: usize, entries: usize) -> Kamailio {
    setup::builder(stopwatch, capacity)
        .file("apiban.state", setup::state_file(entries, None))
        .modparam("htable", "htable", "apiban=>size=14;")
        .routes(&setup::fill("apiban", entries))
        .start()
}

/// Bytes of our shared mappings that the processes have touched.
fn touched(kamailio: &Kamailio) -> f64 {
    let processes = kamailio.processes();
    processes
        .iter()
        .map(|one| shared_pss(one.pid, POOL))
        .sum::<u64>() as f64
}

fn shm(kamailio: &Kamailio) -> f64 {
    let reply = kamailio
        .jsonrpc("core.shmmem", serde_json::json!([]))
        .expect("core.shmmem");
    reply["real_used"].as_f64().expect("real_used")
}
