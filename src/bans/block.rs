//! Places and lifts bans, in one place for all: for the script, which forged packets can make ban anybody, for an
//! operator, and for other nodes of the cluster.

use std::net::IpAddr;
use std::time::Duration;

use super::check::{check, Verdict};
use super::Policy;
use crate::address::{nat64, Subnet};
use crate::clock::UnixSeconds;
use crate::memory::{fence, Ordering};
use crate::shared::changes::{BanChange, ChangeKind};
use crate::shared::counters::{Counter, ProcessCounters};
use crate::shared::origin::Origin;
use crate::shared::Shared;
use crate::table::Inserted;
use crate::trust::Rule;

pub use crate::table::MAX_TTL;

/// Who asks for a ban. Decides the table and the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The script, for a packet whose source may be forged: `block_budget` limits it.
    Script,
    /// An operator, by RPC: no limit but the capacity of the table.
    Operator,
    /// Another node of the cluster, by its number here. Its bans go into the table of the peers.
    Peer(u16),
}

impl By {
    /// The table that holds the ban.
    pub fn origin(self) -> Origin {
        match self {
            By::Script | By::Operator => Origin::Local,
            By::Peer(_) => Origin::Peer,
        }
    }
}

/// A ban that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The address or prefix to ban; see [`Bans::source_subnet`].
    pub subnet: Subnet,
    /// How long, in seconds, 1 to [`MAX_TTL`].
    pub ttl: u32,
    /// Why; may be empty.
    pub reason: &'a str,
    /// Who asks.
    pub by: By,
}

/// Why an address was not banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This rule trusts it, or a part of it.
    Trusted(Rule),
    /// No packet can have it as its source, or the prefix is far too wide.
    Unbannable(&'static str),
    /// The table is full.
    Full,
    /// The budget of the asking side is spent in this minute.
    OverBudget,
}

/// Wakes the updater, which brings the firewall and the event routes up to date.
pub trait Wake {
    /// Called after a change, in the process that made it. Must not block.
    fn wake(&self);
    /// Wakes the process of the cluster for what the updater has nothing to do with. Without a cluster there is none.
    fn wake_cluster(&self) {}
}

impl<F: Fn()> Wake for F {
    fn wake(&self) {
        self();
    }
}

/// The ban tables with all that a change of them needs.
#[derive(Clone, Copy)]
pub struct Bans<'a> {
    /// The shared memory of the module.
    pub shared: &'a Shared,
    /// The parameters.
    pub policy: Policy,
    /// The counters of this process.
    pub counters: ProcessCounters,
    /// Wakes the updater.
    pub wake: &'a dyn Wake,
}

impl Bans<'_> {
    /// Looks `ip` up and counts.
    pub fn check(&self, ip: IpAddr) -> Verdict {
        check(self.shared, self.counters, ip)
    }

    /// What to ban for a packet from this address: the address, or its IPv6 network, in which an attacker can
    /// choose addresses freely. The address alone if that network holds a trusted address, cannot be banned as
    /// a whole (`::/64` around `::1`), or is a translator's: there each address is another IPv4 host.
    pub fn source_subnet(&self, ip: IpAddr) -> Subnet {
        let host = Subnet::host(ip);
        match host.address() {
            IpAddr::V4(_) => return host,
            IpAddr::V6(v6) if nat64::is_translated(v6) => return host,
            IpAddr::V6(_) => {}
        }
        match Subnet::new(ip, self.policy.block_v6_prefix) {
            Some(net)
                if self.shared.trust.spares(net).is_none() && net.never_bannable().is_none() =>
            {
                net
            }
            _ => host,
        }
    }

    /// Bans, or extends a ban that ends earlier. Never blocks: the firewall follows by itself.
    ///
    /// # Errors
    /// The reason why nothing was banned.
    pub fn block(&self, order: Order<'_>) -> Result<Inserted, Refusal> {
        let placed = self.place(order);
        match placed {
            Ok(Inserted::New | Inserted::Extended) => {
                if !matches!(order.by, By::Peer(_)) {
                    self.tell_cluster(order.subnet, ChangeKind::Blocked);
                }
                self.changed(order.by.origin(), order.subnet, ChangeKind::Blocked);
            }
            // A ban that lasts at least as long already is nothing new for the updater.
            Ok(_) => {}
            Err(refusal) => {
                self.counters.add(Counter::BlockRefused);
                if matches!(refusal, Refusal::Trusted(_)) {
                    self.counters.add(Counter::TrustedBans);
                }
            }
        }
        placed
    }

    fn place(&self, order: Order<'_>) -> Result<Inserted, Refusal> {
        let (shared, subnet) = (self.shared, order.subnet);
        if let Some(rule) = shared.trust.spares(subnet) {
            return Err(Refusal::Trusted(rule));
        }
        if let Some(why) = subnet.never_bannable() {
            return Err(Refusal::Unbannable(why));
        }
        let table = shared.table(order.by.origin());
        // Only a new address costs budget: to extend the ban of a known attacker does not.
        if table.find(subnet).is_none() && !self.spend_budget(order.by) {
            return Err(Refusal::OverBudget);
        }
        let now = shared.now();
        match table.insert(
            subnet,
            now + Duration::from_secs(order.ttl.into()),
            now,
            order.reason,
        ) {
            Inserted::Full => Err(Refusal::Full),
            placed => {
                // Trust may have changed since the first check; check again, trust wins. Pairs with the fence
                // in `evict_trusted`: either this sees the new rule, or that sees this ban.
                fence(Ordering::SeqCst);
                if let Some(rule) = shared.trust.spares(subnet) {
                    table.remove(subnet);
                    return Err(Refusal::Trusted(rule));
                }
                if let (By::Peer(node), Inserted::New | Inserted::Extended) = (order.by, placed) {
                    table.set_node(subnet, node);
                }
                Ok(placed)
            }
        }
    }

    /// Takes one new address from the budget of the asking side; false if it is spent.
    fn spend_budget(&self, by: By) -> bool {
        match by {
            By::Script => {
                let now = self.shared.now();
                self.shared.budget.spend(now, self.policy.block_budget)
            }
            By::Operator | By::Peer(_) => true,
        }
    }

    /// Lifts the ban of exactly this address or prefix, whether it was made here or by another node; false if
    /// there is none.
    pub fn unblock(&self, subnet: Subnet) -> bool {
        let origins = [Origin::Local, Origin::Peer].into_iter();
        let lifted: Vec<Origin> = origins
            .filter(|origin| self.shared.table(*origin).remove(subnet))
            .collect();
        if !lifted.is_empty() {
            self.tell_cluster(subnet, ChangeKind::Unblocked);
        }
        for origin in &lifted {
            self.changed(*origin, subnet, ChangeKind::Unblocked);
        }
        !lifted.is_empty()
    }

    /// Lifts what [`Bans::source_subnet`] may have banned for this address: itself and its IPv6 network.
    pub fn unblock_source(&self, ip: IpAddr) -> bool {
        let host = self.unblock(Subnet::host(ip));
        let net = Subnet::new(ip, self.policy.block_v6_prefix)
            .filter(|net| !net.is_v4() && !net.is_host());
        net.is_some_and(|net| self.unblock(net)) || host
    }

    /// Lifts a ban of one origin; false if there is none.
    pub fn lift(&self, origin: Origin, subnet: Subnet) -> bool {
        let lifted = self.shared.table(origin).remove(subnet);
        if lifted {
            self.changed(origin, subnet, ChangeKind::Unblocked);
        }
        lifted
    }

    /// A ban of this origin ends earlier than it did.
    pub fn shorten(&self, origin: Origin, subnet: Subnet, end: UnixSeconds) {
        if self.shared.table(origin).replace(subnet, end) {
            self.changed(origin, subnet, ChangeKind::Blocked);
        }
    }

    /// Passes a change that was made here on to the other nodes; never blocks. It wakes nobody: the updater, which
    /// is woken for the change right after this, wakes the process of the cluster.
    fn tell_cluster(&self, subnet: Subnet, kind: ChangeKind) {
        if let Some(cluster) = &self.shared.cluster {
            cluster.changes.put(BanChange {
                origin: Origin::Local,
                subnet,
                kind,
            });
        }
    }

    /// Tells the updater that a table changed: the firewall follows.
    pub fn changed(&self, origin: Origin, subnet: Subnet, kind: ChangeKind) {
        let changes = &self.shared.ban_changes;
        changes.put(BanChange {
            origin,
            subnet,
            kind,
        });
        if changes.must_wake() {
            self.wake.wake();
        }
    }
}

#[cfg(test)]
mod tests;
