//! The hot path: is this address banned, and by whom?

use std::net::{IpAddr, Ipv4Addr};

use crate::shared::counters::{Counter, ProcessCounters};
use crate::shared::origin::Origin;
use crate::shared::Shared;
use crate::trust::Recent;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The address is banned.
    Banned(Origin),
    /// It is not banned.
    Clear,
    /// It is trusted, so never banned.
    Trusted,
}

impl Verdict {
    #[inline(always)]
    fn counter(self) -> Counter {
        match self {
            Verdict::Banned(origin) => Counter::blocked(origin),
            Verdict::Clear => Counter::Clear,
            Verdict::Trusted => Counter::TrustedChecks,
        }
    }
}

/// Looks `ip` up and counts. Takes no lock, allocates nothing, makes no system call, and reads one cache line
/// of each table that is not empty.
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

/// [`check_v4`], which keeps the address in `recent` if it is trusted: the next [`check_fast`] knows it.
pub fn check_and_keep(
    shared: &Shared,
    counters: ProcessCounters,
    recent: &Recent,
    ip: Ipv4Addr,
) -> Verdict {
    let generation = shared.trust.generation();
    let verdict = check_v4(shared, counters, ip);
    if verdict == Verdict::Trusted {
        recent.keep(generation, ip);
    }
    verdict
}

/// Same result as [`check_v4`], or `None` (nothing counted) if neither `recent` nor one cache line of each table
/// decides. Inlined into the caller. The two tables stand here one by one, not in a loop over [`Origin::ALL`]: the
/// compiler then keeps the address in a register and needs few others.
#[inline(always)]
pub fn check_fast(
    shared: &Shared,
    counters: impl Fn() -> ProcessCounters,
    recent: &Recent,
    ip: Ipv4Addr,
) -> Option<Verdict> {
    if shared.trust.may_have(IpAddr::V4(ip)) {
        if !recent.trusts(&shared.trust, ip) {
            return None;
        }
        return Some(counted(counters(), Verdict::Trusted));
    }
    if !shared.peer.is_empty() {
        return None;
    }
    for (table, origin) in [(&shared.feed, Origin::Feed), (&shared.local, Origin::Local)] {
        if let Some(found) = table.lookup_fast(ip.to_bits(), || shared.now()).ok()? {
            table.hit(found);
            return Some(counted(counters(), Verdict::Banned(origin)));
        }
    }
    Some(counted(counters(), Verdict::Clear))
}

/// Compiled once for each address family, so that the tables need no branch for it.
#[inline(always)]
fn look_up(shared: &Shared, ip: IpAddr) -> Verdict {
    if shared.trust.rule(ip).is_some() {
        return Verdict::Trusted;
    }
    let now = shared.now();
    for (origin, table) in shared.tables() {
        if let Some(found) = table.lookup(ip, now) {
            table.hit(found);
            return Verdict::Banned(origin);
        }
    }
    Verdict::Clear
}

/// Counts packets of `source` that the kernel dropped for the ban that covers it: the one that a check would
/// find. A ban that ended meanwhile counts nothing any more.
pub fn dropped_by_kernel(shared: &Shared, source: IpAddr, packets: u64) {
    let now = shared.now();
    let source = source.to_canonical();
    let held = shared
        .tables()
        .into_iter()
        .find_map(|(_, table)| Some((table, table.lookup(source, now)?)));
    if let Some((table, found)) = held {
        table.add_hits(found, packets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::at;
    use crate::config::Config;
    use crate::memory::HeapArena;
    use crate::trust;

    #[test]
    fn feed_first_then_local_then_peer_and_trust_wins() {
        let shared = Shared::new(&mut HeapArena, &Config::default(), 1).unwrap();
        shared.set_now(at(1000));
        let subnet = "192.0.2.7".parse().unwrap();
        let v4: Ipv4Addr = "192.0.2.7".parse().unwrap();
        // First the fast check, as the module does.
        let recent = Recent::new();
        let look = || {
            let counters = shared.counters.of_process(3);
            check_fast(&shared, || counters, &recent, v4)
                .unwrap_or_else(|| check_and_keep(&shared, counters, &recent, v4))
        };
        assert_eq!(look(), Verdict::Clear);
        shared.peer.insert(subnet, at(1010), at(1000), "");
        assert_eq!(look(), Verdict::Banned(Origin::Peer));
        shared.local.insert(subnet, at(1010), at(1000), "");
        assert_eq!(look(), Verdict::Banned(Origin::Local));
        shared.feed.insert(subnet, at(1005), at(1000), "");
        assert_eq!(look(), Verdict::Banned(Origin::Feed));
        shared.set_now(at(1005));
        assert_eq!(look(), Verdict::Banned(Origin::Local));
        shared
            .trust
            .replace(&trust::parse_parameter("192.0.2.0/28").unwrap());
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

    /// With crowded tables, prefixes and trust: every answer of the fast check is that of the whole check.
    #[test]
    fn the_fast_check_never_contradicts() {
        let config = Config {
            max_feed_entries: 300,
            ..Config::default()
        };
        let shared = Shared::new(&mut HeapArena, &config, 5).unwrap();
        shared.set_now(at(1000));
        let address =
            |n: u32| Ipv4Addr::from_bits(0xc000_0200 + n.wrapping_mul(0x9e37_79b1) % 5_000);
        let host = |n| crate::address::Subnet::host(IpAddr::V4(address(n)));
        let answered = || {
            let mut seen = 0;
            for n in 0..5_000 {
                let counters = shared.counters.of_process(1);
                if let Some(verdict) = check_fast(&shared, || counters, &Recent::new(), address(n))
                {
                    assert_eq!(verdict, check_v4(&shared, counters, address(n)), "{n}");
                    seen += 1;
                }
            }
            seen
        };
        assert_eq!(answered(), 5_000);
        for n in 0..300 {
            shared.feed.insert(host(n), at(990 + n % 20), at(900), "");
        }
        assert!(answered() > 4_000, "one line mostly decides");
        for n in 200..400 {
            shared.local.insert(host(n), at(2000), at(900), "");
        }
        assert!(answered() > 4_000);
        shared
            .local
            .insert("192.0.4.0/24".parse().unwrap(), at(2000), at(900), "");
        assert!(
            answered() < 1_000,
            "only what is listed is decided by one line"
        );
        let trusted = trust::parse_parameter("192.0.3.0/24").unwrap();
        shared.trust.replace(&trusted);
        assert_eq!(answered(), 0, "their region holds a trusted address");
    }

    /// An address found trusted is answered at once until a rule goes; then it is looked up again.
    #[test]
    fn a_trusted_address_is_remembered_until_a_rule_goes() {
        let shared = Shared::new(&mut HeapArena, &Config::default(), 1).unwrap();
        shared.set_now(at(1000));
        let set = |text: &str| {
            let rules = trust::parse_parameter(text).unwrap();
            shared.trust.replace(&rules);
        };
        let counters = shared.counters.of_process(0);
        let recent = Recent::new();
        let fast = |ip: &str| check_fast(&shared, || counters, &recent, ip.parse().unwrap());
        let whole = |ip: &str| check_and_keep(&shared, counters, &recent, ip.parse().unwrap());
        for rule in ["192.0.2.7", "192.0.2.0/28"] {
            set(rule);
            for ip in ["192.0.2.7", "192.0.2.9"] {
                assert_eq!(fast(ip), None);
                let trusted = rule.ends_with("/28") || ip.ends_with(".7");
                let verdict = if trusted {
                    Verdict::Trusted
                } else {
                    Verdict::Clear
                };
                assert_eq!(whole(ip), verdict, "{rule} {ip}");
                assert_eq!(fast(ip), trusted.then_some(Verdict::Trusted), "{rule} {ip}");
            }
        }
        let subnet = "192.0.2.7".parse().unwrap();
        shared.local.insert(subnet, at(1010), at(1000), "");
        assert_eq!(fast("192.0.2.7"), Some(Verdict::Trusted));
        set("192.0.2.9");
        assert_eq!(fast("192.0.2.7"), None);
        assert_eq!(whole("192.0.2.7"), Verdict::Banned(Origin::Local));
        assert_eq!(fast("192.0.2.7"), None);
        // A further rule takes nothing away.
        assert_eq!(whole("192.0.2.9"), Verdict::Trusted);
        assert!(shared.trust.add((subnet, trust::Rule::Own)));
        assert_eq!(fast("192.0.2.9"), Some(Verdict::Trusted));
        // A search that began before a rule went is not kept.
        let generation = shared.trust.generation();
        set("192.0.2.10");
        recent.keep(generation, "192.0.2.9".parse().unwrap());
        assert_eq!(fast("192.0.2.9"), None);
    }
}
