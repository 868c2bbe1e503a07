//! Counters without contention: each process adds in a cache line of its own, readers sum.

use crate::table::atomic::{Arena, Line, Ordering, OutOfMemory};

/// Processes with a line of their own; any further ones share the last. Untouched lines cost nothing.
const LANES: usize = 1024;

/// What a process counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Calls of `apiban_check()`.
    Checks,
    /// Checks that found the address in the feed.
    BlockedFeed,
    /// Checks that found a local ban.
    BlockedLocal,
    /// Checks that found a ban of a cluster peer.
    BlockedPeer,
    /// Checks and bans that trust decided.
    TrustedSkips,
    /// Bans that were refused: trusted, table full, over budget.
    BlockRefused,
}

/// The counters of all processes.
#[derive(Clone, Copy)]
pub struct Counters {
    lanes: &'static [Line],
}

/// The counters of one process.
#[derive(Clone, Copy)]
pub struct Lane {
    line: &'static Line,
    shared: bool,
}

impl Counters {
    /// All zero.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        Ok(Counters {
            lanes: arena.lines("the counters", LANES)?,
        })
    }

    /// The line of the process with this number, as Kamailio counts its processes.
    #[inline]
    pub fn lane(&self, process: usize) -> Lane {
        let index = process.min(LANES - 1);
        Lane {
            line: &self.lanes[index],
            shared: index == LANES - 1,
        }
    }

    /// The sum over all processes since start.
    pub fn sum(&self, counter: Counter) -> u64 {
        let index = counter as usize;
        self.lanes
            .iter()
            .map(|line| line.0[index].load(Ordering::Relaxed))
            .sum()
    }
}

impl Lane {
    /// Adds one. A line with one writer needs no locked instruction.
    #[inline]
    pub fn add(self, counter: Counter) {
        let word = &self.line.0[counter as usize];
        if self.shared {
            word.fetch_add(1, Ordering::Relaxed);
        } else {
            word.store(
                word.load(Ordering::Relaxed).wrapping_add(1),
                Ordering::Relaxed,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::atomic::HeapArena;

    #[test]
    fn lanes_add_up() {
        let counters = Counters::new(&mut HeapArena).unwrap();
        for process in [0, 1, 1, 1023, 5000] {
            counters.lane(process).add(Counter::Checks);
        }
        counters.lane(2).add(Counter::BlockedFeed);
        assert_eq!(counters.sum(Counter::Checks), 5);
        assert_eq!(counters.sum(Counter::BlockedFeed), 1);
    }
}
