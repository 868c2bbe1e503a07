//! The bans that are wanted in the programs, and which of them go in first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::address::Subnet;
use crate::firewall::Element;

/// A ban with less than this to live is not put in.
const SHORTEST: Duration = Duration::from_millis(1500);

/// One ban.
#[derive(Clone, Copy)]
struct Ban {
    end: Instant,
    hits: u32,
    /// Bans that came later have a higher number.
    order: u64,
}

/// All bans.
#[derive(Default)]
pub struct Bans {
    bans: HashMap<Subnet, Ban, RandomState>,
    /// The number of the latest ban.
    order: u64,
}

impl Bans {
    /// Adds a ban or changes its end; one without time left goes.
    pub fn store(&mut self, element: &Element, now: Instant) {
        self.order += 1;
        self.store_as(element, now, self.order);
    }

    /// The same with a number for a ban that is not there yet.
    fn store_as(&mut self, element: &Element, now: Instant, order: u64) {
        let end = now.checked_add(Duration::from_secs(element.seconds_left.into()));
        let (Some(end), 1..) = (end, element.seconds_left) else {
            self.remove(&element.subnet);
            return;
        };
        let ban = self.bans.entry(element.subnet).or_insert(Ban {
            end,
            hits: 0,
            order,
        });
        ban.end = end;
        ban.hits = ban.hits.max(element.hits);
    }

    /// Removes a ban, there or not.
    pub fn remove(&mut self, subnet: &Subnet) {
        self.bans.remove(subnet);
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.bans.clear();
    }

    /// Makes these the bans. One that was there before keeps its place among equals.
    pub fn replace(&mut self, wanted: &[Element], now: Instant) {
        let known = std::mem::take(&mut self.bans);
        self.bans.reserve(wanted.len());
        for element in wanted {
            self.order += 1;
            let order = known
                .get(&element.subnet)
                .map_or(self.order, |ban| ban.order);
            self.store_as(element, now, order);
        }
    }

    /// The bans that may go in, at most so many, those with the most hits first, and of equal ones the latest, with
    /// their ends; and how many there are of those that are `concerned`.
    pub fn ranked(
        &mut self,
        now: Instant,
        most: usize,
        concerned: impl Fn(&Subnet) -> bool,
    ) -> (Vec<(Subnet, Instant)>, usize) {
        self.bans.retain(|_, ban| ban.end > now);
        let mut ranked: Vec<(Subnet, Ban)> = self
            .bans
            .iter()
            .filter(|(_, ban)| ban.end.duration_since(now) > SHORTEST)
            .filter(|(subnet, _)| concerned(subnet))
            .map(|(subnet, ban)| (*subnet, *ban))
            .collect();
        let wanted = ranked.len();
        let key = |(_, ban): &(Subnet, Ban)| std::cmp::Reverse((ban.hits, ban.order));
        if most < ranked.len() {
            ranked.select_nth_unstable_by_key(most, key);
            ranked.truncate(most);
        }
        ranked.sort_unstable_by_key(key);
        let ends = ranked.into_iter().map(|(subnet, ban)| (subnet, ban.end));
        (ends.collect(), wanted)
    }
}
