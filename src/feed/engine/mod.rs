//! What to ask the service and when, and what its answers mean: a pure state machine.
//!
//! The main loop calls [`Engine::next`], hands a [`Step::Fetch`] to the HTTP thread, gives its result
//! to [`Engine::on_result`] and carries out the effects in their order. All times passed in are Unix
//! milliseconds of a clock that never runs backwards.

use std::collections::HashSet;

use crate::address::Subnet;
use crate::log::Level;

use super::client::{FetchError, Request, Response};
use super::control_id::ControlId;
use super::key::ApiKey;
use super::parse::{self, Answer, Page};
use super::request_budget::RequestBudget;
use super::schedule::{Jitter, Trouble};

mod model;
mod operator;
mod outcome;
mod status;
mod walk;

pub use model::{Effect, FeedSettings, FeedState, Listed, Saved, Status, Step};
use walk::{Progress, Walk};

/// A list shorter than this may shrink as it likes.
const SHRINK_MIN: usize = 100;
/// Percent by which polls and resyncs come early or late.
const POLL_SPREAD: u64 = 5;
/// Where polls begin after a full fetch that brought nothing: the beginning of the list.
const BEGINNING: &str = "100";

/// The request under way.
#[derive(Debug)]
struct InFlight {
    since: u64,
    /// The key or the list has changed meanwhile: its answer no longer matters.
    abandoned: bool,
}

/// The feed's state. One per updater; owned by its main loop.
#[derive(Debug)]
pub struct Engine {
    config: FeedSettings,
    key: ApiKey,
    jitter: Jitter,
    budget: RequestBudget,
    started: u64,
    /// Where the next poll begins; `None`: the list must be fetched from its beginning.
    id: Option<ControlId>,
    walk: Option<Walk>,
    in_flight: Option<InFlight>,
    next_poll: u64,
    /// `u64::MAX`: only on request.
    next_full: u64,
    /// Nothing is asked before: back-off or the service's wish.
    blocked_until: u64,
    /// No list has come through complete yet: speed matters more than the reserve.
    filling: bool,
    /// A further full fetch was asked for while one was running.
    again: bool,
    /// The next complete list is believed however short it is.
    force: bool,
    /// What a full fetch listed that nobody believed yet, and everything listed since.
    held: Option<HashSet<Subnet>>,
    trouble: Option<Trouble>,
    failures: u32,
    last_error: String,
    last_success: Option<u64>,
    last_full: Option<u64>,
    requests: u64,
    pages: u64,
    fetch_ok: u64,
    fetch_errors: u64,
    rate_limited: u64,
    skipped: u64,
    warned_of_ended: bool,
}

impl Engine {
    /// Starts with what an earlier run has saved, where that was the same list. The budget of an
    /// earlier run counts in any case.
    pub fn new(
        config: FeedSettings,
        key: impl Into<ApiKey>,
        saved: Option<Saved>,
        now: u64,
    ) -> Self {
        Engine::with_jitter(config, key, saved, now, Jitter::from_system())
    }

    /// The same with a given sequence of random pauses.
    pub fn with_jitter(
        config: FeedSettings,
        key: impl Into<ApiKey>,
        saved: Option<Saved>,
        now: u64,
        jitter: Jitter,
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
        let past = |seconds: Option<u64>| seconds.map(|s| s.saturating_mul(1_000).min(now));
        let mut engine = Engine {
            budget,
            key: key.into(),
            jitter,
            started: now,
            id: saved.id,
            walk: None,
            in_flight: None,
            next_poll: now,
            next_full: 0,
            blocked_until: 0,
            filling: saved.last_full.is_none(),
            again: false,
            force: false,
            held: None,
            trouble: None,
            failures: 0,
            last_error: String::new(),
            last_success: past(saved.last_success),
            last_full: past(saved.last_full),
            requests: 0,
            pages: 0,
            fetch_ok: 0,
            fetch_errors: 0,
            rate_limited: 0,
            skipped: 0,
            warned_of_ended: false,
            config,
        };
        engine.next_full = engine.resync_after(engine.last_full);
        engine
    }

    /// What to do now. A [`Step::Fetch`] counts as sent: its result must be brought to
    /// [`Engine::on_result`].
    pub fn next(&mut self, now: u64) -> Step {
        if self.in_flight.is_some() {
            return Step::Busy;
        }
        let Some(key) = self.key.key().cloned() else {
            return Step::Idle;
        };
        let due = self.due(now);
        if now < due {
            return Step::Wait(due);
        }
        let poll_due = now >= self.next_poll;
        let walk = self.walk.get_or_insert_with(|| match &self.id {
            // The poll first, one request as a rule: a full fetch brings what is new at its end.
            Some(id) if poll_due => Walk::poll(id.clone()),
            id => Walk::full(id.is_none()),
        });
        let after = walk.cursor().cloned();
        self.budget.sent(now);
        self.requests += 1;
        self.in_flight = Some(InFlight {
            since: now,
            abandoned: false,
        });
        Step::Fetch(Request { key, after })
    }

    /// Takes the result of the request under way. `known` gives the live entries of the feed's table;
    /// it is called at the end of a full fetch only.
    pub fn on_result(
        &mut self,
        now: u64,
        result: Result<Response, FetchError>,
        known: &dyn Fn() -> Vec<Subnet>,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(flight) = self.in_flight.take() else {
            return effects;
        };
        let redirects = result.as_ref().map_or(0, |response| response.redirects);
        self.budget.ended(now, redirects);
        if flight.abandoned {
            return effects;
        }
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                self.failed(
                    now,
                    Trouble::Network,
                    None,
                    &error.to_string(),
                    &mut effects,
                );
                return effects;
            }
        };
        match parse::parse(response.status, response.retry_after, &response.body) {
            Answer::Page(page) => {
                self.succeeded(now, &mut effects);
                self.page(now, page, known, &mut effects);
            }
            Answer::Complete => {
                self.succeeded(now, &mut effects);
                self.complete(now, known, &mut effects);
            }
            answer => self.refused(now, &answer, &mut effects),
        }
        effects
    }

    /// When the next request is due: after its date, every pause, and the budget.
    fn due(&self, now: u64) -> u64 {
        let wanted = if self.walk.is_some() {
            now
        } else {
            self.next_poll.min(self.next_full)
        };
        let due = wanted.max(self.blocked_until).max(now);
        // The reserve is for what was asked before we began to count: a window later there is none.
        let window = self.config.rate_limit_window.saturating_mul(1_000);
        let counted = now.saturating_sub(self.started) >= window;
        let ready = self.budget.ready_at(now, self.filling && counted);
        due.max(ready)
    }

    fn page(
        &mut self,
        now: u64,
        page: Page,
        known: &dyn Fn() -> Vec<Subnet>,
        effects: &mut Vec<Effect>,
    ) {
        self.pages += 1;
        self.count_skipped(&page, effects);
        let listed = self.config.ends(&page, now / 1_000);
        if !listed.is_empty() {
            effects.push(Effect::Apply(listed));
        } else if !page.addresses.is_empty() {
            self.warn_of_ended(&page, effects);
        }
        if let Some(held) = &mut self.held {
            held.extend(&page.addresses);
            if held.len() > walk::MAX_LISTED {
                // No list is that long: the next full fetch is judged as if it were the first.
                self.held = None;
            }
        }
        let Some(walk) = &mut self.walk else {
            return;
        };
        let progress = walk.take(&page);
        if walk.advances_id() && progress != Progress::Stuck {
            self.id = Some(page.id);
        }
        effects.push(Effect::SaveSoon);
        match progress {
            Progress::More => {}
            Progress::Last => self.complete(now, known, effects),
            Progress::Stuck | Progress::Endless => self.cut_short(now, progress, effects),
        }
    }

    /// The walk has seen the end of the list.
    fn complete(&mut self, now: u64, known: &dyn Fn() -> Vec<Subnet>, effects: &mut Vec<Effect>) {
        let Some(walk) = self.walk.take() else {
            return;
        };
        self.poll_later(now);
        let Some((cursor, seen)) = walk.into_full() else {
            // A poll. Where it finished the fill of an earlier run, the full fetch that follows is
            // no longer urgent.
            self.filling = false;
            return;
        };
        let known = known();
        let dropped = known.iter().filter(|subnet| !seen.contains(subnet)).count();
        let keep = match self.believe(seen, dropped, known.len()) {
            Ok(keep) => keep,
            Err(seen) => {
                self.hold(now, seen, dropped, known.len(), effects);
                return;
            }
        };
        self.id = cursor.or_else(|| ControlId::new(BEGINNING).ok());
        self.accept(now, keep, effects);
    }

    /// The set to keep where the list may be believed, otherwise the list as it came.
    fn believe(
        &mut self,
        mut seen: HashSet<Subnet>,
        dropped: usize,
        known: usize,
    ) -> Result<HashSet<Subnet>, HashSet<Subnet>> {
        let limit = usize::from(self.config.feed_shrink_limit);
        let small = known < SHRINK_MIN || dropped * 100 <= known * limit;
        match self.held.take() {
            // Two lists agree on what neither of them holds.
            Some(first) if !small && !self.force => {
                seen.extend(first);
                Ok(seen)
            }
            _ if small || self.force => Ok(seen),
            _ => Err(seen),
        }
    }

    fn hold(
        &mut self,
        now: u64,
        seen: HashSet<Subnet>,
        dropped: usize,
        known: usize,
        effects: &mut Vec<Effect>,
    ) {
        let text = format!(
            "the full fetch would drop {dropped} of {known} addresses (feed_shrink_limit {} %): \
             nothing is dropped until a second one agrees or apiban.reload force",
            self.config.feed_shrink_limit
        );
        self.log(Level::Warn, &text, effects);
        self.held = Some(seen);
        // Not at once: what is wrong with the service needs a while to pass.
        self.next_full = now.saturating_add(self.config.poll_interval.max(1).saturating_mul(1_000));
        self.again = false;
    }

    /// A complete list that is believed: what it does not hold goes.
    fn accept(&mut self, now: u64, keep: HashSet<Subnet>, effects: &mut Vec<Effect>) {
        let count = keep.len();
        effects.push(Effect::Sweep(keep));
        effects.push(Effect::FullDone { count });
        effects.push(Effect::SaveSoon);
        let text = format!("full fetch complete: {count} addresses listed");
        self.log(Level::Info, &text, effects);
        self.filling = false;
        self.force = false;
        self.last_full = Some(now);
        self.next_full = if std::mem::take(&mut self.again) {
            now
        } else {
            self.resync_after(Some(now))
        };
    }

    /// The service repeats itself or never ends. What came is kept, nothing is dropped.
    fn cut_short(&mut self, now: u64, progress: Progress, effects: &mut Vec<Effect>) {
        let Some(walk) = self.walk.take() else {
            return;
        };
        self.poll_later(now);
        self.filling = false;
        if walk.is_full() {
            self.next_full = self.resync_after(Some(now));
            // Force is for the fetch it was given with, never for one of next week.
            self.force = false;
            self.again = false;
        }
        let what = match progress {
            Progress::Endless => "the list does not end",
            // Some services answer a poll with the last addresses once more.
            _ if !walk.is_full() => return,
            _ => "the service repeats itself: its control ID does not grow",
        };
        let text = format!("{what}; kept what came, dropped nothing");
        self.log(Level::Warn, &text, effects);
    }

    fn poll_later(&mut self, now: u64) {
        let pause = self.config.poll_interval.max(1).saturating_mul(1_000);
        let pause = self.jitter.around(pause, POLL_SPREAD);
        self.next_poll = now.saturating_add(pause);
    }

    fn resync_after(&mut self, last: Option<u64>) -> u64 {
        match (self.config.resync_interval, last) {
            (0, _) => u64::MAX,
            // A fill that an earlier run began is checked as soon as it is finished.
            (_, None) => self.started,
            (seconds, Some(last)) => {
                let pause = self
                    .jitter
                    .around(seconds.saturating_mul(1_000), POLL_SPREAD);
                last.saturating_add(pause)
            }
        }
    }
}

#[cfg(test)]
mod tests;
