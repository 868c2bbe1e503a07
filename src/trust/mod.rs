//! What is never banned: one set in shared memory, applied wherever a ban enters.
//!
//! The set is replaced by adding what is new and then removing what is gone, so that an address that
//! was and stays trusted is trusted at every moment in between.

mod given;
mod lent;
mod list;
mod recent;
mod regions;
mod rule;
mod until;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use crate::address::{nat64, Subnet};
use crate::clock::UnixSeconds;
use crate::memory::{Arena, Line, Ordering, OutOfMemory};
use crate::table::{Entry, Table, TableLayout};
pub use given::{Given, GivenRule};
pub use lent::{NotLent, LAST_END, MAX_LENT, NO_END};
pub use list::{check_length, loopback, parse_parameter, ListError};
pub use recent::Recent;
use regions::Regions;
pub use rule::{Rule, Trusted};

/// How many addresses and prefixes parameters and file can trust.
pub const MAX_GIVEN: usize = 8_192;
/// How many addresses the module can trust that it found by itself.
pub const MAX_FOUND: usize = 8_192;
/// Twice what can be trusted: the old and the new set are stored side by side for a moment.
const CAPACITY: usize = 2 * (MAX_GIVEN + MAX_LENT + MAX_FOUND);
/// Entries of the list that are remembered while trust spares them; more come back with the next full fetch.
const MAX_SPARED: usize = 65_536;

/// The trusted addresses and prefixes, in shared memory.
#[derive(Clone)]
pub struct Trust {
    rules: Table<Rule>,
    /// The prefixes of `v6_ban_length` bits that hold a trusted address: see [`Trust::spares`].
    neighbours: Table<Rule>,
    regions: Regions,
    /// In its first word how often rules were removed: see [`Trust::generation`].
    removals: &'static Line,
    lent: Table,
    spared: Table,
    v6_ban_length: u8,
}

impl Trust {
    /// An empty set. `v6_ban_length`: the prefix length with which IPv6 sources are banned.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(arena: &mut dyn Arena, seed: u64, v6_ban_length: u8) -> Result<Self, OutOfMemory> {
        let layout = TableLayout {
            purpose: "the trusted addresses",
            capacity: CAPACITY,
            reasons: false,
        };
        Ok(Trust {
            rules: Table::new(arena, layout, seed)?,
            neighbours: Table::new(arena, layout, seed)?,
            regions: Regions::new(arena)?,
            removals: &arena.lines("the trusted addresses", 1)?[0],
            lent: Table::new(
                arena,
                TableLayout {
                    purpose: "the trust that is lent",
                    capacity: MAX_LENT,
                    reasons: true,
                },
                seed,
            )?,
            spared: Table::new(
                arena,
                TableLayout {
                    purpose: "the addresses that trust spares",
                    capacity: MAX_SPARED,
                    reasons: false,
                },
                seed,
            )?,
            v6_ban_length,
        })
    }

    /// False only if no rule can trust `ip`; true may be wrong.
    #[inline(always)]
    pub fn may_have(&self, ip: IpAddr) -> bool {
        self.regions.have(ip)
    }

    /// A number, never 0, that changes after rules were removed: what was found trusted by a search that began
    /// after it was read is trusted as long as it stays the same.
    #[inline(always)]
    pub fn generation(&self) -> u32 {
        // Pairs with the store in `replace`: a search that sees the new number does not see the old rules.
        self.removals.0[0].load(Ordering::Acquire) as u32 | 1
    }

    /// The rule that trusts this address, or the IPv4 host for which it stands behind a NAT64 translator.
    #[inline(always)]
    pub fn rule(&self, ip: IpAddr) -> Option<Rule> {
        if !self.may_have(ip) {
            return None;
        }
        match (self.rules.covering(ip), ip) {
            (Some(found), _) => Some(found.value()),
            (None, IpAddr::V6(v6)) => self.rule_behind(v6),
            (None, IpAddr::V4(_)) => None,
        }
    }

    /// The rule that trusts an IPv4 host for which `ip` stands.
    #[cold]
    fn rule_behind(&self, ip: Ipv6Addr) -> Option<Rule> {
        nat64::hosts(ip)
            .filter_map(|host| self.rules.covering(host.into()))
            .map(|found| found.value())
            .find(|rule| rule.counts_behind_translator())
    }

    /// The rule that forbids a ban of `subnet`: one that covers it, or covers a part of it.
    ///
    /// Addresses and IPv6 prefixes of the usual ban length cost a few probes; any other prefix costs a
    /// walk through the whole set.
    pub fn spares(&self, subnet: Subnet) -> Option<Rule> {
        if let Some(rule) = self.rule(subnet.address()) {
            return Some(rule);
        }
        if subnet.is_host() || self.rules.is_empty() {
            return None;
        }
        // A prefix that may be banned lies in one region: a page full of prefixes costs no walk each.
        if !subnet.is_too_wide() && !self.may_have(subnet.address()) {
            return None;
        }
        if let Some(entry) = self.overlap_behind(subnet) {
            return Some(entry.value);
        }
        if !subnet.is_v4() && subnet.prefix_len() == self.v6_ban_length {
            return self.neighbours.find(subnet).map(|found| found.value());
        }
        self.overlap(subnet, |_| true).map(|entry| entry.value)
    }

    /// A rule that counts and covers `subnet`, or a part of it. Costs a walk through the whole set.
    fn overlap(&self, subnet: Subnet, counts: impl Fn(Rule) -> bool) -> Option<Entry<Rule>> {
        let mut by = None;
        self.rules.for_each(|entry| {
            if entry.subnet.overlaps(&subnet) && counts(entry.value) {
                by = Some(entry);
            }
        });
        by
    }

    /// The same for the IPv4 hosts that `subnet` may hold behind a NAT64 translator.
    fn overlap_behind(&self, subnet: Subnet) -> Option<Entry<Rule>> {
        nat64::networks(subnet)
            .find_map(|behind| self.overlap(behind, Rule::counts_behind_translator))
    }

    /// The rule that forbids a ban of `subnet`, in full: for people.
    pub fn explain(&self, subnet: Subnet) -> Option<String> {
        let found = self.rules.covering(subnet.address());
        let by = found
            .and_then(|found| self.rules.entry(found))
            .or_else(|| self.overlap_behind(subnet))
            .or_else(|| self.overlap(subnet, |_| true));
        match by {
            Some(by) => Some(self.describe(by.subnet, by.value)),
            None => self.spares(subnet).map(|rule| rule.to_string()),
        }
    }

    /// A rule with what it covers, or with its comment.
    fn describe(&self, subnet: Subnet, rule: Rule) -> String {
        let comment = match rule {
            Rule::Lent => self.comment(subnet).unwrap_or_default(),
            _ => String::new(),
        };
        match rule {
            Rule::Parameter => format!("{rule} {subnet}"),
            Rule::Lent if !comment.is_empty() => format!("{rule}: {comment}"),
            _ => rule.to_string(),
        }
    }

    /// Every rule with what it covers.
    pub fn rules(&self) -> Vec<Trusted> {
        let mut rules = Vec::new();
        self.rules
            .for_each(|entry| rules.push((entry.subnet, entry.value)));
        rules
    }

    /// Notes when rules end that have an end, in internal time, for [`Trust::end`]. To be called after
    /// each [`Trust::replace`]; ending them is the caller's.
    pub fn set_ends(&self, ends: &[(Subnet, UnixSeconds)]) {
        for &(subnet, end) in ends {
            if let Some(found) = self.rules.find(subnet) {
                self.rules.put(subnet, found.value(), end, "");
            }
        }
    }

    /// When the rule for exactly this subnet ends, in internal time; `None`: it has no end.
    pub fn end(&self, subnet: Subnet) -> Option<UnixSeconds> {
        let entry = self.rules.entry(self.rules.find(subnet)?)?;
        // In this table `since` holds the end of a rule; in the others it is the beginning of a ban.
        Some(entry.since).filter(|end| *end != UnixSeconds::ZERO)
    }

    /// How many rules there are, and how many of them the module found by itself.
    pub fn count(&self) -> (usize, usize) {
        let (mut all, mut automatic) = (0, 0);
        self.rules.for_each(|entry| {
            all += 1;
            automatic += usize::from(entry.value.is_automatic());
        });
        (all, automatic)
    }

    /// What this rule covers.
    pub fn of(&self, rule: Rule) -> Vec<Subnet> {
        let mut covered = Vec::new();
        self.rules.for_each(|entry| {
            if entry.value == rule {
                covered.push(entry.subnet);
            }
        });
        covered
    }

    /// Adds one rule to the set as it is; false if there is no room.
    pub fn add(&self, (subnet, rule): Trusted) -> bool {
        self.regions.mark(subnet);
        self.neighbour(subnet)
            .is_none_or(|net| put(&self.neighbours, net, rule))
            && put(&self.rules, subnet, rule)
    }

    /// Makes the set exactly `wanted`, the most important first: if a subnet occurs twice, its first rule
    /// counts, and what exceeds the room of the set is left out from the end. One process at a time may
    /// call this.
    pub fn replace(&self, wanted: &[Trusted]) {
        let mut rules = HashMap::new();
        for &(subnet, rule) in wanted {
            if rules.len() < CAPACITY / 2 {
                rules.entry(subnet).or_insert(rule);
            }
        }
        let mut neighbours = HashMap::new();
        for (&subnet, &rule) in &rules {
            if let Some(net) = self.neighbour(subnet) {
                neighbours.entry(net).or_insert(rule);
            }
        }
        rules.keys().for_each(|&subnet| self.regions.mark(subnet));
        // What another process lends meanwhile stays.
        let lent = |subnet: Subnet| self.lent.find(subnet).is_some();
        let mut lent_neighbours = HashSet::new();
        self.lent
            .for_each(|entry| lent_neighbours.extend(self.neighbour(entry.subnet)));
        swap(&self.neighbours, &neighbours, |net| {
            lent_neighbours.contains(&net)
        });
        swap(&self.rules, &rules, lent);
        // The number of removals counts in steps of two: see `generation`.
        self.removals[0].fetch_add(2, Ordering::Release);
    }

    /// The prefix of the usual IPv6 ban length in which this trusted subnet is only a part.
    fn neighbour(&self, subnet: Subnet) -> Option<Subnet> {
        if subnet.is_v4() || subnet.prefix_len() <= self.v6_ban_length {
            return None;
        }
        Subnet::new(subnet.address(), self.v6_ban_length)
    }
}

fn put(table: &Table<Rule>, subnet: Subnet, rule: Rule) -> bool {
    table.put(subnet, rule, UnixSeconds::ZERO, "")
}

/// Makes the table `wanted` and what `stays` says.
fn swap(table: &Table<Rule>, wanted: &HashMap<Subnet, Rule>, stays: impl Fn(Subnet) -> bool) {
    for (&subnet, &rule) in wanted {
        put(table, subnet, rule);
    }
    table.retain(|subnet, _| wanted.contains_key(&subnet) || stays(subnet));
}

#[cfg(test)]
mod tests;
