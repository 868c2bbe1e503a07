//! How often the service may be asked: below its own limit, whichever way it counts.
//!
//! Any stretch of the window's length sees at most `requests` of ours, so neither a server with fixed
//! windows nor one with a sliding window has cause to refuse. A request counts from when its answer
//! came: the server counted it some time between the sending and that, and the later time is the
//! safe one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::UnixMillis;

/// Requests of a window that ordinary work leaves alone: for an operator who tries the key by hand,
/// or what was asked before a start that knows nothing of it.
const RESERVE: usize = 1;
/// Added to the window, for clocks of a second's grain; short windows get a hundredth.
const MAX_MARGIN: Duration = Duration::from_secs(1);
const MIN_MARGIN: Duration = Duration::from_millis(50);
/// The shortest window.
const MIN_WINDOW: Duration = Duration::from_secs(1);

/// The requests of the last window.
#[derive(Debug, Clone)]
pub struct RequestBudget {
    limit: usize,
    /// Margin included.
    window: Duration,
    /// Oldest first.
    stamps: VecDeque<UnixMillis>,
}

impl RequestBudget {
    /// `requests` (1 or more) per `window` (a second or more); `stamps` are those of an earlier run.
    /// Stamps from the future (the clock was set back) count as made now.
    pub fn new(requests: u32, window: Duration, stamps: &[UnixMillis], now: UnixMillis) -> Self {
        let limit = usize::try_from(requests).unwrap_or(usize::MAX).max(1);
        let window = window.max(MIN_WINDOW);
        let margin = (window / 100).clamp(MIN_MARGIN, MAX_MARGIN);
        let mut budget = RequestBudget {
            limit,
            window: window + margin,
            stamps: VecDeque::new(),
        };
        let mut stamps: Vec<UnixMillis> = stamps.iter().map(|&stamp| stamp.min(now)).collect();
        stamps.sort_unstable();
        let surplus = stamps.len().saturating_sub(limit);
        budget.stamps.extend(&stamps[surplus..]);
        budget.forget(now);
        budget
    }

    /// When an exchange of `requests` requests may begin: `now` or later. `whole` spends the reserve
    /// too.
    pub fn ready_at(&self, now: UnixMillis, whole: bool, requests: u32) -> UnixMillis {
        let reserve = if whole { 0 } else { RESERVE };
        let usable = self.limit.saturating_sub(reserve).max(1);
        let requests = usize::try_from(requests).unwrap_or(usize::MAX);
        let further = requests.clamp(1, usable) - 1;
        let Some(last_to_leave) = (self.stamps.len() + further).checked_sub(usable) else {
            return now;
        };
        self.stamps
            .get(last_to_leave)
            .map_or(now, |stamp| (*stamp + self.window).max(now))
    }

    /// How many requests may be sent now; at least 1.
    pub fn left(&self, now: UnixMillis) -> u32 {
        let counting = self
            .stamps
            .iter()
            .filter(|stamp| **stamp + self.window > now)
            .count();
        let left = self.limit.saturating_sub(counting).max(1);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Counts a request that is sent now.
    pub fn sent(&mut self, now: UnixMillis) {
        self.forget(now);
        let last = self.stamps.back().copied().unwrap_or_default();
        self.stamps.push_back(now.max(last));
    }

    /// The request sent last came to its end now, after `extra` more of its own (redirects).
    pub fn ended(&mut self, now: UnixMillis, extra: u32) {
        if let Some(last) = self.stamps.back_mut() {
            *last = now.max(*last);
            let last = *last;
            for _ in 0..extra.min(16) {
                self.stamps.push_back(last);
            }
        }
    }

    /// The requests that still count, for the state file.
    pub fn stamps(&self) -> Vec<UnixMillis> {
        self.stamps.iter().copied().collect()
    }

    fn forget(&mut self, now: UnixMillis) {
        while self
            .stamps
            .front()
            .is_some_and(|stamp| *stamp + self.window <= now)
        {
            self.stamps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::simulated::at_ms;

    const W: Duration = Duration::from_secs(120);
    /// The margin of that window.
    const MARGIN: Duration = Duration::from_secs(1);

    #[test]
    fn ten_at_once_the_eleventh_from_the_reserve() {
        let mut budget = RequestBudget::new(11, W, &[], at_ms(5));
        for _ in 0..10 {
            assert_eq!(budget.ready_at(at_ms(5), false, 1), at_ms(5));
            budget.sent(at_ms(5));
        }
        assert_eq!(budget.ready_at(at_ms(5), true, 1), at_ms(5));
        assert_eq!(budget.ready_at(at_ms(5), false, 1), at_ms(5) + W + MARGIN);
        budget.sent(at_ms(6));
        assert_eq!(budget.ready_at(at_ms(7), true, 1), at_ms(5) + W + MARGIN);
    }

    #[test]
    fn what_a_redirect_costs_counts() {
        let mut budget = RequestBudget::new(11, W, &[], at_ms(0));
        for _ in 0..5 {
            budget.sent(at_ms(0));
            budget.ended(at_ms(10), 1);
        }
        assert_eq!(budget.ready_at(at_ms(10), false, 1), at_ms(10) + W + MARGIN);
    }

    #[test]
    fn a_restart_keeps_the_count_and_a_clock_set_back_does_not_block_for_ever() {
        let mut budget = RequestBudget::new(3, W, &[], at_ms(0));
        budget.sent(at_ms(1_000));
        budget.sent(at_ms(2_000));
        let again = RequestBudget::new(3, W, &budget.stamps(), at_ms(3_000));
        assert_eq!(
            again.ready_at(at_ms(3_000), false, 1),
            at_ms(1_000) + W + MARGIN
        );
        let set_back = RequestBudget::new(3, W, &[UnixMillis::MAX, at_ms(9_000_000)], at_ms(500));
        assert_eq!(
            set_back.ready_at(at_ms(500), false, 1),
            at_ms(500) + W + MARGIN
        );
        assert!(
            RequestBudget::new(3, W, &[at_ms(1), at_ms(2)], at_ms(0) + W * 10)
                .stamps()
                .is_empty()
        );
    }

    #[test]
    fn an_exchange_with_redirects_waits_until_all_of_it_fits() {
        let mut budget = RequestBudget::new(4, W, &[], at_ms(0));
        budget.sent(at_ms(0));
        budget.sent(at_ms(1_000));
        assert_eq!(
            (budget.left(at_ms(1_000)), budget.left(at_ms(1_000) + W)),
            (2, 3)
        );
        // One more fits below the reserve, two only when the first has left.
        assert_eq!(budget.ready_at(at_ms(1_000), false, 1), at_ms(1_000));
        assert_eq!(budget.ready_at(at_ms(1_000), false, 2), at_ms(1_000) + W);
        assert_eq!(budget.ready_at(at_ms(1_000), true, 2), at_ms(1_000));
        // More than the limit is never possible at once: as many as there can be.
        assert_eq!(
            budget.ready_at(at_ms(1_000), true, 9),
            at_ms(1_000) + W + MARGIN
        );
    }

    #[test]
    fn a_limit_of_one_still_asks() {
        let mut budget = RequestBudget::new(1, Duration::from_secs(2), &[], at_ms(0));
        assert_eq!(budget.ready_at(at_ms(0), false, 1), at_ms(0));
        budget.sent(at_ms(0));
        assert_eq!(budget.ready_at(at_ms(0), true, 1), at_ms(2_050));
    }

    proptest! {
        /// Whenever the server counts a request between sending and answer, no window holds too many.
        #[test]
        fn no_window_ever_holds_more_than_the_limit(
            limit in 1u32..15,
            window in 1u64..200,
            steps in prop::collection::vec((0u64..40_000, 0u64..15_000, 0.0f64..=1.0, any::<bool>(), any::<bool>()), 1..120),
        ) {
            let window = Duration::from_secs(window);
            let mut now = at_ms(1_000_000);
            let mut budget = RequestBudget::new(limit, window, &[], now);
            let mut counted: Vec<UnixMillis> = Vec::new();
            for (pause, took, share, whole, restart) in steps {
                now = budget.ready_at(now + Duration::from_millis(pause), whole, 1);
                budget.sent(now);
                let took = Duration::from_millis(took);
                counted.push(now + took.mul_f64(share));
                now = now + took;
                budget.ended(now, 0);
                if restart {
                    budget = RequestBudget::new(limit, window, &budget.stamps(), now);
                }
            }
            let limit = limit as usize;
            for pair in counted.windows(limit + 1) {
                prop_assert!(pair[limit].since(pair[0]) > window);
            }
        }
    }
}
