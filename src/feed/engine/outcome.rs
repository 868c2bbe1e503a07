//! How one exchange ended, and what that means for the next.

use super::{Effect, Engine, Trouble, Walk};
use crate::feed::parse::{Answer, Page};
use crate::log::Level;

/// A resync that fails this often in a row makes way for the polls.
const MAX_RESYNC_FAILURES: u32 = 5;
/// Pause in ms before such a resync is tried again, or the poll interval where that is longer.
const RESYNC_RETRY: u64 = 3_600_000;

impl Engine {
    pub(super) fn refused(&mut self, now: u64, answer: &Answer, effects: &mut Vec<Effect>) {
        let Some(trouble) = Trouble::of(answer) else {
            return;
        };
        let (text, retry_after) = match answer {
            Answer::Unauthorized => ("the service refused the API key".to_owned(), None),
            Answer::RateLimited { retry_after } => ("rate limit exceeded".to_owned(), *retry_after),
            Answer::ServerError {
                status,
                retry_after,
            } => (
                format!("the service answered with status {status}"),
                *retry_after,
            ),
            Answer::Garbage(reason) => (format!("unexpected answer: {reason}"), None),
            Answer::Page(_) | Answer::Complete => return,
        };
        self.failed(now, trouble, retry_after, &text, effects);
    }

    pub(super) fn failed(
        &mut self,
        now: u64,
        trouble: Trouble,
        retry_after: Option<u64>,
        text: &str,
        effects: &mut Vec<Effect>,
    ) {
        self.failures = self.failures.saturating_add(1);
        match trouble {
            Trouble::RateLimited => self.rate_limited += 1,
            _ => self.fetch_errors += 1,
        }
        let window = self.config.rate_limit_window;
        let pause = trouble.pause(self.failures, retry_after, window, &mut self.jitter);
        self.blocked_until = now.saturating_add(pause);
        self.last_error = self.clean(text);
        if self.trouble.replace(trouble) != Some(trouble) {
            let level = match trouble {
                Trouble::Unauthorized => Level::Error,
                _ => Level::Warn,
            };
            let text = format!("{text}; next attempt in {} s", pause.div_ceil(1_000));
            self.log(level, &text, effects);
        }
        let resync = self.walk.as_ref().is_some_and(Walk::is_full) && self.id.is_some();
        if resync && !self.filling && self.failures >= MAX_RESYNC_FAILURES {
            self.walk = None;
            self.force = false;
            let interval = self.config.poll_interval.saturating_mul(1_000);
            self.next_full = now.saturating_add(RESYNC_RETRY.max(interval));
        }
    }

    pub(super) fn succeeded(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.fetch_ok += 1;
        self.last_success = Some(now);
        self.blocked_until = 0;
        self.last_error.clear();
        let failures = std::mem::take(&mut self.failures);
        if self.trouble.take().is_some() {
            let text = format!("the service answers again after {failures} failed attempts");
            self.log(Level::Info, &text, effects);
        }
    }

    pub(super) fn count_skipped(&mut self, page: &Page, effects: &mut Vec<Effect>) {
        if self.skipped == 0 && page.skipped > 0 {
            let example = page.example.as_deref().unwrap_or_default();
            let text = format!(
                "the list holds what is no address (\"{example}\"): such items are skipped and counted"
            );
            self.log(Level::Warn, &text, effects);
        }
        self.skipped += page.skipped as u64;
    }
    /// A service lists nothing that has ended, so our idea of the time or of `feed_ttl` is wrong.
    pub(super) fn warn_of_ended(&mut self, page: &Page, effects: &mut Vec<Effect>) {
        if !std::mem::replace(&mut self.warned_of_ended, true) {
            let text = format!(
                "the service lists addresses whose time is over (control ID {}, feed_ttl {} s): \
                 they are skipped; check feed_ttl and this host's clock",
                page.id, self.config.feed_ttl
            );
            self.log(Level::Warn, &text, effects);
        }
    }
}
