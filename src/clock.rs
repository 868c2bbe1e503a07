//! The time: one that never jumps for all that is counted, and the wall clock for all that is shown or kept.
//!
//! The system's clock may be wrong at the start and right later: a Raspberry Pi has no clock of its own and
//! boots in the past, a virtual machine wakes up with the time at which it was put to sleep, an operator
//! mistypes a date; NTP then sets it. If bans ended by that clock, one step forward would end all of them and one
//! step back would make them last for days. So everything is counted in *internal time*: the wall clock at the
//! start, and from there `CLOCK_BOOTTIME`, which no step moves and which counts while the machine sleeps. Ends in
//! the tables, the schedule of the feed and the request budget are internal times. Wherever a time leaves
//! or enters the process, the current difference between wall clock and internal time is added or taken off: in
//! the state file, in RPC, and where a control ID, which is a wall-clock time of the service, becomes the end of an
//! entry.
//!
//! After a step of the wall clock:
//! - bans that were placed since the start keep the duration that they were given: nothing moves;
//! - bans that came from the state file have an end by the wall clock: their internal ends are made
//!   again, and bans that seemed to be over come back (see `state::restore`);
//! - entries of the list keep their internal ends, which are at most `feed_ttl` away whatever the clock said; a
//!   full fetch gives each its right end. They are not moved with the step, because a step to a wrong time must not
//!   end the whole list.
//!
//! A point in time is a [`UnixSeconds`] or a [`UnixMillis`], by either clock; [`WallOffset`] is the only way from one
//! clock to the other.

mod unix;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{clock_gettime, ClockId};

pub use unix::{milliseconds, UnixMillis, UnixSeconds};

/// Both clocks of the system, read together.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Time since 1970 by the wall clock, which may be set at any moment.
    pub wall: Duration,
    /// Time since the machine was started, sleep included. Never steps.
    pub boot: Duration,
}

/// Where the time comes from: the system, or a test.
pub trait TimeSource: Sync {
    /// Reads both clocks.
    fn read(&self) -> Reading;
}

/// The clocks of the system.
struct System;

impl TimeSource for System {
    fn read(&self) -> Reading {
        Reading {
            wall: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            // Every Linux since 2.6.39 has this clock, so the read cannot fail.
            boot: clock_gettime(ClockId::CLOCK_BOOTTIME)
                .map(Duration::from)
                .unwrap_or_default(),
        }
    }
}

/// Internal time. A copy, also one in a forked process, shows the same time.
#[derive(Clone, Copy)]
pub struct Clock {
    source: &'static dyn TimeSource,
    start: Reading,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("start", &self.start).finish()
    }
}

impl Clock {
    /// Internal time begins as the wall clock of the system.
    pub fn start() -> Self {
        Self::with(&System)
    }

    /// The same with other clocks.
    pub fn with(source: &'static dyn TimeSource) -> Self {
        Clock {
            source,
            start: source.read(),
        }
    }

    /// Internal time.
    pub fn unix_ms(&self) -> UnixMillis {
        self.internal(self.source.read())
    }

    /// Internal time in whole seconds.
    pub fn unix(&self) -> UnixSeconds {
        self.unix_ms().seconds()
    }

    /// How far the wall clock is ahead of internal time now.
    pub fn wall_offset(&self) -> WallOffset {
        let reading = self.source.read();
        let wall = UnixMillis::ZERO + reading.wall;
        WallOffset(wall.ahead_of(self.internal(reading)))
    }

    fn internal(&self, reading: Reading) -> UnixMillis {
        let run = reading.boot.saturating_sub(self.start.boot);
        UnixMillis::ZERO + (self.start.wall + run)
    }
}

/// Milliseconds by which the wall clock is ahead of internal time; negative if it is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallOffset(i64);

impl WallOffset {
    /// This many milliseconds, negative if the wall clock is behind.
    pub const fn new(milliseconds: i64) -> Self {
        WallOffset(milliseconds)
    }

    /// The milliseconds, negative if the wall clock is behind.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The wall-clock time of an internal one.
    pub const fn wall(self, internal: UnixSeconds) -> UnixSeconds {
        internal.shifted(self.seconds())
    }

    /// The internal time of a wall-clock one.
    pub const fn internal(self, wall: UnixSeconds) -> UnixSeconds {
        wall.shifted(-self.seconds())
    }

    /// The same as [`WallOffset::wall`], exact to the millisecond.
    pub const fn wall_ms(self, internal: UnixMillis) -> UnixMillis {
        internal.shifted(self.0)
    }

    /// How far the wall clock was set between `earlier` and this, in milliseconds.
    pub const fn step_from(self, earlier: WallOffset) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Rounded to the nearest second, so that jitter of a millisecond does not show as a second.
    const fn seconds(self) -> i64 {
        self.0.saturating_add(500).div_euclid(1000)
    }
}

#[cfg(test)]
pub mod simulated {
    //! Clocks that a test moves.

    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    use super::*;

    /// This many seconds since 1970, short for the tables of a test.
    pub const fn at(seconds: u32) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    /// The same for milliseconds.
    pub const fn at_ms(milliseconds: u64) -> UnixMillis {
        UnixMillis::new(milliseconds)
    }

    /// A machine whose clocks stand still unless they are moved.
    pub struct Simulated {
        boot_ms: AtomicU64,
        wall_ahead_ms: AtomicI64,
    }

    impl Simulated {
        /// Starts at this wall-clock time in seconds. Lives as long as the test program.
        pub fn at(unix: UnixSeconds) -> &'static Self {
            Box::leak(Box::new(Simulated {
                boot_ms: AtomicU64::new(5_000),
                wall_ahead_ms: AtomicI64::new(i64::from(unix.get()) * 1000 - 5_000),
            }))
        }

        /// Lets time pass.
        pub fn pass(&self, time: Duration) {
            self.boot_ms
                .fetch_add(milliseconds(time), Ordering::Relaxed);
        }

        /// Sets the wall clock forward or, below 0, back by this many seconds.
        pub fn set_wall(&self, step: i64) {
            self.wall_ahead_ms.fetch_add(step * 1000, Ordering::Relaxed);
        }

        /// The wall clock.
        pub fn wall(&self) -> UnixSeconds {
            UnixSeconds::ZERO + self.read().wall
        }
    }

    impl TimeSource for Simulated {
        fn read(&self) -> Reading {
            let boot = self.boot_ms.load(Ordering::Relaxed);
            let ahead = self.wall_ahead_ms.load(Ordering::Relaxed);
            Reading {
                wall: Duration::from_millis(boot.saturating_add_signed(ahead)),
                boot: Duration::from_millis(boot),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::simulated::Simulated;
    use super::*;

    #[test]
    fn the_system_has_both_clocks() {
        let reading = System.read();
        assert!(reading.wall > Duration::from_secs(1_700_000_000));
        assert!(reading.boot > Duration::ZERO);
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_the_offset_and_nothing_else() {
        let time = Simulated::at(UnixSeconds::new(1_000_000));
        let clock = Clock::with(time);
        assert_eq!(clock.unix(), UnixSeconds::new(1_000_000));
        assert_eq!(clock.wall_offset(), WallOffset::default());
        time.pass(Duration::from_millis(1_500));
        let before = clock.wall_offset();
        time.set_wall(-86_400);
        assert_eq!(clock.unix_ms(), UnixMillis::new(1_000_001_500));
        let offset = clock.wall_offset();
        assert_eq!(offset.step_from(before), -86_400_000);
        assert_eq!(offset.wall(clock.unix()), time.wall());
        assert_eq!(offset.internal(time.wall()), clock.unix());
        assert_eq!(
            offset.wall_ms(clock.unix_ms()),
            UnixMillis::new(913_601_500)
        );
    }

    #[test]
    fn offsets_round_to_the_nearest_second() {
        let shown = |ms| WallOffset::new(ms).wall(UnixSeconds::new(100)).get();
        assert_eq!(
            [-1400, -501, -2, 0, 3, 499, 500].map(shown),
            [99, 99, 100, 100, 100, 100, 101]
        );
    }
}
