//! What the engine tells operators and the state file.

use crate::feed::key::ApiKey;
use crate::log::Level;
use crate::quote::foreign;

use super::{Effect, Engine, FeedState, Saved, Status, Trouble, Walk};

/// Longest line for operators, in characters.
const MAX_TEXT: usize = 250;
/// Poll intervals without success after which the list counts as stale.
const STALE_INTERVALS: u64 = 3;

impl Engine {
    /// The feed as operators see it at `now`.
    pub fn status(&self, now: u64) -> Status {
        let planned = self.key.key().is_some() && self.in_flight.is_none();
        Status {
            state: self.state(now),
            id: self.id.clone(),
            last_success: self.last_success.map(|ms| ms / 1_000),
            last_error: self.last_error(),
            next_poll: planned.then(|| self.due(now).div_ceil(1_000)),
            waiting_for: if planned { self.waiting_for(now) } else { "" },
            held_since: self.full.held_since().map(|ms| ms.div_ceil(1_000)),
            requests: self.counts.requests,
            pages: self.counts.pages,
            fetch_ok: self.counts.ok,
            fetch_errors: self.counts.errors,
            rate_limited: self.counts.rate_limited,
            skipped: self.counts.skipped,
        }
    }

    fn last_error(&self) -> String {
        match &self.key {
            ApiKey::Unusable(problem) => self.clean(problem),
            _ if !self.outage.text.is_empty() => self.outage.text.clone(),
            _ => self.clock_problem.clone().unwrap_or_default(),
        }
    }

    /// What the next request waits for, if not for its usual date.
    fn waiting_for(&self, now: u64) -> &'static str {
        let wanted = self.wanted(now);
        if self.budget_ready(now) > wanted {
            "request budget"
        } else if self.outage.until > now && self.outage.until == wanted {
            "pause after an error"
        } else {
            ""
        }
    }

    /// What the next run needs, with the list that is held back.
    pub fn to_save(&self) -> Saved {
        Saved {
            held: self.full.held_back(),
            ..self.saved()
        }
    }

    /// What the next run needs, but for the list that is held back, which may be long.
    pub fn saved(&self) -> Saved {
        Saved {
            held: None,
            id: self.id.clone(),
            last_success: self.last_success.map(|ms| ms / 1_000),
            last_full: self.full.last.map(|ms| ms / 1_000),
            budget: self.budget.stamps(),
            source: self.config.source.fingerprint(),
        }
    }

    fn state(&self, now: u64) -> FeedState {
        match self.key {
            ApiKey::NotSet => return FeedState::Disabled,
            ApiKey::Unusable(_) => return FeedState::Unauthorized,
            ApiKey::Usable(_) => {}
        }
        match self.outage.trouble {
            Some(Trouble::Unauthorized) => return FeedState::Unauthorized,
            Some(Trouble::RateLimited) => return FeedState::RateLimited,
            _ => {}
        }
        if self.is_stale(now) {
            FeedState::Stale
        } else if self.full.is_held() {
            FeedState::Held
        } else if self.walk.as_ref().is_some_and(Walk::is_full) || self.full.filling {
            if self.counts.ok == 0 {
                FeedState::Starting
            } else {
                FeedState::Syncing
            }
        } else if self.counts.ok == 0 {
            FeedState::Starting
        } else {
            FeedState::Ok
        }
    }

    /// Waiting for the budget alone makes nothing stale: that is the pace the service wants.
    fn is_stale(&self, now: u64) -> bool {
        let patience = self
            .config
            .poll_interval
            .saturating_mul(STALE_INTERVALS * 1_000);
        let late = |since: u64| now.saturating_sub(since) > patience;
        let since = self.last_success.unwrap_or(0).max(self.started);
        let hanging = self.in_flight.as_ref().is_some_and(|f| late(f.since));
        late(since) && (self.outage.failures > 0 || hanging)
    }

    /// One bounded line without the key.
    pub(super) fn clean(&self, text: &str) -> String {
        let text = match self.key.key() {
            Some(key) => key.redact(text),
            None => text.to_owned(),
        };
        foreign(&text, MAX_TEXT).to_string()
    }

    pub(super) fn log(&mut self, level: Level, text: &str) {
        self.effects.push_back(Effect::Log(level, self.clean(text)));
    }
}
