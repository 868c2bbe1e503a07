//! How one exchange ended, and what that means for the next.

use std::time::Duration;

use super::{Engine, Trouble, Walk};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::feed::parse::{Answer, Page};
use crate::log::Level;

/// A full fetch of a list that is there already is given up after so many failures in a row: polls
/// matter more.
const MAX_RESYNC_FAILURES: u32 = 5;
/// Pause before it is tried again, or the poll interval if that is longer.
const RESYNC_RETRY: Duration = Duration::from_secs(3_600);

/// What is wrong now.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// `None`: nothing.
    pub trouble: Option<Trouble>,
    /// Failures in a row.
    pub failures: u32,
    /// Nothing is asked before this time.
    pub until: UnixMillis,
    /// For operators: one bounded line.
    pub text: String,
}

impl Engine {
    pub(super) fn refused(&mut self, now: UnixMillis, answer: &Answer) {
        let Some(trouble) = Trouble::of(answer) else {
            return;
        };
        let (text, retry_after) = match answer {
            Answer::Unauthorized => (
                "the service refused the API key: correct api_key or the first line of \
                 api_key_file, then run apiban.reload"
                    .to_owned(),
                None,
            ),
            Answer::RateLimited { retry_after } => (
                "the service answered: rate limit exceeded (too many requests for this key)"
                    .to_owned(),
                *retry_after,
            ),
            Answer::ServerError {
                status,
                retry_after,
            } => (
                format!("the service answered with status {status}"),
                *retry_after,
            ),
            Answer::Garbage(reason) => {
                let source = &self.config.source;
                let base = source.base();
                // The commonest mistake: the host alone.
                let hint = if source.has_no_path() {
                    "; it has no path, APIBAN's own is https://apiban.org/api"
                } else {
                    ""
                };
                (
                    format!(
                        "unexpected answer: {reason}; is api_url right ({base}{hint})? /get and the like are appended to it"
                    ),
                    None,
                )
            }
            Answer::Page(_) | Answer::Complete => return,
        };
        self.failed(now, trouble, retry_after, &text);
    }

    pub(super) fn failed(
        &mut self,
        now: UnixMillis,
        trouble: Trouble,
        retry_after: Option<u64>,
        text: &str,
    ) {
        match trouble {
            Trouble::RateLimited => self.counts.rate_limited += 1,
            _ => self.counts.errors += 1,
        }
        let failures = self.outage.failures.saturating_add(1);
        let window = self.config.rate_limit_window;
        let pause = trouble.pause(failures, retry_after, window, &mut self.jitter);
        let before = self.outage.trouble;
        self.outage = Outage {
            trouble: Some(trouble),
            failures,
            until: now + pause,
            text: self.clean(text),
        };
        if before != Some(trouble) {
            let level = match trouble {
                Trouble::Unauthorized => Level::Error,
                _ => Level::Warn,
            };
            let text = format!(
                "feed: {text}; next attempt in {} s",
                pause.as_millis().div_ceil(1_000)
            );
            self.log(level, &text);
        }
        let is_resync = self.walk.as_ref().is_some_and(Walk::is_full) && self.id.is_some();
        if is_resync && !self.full.filling && failures >= MAX_RESYNC_FAILURES {
            self.walk = None;
            self.full.force = false;
            self.full.next = now + RESYNC_RETRY.max(self.config.poll_interval);
        }
    }

    pub(super) fn succeeded(&mut self, now: UnixMillis) {
        self.counts.ok += 1;
        self.last_success = Some(now);
        let outage = std::mem::take(&mut self.outage);
        if outage.trouble.is_some() {
            let text = format!(
                "feed: the service answers again after {} failed attempts",
                outage.failures
            );
            self.log(Level::Info, &text);
        }
    }

    pub(super) fn count_skipped(&mut self, page: &Page) {
        if self.counts.skipped == 0 && page.skipped > 0 {
            let example = page.example.as_deref().unwrap_or_default();
            let text = format!(
                "the list holds items that are no address (\"{example}\"): they are skipped and counted"
            );
            self.log(Level::Warn, &text);
        }
        self.counts.skipped += page.skipped as u64;
    }

    /// A live service lists nothing that has ended. If the control ID of its page says otherwise, our
    /// clock or `feed_ttl` is wrong; `now` is the wall clock's.
    pub(super) fn judge_clock(&mut self, page: &Page, now: UnixSeconds) {
        let ttl = self.config.feed_ttl;
        if page.addresses.is_empty() {
            return;
        }
        if !page.id.is_too_old(now, ttl) {
            self.clock_problem = None;
            return;
        }
        if self.clock_problem.is_none() {
            let text = format!(
                "the service lists addresses since {} (control ID), more than feed_ttl ({} s) ago: \
                 this host's clock is ahead, or feed_ttl is too short; bans count from now",
                page.id,
                ttl.as_secs()
            );
            self.log(Level::Warn, &text);
            self.clock_problem = Some(self.clean(&text));
        }
    }
}
