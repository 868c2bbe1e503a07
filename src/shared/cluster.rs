//! What the process of the cluster shares with the others: messages that came, changes to send, what is known.

use std::net::{IpAddr, Ipv6Addr};

use super::changes::BanChanges;
use super::published::point;
use super::ring::Ring;
use super::text::SharedText;
use crate::clock::UnixSeconds;
use crate::cluster::message::LONGEST;
use crate::memory::{Arena, Line, Ordering, OutOfMemory, LINE_WORDS};

/// Lines of one message in the queue: the longest one, its length and its sender.
const MESSAGE_LINES: usize = 20;
/// Messages of nodes with a session that can wait.
const MESSAGES: usize = 512;
/// Messages of nodes without one that can wait: a flood of them must not keep the others out.
const STRANGERS: usize = 64;
/// Lines of the longest URI.
const URI_LINES: usize = 3;
/// Commands that can wait.
const COMMANDS: usize = 16;
/// Nodes that are shown to operators.
pub const SHOWN_NODES: usize = 257;
/// Lines of one node.
const NODE_LINES: usize = 5;
/// Lines of the texts of the list: the control ID and the fetcher.
const TEXT_LINES: usize = 3;

/// A number that one process writes and all read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Number {
    /// Upper half of every valid token; see [`crate::cluster::message::addressed_to`].
    TokenPrefix,
    /// Nodes that are there, this one included; 0: the bus is not ready.
    Nodes,
    /// Messages sent.
    Sent,
    /// Messages taken.
    Received,
    /// Messages and bans refused.
    Refused,
    /// Messages that the DMQ callback did not take: not of this cluster, or no room.
    Dropped,
    /// When the process worked last.
    Turned,
    /// One more than the number of the [`crate::cluster::FeedMode`]; 0: not decided yet.
    Mode,
    /// The last request that was granted.
    Granted,
    /// The last request that the updater wishes to send.
    Wished,
    /// When the fetcher's last success was.
    FetchedSuccess,
    /// When the fetcher's last full fetch was.
    FetchedFull,
    /// 1: the list here is the fetcher's.
    Whole,
    /// 1: a shrink is held back.
    Held,
    /// 1: the service answers this node.
    OwnHealthy,
    /// When this node's last success was.
    OwnSuccess,
    /// When this node's last full fetch was.
    OwnFull,
    /// Keep last: how many there are.
    Count,
}

/// What the process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Ask {
    /// Read the secrets and the key again.
    Reload = 1,
    /// Apply a shrink that is held back.
    Force = 2,
    /// The table of peers' bans was emptied.
    FlushedPeers = 4,
    /// The table of local bans was emptied.
    FlushedLocal = 8,
    /// The list changed.
    ListChanged = 16,
}

/// The shared memory of the cluster.
#[derive(Clone, Copy)]
pub struct Cluster {
    /// Bans that were made or lifted here.
    pub changes: BanChanges,
    messages: Ring<MESSAGE_LINES>,
    strangers: Ring<MESSAGE_LINES>,
    commands: Ring<URI_LINES>,
    numbers: &'static [Line],
    asked: &'static Line,
    nodes: &'static [Line],
    texts: &'static [Line],
}

impl Cluster {
    /// Nothing known, nothing waits.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        const PURPOSE: &str = "the cluster";
        Ok(Cluster {
            changes: BanChanges::new(arena)?,
            messages: Ring::new(arena, PURPOSE, MESSAGES)?,
            strangers: Ring::new(arena, PURPOSE, STRANGERS)?,
            commands: Ring::new(arena, PURPOSE, COMMANDS)?,
            numbers: arena.lines(PURPOSE, (Number::Count as usize).div_ceil(LINE_WORDS))?,
            asked: &arena.lines(PURPOSE, 1)?[0],
            nodes: arena.lines(PURPOSE, SHOWN_NODES * NODE_LINES)?,
            texts: arena.lines(PURPOSE, 2 * TEXT_LINES)?,
        })
    }

    /// A number.
    pub fn number(&self, number: Number) -> u64 {
        let index = number as usize;
        self.numbers[index / LINE_WORDS].0[index % LINE_WORDS].load(Ordering::Acquire)
    }

    /// Sets a number.
    pub fn set(&self, number: Number, value: u64) {
        let index = number as usize;
        self.numbers[index / LINE_WORDS].0[index % LINE_WORDS].store(value, Ordering::Release);
    }

    /// A number that is a point in time; `None` if none was set.
    pub fn time(&self, number: Number) -> Option<UnixSeconds> {
        point(self.number(number))
    }

    /// Sets a number that is a point in time.
    pub fn set_time(&self, number: Number, time: Option<UnixSeconds>) {
        self.set(number, time.map_or(0, |time| time.get().into()));
    }

    /// Adds to a number that several processes count.
    pub fn count(&self, number: Number, more: u64) {
        let index = number as usize;
        self.numbers[index / LINE_WORDS].0[index % LINE_WORDS].fetch_add(more, Ordering::Relaxed);
    }

    /// Asks the process for something; asking twice is asking once. The caller wakes it.
    pub fn ask(&self, what: Ask) {
        self.asked.0[0].fetch_or(what as u64, Ordering::AcqRel);
    }

    /// Takes all that was asked for; `has` tells.
    pub fn take_asked(&self) -> impl Fn(Ask) -> bool {
        let asked = self.asked.0[0].swap(0, Ordering::AcqRel);
        move |what| asked & what as u64 != 0
    }

    /// Queues a message; false if there is no room. `session`: its sender knows a token of this node.
    pub fn put_message(&self, session: bool, from: IpAddr, bytes: &[u8]) -> bool {
        let ring = if session {
            &self.messages
        } else {
            &self.strangers
        };
        if bytes.len() > LONGEST {
            return false;
        }
        let ip = match from {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        }
        .to_bits();
        let head = [bytes.len() as u64, (ip >> 64) as u64, ip as u64];
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        ring.push(head.into_iter().chain(words))
    }

    /// The oldest message, those with a session first.
    pub fn take_message(&self) -> Option<(IpAddr, Vec<u8>)> {
        fn read(words: &mut dyn Iterator<Item = u64>) -> (IpAddr, Vec<u8>) {
            let mut next = || words.next().unwrap_or(0);
            let (length, high, low) = (next() as usize, next(), next());
            let ip = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
            let mut bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
            bytes.truncate(length);
            (IpAddr::V6(ip).to_canonical(), bytes)
        }
        let first = self.messages.pop(read);
        first.or_else(|| self.strangers.pop(read))
    }

    /// Asks to throw away the bans of a node; false if too many commands wait.
    pub fn flush_node(&self, uri: &str) -> bool {
        let mut bytes = [0; (URI_LINES * LINE_WORDS - 1) * 8];
        if uri.len() >= bytes.len() {
            return false;
        }
        bytes[..uri.len()].copy_from_slice(uri.as_bytes());
        let words = bytes.chunks_exact(8);
        self.commands
            .push(words.map(|chunk| u64::from_ne_bytes(chunk.try_into().unwrap_or_default())))
    }

    /// The node whose bans are to be thrown away.
    pub fn take_flush(&self) -> Option<String> {
        self.commands.pop(|words| {
            let bytes: Vec<u8> = words
                .flat_map(u64::to_ne_bytes)
                .take_while(|byte| *byte != 0)
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    /// The text of a node by its number; empty if there is none.
    pub fn node(&self, number: usize) -> SharedText {
        let number = number.min(SHOWN_NODES - 1);
        SharedText(&self.nodes[number * NODE_LINES..][..NODE_LINES])
    }

    /// The control ID of the fetcher.
    pub fn fetched_id(&self) -> SharedText {
        SharedText(&self.texts[..TEXT_LINES])
    }

    /// The URI of the fetcher.
    pub fn fetcher(&self) -> SharedText {
        SharedText(&self.texts[TEXT_LINES..])
    }
}

/// A node as its text describes it: what `apiban.nodes` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownNode {
    /// Its URI.
    pub uri: String,
    /// `self`, `ok`, `silent` or `refused`.
    pub state: String,
    /// `fetcher`, `follower` or `alone`.
    pub role: String,
    /// Its bans that are in force here.
    pub bans: u64,
    /// When it was heard last; `None`: never.
    pub heard: Option<UnixSeconds>,
    /// Messages and bans of it that were refused.
    pub refused: u64,
    /// Its software.
    pub version: String,
    /// Its address if it is authenticated; else empty.
    pub address: String,
}

impl ShownNode {
    /// As one text.
    pub fn write(&self, to: SharedText) {
        to.set(&format!(
            "{} {} {} {} {} {} {} {}",
            self.uri,
            self.state,
            self.role,
            self.bans,
            self.heard.unwrap_or_default(),
            self.refused,
            if self.address.is_empty() {
                "-"
            } else {
                &self.address
            },
            // Last: it may hold blanks.
            self.version,
        ));
    }

    /// `None` if there is no node.
    pub fn read(from: SharedText) -> Option<ShownNode> {
        let text = from.get();
        let mut words = text.splitn(8, ' ');
        let mut next = || words.next().map(str::to_owned);
        Some(ShownNode {
            uri: next().filter(|uri| !uri.is_empty())?,
            state: next()?,
            role: next()?,
            bans: next()?.parse().ok()?,
            heard: point(next()?.parse().ok()?),
            refused: next()?.parse().ok()?,
            address: next().filter(|address| address != "-").unwrap_or_default(),
            version: next().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    fn cluster() -> Cluster {
        Cluster::new(&mut HeapArena).unwrap()
    }

    #[test]
    fn messages_come_back_whole_and_a_flood_of_strangers_keeps_nobody_out() {
        let cluster = cluster();
        let from: IpAddr = "192.0.2.1".parse().unwrap();
        let long: Vec<u8> = (0..LONGEST).map(|n| n as u8).collect();
        assert!((0..STRANGERS).all(|_| cluster.put_message(false, from, b"short")));
        assert!(!cluster.put_message(false, from, b"short"));
        assert!(cluster.put_message(true, "2001:db8::1".parse().unwrap(), &long));
        assert!(!cluster.put_message(true, from, &[0; LONGEST + 1]));
        assert_eq!(
            cluster.take_message(),
            Some(("2001:db8::1".parse().unwrap(), long))
        );
        assert_eq!(cluster.take_message(), Some((from, b"short".to_vec())));
    }

    #[test]
    fn nodes_and_commands_come_back_as_they_were() {
        let cluster = cluster();
        let node = ShownNode {
            uri: "sip:[2001:db8::1]:5060;transport=tls".into(),
            state: "ok".into(),
            role: "follower".into(),
            bans: 5,
            heard: Some(UnixSeconds::new(1_795_300_000)),
            refused: 7,
            version: "0.1.0 x".into(),
            address: "2001:db8::1".into(),
        };
        assert_eq!(ShownNode::read(cluster.node(3)), None);
        node.write(cluster.node(3));
        assert_eq!(ShownNode::read(cluster.node(3)), Some(node.clone()));
        let unknown = ShownNode {
            address: String::new(),
            version: String::new(),
            ..node
        };
        unknown.write(cluster.node(3));
        assert_eq!(ShownNode::read(cluster.node(3)), Some(unknown.clone()));
        assert!(cluster.flush_node(&unknown.uri) && !cluster.flush_node(&"x".repeat(200)));
        assert_eq!(cluster.take_flush(), Some(unknown.uri));
        assert_eq!(cluster.take_flush(), None);
        cluster.ask(Ask::Force);
        let asked = cluster.take_asked();
        assert!(asked(Ask::Force) && !asked(Ask::Reload));
        assert!(!cluster.take_asked()(Ask::Force));
    }
}
