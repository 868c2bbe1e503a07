//! Keeps the trust set what parameters, files and Kamailio itself say.

use crate::address::Subnet;
use crate::config::{Config, ConfigError};
use crate::restore::evict_trusted;
use crate::shared::Shared;
use crate::trust::{Rule, Trusted};
use crate::{error, sources};

/// What Kamailio knows by itself (interfaces, peers, destinations) is looked at this often, in
/// milliseconds.
const PAUSE: u64 = 5_000;

/// The rules in force.
pub struct TrustWatch {
    /// From parameters and files.
    given: Vec<Trusted>,
    /// All of them, to see a change.
    all: Vec<Trusted>,
    next: u64,
    failing: bool,
}

impl TrustWatch {
    /// Reads the files as `mod_init` did; where one has become unreadable since, its rules are lost
    /// only here and the set in force stays until a reload.
    pub fn new(config: &Config) -> Self {
        let given = sources::read_trust(config).unwrap_or_else(|_| config.trust.clone());
        TrustWatch {
            given,
            all: Vec::new(),
            next: 0,
            failing: false,
        }
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// A file that cannot be used; nothing has changed then.
    pub fn reload(&mut self, config: &Config) -> Result<(), ConfigError> {
        self.given = sources::read_trust(config)?;
        Ok(())
    }

    /// When to look again, in Unix milliseconds.
    pub fn due(&self) -> u64 {
        self.next
    }

    /// True where it is time to look again.
    pub fn is_due(&self, now: u64) -> bool {
        now >= self.next
    }

    /// Brings the set up to date; returns whose bans were lifted for it.
    pub fn follow(
        &mut self,
        now: u64,
        shared: &Shared,
        automatic: impl FnOnce() -> Vec<Trusted>,
    ) -> Vec<Subnet> {
        self.next = now + PAUSE;
        let mut all = self.given.clone();
        all.extend(automatic());
        // Addresses that were recognised as our own only when somebody listed them.
        all.extend(self.all.iter().filter(|(_, rule)| *rule == Rule::Own));
        all.sort_by_key(|(subnet, _)| *subnet);
        all.dedup_by_key(|(subnet, _)| *subnet);
        if all == self.all {
            return Vec::new();
        }
        if let Err(error) = shared.trust.replace(&all) {
            if !std::mem::replace(&mut self.failing, true) {
                error!("trust: {error}; the set stays as it was");
            }
            return Vec::new();
        }
        self.failing = false;
        self.all = all;
        evict_trusted(shared)
    }
}
