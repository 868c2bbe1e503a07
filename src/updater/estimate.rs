//! Whose packets the socket filter dropped. The kernel counts the drops of a socket, not those of a ban. But one
//! packet in some hundred is let through and met by `apiban_check()`, which counts it for its ban: of what was
//! dropped, each ban gets a share in proportion to its packets that came through.

use std::collections::HashMap;

use crate::address::Subnet;
use crate::firewall::socket_filter::Programs;
use crate::shared::origin::Origin;
use crate::shared::Shared;
use crate::table::Found;

/// What is known of drops and hits so far.
#[derive(Default)]
pub struct Estimate {
    /// The count of drops at the last look.
    dropped: u64,
    /// Drops that no ban got yet.
    left: u64,
    /// One packet in so many came through at the last look.
    one_in: u32,
    /// The hits of each ban in the filter at the last look.
    seen: HashMap<(Origin, Subnet), u32>,
}

impl Estimate {
    /// Takes a look: `dropped` is the count of drops, `held` what is in the filter. Adds to the hits of each ban
    /// what its packets since the last look stand for. All shares together are never more than what was dropped.
    pub fn follow(&mut self, shared: &Shared, held: &Programs, dropped: u64) {
        self.left += dropped.saturating_sub(self.dropped);
        self.dropped = dropped;
        let before = std::mem::take(&mut self.seen);
        // Packets since the last look came through either program.
        let one_in = held
            .one_in
            .max(std::mem::replace(&mut self.one_in, held.one_in));
        let per_sample = u64::from(one_in.saturating_sub(1));
        let mut came: Vec<(Origin, Subnet, Found, u64)> = Vec::new();
        for (origin, table) in shared.tables() {
            if table.is_empty() {
                continue;
            }
            for subnet in &held.bans {
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
        let shared_out = self.left.min(samples * per_sample);
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
    use crate::clock::simulated::at;
    use crate::config::Config;
    use crate::firewall::socket_filter::sample::{OFTEN, SELDOM};
    use crate::memory::HeapArena;

    fn programs(bans: &[Subnet], one_in: u32) -> Programs {
        Programs {
            bans: bans.to_vec(),
            one_in,
        }
    }

    fn often(bans: &[Subnet]) -> Programs {
        programs(bans, OFTEN)
    }

    #[test]
    fn drops_are_shared_out_by_what_came_through() {
        let shared = Shared::new(&mut HeapArena, &Config::default(), 1).unwrap();
        let bans: Vec<Subnet> = ["192.0.2.1", "192.0.2.2", "2001:db8::/64"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        shared.feed.insert(bans[0], at(2000), at(1000), "");
        shared.local.insert(bans[1], at(2000), at(1000), "");
        shared.peer.insert(bans[2], at(2000), at(1000), "");
        let tables = [&shared.feed, &shared.local, &shared.peer];
        let hits = || [0, 1, 2].map(|n| tables[n].hits(tables[n].find(bans[n]).unwrap()));
        let meet = |n: usize, times: u32| {
            let found = tables[n].find(bans[n]).unwrap();
            (0..times).for_each(|_| tables[n].hit(found));
        };
        let mut estimate = Estimate::default();
        // What came before the filter counts for itself.
        meet(0, 7);
        estimate.follow(&shared, &often(&bans), 0);
        assert_eq!(hits(), [7, 0, 0]);
        meet(0, 3);
        meet(2, 1);
        estimate.follow(&shared, &often(&bans), 1_000);
        assert_eq!(hits(), [7 + 3 + 750, 0, 1 + 250]);
        // More came through than drops explain: those who connect by TCP, say.
        meet(1, 50);
        estimate.follow(&shared, &often(&bans), 1_010);
        assert_eq!(hits(), [760, 60, 251]);
        // Drops without a sample wait for one; no packet stands for more than its share.
        estimate.follow(&shared, &often(&bans), 5_000);
        assert_eq!(hits(), [760, 60, 251]);
        meet(1, 1);
        estimate.follow(&shared, &often(&bans), 5_000);
        assert_eq!(hits(), [760, 61 + 255, 251]);
        // Lifted and banned anew; and out of the filter for a while.
        shared.local.remove(bans[1]);
        shared.local.insert(bans[1], at(2000), at(1000), "");
        meet(1, 9);
        estimate.follow(&shared, &often(&bans[1..2]), 6_000);
        meet(0, 5);
        estimate.follow(&shared, &often(&bans), 6_000);
        assert_eq!(hits(), [765, 9, 251]);
        // In a flood each stands for more; so do those that came while the rate changed back.
        estimate.follow(&shared, &often(&bans), 10_000);
        estimate.follow(&shared, &programs(&bans, SELDOM), 60_000);
        meet(2, 2);
        estimate.follow(&shared, &programs(&bans, SELDOM), 90_000);
        let largest = u64::from(SELDOM) * 2 - 2;
        assert_eq!(hits(), [765, 9, 253 + largest as u32]);
        meet(2, 1);
        estimate.follow(&shared, &often(&bans), 90_000);
        assert_eq!(hits()[2], 253 + largest as u32 + SELDOM);
    }
}
