//! Our table, chains, sets and rules as messages.

use std::fmt;

use super::hook::Hook;
use super::names::{Holds, SetId};
use super::owner::Owner;
use super::uapi::*;
use super::wire::Writer;
use crate::firewall::ports::Ports;

/// Comment that tells our table and sets from everybody else's.
pub const MARK: &str = "apiban.so";
/// The chain for packets of banned sources, if only some ports are dropped.
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
}

/// A rule of ours, as its comment names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Accepts what IPv6 neighbours ask each other.
    Neighbours,
    /// Finds sources of one set.
    Banned(SetId),
    /// Drops one protocol of banned sources; the text says for which ports.
    Ports(String),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Neighbours => f.write_str(NEIGHBOURS),
            Rule::Banned(id) => id.fmt(f),
            Rule::Ports(text) => f.write_str(text),
        }
    }
}

impl Rule {
    /// Reads the comment of a rule in the base chain.
    pub fn parse(comment: &str) -> Option<(Self, Option<Owner>)> {
        let text = comment.strip_prefix(MARK)?.strip_prefix(' ')?;
        match text.strip_prefix(NEIGHBOURS) {
            Some("") => Some((Rule::Neighbours, None)),
            Some(rest) => Some((Rule::Neighbours, Owner::parse(rest.trim_start()))),
            None => Some((Rule::Banned(SetId::parse(text)?), None)),
        }
    }

    /// Reads the comment of a rule in the chain of banned sources.
    pub fn parse_banned(comment: &str) -> Option<Self> {
        let text = comment.strip_prefix(MARK)?.strip_prefix(' ')?;
        Some(Rule::Ports(text.to_owned()))
    }
}

impl Shape {
    /// The rules of the chain of banned sources, in order.
    pub fn port_rules(&self) -> Vec<Rule> {
        let Some(ports) = &self.ports else {
            return Vec::new();
        };
        let mut text = ports.to_string();
        if text.len() > LONGEST_PORTS {
            text = format!("ports {:08x}", crc32fast::hash(text.as_bytes()));
        }
        PROTOCOLS
            .iter()
            .map(|(_, name)| Rule::Ports(format!("{name} {text}")))
            .collect()
    }

    /// Appends messages that make the table and its chains where they do not exist.
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
        if self.ports.is_some() {
            writer.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE);
            writer.text(NFTA_CHAIN_TABLE, table);
            writer.text(NFTA_CHAIN_NAME, BANNED);
        }
    }

    /// Appends messages that delete every rule of our chains.
    pub fn delete_rules(&self, writer: &mut Writer, table: &str) {
        let banned = self.ports.as_ref().map(|_| BANNED);
        for chain in [self.hook.chain].into_iter().chain(banned) {
            writer.message(NFT_MSG_DELRULE, 0);
            writer.text(NFTA_RULE_TABLE, table);
            writer.text(NFTA_RULE_CHAIN, chain);
        }
    }

    /// Appends what goes before the rules of all sets: neighbour discovery, and the chain that a packet
    /// of a banned source is sent to.
    pub fn make_first_rules(&self, writer: &mut Writer, table: &str, owner: Option<Owner>) {
        self.neighbours_rule(writer, table, owner, None);
        for ((protocol, _), name) in PROTOCOLS.iter().zip(self.port_rules()) {
            rule(writer, table, BANNED, None, &name.to_string(), |writer| {
                meta_equals(writer, NFT_META_L4PROTO, *protocol);
                // UDP and TCP alike begin with the port of the sender and then that of the receiver.
                payload(writer, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
                lookup(writer, PORTS);
                counter(writer);
                verdict(writer, NF_DROP, None);
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
        rule(writer, table, self.hook.chain, replaces, &name, |writer| {
            meta_equals(writer, NFT_META_NFPROTO, NFPROTO_IPV6);
            meta_equals(writer, NFT_META_L4PROTO, IPPROTO_ICMPV6);
            payload(writer, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
            compare(writer, NFT_CMP_GTE, ND_NEIGHBOR_SOLICIT);
            compare(writer, NFT_CMP_LTE, ND_NEIGHBOR_ADVERT);
            verdict(writer, NF_ACCEPT, None);
        });
    }

    /// Appends the rule of a set: `ip saddr [& mask] @set counter drop`, or `goto banned` in place of the
    /// drop if only some ports are dropped.
    pub fn make_rule(&self, writer: &mut Writer, table: &str, id: SetId) {
        let (protocol, offset) = if id.v4 {
            (NFPROTO_IPV4, 12)
        } else {
            (NFPROTO_IPV6, 8)
        };
        let length = u32::from(id.address_bits()) / 8;
        rule(
            writer,
            table,
            self.hook.chain,
            None,
            &id.to_string(),
            |writer| {
                meta_equals(writer, NFT_META_NFPROTO, protocol);
                payload(writer, NFT_PAYLOAD_NETWORK_HEADER, offset, length);
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
                if self.ports.is_some() {
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

/// Flags of a set, as it is made and found.
pub fn set_flags(id: SetId) -> u32 {
    match id.holds {
        Holds::Ranges => NFT_SET_TIMEOUT | NFT_SET_INTERVAL,
        _ => NFT_SET_TIMEOUT,
    }
}

/// Appends a message that makes a set where it does not exist. `number` tells the sets of one
/// transaction apart. No size is given: such a set has no limit and its hash grows as needed.
pub fn make_set(writer: &mut Writer, table: &str, id: SetId, number: u32) {
    let kind = if id.v4 { TYPE_IPADDR } else { TYPE_IP6ADDR };
    let key = (kind, u32::from(id.address_bits()) / 8);
    new_set(writer, table, &id.to_string(), number, set_flags(id), key);
}

/// Appends a message that deletes a set; no rule may use it any more.
pub fn delete_set(writer: &mut Writer, table: &str, id: SetId) {
    writer.message(NFT_MSG_DELSET, 0);
    writer.text(NFTA_SET_TABLE, table);
    writer.text(NFTA_SET_NAME, &id.to_string());
}

fn new_set(writer: &mut Writer, table: &str, name: &str, number: u32, flags: u32, key: (u32, u32)) {
    writer.message(NFT_MSG_NEWSET, NLM_F_CREATE);
    writer.text(NFTA_SET_TABLE, table);
    writer.text(NFTA_SET_NAME, name);
    writer.be32(NFTA_SET_FLAGS, flags);
    writer.be32(NFTA_SET_KEY_TYPE, key.0);
    writer.be32(NFTA_SET_KEY_LEN, key.1);
    writer.be32(NFTA_SET_ID, number);
    let mut userdata = vec![UDATA_SET_KEYBYTEORDER, 4];
    userdata.extend_from_slice(&BYTEORDER_BIG_ENDIAN.to_ne_bytes());
    userdata.extend(comment(UDATA_SET_COMMENT, MARK));
    writer.attr(NFTA_SET_USERDATA, &userdata);
}

/// A rule at the end of a chain, or in place of the one with a handle; `name` stands in its comment.
fn rule(
    writer: &mut Writer,
    table: &str,
    chain: &str,
    replaces: Option<u64>,
    name: &str,
    expressions: impl FnOnce(&mut Writer),
) {
    let place = match replaces {
        Some(_) => NLM_F_REPLACE,
        None => NLM_F_CREATE | NLM_F_APPEND,
    };
    writer.message(NFT_MSG_NEWRULE, place);
    writer.text(NFTA_RULE_TABLE, table);
    writer.text(NFTA_RULE_CHAIN, chain);
    if let Some(handle) = replaces {
        writer.be64(NFTA_RULE_HANDLE, handle);
    }
    let list = writer.nest(NFTA_RULE_EXPRESSIONS);
    expressions(writer);
    writer.close(list);
    let text = format!("{MARK} {name}");
    writer.attr(NFTA_RULE_USERDATA, &comment(UDATA_COMMENT, &text));
}

/// Goes on if this property of the packet, one byte, has this value.
fn meta_equals(writer: &mut Writer, key: u32, value: u8) {
    expression(writer, "meta", |w| {
        w.be32(NFTA_META_KEY, key);
        w.be32(NFTA_META_DREG, NFT_REG_1);
    });
    compare(writer, NFT_CMP_EQ, value);
}

/// Goes on if the byte in the register compares so.
fn compare(writer: &mut Writer, operator: u32, value: u8) {
    expression(writer, "cmp", |w| {
        w.be32(NFTA_CMP_SREG, NFT_REG_1);
        w.be32(NFTA_CMP_OP, operator);
        data(w, NFTA_CMP_DATA, &[value]);
    });
}

/// Loads bytes of the packet into the register.
fn payload(writer: &mut Writer, base: u32, offset: u32, length: u32) {
    expression(writer, "payload", |w| {
        w.be32(NFTA_PAYLOAD_DREG, NFT_REG_1);
        w.be32(NFTA_PAYLOAD_BASE, base);
        w.be32(NFTA_PAYLOAD_OFFSET, offset);
        w.be32(NFTA_PAYLOAD_LEN, length);
    });
}

/// Goes on if a set holds what is in the register.
fn lookup(writer: &mut Writer, set: &str) {
    expression(writer, "lookup", |w| {
        w.text(NFTA_LOOKUP_SET, set);
        w.be32(NFTA_LOOKUP_SREG, NFT_REG_1);
    });
}

fn counter(writer: &mut Writer) {
    expression(writer, "counter", |w| {
        w.be64(NFTA_COUNTER_BYTES, 0);
        w.be64(NFTA_COUNTER_PACKETS, 0);
    });
}

/// What becomes of a packet that came so far; some verdicts name a chain.
fn verdict(writer: &mut Writer, code: u32, chain: Option<&str>) {
    expression(writer, "immediate", |w| {
        w.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        let value = w.nest(NFTA_IMMEDIATE_DATA);
        let verdict = w.nest(NFTA_DATA_VERDICT);
        w.be32(NFTA_VERDICT_CODE, code);
        if let Some(chain) = chain {
            w.text(NFTA_VERDICT_CHAIN, chain);
        }
        w.close(verdict);
        w.close(value);
    });
}

fn expression(writer: &mut Writer, name: &str, body: impl FnOnce(&mut Writer)) {
    let element = writer.nest(NFTA_LIST_ELEM);
    writer.text(NFTA_EXPR_NAME, name);
    let data = writer.nest(NFTA_EXPR_DATA);
    body(writer);
    writer.close(data);
    writer.close(element);
}

/// A value wrapped as nf_tables wants it.
pub fn data(writer: &mut Writer, kind: u16, value: &[u8]) {
    let nest = writer.nest(kind);
    writer.attr(NFTA_DATA_VALUE, value);
    writer.close(nest);
}

/// A comment as nft stores it: type, length, text with its zero byte.
pub fn comment(kind: u8, text: &str) -> Vec<u8> {
    let mut bytes = vec![kind, text.len() as u8 + 1];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}
