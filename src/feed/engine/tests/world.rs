//! A modelled service under a simulated clock, and the engine that asks it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::super::*;
use crate::feed::source::{ApiVersion, Dataset, Source};
use crate::feed::Key;

pub(super) const START: UnixMillis = UnixMillis::new(1_795_300_000_000);
pub(super) const KEY: &str = "s3cret-Key";

pub(super) fn config() -> FeedSettings {
    FeedSettings {
        source: Source::new("https://apiban.org/api", ApiVersion::V2, Dataset::Sip).unwrap(),
        poll_interval: Duration::from_secs(300),
        resync_interval: Duration::from_secs(86_400),
        feed_ttl: Duration::from_secs(604_800),
        rate_limit_requests: 11,
        rate_limit_window: Duration::from_secs(120),
        feed_shrink_limit: 50,
    }
}

pub(super) fn key() -> Option<Key> {
    Key::new(KEY).ok()
}

pub(super) fn ip(n: u32) -> Subnet {
    Subnet::host(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)))
}

/// What the modelled service does with one request.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Mood {
    Serves,
    Fails,
    Says(u16, Option<u64>, &'static str),
}

pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) now: UnixMillis,
    /// When it was listed, which is its control ID, and address; oldest first.
    pub(super) list: Vec<(UnixSeconds, Subnet)>,
    pub(super) table: HashMap<Subnet, UnixSeconds>,
    pub(super) mood: Mood,
    pub(super) latency: Duration,
    /// Addresses in a full page.
    pub(super) page: usize,
    /// Redirects that each exchange needs.
    pub(super) redirects: u32,
    pub(super) asked: Vec<(UnixMillis, Option<String>)>,
    pub(super) logs: Vec<String>,
    pub(super) full_done: usize,
}

impl World {
    pub(super) fn new(addresses: u32, saved: Option<Saved>) -> Self {
        let jitter = Jitter::seeded(7);
        let first = START.seconds().shifted(-i64::from(addresses));
        World {
            engine: Engine::with_jitter(config(), key(), saved, START, jitter),
            now: START,
            list: (0..addresses)
                .map(|n| (first.shifted(n.into()), ip(n)))
                .collect(),
            table: HashMap::new(),
            mood: Mood::Serves,
            latency: Duration::from_millis(80),
            page: 250,
            redirects: 0,
            asked: Vec::new(),
            logs: Vec::new(),
            full_done: 0,
        }
    }

    pub(super) fn respond(&self, request: &Request) -> Result<Response, FetchError> {
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
                let after = UnixSeconds::new(after);
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

    pub(super) fn carry_out(&mut self) {
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
    pub(super) fn step(&mut self) -> bool {
        match self.engine.next(self.now) {
            Step::Fetch(request) => {
                self.asked
                    .push((self.now, request.after.as_ref().map(ToString::to_string)));
                let result = self.respond(&request);
                self.now = self.now + self.latency;
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

    pub(super) fn run_until(&mut self, end: UnixMillis) {
        while self.now < end && self.step() {}
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Until one more request has been answered.
    pub(super) fn one_request(&mut self) {
        let before = self.asked.len();
        while self.asked.len() == before {
            assert!(self.step());
        }
    }

    /// Until the full fetch asked for is complete or held.
    pub(super) fn full_fetch(&mut self) {
        self.one_request();
        while self.state() == FeedState::Syncing {
            self.one_request();
        }
    }

    pub(super) fn state(&self) -> FeedState {
        self.engine.status(self.now).state
    }

    pub(super) fn filled(addresses: u32) -> Self {
        let mut world = World::new(addresses, None);
        while world.full_done == 0 {
            world.step();
        }
        assert_eq!(world.table.len(), addresses as usize);
        world
    }
}

/// Requests that a server allowing 11 in 120 s would have refused, counting at `offset` after the
/// sending, with fixed windows of every alignment and with a sliding one.
pub(super) fn refusals(asked: &[(UnixMillis, Option<String>)], offset: Duration) -> usize {
    let times: Vec<UnixMillis> = asked.iter().map(|(at, _)| *at + offset).collect();
    let sliding = times
        .windows(12)
        .filter(|w| w[11].since(w[0]) <= Duration::from_secs(120))
        .count();
    let fixed = (0..120_000).step_by(500).filter(|shift| {
        let mut counts: HashMap<u64, usize> = HashMap::new();
        times
            .iter()
            .for_each(|t| *counts.entry((t.get() + shift) / 120_000).or_default() += 1);
        counts.values().any(|&n| n > 11)
    });
    sliding + fixed.count()
}
