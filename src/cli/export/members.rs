//! What a device has now: an earlier export, or the device's own listing of the group.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Format;

/// The members of a list on a device.
#[derive(Debug, Default)]
pub struct Previous(BTreeSet<IpNet>);

impl Previous {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The members.
    pub fn members(&self) -> &BTreeSet<IpNet> {
        &self.0
    }
}

/// Reads the members back. Lines of another kind are passed over; a line that begins with `no` takes its
/// member away, so that exports with differences can be appended to one another.
pub fn read(format: Format, text: &str) -> Previous {
    let mut members = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (gone, member) = match format {
            Format::Routeros => (words.contains(&"remove"), routeros(&words)),
            _ => match words.split_first() {
                Some((&"no", rest)) => (true, cisco(rest)),
                _ => (false, cisco(&words)),
            },
        };
        if let Some(member) = member {
            if gone {
                members.remove(&member);
            } else {
                members.insert(member);
            }
        }
    }
    Previous(members)
}

/// `[network-object] host A`, `[network-object] NET MASK`, `[network-object] V6/LENGTH`.
fn cisco(words: &[&str]) -> Option<IpNet> {
    let words = match words {
        ["network-object", rest @ ..] => rest,
        // IOS numbers its lines in listings.
        [number, rest @ ..] if number.bytes().all(|b| b.is_ascii_digit()) => rest,
        words => words,
    };
    match words {
        ["host", ip] => ip.parse::<IpAddr>().ok().map(IpNet::from),
        [net, mask] => {
            let (net, mask): (IpAddr, IpAddr) = (net.parse().ok()?, mask.parse().ok()?);
            IpNet::with_netmask(net, mask).ok().map(|net| net.trunc())
        }
        [net] => net.parse::<IpNet>().ok().map(|net| net.trunc()),
        _ => None,
    }
}

/// `address=A` or `address=A/LENGTH` anywhere in the line.
fn routeros(words: &[&str]) -> Option<IpNet> {
    let value = words
        .iter()
        .find_map(|word| word.strip_prefix("address="))?;
    let value = value.trim_end_matches(']').trim_matches('"');
    value
        .parse::<IpNet>()
        .or_else(|_| value.parse::<IpAddr>().map(IpNet::from))
        .ok()
        .map(|net| net.trunc())
}
