//! Netlink messages as bytes: a small encoder and a tolerant decoder.
//!
//! Message and attribute headers are in host order, the numbers inside nf_tables attributes in network
//! order; everything is padded to 4 bytes.

use super::uapi::*;

/// Several messages in one buffer, each with its own sequence number.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    family: u8,
    message: usize,
    sequence: u32,
}

/// Position of an open nested attribute.
#[derive(Debug)]
#[must_use]
pub struct Nest(usize);

impl Writer {
    /// An empty buffer for objects of this family; the first message gets the number `sequence`.
    pub fn new(sequence: u32, family: u8) -> Self {
        Writer {
            bytes: Vec::new(),
            family,
            message: 0,
            sequence: sequence.wrapping_sub(1),
        }
    }

    /// Starts a transaction: all messages up to [`commit`](Writer::commit) take effect together.
    pub fn begin(&mut self) {
        self.raw(
            NFNL_MSG_BATCH_BEGIN,
            0,
            NFPROTO_UNSPEC,
            NFNL_SUBSYS_NFTABLES,
        );
    }

    /// Ends a transaction. The last message asks for the answer that confirms success.
    pub fn commit(&mut self) {
        let flags = self.message + 6;
        if let Some(field) = self.bytes.get_mut(flags..flags + 2) {
            let set = u16::from_ne_bytes([field[0], field[1]]) | NLM_F_ACK;
            field.copy_from_slice(&set.to_ne_bytes());
        }
        self.raw(NFNL_MSG_BATCH_END, 0, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES);
    }

    /// Starts an nf_tables message.
    pub fn message(&mut self, kind: u16, flags: u16) {
        self.raw(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, self.family, 0);
    }

    fn raw(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.fix_length();
    }

    /// The message header says how long the message is so far.
    fn fix_length(&mut self) {
        let length = (self.bytes.len() - self.message) as u32;
        self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// One attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let length = (NLA_HDRLEN + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.fix_length();
    }

    /// A text with its final zero byte.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    /// A 32-bit number in network order.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// A 64-bit number in network order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Opens an attribute that holds attributes.
    pub fn nest(&mut self, kind: u16) -> Nest {
        let at = self.bytes.len();
        self.attr(kind | NLA_F_NESTED, &[]);
        Nest(at)
    }

    /// Closes a nested attribute. Its length is 16 bits: callers keep lists below
    /// [`nest_len`](Writer::nest_len) of 60,000.
    pub fn close(&mut self, nest: Nest) {
        let length = self.nest_len(&nest);
        debug_assert!(length <= usize::from(u16::MAX));
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
        self.fix_length();
    }

    /// Bytes of an open nested attribute so far, its header included.
    pub fn nest_len(&self, nest: &Nest) -> usize {
        self.bytes.len() - nest.0
    }

    /// The messages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sequence number of the latest message.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// All after the message header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes after `struct nfgenmsg`.
    pub fn attrs(&self) -> Attrs<'a> {
        Attrs(self.payload.get(NFGENMSG_LEN..).unwrap_or_default())
    }

    /// The error number of an `NLMSG_ERROR`, 0 for a plain acknowledgement.
    pub fn error(&self) -> Option<i32> {
        let code = self.payload.first_chunk::<4>()?;
        (self.kind == NLMSG_ERROR).then(|| i32::from_ne_bytes(*code).wrapping_neg())
    }
}

/// Splits a datagram into messages; stops at the first that is cut off.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<NLMSG_HDRLEN>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: bytes.get(NLMSG_HDRLEN..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Attributes of a message or of a nested attribute; ends at the first that is cut off.
#[derive(Debug, Clone, Copy)]
pub struct Attrs<'a>(pub &'a [u8]);

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<NLA_HDRLEN>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = self.0.get(NLA_HDRLEN..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attrs<'a> {
    /// The first attribute of this type.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.by_ref()
            .find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The attributes inside a nested one; none if it is absent.
    pub fn inside(self, kind: u16) -> Attrs<'a> {
        Attrs(self.find(kind).unwrap_or_default())
    }

    /// A text without its final zero byte.
    pub fn text(self, kind: u16) -> Option<&'a str> {
        let value = self.find(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }

    /// A 32-bit number in network order.
    pub fn be32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A 64-bit number in network order.
    pub fn be64(self, kind: u16) -> Option<u64> {
        self.find(kind)?.try_into().ok().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::new(7, NFPROTO_INET);
        writer.begin();
        writer.message(NFT_MSG_NEWSET, NLM_F_CREATE);
        writer.text(NFTA_SET_NAME, "local4");
        let nest = writer.nest(NFTA_RULE_USERDATA);
        writer.be64(NFTA_COUNTER_BYTES, 1 << 40);
        writer.close(nest);
        writer.be32(NFTA_SET_FLAGS, 16);
        writer.commit();
        let read: Vec<_> = messages(writer.bytes()).collect();
        assert_eq!(read.len(), 3);
        assert_eq!(
            read.iter().map(|m| m.sequence).collect::<Vec<_>>(),
            [7, 8, 9]
        );
        assert_eq!(read[1].flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK);
        let attrs = read[1].attrs();
        assert_eq!(attrs.text(NFTA_SET_NAME), Some("local4"));
        assert_eq!(attrs.be32(NFTA_SET_FLAGS), Some(16));
        let nested = attrs.inside(NFTA_RULE_USERDATA);
        assert_eq!(nested.be64(NFTA_COUNTER_BYTES), Some(1 << 40));
    }

    #[test]
    fn damaged_answers_end_early() {
        let mut writer = Writer::new(1, NFPROTO_INET);
        writer.message(NFT_MSG_GETGEN, 0);
        writer.text(NFTA_SET_NAME, "feed6");
        let whole = writer.bytes();
        for cut in 0..whole.len() {
            assert_eq!(messages(&whole[..cut]).count(), 0);
        }
        for cut in 0..10 {
            assert_eq!(Attrs(&whole[20..20 + cut]).text(NFTA_SET_NAME), None);
        }
        // A length of zero must not loop.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(Attrs(&[0; 64]).count(), 0);
    }
}
