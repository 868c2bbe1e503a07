//! The state machine against a modelled service under a simulated clock.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::feed::source::{ApiVersion, Dataset, Source};
use crate::feed::Key;

const START: u64 = 1_795_300_000_000;
const KEY: &str = "s3cret-Key";

fn config() -> FeedSettings {
    FeedSettings {
        source: Source::new("https://apiban.org/api", ApiVersion::V2, Dataset::Sip).unwrap(),
        poll_interval: 300,
        resync_interval: 86_400,
        feed_ttl: 604_800,
        rate_limit_requests: 11,
        rate_limit_window: 120,
        feed_shrink_limit: 50,
    }
}

fn key() -> Option<Key> {
    Key::new(KEY).ok()
}

fn ip(n: u32) -> Subnet {
    Subnet::host(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)))
}

/// What the modelled service does with one request.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Serves,
    Fails,
    Says(u16, Option<u64>, &'static str),
}

struct World {
    engine: Engine,
    now: u64,
    /// Control ID and address, oldest first.
    list: Vec<(u64, Subnet)>,
    table: HashMap<Subnet, u64>,
    mood: Mood,
    latency: u64,
    /// Addresses in a full page.
    page: usize,
    /// Redirects that each exchange needs.
    redirects: u32,
    asked: Vec<(u64, Option<String>)>,
    logs: Vec<String>,
    full_done: usize,
}

impl World {
    fn new(addresses: u32, saved: Option<Saved>) -> Self {
        let jitter = Jitter::seeded(7);
        let first = START / 1_000 - u64::from(addresses);
        World {
            engine: Engine::with_jitter(config(), key(), saved, START, jitter),
            now: START,
            list: (0..addresses)
                .map(|n| (first + u64::from(n), ip(n)))
                .collect(),
            table: HashMap::new(),
            mood: Mood::Serves,
            latency: 80,
            page: 250,
            redirects: 0,
            asked: Vec::new(),
            logs: Vec::new(),
            full_done: 0,
        }
    }

    fn respond(&self, request: &Request) -> Result<Response, FetchError> {
        let (status, retry_after, body) = match self.mood {
            _ if self.redirects >= request.allowed => {
                return Err(FetchError {
                    kind: FetchErrorKind::OverBudget,
                    redirects: request.allowed - 1,
                })
            }
            Mood::Fails => {
                return Err(FetchError {
                    kind: FetchErrorKind::Timeout(10),
                    redirects: self.redirects,
                })
            }
            Mood::Says(status, wait, body) => (status, wait, body.to_owned()),
            Mood::Serves => {
                let after = request
                    .after
                    .as_ref()
                    .map_or(0, |id| id.as_str().parse().unwrap());
                let newer = self.list.iter().filter(|(id, _)| *id > after);
                let page: Vec<_> = newer.take(self.page).collect();
                match page.last() {
                    None => (
                        400,
                        None,
                        r#"{"ipaddress":["no new bans"],"ID":"none"}"#.to_owned(),
                    ),
                    Some((id, _)) => {
                        let ips: Vec<String> = page.iter().map(|(_, ip)| ip.to_string()).collect();
                        let body = serde_json::json!({"ipaddress": ips, "ID": id.to_string()});
                        (200, None, body.to_string())
                    }
                }
            }
        };
        let body = body.into_bytes();
        Ok(Response {
            status,
            retry_after,
            body,
            redirects: self.redirects,
        })
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Apply(listed) => {
                    self.table.extend(listed.iter().map(|l| (l.subnet, l.end)));
                }
                Effect::Sweep(keep) => self.table.retain(|subnet, _| keep.contains(subnet)),
                Effect::FullDone { .. } => self.full_done += 1,
                Effect::Log(_, text) => self.logs.push(text),
                Effect::SaveSoon => {}
            }
        }
    }

    /// One step: waits, or performs one exchange. False where the engine idles.
    fn step(&mut self) -> bool {
        match self.engine.next(self.now) {
            Step::Fetch(request) => {
                self.asked
                    .push((self.now, request.after.as_ref().map(ToString::to_string)));
                let result = self.respond(&request);
                self.now += self.latency;
                let known: Vec<Subnet> = self.table.keys().copied().collect();
                self.engine.on_result(self.now, result, &|| known.clone());
                self.carry_out();
                true
            }
            Step::Wait(until) => {
                assert!(until > self.now);
                self.now = until;
                true
            }
            Step::Busy => unreachable!("exchanges are instant here"),
            Step::Idle => false,
        }
    }

    fn run_until(&mut self, end: u64) {
        while self.now < end && self.step() {}
    }

    /// Until one more request has been answered.
    fn one_request(&mut self) {
        let before = self.asked.len();
        while self.asked.len() == before {
            assert!(self.step());
        }
    }

    /// Until the full fetch asked for is complete or held.
    fn full_fetch(&mut self) {
        self.one_request();
        while self.state() == FeedState::Syncing {
            self.one_request();
        }
    }

    fn state(&self) -> FeedState {
        self.engine.status(self.now).state
    }

    fn filled(addresses: u32) -> Self {
        let mut world = World::new(addresses, None);
        while world.full_done == 0 {
            world.step();
        }
        assert_eq!(world.table.len(), addresses as usize);
        world
    }
}

/// Requests that a server allowing 11 in 120 s would have refused, counting at `offset` ms after the
/// sending, with fixed windows of every alignment and with a sliding one.
fn refusals(asked: &[(u64, Option<String>)], offset: u64) -> usize {
    let times: Vec<u64> = asked.iter().map(|(at, _)| at + offset).collect();
    let sliding = times
        .windows(12)
        .filter(|w| w[11] - w[0] <= 120_000)
        .count();
    let fixed = (0..120_000).step_by(500).filter(|shift| {
        let mut counts: HashMap<u64, usize> = HashMap::new();
        times
            .iter()
            .for_each(|t| *counts.entry((t + shift) / 120_000).or_default() += 1);
        counts.values().any(|&n| n > 11)
    });
    sliding + fixed.count()
}

#[test]
fn five_thousand_addresses_within_150_seconds_without_a_refusal() {
    for latency in [5, 80, 1_500] {
        let mut world = World::new(5_001, None);
        world.latency = latency;
        while world.full_done == 0 {
            world.step();
        }
        assert_eq!(world.table.len(), 5_001);
        assert!(world.now - START <= 150_000, "{} ms", world.now - START);
        assert_eq!(world.asked.len(), 21);
        let at_once = world
            .asked
            .iter()
            .filter(|(at, _)| at - START < 60_000)
            .count();
        assert_eq!(at_once, 10);
        world.run_until(START + 86_400_000);
        for offset in [0, latency] {
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
    world.list.push((START / 1_000 + 60, ip(9_999)));
    let before = world.now;
    world.one_request();
    assert_eq!(world.asked[2].1, Some(id.to_string()));
    assert!((285_000..=315_200).contains(&(world.now - before)));
    // The entry ends when the service ends it.
    assert_eq!(world.table[&ip(9_999)], START / 1_000 + 60 + 604_800);
    world.run_until(START + 3_600_000);
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
    again.run_until(START + 3_600_000);
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
    world.run_until(START + 80_000_000);
    assert!(world.table.contains_key(&ip(3)));
    world.run_until(START + 92_000_000);
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
    assert!(world.now - held_at >= 300_000);
    assert_eq!((world.state(), world.table.len()), (FeedState::Ok, 10));
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
    world.list.push((START / 1_000 + 400, ip(1)));
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
    assert!(world.now - told >= 900_000);
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
    world.run_until(START + 3_590_000);
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
    world.engine.reload(world.now, key(), false);
    world.one_request();
    assert_eq!(world.state(), FeedState::Ok);
}

#[test]
fn errors_back_off_are_logged_once_and_make_the_list_stale() {
    let mut world = World::filled(10);
    world.mood = Mood::Fails;
    world.logs.clear();
    world.run_until(START + 7_200_000);
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
    world.run_until(world.now + 200_000);
    assert_eq!(world.asked.len(), before);
}

fn full_page(id: u64) -> String {
    let ips: Vec<String> = (0..250).map(|n| ip(n).to_string()).collect();
    serde_json::json!({"ipaddress": ips, "ID": id.to_string()}).to_string()
}

#[test]
fn ends_come_from_the_control_id_where_it_is_a_time() {
    let now = START / 1_000;
    let end = |id: u64| {
        let page = Page {
            addresses: vec![ip(1)],
            skipped: 0,
            example: None,
            id: ControlId::new(&id.to_string()).unwrap(),
        };
        config().ends(&page, now).first().map(|listed| listed.end)
    };
    assert_eq!(end(now - 1_000), Some(now - 1_000 + 604_800));
    assert_eq!(end(12_345), Some(now + 604_800));
    assert_eq!(end(now + 86_400), Some(now + 604_800));
    assert_eq!(end(now - 604_799), Some(now + 1));
    assert_eq!(end(now - 604_800), Some(now + 604_800));
}

#[test]
fn with_a_clock_that_is_a_week_ahead_bans_count_from_the_fetch() {
    let mut world = World::new(300, None);
    world.now += 604_800_000;
    world.run_until(world.now + 1_000);
    assert_eq!(world.table.len(), 300);
    let end = world.now / 1_000 + 604_800;
    assert!(world.table.values().all(|&found| end - found < 400));
    let told = world.logs.iter().filter(|text| text.contains("clock"));
    assert_eq!(told.count(), 1);
    assert_eq!(world.state(), FeedState::Ok);
    let shown = world.engine.status(world.now).last_error;
    assert!(shown.contains("this host's clock is ahead"), "{shown}");
    // A page that fits ends it.
    world.list.push((world.now / 1_000, ip(9_999)));
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
    world.run_until(START + 320_000);
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
        world.engine.config.poll_interval = 1;
        world.mood = mood;
        for redirects in [3, 1, 2] {
            world.redirects = redirects;
            world.run_until(world.now + 600_000);
        }
        // Each exchange with all its requests, as the service counts them.
        let mut asked: Vec<(u64, Option<String>)> = Vec::new();
        for (at, id) in &world.asked {
            let redirects = [3, 1, 2][((at - START) / 600_000).min(2) as usize];
            asked.extend((0..=redirects).map(|_| (*at, id.clone())));
        }
        let least = if mood == Mood::Serves { 60 } else { 30 };
        assert!(asked.len() > least, "{}", asked.len());
        assert_eq!(refusals(&asked, 0), 0);
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
        world.engine.status(START + 10).waiting_for,
        "request budget"
    );
    world.one_request();
    assert_eq!(world.engine.status(world.now).waiting_for, "");
    assert_eq!(waits(&world), 1);
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
    assert!(world.now - before > 200_000);
    assert_eq!((world.asked[1].1.clone(), world.table.len()), (None, 10));
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
    world.engine.config.poll_interval = 1;
    world.run_until(START + 1_200_000);
    assert_eq!(refusals(&world.asked, 0), 0);
    assert_eq!(world.state(), FeedState::Ok);
    let asked = world.asked.len();
    assert!((75..=102).contains(&asked), "{asked}");
}
