//! The next full fetch: when it is due, and whether a complete list is believed.

use std::collections::HashSet;
use std::time::Duration;

use super::walk::MAX_LISTED;
use super::{HeldBack, POLL_SPREAD};
use crate::address::Subnet;
use crate::clock::UnixMillis;
use crate::feed::schedule::Jitter;

/// A list shorter than this may shrink as it likes.
const SHRINK_MIN: usize = 100;

/// What is known about past and coming full fetches.
#[derive(Debug)]
pub(super) struct FullFetch {
    /// Time between two of them; nothing: only on request.
    interval: Duration,
    /// When the next one is due; [`UnixMillis::MAX`]: only on request.
    pub next: UnixMillis,
    /// When the last one was believed.
    pub last: Option<UnixMillis>,
    /// No whole list has been received yet: speed matters more than the reserve.
    pub filling: bool,
    /// A further one was asked for while one was running.
    pub again: bool,
    /// The next complete list is believed however short it is.
    pub force: bool,
    /// The list of a full fetch that nobody believed yet, and everything listed since.
    held: Option<Held>,
}

/// Such a list.
#[derive(Debug)]
struct Held {
    /// When it was held back.
    since: UnixMillis,
    seen: HashSet<Subnet>,
}

impl FullFetch {
    pub fn new(
        interval: Duration,
        last: Option<UnixMillis>,
        now: UnixMillis,
        jitter: &mut Jitter,
    ) -> Self {
        let mut full = FullFetch {
            interval,
            next: UnixMillis::MAX,
            last,
            filling: last.is_none(),
            again: false,
            force: false,
            held: None,
        };
        match last {
            Some(last) => full.after(last, jitter),
            // A fill that an earlier run began is checked as soon as it is finished.
            None if !interval.is_zero() => full.next = now,
            None => {}
        }
        full
    }

    /// Plans the next one after one that ended at `last`.
    fn after(&mut self, last: UnixMillis, jitter: &mut Jitter) {
        self.next = match self.interval {
            Duration::ZERO => UnixMillis::MAX,
            interval => last + jitter.around(interval, POLL_SPREAD),
        };
    }

    /// A complete list was believed at `now`.
    pub fn done(&mut self, now: UnixMillis, jitter: &mut Jitter) {
        self.filling = false;
        self.force = false;
        self.last = Some(now);
        self.after(now, jitter);
        if std::mem::take(&mut self.again) {
            self.next = now;
        }
    }

    /// One that did not come to its end is not tried again before the next date. Force is for the
    /// fetch it was given with, never for one of next week.
    pub fn give_up(&mut self, now: UnixMillis, jitter: &mut Jitter) {
        self.force = false;
        self.again = false;
        self.after(now, jitter);
    }

    /// True if a list waits for a second one that agrees.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Keeps a list that is not believed at `now` until the next one, which comes `pause` later.
    pub fn hold(&mut self, seen: HashSet<Subnet>, now: UnixMillis, pause: Duration) {
        self.held = Some(Held { since: now, seen });
        self.next = now + pause;
        self.again = false;
    }

    /// Goes on from a list that an earlier run held back at `since`; the next full fetch comes `pause`
    /// after that.
    pub fn resume_held(&mut self, since: UnixMillis, listed: &[String], pause: Duration) {
        let seen = listed.iter().filter_map(|text| text.parse().ok()).collect();
        self.held = Some(Held { since, seen });
        self.next = self.next.min(since + pause);
    }

    /// Since when a list is held.
    pub fn held_since(&self) -> Option<UnixMillis> {
        self.held.as_ref().map(|held| held.since)
    }

    /// The list that is held and since when, as the state file keeps it.
    pub fn held_back(&self) -> Option<HeldBack> {
        self.held.as_ref().map(|held| HeldBack {
            // Rounded up: the second opinion must not come too soon.
            since: held.since.seconds_up(),
            listed: held.seen.iter().map(ToString::to_string).collect(),
        })
    }

    /// The list that is held, which is held no longer.
    pub fn take_held(&mut self) -> Option<HashSet<Subnet>> {
        self.held.take().map(|held| held.seen)
    }

    /// Adds what has been listed since to the list that is held.
    pub fn extend_held(&mut self, addresses: &[Subnet]) {
        if let Some(held) = &mut self.held {
            held.seen.extend(addresses);
            if held.seen.len() > MAX_LISTED {
                // No list is that long: the next full fetch is judged as if it were the first.
                self.held = None;
            }
        }
    }

    /// The set to keep if the list may be believed, otherwise the list as it came. It would drop
    /// `dropped` of `known` entries; `limit` is `feed_shrink_limit` in percent.
    pub fn believe(
        &mut self,
        mut seen: HashSet<Subnet>,
        dropped: usize,
        known: usize,
        limit: u8,
    ) -> Result<HashSet<Subnet>, HashSet<Subnet>> {
        let small = known < SHRINK_MIN || dropped * 100 <= known * usize::from(limit);
        match self.held.take() {
            // Two lists agree on what neither of them holds.
            Some(first) if !small && !self.force => {
                seen.extend(first.seen);
                Ok(seen)
            }
            _ if small || self.force => Ok(seen),
            _ => Err(seen),
        }
    }
}
