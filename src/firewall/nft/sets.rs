//! The sets of our table as messages.

use super::expressions::*;
use super::names::{Family, Holds, SetId};
use super::ruleset::MARK;
use super::uapi::*;
use super::wire::Writer;

/// Sources that a set of counted ones has room for. A set that is full counts no further source; all are
/// dropped all the same.
const MOST_COUNTED: u32 = 8192;

impl Family {
    /// The set of sources that are counted.
    pub fn counted(self) -> &'static str {
        match self {
            Family::V4 => "counted4",
            Family::V6 => "counted6",
        }
    }

    /// The number in `meta nfproto`.
    pub fn number(self) -> u8 {
        match self {
            Family::V4 => NFPROTO_IPV4,
            Family::V6 => NFPROTO_IPV6,
        }
    }

    /// Type and length of a set's keys.
    fn key(self) -> (u32, u32) {
        let kind = match self {
            Family::V4 => TYPE_IPADDR,
            Family::V6 => TYPE_IP6ADDR,
        };
        (kind, self.bytes())
    }

    /// Loads the source address of the packet, which is at this place of its network header.
    pub fn load_source(self, writer: &mut Writer) {
        let offset = match self {
            Family::V4 => 12,
            Family::V6 => 8,
        };
        payload(writer, NFT_PAYLOAD_NETWORK_HEADER, offset, self.bytes());
    }
}

/// Flags of a set of counted sources, as it is made and found.
pub const COUNTED_FLAGS: u32 = NFT_SET_TIMEOUT | NFT_SET_EVAL;

/// Appends messages that make the sets of counted sources if they do not exist. `number` is the first of
/// two that tell the sets of one transaction apart.
pub fn make_counted(writer: &mut Writer, table: &str, number: u32) {
    for (number, family) in (number..).zip(Family::BOTH) {
        let name = family.counted();
        new_set(writer, table, name, number, COUNTED_FLAGS, family.key());
        let description = writer.nest(NFTA_SET_DESC);
        writer.be32(NFTA_SET_DESC_SIZE, MOST_COUNTED);
        writer.close(description);
    }
}

/// Flags of a set, as it is made and found.
pub fn set_flags(id: SetId) -> u32 {
    match id.holds {
        Holds::Ranges => NFT_SET_TIMEOUT | NFT_SET_INTERVAL,
        _ => NFT_SET_TIMEOUT,
    }
}

/// Appends a message that makes a set if it does not exist. `number` tells the sets of one
/// transaction apart. No size is given: such a set has no limit and its hash grows as needed.
pub fn make_set(writer: &mut Writer, table: &str, id: SetId, number: u32) {
    let (name, key) = (id.to_string(), id.family().key());
    new_set(writer, table, &name, number, set_flags(id), key);
}

/// Appends a message that deletes a set; no rule may use it any more.
pub fn delete_set(writer: &mut Writer, table: &str, id: SetId) {
    writer.message(NFT_MSG_DELSET, 0);
    writer.text(NFTA_SET_TABLE, table);
    writer.text(NFTA_SET_NAME, &id.to_string());
}

/// Appends a message that makes a set if it does not exist. `key` is type and length of its keys.
pub fn new_set(
    writer: &mut Writer,
    table: &str,
    name: &str,
    number: u32,
    flags: u32,
    key: (u32, u32),
) {
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
