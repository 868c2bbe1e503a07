//! The state machine against a modelled service under a simulated clock: what is fetched and kept.

use super::*;

mod trouble;
mod world;

use self::world::*;

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}

#[test]
fn five_thousand_addresses_within_150_seconds_without_a_refusal() {
    for latency in [5, 80, 1_500].map(Duration::from_millis) {
        let mut world = World::new(5_001, None);
        world.latency = latency;
        while world.full_done == 0 {
            world.step();
        }
        assert_eq!(world.table.len(), 5_001);
        let took = world.now.since(START);
        assert!(took <= Duration::from_secs(150), "{took:?}");
        assert_eq!(world.asked.len(), 21);
        let at_once = world
            .asked
            .iter()
            .filter(|(at, _)| at.since(START) < Duration::from_secs(60))
            .count();
        assert_eq!(at_once, 10);
        world.run_until(START + hours(24));
        for offset in [Duration::ZERO, latency] {
            assert_eq!(refusals(&world.asked, offset), 0);
        }
        assert_eq!(world.state(), FeedState::Ok);
    }
}

#[test]
fn polls_bring_what_is_new_and_keep_their_pace() {
    let mut world = World::filled(300);
    assert_eq!(world.asked[0].1, None);
    assert_eq!(world.asked.len(), 2);
    let id = world.engine.status(world.now).id.unwrap();
    world.list.push((START.seconds().shifted(60), ip(9_999)));
    let before = world.now;
    world.one_request();
    assert_eq!(world.asked[2].1, Some(id.to_string()));
    let waited = world.now.since(before).as_millis();
    assert!((285_000..=315_200).contains(&waited), "{waited}");
    // The entry ends when the service ends it.
    assert_eq!(
        world.table[&ip(9_999)],
        START.seconds().shifted(60 + 604_800)
    );
    world.run_until(START + hours(1));
    assert!(
        (12..=15).contains(&world.asked.len()),
        "{}",
        world.asked.len()
    );
    assert_eq!(world.state(), FeedState::Ok);
}

#[test]
fn a_restart_resumes_and_another_dataset_does_not() {
    let world = World::filled(300);
    let saved = world.engine.saved();
    let text = serde_json::to_string(&saved).unwrap();
    assert!(!text.contains(KEY));
    let saved: Saved = serde_json::from_str(&text).unwrap();
    let mut again = World::new(300, Some(saved.clone()));
    again.run_until(START + hours(1));
    assert_eq!(again.asked[0].1, saved.id.as_ref().map(ToString::to_string));
    assert!(again.table.is_empty() && again.full_done == 0);
    let other = Saved {
        source: "all https://apiban.org/api".to_owned(),
        ..saved
    };
    let mut again = World::new(300, Some(other));
    again.one_request();
    assert_eq!(again.asked[0].1, None);
    assert_eq!(again.engine.saved().budget.len(), 3);
}

#[test]
fn a_fill_that_was_cut_off_goes_on_and_is_checked() {
    let mut world = World::new(1_000, None);
    world.one_request();
    world.one_request();
    let mut again = World::new(1_000, Some(world.engine.saved()));
    again.table = world.table;
    while again.full_done == 0 {
        again.step();
    }
    assert_eq!(again.table.len(), 1_000);
    assert!(again.asked[0].1.is_some() && again.asked.iter().any(|(_, id)| id.is_none()));
}

#[test]
fn a_resync_drops_what_is_no_longer_listed() {
    let mut world = World::filled(600);
    world.list.retain(|(_, subnet)| *subnet != ip(3));
    world.run_until(START + Duration::from_secs(80_000));
    assert!(world.table.contains_key(&ip(3)));
    world.run_until(START + Duration::from_secs(92_000));
    assert_eq!((world.table.len(), world.full_done), (599, 2));
}

#[test]
fn a_failed_resync_drops_nothing_and_costs_one_page() {
    let mut world = World::filled(600);
    world.list.retain(|(_, subnet)| *subnet != ip(3));
    world.engine.reload(world.now, key(), false);
    world.one_request();
    world.mood = Mood::Fails;
    world.one_request();
    world.one_request();
    assert_eq!(world.table.len(), 600);
    assert_eq!(world.state(), FeedState::Syncing);
    world.mood = Mood::Serves;
    let failed_at = world.asked.last().unwrap().1.clone();
    world.one_request();
    assert_eq!(world.asked.last().unwrap().1, failed_at);
    while world.full_done < 2 {
        world.step();
    }
    assert_eq!(world.table.len(), 599);
}

#[test]
fn a_resync_that_keeps_failing_makes_way_for_the_polls() {
    let mut world = World::filled(600);
    world.engine.reload(world.now, key(), false);
    world.mood = Mood::Fails;
    for _ in 0..5 {
        world.one_request();
    }
    world.mood = Mood::Serves;
    world.one_request();
    assert!(world.asked.last().unwrap().1.is_some());
    assert_eq!(world.state(), FeedState::Ok);
}

#[test]
fn a_sudden_shrink_waits_for_a_second_opinion() {
    let mut world = World::filled(600);
    let whole = std::mem::take(&mut world.list);
    world.engine.reload(world.now, key(), false);
    world.one_request();
    assert_eq!((world.state(), world.table.len()), (FeedState::Held, 600));
    assert!(world.logs.last().unwrap().contains("600 of 600"));
    // The service recovers: nothing was lost.
    world.list = whole;
    while world.full_done < 2 {
        world.step();
    }
    assert_eq!((world.state(), world.table.len()), (FeedState::Ok, 600));
    // It agrees with itself: applied.
    world.list.truncate(10);
    world.engine.reload(world.now, key(), false);
    world.full_fetch();
    assert_eq!((world.state(), world.table.len()), (FeedState::Held, 600));
    let held_at = world.now;
    while world.full_done < 3 {
        world.step();
    }
    assert!(world.now.since(held_at) >= Duration::from_secs(300));
    assert_eq!((world.state(), world.table.len()), (FeedState::Ok, 10));
}

#[test]
fn a_shrink_that_was_held_back_waits_for_its_second_opinion_over_a_restart() {
    let mut world = World::filled(600);
    world.list.truncate(10);
    world.engine.reload(world.now, key(), false);
    world.full_fetch();
    let held_at = world.now;
    let text = serde_json::to_string(&world.engine.to_save()).unwrap();
    let resumed = |text: &str, now: UnixMillis| {
        let saved: Saved = serde_json::from_str(text).unwrap();
        let mut again = World::new(0, None);
        again.engine = Engine::with_jitter(config(), key(), Some(saved), now, Jitter::seeded(7));
        again.list = world.list.clone();
        again.table = world.table.clone();
        again.now = now;
        again
    };
    let mut again = resumed(&text, held_at + Duration::from_secs(10));
    assert_eq!(
        again.engine.status(again.now).held_since,
        Some(held_at.seconds_up())
    );
    again.one_request();
    assert_eq!((again.state(), again.table.len()), (FeedState::Held, 600));
    while again.full_done == 0 {
        again.step();
    }
    let waited = again.now.since(held_at).as_millis();
    assert!((300_000..400_000).contains(&waited), "{waited}");
    assert_eq!((again.state(), again.table.len()), (FeedState::Ok, 10));
    assert_eq!(again.engine.to_save().held, None);
    // Who comes back much later does not wait once more.
    let mut late = resumed(&text, held_at + Duration::from_secs(900));
    while late.full_done == 0 {
        late.step();
    }
    assert!(late.now.since(held_at) < Duration::from_secs(910));
    assert_eq!(late.table.len(), 10);
}

#[test]
fn force_applies_what_is_held_back() {
    let mut world = World::filled(600);
    world.list.truncate(10);
    world.engine.reload(world.now, key(), false);
    world.full_fetch();
    assert_eq!(world.state(), FeedState::Held);
    world.engine.reload(world.now, key(), true);
    world.carry_out();
    assert_eq!(world.table.len(), 10);
    while world.full_done < 2 {
        world.step();
    }
    let mut world = World::filled(600);
    world.list.clear();
    world.engine.reload(world.now, key(), true);
    world.one_request();
    assert_eq!((world.state(), world.table.len()), (FeedState::Ok, 0));
    // The list begins anew.
    world.list.push((START.seconds().shifted(400), ip(1)));
    world.one_request();
    assert_eq!(world.table.len(), 1);
}

#[test]
fn short_lists_and_ended_entries_are_no_shrink() {
    let mut world = World::filled(99);
    world.list.truncate(1);
    world.engine.reload(world.now, key(), false);
    world.full_fetch();
    assert_eq!(world.table.len(), 1);
    let mut world = World::filled(600);
    world.list.truncate(5);
    // Their time has come: the table no longer holds them.
    world
        .table
        .retain(|subnet, _| (0..5).any(|n| *subnet == ip(n)));
    world.engine.reload(world.now, key(), false);
    world.one_request();
    assert_eq!((world.state(), world.table.len()), (FeedState::Ok, 5));
}

#[test]
fn ends_come_from_the_control_id_where_it_is_a_time() {
    let now = START.seconds();
    let end = |id: UnixSeconds| {
        let page = Page {
            addresses: vec![ip(1)],
            skipped: 0,
            example: None,
            id: ControlId::new(&id.to_string()).unwrap(),
        };
        config().ends(&page, now).first().map(|listed| listed.end)
    };
    let from_now = Some(now.shifted(604_800));
    for (shift, ends) in [
        (-1_000, Some(now.shifted(604_800 - 1_000))),
        (86_400, from_now),
        (-604_799, Some(now.shifted(1))),
        (-604_800, from_now),
    ] {
        assert_eq!(end(now.shifted(shift)), ends, "{shift}");
    }
    assert_eq!(end(UnixSeconds::new(12_345)), from_now);
}

#[test]
fn what_was_asked_before_a_flush_or_a_new_key_is_not_applied() {
    let mut world = World::new(10, None);
    let Step::Fetch(request) = world.engine.next(world.now) else {
        panic!("a fetch is due");
    };
    assert_eq!(world.engine.next(world.now), Step::Busy);
    world.engine.flush_feed();
    let result = world.respond(&request);
    world.engine.on_result(world.now, result, &Vec::new);
    assert_eq!(world.engine.poll_effect(), None);
    world.one_request();
    assert_eq!(world.asked[0].1, None);
    assert_eq!(world.table.len(), 10);
}

#[test]
fn a_flushed_feed_is_fetched_whole_at_the_next_poll() {
    let mut world = World::filled(10);
    world.engine.flush_feed();
    world.table.clear();
    let before = world.now;
    world.one_request();
    assert!(world.now.since(before) > Duration::from_secs(200));
    assert_eq!((world.asked[1].1.clone(), world.table.len()), (None, 10));
}
