//! Bans of scripts: what is refused, what is kept, and what is reported to others.

use std::cell::Cell;

use super::*;
use crate::clock::simulated::at;
use crate::config::Config;
use crate::memory::HeapArena;
use crate::trust;

fn shared(config: &Config) -> Shared {
    let shared = Shared::new(&mut HeapArena, config, 1).unwrap();
    shared.set_now(at(6000));
    shared
}

fn bans<'a>(shared: &'a Shared, config: &Config, wake: &'a dyn Wake) -> Bans<'a> {
    Bans {
        shared,
        policy: config.into(),
        counters: shared.counters.of_process(1),
        wake,
    }
}

fn order(text: &str, ttl: u32) -> Order<'static> {
    Order {
        subnet: text.parse().unwrap(),
        ttl,
        reason: "test",
        by: By::Script,
    }
}

#[test]
fn the_longer_end_wins() {
    let config = Config::default();
    let shared = shared(&config);
    let bans = bans(&shared, &config, &|| {});
    let ban = |ttl| bans.block(order("192.0.2.1", ttl));
    assert_eq!(ban(60), Ok(Inserted::New));
    assert_eq!(ban(30), Ok(Inserted::Kept));
    assert_eq!(ban(90), Ok(Inserted::Extended));
    let subnet = "192.0.2.1".parse().unwrap();
    assert_eq!(shared.local.find(subnet).unwrap().value(), at(6090));
    assert!(bans.unblock(subnet));
    assert!(!bans.unblock(subnet));
}

#[test]
fn refusals() {
    let config = Config {
        max_local_entries: 2,
        block_budget: 3,
        ..Config::default()
    };
    let shared = shared(&config);
    let bans = bans(&shared, &config, &|| {});
    shared
        .trust
        .replace(&trust::parse_parameter("192.0.2.9").unwrap());
    let ban = |text| bans.block(order(text, 60));
    assert_eq!(ban("192.0.2.9"), Err(Refusal::Trusted(Rule::Parameter)));
    assert_eq!(ban("224.0.0.1"), Err(Refusal::Unbannable("multicast")));
    assert_eq!(ban("192.0.2.1"), Ok(Inserted::New));
    assert_eq!(ban("192.0.2.2"), Ok(Inserted::New));
    assert_eq!(ban("192.0.2.3"), Err(Refusal::Full));
    assert_eq!(ban("192.0.2.4"), Err(Refusal::OverBudget));
    assert_eq!(shared.counters.sum(Counter::BlockRefused), 4);
    // The next minute has a budget of its own.
    shared.set_now(at(6060));
    assert_eq!(ban("192.0.2.4"), Err(Refusal::Full));
    // An operator has no budget to spend.
    for _ in 0..5 {
        let order = Order {
            by: By::Operator,
            ..order("192.0.2.5", 60)
        };
        assert_eq!(bans.block(order), Err(Refusal::Full));
    }
}

/// Each change is announced in its table, and only the first of those that wait wakes the updater.
#[test]
fn changes_are_announced_and_wake_the_updater() {
    let config = Config::default();
    let shared = shared(&config);
    let wakes = Cell::new(0);
    let wake = || wakes.set(wakes.get() + 1);
    let bans = bans(&shared, &config, &wake);
    let by_peer = Order {
        by: By::Peer(0),
        ..order("192.0.2.1", 60)
    };
    bans.block(order("192.0.2.1", 60)).unwrap();
    bans.block(by_peer).unwrap();
    // Neither a ban that is there already nor a refusal is a change.
    bans.block(order("192.0.2.1", 60)).unwrap();
    bans.block(order("224.0.0.1", 60)).unwrap_err();
    assert_eq!((shared.local.len(), shared.peer.len()), (1, 1));
    assert_eq!(wakes.get(), 1);
    shared.ban_changes.awake();
    assert!(bans.unblock(by_peer.subnet));
    assert!(!bans.unblock(by_peer.subnet));
    assert_eq!(wakes.get(), 2);
    assert_eq!((shared.local.len(), shared.peer.len()), (0, 0));
    let change = |origin, kind| BanChange {
        origin,
        subnet: by_peer.subnet,
        kind,
    };
    let seen: Vec<_> = std::iter::from_fn(|| shared.ban_changes.take()).collect();
    assert_eq!(
        seen,
        [
            change(Origin::Local, ChangeKind::Blocked),
            change(Origin::Peer, ChangeKind::Blocked),
            change(Origin::Local, ChangeKind::Unblocked),
            change(Origin::Peer, ChangeKind::Unblocked),
        ]
    );
}

#[test]
fn an_ipv6_source_is_its_network_unless_that_holds_others() {
    let config = Config::default();
    let shared = shared(&config);
    shared
        .trust
        .replace(&trust::parse_parameter("2001:db8::5").unwrap());
    let bans = bans(&shared, &config, &|| {});
    let subnet = |text: &str| bans.source_subnet(text.parse().unwrap()).to_string();
    assert_eq!(subnet("2001:db8:1::7"), "2001:db8:1::/64");
    assert_eq!(subnet("2001:db8::7"), "2001:db8::7");
    assert_eq!(subnet("::1"), "::1");
    assert_eq!(subnet("::ffff:192.0.2.1"), "192.0.2.1");
    // Behind a translator each address is another IPv4 host.
    assert_eq!(subnet("64:ff9b::198.51.100.7"), "64:ff9b::c633:6407");
    assert_eq!(subnet("64:ff9b:1::198.51.100.7"), "64:ff9b:1::c633:6407");
    assert_eq!(subnet("64:ff9b:0:1::7"), "64:ff9b:0:1::/64");
}

#[test]
fn unblocking_a_source_lifts_its_network() {
    let config = Config::default();
    let shared = shared(&config);
    let bans = bans(&shared, &config, &|| {});
    bans.block(order("2001:db8::/64", 60)).unwrap();
    assert!(bans.unblock_source("2001:db8::77".parse().unwrap()));
    assert_eq!(shared.local.len(), 0);
}

#[test]
fn codes_of_the_contract() {
    let codes = [
        Refusal::Trusted(Rule::Own),
        Refusal::Unbannable(""),
        Refusal::Full,
        Refusal::OverBudget,
    ]
    .map(Refusal::code);
    assert_eq!(codes, [-1, -3, -4, -5]);
}
