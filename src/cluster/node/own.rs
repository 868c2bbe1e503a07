//! Bans that were made here, and bans that were lifted here: what the others are told of them.

use std::time::Duration;

use super::bans::{add, Tombstone};
use super::{Host, Node, MOST_DIRTY};
use crate::address::Subnet;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::message::{Ban, Item, Items, Kind};
use crate::cluster::replica::{Held, State};

/// Lifted bans that are remembered, so that a late message does not bring them back.
const MOST_TOMBSTONES: usize = 4_096;
/// The table of own bans is compared at most this often, unless something is known to be missing.
const SCAN_PAUSE: Duration = Duration::from_secs(1);

impl Node {
    /// A ban of this node came, changed, or ended; the table says which.
    pub fn own_changed(&mut self, now: UnixMillis, subnet: Subnet, host: &dyn Host) {
        let Some(ban) = host.own(subnet) else {
            self.own.remove(subnet);
            return;
        };
        if self.own.get(subnet).is_some_and(|held| held.end == ban.end) {
            return;
        }
        let stamp = self.next_stamp(now);
        self.insert_own(subnet, ban.end, stamp);
    }

    pub(super) fn next_stamp(&mut self, now: UnixMillis) -> UnixMillis {
        self.last_stamp = now.max(self.last_stamp.shifted(1));
        self.last_stamp
    }

    pub(super) fn insert_own(&mut self, subnet: Subnet, end: UnixSeconds, stamp: UnixMillis) {
        let state = State::Placed;
        self.own.insert(subnet, Held { end, stamp, state });
        if self.dirty.len() < MOST_DIRTY {
            self.dirty.insert(subnet);
        }
    }

    /// A ban was lifted here, whoever made it: it is lifted everywhere.
    pub fn lifted(&mut self, now: UnixMillis, subnet: Subnet, host: &mut dyn Host) {
        let mut origins = Vec::new();
        if let Some(held) = self.own.remove(subnet) {
            origins.push((self.id, held.stamp, held.end.millis()));
        }
        for peer in &mut self.peers {
            if let Some(held) = peer.bans.remove(subnet) {
                let until = peer.to_local(held.end).millis();
                origins.push((peer.id, held.stamp, until));
            }
        }
        self.dirty.remove(&subnet);
        for (node, stamp, until) in &origins {
            self.bury(now, (subnet, *node), *stamp, *until, true);
        }
        if host.holds(subnet) {
            host.lift(subnet);
        }
        // Fits an item of a message for any number of nodes.
        for some in origins.chunks(32) {
            let pairs = some.iter().map(|(node, stamp, _)| (*node, *stamp));
            self.dirty_lifts.push(Item::Lift(subnet, pairs.collect()));
        }
        // With the ban still on the way it must not be taken for a new one.
        if host.own(subnet).is_some() {
            self.own_changed(now, subnet, host);
        }
    }

    pub(super) fn bury(
        &mut self,
        now: UnixMillis,
        of: (Subnet, u64),
        stamp: UnixMillis,
        until: UnixMillis,
        ours: bool,
    ) {
        if self.tombstones.len() >= MOST_TOMBSTONES {
            let first = self.tombstones.iter().min_by_key(|(_, stone)| stone.until);
            if let Some(key) = first.map(|(key, _)| *key) {
                self.tombstones.remove(&key);
            }
        }
        let stone = self.tombstones.entry(of).or_insert(Tombstone {
            stamp,
            until,
            ours,
            met: false,
            lifted: now,
            repeats: 0,
            told: UnixMillis::ZERO,
        });
        // Said again by others it is no news.
        if ours && (!stone.ours || stone.stamp < stamp) {
            (stone.lifted, stone.repeats) = (now, 0);
        }
        stone.stamp = stone.stamp.max(stamp);
        stone.until = stone.until.max(until);
        stone.ours |= ours;
    }

    /// Compares what is known of this node's own bans with the table, unless that was done within a second.
    pub(super) fn scan_own(&mut self, now: UnixMillis, host: &mut dyn Host) {
        if self.scanned.is_none_or(|last| now >= last + SCAN_PAUSE) {
            self.scan(now, host);
        }
    }

    /// Compares what is known of this node's own bans with the table: after lost notes, a flush, or at the start.
    pub fn scan(&mut self, now: UnixMillis, host: &mut dyn Host) {
        let first = self.scanned.replace(now).is_none();
        let clock = now.seconds();
        let mut found = Vec::new();
        let mut count = 0;
        host.each_own(&mut |subnet, end, since| {
            if end > clock {
                count += 1;
                if self.own.get(subnet).is_none_or(|held| held.end != end) {
                    found.push((subnet, end, since));
                }
            }
        });
        for (subnet, end, since) in found {
            // A ban from before the start is as old as it is: if it was lifted meanwhile, the others know.
            let stamp = if first {
                since.millis()
            } else {
                self.next_stamp(now)
            };
            self.insert_own(subnet, end, stamp);
        }
        if self.own.len() > count {
            let gone = |subnet: &Subnet| host.own(*subnet).is_none();
            let gone: Vec<Subnet> = self
                .own
                .iter()
                .map(|(subnet, _)| subnet)
                .filter(gone)
                .collect();
            for subnet in gone {
                self.own.remove(subnet);
                self.dirty.remove(&subnet);
            }
        }
    }

    /// Sends what changed, collected for a moment.
    pub(super) fn flush(&mut self, now: UnixMillis, host: &mut dyn Host) {
        if (self.dirty.is_empty() && self.dirty_lifts.is_empty())
            || now < self.flushed + self.batch()
        {
            return;
        }
        self.flushed = now;
        let mut parts = vec![Items::new()];
        let lifts = std::mem::take(&mut self.dirty_lifts);
        let dirty = std::mem::take(&mut self.dirty);
        let bans = dirty
            .iter()
            .filter_map(|subnet| self.ban_item(*subnet, host));
        for item in lifts.into_iter().chain(bans) {
            add(&mut parts, &item);
        }
        parts.retain(|items| !items.is_empty());
        self.broadcast(now, Kind::Bans, parts);
    }

    /// A ban of this node as the others get it.
    pub(super) fn ban_item(&self, subnet: Subnet, host: &dyn Host) -> Option<Item> {
        let held = self.own.get(subnet)?;
        let reason = host.own(subnet)?.reason;
        Some(Item::Ban(Ban {
            subnet,
            end: held.end,
            stamp: held.stamp,
            reason,
        }))
    }
}
