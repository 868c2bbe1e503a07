//! What the engine does if the service refuses, fails or answers nonsense, or if the clock is wrong.

use super::super::*;
use super::world::*;
use crate::feed::source::{ApiVersion, Dataset, Source};
use crate::feed::Key;

#[test]
fn the_services_wish_to_wait_is_honoured() {
    let mut world = World::filled(10);
    let limited = r#"{"ipaddress":"rate limit exceeded","ID":"unauthorized"}"#;
    world.mood = Mood::Says(429, Some(900), limited);
    world.one_request();
    assert_eq!(world.state(), FeedState::RateLimited);
    let told = world.now;
    // A reload of the same key does not jump the queue.
    world.engine.reload(world.now, key(), false);
    world.mood = Mood::Serves;
    world.one_request();
    assert!(world.now.since(told) >= Duration::from_secs(900));
    assert_eq!(world.state(), FeedState::Ok);
    let status = world.engine.status(world.now);
    assert_eq!((status.rate_limited, status.fetch_errors), (1, 0));
}

#[test]
fn a_refused_key_is_left_alone_until_a_reload() {
    let mut world = World::new(10, None);
    world.mood = Mood::Says(403, None, r#"{"ipaddress":"none","ID":"unauthorized"}"#);
    world.one_request();
    assert_eq!(world.state(), FeedState::Unauthorized);
    world.run_until(START + Duration::from_secs(3_590));
    assert_eq!(world.asked.len(), 1);
    world.mood = Mood::Serves;
    world
        .engine
        .reload(world.now, Key::new("another").ok(), false);
    world.one_request();
    assert_eq!((world.state(), world.table.len()), (FeedState::Ok, 10));
}

#[test]
fn no_key_no_request() {
    let mut world = World::filled(10);
    world.engine.reload(world.now, None, false);
    let first = world.engine.poll_effect();
    assert!(matches!(first, Some(Effect::Log(Level::Warn, _))));
    assert_eq!(world.engine.poll_effect(), None);
    assert!(!world.step());
    assert_eq!(world.state(), FeedState::Disabled);
    assert_eq!(world.engine.status(world.now).next_poll, None);
    // Said once, and not of a file that holds no key.
    let unusable = ApiKey::Unusable("key.txt is empty".into());
    for key in [ApiKey::NotSet, unusable] {
        world.engine.reload(world.now, key, false);
        assert_eq!(world.engine.poll_effect(), None);
    }
    assert_eq!(world.state(), FeedState::Unauthorized);
    world.engine.reload(world.now, key(), false);
    world.one_request();
    assert_eq!(world.state(), FeedState::Ok);
}

#[test]
fn errors_back_off_are_logged_once_and_make_the_list_stale() {
    let mut world = World::filled(10);
    world.mood = Mood::Fails;
    world.logs.clear();
    world.run_until(START + Duration::from_secs(7_200));
    assert!(world.asked.len() < 50, "{}", world.asked.len());
    assert_eq!(world.logs.len(), 1, "{:?}", world.logs);
    assert_eq!(world.state(), FeedState::Stale);
    assert_eq!(world.table.len(), 10);
    assert_eq!(
        world.engine.status(world.now).last_error,
        "timeout after 10 s"
    );
    world.mood = Mood::Serves;
    world.one_request();
    assert_eq!(world.logs.len(), 2);
    assert_eq!(world.state(), FeedState::Ok);
    assert_eq!(world.engine.status(world.now).last_error, "");
}

#[test]
fn a_service_that_repeats_itself_ends_the_walk_and_drops_nothing() {
    let mut world = World::filled(600);
    world.mood = Mood::Says(
        200,
        None,
        Box::leak(full_page(1_795_200_000).into_boxed_str()),
    );
    world.engine.reload(world.now, key(), true);
    world.one_request();
    world.one_request();
    assert!(world.logs.last().unwrap().contains("repeats itself"));
    assert!(world.table.len() >= 600);
    assert!(!world.engine.full.force);
    let before = world.asked.len();
    world.run_for(Duration::from_secs(200));
    assert_eq!(world.asked.len(), before);
}

fn full_page(id: u64) -> String {
    let ips: Vec<String> = (0..250).map(|n| ip(n).to_string()).collect();
    serde_json::json!({"ipaddress": ips, "ID": id.to_string()}).to_string()
}

#[test]
fn with_a_clock_that_is_a_week_ahead_bans_count_from_the_fetch() {
    let mut world = World::new(300, None);
    world.now = world.now + config().feed_ttl;
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.table.len(), 300);
    let end = world.now.seconds() + config().feed_ttl;
    assert!(world
        .table
        .values()
        .all(|&found| end.seconds_since(found) < 400));
    let told = world.logs.iter().filter(|text| text.contains("clock"));
    assert_eq!(told.count(), 1);
    assert_eq!(world.state(), FeedState::Ok);
    let shown = world.engine.status(world.now).last_error;
    assert!(shown.contains("this host's clock is ahead"), "{shown}");
    // A page that fits ends it.
    world.list.push((world.now.seconds(), ip(9_999)));
    world.one_request();
    assert_eq!(world.engine.status(world.now).last_error, "");
}

#[test]
fn smaller_pages_are_read_to_the_end_and_drop_nothing() {
    let mut world = World::filled(600);
    world.page = 100;
    world.engine.reload(world.now, key(), false);
    while world.full_done < 2 {
        world.step();
    }
    assert_eq!((world.table.len(), world.state()), (600, FeedState::Ok));
    assert!(!world.logs.iter().any(|text| text.contains("would drop")));
    // From the start: the first page, and at the first poll all others.
    let mut world = World::new(600, None);
    world.page = 100;
    world.one_request();
    assert_eq!(world.table.len(), 100);
    world.run_until(START + Duration::from_secs(320));
    assert_eq!(world.table.len(), 600);
}

#[test]
fn a_service_that_repeats_its_last_page_has_ended() {
    let mut world = World::filled(10);
    world.list.truncate(9);
    let ips: Vec<String> = (0..9).map(|n| ip(n).to_string()).collect();
    let page = serde_json::json!({"ipaddress": ips, "ID": "1795299999"}).to_string();
    world.mood = Mood::Says(200, None, Box::leak(page.into_boxed_str()));
    world.engine.reload(world.now, key(), false);
    world.full_fetch();
    assert_eq!((world.table.len(), world.full_done), (9, 2));
}

#[test]
fn redirects_count_whether_the_exchange_succeeds_or_not() {
    for mood in [Mood::Serves, Mood::Fails] {
        let mut world = World::new(10, None);
        world.engine.config.poll_interval = Duration::from_secs(1);
        world.mood = mood;
        for redirects in [3, 1, 2] {
            world.redirects = redirects;
            world.run_for(Duration::from_secs(600));
        }
        // Each exchange with all its requests, as the service counts them.
        let mut asked: Vec<(UnixMillis, Option<String>)> = Vec::new();
        for (at, id) in &world.asked {
            let redirects = [3, 1, 2][(at.since(START).as_secs() / 600).min(2) as usize];
            asked.extend((0..=redirects).map(|_| (*at, id.clone())));
        }
        let least = if mood == Mood::Serves { 60 } else { 30 };
        assert!(asked.len() > least, "{}", asked.len());
        assert_eq!(refusals(&asked, Duration::ZERO), 0);
        let counted = world.engine.status(world.now).requests;
        assert!(
            counted.abs_diff(asked.len() as u64) <= 4,
            "{counted} {}",
            asked.len()
        );
    }
}

#[test]
fn a_wait_for_the_budget_is_shown_and_logged() {
    let saved = Saved {
        budget: vec![START; 11],
        ..Saved::default()
    };
    let mut world = World::new(10, Some(saved));
    assert!(world.step());
    world.carry_out();
    let waits = |world: &World| {
        world
            .logs
            .iter()
            .filter(|t| t.contains("request budget"))
            .count()
    };
    assert_eq!(waits(&world), 1, "{:?}", world.logs);
    assert_eq!(
        world.engine.status(START.shifted(10)).waiting_for,
        "request budget"
    );
    world.one_request();
    assert_eq!(world.engine.status(world.now).waiting_for, "");
    assert_eq!(waits(&world), 1);
}

#[test]
fn no_line_holds_the_key() {
    let mut world = World::new(10, None);
    let body = r#"{"ipaddress":["key s3cret-Key","192.0.2.1"],"ID":"1795299000"}"#;
    world.mood = Mood::Says(200, None, body);
    world.one_request();
    assert!(world.logs[0].contains("key ***"), "{:?}", world.logs);
    assert_eq!(world.engine.status(world.now).skipped, 1);
    assert!(!format!("{:?}", world.engine).contains(KEY));
    assert!(!format!("{:?}", world.engine.next(START)).contains(KEY));
}

#[test]
fn short_intervals_stay_within_the_budget() {
    let mut world = World::filled(300);
    world.engine.config.poll_interval = Duration::from_secs(1);
    world.run_until(START + Duration::from_secs(1_200));
    assert_eq!(refusals(&world.asked, Duration::ZERO), 0);
    assert_eq!(world.state(), FeedState::Ok);
    let asked = world.asked.len();
    assert!((75..=102).contains(&asked), "{asked}");
}

#[test]
fn an_answer_that_is_none_asks_about_api_url() {
    let mut world = World::new(10, None);
    world.mood = Mood::Says(404, None, "not found");
    world.one_request();
    let shown = world.engine.status(world.now).last_error;
    assert!(
        shown.contains("is api_url right (https://apiban.org/api)?"),
        "{shown}"
    );
    let mut config = config();
    config.source = Source::new("http://192.0.2.1:8088", ApiVersion::V2, Dataset::Sip).unwrap();
    world.engine = Engine::with_jitter(config, key(), None, world.now, Jitter::seeded(7));
    world.one_request();
    let shown = world.engine.status(world.now).last_error;
    assert!(
        shown.contains("it has no path, APIBAN's own is https://apiban.org/api"),
        "{shown}"
    );
}
