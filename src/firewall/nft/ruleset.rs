//! Our table, chain, sets and rules as messages, and what of them the kernel has.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::names::SetId;
use super::socket::Socket;
use super::uapi::*;
use super::wire::{Attrs, Writer};
use crate::firewall::{Counters, Set};

/// Comment that tells our table and sets from everybody else's.
pub const MARK: &str = "apiban.so";
/// The one chain.
const CHAIN: &str = "input";
/// Hook priority of the chain, -300 (`raw`): before every ordinary filter chain, so that no rule of the
/// operator accepts a banned source first and none has to look at its packets.
const PRIORITY: i32 = -300;

/// What the kernel has under our table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No such table.
    Nothing,
    /// A table that somebody else made.
    Foreign,
    /// Ours, as it should be, with these sets.
    Sound(Vec<SetId>),
    /// Ours, the sets are fine, but chain or rules are missing, doubled or asleep.
    RulesDamaged(Vec<SetId>),
    /// Ours, but it has to be made anew.
    Unusable,
}

/// A chain as found: absent, wrong, or right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChainFound {
    Absent,
    Wrong,
    Right,
}

/// Appends messages that make the table and its chain where they do not exist.
pub fn make_table(writer: &mut Writer, table: &str) {
    writer.message(NFT_MSG_NEWTABLE, NLM_F_CREATE);
    writer.text(NFTA_TABLE_NAME, table);
    writer.be32(NFTA_TABLE_FLAGS, 0);
    writer.attr(NFTA_TABLE_USERDATA, &comment(UDATA_COMMENT, MARK));
    writer.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE);
    writer.text(NFTA_CHAIN_TABLE, table);
    writer.text(NFTA_CHAIN_NAME, CHAIN);
    let hook = writer.nest(NFTA_CHAIN_HOOK);
    writer.be32(NFTA_HOOK_HOOKNUM, NF_INET_LOCAL_IN);
    writer.attr(NFTA_HOOK_PRIORITY, &PRIORITY.to_be_bytes());
    writer.close(hook);
    writer.text(NFTA_CHAIN_TYPE, "filter");
    writer.be32(NFTA_CHAIN_POLICY, NF_ACCEPT);
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

/// Appends a message that deletes every rule of our chain.
pub fn delete_rules(writer: &mut Writer, table: &str) {
    writer.message(NFT_MSG_DELRULE, 0);
    writer.text(NFTA_RULE_TABLE, table);
    writer.text(NFTA_RULE_CHAIN, CHAIN);
}

/// Appends a message that makes a set where it does not exist. `number` tells the sets of one
/// transaction apart. No size is given: such a set has no limit and its hash grows as needed.
pub fn make_set(writer: &mut Writer, table: &str, id: SetId, number: u32) {
    writer.message(NFT_MSG_NEWSET, NLM_F_CREATE);
    writer.text(NFTA_SET_TABLE, table);
    writer.text(NFTA_SET_NAME, &id.to_string());
    writer.be32(NFTA_SET_FLAGS, NFT_SET_TIMEOUT);
    let kind = if id.v4 { TYPE_IPADDR } else { TYPE_IP6ADDR };
    writer.be32(NFTA_SET_KEY_TYPE, kind);
    writer.be32(NFTA_SET_KEY_LEN, u32::from(id.address_bits()) / 8);
    writer.be32(NFTA_SET_ID, number);
    let mut userdata = vec![UDATA_SET_KEYBYTEORDER, 4];
    userdata.extend_from_slice(&BYTEORDER_BIG_ENDIAN.to_ne_bytes());
    userdata.extend(comment(UDATA_SET_COMMENT, MARK));
    writer.attr(NFTA_SET_USERDATA, &userdata);
    // A counter for each element; kernels before 5.7 do not know the attribute and pass over it.
    let counter = writer.nest(NFTA_SET_EXPR);
    writer.text(NFTA_EXPR_NAME, "counter");
    let data = writer.nest(NFTA_EXPR_DATA);
    writer.close(data);
    writer.close(counter);
}

/// Appends the rule of a set: `ip saddr [& mask] @set counter drop`.
pub fn make_rule(writer: &mut Writer, table: &str, id: SetId) {
    let (protocol, offset) = if id.v4 {
        (NFPROTO_IPV4, 12)
    } else {
        (NFPROTO_IPV6, 8)
    };
    let length = u32::from(id.address_bits()) / 8;
    writer.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    writer.text(NFTA_RULE_TABLE, table);
    writer.text(NFTA_RULE_CHAIN, CHAIN);
    let list = writer.nest(NFTA_RULE_EXPRESSIONS);
    expression(writer, "meta", |w| {
        w.be32(NFTA_META_KEY, NFT_META_NFPROTO);
        w.be32(NFTA_META_DREG, NFT_REG_1);
    });
    expression(writer, "cmp", |w| {
        w.be32(NFTA_CMP_SREG, NFT_REG_1);
        w.be32(NFTA_CMP_OP, NFT_CMP_EQ);
        data(w, NFTA_CMP_DATA, &[protocol]);
    });
    expression(writer, "payload", |w| {
        w.be32(NFTA_PAYLOAD_DREG, NFT_REG_1);
        w.be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER);
        w.be32(NFTA_PAYLOAD_OFFSET, offset);
        w.be32(NFTA_PAYLOAD_LEN, length);
    });
    if !id.is_host() {
        expression(writer, "bitwise", |w| {
            w.be32(NFTA_BITWISE_SREG, NFT_REG_1);
            w.be32(NFTA_BITWISE_DREG, NFT_REG_1);
            w.be32(NFTA_BITWISE_LEN, length);
            data(w, NFTA_BITWISE_MASK, &id.mask());
            data(w, NFTA_BITWISE_XOR, &[0; 16][..length as usize]);
        });
    }
    expression(writer, "lookup", |w| {
        w.text(NFTA_LOOKUP_SET, &id.to_string());
        w.be32(NFTA_LOOKUP_SREG, NFT_REG_1);
    });
    expression(writer, "counter", |w| {
        w.be64(NFTA_COUNTER_BYTES, 0);
        w.be64(NFTA_COUNTER_PACKETS, 0);
    });
    expression(writer, "immediate", |w| {
        w.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        let value = w.nest(NFTA_IMMEDIATE_DATA);
        let verdict = w.nest(NFTA_DATA_VERDICT);
        w.be32(NFTA_VERDICT_CODE, NF_DROP);
        w.close(verdict);
        w.close(value);
    });
    writer.close(list);
    let text = format!("{MARK} {id}");
    writer.attr(NFTA_RULE_USERDATA, &comment(UDATA_COMMENT, &text));
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
fn comment(kind: u8, text: &str) -> Vec<u8> {
    let mut bytes = vec![kind, text.len() as u8 + 1];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

/// The comment in user data, whatever stands around it.
fn comment_in(mut userdata: &[u8], kind: u8) -> Option<&str> {
    while let [found, length, rest @ ..] = userdata {
        let (value, next) = rest.split_at_checked(usize::from(*length))?;
        if *found == kind {
            return std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        userdata = next;
    }
    None
}

/// Number of the ruleset's generation: it goes up with every change by anybody.
pub fn generation(socket: &mut Socket) -> Result<u32, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETGEN, 0);
    let mut id = None;
    socket.ask(&writer, |message| {
        id = id.or(message.attrs().be32(NFTA_GEN_ID));
    })?;
    id.ok_or(Errno::ENOMSG)
}

/// Looks at what there is under our table's name.
pub fn inspect(socket: &mut Socket, table: &str) -> Result<Found, Errno> {
    let Some(TableFound {
        marked,
        asleep,
        used,
    }) = table_found(socket, table)?
    else {
        return Ok(Found::Nothing);
    };
    let sets = sets_found(socket, table)?;
    let chain = chain_found(socket, table)?;
    // Kernels before 5.9 keep no comment on a table; those on sets are older.
    if !marked && !sets.values().any(|set| set.marked) {
        // An empty table that somebody made ready for us is welcome.
        return Ok(if used == 0 {
            Found::Nothing
        } else {
            Found::Foreign
        });
    }
    let mut ids = Vec::new();
    for (name, set) in &sets {
        match SetId::parse(name) {
            Some(id) if set.fits(id) => ids.push(id),
            _ => return Ok(Found::Unusable),
        }
    }
    if chain == ChainFound::Wrong {
        return Ok(Found::Unusable);
    }
    let mut rules = rules_found(socket, table)?;
    rules.sort();
    let mut expected: Vec<_> = ids.iter().copied().map(Some).collect();
    expected.sort();
    let complete = SetId::base().all(|id| ids.contains(&id));
    if complete && !asleep && chain == ChainFound::Right && rules == expected {
        Ok(Found::Sound(ids))
    } else {
        Ok(Found::RulesDamaged(ids))
    }
}

/// What matters of the table that was found.
#[derive(Debug)]
struct TableFound {
    marked: bool,
    asleep: bool,
    used: u32,
}

/// The table, `None` where there is no such one.
fn table_found(socket: &mut Socket, table: &str) -> Result<Option<TableFound>, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETTABLE, 0);
    writer.text(NFTA_TABLE_NAME, table);
    let mut found = None;
    let answer = socket.ask(&writer, |message| {
        let attrs = message.attrs();
        let userdata = attrs.find(NFTA_TABLE_USERDATA).unwrap_or_default();
        let flags = attrs.be32(NFTA_TABLE_FLAGS).unwrap_or(0);
        found = Some(TableFound {
            marked: comment_in(userdata, UDATA_COMMENT) == Some(MARK),
            asleep: flags & NFT_TABLE_F_DORMANT != 0,
            used: attrs.be32(NFTA_TABLE_USE).unwrap_or(u32::MAX),
        });
    });
    match answer {
        Err(Errno::ENOENT) => Ok(None),
        other => other.map(|()| found),
    }
}

fn chain_found(socket: &mut Socket, table: &str) -> Result<ChainFound, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETCHAIN, 0);
    writer.text(NFTA_CHAIN_TABLE, table);
    writer.text(NFTA_CHAIN_NAME, CHAIN);
    let mut found = ChainFound::Wrong;
    let answer = socket.ask(&writer, |message| {
        let hook = message.attrs().inside(NFTA_CHAIN_HOOK);
        if message.attrs().be32(NFTA_CHAIN_POLICY) == Some(NF_ACCEPT)
            && hook.be32(NFTA_HOOK_HOOKNUM) == Some(NF_INET_LOCAL_IN)
            && hook.be32(NFTA_HOOK_PRIORITY) == Some(PRIORITY as u32)
        {
            found = ChainFound::Right;
        }
    });
    match answer {
        Err(Errno::ENOENT) => Ok(ChainFound::Absent),
        other => other.map(|()| found),
    }
}

/// What matters of a set that was found.
#[derive(Debug)]
struct SetFound {
    marked: bool,
    flags: u32,
    key_length: u32,
}

impl SetFound {
    fn fits(&self, id: SetId) -> bool {
        self.flags & !NFT_SET_EXPR == NFT_SET_TIMEOUT
            && self.key_length == u32::from(id.address_bits()) / 8
    }
}

fn sets_found(socket: &mut Socket, table: &str) -> Result<BTreeMap<String, SetFound>, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETSET, NLM_F_DUMP);
    writer.text(NFTA_SET_TABLE, table);
    let mut found = BTreeMap::new();
    socket.ask(&writer, |message| {
        let attrs = message.attrs();
        let userdata = attrs.find(NFTA_SET_USERDATA).unwrap_or_default();
        if let (Some(of), Some(name)) = (attrs.text(NFTA_SET_TABLE), attrs.text(NFTA_SET_NAME)) {
            if of == table {
                let set = SetFound {
                    marked: comment_in(userdata, UDATA_SET_COMMENT) == Some(MARK),
                    flags: attrs.be32(NFTA_SET_FLAGS).unwrap_or(0),
                    key_length: attrs.be32(NFTA_SET_KEY_LEN).unwrap_or(0),
                };
                found.insert(name.to_owned(), set);
            }
        }
    })?;
    Ok(found)
}

/// Calls `each` with the comment and the expressions of every rule in our chain.
fn each_rule(
    socket: &mut Socket,
    table: &str,
    mut each: impl FnMut(Option<SetId>, Attrs<'_>),
) -> Result<(), Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETRULE, NLM_F_DUMP);
    writer.text(NFTA_RULE_TABLE, table);
    socket.ask(&writer, |message| {
        let attrs = message.attrs();
        // Another chain in our table is somebody else's: it is let alone.
        let chain = attrs.text(NFTA_RULE_CHAIN);
        if attrs.text(NFTA_RULE_TABLE) == Some(table) && chain == Some(CHAIN) {
            let id = attrs
                .find(NFTA_RULE_USERDATA)
                .and_then(|userdata| comment_in(userdata, UDATA_COMMENT))
                .and_then(|text| text.strip_prefix(MARK))
                .and_then(|name| SetId::parse(name.trim_start()));
            each(id, attrs.inside(NFTA_RULE_EXPRESSIONS));
        }
    })
}

/// For each rule the set it drops, `None` for one that we did not make.
fn rules_found(socket: &mut Socket, table: &str) -> Result<Vec<Option<SetId>>, Errno> {
    let mut found = Vec::new();
    each_rule(socket, table, |id, _| found.push(id))?;
    Ok(found)
}

/// Sums the counters of our rules.
pub fn counters(socket: &mut Socket, table: &str) -> Result<Counters, Errno> {
    let mut sum = Counters::default();
    each_rule(socket, table, |id, expressions| {
        let counter = expressions
            .map(|(_, expression)| Attrs(expression))
            .find(|expression| expression.text(NFTA_EXPR_NAME) == Some("counter"));
        let (Some(id), Some(counter)) = (id, counter) else {
            return;
        };
        let values = counter.inside(NFTA_EXPR_DATA);
        let packets = values.be64(NFTA_COUNTER_PACKETS).unwrap_or(0);
        let bytes = values.be64(NFTA_COUNTER_BYTES).unwrap_or(0);
        match id.set {
            Set::Feed => {
                sum.feed_packets += packets;
                sum.feed_bytes += bytes;
            }
            Set::Local => {
                sum.local_packets += packets;
                sum.local_bytes += bytes;
            }
        }
    })?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_found_among_other_data() {
        let mut userdata = vec![UDATA_SET_KEYBYTEORDER, 4, 2, 0, 0, 0];
        userdata.extend(comment(UDATA_SET_COMMENT, MARK));
        assert_eq!(comment_in(&userdata, UDATA_SET_COMMENT), Some(MARK));
        for cut in 0..userdata.len() {
            assert_eq!(comment_in(&userdata[..cut], UDATA_SET_COMMENT), None);
        }
    }
}
