//! Our table, chain, sets and rules as messages.

use super::names::SetId;
use super::uapi::*;
use super::wire::Writer;

/// Comment that tells our table and sets from everybody else's.
pub const MARK: &str = "apiban.so";
/// The one chain.
pub const CHAIN: &str = "input";
/// What the comment of the rule for neighbour discovery says after [`MARK`].
pub const NEIGHBOURS: &str = "neighbours";
/// Hook priority of the chain, -300 (`raw`): before every ordinary filter chain, so that no rule of the
/// operator accepts a banned source first and none has to look at its packets.
pub const PRIORITY: i32 = -300;

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

/// Appends the rule that goes before those of all sets: `icmpv6 type 135-136 accept`.
///
/// IPv6 asks for hardware addresses in packets of the address asked about, the router's too. Were they
/// dropped, one forged packet that gets the router banned would cut the server off.
pub fn make_neighbours_rule(writer: &mut Writer, table: &str) {
    rule(writer, table, NEIGHBOURS, |writer| {
        meta_equals(writer, NFT_META_NFPROTO, NFPROTO_IPV6);
        meta_equals(writer, NFT_META_L4PROTO, IPPROTO_ICMPV6);
        payload(writer, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
        compare(writer, NFT_CMP_GTE, ND_NEIGHBOR_SOLICIT);
        compare(writer, NFT_CMP_LTE, ND_NEIGHBOR_ADVERT);
        verdict(writer, NF_ACCEPT);
    });
}

/// Appends the rule of a set: `ip saddr [& mask] @set counter drop`.
pub fn make_rule(writer: &mut Writer, table: &str, id: SetId) {
    let (protocol, offset) = if id.v4 {
        (NFPROTO_IPV4, 12)
    } else {
        (NFPROTO_IPV6, 8)
    };
    let length = u32::from(id.address_bits()) / 8;
    rule(writer, table, &id.to_string(), |writer| {
        meta_equals(writer, NFT_META_NFPROTO, protocol);
        payload(writer, NFT_PAYLOAD_NETWORK_HEADER, offset, length);
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
        verdict(writer, NF_DROP);
    });
}

/// A rule at the end of our chain; `name` stands in its comment.
fn rule(writer: &mut Writer, table: &str, name: &str, expressions: impl FnOnce(&mut Writer)) {
    writer.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    writer.text(NFTA_RULE_TABLE, table);
    writer.text(NFTA_RULE_CHAIN, CHAIN);
    let list = writer.nest(NFTA_RULE_EXPRESSIONS);
    expressions(writer);
    writer.close(list);
    let text = format!("{MARK} {name}");
    writer.attr(NFTA_RULE_USERDATA, &comment(UDATA_COMMENT, &text));
}

/// Goes on where this property of the packet, one byte, has this value.
fn meta_equals(writer: &mut Writer, key: u32, value: u8) {
    expression(writer, "meta", |w| {
        w.be32(NFTA_META_KEY, key);
        w.be32(NFTA_META_DREG, NFT_REG_1);
    });
    compare(writer, NFT_CMP_EQ, value);
}

/// Goes on where the byte in the register compares so.
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

/// What becomes of a packet that came so far.
fn verdict(writer: &mut Writer, code: u32) {
    expression(writer, "immediate", |w| {
        w.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        let value = w.nest(NFTA_IMMEDIATE_DATA);
        let verdict = w.nest(NFTA_DATA_VERDICT);
        w.be32(NFTA_VERDICT_CODE, code);
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
