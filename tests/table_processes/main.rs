//! The ban table between real processes: they insert, remove, sweep and look up the same few keys in a
//! shared mapping, and every answer must have an explanation.

mod fork;
mod history;

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use apiban::address::Subnet;
use apiban::clock::UnixSeconds;
use apiban::memory::{Arena, Line, Ordering};
use apiban::sys::mmap::Mapped;
use apiban::table::{Inserted, Table, TableLayout};
use fork::in_processes;
use history::{explainable, Action, Operation};

const PROCESSES: usize = 4;
/// The keys whose history is checked; the table is so small that all share chains.
const KEYS: [&str; 3] = ["192.0.2.1", "192.0.2.2", "2001:db8:1::/64"];
/// Keys that come and end all the time: their slots open and close in between.
const CHURN: [&str; 3] = ["192.0.2.8", "192.0.2.9", "2001:db8:9::/64"];
const NOW: UnixSeconds = UnixSeconds::new(100);
/// Room in the log of a process.
const OPERATIONS: usize = 100_000;
const WORK: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(9);

const INSERT: u64 = 0;
const REMOVE: u64 = 1;
const LOOKUP: u64 = 2;

fn subnets(texts: [&str; 3]) -> [Subnet; 3] {
    texts.map(|text| text.parse().unwrap())
}

/// A small generator: processes must not do the same in the same order.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed >> 16
}

/// One process: random operations on all keys, each noted with its times and its answer.
fn work(number: usize, table: &Table, log: &[Line], clock: Instant) {
    let (keys, churn) = (subnets(KEYS), subnets(CHURN));
    let now = || clock.elapsed().as_nanos() as u64;
    let mut seed = 0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1) << 20;
    let end = now() + WORK.as_nanos() as u64;
    for line in log {
        let dice = next(&mut seed);
        if dice >> 32 & 3 == 0 {
            // In the table for a moment only: its end has passed.
            let passing = churn[(dice >> 40) as usize % churn.len()];
            table.insert(passing, NOW.shifted(-1), NOW, "");
            if number == 0 {
                table.expire(NOW, |entry| assert!(entry.value < NOW));
            } else {
                table.remove(passing);
            }
        }
        let key = (dice >> 8) as usize % keys.len();
        let kind = [INSERT, REMOVE, LOOKUP, LOOKUP][dice as usize % 4];
        let start = now();
        let answer = match kind {
            INSERT => {
                table.insert(keys[key], NOW.shifted(1 + number as i64), NOW, "") != Inserted::Full
            }
            REMOVE => table.remove(keys[key]),
            _ => table.lookup(keys[key].address(), NOW).is_some(),
        };
        let ended = now();
        let words = [start, ended, kind, key as u64, answer.into(), 1];
        for (slot, word) in line.0.iter().zip(words) {
            slot.store(word, Ordering::Relaxed);
        }
        if ended > end {
            return;
        }
    }
}

/// What a process did to one key. Two writers that find the same hole may both say that they placed or
/// removed the key, so only answers that deny are held against them.
fn history(log: &[Line], key: usize) -> Vec<Operation> {
    log.iter()
        .map(|line| [0, 1, 2, 3, 4, 5].map(|index: usize| line.0[index].load(Ordering::Relaxed)))
        .take_while(|words| words[5] == 1)
        .filter(|words| words[3] == key as u64)
        .map(|[start, end, kind, _, answer, _]| Operation {
            start,
            end,
            action: match (kind, answer == 1) {
                (INSERT, there) => {
                    assert!(there, "the table was full");
                    Action::Write(true)
                }
                (REMOVE, true) => Action::Write(false),
                (_, there) => Action::Read(there),
            },
        })
        .collect()
}

#[test]
fn every_answer_has_an_explanation() {
    let mut arena = Mapped::shared();
    let table = Table::new(
        &mut arena,
        TableLayout {
            purpose: "the test",
            capacity: 20,
            reasons: false,
        },
        42,
    )
    .unwrap();
    let gate = &arena.lines("the gate", 1).unwrap()[0].0[0];
    let logs: Vec<&[Line]> = (0..PROCESSES)
        .map(|_| arena.lines("the log", OPERATIONS).unwrap())
        .collect();
    let clock = Instant::now();
    in_processes(PROCESSES, LIMIT, |number| {
        gate.fetch_add(1, Ordering::AcqRel);
        while gate.load(Ordering::Acquire) < PROCESSES as u64 {
            spin_loop();
        }
        work(number, &table, logs[number], clock);
    });
    for (key, name) in KEYS.iter().enumerate() {
        let histories: Vec<Vec<Operation>> = logs.iter().map(|log| history(log, key)).collect();
        let overlapping = overlaps(&histories);
        let all: usize = histories.iter().map(Vec::len).sum();
        println!("{name}: {all} operations, {overlapping} of them beside one of another process");
        assert!(all > 1_000, "{name}: only {all} operations");
        assert!(
            explainable(&histories),
            "{name}: no order explains what was seen"
        );
    }
    table.expire(NOW, |_| ());
    table.retain(|_, _| false);
    assert_eq!(table.len(), 0);
}

/// How many operations began while one of another process was under way.
fn overlaps(histories: &[Vec<Operation>]) -> usize {
    let mut all: Vec<(u64, u64)> = histories
        .iter()
        .flatten()
        .map(|one| (one.start, one.end))
        .collect();
    all.sort_unstable();
    all.windows(2).filter(|pair| pair[1].0 <= pair[0].1).count()
}

fn operation(start: u64, end: u64, action: Action) -> Operation {
    Operation { start, end, action }
}

#[test]
fn the_checker_accepts_what_can_be() {
    use Action::{Read, Write};
    // The read overlaps the insert, so it may see either; the removal began before the second insert ended.
    assert!(explainable(&[
        vec![
            operation(0, 10, Write(true)),
            operation(20, 30, Write(true))
        ],
        vec![operation(5, 6, Read(false)), operation(7, 8, Read(true))],
        vec![
            operation(25, 40, Write(false)),
            operation(50, 51, Read(true))
        ],
    ]));
}

#[test]
fn the_checker_refuses_what_cannot_be() {
    use Action::{Read, Write};
    // Missed after the insert was done.
    assert!(!explainable(&[
        vec![operation(0, 10, Write(true))],
        vec![operation(11, 12, Read(false))],
    ]));
    // Seen, then not, with no removal anywhere near.
    assert!(!explainable(&[
        vec![operation(0, 10, Write(true))],
        vec![operation(2, 3, Read(true)), operation(4, 5, Read(false))],
    ]));
    // Lost: the insert began after the removal had ended.
    assert!(!explainable(&[
        vec![operation(0, 1, Write(true)), operation(2, 30, Write(true))],
        vec![
            operation(10, 11, Write(false)),
            operation(12, 13, Write(true))
        ],
        vec![
            operation(14, 15, Read(true)),
            operation(40, 41, Read(false))
        ],
    ]));
}
