//! The return codes of the script functions. Scripts compare with them, so they never change.

use super::block::Refusal;
use super::check::Verdict;
use crate::config::Mode;
use crate::shared::origin::Origin;

/// Return code of a script function that did what it was asked to do.
pub const DONE: i32 = 1;
/// Return code of a script function that had nothing to do, or was refused by trust.
pub const NOT_DONE: i32 = -1;
/// Return code of a script function with an argument that is no address, or no time to ban.
pub const BAD_ARGUMENT: i32 = -3;

impl Verdict {
    /// The return code of `apiban_check()`. In mode `observe` a ban is counted but reported as no ban.
    #[inline(always)]
    pub fn code(self, mode: Mode) -> i32 {
        match self {
            Verdict::Banned(_) if mode == Mode::Observe => Verdict::Clear.code(mode),
            Verdict::Banned(Origin::Feed) => 1,
            Verdict::Banned(Origin::Local) => 2,
            Verdict::Banned(Origin::Peer) => 3,
            Verdict::Clear => -1,
            Verdict::Trusted => -2,
        }
    }
}

impl Refusal {
    /// The return code of `apiban_block()`.
    pub fn code(self) -> i32 {
        match self {
            Refusal::Trusted(_) => NOT_DONE,
            Refusal::Unbannable(_) => BAD_ARGUMENT,
            Refusal::Full => -4,
            Refusal::OverBudget => -5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Rule;

    #[test]
    fn codes_of_the_contract() {
        let codes = |mode| {
            [
                Verdict::Banned(Origin::Feed),
                Verdict::Banned(Origin::Local),
                Verdict::Banned(Origin::Peer),
                Verdict::Clear,
                Verdict::Trusted,
            ]
            .map(|v| v.code(mode))
        };
        assert_eq!(codes(Mode::Enforce), [1, 2, 3, -1, -2]);
        assert_eq!(codes(Mode::Observe), [-1, -1, -1, -1, -2]);
    }

    #[test]
    fn codes_of_refusals() {
        let codes = [
            Refusal::Trusted(Rule::Own),
            Refusal::Unbannable("test"),
            Refusal::Full,
            Refusal::OverBudget,
        ]
        .map(Refusal::code);
        assert_eq!(codes, [-1, -3, -4, -5]);
    }
}
