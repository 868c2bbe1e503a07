//! The table's protocol in every interleaving: run by `tests/tools/loom`.
//!
//! Two writers and a reader each. Buckets hold two hosts or one net here, and all keys share one home and
//! one tag: buckets overflow at once.
//! - `small`: one operation in each thread, on a table that was prepared before. All orders are tried, but
//!   for one model.
//! - `sweeps`: the sweep of a whole table. All orders beside an insert and a lookup, not beside two inserts.
//! - `large`: several operations in a row. They have too many orders.
//!
//! If a model does not try all orders, it tries those with a few interruptions of threads at most.
//!
//! Each model prints how many orders there were, and its bound if it has one. The queue and the published
//! status have models of their own, beside them in `src/shared`.
//!
//! Not covered: the wrap of a version in `nets` after four million uses of a slot during one read;
//! real-time order between processes that share nothing but the table (`tests/table_processes` looks at
//! that); more than seven writes of one word, of which loom remembers the last seven. See
//! `src/memory/model.rs` for what loom alone would miss.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::buckets::Buckets;
use super::hosts::Hosts;
use super::nets::{Key, Nets};
use super::slot::Placed;
use super::{Inserted, Table, TableLayout};
use crate::address::Subnet;
use crate::memory::explore::{all, beside, bounded, Memory};
use crate::memory::Arena;

mod large;
mod small;
mod sweeps;

/// What both parts of a table can do. Keys are small numbers.
trait Part: Copy + Send + 'static {
    /// How many stand in one bucket.
    const SLOTS: usize;
    fn with_buckets(count: usize) -> Self;
    fn raise(self, key: u8, value: u32) -> bool;
    fn place(self, key: u8, value: u32) -> Placed;
    fn remove(self, key: u8) -> usize;
    /// True if `key` is there with at least this value.
    fn has(self, key: u8, value: u32) -> bool;
    /// Sees no key that is half this one and half that.
    fn look(self);
    /// Sweeps everything but `kept`; returns the keys.
    fn sweep(self, kept: u8) -> Vec<u8>;
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
    Buckets::new(Memory::default().lines("a model", count).unwrap())
}

impl Part for Hosts {
    const SLOTS: usize = super::hosts::SLOTS;
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
    fn look(self) {
        // A key is half a word: none is torn.
        assert!(!self.has(7, 0));
    }
    fn sweep(self, kept: u8) -> Vec<u8> {
        let mut keys = Vec::new();
        let judge = |key, _, _| Some(key as u8).filter(|key| *key != kept);
        Hosts::sweep(&self, 0..self.len(), |_| 0, judge, |key| keys.push(key));
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

/// The number that [`net`] made this key of.
fn whole(key: Key) -> u8 {
    assert_eq!((key.bits >> 64) as u64, key.bits as u64, "a torn key");
    key.bits as u8
}

impl Part for Nets {
    const SLOTS: usize = super::nets::SLOTS;
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
    fn look(self) {
        let judge = |key, _, _| {
            whole(key);
            None::<()>
        };
        Nets::sweep(&self, 0..self.len(), |_| 0, judge, drop);
    }
    fn sweep(self, kept: u8) -> Vec<u8> {
        let mut keys = Vec::new();
        let judge = |key, _, _| Some(whole(key)).filter(|key| *key != kept);
        Nets::sweep(&self, 0..self.len(), |_| 0, judge, |key| keys.push(key));
        keys
    }
    fn is_settled(self) -> bool {
        Nets::is_settled(&self)
    }
}
