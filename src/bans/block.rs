//! Local bans: by the script, which can be made to ban anybody by forged packets, and by an operator.

use std::net::IpAddr;

use crate::address::Subnet;
use crate::config::Config;
use crate::memory::{fence, Ordering};
use crate::shared::changes::{BanChange, ChangeKind};
use crate::shared::counters::{Counter, ProcessCounters};
use crate::shared::origin::Origin;
use crate::shared::Shared;
use crate::table::Inserted;
use crate::trust::Rule;

/// Longest ban in seconds: ten years.
pub const MAX_TTL: u32 = 315_360_000;

/// Why an address was not banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This rule trusts it, or a part of it.
    Trusted(Rule),
    /// It is no source that a packet can have, or a prefix far too wide.
    Unbannable(&'static str),
    /// The local table is full.
    Full,
    /// More new addresses this minute than `block_budget` allows.
    OverBudget,
}

/// A ban that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Whom to ban; see [`source_subnet`].
    pub subnet: Subnet,
    /// How long, in seconds, 1 to [`MAX_TTL`].
    pub ttl: u32,
    /// Why; may be empty.
    pub reason: &'a str,
    /// True where `block_budget` counts it.
    pub budgeted: bool,
}

/// What to ban for a packet from this address: itself, or its IPv6 network, in which an attacker can
/// choose addresses freely. Where that network holds a trusted address, or is none to be banned as a whole
/// (`::/64` around `::1`), the source alone.
pub fn source_subnet(shared: &Shared, config: &Config, ip: IpAddr) -> Subnet {
    let host = Subnet::host(ip);
    if host.is_v4() {
        return host;
    }
    match Subnet::new(ip, config.block_v6_prefix) {
        Some(net) if shared.trust.spares(net).is_none() && net.never_bannable().is_none() => net,
        _ => host,
    }
}

/// Bans, or extends a ban that ends earlier. Never blocks: the firewall follows by itself.
pub fn block(
    shared: &Shared,
    config: &Config,
    counters: ProcessCounters,
    order: Order<'_>,
) -> Result<Inserted, Refusal> {
    let placed = try_block(shared, config, order);
    match placed {
        Ok(Inserted::New | Inserted::Extended) => shared.ban_changes.put(BanChange {
            origin: Origin::Local,
            subnet: order.subnet,
            kind: ChangeKind::Blocked,
        }),
        Ok(_) => {}
        Err(refusal) => {
            counters.add(Counter::BlockRefused);
            if matches!(refusal, Refusal::Trusted(_)) {
                counters.add(Counter::TrustedBans);
            }
        }
    }
    placed
}

fn try_block(shared: &Shared, config: &Config, order: Order<'_>) -> Result<Inserted, Refusal> {
    let subnet = order.subnet;
    if let Some(rule) = shared.trust.spares(subnet) {
        return Err(Refusal::Trusted(rule));
    }
    if let Some(why) = subnet.never_bannable() {
        return Err(Refusal::Unbannable(why));
    }
    let now = shared.now();
    // Only a new address costs budget: extending one more ban of an attacker does not.
    if order.budgeted
        && shared.local.find(subnet).is_none()
        && !shared.budget.spend(now, config.block_budget)
    {
        return Err(Refusal::OverBudget);
    }
    match shared
        .local
        .insert(subnet, now.saturating_add(order.ttl), now, order.reason)
    {
        Inserted::Full => Err(Refusal::Full),
        placed => {
            // Trust may have come between the look and the insert: the last word is its. Pairs with the
            // fence in `evict_trusted`: either this sees the new rule, or that sees this ban.
            fence(Ordering::SeqCst);
            if let Some(rule) = shared.trust.spares(subnet) {
                shared.local.remove(subnet);
                return Err(Refusal::Trusted(rule));
            }
            Ok(placed)
        }
    }
}

/// Lifts a local ban; false where there is none.
pub fn unblock(shared: &Shared, subnet: Subnet) -> bool {
    let lifted = shared.local.remove(subnet);
    if lifted {
        shared.ban_changes.put(BanChange {
            origin: Origin::Local,
            subnet,
            kind: ChangeKind::Unblocked,
        });
    }
    lifted
}

/// Lifts what [`source_subnet`] may have banned for this address: itself or its IPv6 network.
pub fn unblock_source(shared: &Shared, config: &Config, ip: IpAddr) -> bool {
    let host = unblock(shared, Subnet::host(ip));
    let net = Subnet::new(ip, config.block_v6_prefix).filter(|net| !net.is_v4() && !net.is_host());
    net.is_some_and(|net| unblock(shared, net)) || host
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapArena;
    use crate::trust;

    fn shared(config: &Config) -> Shared {
        let shared = Shared::new(&mut HeapArena, config, 1).unwrap();
        shared.set_now(6000);
        shared
    }

    fn order(text: &str, ttl: u32) -> Order<'static> {
        Order {
            subnet: text.parse().unwrap(),
            ttl,
            reason: "test",
            budgeted: true,
        }
    }

    fn end(shared: &Shared, text: &str) -> Option<u32> {
        shared
            .local
            .find(text.parse().unwrap())
            .map(|found| found.value())
    }

    #[test]
    fn the_longer_end_wins() {
        let config = Config::default();
        let shared = shared(&config);
        let counters = shared.counters.of_process(1);
        assert_eq!(
            block(&shared, &config, counters, order("192.0.2.1", 60)),
            Ok(Inserted::New)
        );
        assert_eq!(
            block(&shared, &config, counters, order("192.0.2.1", 30)),
            Ok(Inserted::Kept)
        );
        assert_eq!(
            block(&shared, &config, counters, order("192.0.2.1", 90)),
            Ok(Inserted::Extended)
        );
        assert_eq!(end(&shared, "192.0.2.1"), Some(6090));
        assert!(unblock(&shared, "192.0.2.1".parse().unwrap()));
        assert!(!unblock(&shared, "192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn refusals() {
        let config = Config {
            max_local_entries: 2,
            block_budget: 3,
            ..Config::default()
        };
        let shared = shared(&config);
        let counters = shared.counters.of_process(1);
        shared
            .trust
            .replace(&trust::parse_parameter("192.0.2.9").unwrap())
            .unwrap();
        let ban = |text| block(&shared, &config, counters, order(text, 60));
        assert_eq!(ban("192.0.2.9"), Err(Refusal::Trusted(Rule::Parameter)));
        assert_eq!(ban("224.0.0.1"), Err(Refusal::Unbannable("multicast")));
        assert_eq!(ban("192.0.2.1"), Ok(Inserted::New));
        assert_eq!(ban("192.0.2.2"), Ok(Inserted::New));
        assert_eq!(ban("192.0.2.3"), Err(Refusal::Full));
        assert_eq!(ban("192.0.2.4"), Err(Refusal::OverBudget));
        assert_eq!(shared.counters.sum(Counter::BlockRefused), 4);
        // The next minute has a budget of its own.
        shared.set_now(6060);
        assert_eq!(
            block(&shared, &config, counters, order("192.0.2.4", 60)),
            Err(Refusal::Full)
        );
    }

    #[test]
    fn an_ipv6_source_is_its_network_unless_that_holds_a_friend() {
        let config = Config::default();
        let shared = shared(&config);
        shared
            .trust
            .replace(&trust::parse_parameter("2001:db8::5").unwrap())
            .unwrap();
        let subnet =
            |text: &str| source_subnet(&shared, &config, text.parse().unwrap()).to_string();
        assert_eq!(subnet("2001:db8:1::7"), "2001:db8:1::/64");
        assert_eq!(subnet("2001:db8::7"), "2001:db8::7");
        assert_eq!(subnet("::1"), "::1");
        assert_eq!(subnet("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn unblocking_a_source_lifts_its_network() {
        let config = Config::default();
        let shared = shared(&config);
        let counters = shared.counters.of_process(1);
        block(&shared, &config, counters, order("2001:db8::/64", 60)).unwrap();
        assert!(unblock_source(
            &shared,
            &config,
            "2001:db8::77".parse().unwrap()
        ));
        assert_eq!(shared.local.len(), 0);
    }
}
