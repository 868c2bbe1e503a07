//! The hot path: is this address banned, and by whom?

use std::net::IpAddr;

use crate::config::Mode;
use crate::shared::counters::{Counter, Lane};
use crate::shared::Shared;
use crate::table::{Found, Table};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The service lists it.
    Feed,
    /// It is banned here.
    Local,
    /// A node of the cluster banned it.
    Peer,
    /// Not banned.
    Clear,
    /// Never banned.
    Trusted,
}

impl Verdict {
    /// The return code of `apiban_check()`; where bans are only observed nobody is banned.
    #[inline]
    pub fn code(self, mode: Mode) -> i32 {
        match (self, mode) {
            (Verdict::Trusted, _) => -2,
            (Verdict::Clear, _) | (_, Mode::Observe) => -1,
            (Verdict::Feed, _) => 1,
            (Verdict::Local, _) => 2,
            (Verdict::Peer, _) => 3,
        }
    }
}

/// Looks `ip` up and counts. No lock, no allocation, no system call: one cache line of each table that
/// holds anything.
#[inline]
pub fn check(shared: &Shared, lane: Lane, ip: IpAddr) -> Verdict {
    lane.add(Counter::Checks);
    let now = shared.now();
    let trusted = shared.trust.rule(ip).is_some();
    if trusted {
        lane.add(Counter::TrustedSkips);
        return Verdict::Trusted;
    }
    if let Some(found) = shared.feed.lookup(ip, now) {
        return blocked(
            &shared.feed,
            found,
            lane,
            Counter::BlockedFeed,
            Verdict::Feed,
        );
    }
    if let Some(found) = shared.local.lookup(ip, now) {
        return blocked(
            &shared.local,
            found,
            lane,
            Counter::BlockedLocal,
            Verdict::Local,
        );
    }
    if let Some(found) = shared.peer.lookup(ip, now) {
        return blocked(
            &shared.peer,
            found,
            lane,
            Counter::BlockedPeer,
            Verdict::Peer,
        );
    }
    Verdict::Clear
}

fn blocked(table: &Table, found: Found, lane: Lane, counter: Counter, verdict: Verdict) -> Verdict {
    table.hit(found);
    lane.add(counter);
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::table::atomic::HeapArena;
    use crate::trust;

    #[test]
    fn feed_first_then_local_then_peer_and_trust_wins() {
        let shared = Shared::new(&mut HeapArena, &Config::default(), 1).unwrap();
        shared.set_now(1000);
        let subnet = "192.0.2.7".parse().unwrap();
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        let look = || check(&shared, shared.counters.lane(3), ip);
        assert_eq!(look(), Verdict::Clear);
        shared.peer.insert(subnet, 1010, 1000, "");
        assert_eq!(look(), Verdict::Peer);
        shared.local.insert(subnet, 1010, 1000, "");
        assert_eq!(look(), Verdict::Local);
        shared.feed.insert(subnet, 1005, 1000, "");
        assert_eq!(look(), Verdict::Feed);
        shared.set_now(1005);
        assert_eq!(look(), Verdict::Local);
        shared
            .trust
            .replace(&trust::parse_parameter("192.0.2.0/28").unwrap())
            .unwrap();
        assert_eq!(look(), Verdict::Trusted);
        let sums = [
            Counter::Checks,
            Counter::BlockedFeed,
            Counter::BlockedLocal,
            Counter::BlockedPeer,
            Counter::TrustedSkips,
        ]
        .map(|counter| shared.counters.sum(counter));
        assert_eq!(sums, [6, 1, 2, 1, 1]);
        assert_eq!(
            shared
                .local
                .entry(shared.local.find(subnet).unwrap())
                .unwrap()
                .hits,
            2
        );
    }

    #[test]
    fn codes_of_the_contract() {
        let codes = |mode| {
            [
                Verdict::Feed,
                Verdict::Local,
                Verdict::Peer,
                Verdict::Clear,
                Verdict::Trusted,
            ]
            .map(|v| v.code(mode))
        };
        assert_eq!(codes(Mode::Enforce), [1, 2, 3, -1, -2]);
        assert_eq!(codes(Mode::Observe), [-1, -1, -1, -1, -2]);
    }
}
