//! Removes from the ban tables what has become trusted.

use crate::address::Subnet;
use crate::info;
use crate::memory::{fence, Ordering};
use crate::shared::origin::Origin;
use crate::shared::Shared;

/// Addresses that one call logs by name; of more only the number is logged.
const MOST_NAMED: usize = 20;

/// Removes from every table what is trusted now; returns what was removed. What the service lists is
/// remembered in [`crate::trust::Trust::spared`].
pub fn evict_trusted(shared: &Shared) -> Vec<Subnet> {
    // Pairs with the fence in `block`: a ban that is placed at the same time sees the rules, or is seen here.
    fence(Ordering::SeqCst);
    let mut evicted = Vec::new();
    for (origin, table) in shared.tables() {
        table.retain(|subnet, end| {
            let spared = shared.trust.spares(subnet);
            if let Some(rule) = spared {
                if origin == Origin::Feed {
                    let entry = table.find(subnet).and_then(|found| table.entry(found));
                    let since = entry.map_or(shared.now(), |entry| entry.since);
                    shared.trust.spared().insert(subnet, end, since, "");
                }
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
