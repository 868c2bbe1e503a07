//! Every place of one entry, for the operations that change all of them.
//!
//! Two writers that race may leave an entry twice (see [`super::hosts`]). An operation on all copies looks for
//! all of them first, and only then changes one after the other, the farthest first. It never looks again:
//! what it would find then may be an entry that somebody placed after a removal had been seen.

use super::buckets::Buckets;
use super::slot::Slot;

/// One place of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Copied<T> {
    /// Where it stands.
    pub slot: Slot,
    /// How many buckets beyond its home.
    pub distance: usize,
    /// What was read there.
    pub seen: T,
}

impl Buckets {
    /// All places of the entry that has this hash, the farthest first. `slots` are those of a bucket; `read` returns
    /// the content of a slot that holds the entry.
    pub fn copies<T, S: Iterator<Item = Slot>>(
        &self,
        hash: u64,
        slots: impl Fn(usize) -> S,
        read: impl Fn(Slot) -> Option<T>,
    ) -> impl Iterator<Item = Copied<T>> {
        let mut copies = Vec::new();
        self.search(hash, |bucket, distance| {
            copies.extend(slots(bucket).filter_map(|slot| {
                read(slot).map(|seen| Copied {
                    slot,
                    distance,
                    seen,
                })
            }));
            None::<()>
        });
        copies.into_iter().rev()
    }
}
