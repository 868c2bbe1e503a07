//! The bans that are wanted in the programs, and which of them go in first.

use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::address::Subnet;
use crate::firewall::Element;

/// A ban with less than this to live is not put in.
const SHORTEST: Duration = Duration::from_millis(1500);

/// Which of two bans goes in first: the one with more hits, and of equal ones the later one, is the greater one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    hits: u32,
    /// Bans that came later have a higher number.
    order: u64,
}

/// One ban.
struct Ban {
    end: Instant,
    rank: Rank,
    /// The number of the list that it was in, see [`Bans::replace`].
    list: u64,
}

/// A ban that may go in.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// What is banned.
    pub subnet: Subnet,
    /// When it ends.
    pub end: Instant,
    /// No other candidate has the same.
    pub rank: Rank,
}

/// All bans.
#[derive(Default)]
pub struct Bans {
    bans: BTreeMap<Subnet, Ban>,
    /// The number of the latest ban.
    order: u64,
    /// The number of the latest list.
    list: u64,
}

impl Bans {
    /// Adds a ban or changes its end; one without time left goes.
    pub fn store(&mut self, element: &Element, now: Instant) {
        let end = now.checked_add(Duration::from_secs(element.seconds_left.into()));
        let (Some(end), 1..) = (end, element.seconds_left) else {
            self.remove(&element.subnet);
            return;
        };
        match self.bans.entry(element.subnet) {
            Entry::Occupied(mut known) => {
                let ban = known.get_mut();
                ban.end = end;
                ban.rank.hits = ban.rank.hits.max(element.hits);
                ban.list = self.list;
            }
            Entry::Vacant(place) => {
                self.order += 1;
                let rank = Rank {
                    hits: element.hits,
                    order: self.order,
                };
                let list = self.list;
                place.insert(Ban { end, rank, list });
            }
        }
    }

    /// Removes a ban, there or not.
    pub fn remove(&mut self, subnet: &Subnet) {
        self.bans.remove(subnet);
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.bans.clear();
    }

    /// Makes these the bans. One that was there before keeps its hits, and its place among equals.
    pub fn replace(&mut self, wanted: &[Element], now: Instant) {
        self.list += 1;
        for element in wanted {
            self.store(element, now);
        }
        let list = self.list;
        self.bans.retain(|_, ban| ban.list == list);
    }

    /// The bans that may go in and that are `concerned`, in the order of their addresses.
    pub fn candidates(
        &mut self,
        now: Instant,
        concerned: impl Fn(&Subnet) -> bool,
    ) -> Vec<Candidate> {
        let lives = now + SHORTEST;
        let mut candidates = Vec::with_capacity(self.bans.len());
        let mut some_are_over = false;
        for (subnet, ban) in &self.bans {
            some_are_over |= ban.end <= now;
            if ban.end > lives && concerned(subnet) {
                candidates.push(Candidate {
                    subnet: *subnet,
                    end: ban.end,
                    rank: ban.rank,
                });
            }
        }
        if some_are_over {
            self.bans.retain(|_, ban| ban.end > now);
        }
        candidates
    }
}
