//! Tells the operator, once, when bans are refused for want of room or budget: a table that is full
//! protects no more than it holds, and nobody reads return codes.

use std::time::Duration;

use crate::clock::UnixSeconds;
use crate::config::Config;
use crate::shared::Shared;
use crate::{notice, warning};

/// A minute in which the budget lasted, and some, before it is worth a line again.
const QUIET: Duration = Duration::from_secs(120);
/// There is room again when this share of the table is free, in percent.
const FREE_PERCENT: usize = 10;

/// What has been said.
#[derive(Default)]
pub struct CapacityWatch {
    full: bool,
    /// When the budget was last seen spent.
    spent: Option<UnixSeconds>,
}

impl CapacityWatch {
    /// Looks at the local table and the budget; once a turn.
    pub fn look(&mut self, shared: &Shared, config: &Config) {
        let (used, capacity) = (shared.local.len(), shared.local.capacity());
        if used >= capacity && !self.full {
            self.full = true;
            warning!(
                "the local table is full: max_local_entries is {capacity}; new bans are refused until others end"
            );
        } else if self.full && used <= capacity - capacity * FREE_PERCENT / 100 {
            self.full = false;
            notice!("the local table has room again");
        }
        let (now, limit) = (shared.now(), config.block_budget);
        if shared.budget.is_spent(now, limit) {
            if self.spent.replace(now).is_none() {
                warning!(
                    "{limit} new addresses were banned in this minute, as many as block_budget allows: further ones are refused"
                );
            }
        } else if self.spent.is_some_and(|spent| now > spent + QUIET) {
            self.spent = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::at;
    use crate::memory::HeapArena;

    #[test]
    fn each_state_is_told_once() {
        let config = Config {
            max_local_entries: 20,
            block_budget: 3,
            ..Config::default()
        };
        let shared = Shared::new(&mut HeapArena, &config, 1).unwrap();
        let mut capacity = CapacityWatch::default();
        let mut look = |seconds, spend: u32| {
            shared.set_now(at(seconds));
            for _ in 0..spend {
                shared.budget.spend(shared.now(), config.block_budget);
            }
            capacity.look(&shared, &config);
            (capacity.full, capacity.spent)
        };
        assert_eq!(look(6000, 2), (false, None));
        assert_eq!(look(6001, 5), (false, Some(at(6001))));
        assert_eq!(look(6070, 0), (false, Some(at(6001))));
        assert_eq!(look(6122, 0), (false, None));
        let ban = |n: u8| format!("192.0.2.{n}").parse().unwrap();
        for n in 0..20 {
            shared.local.insert(ban(n), at(9000), at(6122), "");
        }
        assert!(look(6123, 0).0);
        shared.local.remove(ban(0));
        assert!(look(6124, 0).0);
        shared.local.remove(ban(1));
        assert!(!look(6125, 0).0);
    }
}
