//! Whose packets the socket filter dropped. The kernel counts the drops of a socket, not those of a ban. But one
//! packet in some hundred is let through and met by `apiban_check()`, which counts it for its ban: of what was
//! dropped, each ban gets a share in proportion to its packets that came through.

use std::collections::HashMap;

use crate::address::Subnet;
use crate::firewall::socket_filter::compile::SAMPLE;
use crate::shared::origin::Origin;
use crate::shared::Shared;
use crate::table::Found;

/// Dropped packets for each one that comes through, on average.
const PER_SAMPLE: u64 = SAMPLE as u64 - 1;

/// What is known of drops and hits so far.
#[derive(Default)]
pub struct Estimate {
    /// The count of drops at the last look.
    dropped: u64,
    /// Drops that no ban got yet.
    left: u64,
    /// The hits of each ban in the filter at the last look.
    seen: HashMap<(Origin, Subnet), u32>,
}

impl Estimate {
    /// Takes a look: `dropped` is the count of drops, `held` the bans in the filter. Adds to the hits of each ban
    /// what its packets since the last look stand for. All shares together are never more than what was dropped.
    pub fn follow(&mut self, shared: &Shared, held: &[Subnet], dropped: u64) {
        self.left += dropped.saturating_sub(self.dropped);
        self.dropped = dropped;
        let before = std::mem::take(&mut self.seen);
        let mut came: Vec<(Origin, Subnet, Found, u64)> = Vec::new();
        for (origin, table) in shared.tables() {
            if table.is_empty() {
                continue;
            }
            for subnet in held {
                let Some(found) = table.find(*subnet) else {
                    continue;
                };
                let hits = table.hits(found);
                self.seen.insert((origin, *subnet), hits);
                // Fewer than before: lifted and banned anew. Unknown: it was not in the filter all the time.
                let new = before
                    .get(&(origin, *subnet))
                    .map_or(0, |seen| hits.saturating_sub(*seen));
                if new > 0 {
                    came.push((origin, *subnet, found, u64::from(new)));
                }
            }
        }
        let samples: u64 = came.iter().map(|(.., new)| new).sum();
        if samples == 0 {
            return;
        }
        let shared_out = self.left.min(samples * PER_SAMPLE);
        for (origin, subnet, found, new) in came {
            // Below 2^32 * 2^32, so no overflow: `new` is a part of `samples`.
            let share = u128::from(shared_out) * u128::from(new) / u128::from(samples);
            // Not above `shared_out`.
            let share = share as u64;
            let table = shared.table(origin);
            table.add_hits(found, share);
            self.seen.insert((origin, subnet), table.hits(found));
            self.left -= share;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::memory::HeapArena;

    #[test]
    fn drops_are_shared_out_by_what_came_through() {
        let shared = Shared::new(&mut HeapArena, &Config::default(), 1).unwrap();
        let bans: Vec<Subnet> = ["192.0.2.1", "192.0.2.2", "2001:db8::/64"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        shared.feed.insert(bans[0], 2000, 1000, "");
        shared.local.insert(bans[1], 2000, 1000, "");
        shared.peer.insert(bans[2], 2000, 1000, "");
        let tables = [&shared.feed, &shared.local, &shared.peer];
        let hits = || [0, 1, 2].map(|n| tables[n].hits(tables[n].find(bans[n]).unwrap()));
        let meet = |n: usize, times: u32| {
            let found = tables[n].find(bans[n]).unwrap();
            (0..times).for_each(|_| tables[n].hit(found));
        };
        let mut estimate = Estimate::default();
        // What came before the filter counts for itself.
        meet(0, 7);
        estimate.follow(&shared, &bans, 0);
        assert_eq!(hits(), [7, 0, 0]);
        meet(0, 3);
        meet(2, 1);
        estimate.follow(&shared, &bans, 1_000);
        assert_eq!(hits(), [7 + 3 + 750, 0, 1 + 250]);
        // More came through than drops explain: those who connect by TCP, say.
        meet(1, 50);
        estimate.follow(&shared, &bans, 1_010);
        assert_eq!(hits(), [760, 60, 251]);
        // Drops without a sample wait for one; no packet stands for more than its share.
        estimate.follow(&shared, &bans, 5_000);
        assert_eq!(hits(), [760, 60, 251]);
        meet(1, 1);
        estimate.follow(&shared, &bans, 5_000);
        assert_eq!(hits(), [760, 61 + 255, 251]);
        // Lifted and banned anew; and out of the filter for a while.
        shared.local.remove(bans[1]);
        shared.local.insert(bans[1], 2000, 1000, "");
        meet(1, 9);
        estimate.follow(&shared, &bans[1..2], 6_000);
        meet(0, 5);
        estimate.follow(&shared, &bans, 6_000);
        assert_eq!(hits(), [765, 9, 251]);
    }
}
