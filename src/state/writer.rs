//! When the state file is written: soon after a change, never in a storm.

use std::path::PathBuf;

use crate::feed::Saved;
use crate::quote::plain;
use crate::shared::Shared;
use crate::state::{self, Ban, State};
use crate::table::Table;
use crate::trust::NO_END;
use crate::{error, notice};

/// At most one state file in this time, in milliseconds.
const PAUSE: u64 = 5_000;
/// After a failure, likewise.
const RETRY: u64 = 30_000;

/// Keeps the state file.
pub struct StateWriter {
    path: Option<PathBuf>,
    changed: bool,
    next: u64,
    /// Why the last attempt failed; empty if it did not.
    last_error: String,
}

impl StateWriter {
    /// Keeps nothing where there is no path.
    pub fn new(path: Option<PathBuf>) -> Self {
        StateWriter {
            path,
            changed: false,
            next: 0,
            last_error: String::new(),
        }
    }

    /// The file is out of date.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// Why the file could not be written the last time; empty if it could.
    pub fn last_error(&self) -> &str {
        &self.last_error
    }

    /// When the file is written next, in Unix milliseconds.
    pub fn due(&self, now: u64) -> u64 {
        match (&self.path, self.changed) {
            (Some(_), true) => self.next.max(now),
            _ => u64::MAX,
        }
    }

    /// Writes the file where it is out of date and the last one is old enough.
    pub fn save_if_due(&mut self, now: u64, state: impl FnOnce() -> State) {
        if self.due(now) <= now {
            let saved = self.save_now(state);
            self.next = now + if saved { PAUSE } else { RETRY };
        }
    }

    /// Writes the file where it is out of date; false where that failed.
    pub fn save_now(&mut self, state: impl FnOnce() -> State) -> bool {
        let Some(path) = &self.path else {
            return true;
        };
        if !self.changed {
            return true;
        }
        match state::store(path, &state()) {
            Ok(()) => {
                self.changed = false;
                if !std::mem::take(&mut self.last_error).is_empty() {
                    notice!("state_file {}: written again", path.display());
                }
                true
            }
            Err(error) => {
                // Once, until it works again.
                let first = self.last_error.is_empty();
                self.last_error = plain(&error);
                if first {
                    error!(
                        "state_file {}: {}; going on without, trying again",
                        path.display(),
                        self.last_error
                    );
                }
                false
            }
        }
    }
}

/// Everything that the state file holds, all times by the wall clock.
pub fn collect(shared: &Shared, feed: Saved) -> State {
    let (now, offset) = (shared.now(), shared.wall_offset());
    let bans = |table: &Table| {
        let mut bans = Vec::new();
        table.for_each_live(now, |entry| bans.push(Ban::new(entry, offset)));
        bans
    };
    // What trust spares is listed, too: it must come back when the trust ends after a restart.
    let mut listed = bans(&shared.feed);
    listed.extend(bans(shared.trust.spared()));
    let mut trusted = Vec::new();
    shared.trust.lent().for_each_live(now, |loan| {
        let has_end = loan.value != NO_END;
        let mut loan = Ban::new(loan, offset);
        if !has_end {
            loan.end = NO_END;
        }
        trusted.push(loan);
    });
    let wall = |time: Option<u64>| time.map(|time| offset.wall(time));
    State {
        written: offset.wall(u64::from(now)),
        feed: Some(Saved {
            last_success: wall(feed.last_success),
            last_full: wall(feed.last_full),
            budget: feed.budget.iter().map(|&ms| offset.wall_ms(ms)).collect(),
            ..feed
        }),
        listed,
        trusted,
        local: bans(&shared.local),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_per_pause_and_the_last_one_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut state_writer = StateWriter::new(Some(path.clone()));
        let written = |state_writer: &mut StateWriter, now| {
            let mut wrote = false;
            state_writer.save_if_due(now, || {
                wrote = true;
                State::default()
            });
            wrote
        };
        assert!(!written(&mut state_writer, 1000));
        state_writer.changed();
        assert!(written(&mut state_writer, 1000));
        state_writer.changed();
        assert!(!written(&mut state_writer, 1000 + PAUSE - 1));
        assert_eq!(state_writer.due(1001), 1000 + PAUSE);
        assert!(written(&mut state_writer, 1000 + PAUSE));
        state_writer.changed();
        std::fs::remove_file(&path).unwrap();
        assert!(state_writer.save_now(State::default) && path.exists());
    }

    #[test]
    fn a_failure_is_retried_later() {
        let mut state_writer = StateWriter::new(Some("/nonexistent/folder/state".into()));
        state_writer.changed();
        state_writer.save_if_due(1000, State::default);
        assert_eq!(state_writer.due(1001), 1000 + RETRY);
    }
}
