//! Which kernel set holds what.
//!
//! Addresses live in a hash set per family. Prefixes live in hash sets too, one per prefix length, made
//! when the first prefix of that length comes, and looked up by the masked source address (`ip saddr &
//! 255.255.255.0 @nets4_24`). Every such set costs every packet a lookup (measured: about 70 ns for IPv4),
//! so their number is limited; prefixes of further lengths share one interval set.

use std::fmt;

use crate::address::Subnet;

/// Sets per family for prefixes of one length.
pub const MOST_NETS: usize = 4;

/// The families of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Both of them.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// Bits of an address.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// Bytes of an address.
    pub fn bytes(self) -> u32 {
        u32::from(self.bits()) / 8
    }
}

/// One kernel set: `hosts4`, `nets6_64`, `ranges4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId {
    /// True for IPv4.
    pub v4: bool,
    /// What is in it.
    pub holds: Holds,
}

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holds {
    /// Single addresses.
    Hosts,
    /// Prefixes of this length.
    Nets(u8),
    /// Prefixes of any length, as disjoint ranges.
    Ranges,
}

impl SetId {
    /// The hash set for this subnet, if there is one for its length.
    pub fn hash_of(subnet: &Subnet) -> Self {
        let holds = match subnet.is_host() {
            true => Holds::Hosts,
            false => Holds::Nets(subnet.prefix_len()),
        };
        SetId {
            v4: subnet.is_v4(),
            holds,
        }
    }

    /// The set of ranges of a family.
    pub fn ranges(v4: bool) -> Self {
        SetId {
            v4,
            holds: Holds::Ranges,
        }
    }

    /// The sets for addresses: they are always there.
    pub fn base() -> impl Iterator<Item = SetId> {
        [true, false].into_iter().map(|v4| SetId {
            v4,
            holds: Holds::Hosts,
        })
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        match self.v4 {
            true => Family::V4,
            false => Family::V6,
        }
    }

    /// The netmask in network order, for a set of prefixes of one length.
    pub fn mask(&self) -> Option<Vec<u8>> {
        let Holds::Nets(length) = self.holds else {
            return None;
        };
        let bits = usize::from(length);
        let mask = (0..self.family().bytes() as usize)
            .map(|byte| match bits.saturating_sub(byte * 8) {
                0 => 0,
                left @ 1..=7 => !(0xff >> left),
                _ => 0xff,
            })
            .collect();
        Some(mask)
    }

    /// The prefix length that most bans of prefixes have: a place is kept for its set.
    fn usual_length(v4: bool) -> u8 {
        if v4 {
            24
        } else {
            64
        }
    }

    /// Reads a set name back; `None` for names that are not ours.
    pub fn parse(name: &str) -> Option<Self> {
        let rest = |kind| name.strip_prefix(kind).map(|rest| (kind, rest));
        let (kind, rest) = rest("hosts").or(rest("nets")).or(rest("ranges"))?;
        let (v4, rest) = match rest.split_at_checked(1)? {
            ("4", rest) => (true, rest),
            ("6", rest) => (false, rest),
            _ => return None,
        };
        let full = if v4 { 32 } else { 128 };
        let holds = match (kind, rest) {
            ("hosts", "") => Holds::Hosts,
            ("ranges", "") => Holds::Ranges,
            ("nets", rest) => {
                let length = rest.strip_prefix('_')?.parse().ok()?;
                Holds::Nets(Some(length).filter(|length| *length < full)?)
            }
            _ => return None,
        };
        let id = SetId { v4, holds };
        (id.to_string() == name).then_some(id)
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v4 { '4' } else { '6' };
        match self.holds {
            Holds::Hosts => write!(f, "hosts{family}"),
            Holds::Nets(length) => write!(f, "nets{family}_{length}"),
            Holds::Ranges => write!(f, "ranges{family}"),
        }
    }
}

/// Where the subnets of a hash set go, given the sets that there are: into that set if it is there or there
/// is room for it, else to the ranges.
pub fn home<'a>(id: SetId, sets: impl Iterator<Item = &'a SetId>) -> SetId {
    let Holds::Nets(length) = id.holds else {
        return id;
    };
    let usual = SetId::usual_length(id.v4);
    let mut others = 0;
    for set in sets.filter(|set| set.v4 == id.v4) {
        match set.holds {
            Holds::Nets(of) if of == length => return id,
            Holds::Nets(of) if of != usual => others += 1,
            _ => {}
        }
    }
    if length == usual || others < MOST_NETS - 1 {
        id
    } else {
        SetId::ranges(id.v4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SetId {
        SetId::hash_of(&text.parse().unwrap())
    }

    #[test]
    fn names_and_back() {
        for (subnet, name) in [
            ("192.0.2.1", "hosts4"),
            ("2001:db8::1", "hosts6"),
            ("192.0.2.0/24", "nets4_24"),
            ("2001:db8::/64", "nets6_64"),
        ] {
            assert_eq!(id(subnet).to_string(), name);
            assert_eq!(SetId::parse(name), Some(id(subnet)));
        }
        assert_eq!(SetId::parse("ranges6"), Some(SetId::ranges(false)));
        for foreign in [
            "",
            "hosts",
            "hosts5",
            "nets4_32",
            "nets4_024",
            "nets6_129",
            "hosts4x",
            "nets4",
            "ranges4_3",
            "local4",
            "hösts4",
        ] {
            assert_eq!(SetId::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn masks() {
        let mask = |text: &str| id(text).mask().unwrap();
        assert_eq!(mask("192.0.2.0/24"), [255, 255, 255, 0]);
        assert_eq!(mask("192.0.2.0/17"), [255, 255, 128, 0]);
        assert_eq!(mask("2001:db8::/33")[..6], [255, 255, 255, 255, 128, 0]);
        assert_eq!(id("192.0.2.1").mask(), None);
    }

    #[test]
    fn only_some_lengths_get_a_set_of_their_own() {
        let mut sets: Vec<SetId> = SetId::base().collect();
        let mut place = |text: &str| {
            let set = home(id(text), sets.iter());
            if !sets.contains(&set) {
                sets.push(set);
            }
            set.to_string()
        };
        assert_eq!(place("10.0.0.0/8"), "nets4_8");
        assert_eq!(place("10.0.0.0/9"), "nets4_9");
        assert_eq!(place("10.0.0.0/10"), "nets4_10");
        assert_eq!(place("10.0.0.0/11"), "ranges4");
        assert_eq!(place("10.0.0.0/24"), "nets4_24", "its place was kept");
        assert_eq!(place("10.1.0.0/16"), "ranges4");
        assert_eq!(place("10.1.0.0/9"), "nets4_9");
        assert_eq!(
            place("2001:db8::/48"),
            "nets6_48",
            "the other family has its own"
        );
    }
}
