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

use std::net::IpAddr;

use super::keys::{Keyring, MAC};
use crate::address::Subnet;

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
    /// The sender's Unix time in ms.
    pub time: u64,
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
    Lift(Subnet, Vec<(u64, u64)>),
    /// Entries of the list: address and end in the sender's Unix time.
    Listed(Vec<(Subnet, u32)>),
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
    /// Unix second of the origin's clock at which it ends.
    pub end: u32,
    /// When the origin made or changed it: ms of its clock, growing with each change.
    pub stamp: u64,
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
    /// Unix second (the sender's) of the last answer of use; 0: none.
    pub last_success: u32,
    /// Unix second (the sender's) of the last full fetch; 0: none.
    pub last_full: u32,
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
        for word in [header.run, header.to, header.sequence, header.time] {
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
        time,
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

fn number_of(item: &Item) -> u8 {
    match item {
        Item::Uri(_) => 1,
        Item::Token(_) => 2,
        Item::About(..) => 3,
        Item::Digests(..) => 4,
        Item::Ban(_) => 5,
        Item::Lift(..) => 6,
        Item::Listed(_) => 7,
        Item::After(..) => 8,
        Item::UpTo(_) => 9,
        Item::More => 10,
        Item::Feed(_) => 11,
        Item::Requests(_) => 12,
        Item::Intent(_) => 13,
        Item::Confirm(_) => 14,
        Item::Unknown(number) => *number,
    }
}

fn write_item(out: &mut Vec<u8>, item: &Item) {
    match item {
        Item::Uri(text) => out.extend(text.bytes().take(LONGEST_URI)),
        Item::Token(number) | Item::Intent(number) | Item::Confirm(number) => {
            out.extend(number.to_be_bytes());
        }
        Item::About(pause, software) => {
            out.extend(pause.to_be_bytes());
            out.extend(software.bytes().take(64));
        }
        Item::Digests(set, digests) => {
            out.push(set_number(*set));
            digests
                .iter()
                .for_each(|digest| out.extend(digest.to_be_bytes()));
        }
        Item::Ban(ban) => {
            write_subnet(out, ban.subnet);
            out.extend(ban.end.to_be_bytes());
            out.extend(ban.stamp.to_be_bytes());
            out.extend(ban.reason.bytes().take(LONGEST_REASON));
        }
        Item::Lift(subnet, origins) => {
            write_subnet(out, *subnet);
            for (node, stamp) in origins {
                out.extend(node.to_be_bytes());
                out.extend(stamp.to_be_bytes());
            }
        }
        Item::Listed(entries) => {
            for (subnet, end) in entries {
                write_subnet(out, *subnet);
                out.extend(end.to_be_bytes());
            }
        }
        Item::After(set, buckets, place) => {
            out.push(set_number(*set));
            out.extend(buckets.to_be_bytes());
            write_place(out, place);
        }
        Item::UpTo(place) => write_place(out, place),
        Item::More | Item::Unknown(_) => {}
        Item::Feed(feed) => {
            out.extend(feed.fingerprint.to_be_bytes());
            out.extend(feed.epoch.to_be_bytes());
            out.push(u8::from(feed.holds) | u8::from(feed.healthy) << 1);
            out.extend(feed.last_success.to_be_bytes());
            out.extend(feed.last_full.to_be_bytes());
            out.extend(feed.id.bytes().take(20));
        }
        Item::Requests(requests) => {
            for (node, number, age) in requests {
                out.extend(node.to_be_bytes());
                out.extend(number.to_be_bytes());
                out.extend(age.to_be_bytes());
            }
        }
    }
}

fn read_item(number: u8, mut reader: Reader<'_>) -> Option<Item> {
    let reader = &mut reader;
    Some(match number {
        1 => Item::Uri(reader.text(LONGEST_URI)?),
        2 => Item::Token(reader.u64()?),
        3 => Item::About(reader.u16()?, reader.text(64)?),
        4 => {
            let set = reader.set()?;
            let mut digests = Box::new([0; BUCKETS]);
            for digest in digests.iter_mut() {
                *digest = reader.u64()?;
            }
            Item::Digests(set, digests)
        }
        5 => Item::Ban(Ban {
            subnet: reader.subnet()?,
            end: reader.u32()?,
            stamp: reader.u64()?,
            reason: reader.text(LONGEST_REASON)?,
        }),
        6 => {
            let subnet = reader.subnet()?;
            let mut origins = Vec::new();
            while !reader.0.is_empty() {
                origins.push((reader.u64()?, reader.u64()?));
            }
            Item::Lift(subnet, origins)
        }
        7 => {
            let mut entries = Vec::new();
            while !reader.0.is_empty() {
                entries.push((reader.subnet()?, reader.u32()?));
            }
            Item::Listed(entries)
        }
        8 => Item::After(reader.set()?, reader.u32()?, reader.place()?),
        9 => Item::UpTo(reader.place()?),
        10 => Item::More,
        11 => {
            let (fingerprint, epoch, flags) = (reader.u64()?, reader.u32()?, reader.u8()?);
            Item::Feed(Feed {
                fingerprint,
                epoch,
                holds: flags & 1 != 0,
                healthy: flags & 2 != 0,
                last_success: reader.u32()?,
                last_full: reader.u32()?,
                id: reader.text(20)?,
            })
        }
        12 => {
            let mut requests = Vec::new();
            while !reader.0.is_empty() {
                requests.push((reader.u64()?, reader.u32()?, reader.u32()?));
            }
            Item::Requests(requests)
        }
        13 => Item::Intent(reader.u64()?),
        14 => Item::Confirm(reader.u64()?),
        other => Item::Unknown(other),
    })
}

fn set_number(set: Set) -> u8 {
    match set {
        Set::Bans => 0,
        Set::List => 1,
    }
}

fn write_place(out: &mut Vec<u8>, place: &Option<Place>) {
    if let Some((bucket, subnet)) = place {
        out.push(*bucket);
        write_subnet(out, *subnet);
    }
}

fn write_subnet(out: &mut Vec<u8>, subnet: Subnet) {
    match subnet.address() {
        IpAddr::V4(ip) => {
            out.extend([4, subnet.prefix_len()]);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.extend([6, subnet.prefix_len()]);
            out.extend(ip.octets());
        }
    }
}

/// Reads from the front; every reader says `None` at the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The rest as text of at most `most` bytes.
    fn text(&mut self, most: usize) -> Option<String> {
        let rest = std::mem::take(&mut self.0);
        // A reason may end within a character that did not fit.
        (rest.len() <= most).then(|| String::from_utf8_lossy(rest).into_owned())
    }

    fn set(&mut self) -> Option<Set> {
        match self.u8()? {
            0 => Some(Set::Bans),
            1 => Some(Set::List),
            _ => None,
        }
    }

    fn place(&mut self) -> Option<Option<Place>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let bucket = self.u8().filter(|bucket| usize::from(*bucket) < BUCKETS)?;
        Some(Some((bucket, self.subnet()?)))
    }

    /// Only the canonical form: one address must not stand for two entries.
    fn subnet(&mut self) -> Option<Subnet> {
        let (family, length) = (self.u8()?, self.u8()?);
        let ip = match family {
            4 => IpAddr::from(self.array::<4>()?),
            6 => IpAddr::from(self.array::<16>()?),
            _ => return None,
        };
        Subnet::new(ip, length).filter(|subnet| subnet.address() == ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keyring {
        Keyring::new([b"a secret of some length".as_slice()]).unwrap()
    }

    fn header(kind: Kind) -> Header {
        Header {
            version: VERSION,
            kind,
            run: 11,
            to: 22,
            sequence: 33,
            time: 1_795_300_000_123,
        }
    }

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn every_item() -> Vec<Item> {
        vec![
            Item::Uri("sip:10.0.0.1:5060;transport=tls".into()),
            Item::Token(7),
            Item::About(5, "0.1.0".into()),
            Item::Digests(Set::List, Box::new(std::array::from_fn(|n| n as u64))),
            Item::Ban(Ban {
                subnet: subnet("2001:db8::/64"),
                end: 1_795_300_600,
                stamp: 1_795_300_000_001,
                reason: "flood".into(),
            }),
            Item::Lift(subnet("192.0.2.0/24"), vec![(1, 2), (3, 4)]),
            Item::Listed(vec![(subnet("192.0.2.1"), 5), (subnet("2001:db8::1"), 6)]),
            Item::After(Set::Bans, 0x8000_0001, Some((31, subnet("192.0.2.9")))),
            Item::After(Set::Bans, 1, None),
            Item::UpTo(None),
            Item::UpTo(Some((0, subnet("192.0.2.9")))),
            Item::More,
            Item::Feed(Feed {
                fingerprint: 9,
                epoch: 8,
                holds: true,
                healthy: false,
                last_success: 7,
                last_full: 6,
                id: "1795300250".into(),
            }),
            Item::Requests(vec![(1, 2, 0), (3, 4, 120_000)]),
            Item::Intent(5),
            Item::Confirm(6),
        ]
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let keys = keys();
        let mut written = Items::new();
        let given = every_item();
        assert!(given.iter().all(|item| written.add(item)));
        let bytes = written.seal(&header(Kind::Bans), &keys);
        assert_eq!(addressed_to(&bytes), Some(22));
        let (read, rest) = open(&bytes, &keys).unwrap();
        assert_eq!(read, header(Kind::Bans));
        assert_eq!(items(rest).unwrap(), given);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        let keys = keys();
        let mut written = Items::new();
        written.add(&every_item()[4]);
        let bytes = written.seal(&header(Kind::Bans), &keys);
        for length in 0..bytes.len() {
            assert!(open(&bytes[..length], &keys).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&forged, &keys).is_err(), "bit {bit}");
        }
        let other = Keyring::new([b"another secret of the kind".as_slice()]).unwrap();
        assert_eq!(open(&bytes, &other), Err(Refusal::Mac));
        let long = vec![0; LONGEST + 1];
        assert_eq!(open(&long, &keys), Err(Refusal::Malformed));
    }

    #[test]
    fn a_message_never_outgrows_its_limit() {
        let mut written = Items::new();
        let ban = &every_item()[4];
        while written.add(ban) {}
        assert!(written.seal(&header(Kind::Bans), &keys()).len() <= LONGEST);
        assert!(written.add(&Item::More) || !written.add(ban));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_says() {
        let keys = keys();
        let mut written = Items::new();
        written.0.extend([200, 0, 3, 1, 2, 3]);
        written.add(&Item::Token(7));
        let mut next = header(Kind::Unknown(77));
        next.version = VERSION + 1;
        let bytes = written.seal(&next, &keys);
        let (read, rest) = open(&bytes, &keys).unwrap();
        assert_eq!((read.version, read.kind), (VERSION + 1, Kind::Unknown(77)));
        assert_eq!(items(rest).unwrap(), [Item::Unknown(200), Item::Token(7)]);
        // One that only the next version can read.
        let mut closed = bytes[..bytes.len() - MAC].to_vec();
        closed[5] = VERSION + 1;
        let mac = keys.sign(&closed);
        closed.extend(mac);
        assert_eq!(open(&closed, &keys), Err(Refusal::Version(VERSION + 1)));
    }

    #[test]
    fn nonsense_in_an_item_is_refused() {
        for bad in [
            &[5, 0, 1, 4][..],
            &[5, 0, 200, 4],
            // A prefix with host bits, a length beyond the family, an unknown family.
            &[7, 0, 10, 4, 24, 192, 0, 2, 1, 0, 0, 0, 1],
            &[7, 0, 10, 4, 33, 192, 0, 2, 1, 0, 0, 0, 1],
            &[7, 0, 10, 5, 32, 192, 0, 2, 1, 0, 0, 0, 1],
            &[8, 0, 1, 9],
            &[9, 0, 7, 32, 4, 32, 192, 0, 2, 1],
        ] {
            assert_eq!(items(bad), None, "{bad:?}");
        }
        // An IPv4 address in IPv6 clothes is not the canonical form.
        let mut mapped = vec![7, 0, 22, 6, 128];
        mapped.extend(
            "::ffff:192.0.2.1"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets(),
        );
        mapped.extend([0, 0, 0, 1]);
        assert_eq!(items(&mapped), None);
    }
}
