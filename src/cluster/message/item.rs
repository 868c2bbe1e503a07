//! How an item is written and read.

use std::net::IpAddr;

use super::{Ban, Feed, Item, Place, Set, BUCKETS, LONGEST_REASON, LONGEST_URI};
use crate::address::Subnet;
use crate::clock::{UnixMillis, UnixSeconds};

/// The number of an item's type.
pub(super) fn number_of(item: &Item) -> u8 {
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

/// Appends the value of an item.
pub(super) fn write_item(out: &mut Vec<u8>, item: &Item) {
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
            out.extend(ban.end.get().to_be_bytes());
            out.extend(ban.stamp.get().to_be_bytes());
            out.extend(ban.reason.bytes().take(LONGEST_REASON));
        }
        Item::Lift(subnet, origins) => {
            write_subnet(out, *subnet);
            for (node, stamp) in origins {
                out.extend(node.to_be_bytes());
                out.extend(stamp.get().to_be_bytes());
            }
        }
        Item::Listed(entries) => {
            for (subnet, end) in entries {
                write_subnet(out, *subnet);
                out.extend(end.get().to_be_bytes());
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
            for time in [feed.last_success, feed.last_full] {
                // 0 says that there is none.
                out.extend(time.unwrap_or_default().get().to_be_bytes());
            }
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

/// An item of this type; `None` if the value says what cannot be.
pub(super) fn read_item(number: u8, mut reader: Reader<'_>) -> Option<Item> {
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
            end: reader.seconds()?,
            stamp: reader.millis()?,
            reason: reader.text(LONGEST_REASON)?,
        }),
        6 => {
            let subnet = reader.subnet()?;
            let mut origins = Vec::new();
            while !reader.0.is_empty() {
                origins.push((reader.u64()?, reader.millis()?));
            }
            Item::Lift(subnet, origins)
        }
        7 => {
            let mut entries = Vec::new();
            while !reader.0.is_empty() {
                entries.push((reader.subnet()?, reader.seconds()?));
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
                last_success: reader.seconds().map(known)?,
                last_full: reader.seconds().map(known)?,
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

/// A time; 0 says that there is none.
fn known(time: UnixSeconds) -> Option<UnixSeconds> {
    Some(time).filter(|time| *time != UnixSeconds::ZERO)
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

/// What is left to be read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|bytes| bytes[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn seconds(&mut self) -> Option<UnixSeconds> {
        self.u32().map(UnixSeconds::new)
    }

    fn millis(&mut self) -> Option<UnixMillis> {
        self.u64().map(UnixMillis::new)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
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
