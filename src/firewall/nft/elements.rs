//! Elements of our sets: changes as messages, and the question whether the kernel has one.
//!
//! Whole sets are never listed: the kernel lists a hash again for each 32 kB of answer, which takes
//! quadratic time, and while the hash grows some elements are passed over.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use nix::errno::Errno;

use super::expressions::data;
use super::names::SetId;
use super::ranges::Range;
use super::socket::Socket;
use super::uapi::*;
use super::wire::Writer;
use crate::address::Subnet;
use crate::firewall::Change;

/// A list of elements is one attribute with a 16-bit length: a message takes no more once its list has
/// this many bytes (an element has at most 52).
const LIST_BYTES: usize = 60_000;

/// How an element that exists gets a new timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rearm {
    /// Adding it again is enough: Linux 6.12 and later. The element keeps its counter.
    Update,
    /// Older kernels pass over the new timeout in silence: add, delete and add within one transaction.
    /// The first add is there because deleting an absent element would fail the transaction.
    Replace,
}

impl Rearm {
    /// What the running kernel needs; the slow way if its release cannot be read.
    pub fn of_this_kernel() -> Self {
        std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or(Rearm::Replace, |release| Rearm::of_release(&release))
    }

    /// What a kernel of this release (`6.12.3-amd64`) needs.
    fn of_release(release: &str) -> Self {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version >= (6, 12) {
            Rearm::Update
        } else {
            Rearm::Replace
        }
    }
}

/// Appends changes of hash sets. Of several for the same ban the last counts, as only that is written: the
/// kernel refuses some sequences for one element within one transaction.
///
/// A removal adds the element first, as the kernel refuses a transaction that deletes what is absent.
pub fn write(writer: &mut Writer, table: &str, changes: &[Change], rearm: Rearm) {
    let latest: HashMap<_, _> = changes
        .iter()
        .map(|change| (change.subnet(), change))
        .collect();
    let mut lists: BTreeMap<(SetId, bool), Vec<&Change>> = BTreeMap::new();
    for (subnet, change) in latest {
        let key = (SetId::hash_of(&subnet), seconds(change).is_some());
        lists.entry(key).or_default().push(change);
    }
    for ((id, adds), changes) in lists {
        let mut put = |kind| list(writer, table, id, kind, &changes);
        put(NFT_MSG_NEWSETELEM);
        if !adds || rearm == Rearm::Replace {
            put(NFT_MSG_DELSETELEM);
        }
        if adds && rearm == Rearm::Replace {
            put(NFT_MSG_NEWSETELEM);
        }
    }
}

/// Appends all ranges of an interval set, which must be empty: each is an element where it begins, with
/// the timeout, and one behind its end.
pub fn write_ranges(writer: &mut Writer, table: &str, id: SetId, ranges: &[Range], now: Instant) {
    let bytes = |number: u128| match id.v4 {
        true => (number as u32).to_be_bytes().to_vec(),
        false => number.to_be_bytes().to_vec(),
    };
    let highest = if id.v4 { u32::MAX.into() } else { u128::MAX };
    let mut ranges = ranges.iter().peekable();
    while ranges.peek().is_some() {
        writer.message(NFT_MSG_NEWSETELEM, NLM_F_CREATE);
        writer.text(NFTA_SET_ELEM_LIST_TABLE, table);
        writer.text(NFTA_SET_ELEM_LIST_SET, &id.to_string());
        let list = writer.nest(NFTA_SET_ELEM_LIST_ELEMENTS);
        while writer.nest_len(&list) < LIST_BYTES {
            let Some(range) = ranges.next() else { break };
            let element = writer.nest(NFTA_LIST_ELEM);
            let left = range.end.saturating_duration_since(now).as_millis();
            let milliseconds = u64::try_from(left).unwrap_or(u64::MAX).max(1);
            writer.be64(NFTA_SET_ELEM_TIMEOUT, milliseconds);
            data(writer, NFTA_SET_ELEM_KEY, &bytes(range.first));
            writer.close(element);
            if range.last < highest {
                let element = writer.nest(NFTA_LIST_ELEM);
                writer.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
                data(writer, NFTA_SET_ELEM_KEY, &bytes(range.last + 1));
                writer.close(element);
            }
        }
        writer.close(list);
    }
}

/// The timeout of a change, seconds; `None` if it takes the element away.
fn seconds(change: &Change) -> Option<u32> {
    match change {
        Change::Add(element) => Some(element.seconds_left).filter(|seconds| *seconds > 0),
        Change::Remove(_) => None,
    }
}

/// Appends one or more messages with these elements.
fn list(writer: &mut Writer, table: &str, id: SetId, kind: u16, changes: &[&Change]) {
    let mut changes = changes.iter().peekable();
    while changes.peek().is_some() {
        writer.message(
            kind,
            if kind == NFT_MSG_NEWSETELEM {
                NLM_F_CREATE
            } else {
                0
            },
        );
        writer.text(NFTA_SET_ELEM_LIST_TABLE, table);
        writer.text(NFTA_SET_ELEM_LIST_SET, &id.to_string());
        let list = writer.nest(NFTA_SET_ELEM_LIST_ELEMENTS);
        while writer.nest_len(&list) < LIST_BYTES {
            let Some(change) = changes.next() else { break };
            let element = writer.nest(NFTA_LIST_ELEM);
            if kind == NFT_MSG_NEWSETELEM {
                // An element that is only added to be deleted gets a timeout too: should anything go
                // wrong, nothing stays without an end.
                let milliseconds = u64::from(seconds(change).unwrap_or(1)) * 1000;
                writer.be64(NFTA_SET_ELEM_TIMEOUT, milliseconds);
                // Linux 6.12 restarts the clock of an existing element for this attribute only.
                writer.be64(NFTA_SET_ELEM_EXPIRATION, milliseconds);
            }
            key(writer, &change.subnet());
            writer.close(element);
        }
        writer.close(list);
    }
}

fn key(writer: &mut Writer, subnet: &Subnet) {
    match subnet.address() {
        IpAddr::V4(ip) => data(writer, NFTA_SET_ELEM_KEY, &ip.octets()),
        IpAddr::V6(ip) => data(writer, NFTA_SET_ELEM_KEY, &ip.octets()),
    }
}

/// True if the set holds this element.
pub fn contains(
    socket: &mut Socket,
    table: &str,
    id: SetId,
    subnet: &Subnet,
) -> Result<bool, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETSETELEM, 0);
    writer.text(NFTA_SET_ELEM_LIST_TABLE, table);
    writer.text(NFTA_SET_ELEM_LIST_SET, &id.to_string());
    let list = writer.nest(NFTA_SET_ELEM_LIST_ELEMENTS);
    let element = writer.nest(NFTA_LIST_ELEM);
    key(&mut writer, subnet);
    writer.close(element);
    writer.close(list);
    match socket.ask(&writer, |_| {}) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        // Kernels before 4.15 only list whole sets: not worth it for a check.
        Err(Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Appends a message that empties a set.
pub fn flush(writer: &mut Writer, table: &str, id: SetId) {
    writer.message(NFT_MSG_DELSETELEM, 0);
    writer.text(NFTA_SET_ELEM_LIST_TABLE, table);
    writer.text(NFTA_SET_ELEM_LIST_SET, &id.to_string());
}

#[cfg(test)]
mod tests {
    use super::super::wire::messages;
    use super::*;
    use crate::firewall::Element;

    #[test]
    fn kernels_that_update_timeouts() {
        for new in ["6.12.0", "6.18.44-x", "7.0", "10.1.1-rc1"] {
            assert_eq!(Rearm::of_release(new), Rearm::Update, "{new}");
        }
        for old in ["6.11.9", "5.10.0-30-amd64", "4.19", "", "x"] {
            assert_eq!(Rearm::of_release(old), Rearm::Replace, "{old}");
        }
    }

    #[test]
    fn lists_stay_below_64_kib() {
        let changes: Vec<_> = (0..5000u128)
            .map(|n| {
                let ip = IpAddr::V6((n << 64 | 0x2001 << 112).into());
                Change::Add(Element {
                    subnet: Subnet::new(ip, 64).unwrap(),
                    seconds_left: 60,
                    hits: 0,
                })
            })
            .collect();
        let mut writer = Writer::new(1, NFPROTO_INET);
        write(&mut writer, "apiban", &changes, Rearm::Update);
        let mut count = 0;
        for message in messages(writer.bytes()) {
            assert!(message.payload.len() < 62_000);
            count += message.attrs().inside(NFTA_SET_ELEM_LIST_ELEMENTS).count();
        }
        assert_eq!(count, 5000);
    }

    #[test]
    fn removal_and_old_kernels_take_more_messages() {
        let add = |left| {
            Change::Add(Element {
                subnet: "192.0.2.1".parse().unwrap(),
                seconds_left: left,
                hits: 0,
            })
        };
        let kinds = |change, rearm| {
            let mut writer = Writer::new(1, NFPROTO_INET);
            write(&mut writer, "apiban", &[change], rearm);
            messages(writer.bytes())
                .map(|message| message.kind & 0xff)
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(add(5), Rearm::Update), [12]);
        assert_eq!(kinds(add(5), Rearm::Replace), [12, 14, 12]);
        assert_eq!(kinds(add(0), Rearm::Update), [12, 14]);
    }
}
