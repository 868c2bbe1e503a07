//! What is kept of an entry besides its end: when it came, how often it hit, why it is there.
//!
//! These arrays go with the slots of a table, those of hosts first. Their pages are touched only when they
//! are used: hits of entries that never hit cost no memory. They are read by people, through RPC, and not
//! by the check: a reader that meets a slot in the moment of its reuse may see a mixed answer.

use crate::clock::UnixSeconds;
use crate::quote::printable;

use super::slot::Slot;
use crate::memory::{Arena, AtomicU32, Line, Ordering, OutOfMemory, LINE_WORDS, PAGE_BYTES};

/// Longest reason kept, in bytes; a longer one is cut.
pub const REASON_MAX: usize = (LINE_WORDS - 1) * 8;

/// The arrays of one table.
#[derive(Clone, Copy)]
pub struct Details {
    since: &'static [AtomicU32],
    hits: &'static [AtomicU32],
    reasons: &'static [Line],
}

impl Details {
    /// Arrays for `slots` slots; reasons only if they are asked for.
    pub fn new(
        arena: &mut dyn Arena,
        purpose: &'static str,
        slots: usize,
        reasons: bool,
    ) -> Result<Self, OutOfMemory> {
        Ok(Details {
            since: arena.words(purpose, slots)?,
            hits: arena.words(purpose, slots)?,
            reasons: if reasons {
                arena.lines(purpose, slots)?
            } else {
                &[]
            },
        })
    }

    /// Starts the record of a new entry.
    pub fn begin(&self, slot: Slot, since: UnixSeconds, reason: &str) {
        // Only a slot that was used before can have hits. Even a look would make a shared page real.
        let fresh = self.since[slot.index()].swap(since.get(), Ordering::Relaxed) == 0;
        if !fresh {
            self.hits[slot.index()].store(0, Ordering::Relaxed);
        }
        // Nor has a fresh slot a reason that would have to go.
        if !fresh || !reason.is_empty() {
            self.set_reason(slot, reason);
        }
    }

    /// Gives an entry that exists another beginning and reason; its hits stay.
    pub fn renew(&self, slot: Slot, since: UnixSeconds, reason: &str) {
        self.since[slot.index()].store(since.get(), Ordering::Relaxed);
        self.set_reason(slot, reason);
    }

    /// Looks at every page on which [`Details::begin`] writes for the first `slots`, so that it exists.
    pub fn prepare(&self, slots: usize) {
        for word in self.since.iter().take(slots).step_by(PAGE_BYTES / 4) {
            word.load(Ordering::Relaxed);
        }
    }

    /// Counts one packet. Two processes that count at the very same moment may count one: a locked
    /// instruction costs more than the rest of a check. No index out of range can make it panic.
    #[inline]
    pub fn hit(&self, slot: Slot) {
        if let Some(hits) = self.hits.get(slot.index()) {
            let next = hits.load(Ordering::Relaxed).wrapping_add(1);
            hits.store(next, Ordering::Relaxed);
        }
    }

    /// Counts many packets at once; what a check counts at the very same moment may be lost.
    pub fn add_hits(&self, slot: Slot, packets: u64) {
        if let Some(hits) = self.hits.get(slot.index()) {
            // Wraps, as it does one by one.
            let next = hits.load(Ordering::Relaxed).wrapping_add(packets as u32);
            hits.store(next, Ordering::Relaxed);
        }
    }

    /// When the entry came.
    pub fn since(&self, slot: Slot) -> UnixSeconds {
        UnixSeconds::new(self.since[slot.index()].load(Ordering::Relaxed))
    }

    /// Packets seen; wraps at 2^32.
    pub fn hits(&self, slot: Slot) -> u32 {
        self.hits[slot.index()].load(Ordering::Relaxed)
    }

    /// Stores at most [`REASON_MAX`] bytes, whole and printable characters only.
    pub fn set_reason(&self, slot: Slot, reason: &str) {
        let Some(line) = self.reasons.get(slot.index()) else {
            return;
        };
        // A reason may quote a SIP header: it must not forge lines where it is shown.
        let reason = printable(reason);
        let mut length = reason.len().min(REASON_MAX);
        while !reason.is_char_boundary(length) {
            length -= 1;
        }
        // The upper half is the number of the node: a new reason begins without one.
        line[0].store(length as u64, Ordering::Relaxed);
        for (word, chunk) in line.0[1..]
            .iter()
            .zip(reason.as_bytes()[..length].chunks(8))
        {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
    }

    /// Stores which node of the cluster the entry came from; only a table with reasons does.
    pub fn set_node(&self, slot: Slot, node: u16) {
        if let Some(line) = self.reasons.get(slot.index()) {
            let length = line[0].load(Ordering::Relaxed) & u64::from(u32::MAX);
            line[0].store(length | u64::from(node) << 32, Ordering::Relaxed);
        }
    }

    /// The node of the cluster that the entry came from; 0: none was stored.
    pub fn node(&self, slot: Slot) -> u16 {
        let line = self.reasons.get(slot.index());
        line.map_or(0, |line| (line[0].load(Ordering::Relaxed) >> 32) as u16)
    }

    /// The reason, empty where none was given.
    pub fn reason(&self, slot: Slot) -> String {
        let Some(line) = self.reasons.get(slot.index()) else {
            return String::new();
        };
        let length = (line[0].load(Ordering::Relaxed) as u32 as usize).min(REASON_MAX);
        let bytes: Vec<u8> = line.0[1..]
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .take(length)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
