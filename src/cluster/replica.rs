//! What one node has of another's set, and how both find out what differs.
//!
//! A set is cut into buckets by a hash of the address. Each side adds up a keyed hash of what is in a bucket; where
//! the sums differ, the bucket is sent again. The sum counts only what lives for a while yet and was there when the
//! other side made its sum, so that entries which end, or have just come, make no difference.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::message::{Place, BUCKETS};
use crate::address::Subnet;
use crate::clock::{UnixMillis, UnixSeconds};

/// Entries that end within this time count in no digest.
const NEARLY_ENDED: Duration = Duration::from_secs(30);

/// One entry of a set. Times are those of the node whose set it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// When it ends.
    pub end: UnixSeconds,
    /// When it was made or changed.
    pub stamp: UnixMillis,
    /// What became of it here.
    pub state: State,
}

/// What became of another node's ban here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in force.
    Placed,
    /// The budget or the table has no room for it now.
    Deferred,
    /// Trust, a rule on what may be banned, or the operator speaks against it.
    Refused,
}

/// A set, in the order in which it is sent.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    entries: BTreeMap<Place, Held>,
    /// No entry ends before this.
    earliest: UnixSeconds,
    /// The digests made last, until an entry changes: HELLO says the same to every node.
    last: Cell<Option<Digests>>,
}

/// The digests of a set, as one node made them.
#[derive(Clone, Copy, Debug)]
pub struct Digests {
    /// Keys the hash.
    pub seed: u64,
    /// When they were made, by that node's clock.
    pub time: UnixMillis,
    /// One for each bucket.
    pub sums: [u64; BUCKETS],
}

/// The place of an address in every set.
pub fn place(subnet: Subnet) -> Place {
    let bucket = hash(0, subnet, UnixSeconds::ZERO) % BUCKETS as u64;
    (bucket as u8, subnet)
}

/// A hash that is the same on every machine. It must spread well, and nobody who does not know `seed` may be able
/// to choose entries whose sums agree.
fn hash(seed: u64, subnet: Subnet, end: UnixSeconds) -> u64 {
    let bits = match subnet.address() {
        std::net::IpAddr::V4(ip) => u128::from(ip.to_bits()),
        std::net::IpAddr::V6(ip) => ip.to_bits(),
    };
    let length = u64::from(subnet.prefix_len()) << 1 | u64::from(subnet.is_v4());
    let words = [
        (bits >> 64) as u64,
        bits as u64,
        length << 32 | u64::from(end.get()),
    ];
    words.iter().fold(mix(seed), |state, word| {
        mix(state.rotate_left(23) ^ mix(word.wrapping_add(seed)))
    })
}

/// The finaliser of SplitMix64: every bit of the input changes half of the output.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Replica {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of an address.
    pub fn get(&self, subnet: Subnet) -> Option<&Held> {
        self.entries.get(&place(subnet))
    }

    /// The entry of an address, to change it.
    pub fn get_mut(&mut self, subnet: Subnet) -> Option<&mut Held> {
        self.last.set(None);
        self.entries.get_mut(&place(subnet))
    }

    /// Puts an entry in.
    pub fn insert(&mut self, subnet: Subnet, held: Held) -> Option<Held> {
        self.last.set(None);
        self.earliest = self.earliest.min(held.end);
        self.entries.insert(place(subnet), held)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, subnet: Subnet) -> Option<Held> {
        self.last.set(None);
        self.entries.remove(&place(subnet))
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (Subnet, &Held)> {
        self.entries
            .iter()
            .map(|((_, subnet), held)| (*subnet, held))
    }

    /// Every entry, to change it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Subnet, &mut Held)> {
        self.last.set(None);
        self.entries
            .iter_mut()
            .map(|((_, subnet), held)| (*subnet, held))
    }

    /// Removes what ended at or before `now` of the owner's clock.
    pub fn forget_ended(&mut self, now: UnixSeconds) {
        if now < self.earliest {
            return;
        }
        self.last.set(None);
        let mut earliest = UnixSeconds::MAX;
        self.entries.retain(|_, held| {
            let lives = held.end > now;
            if lives {
                earliest = earliest.min(held.end);
            }
            lives
        });
        self.earliest = earliest;
    }

    /// The entries behind `after`, up to `upto`, in the buckets of `mask`.
    pub fn range(
        &self,
        mask: u32,
        after: Option<Place>,
        upto: Option<Place>,
    ) -> impl Iterator<Item = (Place, &Held)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let end = upto.map_or(Bound::Unbounded, Bound::Included);
        // A range that ends before it begins is empty; the map would panic.
        let turned = matches!((after, upto), (Some(after), Some(upto)) if after >= upto);
        let range = (!turned).then(|| self.entries.range((start, end)));
        range
            .into_iter()
            .flatten()
            .filter(move |((bucket, _), _)| mask >> bucket & 1 != 0)
            .map(|(place, held)| (*place, held))
    }

    /// The digests as of `time` of the owner's clock.
    pub fn digests(&self, seed: u64, time: UnixMillis) -> [u64; BUCKETS] {
        if let Some(last) = self.last.get() {
            if (last.seed, last.time) == (seed, time) {
                return last.sums;
            }
        }
        let mut sums = [0u64; BUCKETS];
        let soon = time.seconds() + NEARLY_ENDED;
        for ((bucket, subnet), held) in &self.entries {
            if held.end > soon && held.stamp <= time {
                let sum = &mut sums[usize::from(*bucket) % BUCKETS];
                *sum = sum.wrapping_add(hash(seed, *subnet, held.end));
            }
        }
        self.last.set(Some(Digests { seed, time, sums }));
        sums
    }

    /// One bit for each bucket in which this differs from what the other side has.
    pub fn differing(&self, theirs: &Digests) -> u32 {
        let ours = self.digests(theirs.seed, theirs.time);
        let pairs = ours.iter().zip(&theirs.sums).enumerate();
        pairs.fold(0, |mask, (bucket, (a, b))| {
            mask | u32::from(a != b) << bucket
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::{at, at_ms};

    fn host(n: u32) -> Subnet {
        Subnet::host(std::net::IpAddr::V4((0xc000_0200 + n).into()))
    }

    fn longer(held: &mut Held) {
        held.end = held.end.shifted(1);
    }

    fn filled(count: u32) -> Replica {
        let mut replica = Replica::default();
        for n in 0..count {
            let held = Held {
                end: at(10_000 + n),
                stamp: at_ms(1_000),
                state: State::Placed,
            };
            replica.insert(host(n), held);
        }
        replica
    }

    fn digests(replica: &Replica) -> Digests {
        let (seed, time) = (99, at_ms(2_000_000));
        Digests {
            seed,
            time,
            sums: replica.digests(seed, time),
        }
    }

    #[test]
    fn a_difference_shows_in_its_bucket_alone() {
        let ours = filled(1000);
        let mut theirs = ours.clone();
        assert_eq!(ours.differing(&digests(&theirs)), 0);
        theirs.remove(host(500));
        assert_eq!(ours.differing(&digests(&theirs)), 1 << place(host(500)).0);
        let held = Held {
            end: at(77_777),
            stamp: at_ms(1),
            state: State::Refused,
        };
        theirs.insert(host(500), held);
        assert_eq!(ours.differing(&digests(&theirs)), 1 << place(host(500)).0);
        // Whatever changes a set changes its digests, though they were made for this moment already.
        let before = digests(&theirs).sums;
        let change: [fn(&mut Replica); 3] = [
            |set| longer(set.get_mut(host(7)).unwrap()),
            |set| set.iter_mut().for_each(|(_, held)| longer(held)),
            |set| set.forget_ended(at(10_100)),
        ];
        for change in change {
            change(&mut theirs);
            assert_ne!(digests(&theirs).sums, before);
        }
    }

    #[test]
    fn what_ends_soon_and_what_came_later_makes_no_difference() {
        let ours = filled(10);
        let mut theirs = ours.clone();
        theirs.insert(
            host(900),
            Held {
                end: at(2_030),
                stamp: at_ms(1),
                state: State::Placed,
            },
        );
        theirs.insert(
            host(901),
            Held {
                end: at(9_999),
                stamp: at_ms(2_000_001),
                state: State::Placed,
            },
        );
        assert_eq!(ours.differing(&digests(&theirs)), 0);
    }

    #[test]
    fn ranges_cover_the_set_once() {
        let replica = filled(1000);
        let mask = 0x0f0f_0f0f;
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let part: Vec<Place> = replica
                .range(mask, after, None)
                .map(|(place, _)| place)
                .take(70)
                .collect();
            let Some(last) = part.last() else { break };
            assert_eq!(replica.range(mask, after, Some(*last)).count(), part.len());
            after = Some(*last);
            seen.extend(part);
        }
        let wanted: Vec<Place> = replica
            .range(mask, None, None)
            .map(|(place, _)| place)
            .collect();
        assert_eq!(seen, wanted);
        assert!(seen.len() > 300 && seen.len() < 700);
        assert_eq!(replica.range(mask, after, Some((0, host(0)))).count(), 0);
    }
}
