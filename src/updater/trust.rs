//! Keeps the trust set equal to what parameters, files and Kamailio itself say.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::resolver::Resolver;
use super::uri;
use super::Discovery;
use crate::address::{parse_address, Subnet};
use crate::bans::evict::evict_trusted;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::config::files;
use crate::config::{Config, ConfigError};
use crate::shared::Shared;
use crate::table::Inserted;
use crate::trust::{Given, Rule, Trusted, LAST_END, MAX_FOUND};
use crate::{info, notice, warning};

/// What Kamailio knows by itself (interfaces, nodes, destinations) is read this often.
const PAUSE: Duration = Duration::from_secs(2);
/// Newly trusted addresses that are logged by name at a time.
const MOST_NAMED: usize = 20;
/// More nodes than this no cluster has; further ones are not trusted.
const MAX_NODES: usize = 64;

/// What Kamailio knows by itself and the parameters trust.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// Addresses that it listens on.
    pub own: Vec<IpAddr>,
    /// URIs of the nodes that the operator configured for the dmq module. Never those that the DMQ bus
    /// reports: anybody can add an address there with one datagram.
    pub nodes: Vec<String>,
    /// Addresses of the nodes that have proved that they belong to the cluster.
    pub members: Vec<IpAddr>,
    /// URIs of the dispatcher's destinations.
    pub destinations: Vec<String>,
}

/// What a change of the trust set did to the bans.
#[derive(Debug, Default)]
pub struct Changes {
    /// Removed from the tables: trusted now.
    pub evicted: Vec<Subnet>,
    /// Put back into the table of the feed: listed, and no longer trusted.
    pub restored: Vec<Subnet>,
}

/// The rules in force.
pub struct TrustWatch {
    /// From parameters and files.
    given: Given,
    /// Its rules whose end has been reported; `None` as long as it is new.
    over: Option<BTreeSet<Rule>>,
    /// The ends of the rules in force, in internal time.
    ends: Vec<(Subnet, UnixSeconds)>,
    /// All of them, sorted, to see a change.
    in_force: Vec<Trusted>,
    resolver: Option<Resolver>,
    next: UnixMillis,
    /// Another process has changed the set.
    outdated: bool,
    /// The warning about addresses that are not trusted has been written.
    overfull: bool,
}

impl TrustWatch {
    /// Begins with what `mod_init` read; without a resolver names are not followed.
    pub fn new(given: Given, resolver: Option<Resolver>) -> Self {
        TrustWatch {
            given,
            over: None,
            ends: Vec::new(),
            in_force: Vec::new(),
            resolver,
            next: UnixMillis::ZERO,
            outdated: false,
            overfull: false,
        }
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// A file that cannot be used, or too long a list; nothing has changed then.
    pub fn reload(&mut self, config: &Config) -> Result<(), ConfigError> {
        self.given = files::read_trust(config)?;
        self.over = None;
        for text in &self.given.warnings {
            warning!("{text}");
        }
        Ok(())
    }

    /// Another process has changed the set: the next look puts all of it in force.
    pub fn outdated(&mut self) {
        self.outdated = true;
    }

    /// When to look again.
    pub fn due(&self) -> UnixMillis {
        self.next
    }

    /// True if it is time to look again.
    pub fn is_due(&self, now: UnixMillis) -> bool {
        now >= self.next
    }

    /// Brings the set up to date.
    pub fn follow(&mut self, now: UnixMillis, shared: &Shared, host: &dyn Discovery) -> Changes {
        self.next = now + PAUSE;
        end_loans(shared);
        let wall = shared.wall_offset().wall(shared.now());
        self.report_ends(wall);
        let given = self.given.at(wall);
        let found = self.found(now, shared, host);
        let mut lent = Vec::new();
        let loans = shared.trust.lent();
        loans.for_each_live(shared.now(), |loan| lent.push((loan.subnet, Rule::Lent)));
        // The first rule of an address counts: what the operator gave comes before what was found.
        let mut rules = BTreeMap::new();
        for &(subnet, rule) in given.iter().chain(&lent).chain(&found) {
            rules.entry(subnet).or_insert(rule);
        }
        let wanted: Vec<Trusted> = rules.into_iter().collect();
        let ends = self.ends_of(&wanted, shared);
        let outdated = std::mem::take(&mut self.outdated);
        if wanted == self.in_force && ends != self.ends {
            shared.trust.set_ends(&ends);
        }
        self.ends = ends;
        if wanted == self.in_force && !outdated {
            return Changes::default();
        }
        shared.trust.replace(&wanted);
        shared.trust.set_ends(&self.ends);
        self.announce(&wanted);
        self.in_force = wanted;
        Changes {
            evicted: evict_trusted(shared),
            restored: restore_listed(shared),
        }
    }

    /// The internal ends of those rules that have one.
    fn ends_of(&self, wanted: &[Trusted], shared: &Shared) -> Vec<(Subnet, UnixSeconds)> {
        let offset = shared.wall_offset();
        let rules = self.given.rules.iter();
        let mut ends: Vec<(Subnet, UnixSeconds)> = rules
            .filter_map(|given| Some((given.trusted, given.until?)))
            .filter(|(trusted, _)| wanted.binary_search(trusted).is_ok())
            .map(|((subnet, _), end)| (subnet, offset.internal(end).min(LAST_END)))
            .collect();
        ends.sort_unstable();
        ends
    }

    /// Says which given rules have ended: of a new list in one line, later one by one.
    fn report_ends(&mut self, wall: UnixSeconds) {
        let is_new = self.over.is_none();
        let over = self.over.get_or_insert_default();
        let mut lines = Vec::new();
        for given in &self.given.rules {
            let Some(end) = given.until else {
                continue;
            };
            let (subnet, rule) = given.trusted;
            if end > wall {
                over.remove(&rule);
            } else if over.insert(rule) {
                if is_new {
                    lines.push(rule.to_string());
                } else {
                    notice!("{subnet} is no longer trusted: until= of {rule} is over");
                }
            }
        }
        if !lines.is_empty() {
            let more = lines.len().saturating_sub(MOST_NAMED);
            lines.truncate(MOST_NAMED);
            if more > 0 {
                lines.push(format!("{more} more"));
            }
            warning!(
                "these rules trust nobody any more, their until= is over: {}",
                lines.join(", ")
            );
        }
    }

    /// What Kamailio knows by itself, as addresses, not more than there is room for.
    fn found(&mut self, now: UnixMillis, shared: &Shared, host: &dyn Discovery) -> Vec<Trusted> {
        let discovered = host.discovered();
        let own = |ip: &IpAddr| (Subnet::host(*ip), Rule::Own);
        let mut found: Vec<Trusted> = discovered.own.iter().map(own).collect();
        // Own addresses that are on no interface (advertised ones) were recognised when they were met.
        let met = shared.trust.of(Rule::Own);
        let met = met.iter().filter(|subnet| host.is_own(subnet.address()));
        found.extend(met.map(|subnet| (*subnet, Rule::Own)));
        let nodes = self.resolve(&discovered.nodes, Rule::Dmq);
        let member = |ip: &IpAddr| (Subnet::host(*ip), Rule::Member);
        let nodes = nodes
            .into_iter()
            .chain(discovered.members.iter().map(member));
        let (nodes, more_nodes) = at_most(MAX_NODES, nodes);
        let destinations = self.resolve(&discovered.destinations, Rule::Dispatcher);
        if let Some(resolver) = &mut self.resolver {
            resolver.ask(now);
        }
        found.extend(nodes);
        let (found, more) = at_most(MAX_FOUND, found.into_iter().chain(destinations));
        let left_out = more_nodes + more;
        if left_out > 0 && !self.overfull {
            warning!(
                "trust: {left_out} addresses found by trust_self, trust_dmq and trust_dispatcher are not trusted: at most {MAX_FOUND} are possible, of them {MAX_NODES} nodes"
            );
        }
        self.overfull = left_out > 0;
        found
    }

    /// The addresses of these URIs as far as they are known.
    fn resolve(&mut self, uris: &[String], rule: Rule) -> Vec<Trusted> {
        let mut trusted = Vec::new();
        for host in uris.iter().filter_map(|text| uri::host(text)) {
            match (parse_address(host), &mut self.resolver) {
                (Ok(ip), _) => trusted.push((Subnet::host(ip), rule)),
                (Err(_), Some(resolver)) => {
                    let addresses = resolver.addresses(host);
                    trusted.extend(addresses.iter().map(|ip| (Subnet::host(*ip), rule)));
                }
                (Err(_), None) => {}
            }
        }
        trusted
    }

    /// Names what the module trusts from now on without having been told to.
    fn announce(&self, wanted: &[Trusted]) {
        let known: HashSet<Subnet> = self.in_force.iter().map(|(subnet, _)| *subnet).collect();
        let new: Vec<&Trusted> = wanted
            .iter()
            .filter(|(subnet, rule)| found_outside(*rule) && !known.contains(subnet))
            .collect();
        for (subnet, rule) in new.iter().take(MOST_NAMED) {
            notice!("{subnet} is trusted from now on: {rule}");
        }
        if new.len() > MOST_NAMED {
            let more = new.len() - MOST_NAMED;
            notice!("{more} more addresses are trusted from now on");
        }
    }
}

/// Removes loans that have ended, and says so.
fn end_loans(shared: &Shared) {
    shared.trust.lent().expire(shared.now(), |loan| {
        let comment = if loan.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", loan.reason)
        };
        notice!(
            "{} is no longer trusted, the time of apiban.trust_add is over{comment}",
            loan.subnet
        );
    });
}

/// Bans again what the service lists and trust no longer spares; returns it.
fn restore_listed(shared: &Shared) -> Vec<Subnet> {
    let now = shared.now();
    let mut back = Vec::new();
    shared.trust.spared().for_each_live(now, |entry| {
        if shared.trust.spares(entry.subnet).is_none() {
            back.push(entry);
        }
    });
    back.retain(|entry| {
        shared.trust.spared().remove(entry.subnet);
        let placed = shared
            .feed
            .insert(entry.subnet, entry.value, entry.since, "");
        if placed != Inserted::Full {
            info!(
                "{} is banned again: listed, and no longer trusted",
                entry.subnet
            );
        }
        placed != Inserted::Full
    });
    // Those that ended while they were spared.
    shared.trust.spared().expire(now, |_| ());
    back.into_iter().map(|entry| entry.subnet).collect()
}

/// True for a rule that makes another host trusted although no trust list names it.
fn found_outside(rule: Rule) -> bool {
    matches!(rule, Rule::Dmq | Rule::Member | Rule::Dispatcher)
}

/// The first `most` different addresses, and how many different ones were left out.
fn at_most(most: usize, all: impl Iterator<Item = Trusted>) -> (Vec<Trusted>, usize) {
    let (mut kept, mut seen, mut left_out) = (Vec::new(), BTreeSet::new(), 0);
    for (subnet, rule) in all {
        if !seen.insert(subnet) {
            continue;
        }
        if kept.len() < most {
            kept.push((subnet, rule));
        } else {
            left_out += 1;
        }
    }
    (kept, left_out)
}
