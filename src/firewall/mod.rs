//! Bans in the firewall of the host.
//!
//! [`Firewall`] is what a backend can do; [`nft::Nft`] and [`iptables_api::IptablesApi`] do it, and
//! [`runner::Runner`] gives a backend its own thread, so that nobody who bans ever waits for a kernel
//! or a daemon. The ban tables are the truth; a backend is a copy that is brought up to date by
//! [`Change`]s and, wherever doubt arises, by a refill from the tables.

use crate::address::Subnet;
use crate::log::Level;

#[cfg(feature = "cli")]
pub mod ipset;
pub mod iptables_api;
pub mod nft;
pub mod runner;

/// Which ban table an element comes from. Bans of cluster peers count as local.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Set {
    /// Listed by APIBAN.
    Feed,
    /// Banned by script, RPC or a cluster peer.
    Local,
}

impl Set {
    /// Both sets, in the order in which rules are made.
    pub const ALL: [Set; 2] = [Set::Local, Set::Feed];

    /// The name as it stands in set names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Set::Feed => "feed",
            Set::Local => "local",
        }
    }
}

/// One ban as the firewall holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// What is banned.
    pub subnet: Subnet,
    /// Where the ban comes from: lifting a local ban never lifts the feed's.
    pub set: Set,
    /// Seconds until the ban ends, from the moment the element is handed over. 0: it is over.
    pub seconds_left: u32,
}

/// One step that brings the firewall nearer to the ban tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Bans, or gives an existing ban exactly this new end. An element that is over is removed.
    Add(Element),
    /// Lifts; lifting what is not there is no error.
    Remove {
        /// What was banned.
        subnet: Subnet,
        /// In which set.
        set: Set,
    },
}

impl Change {
    /// What is banned or lifted.
    pub fn subnet(&self) -> Subnet {
        match self {
            Change::Add(element) => element.subnet,
            Change::Remove { subnet, .. } => *subnet,
        }
    }

    /// The set concerned.
    pub fn set(&self) -> Set {
        match self {
            Change::Add(element) => element.set,
            Change::Remove { set, .. } => *set,
        }
    }
}

/// Why a backend could not do its work; each kind has its own way on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The process may not change the firewall. Retried rarely: only an operator can mend it.
    #[error(
        "{0}: CAP_NET_ADMIN is missing; grant it with AmbientCapabilities=CAP_NET_ADMIN in the \
         [Service] section of Kamailio's systemd unit. Going on without kernel drops"
    )]
    Permission(&'static str),
    /// This host or this configuration cannot do it. Retried rarely.
    #[error("{0}")]
    Unsupported(String),
    /// Our own state went away under us (table deleted, ruleset flushed): refill at once.
    #[error("{0}")]
    Lost(String),
    /// May go better next time: retried with back-off, then refilled.
    #[error("{0}")]
    Transient(String),
}

/// Packets and bytes that the firewall dropped for us since its rules were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets from sources in [`Set::Feed`].
    pub feed_packets: u64,
    /// Bytes of those packets.
    pub feed_bytes: u64,
    /// Packets from sources in [`Set::Local`].
    pub local_packets: u64,
    /// Bytes of those packets.
    pub local_bytes: u64,
}

/// A log line for the owner to print.
pub type LogLine = (Level, String);

/// A firewall that drops what is banned. Called from one thread only; every call may block, so it
/// belongs in a [`runner::Runner`].
pub trait Firewall: Send {
    /// The name as in the `firewall` parameter.
    fn name(&self) -> &'static str;

    /// Makes our own state exist and be empty, whatever an earlier run left; never duplicates a rule.
    ///
    /// # Errors
    /// Any [`Error`]; the state is then unknown.
    fn reset(&mut self) -> Result<(), Error>;

    /// Applies the changes in order. At most [`batch_size`](Firewall::batch_size) at a time keep a
    /// call short.
    ///
    /// # Errors
    /// Any [`Error`]; some of the changes may then have been applied. Applying them again is harmless.
    fn apply(&mut self, changes: &[Change]) -> Result<(), Error>;

    /// Puts our own structure in order and makes the firewall equal to `wanted`, or returns the changes
    /// that are still needed for that, for [`apply`](Firewall::apply). A backend that can do it in one
    /// step does, so that nothing goes unenforced meanwhile; the others begin from empty.
    ///
    /// # Errors
    /// Any [`Error`]; the state is then unknown.
    fn reconcile(&mut self, wanted: &[Element]) -> Result<Vec<Change>, Error> {
        self.reset()?;
        Ok(wanted.iter().copied().map(Change::Add).collect())
    }

    /// Asks whether the backend can be reached at all, without changing anything.
    ///
    /// # Errors
    /// Any [`Error`] that the next call would meet too.
    fn probe(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// False where somebody else changed our state, so that a refill is due. Cheap enough to ask
    /// every second.
    ///
    /// # Errors
    /// Any [`Error`]: then nothing is known.
    fn intact(&mut self) -> Result<bool, Error> {
        Ok(true)
    }

    /// Lifts every ban of one set. `Ok(false)`: the backend cannot do that alone, refill instead.
    ///
    /// # Errors
    /// Any [`Error`]; the set may then be partly cleared.
    fn clear(&mut self, set: Set) -> Result<bool, Error>;

    /// Takes away all that is ours.
    ///
    /// # Errors
    /// Any [`Error`]; nothing of ours being there is none.
    fn remove(&mut self) -> Result<(), Error>;

    /// What was dropped, where the backend can tell.
    ///
    /// # Errors
    /// Any [`Error`].
    fn counters(&mut self) -> Result<Option<Counters>, Error> {
        Ok(None)
    }

    /// How many changes one call of [`apply`](Firewall::apply) should get.
    fn batch_size(&self) -> usize;

    /// Changes that were left out because the backend cannot express or would not take them.
    fn skipped(&self) -> u64 {
        0
    }

    /// Log lines since the last call; each backend says a thing once, not per element.
    fn drain_notes(&mut self) -> Vec<LogLine> {
        Vec::new()
    }
}
