//! Trust that an operator lends by a command: it ends by itself or when the operator takes it back.

use super::{put, Rule, Trust};
use crate::address::Subnet;
use crate::clock::UnixSeconds;
use crate::table::{Entry, Table};

/// How many addresses and prefixes can be lent trust.
pub const MAX_LENT: usize = 1_024;
/// The end of trust that has none.
pub const NO_END: UnixSeconds = UnixSeconds::MAX;
/// The latest end that trust can have.
pub const LAST_END: UnixSeconds = UnixSeconds::new(NO_END.get() - 1);
/// Shortest prefix that a command can lend trust to: a shorter one is taken for a mistake.
const SHORTEST: (u8, u8) = (8, 16);

/// Why trust was not lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLent {
    /// The prefix is shorter than /8 (IPv4) or /16 (IPv6).
    #[error("a prefix shorter than /{} would spare too much: mode observe bans nobody", if *.0 { SHORTEST.0 } else { SHORTEST.1 })]
    TooWide(bool),
    /// As many as are possible are lent.
    #[error("{MAX_LENT} rules of apiban.trust_add are possible: delete one first")]
    Full,
}

impl Trust {
    /// Trusts `subnet` until `end`, or without end with [`NO_END`]; a rule that was lent
    /// before gets the new end and comment. It is in force when this returns; the updater must be told, which
    /// removes bans from the tables and the firewall. Any process may call this.
    ///
    /// # Errors
    /// A prefix that is too short, or no room.
    pub fn lend(
        &self,
        subnet: Subnet,
        end: UnixSeconds,
        now: UnixSeconds,
        comment: &str,
    ) -> Result<(), NotLent> {
        let shortest = if subnet.is_v4() {
            SHORTEST.0
        } else {
            SHORTEST.1
        };
        if subnet.prefix_len() < shortest {
            return Err(NotLent::TooWide(subnet.is_v4()));
        }
        // The loan first: the updater keeps a rule that stands for one.
        if !self.lent.put(subnet, end, now, comment) {
            return Err(NotLent::Full);
        }
        self.regions.mark(subnet);
        if let Some(net) = self.neighbour(subnet) {
            put(&self.neighbours, net, Rule::Lent);
        }
        // A rule of the parameters for the same subnet stays the one that is shown.
        let given = self.rules.find(subnet).map(|found| found.value());
        if given.is_none_or(Rule::is_automatic) {
            put(&self.rules, subnet, Rule::Lent);
        }
        Ok(())
    }

    /// Takes back what was lent to exactly this address or prefix; false if there is none. The updater must be
    /// told: it ends the trust.
    pub fn take_back(&self, subnet: Subnet) -> bool {
        self.lent.remove(subnet)
    }

    /// What is lent: value is the end, reason the comment.
    pub fn lent(&self) -> &Table {
        &self.lent
    }

    /// The entries of the list that are not banned because they are trusted; they are banned again when that
    /// trust ends. Value is the end of the ban.
    pub fn spared(&self) -> &Table {
        &self.spared
    }

    /// The comment of what is lent to exactly this subnet.
    pub(super) fn comment(&self, subnet: Subnet) -> Option<String> {
        let found = self.lent.find(subnet)?;
        self.lent.entry(found).map(|entry: Entry| entry.reason)
    }
}
