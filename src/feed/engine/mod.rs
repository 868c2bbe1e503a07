//! What to ask the service and when, and what its answers mean: a pure state machine.
//!
//! The main loop calls [`Engine::next`], hands a [`Step::Fetch`] to the HTTP thread, gives its result
//! to [`Engine::on_result`] and carries out what [`Engine::poll_effect`] gives, in that order. All
//! times passed in are those of a clock that never runs backwards.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::address::Subnet;
use crate::clock::{UnixMillis, UnixSeconds, WallOffset};
use crate::log::Level;

use super::client::{FetchError, FetchErrorKind, Request, Response};
use super::control_id::ControlId;
use super::key::ApiKey;
use super::parse::{self, Answer, Page};
use super::request_budget::RequestBudget;
use super::schedule::{Jitter, Trouble};

mod full_fetch;
mod model;
mod operator;
mod outcome;
mod status;
mod walk;

use full_fetch::FullFetch;
pub use model::{Effect, FeedSettings, FeedState, HeldBack, Listed, Saved, Status, Step};
use outcome::Outage;
use walk::{Progress, Walk};

/// Percent by which polls and full fetches come early or late.
const POLL_SPREAD: u64 = 5;
/// A wait for the request budget of this length or more is logged.
const LONG_WAIT: Duration = Duration::from_secs(2);

/// The request under way.
#[derive(Debug)]
struct InFlight {
    since: UnixMillis,
    /// The key or the list has changed meanwhile: its answer no longer matters.
    abandoned: bool,
}

/// What is counted since the start.
#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    pages: u64,
    ok: u64,
    errors: u64,
    rate_limited: u64,
    skipped: u64,
}

/// The feed's state. One per updater; owned by its main loop.
#[derive(Debug)]
pub struct Engine {
    config: FeedSettings,
    key: ApiKey,
    jitter: Jitter,
    budget: RequestBudget,
    started: UnixMillis,
    /// Where the next poll begins; `None`: the list must be fetched from its beginning.
    id: Option<ControlId>,
    walk: Option<Walk>,
    in_flight: Option<InFlight>,
    next_poll: UnixMillis,
    full: FullFetch,
    outage: Outage,
    /// Redirects that the last exchange needed: the next one will need as many requests.
    redirects: u32,
    /// Items in a full page of this service.
    page_size: walk::PageSize,
    last_success: Option<UnixMillis>,
    /// The list's control ID says that our clock is wrong; shown until a page says otherwise.
    clock_problem: Option<String>,
    /// The present wait for the request budget is in the log.
    wait_logged: bool,
    counts: Counts,
    effects: VecDeque<Effect>,
    wall_offset: WallOffset,
}

impl Engine {
    /// Starts with what an earlier run has saved if that was the same list. The requests of an
    /// earlier run count in any case.
    pub fn new(
        config: FeedSettings,
        key: impl Into<ApiKey>,
        saved: Option<Saved>,
        now: UnixMillis,
    ) -> Self {
        Engine::with_jitter(config, key, saved, now, Jitter::from_system())
    }

    /// The same with a given sequence of random pauses.
    pub fn with_jitter(
        config: FeedSettings,
        key: impl Into<ApiKey>,
        saved: Option<Saved>,
        now: UnixMillis,
        mut jitter: Jitter,
    ) -> Self {
        let saved = saved.unwrap_or_default();
        let budget = RequestBudget::new(
            config.rate_limit_requests,
            config.rate_limit_window,
            &saved.budget,
            now,
        );
        let saved = if saved.belongs_to(&config.source) {
            saved
        } else {
            Saved::default()
        };
        let past = |time: Option<UnixSeconds>| time.map(|time| time.millis().min(now));
        let mut full = FullFetch::new(
            config.resync_interval,
            past(saved.last_full),
            now,
            &mut jitter,
        );
        if let Some(held) = &saved.held {
            let since = held.since.millis().min(now);
            full.resume_held(since, &held.listed, config.held_pause());
        }
        Engine {
            budget,
            key: key.into(),
            jitter,
            started: now,
            id: saved.id,
            walk: None,
            in_flight: None,
            next_poll: now,
            full,
            outage: Outage::default(),
            redirects: 0,
            page_size: walk::PageSize::default(),
            last_success: past(saved.last_success),
            clock_problem: None,
            wait_logged: false,
            counts: Counts::default(),
            effects: VecDeque::new(),
            wall_offset: WallOffset::default(),
            config,
        }
    }

    /// The next thing for the caller to do, in order; `None`: nothing for now.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What to do now. A [`Step::Fetch`] counts as sent: its result must be brought to
    /// [`Engine::on_result`].
    pub fn next(&mut self, now: UnixMillis) -> Step {
        if self.in_flight.is_some() {
            return Step::Busy;
        }
        let Some(key) = self.key.key().cloned() else {
            return Step::Idle;
        };
        let due = self.due(now);
        if now < due {
            self.log_wait(now);
            return Step::Wait(due);
        }
        let poll_due = now >= self.next_poll;
        let walk = self.walk.get_or_insert_with(|| match &self.id {
            // The poll first, one request as a rule: a full fetch brings what is new at its end.
            Some(id) if poll_due => Walk::poll(id.clone()),
            id => Walk::full(id.is_none()),
        });
        let after = walk.cursor().cloned();
        let allowed = self.budget.left(now);
        self.budget.sent(now);
        self.counts.requests += 1;
        self.wait_logged = false;
        self.in_flight = Some(InFlight {
            since: now,
            abandoned: false,
        });
        Step::Fetch(Request {
            key,
            after,
            allowed,
        })
    }

    /// Takes the result of the request under way. `known` gives the live entries of the feed's table;
    /// it is called at the end of a full fetch only.
    pub fn on_result(
        &mut self,
        now: UnixMillis,
        result: Result<Response, FetchError>,
        known: &dyn Fn() -> Vec<Subnet>,
    ) {
        let Some(flight) = self.in_flight.take() else {
            return;
        };
        let redirects = match &result {
            Ok(response) => response.redirects,
            Err(error) => error.redirects,
        };
        self.budget.ended(now, redirects);
        self.counts.requests += u64::from(redirects);
        self.redirects = match &result {
            // That exchange would have needed one more.
            Err(error) if error.kind == FetchErrorKind::OverBudget => redirects + 1,
            _ => redirects,
        };
        if flight.abandoned {
            return;
        }
        let response = match result {
            Ok(response) => response,
            Err(error) => return self.failed(now, Trouble::Network, None, &error.to_string()),
        };
        match parse::parse(response.status, response.retry_after, &response.body) {
            Answer::Page(page) => {
                self.succeeded(now);
                self.page(now, page, known);
            }
            Answer::Complete => {
                self.succeeded(now);
                self.complete(now, known);
            }
            answer => self.refused(now, &answer),
        }
    }

    /// When the next request is due: after its date, every pause, and the budget.
    fn due(&self, now: UnixMillis) -> UnixMillis {
        self.wanted(now).max(self.budget_ready(now))
    }

    /// When the next request would be due if the budget had no end.
    fn wanted(&self, now: UnixMillis) -> UnixMillis {
        let wanted = if self.walk.is_some() {
            now
        } else {
            self.next_poll.min(self.full.next)
        };
        wanted.max(self.outage.until).max(now)
    }

    /// When the budget allows the next exchange.
    fn budget_ready(&self, now: UnixMillis) -> UnixMillis {
        // The reserve is for what was asked before we began to count: a window later there is none.
        let counted = now.since(self.started) >= self.config.rate_limit_window;
        let whole = self.full.filling && counted;
        self.budget.ready_at(now, whole, 1 + self.redirects)
    }

    /// Logs once that the next request waits for the budget alone.
    fn log_wait(&mut self, now: UnixMillis) {
        let wait = self.budget_ready(now).since(now);
        if self.wanted(now) <= now && wait >= LONG_WAIT && !self.wait_logged {
            self.wait_logged = true;
            let text = format!(
                "feed: the request budget (rate_limit_requests {} in {} s) is used up; next request in {} s",
                self.config.rate_limit_requests,
                self.config.rate_limit_window.as_secs(),
                wait.as_millis().div_ceil(1_000)
            );
            self.log(Level::Info, &text);
        }
    }

    fn page(&mut self, now: UnixMillis, page: Page, known: &dyn Fn() -> Vec<Subnet>) {
        self.counts.pages += 1;
        self.count_skipped(&page);
        let wall = self.wall_offset.wall(now.seconds());
        self.judge_clock(&page, wall);
        let listed = self.config.ends(&page, wall);
        if !listed.is_empty() {
            self.effects.push_back(Effect::Apply(listed));
        }
        self.full.extend_held(&page.addresses);
        let Some(walk) = &mut self.walk else {
            return;
        };
        let is_first = walk.cursor().is_none();
        let is_full = self.page_size.is_full(page.items(), is_first);
        let progress = walk.take(&page, is_full);
        if walk.advances_id() && progress != Progress::Stuck {
            self.id = Some(page.id);
        }
        self.effects.push_back(Effect::SaveSoon);
        match progress {
            Progress::More => {}
            Progress::Last if self.needs_proof(known) => {}
            Progress::Last => self.complete(now, known),
            Progress::Stuck if self.walk.as_ref().is_some_and(Walk::waits_for_proof) => {
                self.complete(now, known);
            }
            Progress::Stuck | Progress::Endless => self.cut_short(now, progress),
        }
    }

    /// True if a short page may not end this walk: something would be dropped, and the service may
    /// have begun to send smaller pages. Only its "no new bans" proves that the list ends here.
    fn needs_proof(&mut self, known: &dyn Fn() -> Vec<Subnet>) -> bool {
        let Some(walk) = &mut self.walk else {
            return false;
        };
        walk.seen()
            .is_some_and(|seen| known().iter().any(|subnet| !seen.contains(subnet)))
            && walk.wait_for_proof()
    }

    /// The walk has seen the end of the list.
    fn complete(&mut self, now: UnixMillis, known: &dyn Fn() -> Vec<Subnet>) {
        let Some(walk) = self.walk.take() else {
            return;
        };
        self.poll_later(now);
        let Some((cursor, seen)) = walk.into_full() else {
            // A poll. If it finished the fill of an earlier run, the full fetch that follows is no
            // longer urgent.
            self.full.filling = false;
            return;
        };
        let known = known();
        let dropped = known.iter().filter(|subnet| !seen.contains(subnet)).count();
        let limit = self.config.feed_shrink_limit;
        match self.full.believe(seen, dropped, known.len(), limit) {
            Ok(keep) => {
                self.id = Some(cursor.unwrap_or_else(ControlId::beginning));
                self.accept(now, keep);
            }
            Err(seen) => self.hold(now, seen, dropped, known.len()),
        }
    }

    fn hold(&mut self, now: UnixMillis, seen: HashSet<Subnet>, dropped: usize, known: usize) {
        let text = format!(
            "the full fetch would drop {dropped} of {known} addresses (feed_shrink_limit {} %): \
             nothing is dropped until a second one agrees or apiban.reload force",
            self.config.feed_shrink_limit
        );
        self.log(Level::Warn, &text);
        // Not at once: what is wrong with the service needs a while to pass.
        self.full.hold(seen, now, self.config.held_pause());
        self.effects.push_back(Effect::SaveSoon);
    }

    /// A complete list that is believed: what it does not hold goes.
    fn accept(&mut self, now: UnixMillis, keep: HashSet<Subnet>) {
        let count = keep.len();
        self.effects.push_back(Effect::Sweep(keep));
        self.effects.push_back(Effect::FullDone { count });
        self.effects.push_back(Effect::SaveSoon);
        self.full.done(now, &mut self.jitter);
    }

    /// The service repeats itself or never ends. What came is kept, nothing is dropped.
    fn cut_short(&mut self, now: UnixMillis, progress: Progress) {
        let Some(walk) = self.walk.take() else {
            return;
        };
        self.poll_later(now);
        self.full.filling = false;
        if walk.is_full() {
            self.full.give_up(now, &mut self.jitter);
        }
        let what = match progress {
            Progress::Endless => "the list does not end",
            // Some services answer a poll with the last addresses once more.
            _ if !walk.is_full() => return,
            _ => "the service repeats itself: its control ID does not grow",
        };
        let text = format!("feed: {what}; what came is kept, nothing is dropped");
        self.log(Level::Warn, &text);
    }

    fn poll_later(&mut self, now: UnixMillis) {
        let pause = self.config.held_pause();
        self.next_poll = now + self.jitter.around(pause, POLL_SPREAD);
    }
}

#[cfg(test)]
mod tests;
