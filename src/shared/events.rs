//! What event routes are told: from the updater to the process that runs them.

use super::origin::Origin;
use super::ring::Ring;
use crate::memory::{Arena, OutOfMemory};

/// Events that can wait for a slow script; further ones are lost and counted.
const CAPACITY: usize = 1024;
/// Cache lines of one event.
const LINES: usize = 3;

/// Which route it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A local ban came.
    Block,
    /// A local ban ended.
    Expired,
    /// A full fetch was completed.
    Sync,
}

impl EventKind {
    /// Every kind, by number.
    pub const ALL: [EventKind; 3] = [EventKind::Block, EventKind::Expired, EventKind::Sync];

    /// The name of the event route.
    pub fn route(self) -> &'static str {
        match self {
            EventKind::Block => "apiban:block",
            EventKind::Expired => "apiban:expired",
            EventKind::Sync => "apiban:sync",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// `$apiban(ip)`: the address or prefix; empty for a sync.
    pub ip: String,
    /// `$apiban(source)`.
    pub origin: Origin,
    /// `$apiban(reason)`.
    pub reason: String,
    /// `$apiban(count)`: packets that met the ban, or entries of the list.
    pub count: u32,
}

/// The events that wait.
#[derive(Clone, Copy)]
pub struct Events {
    ring: Ring<LINES>,
}

impl Events {
    /// None.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        Ok(Events {
            ring: Ring::new(arena, "the events", CAPACITY)?,
        })
    }

    /// Adds one; false if too many wait.
    pub fn put(&self, event: &Event) -> bool {
        // One word of numbers, then the texts, each ended by a zero byte.
        let mut bytes = Vec::new();
        for text in [&event.ip, &event.reason] {
            bytes.extend(text.bytes().filter(|byte| *byte != 0));
            bytes.push(0);
        }
        let head = u64::from(event.count) << 32 | (event.origin as u64) << 8 | event.kind as u64;
        let room = (Ring::<LINES>::WORDS - 1) * 8;
        bytes.truncate(room - 1);
        // Words that are not pushed keep what an earlier event left there.
        bytes.resize(room, 0);
        let words = bytes
            .chunks_exact(8)
            .map(|chunk| u64::from_ne_bytes(chunk.try_into().unwrap_or_default()));
        self.ring.push(std::iter::once(head).chain(words))
    }

    /// The oldest one.
    pub fn take(&self) -> Option<Event> {
        self.ring.pop(|words| {
            let head = words.next().unwrap_or(0);
            let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
            let mut texts = bytes
                .split(|byte| *byte == 0)
                .map(|text| String::from_utf8_lossy(text).into_owned());
            let mut text = || texts.next().unwrap_or_default();
            Event {
                kind: EventKind::ALL[(head as u8 as usize).min(EventKind::ALL.len() - 1)],
                ip: text(),
                origin: Origin::ALL[((head >> 8) as u8 as usize).min(Origin::ALL.len() - 1)],
                reason: text(),
                count: (head >> 32) as u32,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    #[test]
    fn events_come_back_as_they_were() {
        let events = Events::new(&mut HeapArena).unwrap();
        let long = Event {
            kind: EventKind::Expired,
            ip: "2001:db8:1111:2222:3333:4444:5555:6666/127".into(),
            origin: Origin::Peer,
            reason: "r".repeat(56),
            count: 7,
        };
        let short = Event {
            kind: EventKind::Sync,
            ip: String::new(),
            origin: Origin::Feed,
            reason: String::new(),
            count: 1300,
        };
        for event in [&long, &short, &long] {
            assert!(events.put(event));
        }
        assert_eq!(
            [events.take(), events.take(), events.take(), events.take()],
            [Some(long.clone()), Some(short), Some(long.clone()), None]
        );
        assert!((0..CAPACITY).all(|_| events.put(&long)) && !events.put(&long));
    }
}
