//! The messages between the nodes: one datagram each, authenticated, in a form that a later version can extend.
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | `APBN` |
//! | 1 | version of the sender |
//! | 1 | oldest version that can read the message |
//! | 1 | kind |
//! | 1 | number of the key |
//! | 8 | run of the sender: random, new at each start |
//! | 8 | token of the receiver: what it gave to the sender's address; 0 if the sender has none yet |
//! | 8 | sequence number within the run, from 1 |
//! | 8 | the sender's Unix time in milliseconds |
//! | ... | items: type 1, length 2, value |
//! | 16 | MAC over all before it |
//!
//! Numbers are big endian. A reader skips items and kinds that it does not know, so that nodes of different
//! versions work together during an upgrade.

mod item;
#[cfg(test)]
mod tests;

use super::keys::{Keyring, MAC};
use crate::address::Subnet;
use crate::clock::{UnixMillis, UnixSeconds};
use item::{number_of, read_item, write_item, Reader};

/// Longest message in bytes: with DMQ's SIP headers it fits an Ethernet frame, so that UDP does not fragment it.
pub const LONGEST: usize = 1200;
/// The version that is written.
pub const VERSION: u8 = 1;
/// Longest URI of a node.
pub const LONGEST_URI: usize = 128;
/// Longest reason of a ban in bytes, as the ban table stores it.
pub const LONGEST_REASON: usize = crate::table::REASON_MAX;
/// Parts of a set that are compared one by one; see [`super::replica`].
pub const BUCKETS: usize = 32;

const MAGIC: [u8; 4] = *b"APBN";
const HEADER: usize = 40;
/// Where the receiver's token stands.
const TO: usize = 16;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A sign of life with the digests of what the sender has.
    Hello,
    /// Bans that the sender made, and bans that were lifted at the sender.
    Bans,
    /// Asks for a part of a set.
    Request,
    /// A part of a set.
    Part,
    /// Entries of the list that the sender has just fetched.
    Listed,
    /// Of a later version.
    Unknown(u8),
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Hello => 1,
            Kind::Bans => 2,
            Kind::Request => 3,
            Kind::Part => 4,
            Kind::Listed => 5,
            Kind::Unknown(number) => number,
        }
    }

    fn of(number: u8) -> Kind {
        match number {
            1 => Kind::Hello,
            2 => Kind::Bans,
            3 => Kind::Request,
            4 => Kind::Part,
            5 => Kind::Listed,
            other => Kind::Unknown(other),
        }
    }
}

/// The fixed part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the sender.
    pub version: u8,
    /// What it is for.
    pub kind: Kind,
    /// Run of the sender.
    pub run: u64,
    /// Token of the receiver.
    pub to: u64,
    /// Number within the run.
    pub sequence: u64,
    /// When it was sent, by the sender's clock.
    pub time: UnixMillis,
}

/// Which set is compared or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// The bans that the sender made itself.
    Bans,
    /// The service's list as the fetching node has it.
    List,
}

/// A place in a set: bucket, then address.
pub type Place = (u8, Subnet);

/// One item of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The sender's URI on the bus.
    Uri(String),
    /// What the receiver must put into messages to the sender.
    Token(u64),
    /// The sender's software version, and how often it says HELLO, in seconds.
    About(u16, String),
    /// Digests of a set.
    Digests(Set, Box<[u64; BUCKETS]>),
    /// A ban.
    Ban(Ban),
    /// Bans of these origins (node, stamp) on this address are lifted, up to the stamp.
    Lift(Subnet, Vec<(u64, UnixMillis)>),
    /// Entries of the list: address and end by the sender's clock.
    Listed(Vec<(Subnet, UnixSeconds)>),
    /// The buckets asked for or sent (one bit each), and where the part begins: behind this place.
    After(Set, u32, Option<Place>),
    /// Where the part ends: at this place, or with the set.
    UpTo(Option<Place>),
    /// The receiver may ask on from where the part ended.
    More,
    /// What the sender knows of the list.
    Feed(Feed),
    /// Requests to the service that the sender knows of: node, number, and how many ms ago, newest first.
    Requests(Vec<(u64, u32, u32)>),
    /// The number of the sender's latest intention to send a request to the service, to be confirmed at once.
    Intent(u64),
    /// Confirms that intention: the sender counts the request.
    Confirm(u64),
    /// Of a later version.
    Unknown(u8),
}

/// A ban as its origin has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who is banned.
    pub subnet: Subnet,
    /// When it ends, by the origin's clock.
    pub end: UnixSeconds,
    /// When the origin made or changed it, by its clock; grows with each change.
    pub stamp: UnixMillis,
    /// Why; may be empty.
    pub reason: String,
}

/// The state of the list at the sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    /// Which list, by [`super::keys::list_fingerprint`]; 0: the sender has no key.
    pub fingerprint: u64,
    /// Number of the lease that the sender holds or follows; grows with each change of the fetcher.
    pub epoch: u32,
    /// True if the sender fetches.
    pub holds: bool,
    /// True if the service answers the sender as it should.
    pub healthy: bool,
    /// When the last usable answer came, by the sender's clock; `None`: none came.
    pub last_success: Option<UnixSeconds>,
    /// When the last full fetch was, by the sender's clock; `None`: there was none.
    pub last_full: Option<UnixSeconds>,
    /// The control ID, 1 to 20 digits, or empty.
    pub id: String,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No message of this protocol, or cut.
    Malformed,
    /// Only a later version can read it.
    Version(u8),
    /// The MAC is wrong: another secret, or forged.
    Mac,
}

/// Items being written, at most as many as fit one message.
#[derive(Clone, Default)]
pub struct Items(Vec<u8>);

impl Items {
    /// None.
    pub fn new() -> Self {
        Items(Vec::with_capacity(LONGEST))
    }

    /// True without any item.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an item; false, and nothing changes, if it does not fit.
    pub fn add(&mut self, item: &Item) -> bool {
        self.add_leaving(0, item)
    }

    /// The same, with `room` bytes left for further items.
    pub fn add_leaving(&mut self, room: usize, item: &Item) -> bool {
        let start = self.0.len();
        self.0.extend([number_of(item), 0, 0]);
        write_item(&mut self.0, item);
        let length = self.0.len() - start - 3;
        let fits = self.0.len() + room <= LONGEST - HEADER - MAC;
        match u16::try_from(length) {
            Ok(length) if fits => {
                self.0[start + 1..start + 3].copy_from_slice(&length.to_be_bytes());
                true
            }
            _ => {
                self.0.truncate(start);
                false
            }
        }
    }

    /// The whole message.
    pub fn seal(&self, header: &Header, keys: &Keyring) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.0.len() + MAC);
        bytes.extend(MAGIC);
        bytes.extend([header.version, 1, header.kind.number(), keys.signing_id()]);
        for word in [header.run, header.to, header.sequence, header.time.get()] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(&self.0);
        let mac = keys.sign(&bytes);
        bytes.extend(mac);
        bytes
    }
}

/// What the DMQ callback can tell without a key, at the cost of a comparison: the receiver's token, or `None` if
/// this is no message of ours.
pub fn addressed_to(bytes: &[u8]) -> Option<u64> {
    let fits = (HEADER + MAC..=LONGEST).contains(&bytes.len()) && bytes.starts_with(&MAGIC);
    fits.then(|| Reader(&bytes[TO..]).u64()).flatten()
}

/// Checks the MAC and reads the header; the rest are the items.
///
/// # Errors
/// The message is not of this protocol, of a version that this one cannot read, or not from the cluster.
pub fn open<'a>(bytes: &'a [u8], keys: &Keyring) -> Result<(Header, &'a [u8]), Refusal> {
    if bytes.len() > LONGEST || bytes.len() < HEADER + MAC || !bytes.starts_with(&MAGIC) {
        return Err(Refusal::Malformed);
    }
    let (signed, mac) = bytes.split_at(bytes.len() - MAC);
    let mut reader = Reader(&signed[MAGIC.len()..]);
    let (Some(version), Some(readable_from), Some(kind), Some(key)) =
        (reader.u8(), reader.u8(), reader.u8(), reader.u8())
    else {
        return Err(Refusal::Malformed);
    };
    if !keys.verify(key, signed, mac) {
        return Err(Refusal::Mac);
    }
    if readable_from > VERSION {
        return Err(Refusal::Version(version));
    }
    let words = [reader.u64(), reader.u64(), reader.u64(), reader.u64()];
    let [Some(run), Some(to), Some(sequence), Some(time)] = words else {
        return Err(Refusal::Malformed);
    };
    let header = Header {
        version,
        kind: Kind::of(kind),
        run,
        to,
        sequence,
        time: UnixMillis::new(time),
    };
    Ok((header, reader.0))
}

/// Reads all items; `None` if one is cut or says what cannot be.
pub fn items(bytes: &[u8]) -> Option<Vec<Item>> {
    let mut reader = Reader(bytes);
    let mut items = Vec::new();
    while !reader.0.is_empty() {
        let number = reader.u8()?;
        let length = usize::from(reader.u16()?);
        items.push(read_item(number, Reader(reader.bytes(length)?))?);
    }
    Some(items)
}
