//! Wall clocks that are wrong at the start and right later, or the other way round.

use std::path::Path;
use std::time::Duration;

use super::world::{address, World, START};
use super::{with_state, DAY};
use crate::address::Subnet;
use crate::clock::simulated::Simulated;
use crate::clock::UnixSeconds;
use crate::config::Config;
use crate::shared::origin::Origin;
use crate::state::{self, Ban, State};
use crate::trust::NO_END;

/// Runs a server with a right clock that leaves a list of ten, of the day before, and a local ban of two days;
/// returns when it ended.
fn leave_state(path: &Path) -> UnixSeconds {
    let mut world = World::new(with_state(path));
    world.list(0..10);
    world.pass_seconds(DAY);
    world.block(address(100), 2 * DAY as u32);
    world.pass_seconds(10);
    world.updater.end();
    world.time.wall()
}

fn ban_of(path: &Path, subnet: Subnet) -> Ban {
    let state = state::load(path).unwrap().unwrap();
    let wanted = subnet.to_string();
    let bans = state.local.into_iter().chain(state.listed);
    bans.into_iter().find(|ban| ban.ip == wanted).unwrap()
}

fn near(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= 60
}

fn is_near(a: UnixSeconds, b: UnixSeconds) -> bool {
    near(a.get().into(), b.get().into())
}

#[test]
fn bans_keep_their_duration_over_a_step_and_the_file_says_the_right_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    for step in [8 * DAY as i64, -8 * DAY as i64] {
        let mut world = World::new(with_state(&path));
        world.list(0..10);
        world.block(address(100), 600);
        world.pass_seconds(30);
        world.time.set_wall(step);
        world.block(address(101), 600);
        world.pass_seconds(60);
        assert_eq!(world.left(Origin::Local, address(100)), Some(510));
        assert_eq!(world.left(Origin::Local, address(101)), Some(540));
        assert_eq!(world.live(Origin::Feed).len(), 10);
        let now = world.time.wall();
        assert!(is_near(ban_of(&path, address(101)).end, now.shifted(540)));
        assert!(is_near(state::load(&path).unwrap().unwrap().written, now));
        world.pass_seconds(520);
        assert_eq!(world.left(Origin::Local, address(100)), None);
        world.assert_firewall_agrees();
        std::fs::remove_file(&path).unwrap();
    }
}

/// A machine without a clock of its own boots in the past, and NTP sets the time a minute later.
#[test]
fn a_start_in_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    for behind in [DAY, 400 * DAY, u64::from(START.get())] {
        let ended = leave_state(&path);
        let time = Simulated::at(ended.before(Duration::from_secs(behind)));
        let behind = ended.since(time.wall()).as_secs();
        let mut world = World::at(time, with_state(&path));
        // The rest at the end is all that is known.
        assert!(near(
            u64::from(world.left(Origin::Local, address(100)).unwrap()),
            2 * DAY
        ));
        assert_eq!(world.live(Origin::Feed).len(), 10);
        world.pass_seconds(60);
        // It was off for an hour.
        time.set_wall(behind as i64 + 3_600);
        world.list(200..201);
        world.pass_seconds(60);
        let left = world.left(Origin::Local, address(100)).unwrap();
        assert!(near(u64::from(left), 2 * DAY - 3_600 - 130), "{left}");
        world.pass_seconds(400);
        assert!(world.live(Origin::Feed).contains(&address(200)));
        world.assert_firewall_agrees();
        std::fs::remove_file(&path).unwrap();
    }
}

/// All that was saved seems to be over, until the clock is set.
#[test]
fn a_start_in_the_future() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let ended = leave_state(&path);
    let time = Simulated::at(ended.shifted(8 * DAY as i64));
    let mut world = World::at(time, with_state(&path));
    world.service.borrow_mut().fails = true;
    world.pass_seconds(60);
    assert!(world.live(Origin::Local).is_empty() && world.live(Origin::Feed).is_empty());
    world.block(address(101), 600);
    world.pass_seconds(1);
    world.assert_firewall_agrees();
    time.set_wall(-8 * DAY as i64);
    world.pass_seconds(60);
    let left = world.left(Origin::Local, address(100)).unwrap();
    assert!(near(u64::from(left), 2 * DAY - 130), "{left}");
    assert_eq!(world.left(Origin::Local, address(101)), Some(539));
    assert_eq!(world.live(Origin::Feed).len(), 10);
    world.assert_firewall_agrees();
    // And it is saved so.
    let end = ban_of(&path, address(100)).end;
    assert!(is_near(end, ended.shifted(2 * DAY as i64)), "{end}");
}

/// Trust that was lent lasts to its end by the right clock, whatever the clock of the start said.
#[test]
fn restored_trust_follows_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let day = DAY as i64;
    // How wrong the clock is at the start, and what is left of two days then.
    for (wrong, left) in [(-day, Some(2 * DAY)), (day, Some(DAY)), (8 * day, None)] {
        let mut world = World::new(with_state(&path));
        let now = world.shared.now();
        let end = now.shifted(2 * day);
        let lend = |n, end| world.shared.trust.lend(address(n), end, now, "a ticket");
        lend(50, end).unwrap();
        lend(51, NO_END).unwrap();
        world.block(address(100), 600);
        world.pass_seconds(10);
        world.updater.end();
        let time = Simulated::at(world.time.wall().shifted(wrong));
        let mut world = World::at(time, with_state(&path));
        let loan = |world: &World, n| {
            let found = world.shared.trust.lent().find(address(n));
            found.map(|found| found.value().since(world.shared.now()).as_secs())
        };
        world.pass_seconds(10);
        let close = |seen: Option<u64>, wanted: Option<u64>| match (seen, wanted) {
            (Some(seen), Some(wanted)) => near(seen, wanted),
            (seen, wanted) => seen == wanted,
        };
        assert!(close(loan(&world, 50), left), "{wrong}");
        assert_eq!(
            world.shared.trust.rule(address(50).address()).is_some(),
            left.is_some()
        );
        time.set_wall(-wrong);
        world.pass_seconds(10);
        assert!(close(loan(&world, 50), Some(2 * DAY)), "{wrong}");
        assert!(world.shared.trust.rule(address(50).address()).is_some());
        let no_end = world.shared.trust.lent().find(address(51));
        assert_eq!(no_end.map(|found| found.value()), Some(NO_END));
        // One that was taken back stays so.
        assert!(world.shared.trust.take_back(address(50)));
        time.set_wall(day);
        world.pass_seconds(10);
        assert_eq!(loan(&world, 50), None);
        std::fs::remove_file(&path).unwrap();
    }
}

/// A rule of a trust file ends by the wall clock, and is back when the clock is set back.
#[test]
fn a_given_rule_follows_the_wall_clock() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trust");
    std::fs::write(
        &file,
        format!("10.0.0.50 until={}\n", START.shifted(DAY as i64)),
    )
    .unwrap();
    let config = Config {
        trust_file: file.to_str().unwrap().to_owned(),
        ..super::world::config()
    };
    let mut world = World::new(config);
    let trusts = |world: &World| world.shared.trust.rule(address(50).address()).is_some();
    world.pass_seconds(10);
    assert!(trusts(&world));
    let end = world.shared.trust.end(address(50)).unwrap();
    assert!(near(end.since(world.shared.now()).as_secs(), DAY));
    world.time.set_wall(2 * DAY as i64);
    world.pass_seconds(10);
    assert!(!trusts(&world));
    world.time.set_wall(-2 * DAY as i64);
    world.pass_seconds(10);
    assert!(trusts(&world));
    world.pass_seconds(DAY);
    assert!(!trusts(&world));
}

/// What an operator lifted or emptied does not come back with the right time.
#[test]
fn a_lifted_ban_does_not_come_back_with_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let ended = leave_state(&path);
    // The clock is a day behind.
    let time = Simulated::at(ended.shifted(-(DAY as i64)));
    let mut world = World::at(time, with_state(&path));
    world.pass_seconds(10);
    assert!(world.bans().unblock(address(100)));
    world.shared.feed.retain(|_, _| false);
    let flushed = crate::shared::requests::Request::Flushed(Origin::Feed);
    world.shared.requests.ask(flushed);
    world.service.borrow_mut().fails = true;
    world.pass_seconds(10);
    time.set_wall(DAY as i64);
    world.pass_seconds(60);
    assert!(world.live(Origin::Local).is_empty() && world.live(Origin::Feed).is_empty());
}

/// A ban that was extended since the start keeps the end that it was given then.
#[test]
fn a_ban_that_was_extended_keeps_its_end_over_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let ended = leave_state(&path);
    let time = Simulated::at(ended.shifted(-(DAY as i64)));
    let mut world = World::at(time, with_state(&path));
    world.block(address(100), 5 * DAY as u32);
    world.pass_seconds(10);
    time.set_wall(DAY as i64);
    world.pass_seconds(50);
    let left = world.left(Origin::Local, address(100)).unwrap();
    assert!(near(u64::from(left), 5 * DAY), "{left}");
}

/// A day after the start a step is no correction of the start's clock.
#[test]
fn a_late_step_moves_no_saved_ban() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let ended = leave_state(&path);
    let time = Simulated::at(ended);
    let mut world = World::at(time, with_state(&path));
    world.pass_seconds(DAY + 60);
    time.set_wall(10 * DAY as i64);
    world.pass_seconds(10);
    let left = world.left(Origin::Local, address(100)).unwrap();
    assert!(near(u64::from(left), DAY - 70), "{left}");
}

/// A ban of a minute, made and saved while the clock was a month ahead, is no ban of a month.
#[test]
fn a_ban_from_a_clock_that_was_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let ahead = START.shifted(30 * DAY as i64);
    for written in [UnixSeconds::ZERO, ahead.shifted(10)] {
        let ban = Ban {
            ip: address(1).to_string(),
            end: ahead.shifted(60),
            since: ahead,
            reason: String::new(),
            hits: 0,
        };
        let state = State {
            written,
            local: vec![ban],
            ..State::default()
        };
        state::store(&path, &state).unwrap();
        let world = World::new(with_state(&path));
        let left = world.left(Origin::Local, address(1)).unwrap();
        assert!((50..=60).contains(&left), "{left}");
    }
}
