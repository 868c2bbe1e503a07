//! Whole clusters under simulated time: messages are lost, doubled, delayed and cut off, nodes restart.

mod world;

use proptest::prelude::*;

use super::*;
use crate::clock::UnixSeconds;
use world::*;

#[test]
fn a_ban_is_everywhere_at_once_and_lifted_by_anybody() {
    let mut world = World::new(4, 1);
    world.run(500);
    world.ban(0, host(1), 600);
    world.ban(1, "2001:db8::/64".parse().unwrap(), 600);
    world.run(150);
    assert_eq!(world.difference(), None);
    // Banned by two nodes: lifted by a third, gone at both.
    world.ban(1, host(1), 900);
    world.run(150);
    assert_eq!(world.difference(), None);
    world.unban(3, host(1));
    world.run(150);
    assert!(world
        .members
        .iter()
        .all(|m| !m.tables.own.contains_key(&host(1))));
    assert_eq!(world.difference(), None);
    // A new ban counts, however short it is.
    world.ban(0, host(1), 60);
    world.run(150);
    assert!(world.members[2].tables.peer.contains_key(&host(1)));
    assert_eq!(world.difference(), None);
    // An idle cluster says little: HELLO every five seconds to each of three, and what the fetcher announces.
    let before = world.members[0].node.counts().sent;
    world.run(60_000);
    let sent = world.members[0].node.counts().sent - before;
    assert!(sent <= 3 * 40, "{sent} messages in a minute");
}

#[test]
fn who_joins_has_all_in_a_moment() {
    let mut world = World::new(3, 2);
    world.members[2].alive = false;
    world.run(1_000);
    for n in 0..10_000 {
        world.ban(n as usize % 2, host(n), 3_000);
    }
    world.run(90_000);
    let leader = world.fetchers()[0];
    let end = world.clock(leader).seconds().shifted(600_000);
    let list = (0..5_000).map(|n| (host(100_000 + n), end));
    world.members[leader].tables.list.extend(list);
    let now = world.clock(leader);
    let member = &mut world.members[leader];
    member.node.scan_list(now, &mut member.tables);
    world.run(10_000);
    // Once as one that was never heard, then as one that was there a moment ago.
    for _ in 0..2 {
        world.members[2].tables.list.clear();
        world.restart(2);
        world.run(2_000);
        assert_eq!(world.members[2].tables.peer.len(), 10_000);
        assert_eq!(world.members[2].tables.list.len(), 5_000);
        assert!(world.members[2].node.feed_view().whole);
        assert_eq!(world.difference(), None);
        world.run(30_000);
    }
}

#[test]
fn a_partition_heals_bans_and_lifted_bans() {
    let mut world = World::new(4, 3);
    world.run(500);
    for n in 0..50 {
        world.ban(n as usize % 4, host(n), 3_000);
    }
    world.run(1_000);
    world.members[2].side = 1;
    world.members[3].side = 1;
    world.run(2_000);
    world.ban(0, host(100), 3_000);
    world.ban(2, host(101), 3_000);
    // Node 0 lifts what node 2 made, while node 2 cannot hear it.
    world.unban(0, host(2));
    world.run(58_000);
    assert!(world.members[3].tables.peer.contains_key(&host(2)));
    world.members[2].side = 0;
    world.members[3].side = 0;
    world.run(15_000);
    assert!(!world.members[2].tables.own.contains_key(&host(2)));
    assert!(world.members[1].tables.peer.contains_key(&host(101)));
    assert_eq!(world.difference(), None);
}

#[test]
fn who_missed_that_a_dead_nodes_ban_was_lifted_hears_of_it() {
    let mut world = World::new(3, 14);
    world.run(500);
    world.ban(2, host(1), 3_000);
    world.run(1_000);
    // The lift does not reach node 1, and the maker of the ban dies before it can say what it still has.
    world.members[1].side = 1;
    world.unban(0, host(1));
    world.run(200);
    assert!(world.members[2].tables.own.is_empty());
    world.members[2].alive = false;
    world.members[1].side = 0;
    world.run(10_000);
    assert!(world.members[1].tables.peer.is_empty());
}

#[test]
fn who_missed_a_lift_hears_of_it_though_maker_and_lifter_are_dead() {
    // The maker of the ban dies before, or right after, it is lifted.
    for dies_before in [true, false] {
        let mut world = World::new(4, 15);
        world.run(500);
        world.ban(2, host(1), 3_000);
        world.run(1_000);
        if dies_before {
            world.members[2].alive = false;
            world.run(20_000);
        }
        world.members[1].side = 1;
        world.unban(0, host(1));
        world.run(200);
        world.members[0].alive = false;
        world.members[2].alive = false;
        world.members[1].side = 0;
        assert!(world.members[1].tables.peer.contains_key(&host(1)));
        world.run(60_000);
        assert!(world.members[1].tables.peer.is_empty(), "{dies_before}");
        assert!(world.members[3].tables.peer.is_empty());
    }
}

#[test]
fn a_restart_with_an_old_state_brings_no_lifted_ban_back() {
    let mut world = World::new(3, 4);
    world.run(500);
    world.ban(0, host(1), 3_000);
    world.run(1_000);
    let saved = world.members[0].tables.own.clone();
    world.unban(1, host(1));
    world.run(1_000);
    // Node 0 crashes before it saved that.
    world.members[0].tables.own = saved;
    world.restart(0);
    world.run(5_000);
    assert!(world.members[0].tables.own.is_empty());
    assert_eq!(world.difference(), None);
}

#[test]
fn replayed_and_foreign_messages_change_nothing() {
    let mut world = World::new(3, 5);
    world.run(500);
    world.ban(0, host(1), 3_000);
    world.run(1_000);
    let recorded = std::mem::take(&mut world.recorded);
    world.unban(0, host(1));
    world.run(1_000);
    for member in [1, 2] {
        // Also after the receiver forgot everything.
        if member == 2 {
            world.restart(2);
            world.run(1_000);
        }
        for (_, bytes) in &recorded {
            world.deliver(0, member, bytes);
        }
        world.run(100);
        assert!(world.members[member].tables.peer.is_empty());
    }
    // A stranger with another secret gets nothing and changes nothing.
    world.members.push(Member {
        node: Node::new(
            settings("x"),
            Keyring::new([b"some other secret text".as_slice()]).unwrap(),
            Box::new(|| 4),
            world.now,
        ),
        tables: Tables::default(),
        skew: 0,
        alive: true,
        side: 0,
        next: world.now,
        wished: 0,
        used: 0,
    });
    world.introduce();
    world.ban(3, host(9), 900);
    world.ban(0, host(10), 900);
    world.run(20_000);
    assert!(world.members[3].tables.peer.is_empty());
    assert!(!world.members[0].tables.peer.contains_key(&host(9)));
    let view = world.members[0].node.view(world.clock(0));
    let stranger = view.iter().find(|node| node.uri == uri(3)).unwrap();
    assert_eq!(stranger.state, NodeState::Refused);
}

#[test]
fn a_node_that_bans_too_much_is_bounded() {
    let mut world = World::new(2, 6);
    let bounded = Settings {
        peer_budget: 10,
        peer_capacity: 100,
        ..settings("1")
    };
    world.members[1].node.settings = bounded;
    world.members[1].tables.trusted.push(host(0));
    world.run(500);
    for n in 0..300 {
        world.ban(0, host(n), 3_000);
    }
    world.ban(0, "10.9.0.0/20".parse().unwrap(), 3_000);
    world.run(1_000);
    let held = world.members[1].tables.peer.len();
    // Ten of this minute, and what it had when it came: at most half of the table.
    assert!((10..=60).contains(&held), "{held}");
    assert!(!world.members[1].tables.peer.contains_key(&host(0)));
    assert!(world.members[1].node.counts().refused > 0);
    world.run(180_000);
    let later = world.members[1].tables.peer.len();
    assert!(later <= 50, "half of the table at most: {later}");
    assert!(!world.members[1]
        .tables
        .peer
        .contains_key(&"10.9.0.0/20".parse().unwrap()));
}

#[test]
fn a_ban_that_waited_for_room_has_its_reason() {
    let mut world = World::new(2, 13);
    world.members[1].node.settings.peer_budget = 5;
    world.run(20_000);
    // What a node brings when it comes costs no budget.
    world.members[1].node.peers[0].budget = Default::default();
    for n in 0..9 {
        world.ban(0, host(n), 3_000);
    }
    world.run(500);
    let reasons = |world: &World| world.members[1].tables.reasons.clone();
    assert_eq!(reasons(&world).len(), 5);
    // One of those that wait is lifted.
    let waits = (0..9).find(|n| !reasons(&world).contains_key(&host(*n)));
    world.unban(0, host(waits.unwrap()));
    world.run(60_000);
    assert_eq!(reasons(&world).len(), 8);
    assert!(reasons(&world).values().all(|reason| reason == "test"));
    assert!(world.members[1].node.peers[0].deferred_reasons.is_empty());
}

#[test]
fn flushed_bans_do_not_come_back() {
    let mut world = World::new(3, 7);
    world.run(500);
    for n in 0..20 {
        world.ban(n as usize % 2, host(n), 3_000);
    }
    world.ban(1, host(0), 3_000);
    world.run(1_000);
    let member = &mut world.members[2];
    assert_eq!(
        member
            .node
            .flush_peer(Some("sip:10.9.9.9"), &mut member.tables),
        None
    );
    assert_eq!(
        member.node.flush_peer(Some(&uri(0)), &mut member.tables),
        Some(10)
    );
    // What another node bans too stays.
    assert_eq!(member.tables.peer.len(), 11);
    world.run(30_000);
    assert_eq!(world.members[2].tables.peer.len(), 11);
    world.ban(0, host(50), 3_000);
    world.run(500);
    assert!(world.members[2].tables.peer.contains_key(&host(50)));
}

#[test]
fn one_fetches_and_another_takes_over() {
    let mut world = World::new(4, 8);
    world.run(10_000);
    let first = world.fetchers();
    assert_eq!(first.len(), 1);
    for n in 0..5_000 {
        world.members[first[0]]
            .tables
            .list
            .insert(host(n), START.seconds().shifted(600_000));
    }
    let now = world.clock(first[0]);
    let member = &mut world.members[first[0]];
    member.node.scan_list(now, &mut member.tables);
    world.run(8_000);
    for member in &world.members {
        assert_eq!(member.tables.list.len(), 5_000);
    }
    // What the service no longer lists goes everywhere.
    world.members[first[0]].tables.list.remove(&host(7));
    let now = world.clock(first[0]);
    let member = &mut world.members[first[0]];
    member.node.scan_list(now, &mut member.tables);
    world.run(15_000);
    assert!(world.members.iter().all(|m| m.tables.list.len() == 4_999));
    world.members[first[0]].alive = false;
    world.run(40_000);
    let second = world.fetchers();
    assert!(second.len() == 1 && second != first);
    let before = world.requests.len();
    world.run(300_000);
    assert!(world.requests.len() > before);
    assert!(
        world.busiest_window() <= LIMIT as usize,
        "{}",
        world.busiest_window()
    );
}

#[test]
fn a_suspicious_shrink_is_held_at_the_follower() {
    let mut world = World::new(2, 9);
    world.run(6_000);
    let leader = world.fetchers()[0];
    for n in 0..500 {
        world.members[leader]
            .tables
            .list
            .insert(host(n), START.seconds().shifted(600_000));
    }
    let scan = |world: &mut World, last_full: u32| {
        let last_full = Some(UnixSeconds::new(last_full));
        let now = world.clock(leader);
        let member = &mut world.members[leader];
        let healthy = true;
        member.node.set_feed(
            now,
            message::Feed {
                healthy,
                last_full,
                ..Default::default()
            },
        );
        member.node.scan_list(now, &mut member.tables);
        world.run(12_000);
    };
    scan(&mut world, 1);
    assert_eq!(world.members[1 - leader].tables.list.len(), 500);
    world.members[leader]
        .tables
        .list
        .retain(|subnet, _| *subnet < host(100));
    scan(&mut world, 2);
    assert_eq!(world.members[1 - leader].tables.list.len(), 500);
    assert!(world.members[1 - leader].node.feed_view().held);
    scan(&mut world, 3);
    assert_eq!(world.members[1 - leader].tables.list.len(), 100);
}

/// A case of these simulates minutes of a cluster: few of them, unless `PROPTEST_CASES` asks for more.
fn few_cases() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 8;
    }
    config
}

proptest! {
    #![proptest_config(few_cases())]

    /// Whatever is lost, doubled, late, cut off or restarted: at the end all tables are equal, and the service never
    /// saw more requests in a window than one key may make.
    #[test]
    fn at_the_end_all_are_equal(
        seed in any::<u64>(),
        count in 2usize..6,
        loss in 0u64..40,
        double in 0u64..30,
        delay in 1u64..2_000,
        steps in prop::collection::vec((0u8..8, 0usize..6, 0u32..12, 1u64..20_000), 1..40),
    ) {
        let mut world = World::new(count, seed);
        world.way = Way { loss, double, delay };
        for (what, index, n, pause) in steps {
            let index = index % count;
            match what {
                0..=2 => world.ban(index, host(n), 20_000 + n * 100),
                3 => world.unban(index, host(n)),
                4 => world.members[index].side ^= 1,
                5 => world.restart(index),
                6 => world.members[index].alive = false,
                _ if !world.members[index].alive => world.restart(index),
                _ => {}
            }
            world.run(pause);
        }
        world.way = GOOD;
        for index in 0..count {
            world.members[index].side = 0;
            if !world.members[index].alive {
                world.restart(index);
            }
        }
        world.run(60_000);
        prop_assert_eq!(world.difference(), None);
        prop_assert_eq!(world.fetchers().len(), 1);
    }

    /// Two parts of a cluster stay within the limit of one key together.
    #[test]
    fn a_partition_stays_within_the_limit(
        seed in any::<u64>(),
        count in 2usize..7,
        cuts in prop::collection::vec((0usize..7, 1u64..90_000), 1..12),
        loss in 0u64..20,
    ) {
        let mut world = World::new(count, seed);
        world.run(5_000);
        world.way = Way { loss, double: 0, delay: 50 };
        for (index, pause) in cuts {
            world.members[index % count].side ^= 1;
            world.run(pause);
        }
        prop_assert!(world.busiest_window() <= LIMIT as usize, "{}", world.busiest_window());
    }
}

/// Prints what a cluster costs against its size, with 100,000 bans in the largest:
/// `cargo test --release --lib figures -- --nocapture`. Unoptimised it is smaller: every node takes every ban.
#[test]
fn figures_of_a_large_cluster() {
    /// Twice the longest pause between HELLOs, in ms.
    const IDLE: u64 = 20_200;
    let seconds = IDLE as f64 / 1000.0;
    println!(
        "nodes  bans/node  seconds until all  messages/node  KB/node  idle messages/s  idle KB/s"
    );
    let sizes = match cfg!(debug_assertions) {
        true => vec![(2, 1_000), (10, 1_000), (50, 100)],
        false => vec![(2, 1_000), (10, 1_000), (50, 1_000), (100, 1_000)],
    };
    for (count, each) in sizes {
        let mut world = World::new(count, 10);
        world.run(10_000);
        let before = world.members[0].node.counts();
        for index in 0..count {
            for n in 0..each {
                world.ban(index, host((index as u32) * each + n), 3_000);
            }
        }
        let begin = world.now;
        let wanted = (count - 1) * each as usize;
        let complete = |world: &World| {
            let mut members = world.members.iter();
            members.all(|member| member.tables.peer.len() == wanted)
        };
        while !complete(&world) {
            assert!(
                world.now < begin + Duration::from_secs(60),
                "not complete after a minute"
            );
            world.run(500);
        }
        let took = world.now.since(begin).as_secs_f64();
        let busy = world.members[0].node.counts();
        world.run(IDLE);
        assert!(complete(&world));
        let idle = world.members[0].node.counts();
        println!(
            "{count:5}  {each:9}  {took:18.1}  {:13}  {:7}  {:15.1}  {:9.1}",
            busy.sent - before.sent,
            (busy.bytes - before.bytes) / 1024,
            (idle.sent - busy.sent) as f64 / seconds,
            (idle.bytes - busy.bytes) as f64 / seconds / 1024.0,
        );
    }
}
