//! How often the service may be asked: below its own limit, whichever way it counts.
//!
//! Any stretch of the window's length sees at most `requests` of ours, so neither a server with fixed
//! windows nor one with a sliding window has cause to refuse. A request counts from when its answer
//! came: the server counted it some time between the sending and that, and the later time is the
//! safe one. Times are Unix milliseconds.

use std::collections::VecDeque;

/// Requests of a window that ordinary work leaves alone: for an operator who tries the key by hand,
/// or what was asked before a start that knows nothing of it.
const RESERVE: usize = 1;
/// Added to the window, in ms, for clocks of a second's grain; short windows get a hundredth.
const MAX_MARGIN: u64 = 1_000;
const MIN_MARGIN: u64 = 50;

/// The requests of the last window.
#[derive(Debug, Clone)]
pub struct RequestBudget {
    limit: usize,
    /// Length in ms, margin included.
    window: u64,
    /// Oldest first.
    stamps: VecDeque<u64>,
}

impl RequestBudget {
    /// `requests` (1 or more) per `window` seconds (1 or more); `stamps` are those of an earlier run.
    /// Stamps from the future (the clock was set back) count as made now.
    pub fn new(requests: u32, window: u64, stamps: &[u64], now: u64) -> Self {
        let limit = usize::try_from(requests).unwrap_or(usize::MAX).max(1);
        let window = window.max(1).saturating_mul(1_000);
        let margin = (window / 100).clamp(MIN_MARGIN, MAX_MARGIN);
        let mut budget = RequestBudget {
            limit,
            window: window.saturating_add(margin),
            stamps: VecDeque::new(),
        };
        let mut stamps: Vec<u64> = stamps.iter().map(|&stamp| stamp.min(now)).collect();
        stamps.sort_unstable();
        let surplus = stamps.len().saturating_sub(limit);
        budget.stamps.extend(&stamps[surplus..]);
        budget.forget(now);
        budget
    }

    /// When an exchange of `requests` requests may begin: `now` or later. `whole` spends the reserve
    /// too.
    pub fn ready_at(&self, now: u64, whole: bool, requests: u32) -> u64 {
        let reserve = if whole { 0 } else { RESERVE };
        let usable = self.limit.saturating_sub(reserve).max(1);
        let requests = usize::try_from(requests).unwrap_or(usize::MAX);
        let further = requests.clamp(1, usable) - 1;
        let Some(last_to_leave) = (self.stamps.len() + further).checked_sub(usable) else {
            return now;
        };
        self.stamps
            .get(last_to_leave)
            .map_or(now, |stamp| stamp.saturating_add(self.window).max(now))
    }

    /// How many requests may be sent now; at least 1.
    pub fn left(&self, now: u64) -> u32 {
        let counting = self
            .stamps
            .iter()
            .filter(|stamp| stamp.saturating_add(self.window) > now)
            .count();
        let left = self.limit.saturating_sub(counting).max(1);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Counts a request that is sent now.
    pub fn sent(&mut self, now: u64) {
        self.forget(now);
        let last = self.stamps.back().copied().unwrap_or(0);
        self.stamps.push_back(now.max(last));
    }

    /// The request sent last came to its end now, after `extra` more of its own (redirects).
    pub fn ended(&mut self, now: u64, extra: u32) {
        if let Some(last) = self.stamps.back_mut() {
            *last = now.max(*last);
            let last = *last;
            for _ in 0..extra.min(16) {
                self.stamps.push_back(last);
            }
        }
    }

    /// The requests that still count, for the state file.
    pub fn stamps(&self) -> Vec<u64> {
        self.stamps.iter().copied().collect()
    }

    fn forget(&mut self, now: u64) {
        while self
            .stamps
            .front()
            .is_some_and(|stamp| stamp.saturating_add(self.window) <= now)
        {
            self.stamps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const W: u64 = 120_000;

    #[test]
    fn ten_at_once_the_eleventh_from_the_reserve() {
        let mut budget = RequestBudget::new(11, 120, &[], 5);
        for _ in 0..10 {
            assert_eq!(budget.ready_at(5, false, 1), 5);
            budget.sent(5);
        }
        assert_eq!(budget.ready_at(5, true, 1), 5);
        assert_eq!(budget.ready_at(5, false, 1), 5 + W + 1_000);
        budget.sent(6);
        assert_eq!(budget.ready_at(7, true, 1), 5 + W + 1_000);
    }

    #[test]
    fn what_a_redirect_costs_counts() {
        let mut budget = RequestBudget::new(11, 120, &[], 0);
        for _ in 0..5 {
            budget.sent(0);
            budget.ended(10, 1);
        }
        assert_eq!(budget.ready_at(10, false, 1), 10 + W + 1_000);
    }

    #[test]
    fn a_restart_keeps_the_count_and_a_clock_set_back_does_not_block_for_ever() {
        let mut budget = RequestBudget::new(3, 120, &[], 0);
        budget.sent(1_000);
        budget.sent(2_000);
        let again = RequestBudget::new(3, 120, &budget.stamps(), 3_000);
        assert_eq!(again.ready_at(3_000, false, 1), 1_000 + W + 1_000);
        let set_back = RequestBudget::new(3, 120, &[u64::MAX, 9_000_000], 500);
        assert_eq!(set_back.ready_at(500, false, 1), 500 + W + 1_000);
        assert!(RequestBudget::new(3, 120, &[1, 2], 10 * W)
            .stamps()
            .is_empty());
    }

    #[test]
    fn an_exchange_with_redirects_waits_until_all_of_it_fits() {
        let mut budget = RequestBudget::new(4, 120, &[], 0);
        budget.sent(0);
        budget.sent(1_000);
        assert_eq!((budget.left(1_000), budget.left(W + 1_000)), (2, 3));
        // One more fits below the reserve, two only when the first has left.
        assert_eq!(budget.ready_at(1_000, false, 1), 1_000);
        assert_eq!(budget.ready_at(1_000, false, 2), W + 1_000);
        assert_eq!(budget.ready_at(1_000, true, 2), 1_000);
        // More than the limit is never possible at once: as many as there can be.
        assert_eq!(budget.ready_at(1_000, true, 9), 1_000 + W + 1_000);
    }

    #[test]
    fn a_limit_of_one_still_asks() {
        let mut budget = RequestBudget::new(1, 2, &[], 0);
        assert_eq!(budget.ready_at(0, false, 1), 0);
        budget.sent(0);
        assert_eq!(budget.ready_at(0, true, 1), 2_050);
    }

    proptest! {
        /// Whenever the server counts a request between sending and answer, no window holds too many.
        #[test]
        fn no_window_ever_holds_more_than_the_limit(
            limit in 1u32..15,
            window in 1u64..200,
            steps in prop::collection::vec((0u64..40_000, 0u64..15_000, 0.0f64..=1.0, any::<bool>(), any::<bool>()), 1..120),
        ) {
            let mut now = 1_000_000;
            let mut budget = RequestBudget::new(limit, window, &[], now);
            let mut counted: Vec<u64> = Vec::new();
            for (pause, took, share, whole, restart) in steps {
                now = budget.ready_at(now + pause, whole, 1);
                budget.sent(now);
                counted.push(now + (took as f64 * share) as u64);
                now += took;
                budget.ended(now, 0);
                if restart {
                    budget = RequestBudget::new(limit, window, &budget.stamps(), now);
                }
            }
            let limit = limit as usize;
            for pair in counted.windows(limit + 1) {
                prop_assert!(pair[limit] - pair[0] > window * 1_000);
            }
        }
    }
}
