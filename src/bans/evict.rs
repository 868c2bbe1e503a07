//! Takes out of the ban tables what has become trusted.

use crate::address::Subnet;
use crate::info;
use crate::memory::{fence, Ordering};
use crate::shared::Shared;

/// Bans lifted for trust that are logged by name at a time.
const MOST_NAMED: usize = 20;

/// Removes from every table what is trusted by now; returns what was removed.
pub fn evict_trusted(shared: &Shared) -> Vec<Subnet> {
    // Pairs with the fence in `ban`: a ban that is placed now sees the rules, or is seen here.
    fence(Ordering::SeqCst);
    let mut evicted = Vec::new();
    for table in [&shared.feed, &shared.local, &shared.peer] {
        table.retain(|subnet, _| {
            let spared = shared.trust.spares(subnet);
            if let Some(rule) = spared {
                if evicted.len() < MOST_NAMED {
                    info!("{subnet} is no longer banned: {rule}");
                }
                evicted.push(subnet);
            }
            spared.is_none()
        });
    }
    if evicted.len() > MOST_NAMED {
        let more = evicted.len() - MOST_NAMED;
        info!("{more} more are no longer banned: they are trusted now");
    }
    evicted
}
