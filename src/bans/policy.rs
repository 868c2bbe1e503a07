//! The parameters that bans obey.

use crate::config::{Config, Mode};

/// The parameters that bans obey, by their names in the configuration.
#[derive(Clone, Copy, Debug)]
#[allow(
    missing_docs,
    reason = "named as the parameters, which the README explains"
)]
pub struct Policy {
    pub block_ttl: u32,
    pub block_v6_prefix: u8,
    pub block_budget: u32,
    pub mode: Mode,
}

impl From<&Config> for Policy {
    fn from(config: &Config) -> Self {
        Policy {
            block_ttl: config.block_ttl,
            block_v6_prefix: config.block_v6_prefix,
            block_budget: config.block_budget,
            mode: config.mode,
        }
    }
}
