//! Elements that must still be there: if one is missing before its time, somebody emptied the set.
//!
//! Listing 100,000 elements after every change that some other program makes to the ruleset would cost
//! more than it is worth; asking for a few that we know costs microseconds. An element deleted by hand,
//! one by one, is therefore noticed only if it is one of these.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::names::SetId;
use crate::address::Subnet;

/// How many are remembered per set: some of them get lifted.
const PER_SET: usize = 4;
/// One that ends within this time proves nothing any more.
const MARGIN: Duration = Duration::from_secs(3);

/// The longest-lived elements of each set, as we handed them over.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<SetId, Vec<(Instant, Subnet)>>);

impl Samples {
    /// Remembers an element with so many seconds left if it outlives one that is remembered.
    pub fn add(&mut self, id: SetId, subnet: Subnet, seconds_left: u32) {
        let Some(end) = Instant::now().checked_add(Duration::from_secs(seconds_left.into())) else {
            return;
        };
        let kept = self.0.entry(id).or_default();
        kept.retain(|(_, known)| *known != subnet);
        if kept.len() >= PER_SET {
            let first = kept.iter().enumerate().min_by_key(|(_, (end, _))| *end);
            match first.map(|(at, (earliest, _))| (at, *earliest)) {
                Some((at, earliest)) if earliest < end => kept.swap_remove(at),
                _ => return,
            };
        }
        kept.push((end, subnet));
    }

    /// Forgets an element that was lifted.
    pub fn remove(&mut self, id: SetId, subnet: &Subnet) {
        if let Some(kept) = self.0.get_mut(&id) {
            kept.retain(|(_, known)| known != subnet);
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The elements that must be there now.
    pub fn lasting(&self) -> Vec<(SetId, Subnet)> {
        let soon = Instant::now() + MARGIN;
        let lasting = |(id, kept): (&SetId, &Vec<(Instant, Subnet)>)| {
            let id = *id;
            let those = kept.iter().filter(|(end, _)| *end > soon);
            those.map(|(_, subnet)| (id, *subnet)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(lasting).collect()
    }
}
