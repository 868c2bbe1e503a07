//! The whole updater in simulated time: a week passes in a moment.

mod clock;
mod world;

use std::path::Path;

use self::world::{address, config, World, KEY, START};
use super::*;
use crate::bans::By;
use crate::feed::FeedState;
use crate::shared::published::Number;
use crate::state;

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// A list that grows by an address every six hours and forgets each after seven days: table and firewall follow, the
/// service is polled every five minutes, and a full list comes once a day.
#[test]
fn a_week() {
    let mut world = World::new(config());
    world.around.borrow_mut().wants = vec![EventKind::Sync];
    world.list(0..1_000);
    world.pass_seconds(HOUR);
    assert_eq!(world.shared.feed.len(), 1_000);
    assert_eq!(world.updater.feed().state, FeedState::Ok);
    world.assert_firewall_agrees();
    for shift in 0..8 * 4 {
        world.list(1_000 + shift..1_001 + shift);
        world.pass_seconds(6 * HOUR);
        let now = world.time.wall();
        world
            .service
            .borrow_mut()
            .list
            .retain(|(listed, _)| *listed + Duration::from_secs(7 * DAY) > now);
    }
    // A day and a half later a full list has dropped whatever the service dropped before.
    world.pass_seconds(36 * HOUR);
    let listed: Vec<Subnet> = (1_005..1_032).map(address).collect();
    assert!(world.live(Origin::Feed).into_iter().eq(listed));
    world.assert_firewall_agrees();
    // The full list at the start, and one a day.
    assert!((9..=11).contains(&world.events().len()));
    let polls = 9 * DAY / 300;
    let requests = world.service.borrow().requests as u64;
    assert!(
        (polls * 9 / 10..polls * 12 / 10).contains(&requests),
        "{requests}"
    );
    let published = &world.shared.published;
    assert_eq!(published.number(Number::FeedRequests), requests);
    assert_eq!(published.number(Number::FeedState), FeedState::Ok as u64);
}

/// The pause between two turns ends before the next thing is due, and is never a busy loop.
#[test]
fn pauses_end_in_time() {
    let mut world = World::new(config());
    world.list(0..10);
    let mut longest = Duration::ZERO;
    for _ in 0..1_000 {
        let pause = world.updater.turn();
        longest = longest.max(pause);
        world.time.pass(pause);
    }
    // Trust is looked at every two seconds; one turn without a pause takes the result of each request.
    assert_eq!(longest, Duration::from_secs(2));
    let passed = world.time.wall().since(START).as_secs();
    assert!(passed > 1_500, "only {passed} s in 1,000 turns");
    assert!(world.service.borrow().requests > 4);
}

#[test]
fn bans_end_in_tables_firewall_and_event_routes() {
    let mut world = World::new(config());
    world.around.borrow_mut().wants = vec![EventKind::Expired];
    world.block(address(1), 60);
    world.block(address(2), 600);
    world.block_by(By::Peer(0), address(3), 60);
    world.pass_seconds(30);
    assert_eq!(world.live(Origin::Local).len(), 2);
    world.assert_firewall_agrees();
    assert_eq!(world.events(), []);
    world.pass_seconds(40);
    assert_eq!((world.shared.local.len(), world.shared.peer.len()), (1, 0));
    world.assert_firewall_agrees();
    let ended = (EventKind::Expired, Origin::Local, address(1).to_string());
    assert_eq!(world.events(), [ended]);
}

/// The firewall has one set for local bans and those of peers.
#[test]
fn the_end_of_a_local_ban_does_not_lift_the_ban_of_a_peer() {
    let mut world = World::new(config());
    world.block(address(1), 60);
    world.block_by(By::Peer(0), address(1), 600);
    world.block(address(2), 60);
    world.pass_seconds(61);
    assert!(world.shared.local.is_empty());
    world.assert_firewall_agrees();
    let left: Vec<_> = world.dropped.lock().unwrap().iter().copied().collect();
    assert_eq!(left, [address(1)]);
}

#[test]
fn changes_of_bans_reach_firewall_and_event_routes() {
    let mut world = World::new(config());
    world.around.borrow_mut().wants = vec![EventKind::Block];
    world.pass_seconds(1);
    world.block(address(1), 600);
    world.block(address(2), 600);
    world.block_by(By::Peer(0), address(3), 600);
    assert!(world.bans().unblock(address(2)));
    world.pass_seconds(1);
    let blocked = |n| (EventKind::Block, Origin::Local, address(n).to_string());
    // The second was lifted before anybody was told.
    assert_eq!(world.events(), [blocked(1)]);
    world.assert_firewall_agrees();
    assert!(world.bans().unblock(address(1)));
    world.pass_seconds(1);
    assert_eq!(world.events(), []);
    world.assert_firewall_agrees();
}

/// More changes than can wait: the firewall is compared as a whole.
#[test]
fn lost_changes_do_not_leave_the_firewall_behind() {
    let mut world = World::new(config());
    world.around.borrow_mut().wants = vec![EventKind::Block];
    world.pass_seconds(1);
    world.assert_firewall_agrees();
    for _ in 0..3_000 {
        world.block(address(1), 600);
        world.bans().unblock(address(1));
    }
    for n in 10..500 {
        world.block(address(n), 600);
    }
    assert!(!world.updater.loss_logged);
    world.pass_seconds(1);
    assert!(world.updater.loss_logged);
    assert_eq!(world.live(Origin::Local).len(), 490);
    world.assert_firewall_agrees();
}

#[test]
fn what_becomes_trusted_is_no_longer_banned() {
    let mut world = World::new(Config {
        trust_self: true,
        ..config()
    });
    world.list(0..10);
    world.block(address(3), 600);
    world.block(address(20), 600);
    world.pass_seconds(10);
    world.assert_firewall_agrees();
    {
        let mut around = world.around.borrow_mut();
        around.discovered.own = vec![address(3).address()];
        around.discovered.nodes = vec![format!("sip:{}:5060", address(20))];
        around.own = vec![address(30).address()];
    }
    world.list(30..31);
    world.pass_seconds(400);
    // One's own address is refused even before it is discovered.
    assert_eq!(world.live(Origin::Feed).len(), 9);
    assert!(world.live(Origin::Local).is_empty());
    world.assert_firewall_agrees();
    for n in [3, 20, 30] {
        assert!(world.shared.trust.spares(address(n)).is_some(), "{n}");
    }
    assert_eq!(world.shared.published.number(Number::FeedRefused), 1);
}

/// A page that comes between the emptying of the table and the updater's next turn.
#[test]
fn a_flush_during_a_fetch_leaves_table_and_firewall_in_agreement() {
    let mut world = World::new(config());
    world.list(0..100);
    world.block(address(500), 6_000);
    world.pass_seconds(10);
    world.assert_firewall_agrees();
    // As `apiban.flush feed` does in another process.
    world.shared.feed.retain(|_, _| false);
    let now = world.shared.now();
    let page: Vec<_> = (0..50)
        .map(|n| feed::Listed {
            subnet: address(n),
            end: now + Duration::from_secs(7 * DAY),
        })
        .collect();
    world.updater.apply(&page);
    world.shared.requests.ask(Request::Flushed(Origin::Feed));
    world.pass_seconds(1);
    assert!(world.shared.feed.len() >= 50);
    world.assert_firewall_agrees();
    // The list is fetched again at its time.
    world.pass_seconds(600);
    assert_eq!(world.shared.feed.len(), 100);
    world.assert_firewall_agrees();
}

#[test]
fn a_flush_of_local_bans_spares_those_of_peers_in_the_firewall() {
    let mut world = World::new(config());
    world.block(address(1), 600);
    world.block_by(By::Peer(0), address(1), 600);
    world.block(address(2), 600);
    world.pass_seconds(1);
    world.shared.local.retain(|_, _| false);
    world.shared.requests.ask(Request::Flushed(Origin::Local));
    world.pass_seconds(1);
    world.assert_firewall_agrees();
    assert_eq!(world.dropped.lock().unwrap().len(), 1);
}

#[test]
fn a_reload_takes_key_and_trust_from_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut world = World::new(Config {
        api_key: None,
        api_key_file: file("key", "a-wrong-key\n"),
        trust_file: file("trust", "192.0.2.1\n"),
        ..config()
    });
    world.list(0..10);
    world.block(address(20), 6_000);
    world.pass_seconds(600);
    assert_eq!(world.updater.feed().state, FeedState::Unauthorized);
    file("key", KEY);
    file("trust", &format!("{}\n", address(20)));
    world.pass_seconds(1);
    assert!(world.live(Origin::Local).contains(&address(20)));
    world.shared.requests.ask(Request::Reload);
    world.pass_seconds(1);
    assert_eq!(world.shared.feed.len(), 10);
    assert_eq!(world.updater.feed().state, FeedState::Ok);
    assert!(world.live(Origin::Local).is_empty());
    world.assert_firewall_agrees();
    // Files that cannot be used change nothing.
    std::fs::remove_file(folder.path().join("key")).unwrap();
    file("trust", "no address\n");
    let requests = world.service.borrow().requests;
    world.shared.requests.ask(Request::Reload);
    world.pass_seconds(1);
    assert!(world.service.borrow().requests > requests);
    assert!(world.shared.trust.spares(address(20)).is_some());
}

/// A list that shrank by more than half is held, until an operator says that it is right.
#[test]
fn force_applies_a_list_that_shrank() {
    let mut world = World::new(config());
    world.list(0..1_000);
    world.pass_seconds(HOUR);
    world.service.borrow_mut().list.truncate(100);
    world.shared.requests.ask(Request::Reload);
    world.pass_seconds(60);
    assert_eq!(world.updater.feed().state, FeedState::Held);
    assert_eq!(world.shared.feed.len(), 1_000);
    world.shared.requests.ask(Request::Force);
    world.shared.requests.ask(Request::Reload);
    world.pass_seconds(60);
    assert_eq!(world.shared.feed.len(), 100);
    world.assert_firewall_agrees();
}

#[test]
fn the_end_saves_the_state_and_empties_the_firewall() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut world = World::new(with_state(&path));
    world.list(0..10);
    world.block(address(1), 600);
    world.pass_seconds(30);
    // So fresh that only the last turn can take it, and saved by nothing before the end.
    world.block(address(2), 600);
    world.time.pass(Duration::from_secs(1));
    world.updater.end();
    let state = state::load(&path).unwrap().unwrap();
    assert_eq!((state.listed.len(), state.local.len()), (10, 2));
    assert!(!state.feed.unwrap().budget.is_empty());
    assert!(world.dropped.lock().unwrap().is_empty());
}

/// The service counted them, so the next run must, too.
#[test]
fn the_requests_of_a_run_without_a_list_are_saved_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut world = World::new(with_state(&path));
    world.service.borrow_mut().fails = true;
    world.pass_seconds(30);
    assert!(state::load(&path).unwrap().is_none());
    world.updater.end();
    let state = state::load(&path).unwrap().unwrap();
    let requests = world.service.borrow().requests;
    assert!(requests > 0);
    assert_eq!(state.feed.unwrap().budget.len(), requests);
}

#[test]
fn a_change_is_saved_without_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut world = World::new(Config {
        api_key: None,
        ..with_state(&path)
    });
    world.pass_seconds(60);
    let saved = || state::load(&path).unwrap().map(|state| state.local.len());
    assert_eq!(saved(), None);
    world.block(address(1), 600);
    world.pass_seconds(10);
    assert_eq!(saved(), Some(1));
    world.pass_seconds(600);
    assert_eq!(saved(), Some(0));
    world.block(address(1), 600);
    world.pass_seconds(10);
    world.bans().unblock(address(1));
    world.pass_seconds(10);
    assert_eq!(saved(), Some(0));
}

fn with_state(path: &Path) -> Config {
    Config {
        state_file: path.to_str().unwrap().to_owned(),
        ..config()
    }
}
