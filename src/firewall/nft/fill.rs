//! How bans get into our table: all of them in one transaction, or changes in chunks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use nix::errno::Errno;

use super::elements::{self, Rearm};
use super::names::{home, Holds, SetId};
use super::ruleset::{self, Made};
use super::{sets, Nft};
use crate::firewall::{Change, Element};

/// Numbers of sets in one transaction: those below are for the set of ports and the two of counted sources.
const FIRST_SET: u32 = 3;

/// What is done to the structure before the elements are written, in the same transaction.
#[derive(Debug, Clone)]
pub enum Structure {
    /// The table is made from nothing.
    Fresh,
    /// Chains, rules and sets are put in order round the sets that are there.
    Repair(BTreeSet<SetId>),
    /// The rule with this handle gets us as the owner.
    Adopt(u64),
    /// Nothing.
    Keep,
}

impl Nft {
    /// Puts the structure in order and replaces all that our sets hold in one transaction, so that what
    /// stays banned is never let through. If the socket cannot take it all at once (no CAP_NET_ADMIN in the
    /// first user namespace), the rest follows in further transactions.
    pub(super) fn fill(&mut self, structure: &Structure, wanted: &[Element]) -> Result<(), Errno> {
        let made = made_for(wanted);
        let (hashed, ranged): (Vec<Element>, Vec<Element>) = wanted
            .iter()
            .filter(|element| element.seconds_left > 0)
            .partition(|element| made.sets.contains(&SetId::hash_of(&element.subnet)));
        self.ranges.clear();
        for element in &ranged {
            self.ranges.insert(element.subnet, element.seconds_left);
        }
        let adds: Vec<Change> = hashed.into_iter().map(Change::Add).collect();
        let structure = match structure {
            Structure::Adopt(_) | Structure::Keep if self.made != made => {
                Structure::Repair(self.made.sets.clone())
            }
            other => other.clone(),
        };
        if matches!(structure, Structure::Fresh | Structure::Repair(_)) {
            self.keep_count();
        }
        let mut now = adds.as_slice();
        loop {
            match self.fill_once(&structure, &made, now) {
                Err(error) if too_much(error) && now.len() > self.chunk => {
                    now = &adds[..self.chunk];
                }
                Err(error) if too_much(error) && self.chunk > 1 => {
                    self.chunk = self.chunk.div_ceil(2);
                    now = &adds[..now.len().min(self.chunk)];
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.made = made;
        self.apply_chunks(&adds[now.len()..])?;
        self.samples.clear();
        adds.iter().for_each(|change| self.note(change));
        Ok(())
    }

    /// The transaction of [`Nft::fill`].
    fn fill_once(
        &mut self,
        structure: &Structure,
        made: &Made,
        adds: &[Change],
    ) -> Result<(), Errno> {
        let (shape, owner, now) = (self.shape.clone(), self.me(), Instant::now());
        let ranges = [true, false].map(|v4| (SetId::ranges(v4), self.ranges.of(v4, now)));
        self.transact(|writer, table| {
            // Sets that stay and have to be emptied.
            let mut old: Vec<SetId> = made.sets.iter().copied().collect();
            match structure {
                Structure::Fresh => {
                    ruleset::delete_table(writer, table);
                    shape.make_table(writer, table);
                    shape.make_ports(writer, table, 0);
                    old.clear();
                }
                Structure::Repair(found) => {
                    shape.make_table(writer, table);
                    shape.delete_rules(writer, table);
                    for id in found.iter().filter(|id| !made.sets.contains(id)) {
                        sets::delete_set(writer, table, *id);
                    }
                    old.retain(|id| found.contains(id));
                }
                Structure::Adopt(handle) => shape.change_owner(writer, table, owner, *handle),
                Structure::Keep => {}
            }
            if let Structure::Fresh | Structure::Repair(_) = structure {
                if shape.counts {
                    sets::make_counted(writer, table, 1);
                }
                for (number, id) in
                    (FIRST_SET..).zip(made.sets.iter().filter(|id| !old.contains(id)))
                {
                    sets::make_set(writer, table, *id, number);
                }
                shape.make_first_rules(writer, table, owner);
                for id in &made.sets {
                    shape.make_rule(writer, table, *id);
                }
                // Behind the rules for IPv4: there is more of it.
                if made.ipv6 {
                    shape.make_ipv6_rule(writer, table);
                }
            }
            for id in &old {
                elements::flush(writer, table, *id);
            }
            // Emptied sets have nothing to re-arm, whatever the kernel.
            elements::write(writer, table, adds, Rearm::Update);
            for (id, ranges) in &ranges {
                elements::write_ranges(writer, table, *id, ranges, now);
            }
        })
    }

    /// Makes what is missing: sets, a rule for each, and the way to the rules for IPv6.
    fn make(&mut self, missing: &Made) -> Result<(), Errno> {
        if *missing == Made::default() {
            return Ok(());
        }
        let shape = self.shape.clone();
        self.transact(|writer, table| {
            for (number, id) in (FIRST_SET..).zip(&missing.sets) {
                sets::make_set(writer, table, *id, number);
                shape.make_rule(writer, table, *id);
            }
            if missing.ipv6 {
                shape.make_ipv6_rule(writer, table);
            }
        })?;
        self.made.sets.extend(&missing.sets);
        self.made.ipv6 |= missing.ipv6;
        Ok(())
    }

    /// Sorts changes by the kind of set, and makes the sets that are missing. Prefixes among the ranges are
    /// noted at once; returned are the changes of hash sets, and which families' ranges changed.
    pub(super) fn sort(
        &mut self,
        changes: &[Change],
    ) -> Result<(Vec<Change>, BTreeSet<SetId>), Errno> {
        let mut missing = Made::default();
        let (mut hashed, mut ranged) = (Vec::new(), BTreeSet::new());
        for change in changes {
            let subnet = change.subnet();
            let id = home(
                SetId::hash_of(&subnet),
                self.made.sets.iter().chain(&missing.sets),
            );
            match change {
                Change::Add(element) if element.seconds_left > 0 => {
                    if !self.made.sets.contains(&id) {
                        missing.sets.insert(id);
                    }
                    missing.ipv6 |= !id.v4 && !self.made.ipv6;
                    if id.holds == Holds::Ranges {
                        self.ranges.insert(subnet, element.seconds_left);
                        ranged.insert(id);
                    } else {
                        hashed.push(*change);
                    }
                }
                // What has no set, or is not among the ranges, needs no removal.
                _ => {
                    if id.holds != Holds::Ranges {
                        let known = self.made.sets.contains(&id) || missing.sets.contains(&id);
                        hashed.extend(known.then_some(*change));
                    } else if self.ranges.remove(&subnet) {
                        ranged.insert(id);
                    }
                }
            }
        }
        self.make(&missing)?;
        Ok((hashed, ranged))
    }

    /// Applies changes of hash sets in transactions that the socket can take.
    pub(super) fn apply_chunks(&mut self, changes: &[Change]) -> Result<(), Errno> {
        let mut rest = changes;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(rest.len().min(self.chunk));
            let rearm = self.rearm;
            match self.transact(|writer, table| elements::write(writer, table, chunk, rearm)) {
                Ok(()) => rest = later,
                Err(error) if too_much(error) && self.chunk > 1 => {
                    self.chunk = chunk.len().div_ceil(2);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes a set of ranges again as a whole.
    pub(super) fn apply_ranges(&mut self, id: SetId) -> Result<(), Errno> {
        let now = Instant::now();
        let ranges = self.ranges.of(id.v4, now);
        self.transact(|writer, table| {
            elements::flush(writer, table, id);
            elements::write_ranges(writer, table, id, &ranges, now);
        })
    }
}

/// What the table for these bans is made of: the sets for addresses, and for the prefix lengths with the most bans;
/// prefixes of further lengths go to the ranges.
fn made_for(wanted: &[Element]) -> Made {
    let mut count: BTreeMap<SetId, usize> = BTreeMap::new();
    for element in wanted {
        *count.entry(SetId::hash_of(&element.subnet)).or_default() += 1;
    }
    let ipv6 = count.keys().any(|id| !id.v4);
    let mut by_count: Vec<_> = count.into_iter().collect();
    by_count.sort_by_key(|(id, count)| (std::cmp::Reverse(*count), *id));
    let mut sets: BTreeSet<SetId> = SetId::base().collect();
    for (id, _) in by_count {
        let home = home(id, sets.iter());
        sets.insert(home);
    }
    Made { sets, ipv6 }
}

/// Too much at once: for the socket, for its answers, or for a hash that is just growing.
fn too_much(error: Errno) -> bool {
    matches!(
        error,
        Errno::EMSGSIZE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EBUSY
    )
}
