//! Trust that an operator lent, from the state file back into force, and over steps of the wall clock.

use std::time::Duration;

use super::Ban;
use crate::address::Subnet;
use crate::clock::{UnixSeconds, WallOffset};
use crate::shared::Shared;
use crate::table::FIRST_END;
use crate::trust::{LAST_END, NO_END};
use crate::warning;

/// A loan of the state file that has an end.
#[derive(Clone, Debug)]
pub struct SavedLoan {
    subnet: Subnet,
    /// Wall-clock second at which it ends.
    end: UnixSeconds,
    /// Wall-clock second at which it was lent.
    since: UnixSeconds,
    comment: Box<str>,
    /// The end that this gave it, in internal time; 0 if it seemed to be over.
    placed: UnixSeconds,
}

impl SavedLoan {
    /// Makes its internal end again after a step of the wall clock; true if that changed anything. A loan that was
    /// taken back or renewed since the start stays as it is.
    pub fn settle(&mut self, shared: &Shared, offset: WallOffset) -> bool {
        let now = shared.now();
        // Neither "never" nor "not placed", and not without end.
        let internal = |wall| offset.internal(wall).clamp(FIRST_END, LAST_END);
        let end = internal(self.end);
        match shared.trust.lent().find(self.subnet) {
            Some(found) if found.value() != self.placed => return false,
            // It was taken back.
            None if self.placed > now => return false,
            None if end <= now => return false,
            _ => {}
        }
        self.placed = end;
        lend(
            shared,
            self.subnet,
            end,
            internal(self.since).min(now),
            &self.comment,
        )
    }
}

/// Puts loans in force again, at the start, when internal time is that of the wall clock. `ahead` seconds are taken
/// off each time of the file. Returns those that have an end, also those that are over by the clock of the start.
pub fn restore(shared: &Shared, loans: &[Ban], ahead: Duration) -> Vec<SavedLoan> {
    let mut saved = Vec::new();
    for loan in loans {
        let Ok(subnet) = loan.ip.parse::<Subnet>() else {
            continue;
        };
        let end = match loan.end {
            NO_END => NO_END,
            end => end.before(ahead),
        };
        let live = end > shared.now();
        if live {
            let since = loan.since.before(ahead);
            lend(shared, subnet, end, since, &loan.reason);
        }
        if loan.end != NO_END {
            saved.push(SavedLoan {
                subnet,
                end: loan.end,
                since: loan.since,
                comment: loan.reason.as_str().into(),
                placed: if live { end } else { UnixSeconds::ZERO },
            });
        }
    }
    saved
}

fn lend(
    shared: &Shared,
    subnet: Subnet,
    end: UnixSeconds,
    since: UnixSeconds,
    comment: &str,
) -> bool {
    let lent = shared.trust.lend(subnet, end, since, comment);
    if let Err(problem) = &lent {
        warning!("state_file: {subnet} is not trusted: {problem}");
    }
    lent.is_ok()
}
