//! Bans in the firewall of the host.
//!
//! [`Firewall`] is what a backend can do; [`nft::Nft`] and [`iptables_api::IptablesApi`] implement it, and
//! [`runner::Runner`] gives a backend a thread of its own: no process that bans waits for a kernel or
//! a daemon. The ban tables are the truth. A backend is a copy, which is brought up to date by
//! [`Change`]s and, in every doubt, by a refill from the tables.

use std::net::IpAddr;
use std::time::Instant;

use crate::address::Subnet;
use crate::log::Level;

#[cfg(feature = "cli")]
pub mod ipset;
pub mod iptables_api;
pub mod nft;
pub mod ports;
pub mod runner;
pub mod socket_filter;

/// Which bans a backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What the service lists.
    Feed,
    /// What was banned here or by another node.
    Local,
    /// Both.
    All,
}

impl Scope {
    /// True if entries of the feed belong into the backend.
    pub fn has_feed(self) -> bool {
        self != Scope::Local
    }

    /// True if bans made here or by another node belong into the backend.
    pub fn has_local(self) -> bool {
        self != Scope::Feed
    }
}

/// What a backend can do and what it cannot. Every backend states all of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    /// The name in parameters, status and messages.
    pub name: &'static str,
    /// True if a ban in the backend ends at its own time although nobody lifts it. False: the owner must
    /// send a removal when a ban ends.
    pub ends_bans_itself: bool,
    /// True if the backend has room for a limited number of bans and takes those with the most hits.
    pub is_limited: bool,
    /// True if the backend can drop the traffic to some ports and let other traffic through.
    pub scopes_by_port: bool,
    /// True if a fresh process can bring the backend up to date, whatever is in it. False: what an earlier
    /// process put there is only known to be gone after [`Firewall::reset`], or if that process noted it.
    pub knows_what_it_holds: bool,
    /// Which bans it takes if the operator does not say.
    pub default_scope: Scope,
}

/// One ban as the firewall holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// What is banned.
    pub subnet: Subnet,
    /// Seconds until the ban ends, from the moment the element is handed over. 0: it is over.
    pub seconds_left: u32,
    /// Packets that met the ban so far: a backend of limited size takes the highest first.
    pub hits: u32,
}

/// One step that brings the firewall nearer to the ban tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Bans, or gives an existing ban exactly this new end. An element that is over is removed.
    Add(Element),
    /// Lifts; lifting what is not there is no error.
    Remove(Subnet),
}

impl Change {
    /// What is banned or lifted.
    pub fn subnet(&self) -> Subnet {
        match self {
            Change::Add(element) => element.subnet,
            Change::Remove(subnet) => *subnet,
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

/// What a backend reports about its work; each number only if the backend can know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets dropped since the backend's state was made.
    pub dropped: Option<u64>,
    /// Bans in force in the backend, of those that it was given.
    pub elements: Option<u64>,
    /// Bans that it was given and that can matter there.
    pub wanted: Option<u64>,
}

/// What a backend cannot do although its calls succeed: the state to show, and the reason.
pub type Shortfall = (runner::State, String);

/// A log line for the owner to print.
pub type LogLine = (Level, String);

/// A firewall that drops what is banned. Called from one thread only; every call may block, so it
/// belongs in a [`runner::Runner`].
pub trait Firewall: Send {
    /// What the backend can do.
    fn facts(&self) -> &'static Facts;

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
    /// that are still needed for that, for [`apply`](Firewall::apply). What is in force and wanted stays in
    /// force meanwhile.
    ///
    /// # Errors
    /// Any [`Error`]; the state is then unknown.
    fn reconcile(&mut self, wanted: &[Element]) -> Result<Vec<Change>, Error>;

    /// Asks whether the backend can be reached at all, without changing anything.
    ///
    /// # Errors
    /// Any [`Error`] that the next call would meet too.
    fn probe(&mut self) -> Result<(), Error>;

    /// False if somebody else changed our state and a refill is due. Cheap enough to ask
    /// every second.
    ///
    /// # Errors
    /// Any [`Error`]: then nothing is known.
    fn intact(&mut self) -> Result<bool, Error>;

    /// Takes away all that is ours.
    ///
    /// # Errors
    /// Any [`Error`]. If nothing of ours is there, that is no error.
    fn remove(&mut self) -> Result<(), Error>;

    /// What was dropped, and how much is in force.
    ///
    /// # Errors
    /// Any [`Error`].
    fn report(&mut self) -> Result<Report, Error>;

    /// How many changes one call of [`apply`](Firewall::apply) should get.
    fn batch_size(&self) -> usize;

    /// The moment from which [`apply`](Firewall::apply) is to be called even if nothing changed; `None`: never.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// What does not work in a part of the backend, while the rest does.
    fn shortfall(&self) -> Option<Shortfall> {
        None
    }

    /// Changes that were left out because the backend cannot express or would not take them.
    fn skipped(&self) -> u64 {
        0
    }

    /// Packets that the kernel dropped of single sources since the last call, if it counts that. Read
    /// with each [`report`](Firewall::report).
    fn drain_hits(&mut self) -> Vec<(IpAddr, u64)> {
        Vec::new()
    }

    /// Log lines since the last call; each backend says a thing once, not per element.
    fn drain_notes(&mut self) -> Vec<LogLine> {
        Vec::new()
    }
}

/// One element for each subnet: two origins may ban the same, and the later end counts.
pub fn later_ends(mut elements: Vec<Element>) -> Vec<Element> {
    elements.sort_unstable_by_key(|element| (element.subnet, element.seconds_left));
    elements.dedup_by(|later, earlier| {
        let same = later.subnet == earlier.subnet;
        if same {
            earlier.seconds_left = later.seconds_left;
            earlier.hits = earlier.hits.saturating_add(later.hits);
        }
        same
    });
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_end_of_two_origins_counts() {
        let element = |subnet: &str, seconds_left, hits| Element {
            subnet: subnet.parse().unwrap(),
            seconds_left,
            hits,
        };
        let merged = later_ends(vec![
            element("192.0.2.1", 60, 3),
            element("192.0.2.2", 5, 0),
            element("192.0.2.1", 600, 4),
            element("192.0.2.0/24", 9, 1),
        ]);
        assert_eq!(merged.len(), 3);
        assert!(merged.contains(&element("192.0.2.1", 600, 7)));
    }
}
