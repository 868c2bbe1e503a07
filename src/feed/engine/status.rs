//! What the engine tells operators and the state file.

use crate::clock::UnixMillis;
use crate::feed::key::ApiKey;
use crate::log::Level;
use crate::quote::foreign;

use super::{Effect, Engine, FeedState, Saved, Status, Trouble, Walk};

/// Longest line for operators, in characters.
const MAX_TEXT: usize = 250;
/// Poll intervals without success after which the list counts as stale.
const STALE_INTERVALS: u32 = 3;

impl Engine {
    /// The feed as operators see it at `now`.
    pub fn status(&self, now: UnixMillis) -> Status {
        let planned = self.key.key().is_some() && self.in_flight.is_none();
        Status {
            state: self.state(now),
            id: self.id.clone(),
            last_success: self.last_success.map(UnixMillis::seconds),
            last_error: self.last_error(),
            next_poll: planned.then(|| self.due(now).seconds_up()),
            waiting_for: if planned { self.waiting_for(now) } else { "" },
            held_since: self.full.held_since().map(UnixMillis::seconds_up),
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
    fn waiting_for(&self, now: UnixMillis) -> &'static str {
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
            last_success: self.last_success.map(UnixMillis::seconds),
            last_full: self.full.last.map(UnixMillis::seconds),
            budget: self.budget.stamps(),
            source: self.config.source.fingerprint(),
        }
    }

    fn state(&self, now: UnixMillis) -> FeedState {
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
    fn is_stale(&self, now: UnixMillis) -> bool {
        let patience = self.config.poll_interval.saturating_mul(STALE_INTERVALS);
        let late = |since| now.since(since) > patience;
        let since = self.last_success.unwrap_or_default().max(self.started);
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
