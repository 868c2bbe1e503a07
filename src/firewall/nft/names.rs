//! Which kernel set holds what.
//!
//! Addresses live in hash sets, one per family and [`Set`]. Prefixes live in hash sets too, one per
//! prefix length, made when the first prefix of that length comes, and looked up by the masked source
//! address (`ip saddr & 255.255.255.0 @local4_24`). Interval sets were not taken: overlapping prefixes
//! conflict there (`EEXIST`) unless the set merges them, and then a prefix cannot be taken out again;
//! a hash per length holds 65,536 prefixes of /64 as cheaply as addresses.

use std::fmt;

use crate::address::Subnet;
use crate::firewall::Set;

/// One kernel set: `local4`, `feed6`, `local6_64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId {
    /// Which bans.
    pub set: Set,
    /// True for IPv4.
    pub v4: bool,
    /// Prefix length, 0 to 32 or 0 to 128; the full length for addresses.
    pub length: u8,
}

impl SetId {
    /// The set that holds `subnet`.
    pub fn of(set: Set, subnet: &Subnet) -> Self {
        SetId {
            set,
            v4: subnet.is_v4(),
            length: subnet.prefix_len(),
        }
    }

    /// The four sets for addresses: they are always there.
    pub fn base() -> impl Iterator<Item = SetId> {
        Set::ALL.into_iter().flat_map(|set| {
            [(true, 32), (false, 128)]
                .into_iter()
                .map(move |(v4, length)| SetId { set, v4, length })
        })
    }

    /// Bits of an address of this family.
    pub fn address_bits(&self) -> u8 {
        if self.v4 {
            32
        } else {
            128
        }
    }

    /// True where the set holds addresses, not prefixes.
    pub fn is_host(&self) -> bool {
        self.length == self.address_bits()
    }

    /// The netmask in network order.
    pub fn mask(&self) -> Vec<u8> {
        let bits = usize::from(self.length);
        (0..usize::from(self.address_bits()) / 8)
            .map(|byte| match bits.saturating_sub(byte * 8) {
                0 => 0,
                left @ 1..=7 => !(0xff >> left),
                _ => 0xff,
            })
            .collect()
    }

    /// Reads a set name back; `None` for names that are not ours.
    pub fn parse(name: &str) -> Option<Self> {
        Set::ALL.into_iter().find_map(|set| {
            let rest = name.strip_prefix(set.name())?;
            let (v4, rest) = match rest.split_at_checked(1)? {
                ("4", rest) => (true, rest),
                ("6", rest) => (false, rest),
                _ => return None,
            };
            let full = if v4 { 32 } else { 128 };
            let length = match rest.strip_prefix('_') {
                Some(length) => length.parse().ok().filter(|length| *length < full)?,
                None => full,
            };
            let id = SetId { set, v4, length };
            (id.to_string() == name).then_some(id)
        })
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v4 { '4' } else { '6' };
        write!(f, "{}{family}", self.set.name())?;
        if self.is_host() {
            Ok(())
        } else {
            write!(f, "_{}", self.length)
        }
    }
}

/// True for a table name that nft itself can write back: a letter, then letters, digits, `_`, `-` or
/// `.`, at most 64 in all (the kernel allows 255).
pub fn is_table_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        let subnet: Subnet = "2001:db8::/64".parse().unwrap();
        let id = SetId::of(Set::Local, &subnet);
        assert_eq!(id.to_string(), "local6_64");
        assert_eq!(SetId::parse("local6_64"), Some(id));
        let base: Vec<_> = SetId::base().map(|id| id.to_string()).collect();
        assert_eq!(base, ["local4", "local6", "feed4", "feed6"]);
        for foreign in [
            "",
            "local",
            "local5",
            "local4_32",
            "local4_024",
            "feed6_129",
            "feed4x",
            "fééd4",
        ] {
            assert_eq!(SetId::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn masks() {
        let mask = |text: &str| SetId::of(Set::Feed, &text.parse().unwrap()).mask();
        assert_eq!(mask("192.0.2.0/24"), [255, 255, 255, 0]);
        assert_eq!(mask("192.0.2.0/17"), [255, 255, 128, 0]);
        assert_eq!(mask("192.0.2.1"), [255; 4]);
        assert_eq!(mask("2001:db8::/33")[..6], [255, 255, 255, 255, 128, 0]);
    }

    #[test]
    fn table_names() {
        for good in ["apiban", "a", "SIP-bans_2.x"] {
            assert!(is_table_name(good), "{good}");
        }
        for bad in ["", "1a", "a b", "a;b", "a\"b", "-a", &"a".repeat(65), "ä"] {
            assert!(!is_table_name(bad), "{bad}");
        }
    }
}
