//! Who is never banned: one set in shared memory, applied wherever a ban enters.
//!
//! The set is replaced by adding what is new and then removing what is gone, so that an address that
//! was and stays trusted is trusted at every moment in between.

mod regions;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use crate::address::Subnet;
use crate::memory::{Arena, OutOfMemory};
use crate::table::{Inserted, Table};
use regions::Regions;

/// How many addresses and prefixes can be trusted.
pub const CAPACITY: usize = 16_384;

/// Why an address is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The parameter `trust`.
    Parameter,
    /// This line of the file that `trust_file` names.
    File(u32),
    /// Loopback, by `trust_self`.
    Loopback,
    /// An address that this Kamailio listens on, by `trust_self`.
    Own,
    /// A node of the DMQ bus, by `trust_dmq`.
    Dmq,
    /// A destination of the dispatcher module, by `trust_dispatcher`.
    Dispatcher,
}

impl Rule {
    /// The rule as the value of a table entry: kind in the low four bits, never zero.
    fn pack(self) -> u32 {
        match self {
            Rule::Parameter => 1,
            Rule::File(line) => 2 | line << 4,
            Rule::Loopback => 3,
            Rule::Own => 4,
            Rule::Dmq => 5,
            Rule::Dispatcher => 6,
        }
    }

    fn unpack(value: u32) -> Rule {
        match value & 15 {
            2 => Rule::File(value >> 4),
            3 => Rule::Loopback,
            4 => Rule::Own,
            5 => Rule::Dmq,
            6 => Rule::Dispatcher,
            _ => Rule::Parameter,
        }
    }

    /// True where the module found the address by itself.
    pub fn is_automatic(self) -> bool {
        !matches!(self, Rule::Parameter | Rule::File(_))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Parameter => f.write_str("trust"),
            Rule::File(line) => write!(f, "trust_file line {line}"),
            Rule::Loopback => f.write_str("trust_self: loopback"),
            Rule::Own => f.write_str("trust_self: own address"),
            Rule::Dmq => f.write_str("trust_dmq"),
            Rule::Dispatcher => f.write_str("trust_dispatcher"),
        }
    }
}

/// One rule and what it covers.
pub type Trusted = (Subnet, Rule);

/// More rules than the set can hold.
#[derive(Debug, thiserror::Error)]
#[error("{0} trusted addresses and prefixes, at most {CAPACITY} are possible")]
pub struct TooMany(usize);

/// The trusted addresses and prefixes, in shared memory.
#[derive(Clone)]
pub struct Trust {
    rules: Table,
    /// The prefixes of `v6_ban_length` bits that hold a trusted address: see [`Trust::spares`].
    neighbours: Table,
    regions: Regions,
    v6_ban_length: u8,
}

impl Trust {
    /// An empty set. `v6_ban_length`: the prefix length with which IPv6 sources are banned.
    pub fn new(arena: &mut dyn Arena, seed: u64, v6_ban_length: u8) -> Result<Self, OutOfMemory> {
        Ok(Trust {
            rules: Table::new(arena, "the trusted addresses", CAPACITY, seed, false)?,
            neighbours: Table::new(arena, "the trusted addresses", CAPACITY, seed, false)?,
            regions: Regions::new(arena)?,
            v6_ban_length,
        })
    }

    /// False where certainly no rule trusts this address.
    #[inline(always)]
    pub fn may_have(&self, ip: IpAddr) -> bool {
        self.regions.have(ip)
    }

    /// The rule that trusts this address.
    #[inline(always)]
    pub fn rule(&self, ip: IpAddr) -> Option<Rule> {
        if !self.may_have(ip) {
            return None;
        }
        self.rules
            .lookup(ip, 0)
            .map(|found| Rule::unpack(found.value()))
    }

    /// The rule that forbids a ban of `subnet`: one that covers it, or covers a part of it.
    ///
    /// Addresses and IPv6 prefixes of the usual ban length cost a few probes; any other prefix a look
    /// at the whole set.
    pub fn spares(&self, subnet: Subnet) -> Option<Rule> {
        if let Some(rule) = self.rule(subnet.address()) {
            return Some(rule);
        }
        if subnet.is_host() || self.rules.is_empty() {
            return None;
        }
        // What may be banned at all lies in one region: a page full of prefixes costs no search each.
        if !subnet.is_too_wide() && !self.may_have(subnet.address()) {
            return None;
        }
        if !subnet.is_v4() && subnet.prefix_len() == self.v6_ban_length {
            return self
                .neighbours
                .find(subnet)
                .map(|found| Rule::unpack(found.value()));
        }
        let mut spared = None;
        self.rules.for_each(|entry| {
            if entry.subnet.overlaps(&subnet) {
                spared = Some(Rule::unpack(entry.value));
            }
        });
        spared
    }

    /// How many rules there are, and how many of them the module found by itself.
    pub fn count(&self) -> (usize, usize) {
        let (mut all, mut automatic) = (0, 0);
        self.rules.for_each(|entry| {
            all += 1;
            automatic += usize::from(Rule::unpack(entry.value).is_automatic());
        });
        (all, automatic)
    }

    /// What this rule covers.
    pub fn of(&self, rule: Rule) -> Vec<Subnet> {
        let mut covered = Vec::new();
        self.rules.for_each(|entry| {
            if Rule::unpack(entry.value) == rule {
                covered.push(entry.subnet);
            }
        });
        covered
    }

    /// Adds one rule to the set as it is; false where there is no room.
    pub fn add(&self, (subnet, rule): Trusted) -> bool {
        self.regions.mark(subnet);
        self.neighbour(subnet)
            .is_none_or(|net| put(&self.neighbours, net, rule))
            && put(&self.rules, subnet, rule)
    }

    /// Makes the set exactly `wanted`; where a subnet occurs twice the first rule counts. Nothing is
    /// changed on an error. One process at a time may call this.
    pub fn replace(&self, wanted: &[Trusted]) -> Result<(), TooMany> {
        let mut rules = HashMap::new();
        for &(subnet, rule) in wanted {
            rules.entry(subnet).or_insert(rule);
        }
        let mut neighbours = HashMap::new();
        for (&subnet, &rule) in &rules {
            if let Some(net) = self.neighbour(subnet) {
                neighbours.entry(net).or_insert(rule);
            }
        }
        // Half of the room: old and new stand side by side for a moment.
        if rules.len() > CAPACITY / 2 {
            return Err(TooMany(rules.len()));
        }
        rules.keys().for_each(|&subnet| self.regions.mark(subnet));
        swap(&self.neighbours, &neighbours);
        swap(&self.rules, &rules);
        Ok(())
    }

    /// The prefix of the usual IPv6 ban length in which this trusted subnet is only a part.
    fn neighbour(&self, subnet: Subnet) -> Option<Subnet> {
        if subnet.is_v4() || subnet.prefix_len() <= self.v6_ban_length {
            return None;
        }
        Subnet::new(subnet.address(), self.v6_ban_length)
    }
}

fn put(table: &Table, subnet: Subnet, rule: Rule) -> bool {
    table.replace(subnet, rule.pack()) || table.insert(subnet, rule.pack(), 0, "") != Inserted::Full
}

fn swap(table: &Table, wanted: &HashMap<Subnet, Rule>) {
    for (&subnet, &rule) in wanted {
        put(table, subnet, rule);
    }
    table.retain(|subnet, _| wanted.contains_key(&subnet));
}

/// A word of a trust list that is no address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// In the parameter.
    #[error("{0}")]
    Word(#[from] crate::address::ParseError),
    /// In this line of the file.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: u32,
        /// What is wrong with it.
        reason: String,
    },
}

/// Parses the value of the parameter `trust`: addresses and prefixes, comma or space separated.
pub fn parse_parameter(text: &str) -> Result<Vec<Trusted>, ListError> {
    let mut trusted = Vec::new();
    for word in text.split([',', ' ', '\t', '\n', ';']) {
        if !word.is_empty() {
            trusted.extend(covering(word.parse()?, Rule::Parameter));
        }
    }
    Ok(trusted)
}

/// The rule for `subnet`. Tables have no prefixes of no bits: who trusts a whole family trusts its
/// halves.
fn covering(subnet: Subnet, rule: Rule) -> Vec<Trusted> {
    let halves = match (subnet.prefix_len(), subnet.is_v4()) {
        (0, true) => ["0.0.0.0/1", "128.0.0.0/1"],
        (0, false) => ["::/1", "8000::/1"],
        _ => return vec![(subnet, rule)],
    };
    halves
        .iter()
        .filter_map(|half| Some((half.parse().ok()?, rule)))
        .collect()
}

/// Parses a trust file: one address or prefix a line, `#` begins a comment.
pub fn parse_file(text: &str) -> Result<Vec<Trusted>, ListError> {
    let mut trusted = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let word = content.split('#').next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        let subnet = word
            .parse()
            .map_err(|error: crate::address::ParseError| ListError::Line {
                line,
                reason: error.to_string(),
            })?;
        trusted.extend(covering(subnet, Rule::File(line)));
    }
    Ok(trusted)
}

/// What `trust_self` covers without asking anybody: the loopback networks.
pub fn loopback() -> Vec<Trusted> {
    ["127.0.0.0/8", "::1"]
        .iter()
        .filter_map(|text| Some((text.parse().ok()?, Rule::Loopback)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    fn trust(list: &str) -> Trust {
        let trust = Trust::new(&mut HeapArena, 7, 64).unwrap();
        trust.replace(&parse_parameter(list).unwrap()).unwrap();
        trust
    }

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn covers_addresses_and_whatever_overlaps() {
        let trust = trust("192.0.2.7, 198.51.100.0/24 2001:db8::5");
        for spared in [
            "192.0.2.7",
            "192.0.2.0/24",
            "198.51.100.9",
            "198.51.100.128/25",
            "198.51.0.0/16",
            "2001:db8::5",
            "2001:db8::/64",
            "2001:db8::/48",
        ] {
            assert_eq!(
                trust.spares(subnet(spared)),
                Some(Rule::Parameter),
                "{spared}"
            );
        }
        for stranger in [
            "192.0.2.8",
            "192.0.3.0/24",
            "2001:db8::6",
            "2001:db8:1::/64",
        ] {
            assert_eq!(trust.spares(subnet(stranger)), None, "{stranger}");
        }
    }

    #[test]
    fn a_whole_family_can_be_trusted() {
        let v4 = trust("0.0.0.0/0");
        let v6 = trust("::/0");
        for (text, is_v4) in [
            ("192.0.2.7", true),
            ("8.8.8.0/24", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(v4.spares(subnet(text)).is_some(), is_v4, "{text}");
            assert_eq!(v6.spares(subnet(text)).is_some(), !is_v4, "{text}");
        }
    }

    #[test]
    fn is_swapped_whole_and_names_the_rule() {
        let trust = trust("192.0.2.7 192.0.2.8");
        let file = parse_file("# carriers\n\n192.0.2.8  # east\n203.0.113.0/24\n").unwrap();
        trust.replace(&[file, loopback()].concat()).unwrap();
        assert_eq!(trust.rule("192.0.2.7".parse().unwrap()), None);
        assert_eq!(
            trust.rule("192.0.2.8".parse().unwrap()),
            Some(Rule::File(3))
        );
        assert_eq!(
            trust
                .rule("203.0.113.77".parse().unwrap())
                .unwrap()
                .to_string(),
            "trust_file line 4"
        );
        assert_eq!(
            trust.rule("127.0.0.9".parse().unwrap()),
            Some(Rule::Loopback)
        );
        assert_eq!(trust.count(), (4, 2));
        assert!(trust.add((subnet("192.0.2.9"), Rule::Own)));
        assert_eq!(trust.rule("192.0.2.9".parse().unwrap()), Some(Rule::Own));
    }

    #[test]
    fn wide_prefixes_cover_all_their_regions() {
        let trust = trust("10.0.0.0/6 2001:e00::/24 2001:db8:1::/48");
        for text in [
            "8.0.0.1",
            "11.255.255.255",
            "::ffff:9.1.1.1",
            "2001:eff::1",
            "2001:db8:1::1",
        ] {
            assert!(trust.rule(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in ["7.255.255.255", "12.0.0.0", "2001:f00::1", "2001:db8:2::1"] {
            assert_eq!(trust.rule(text.parse().unwrap()), None, "{text}");
        }
        let all = Trust::new(&mut HeapArena, 7, 64).unwrap();
        all.add((subnet("::/1"), Rule::Parameter));
        assert!((0..256u128).all(|n| all.rule(IpAddr::V6((n << 100 | 1).into())).is_some()));
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = parse_file("192.0.2.1\n192.0.2.0/33\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: \"192.0.2.0/33\" is not an IP address or prefix"
        );
        assert!(parse_parameter("192.0.2.1,carrier.example")
            .unwrap_err()
            .to_string()
            .contains("carrier.example"));
    }

    #[test]
    fn too_many_change_nothing() {
        let trust = trust("192.0.2.7");
        let many: Vec<Trusted> = (0..10_000u32)
            .map(|n| {
                (
                    Subnet::host(IpAddr::V4((0x0a00_0000 + n).into())),
                    Rule::Parameter,
                )
            })
            .collect();
        assert!(trust.replace(&many).is_err());
        assert_eq!(trust.count(), (1, 0));
    }
}
