//! The hot path: is this address banned, and by whom?

use std::net::{IpAddr, Ipv4Addr};

use crate::config::Mode;
use crate::shared::counters::{Counter, ProcessCounters};
use crate::shared::Shared;

/// What a check found; the number is the return code of `apiban_check()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Verdict {
    /// The service lists it.
    Feed = 1,
    /// It is banned here.
    Local = 2,
    /// A node of the cluster banned it.
    Peer = 3,
    /// Not banned.
    Clear = -1,
    /// Never banned.
    Trusted = -2,
}

impl Verdict {
    /// The return code of `apiban_check()`; where bans are only observed nobody is banned.
    #[inline]
    pub fn code(self, mode: Mode) -> i32 {
        if mode == Mode::Observe && self as i32 > 0 {
            return Verdict::Clear as i32;
        }
        self as i32
    }

    #[inline(always)]
    fn counter(self) -> Counter {
        match self {
            Verdict::Feed => Counter::BlockedFeed,
            Verdict::Local => Counter::BlockedLocal,
            Verdict::Peer => Counter::BlockedPeer,
            Verdict::Clear => Counter::Clear,
            Verdict::Trusted => Counter::TrustedChecks,
        }
    }
}

/// Looks `ip` up and counts. No lock, no allocation, no system call: one cache line of each table that
/// holds anything.
pub fn check(shared: &Shared, counters: ProcessCounters, ip: IpAddr) -> Verdict {
    match ip.to_canonical() {
        IpAddr::V4(v4) => check_v4(shared, counters, v4),
        v6 => counted(counters, look_up(shared, v6)),
    }
}

/// [`check`] of an IPv4 address.
#[inline(never)]
pub fn check_v4(shared: &Shared, counters: ProcessCounters, ip: Ipv4Addr) -> Verdict {
    counted(counters, look_up(shared, IpAddr::V4(ip)))
}

#[inline(always)]
fn counted(counters: ProcessCounters, verdict: Verdict) -> Verdict {
    counters.add(verdict.counter());
    verdict
}

/// What [`check_v4`] says and counts, where one line of each table tells; else `None`, and nothing was
/// counted: so too where there is no `counters`. It becomes part of the caller's code, and keeps the address in a
/// register and as few others as it can.
#[inline(always)]
pub fn check_fast(
    shared: &Shared,
    counters: impl Fn() -> Option<ProcessCounters>,
    ip: Ipv4Addr,
) -> Option<Verdict> {
    if shared.trust.may_have(IpAddr::V4(ip)) || !shared.peer.is_empty() {
        return None;
    }
    for (table, verdict) in [
        (&shared.feed, Verdict::Feed),
        (&shared.local, Verdict::Local),
    ] {
        if let Some(found) = table.lookup_fast(ip.to_bits(), || shared.now()).ok()? {
            let counters = counters()?;
            table.hit(found);
            return Some(counted(counters, verdict));
        }
    }
    Some(counted(counters()?, Verdict::Clear))
}

/// Made for each family by itself, so that the tables need not ask.
#[inline(always)]
fn look_up(shared: &Shared, ip: IpAddr) -> Verdict {
    if shared.trust.rule(ip).is_some() {
        return Verdict::Trusted;
    }
    let now = shared.now();
    for (table, verdict) in [
        (&shared.feed, Verdict::Feed),
        (&shared.local, Verdict::Local),
        (&shared.peer, Verdict::Peer),
    ] {
        if let Some(found) = table.lookup(ip, now) {
            table.hit(found);
            return verdict;
        }
    }
    Verdict::Clear
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::memory::HeapArena;
    use crate::trust;

    #[test]
    fn feed_first_then_local_then_peer_and_trust_wins() {
        let shared = Shared::new(&mut HeapArena, &Config::default(), 1).unwrap();
        shared.set_now(1000);
        let subnet = "192.0.2.7".parse().unwrap();
        let v4: Ipv4Addr = "192.0.2.7".parse().unwrap();
        // The glance where it knows, as the module does.
        let look = || {
            let counters = shared.counters.of_process(3);
            check_fast(&shared, || Some(counters), v4)
                .unwrap_or_else(|| check_v4(&shared, counters, v4))
        };
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
        let sums = Counter::CHECKS.map(|counter| shared.counters.sum(counter));
        assert_eq!(sums, [1, 1, 2, 1, 1]);
        assert_eq!(shared.counters.checks(), 6);
        assert_eq!(
            shared
                .local
                .entry(shared.local.find(subnet).unwrap())
                .unwrap()
                .hits,
            2
        );
    }

    /// Crowded tables, prefixes, trust and peers: whatever a glance says is what the whole check says.
    #[test]
    fn a_glance_never_contradicts() {
        let config = Config {
            max_feed_entries: 300,
            ..Config::default()
        };
        let shared = Shared::new(&mut HeapArena, &config, 5).unwrap();
        shared.set_now(1000);
        let address =
            |n: u32| Ipv4Addr::from_bits(0xc000_0200 + n.wrapping_mul(0x9e37_79b1) % 5_000);
        let host = |n| crate::address::Subnet::host(IpAddr::V4(address(n)));
        let glances = || {
            let mut seen = 0;
            for n in 0..5_000 {
                let counters = shared.counters.of_process(1);
                if let Some(verdict) = check_fast(&shared, || Some(counters), address(n)) {
                    assert_eq!(verdict, check_v4(&shared, counters, address(n)), "{n}");
                    seen += 1;
                }
            }
            seen
        };
        assert_eq!(glances(), 5_000);
        for n in 0..300 {
            shared.feed.insert(host(n), 990 + n % 20, 900, "");
        }
        assert!(glances() > 4_000, "one line mostly tells");
        for n in 200..400 {
            shared.local.insert(host(n), 2000, 900, "");
        }
        assert!(glances() > 4_000);
        shared
            .local
            .insert("192.0.4.0/24".parse().unwrap(), 2000, 900, "");
        assert!(glances() < 1_000, "only who is listed is told at once");
        let trusted = trust::parse_parameter("192.0.3.0/24").unwrap();
        shared.trust.replace(&trusted).unwrap();
        assert_eq!(glances(), 0, "their region holds a trusted address");
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
