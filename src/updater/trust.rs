//! Keeps the trust set what parameters, files and Kamailio itself say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::resolver::Resolver;
use super::uri;
use super::Host;
use crate::address::{parse_address, Subnet};
use crate::bans::evict::evict_trusted;
use crate::config::files;
use crate::config::{Config, ConfigError};
use crate::error;
use crate::shared::Shared;
use crate::trust::{Rule, Trusted};

/// What Kamailio knows by itself (interfaces, nodes, destinations) is looked at this often, in
/// milliseconds.
const PAUSE: u64 = 2_000;

/// Whom Kamailio knows by itself.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// Addresses that it listens on.
    pub own: Vec<IpAddr>,
    /// Nodes of the DMQ bus, addresses or names.
    pub nodes: Vec<String>,
    /// URIs of the dispatcher's destinations.
    pub destinations: Vec<String>,
}

/// The rules in force.
pub struct TrustWatch {
    /// From parameters and files.
    given: Vec<Trusted>,
    /// All of them, to see a change.
    all: Vec<Trusted>,
    resolver: Option<Resolver>,
    next: u64,
    failing: bool,
}

impl TrustWatch {
    /// Begins with what `mod_init` read; without a resolver names are not followed.
    pub fn new(given: Vec<Trusted>, resolver: Option<Resolver>) -> Self {
        TrustWatch {
            given,
            all: Vec::new(),
            resolver,
            next: 0,
            failing: false,
        }
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// A file that cannot be used; nothing has changed then.
    pub fn reload(&mut self, config: &Config) -> Result<(), ConfigError> {
        self.given = files::read_trust(config)?;
        Ok(())
    }

    /// When to look again, in Unix milliseconds.
    pub fn due(&self) -> u64 {
        self.next
    }

    /// True where it is time to look again.
    pub fn is_due(&self, now: u64) -> bool {
        now >= self.next
    }

    /// Brings the set up to date; returns whose bans were lifted for it.
    pub fn follow(&mut self, now: u64, shared: &Shared, host: &dyn Host) -> Vec<Subnet> {
        self.next = now + PAUSE;
        let discovered = host.discovered();
        let mut all = self.given.clone();
        all.extend(
            discovered
                .own
                .iter()
                .map(|ip| (Subnet::host(*ip), Rule::Own)),
        );
        // Own addresses that are on no interface (advertised ones) were recognised when they were met.
        let met = shared
            .trust
            .of(Rule::Own)
            .into_iter()
            .filter(|subnet| host.is_own(subnet.address()));
        all.extend(met.map(|subnet| (subnet, Rule::Own)));
        let mut names = BTreeSet::new();
        let nodes = discovered.nodes.iter().map(String::as_str);
        let hosts = discovered
            .destinations
            .iter()
            .filter_map(|text| uri::host(text));
        for (text, rule) in nodes
            .map(|node| (node, Rule::Dmq))
            .chain(hosts.map(|host| (host, Rule::Dispatcher)))
        {
            match parse_address(text) {
                Ok(ip) => all.push((Subnet::host(ip), rule)),
                Err(_) => drop(names.insert((text.to_owned(), rule))),
            }
        }
        all.extend(self.resolve(names, now));
        // Stable: of several rules for an address the first counts.
        all.sort_by_key(|(subnet, _)| *subnet);
        all.dedup_by_key(|(subnet, _)| *subnet);
        self.put_in_force(all, shared)
    }

    fn resolve(&mut self, names: BTreeSet<(String, Rule)>, now: u64) -> Vec<Trusted> {
        let Some(resolver) = &mut self.resolver else {
            return Vec::new();
        };
        let rules: Vec<(String, Rule)> = names.into_iter().collect();
        let names: BTreeSet<String> = rules.iter().map(|(name, _)| name.clone()).collect();
        let found = resolver.addresses(&names, now);
        let rule_of = |name: &str| {
            rules
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, rule)| *rule)
        };
        found
            .into_iter()
            .filter_map(|(name, ip)| Some((Subnet::host(ip), rule_of(&name)?)))
            .collect()
    }

    fn put_in_force(&mut self, all: Vec<Trusted>, shared: &Shared) -> Vec<Subnet> {
        if all == self.all {
            return Vec::new();
        }
        if let Err(error) = shared.trust.replace(&all) {
            if !std::mem::replace(&mut self.failing, true) {
                error!("trust: {error}; the set stays as it was");
            }
            return Vec::new();
        }
        self.failing = false;
        self.all = all;
        evict_trusted(shared)
    }
}
