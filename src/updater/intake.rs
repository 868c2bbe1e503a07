//! From pages of the list into the feed's table: the last look before somebody is banned.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::address::Subnet;
use crate::feed::{FeedState, Listed, Status};
use crate::shared::published::{Number, Published, Text};
use crate::shared::Shared;
use crate::table::Inserted;
use crate::trust::Rule;
use crate::{error, info, notice, warning};

/// Refused addresses that are logged by name; of further ones only their number is kept.
const MOST_NAMED: usize = 100;

/// What has been refused so far.
#[derive(Default)]
pub struct Intake {
    named: HashSet<Subnet>,
    full: bool,
}

impl Intake {
    /// Puts entries into the table; an entry that is there gets the later end. `own` is true for addresses that
    /// this server listens on; `changed` is called for each entry that is new or ends later.
    pub fn apply(
        &mut self,
        shared: &Shared,
        listed: &[Listed],
        own: impl Fn(IpAddr) -> bool,
        mut changed: impl FnMut(Subnet),
    ) {
        let (now, offset) = (shared.now(), shared.wall_offset());
        let mut full = 0;
        for &Listed { subnet, end } in listed {
            let end = offset.internal(end);
            if let Some(reason) = refusal(shared, subnet, &own) {
                self.refuse(shared, subnet, &reason);
                if shared.trust.spares(subnet).is_some() {
                    shared.trust.spared().insert(subnet, end, now, "");
                }
                continue;
            }
            // The entry came when it was listed; that is not known better than now.
            match shared.feed.insert(subnet, end, now, "") {
                Inserted::New | Inserted::Extended => changed(subnet),
                Inserted::Kept => {}
                Inserted::Full => full += 1,
            }
        }
        if full > 0 && !self.full {
            let capacity = shared.feed.capacity();
            error!("the feed table is full: max_feed_entries is {capacity}, {full} addresses of this page are not in it");
        }
        self.full = full > 0;
    }

    fn refuse(&mut self, shared: &Shared, subnet: Subnet, reason: &str) {
        let refused = shared.published.number(Number::FeedRefused) + 1;
        shared.published.set_number(Number::FeedRefused, refused);
        if self.named.len() >= MOST_NAMED || !self.named.insert(subnet) {
            return;
        }
        warning!("the list holds {subnet}, which is not banned: {reason}");
        if self.named.len() == MOST_NAMED {
            notice!("further addresses refused are counted, not named");
        }
    }
}

/// Why this entry of the list is not banned.
fn refusal(shared: &Shared, subnet: Subnet, own: &impl Fn(IpAddr) -> bool) -> Option<String> {
    if let Some(reason) = subnet.never_bannable() {
        return Some(reason.to_owned());
    }
    if let Some(rule) = shared.trust.spares(subnet) {
        return Some(rule.to_string());
    }
    if subnet.is_host() && own(subnet.address()) {
        shared.trust.add((subnet, Rule::Own));
        return Some(Rule::Own.to_string());
    }
    None
}

/// Shows the feed's state to RPC and statistics, and logs a change; `entries` are in the feed's table.
pub fn publish(published: &Published, status: &Status, entries: usize) {
    let numbers = [
        (Number::FeedState, status.state as u64),
        (Number::FeedRequests, status.requests),
        (Number::FeedPages, status.pages),
        (Number::FetchOk, status.fetch_ok),
        (Number::FetchErrors, status.fetch_errors),
        (Number::RateLimited, status.rate_limited),
    ];
    let before = published.number(Number::FeedState);
    for (number, value) in numbers {
        published.set_number(number, value);
    }
    published.set_time(Number::FeedLastSuccess, status.last_success);
    published.set_time(Number::FeedNextPoll, status.next_poll);
    published.set_text(
        Text::FeedId,
        status.id.as_ref().map_or("", |id| id.as_str()),
    );
    published.set_text(Text::FeedLastError, &status.last_error);
    published.set_text(Text::FeedWaitingFor, status.waiting_for);
    if before != status.state as u64 {
        match status.state {
            FeedState::Stale => warning!(
                "feed: stale: no success for three poll intervals; {entries} listed addresses stay, \
                 each until its own end"
            ),
            state => info!("feed: {}", state.as_str()),
        }
    }
}
