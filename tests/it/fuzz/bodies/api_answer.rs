//! Answers of the service, one after another, to the parser and to the feed's state machine.
//!
//! Input: answers separated by a line `--`. The first line of each is `STATUS [RETRY-AFTER]`, the rest its
//! body; `error` in place of the status is a lost connection, `reload`, `force` and `flush` are an operator.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use apiban::address::Subnet;
use apiban::clock::{UnixMillis, UnixSeconds};
use apiban::feed::client::{FetchErrorKind, Response};
use apiban::feed::parse::{parse, Answer, MAX_ADDRESSES};
use apiban::feed::{ControlId, Effect, Engine, FeedSettings, FeedState, Key, Step};

use super::{assert_presentable, START};

/// The key in use: no line for operators may hold it.
const KEY: &str = "s3cr3t-K3y";
const WINDOW: Duration = Duration::from_secs(120);

struct World {
    engine: Engine,
    now: UnixMillis,
    table: HashMap<Subnet, UnixSeconds>,
    /// What the table held when the engine last asked.
    known: Vec<Subnet>,
    /// When requests were sent.
    sent: VecDeque<UnixMillis>,
    held: bool,
    forced: bool,
}

pub fn run(data: &[u8]) {
    let config = FeedSettings {
        source: super::config().source().expect("the default"),
        poll_interval: Duration::from_secs(300),
        resync_interval: Duration::from_secs(3_600),
        feed_ttl: Duration::from_secs(604_800),
        rate_limit_requests: 11,
        rate_limit_window: WINDOW,
        feed_shrink_limit: 50,
    };
    let now = START.millis();
    let mut world = World {
        engine: Engine::new(config, Key::new(KEY).ok(), None, now),
        now,
        table: HashMap::new(),
        known: Vec::new(),
        sent: VecDeque::new(),
        held: false,
        forced: false,
    };
    for part in split(data).take(60) {
        world.step(part);
    }
}

/// The parts between lines of `--`.
fn split(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let all = rest?;
        let cut = all.windows(4).position(|four| four == b"\n--\n");
        rest = cut.map(|at| &all[at + 4..]);
        Some(&all[..cut.unwrap_or(all.len())])
    })
}

impl World {
    fn step(&mut self, part: &[u8]) {
        let cut = part
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(part.len());
        let head = String::from_utf8_lossy(&part[..cut]);
        let body = part.get(cut + 1..).unwrap_or_default();
        let mut words = head.split(' ');
        let first = words.next().unwrap_or_default();
        match first {
            "reload" | "force" => {
                self.forced |= first == "force";
                self.engine
                    .reload(self.now, Key::new(KEY).ok(), first == "force");
                return self.carry_out();
            }
            "flush" => {
                self.table.clear();
                return self.engine.flush_feed();
            }
            _ => {}
        }
        let response = Response {
            status: first.parse().unwrap_or(200),
            retry_after: words.next().and_then(|seconds| seconds.parse().ok()),
            body: body.to_vec(),
            redirects: 0,
        };
        check_answer(&parse(response.status, response.retry_after, body));
        self.ask();
        self.now = self.now + Duration::from_millis(700);
        let result = match first {
            "error" => Err(FetchErrorKind::Timeout(10).into()),
            _ => Ok(response),
        };
        let seconds = self.now.seconds();
        self.table.retain(|_, end| *end > seconds);
        self.known = self.table.keys().copied().collect();
        let known = || self.known.clone();
        self.engine.on_result(self.now, result, &known);
        self.carry_out();
    }

    /// Lets time pass until the engine sends a request.
    fn ask(&mut self) {
        for _ in 0..3 {
            match self.engine.next(self.now) {
                Step::Fetch(_) => {
                    let since = self.now.before(WINDOW);
                    self.sent.retain(|at| *at > since);
                    self.sent.push_back(self.now);
                    assert!(self.sent.len() <= 11, "asked too often: {:?}", self.sent);
                    return;
                }
                Step::Wait(until) => {
                    // The longest pause: an hour for a refused key, or as the service asks, and jitter.
                    assert!((self.now..=self.now + Duration::from_secs(4_000)).contains(&until));
                    self.now = until;
                }
                step => panic!("{step:?}"),
            }
        }
        panic!("it waits for ever");
    }

    fn carry_out(&mut self) {
        let seconds = self.now.seconds();
        self.table.retain(|_, end| *end > seconds);
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Apply(listed) => {
                    for entry in listed {
                        assert!(entry.end > seconds && entry.end <= seconds.shifted(604_800 + 300));
                        let end = self.table.entry(entry.subnet).or_default();
                        *end = entry.end.max(*end);
                    }
                }
                Effect::Sweep(keep) => {
                    let known = self.known.len();
                    let gone = self.known.iter().filter(|s| !keep.contains(s)).count();
                    let big = known >= 100 && gone * 2 > known;
                    assert!(
                        !big || self.held || self.forced,
                        "a sudden shrink was believed"
                    );
                    self.table.retain(|subnet, _| keep.contains(subnet));
                    self.held = false;
                }
                Effect::Log(_, text) => {
                    assert_presentable(&text, 250);
                    assert!(!text.contains(KEY), "{text}");
                    self.held |= text.contains("would drop");
                }
                // Force applies what is held back, and to the full fetch that follows.
                Effect::FullDone { .. } => self.forced = false,
                Effect::SaveSoon => {}
            }
        }
        let status = self.engine.status(self.now);
        assert!(!status.last_error.contains(KEY));
        assert_presentable(&status.last_error, 250);
        assert_ne!(status.state, FeedState::Disabled);
        self.held |= status.state == FeedState::Held;
        assert!(self.engine.saved().budget.len() <= 12);
    }
}

fn check_answer(answer: &Answer) {
    match answer {
        Answer::Page(page) => {
            assert!(page.items() <= MAX_ADDRESSES && page.addresses.len() <= page.items());
            assert!(ControlId::new(page.id.as_str()).is_ok());
            assert_eq!(page.skipped > 0, page.example.is_some());
            page.example
                .iter()
                .for_each(|text| assert_presentable(text, 64));
        }
        Answer::Garbage(text) => assert_presentable(text, 120),
        _ => {}
    }
}
