//! Rules and their expressions as messages.

use super::ruleset::MARK;
use super::uapi::*;
use super::wire::Writer;

/// The count of a source begins again after this pause, milliseconds. Longer than the pause between two readings.
const COUNTED_FOR: u64 = 60_000;
/// A rule at the end of a chain, or in place of the one with a handle; `name` stands in its comment.
pub fn rule(
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
pub fn meta_equals(writer: &mut Writer, key: u32, value: u8) {
    expression(writer, "meta", |w| {
        w.be32(NFTA_META_KEY, key);
        w.be32(NFTA_META_DREG, NFT_REG_1);
    });
    compare(writer, NFT_CMP_EQ, value);
}

/// Goes on if the byte in the register compares so.
pub fn compare(writer: &mut Writer, operator: u32, value: u8) {
    expression(writer, "cmp", |w| {
        w.be32(NFTA_CMP_SREG, NFT_REG_1);
        w.be32(NFTA_CMP_OP, operator);
        data(w, NFTA_CMP_DATA, &[value]);
    });
}

/// Loads bytes of the packet into the register.
pub fn payload(writer: &mut Writer, base: u32, offset: u32, length: u32) {
    expression(writer, "payload", |w| {
        w.be32(NFTA_PAYLOAD_DREG, NFT_REG_1);
        w.be32(NFTA_PAYLOAD_BASE, base);
        w.be32(NFTA_PAYLOAD_OFFSET, offset);
        w.be32(NFTA_PAYLOAD_LEN, length);
    });
}

/// Goes on if a set holds what is in the register.
pub fn lookup(writer: &mut Writer, set: &str) {
    expression(writer, "lookup", |w| {
        w.text(NFTA_LOOKUP_SET, set);
        w.be32(NFTA_LOOKUP_SREG, NFT_REG_1);
    });
}

pub fn counter(writer: &mut Writer) {
    expression(writer, "counter", zero);
}

/// A counter that begins at zero.
pub fn zero(writer: &mut Writer) {
    writer.be64(NFTA_COUNTER_BYTES, 0);
    writer.be64(NFTA_COUNTER_PACKETS, 0);
}

/// Counts the packet for the address in the register: `update @set { ip saddr timeout 60s counter }`.
pub fn count_in(writer: &mut Writer, set: &str) {
    expression(writer, "dynset", |w| {
        w.text(NFTA_DYNSET_SET_NAME, set);
        w.be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
        w.be32(NFTA_DYNSET_SREG_KEY, NFT_REG_1);
        w.be64(NFTA_DYNSET_TIMEOUT, COUNTED_FOR);
        let each = w.nest(NFTA_DYNSET_EXPR);
        w.text(NFTA_EXPR_NAME, "counter");
        let data = w.nest(NFTA_EXPR_DATA);
        zero(w);
        w.close(data);
        w.close(each);
    });
}

/// What becomes of a packet that came so far; some verdicts name a chain.
pub fn verdict(writer: &mut Writer, code: u32, chain: Option<&str>) {
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

pub fn expression(writer: &mut Writer, name: &str, body: impl FnOnce(&mut Writer)) {
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
