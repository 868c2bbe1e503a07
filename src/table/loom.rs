//! The table's protocol in every interleaving: run by `tests/loom`.
//!
//! Two writers and a reader each. Buckets hold two hosts or one net here, and all keys share one home,
//! so that chains overflow at once. The states are too many to visit all of them: [`explore`] bounds
//! how often threads are interrupted, visits all that is within the bound, and says how much that was.
//! Not covered: more interruptions; the wrap of a version in `nets` after four million uses of a slot
//! during one read; real-time order between processes that share nothing but the table
//! (`tests/table_processes.rs` looks at that). See `atomic_model.rs` for what loom alone would miss.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

use loom::model::Builder;
use loom::thread;

use super::atomic::{HeapArena, Line};
use super::buckets::Buckets;
use super::hosts::{Hosts, Placed, Slot};
use super::nets::{Key, Nets};
use super::{Insert, Table};
use crate::address::Subnet;

/// Runs a model in all orders in which threads are interrupted at most `bound` times against their will.
/// `LOOM_MAX_PREEMPTIONS` sets another bound for all models.
fn explore(name: &str, bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    let bound = *builder.preemption_bound.get_or_insert(bound);
    let (orders, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let counter = orders.clone();
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!(
        "{name}: all {} orders with at most {bound} interruptions, {:.1} s",
        orders.load(Ordering::Relaxed),
        started.elapsed().as_secs_f64()
    );
}

/// What both parts of a table can do. Keys are small numbers.
trait Part: Copy + Send + 'static {
    fn with_buckets(count: usize) -> Self;
    fn raise(self, key: u8, value: u32) -> bool;
    fn place(self, key: u8, value: u32) -> Placed;
    fn remove(self, key: u8) -> usize;
    /// True where `key` is there with at least this value.
    fn has(self, key: u8, value: u32) -> bool;
    /// Clears everything; returns the keys.
    fn clear(self) -> Vec<u8>;
    fn is_settled(self) -> bool;

    /// As `Table::insert`.
    fn insert(self, key: u8, value: u32) {
        while !self.raise(key, value) {
            match self.place(key, value) {
                Placed::At(_) => return,
                Placed::Known => {}
                Placed::Full => panic!("no room"),
            }
        }
    }
}

fn buckets(count: usize) -> Buckets {
    Buckets::new(Box::leak((0..count).map(|_| Line::default()).collect()))
}

impl Part for Hosts {
    fn with_buckets(count: usize) -> Self {
        Hosts::new(buckets(count))
    }
    fn raise(self, key: u8, value: u32) -> bool {
        Hosts::raise(&self, key.into(), 0, value).is_some()
    }
    fn place(self, key: u8, value: u32) -> Placed {
        Hosts::place(&self, key.into(), 0, value)
    }
    fn remove(self, key: u8) -> usize {
        Hosts::remove(&self, key.into(), 0)
    }
    fn has(self, key: u8, value: u32) -> bool {
        self.lookup(key.into(), 0, value.saturating_sub(1))
            .is_some()
    }
    fn clear(self) -> Vec<u8> {
        let mut keys = Vec::new();
        self.sweep(|_| 0, |key, _, _| Some(key as u8), |key| keys.push(key));
        keys
    }
    fn is_settled(self) -> bool {
        Hosts::is_settled(&self)
    }
}

/// Both halves say which key it is, so that a torn one shows.
fn net(key: u8) -> Key {
    Key {
        bits: u128::from(key) << 64 | u128::from(key),
        length: 64,
    }
}

impl Part for Nets {
    fn with_buckets(count: usize) -> Self {
        Nets::new(buckets(count))
    }
    fn raise(self, key: u8, value: u32) -> bool {
        Nets::raise(&self, net(key), 0, value).is_some()
    }
    fn place(self, key: u8, value: u32) -> Placed {
        Nets::place(&self, net(key), 0, value)
    }
    fn remove(self, key: u8) -> usize {
        Nets::remove(&self, net(key), 0)
    }
    fn has(self, key: u8, value: u32) -> bool {
        self.lookup(net(key), 0, value.saturating_sub(1)).is_some()
    }
    fn clear(self) -> Vec<u8> {
        let mut keys = Vec::new();
        self.sweep(
            |_| 0,
            |key, _, _| {
                assert_eq!((key.bits >> 64) as u64, key.bits as u64, "a torn key");
                Some(key.bits as u8)
            },
            |key| keys.push(key),
        );
        keys
    }
    fn is_settled(self) -> bool {
        Nets::is_settled(&self)
    }
}

/// Runs `a` and `b` in threads of their own beside `here`.
fn beside<P: Part>(part: P, a: fn(P), b: fn(P), here: impl FnOnce()) {
    let writers = [
        thread::spawn(move || a(part)),
        thread::spawn(move || b(part)),
    ];
    here();
    for writer in writers {
        writer.join().unwrap();
    }
}

/// Two writers of one key: one entry, the higher value.
fn same_key<P: Part>() {
    let part = P::with_buckets(2);
    beside(
        part,
        |part| part.insert(1, 5),
        |part| part.insert(1, 9),
        || {
            let before = part.has(1, 5);
            assert!(part.has(1, 5) || !before);
        },
    );
    assert!(part.has(1, 9));
    part.clear();
    assert!(!part.has(1, 0) && part.is_settled());
}

/// Two writers of two keys that share a bucket with a third one, which is never missed.
fn colliding_keys<P: Part>() {
    let part = P::with_buckets(3);
    part.insert(1, 5);
    beside(
        part,
        |part| part.insert(2, 5),
        |part| part.insert(3, 5),
        || assert!(part.has(1, 5)),
    );
    let mut keys = part.clear();
    keys.sort_unstable();
    assert_eq!(keys, [1, 2, 3]);
    assert!(part.is_settled());
}

/// A slot opens before the place of two equal inserts, so that the key may stand twice: who saw it goes
/// on seeing it, and one removal takes it away.
fn copies<P: Part>() {
    let part = P::with_buckets(3);
    part.insert(2, 5);
    beside(
        part,
        |part| part.insert(1, 5),
        |part| part.insert(1, 5),
        || {
            part.remove(2);
            let before = part.has(1, 5);
            assert!(part.has(1, 5) || !before);
        },
    );
    assert!(part.has(1, 5) && part.remove(1) > 0 && !part.has(1, 0));
    assert!(part.is_settled());
}

/// A ban placed after its removal stays, whatever other writers of the same key were about to do. Merging
/// copies lost it: the merge saw two, the removal cleared the later, the merge the earlier.
fn removed_and_banned_anew<P: Part>() {
    let part = P::with_buckets(3);
    beside(
        part,
        |part| part.insert(1, 5),
        |part| part.insert(1, 5),
        || {
            part.remove(1);
            part.insert(1, 5);
            assert!(part.has(1, 5));
        },
    );
    assert!(part.has(1, 5));
    part.clear();
    assert!(part.is_settled());
}

/// A lasting entry beyond a full bucket, while the entries before it go and others come.
fn lasting<P: Part>() {
    let part = P::with_buckets(3);
    part.insert(1, 5);
    part.insert(2, 5);
    part.insert(3, 5);
    beside(
        part,
        |part| {
            part.remove(1);
            part.insert(4, 5);
        },
        |part| part.insert(3, 9),
        || assert!(part.has(3, 5) && !part.has(7, 0)),
    );
    assert!(part.has(3, 9) && part.has(4, 5) && !part.has(1, 0));
    part.clear();
    assert!(part.is_settled());
}

/// A slot is cleared and used for another key while it is read.
#[test]
fn nets_are_never_torn() {
    explore("nets: torn keys", 3, || {
        let nets = Nets::with_buckets(2);
        Part::insert(nets, 1, 5);
        let writer = thread::spawn(move || {
            nets.remove(1);
            Part::insert(nets, 2, 5);
        });
        if let Some((key, _)) = nets.entry(Slot::new(0)) {
            assert!(key == net(1) || key == net(2), "torn: {key:?}");
        }
        writer.join().unwrap();
    });
}

#[test]
fn hosts() {
    explore("hosts: same key", 3, same_key::<Hosts>);
    explore("hosts: colliding keys", 3, colliding_keys::<Hosts>);
    explore("hosts: copies", 2, copies::<Hosts>);
    explore(
        "hosts: removed and banned anew",
        2,
        removed_and_banned_anew::<Hosts>,
    );
    explore("hosts: lasting", 2, lasting::<Hosts>);
}

#[test]
fn nets() {
    explore("nets: same key", 2, same_key::<Nets>);
    explore("nets: colliding keys", 2, colliding_keys::<Nets>);
    explore("nets: copies", 1, copies::<Nets>);
    explore(
        "nets: removed and banned anew",
        1,
        removed_and_banned_anew::<Nets>,
    );
    explore("nets: lasting", 1, lasting::<Nets>);
}

fn table() -> (Table, Subnet) {
    let table = Table::new(&mut HeapArena, "model", 2, 42, false).unwrap();
    (table, "192.0.2.7".parse().unwrap())
}

/// A ban placed during the sweep is not forgotten by the next one.
#[test]
fn a_sweep_meets_an_insert() {
    explore("sweep and insert", 3, || {
        let (table, one) = table();
        let two = "192.0.2.8".parse().unwrap();
        table.insert(one, 5, 1, "");
        let other = table.clone();
        let writer = thread::spawn(move || other.insert(two, 5, 1, ""));
        let mut ended = 0;
        table.expire(5, |_| ended += 1);
        assert_eq!(writer.join().unwrap(), Insert::New);
        table.expire(5, |_| ended += 1);
        assert_eq!((ended, table.len()), (2, 0));
    });
}

/// A ban extended during the sweep stays, is not told as ended, and is swept at its new end.
#[test]
fn a_sweep_meets_a_longer_end() {
    explore("sweep and raise", 3, || {
        let (table, one) = table();
        table.insert(one, 5, 1, "");
        let other = table.clone();
        let writer = thread::spawn(move || other.insert(one, 9, 1, ""));
        let mut ended = 0;
        table.expire(5, |_| ended += 1);
        match writer.join().unwrap() {
            Insert::Extended => assert_eq!(ended, 0),
            done => assert_eq!(done, Insert::New),
        }
        assert_eq!(table.find(one).map(|found| found.value()), Some(9));
        table.expire(9, |_| ());
        assert_eq!(table.len(), 0);
    });
}
