//! Our table, its chains and their rules as messages.

use std::collections::BTreeSet;
use std::fmt;

use super::expressions::*;
use super::hook::Hook;
use super::names::{Family, SetId};
use super::owner::Owner;
use super::sets::new_set;
use super::uapi::*;
use super::wire::Writer;
use crate::firewall::ports::Ports;

/// Comment that distinguishes our table and sets from all others.
pub const MARK: &str = "apiban.so";
/// The chain for IPv6 packets. A rule of the base chain leads there, which is made with the first ban of an IPv6
/// source: until then other packets do not pay for it (about 30 ns each).
pub const IPV6: &str = "ipv6";
/// The chain for packets of banned sources, if only some ports are dropped or each source is counted.
pub const BANNED: &str = "banned";
/// The set of these ports.
pub const PORTS: &str = "ports";
/// What the comment of the rule for neighbour discovery says after [`MARK`]; the owner follows.
const NEIGHBOURS: &str = "neighbours";
/// Longest text of ports in a comment; of a longer one only its hash is written. nft shows 128 bytes.
const LONGEST_PORTS: usize = 80;
/// Protocols that have ports we know, with their names.
const PROTOCOLS: [(u8, &str); 2] = [(IPPROTO_UDP, "udp"), (IPPROTO_TCP, "tcp")];

/// How our table looks, whatever is banned.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The place of the base chain.
    pub hook: Hook,
    /// The ports that are dropped; `None` for all traffic.
    pub ports: Option<Ports>,
    /// True if the kernel counts what it drops of each source.
    pub counts: bool,
}

/// What of a table of ours depends on what is banned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// Its sets of banned sources.
    pub sets: BTreeSet<SetId>,
    /// True if the base chain leads IPv6 packets to their chain.
    pub ipv6: bool,
}

/// A rule of ours, as its comment names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Leads IPv6 packets to their chain.
    Ipv6,
    /// Accepts what IPv6 neighbours ask each other.
    Neighbours,
    /// Finds sources of one set.
    Banned(SetId),
    /// Counts or drops packets of banned sources; the text says which.
    Of(String),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Ipv6 => f.write_str(IPV6),
            Rule::Neighbours => f.write_str(NEIGHBOURS),
            Rule::Banned(id) => id.fmt(f),
            Rule::Of(text) => f.write_str(text),
        }
    }
}

impl Rule {
    /// Reads the comment of a rule in the base chain or the chain for IPv6.
    pub fn parse(comment: &str) -> Option<(Self, Option<Owner>)> {
        let text = comment.strip_prefix(MARK)?.strip_prefix(' ')?;
        if text == IPV6 {
            return Some((Rule::Ipv6, None));
        }
        match text.strip_prefix(NEIGHBOURS) {
            Some("") => Some((Rule::Neighbours, None)),
            Some(rest) => Some((Rule::Neighbours, Owner::parse(rest.trim_start()))),
            None => Some((Rule::Banned(SetId::parse(text)?), None)),
        }
    }

    /// Reads the comment of a rule in the chain of banned sources.
    pub fn parse_banned(comment: &str) -> Option<Self> {
        let text = comment.strip_prefix(MARK)?.strip_prefix(' ')?;
        Some(Rule::Of(text.to_owned()))
    }
}

impl Shape {
    /// True if packets of banned sources go through a chain of their own.
    pub fn has_banned_chain(&self) -> bool {
        self.ports.is_some() || self.counts
    }

    /// What the chain of banned sources drops: all, or some ports of each protocol.
    fn dropped(&self) -> Vec<(Option<u8>, String)> {
        let Some(ports) = &self.ports else {
            return vec![(None, "drop".to_owned())];
        };
        let mut text = ports.to_string();
        if text.len() > LONGEST_PORTS {
            text = format!("ports {:08x}", crc32fast::hash(text.as_bytes()));
        }
        PROTOCOLS
            .iter()
            .map(|(protocol, name)| (Some(*protocol), format!("{name} {text}")))
            .collect()
    }

    /// The rules of the chain of banned sources, in order, as their comments name them.
    pub fn banned_rules(&self) -> Vec<Rule> {
        self.banned_chain().into_iter().map(|rule| rule.0).collect()
    }

    /// The rules of the chain of banned sources: name, protocol, and the family whose sources it counts; the
    /// last rules count nobody and drop.
    ///
    /// Counting has rules of its own, because a rule ends when a full set takes no further source: it must
    /// not end before the drop.
    fn banned_chain(&self) -> Vec<(Rule, Option<u8>, Option<Family>)> {
        if !self.has_banned_chain() {
            return Vec::new();
        }
        let dropped = self.dropped();
        let mut rules = Vec::new();
        for family in Family::BOTH.into_iter().filter(|_| self.counts) {
            for (protocol, name) in &dropped {
                let name = format!("{} {name}", family.counted());
                rules.push((Rule::Of(name), *protocol, Some(family)));
            }
        }
        rules.extend(
            dropped
                .into_iter()
                .map(|(protocol, name)| (Rule::Of(name), protocol, None)),
        );
        rules
    }

    /// Appends messages that make the table and its chains if they do not exist.
    pub fn make_table(&self, writer: &mut Writer, table: &str) {
        writer.message(NFT_MSG_NEWTABLE, NLM_F_CREATE);
        writer.text(NFTA_TABLE_NAME, table);
        writer.be32(NFTA_TABLE_FLAGS, 0);
        writer.attr(NFTA_TABLE_USERDATA, &comment(UDATA_COMMENT, MARK));
        writer.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE);
        writer.text(NFTA_CHAIN_TABLE, table);
        writer.text(NFTA_CHAIN_NAME, self.hook.chain);
        let hook = writer.nest(NFTA_CHAIN_HOOK);
        writer.be32(NFTA_HOOK_HOOKNUM, self.hook.number);
        writer.attr(NFTA_HOOK_PRIORITY, &self.hook.priority.to_be_bytes());
        writer.close(hook);
        writer.text(NFTA_CHAIN_TYPE, "filter");
        writer.be32(NFTA_CHAIN_POLICY, NF_ACCEPT);
        for chain in self.inner_chains() {
            writer.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE);
            writer.text(NFTA_CHAIN_TABLE, table);
            writer.text(NFTA_CHAIN_NAME, chain);
        }
    }

    /// The chains that rules lead to.
    fn inner_chains(&self) -> impl Iterator<Item = &'static str> {
        let banned = self.has_banned_chain().then_some(BANNED);
        [IPV6].into_iter().chain(banned)
    }

    /// The chain with the rule of this set.
    fn chain_of(&self, id: SetId) -> &'static str {
        match id.family() {
            Family::V4 => self.hook.chain,
            Family::V6 => IPV6,
        }
    }

    /// The rules that the base chain, or the chain for IPv6, has if the table consists of this.
    pub fn rules_of(&self, chain: &str, made: &Made) -> Vec<Rule> {
        let mut rules: Vec<_> = made
            .sets
            .iter()
            .filter(|id| self.chain_of(**id) == chain)
            .map(|id| Rule::Banned(*id))
            .collect();
        if chain == IPV6 {
            rules.push(Rule::Neighbours);
        } else if made.ipv6 {
            rules.push(Rule::Ipv6);
        }
        rules
    }

    /// Appends messages that delete every rule of our chains.
    pub fn delete_rules(&self, writer: &mut Writer, table: &str) {
        for chain in [self.hook.chain].into_iter().chain(self.inner_chains()) {
            writer.message(NFT_MSG_DELRULE, 0);
            writer.text(NFTA_RULE_TABLE, table);
            writer.text(NFTA_RULE_CHAIN, chain);
        }
    }

    /// Appends what goes before the rules of the sets: neighbour discovery, and the chain that a packet of a banned
    /// source is sent to.
    pub fn make_first_rules(&self, writer: &mut Writer, table: &str, owner: Option<Owner>) {
        self.neighbours_rule(writer, table, owner, None);
        for (name, protocol, counted) in self.banned_chain() {
            rule(writer, table, BANNED, None, &name.to_string(), |writer| {
                if let Some(family) = counted {
                    meta_equals(writer, NFT_META_NFPROTO, family.number());
                }
                if let Some(protocol) = protocol {
                    meta_equals(writer, NFT_META_L4PROTO, protocol);
                    // UDP and TCP alike begin with the port of the sender and then that of the receiver.
                    payload(writer, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
                    lookup(writer, PORTS);
                }
                match counted {
                    Some(family) => {
                        family.load_source(writer);
                        count_in(writer, family.counted());
                    }
                    None => {
                        counter(writer);
                        verdict(writer, NF_DROP, None);
                    }
                }
            });
        }
    }

    /// Appends a message that writes a new owner into the rule with this handle.
    pub fn change_owner(
        &self,
        writer: &mut Writer,
        table: &str,
        owner: Option<Owner>,
        handle: u64,
    ) {
        self.neighbours_rule(writer, table, owner, Some(handle));
    }

    /// The rule `icmpv6 type 135-136 accept`, at the end or in place of another.
    ///
    /// IPv6 asks for hardware addresses in packets of the address asked about, the router's too. Were they
    /// dropped, one forged packet that gets the router banned would cut the server off.
    fn neighbours_rule(
        &self,
        writer: &mut Writer,
        table: &str,
        owner: Option<Owner>,
        replaces: Option<u64>,
    ) {
        let owner = owner.map_or(String::new(), |owner| format!(" {owner}"));
        let name = format!("{NEIGHBOURS}{owner}");
        rule(writer, table, IPV6, replaces, &name, |writer| {
            meta_equals(writer, NFT_META_NFPROTO, NFPROTO_IPV6);
            meta_equals(writer, NFT_META_L4PROTO, IPPROTO_ICMPV6);
            payload(writer, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
            compare(writer, NFT_CMP_GTE, ND_NEIGHBOR_SOLICIT);
            compare(writer, NFT_CMP_LTE, ND_NEIGHBOR_ADVERT);
            verdict(writer, NF_ACCEPT, None);
        });
    }

    /// Appends the rule that leads IPv6 packets to their chain.
    pub fn make_ipv6_rule(&self, writer: &mut Writer, table: &str) {
        rule(writer, table, self.hook.chain, None, IPV6, |writer| {
            meta_equals(writer, NFT_META_NFPROTO, NFPROTO_IPV6);
            verdict(writer, NFT_GOTO, Some(IPV6));
        });
    }

    /// Appends the rule of a set: `ip saddr [& mask] @set counter drop`, or `goto banned` in place of
    /// counter and drop.
    pub fn make_rule(&self, writer: &mut Writer, table: &str, id: SetId) {
        let family = id.family();
        let length = family.bytes();
        rule(
            writer,
            table,
            self.chain_of(id),
            None,
            &id.to_string(),
            |writer| {
                // In the chain for IPv6 too: nft lists `ip6 saddr` only behind it, else bytes that it cannot
                // read back.
                meta_equals(writer, NFT_META_NFPROTO, family.number());
                family.load_source(writer);
                if let Some(mask) = id.mask() {
                    expression(writer, "bitwise", |w| {
                        w.be32(NFTA_BITWISE_SREG, NFT_REG_1);
                        w.be32(NFTA_BITWISE_DREG, NFT_REG_1);
                        w.be32(NFTA_BITWISE_LEN, length);
                        data(w, NFTA_BITWISE_MASK, &mask);
                        data(w, NFTA_BITWISE_XOR, &[0; 16][..length as usize]);
                    });
                }
                lookup(writer, &id.to_string());
                if self.has_banned_chain() {
                    verdict(writer, NFT_GOTO, Some(BANNED));
                } else {
                    counter(writer);
                    verdict(writer, NF_DROP, None);
                }
            },
        );
    }

    /// Appends the set of ports with what it holds.
    pub fn make_ports(&self, writer: &mut Writer, table: &str, number: u32) {
        let Some(ports) = &self.ports else {
            return;
        };
        new_set(
            writer,
            table,
            PORTS,
            number,
            NFT_SET_INTERVAL,
            (TYPE_INET_SERVICE, 2),
        );
        writer.message(NFT_MSG_NEWSETELEM, NLM_F_CREATE);
        writer.text(NFTA_SET_ELEM_LIST_TABLE, table);
        writer.text(NFTA_SET_ELEM_LIST_SET, PORTS);
        let list = writer.nest(NFTA_SET_ELEM_LIST_ELEMENTS);
        for (first, last) in ports.ranges() {
            let mut bound = |port: u16, flags: u32| {
                let element = writer.nest(NFTA_LIST_ELEM);
                if flags != 0 {
                    writer.be32(NFTA_SET_ELEM_FLAGS, flags);
                }
                data(writer, NFTA_SET_ELEM_KEY, &port.to_be_bytes());
                writer.close(element);
            };
            bound(*first, 0);
            if let Some(after) = last.checked_add(1) {
                bound(after, NFT_SET_ELEM_INTERVAL_END);
            }
        }
        writer.close(list);
    }
}

/// Appends a message that deletes the table and all in it, there or not: on its own, deleting what is
/// absent would fail the transaction.
pub fn delete_table(writer: &mut Writer, table: &str) {
    writer.message(NFT_MSG_NEWTABLE, NLM_F_CREATE);
    writer.text(NFTA_TABLE_NAME, table);
    writer.be32(NFTA_TABLE_FLAGS, 0);
    writer.message(NFT_MSG_DELTABLE, 0);
    writer.text(NFTA_TABLE_NAME, table);
}
