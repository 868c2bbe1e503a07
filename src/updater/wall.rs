//! Steps of the wall clock: what came from the state file has its end by that clock, and follows it.

use std::time::Duration;

use crate::clock::{UnixSeconds, WallOffset};
use crate::config::Config;
use crate::notice;
use crate::shared::origin::Origin;
use crate::shared::Shared;
use crate::state::restore::SavedEnds;

/// A smaller step moves nothing, in milliseconds: no ban is that exact.
const STEP: i64 = 10_000;
/// How long after the start a step is taken for the correction of a clock that was wrong at the start.
const KEEP: Duration = Duration::from_secs(86_400);

/// Looks for steps, and keeps what the state file said until no step is expected any more.
pub struct WallWatch {
    saved: SavedEnds,
    /// The offset that the ends in the tables were made with.
    settled: WallOffset,
    forget_at: UnixSeconds,
}

impl WallWatch {
    /// Begins with the ends of the state file, at `now` in internal time.
    pub fn new(saved: SavedEnds, now: UnixSeconds) -> Self {
        WallWatch {
            saved,
            settled: WallOffset::default(),
            forget_at: now + KEEP,
        }
    }

    /// True if the wall clock was set since the last step.
    pub fn is_step(&mut self, offset: WallOffset) -> bool {
        let step = offset.step_from(self.settled);
        if step.abs() < STEP {
            return false;
        }
        self.settled = offset;
        let direction = if step > 0 { "forward" } else { "back" };
        notice!(
            "the system clock was set {direction} by {} seconds; bans keep the time they have left",
            step.abs() / 1000
        );
        true
    }

    /// Makes the ends of what came from the state file again; what seemed to be over comes back. True if a ban
    /// changed. The trust set must be put in force after this.
    pub fn settle(&mut self, shared: &Shared, config: &Config, offset: WallOffset) -> bool {
        let mut any = false;
        // Trust first: it decides which bans come back.
        for loan in &mut self.saved.loans {
            loan.settle(shared, offset);
        }
        for ban in &mut self.saved.bans {
            any |= ban.settle(shared, config, offset);
        }
        any
    }

    /// The table of this origin was emptied, or the service gave a complete list: what the state file said of it
    /// counts no longer.
    pub fn forget(&mut self, origin: Origin) {
        self.saved.bans.retain(|ban| ban.origin != origin);
    }

    /// Forgets everything once the clock of the start is no longer in question.
    pub fn forget_when_old(&mut self, now: UnixSeconds) {
        if now >= self.forget_at {
            self.saved = SavedEnds::default();
        }
    }
}
