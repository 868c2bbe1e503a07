//! How many new addresses the script may ban in this minute, over all workers.

use crate::clock::UnixSeconds;
use crate::memory::{Arena, Line, Ordering, OutOfMemory};

/// The minute in the high half, what was spent in it in the low half.
#[derive(Clone, Copy)]
pub struct Budget {
    line: &'static Line,
}

impl Budget {
    /// Nothing spent.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        Ok(Budget {
            line: &arena.lines("the block budget", 1)?[0],
        })
    }

    /// Spends one of `limit` a minute; 0 is no limit. False where all are spent.
    pub fn spend(&self, now: UnixSeconds, limit: u32) -> bool {
        if limit == 0 {
            return true;
        }
        let minute = u64::from(now.minute());
        self.line[0]
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| match word {
                _ if word >> 32 != minute => Some(minute << 32 | 1),
                _ if word as u32 >= limit => None,
                _ => Some(word + 1),
            })
            .is_ok()
    }

    /// True if nothing is left of this minute's `limit`.
    pub fn is_spent(&self, now: UnixSeconds, limit: u32) -> bool {
        let word = self.line[0].load(Ordering::Acquire);
        limit != 0 && word >> 32 == u64::from(now.minute()) && word as u32 >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    #[test]
    fn a_minute_has_its_limit() {
        let budget = Budget::new(&mut HeapArena).unwrap();
        let spent = |now| {
            (0..5)
                .filter(|_| budget.spend(UnixSeconds::new(now), 3))
                .count()
        };
        assert_eq!((spent(120), spent(179), spent(180)), (3, 0, 3));
        assert!((0..100).all(|_| budget.spend(UnixSeconds::new(180), 0)));
    }
}
