//! Counters without contention: each process adds in a cache line of its own, readers sum.

use super::origin::Origin;
use crate::memory::{Arena, Line, Ordering, OutOfMemory};

/// Processes with a line of their own; any further ones share another. Untouched lines cost nothing.
const OWN_LINES: usize = 1024;

/// What a process counts; of [`Counter::CHECKS`] exactly one for each check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Checks that found nothing.
    Clear,
    /// Checks that found the address in the feed.
    BlockedFeed,
    /// Checks that found a local ban.
    BlockedLocal,
    /// Checks that found a ban of a cluster peer.
    BlockedPeer,
    /// Checks that trust decided.
    TrustedChecks,
    /// Bans that trust refused.
    TrustedBans,
    /// Bans that were refused: trusted, table full, over budget.
    BlockRefused,
}

impl Counter {
    /// One for each result of a check.
    pub const CHECKS: [Counter; 5] = [
        Counter::Clear,
        Counter::BlockedFeed,
        Counter::BlockedLocal,
        Counter::BlockedPeer,
        Counter::TrustedChecks,
    ];

    /// Checks that found a ban of this origin.
    #[inline(always)]
    pub fn blocked(origin: Origin) -> Self {
        match origin {
            Origin::Feed => Counter::BlockedFeed,
            Origin::Local => Counter::BlockedLocal,
            Origin::Peer => Counter::BlockedPeer,
        }
    }
}

/// The counters of all processes.
#[derive(Clone, Copy)]
pub struct Counters {
    /// One for each process.
    own: &'static [Line],
    /// For the processes beyond.
    common: &'static Line,
}

/// The counters of one process.
#[derive(Clone, Copy)]
pub enum ProcessCounters {
    /// Written by this process only.
    Own(&'static Line),
    /// Written by others too.
    Common(&'static Line),
}

impl Counters {
    /// All zero.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        Ok(Counters {
            own: arena.lines("the counters", OWN_LINES)?,
            common: &arena.lines("the counters", 1)?[0],
        })
    }

    /// The line of the process with this number, as Kamailio counts its processes.
    #[inline]
    pub fn of_process(&self, process: usize) -> ProcessCounters {
        match self.own.get(process) {
            Some(line) => ProcessCounters::Own(line),
            None => ProcessCounters::Common(self.common),
        }
    }

    /// Calls of `apiban_check()` since start.
    pub fn checks(&self) -> u64 {
        Counter::CHECKS
            .map(|counter| self.sum(counter))
            .iter()
            .sum()
    }

    /// The sum over all processes since start.
    pub fn sum(&self, counter: Counter) -> u64 {
        let index = counter as usize;
        self.own
            .iter()
            .chain([self.common])
            .map(|line| line[index].load(Ordering::Relaxed))
            .sum()
    }
}

impl ProcessCounters {
    /// Adds one. A line with one writer needs no locked instruction.
    #[inline(always)]
    pub fn add(self, counter: Counter) {
        match self {
            ProcessCounters::Own(line) => {
                let word = &line[counter as usize];
                let next = word.load(Ordering::Relaxed).wrapping_add(1);
                word.store(next, Ordering::Relaxed);
            }
            ProcessCounters::Common(line) => {
                line[counter as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    #[test]
    fn lanes_add_up() {
        let counters = Counters::new(&mut HeapArena).unwrap();
        for process in [0, 1, 1, 1023, 5000] {
            counters.of_process(process).add(Counter::Clear);
        }
        counters.of_process(2).add(Counter::BlockedFeed);
        assert_eq!(counters.sum(Counter::Clear), 5);
        assert_eq!(counters.sum(Counter::BlockedFeed), 1);
    }
}
