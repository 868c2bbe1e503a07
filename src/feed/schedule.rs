//! The pauses: between polls, after errors, after a refusal.

use std::time::Duration;

use super::parse::Answer;
use crate::clock::milliseconds;

/// First pause after an error; it doubles with each further one.
const ERROR_BASE: Duration = Duration::from_secs(5);
/// Longest pause after an error.
const ERROR_CAP: Duration = Duration::from_secs(300);
/// Longest pause that the service may ask for with Retry-After.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(3_600);
/// Pause after the service refused the key: asking again cannot help, a human must.
const UNAUTHORIZED_PAUSE: Duration = Duration::from_secs(3_600);

/// What stands between us and the list. The caller logs changes of kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No answer: network, TLS, timeout.
    Network,
    /// The service answered with an error of its own.
    Server,
    /// An answer that this API does not have.
    Garbage,
    /// Too many requests.
    RateLimited,
    /// The key was refused.
    Unauthorized,
}

impl Trouble {
    /// The trouble that an answer brings, if any.
    pub fn of(answer: &Answer) -> Option<Trouble> {
        match answer {
            Answer::Page(_) | Answer::Complete => None,
            Answer::Unauthorized => Some(Trouble::Unauthorized),
            Answer::RateLimited { .. } => Some(Trouble::RateLimited),
            Answer::ServerError { .. } => Some(Trouble::Server),
            Answer::Garbage(_) => Some(Trouble::Garbage),
        }
    }

    /// Pause after the `count`th failure in a row (from 1). `retry_after` is in seconds, `window` is the rate limit's.
    pub fn pause(
        self,
        count: u32,
        retry_after: Option<u64>,
        window: Duration,
        jitter: &mut Jitter,
    ) -> Duration {
        // "At once", or a date that is over, is no wish: it would bring the same answer again.
        let asked = retry_after
            .filter(|&seconds| seconds > 0)
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_CAP));
        let doubled = |base: Duration| {
            let shift = count.saturating_sub(1).min(16);
            base.saturating_mul(1 << shift).min(ERROR_CAP)
        };
        match (self, asked) {
            (Trouble::Unauthorized, _) => UNAUTHORIZED_PAUSE,
            // Never sooner than asked for, and not all hosts of a key at the same instant.
            (Trouble::RateLimited | Trouble::Server, Some(asked)) => {
                asked + jitter.up_to(asked / 20)
            }
            (Trouble::RateLimited, None) => {
                // Requests of other hosts leave the window bit by bit.
                let base = (window / 8).clamp(ERROR_BASE, ERROR_CAP);
                jitter.around(doubled(base), 20)
            }
            _ => jitter.around(doubled(ERROR_BASE), 20),
        }
    }
}

/// Random pauses: hosts that share a key, or lost the same network, do not ask at the same time.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// A sequence that only `seed` determines.
    pub fn seeded(seed: u64) -> Self {
        Jitter(seed)
    }

    /// A sequence of its own for every process.
    pub fn from_system() -> Self {
        // Without the kernel's randomness every host has the same pauses, and nothing else is lost.
        Jitter(getrandom::u64().unwrap_or(0))
    }

    /// A pause of nothing to `limit`, both included, in whole milliseconds.
    pub fn up_to(&mut self, limit: Duration) -> Duration {
        Duration::from_millis(self.below(milliseconds(limit)))
    }

    /// 0 to `limit`, both included.
    pub fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64: a few instructions, good enough for pauses.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.saturating_add(1).max(1)
    }

    /// `pause` give or take `percent`, in whole milliseconds.
    pub fn around(&mut self, pause: Duration, percent: u64) -> Duration {
        let value = milliseconds(pause);
        let spread = value.saturating_mul(percent) / 100;
        let least = value - spread.min(value);
        Duration::from_millis(least.saturating_add(self.below(spread.saturating_mul(2))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(120);

    #[test]
    fn errors_back_off_to_five_minutes() {
        let mut jitter = Jitter::seeded(1);
        let mut pause = |count| Trouble::Network.pause(count, None, WINDOW, &mut jitter);
        for (count, middle) in [
            (1, 5_000),
            (2, 10_000),
            (3, 20_000),
            (7, 300_000),
            (u32::MAX, 300_000),
        ] {
            let pause = milliseconds(pause(count));
            assert!(
                (middle * 4 / 5..=middle * 6 / 5).contains(&pause),
                "{count}: {pause}"
            );
        }
    }

    #[test]
    fn the_services_wish_is_honoured_within_reason() {
        let mut jitter = Jitter::seeded(2);
        let mut pause =
            |trouble: Trouble, s| milliseconds(trouble.pause(1, s, WINDOW, &mut jitter));
        let asked = pause(Trouble::RateLimited, Some(40));
        assert!((40_000..=42_000).contains(&asked));
        assert!(pause(Trouble::Server, Some(u64::MAX)) <= 3_780_000);
        assert!(pause(Trouble::RateLimited, Some(0)) >= 12_000);
        assert_eq!(pause(Trouble::Unauthorized, Some(1)), 3_600_000);
        let unasked = pause(Trouble::RateLimited, None);
        assert!((12_000..=18_000).contains(&unasked));
    }
}
