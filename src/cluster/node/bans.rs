//! Bans of other nodes, and their end.

use std::time::Duration;

use super::{Host, Node, Placed};
use crate::address::Subnet;
use crate::clock::UnixMillis;
use crate::cluster::budget::Allowed;
use crate::cluster::message::{Ban, Item, Items, Kind};
use crate::cluster::replica::{Held, State};
use crate::log::Level;
use crate::table::MAX_TTL;

/// A lifted ban is said again so much later: whoever missed it may have nobody else to tell, as the node that made
/// the ban may be dead by then.
const SAID_AGAIN: [Duration; 3] = [
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
];
/// If a node dies, what others lifted of its bans since it was last heard, or up to so much before, is said by all who
/// know it: whoever lifted it may have died as well before it could say it again.
const HEARD_LATELY: Duration = Duration::from_secs(120);
/// A node that still has a lifted ban is told so at most this often.
const TELL_PAUSE: Duration = Duration::from_secs(5);
/// For so long a lift is remembered of a ban that has not come yet: it is on its way.
const UNDER_WAY: Duration = Duration::from_secs(3_600);
/// A lift is remembered for this long beyond the end of its ban, whose clock may differ.
const BEYOND_END: Duration = Duration::from_secs(60);
/// Shortest prefixes that another node may ban here.
const SHORTEST: (u8, u8) = (24, 48);

/// A lifted ban.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tombstone {
    /// Bans of the origin up to this stamp are dead.
    pub stamp: UnixMillis,
    /// When the ban would have ended.
    pub until: UnixMillis,
    /// True if this node tells those who missed it: it was lifted here, or the node that made the ban is dead.
    pub ours: bool,
    /// True if the ban was held here when another node lifted it.
    pub(super) met: bool,
    /// When it was lifted here, or this node heard of it.
    pub(super) lifted: UnixMillis,
    /// How often it was said again.
    pub(super) repeats: usize,
    pub(super) told: UnixMillis,
}

impl Node {
    pub(super) fn take_bans(
        &mut self,
        now: UnixMillis,
        index: usize,
        items: Vec<Item>,
        host: &mut dyn Host,
    ) {
        let mut told = Items::new();
        for item in items {
            match item {
                Item::Ban(ban) => self.take_ban(now, index, &ban, &mut told, host),
                Item::Lift(subnet, origins) => self.take_lift(now, index, subnet, &origins, host),
                _ => {}
            }
        }
        if !told.is_empty() {
            self.send_to(now, index, Kind::Bans, &told, host);
        }
    }

    /// Takes one ban of a node. What the node must be told of it goes to `told`.
    pub(super) fn take_ban(
        &mut self,
        now: UnixMillis,
        index: usize,
        ban: &Ban,
        told: &mut Items,
        host: &mut dyn Host,
    ) {
        let most = self.settings.peer_capacity / 2;
        let peer = &mut self.peers[index];
        if peer.to_local(ban.end) <= now.seconds() {
            return;
        }
        let key = (ban.subnet, peer.id);
        if let Some(stone) = self
            .tombstones
            .get_mut(&key)
            .filter(|s| s.stamp >= ban.stamp)
        {
            if now >= stone.told + TELL_PAUSE {
                stone.told = now;
                told.add(&Item::Lift(ban.subnet, vec![(peer.id, stone.stamp)]));
            }
            return;
        }
        let before = peer.bans.get(ban.subnet).copied();
        if before.is_some_and(|held| held.stamp >= ban.stamp && held.stamp != UnixMillis::ZERO) {
            return;
        }
        if before.is_none() && peer.bans.len() >= most {
            peer.refused += 1;
            self.counts.refused += 1;
            return;
        }
        let mut held = Held {
            end: ban.end,
            stamp: ban.stamp,
            state: State::Refused,
        };
        held.state = self.place(now, index, ban.subnet, held, &ban.reason, host);
        self.peers[index].bans.insert(ban.subnet, held);
        if before.is_some_and(|old| old.state == State::Placed && old.end > held.end) {
            self.settle(ban.subnet, host);
        }
    }

    /// Puts a ban in force if nothing speaks against it.
    fn place(
        &mut self,
        now: UnixMillis,
        index: usize,
        subnet: Subnet,
        held: Held,
        reason: &str,
        host: &mut dyn Host,
    ) -> State {
        let peer = &mut self.peers[index];
        if held.stamp <= peer.floor {
            return State::Refused;
        }
        let shortest = if subnet.is_v4() {
            SHORTEST.0
        } else {
            SHORTEST.1
        };
        if subnet.prefix_len() < shortest {
            self.refuse(index, "it bans prefixes shorter than /24 or /48", host);
            return State::Refused;
        }
        if !host.holds(subnet) {
            match peer.budget.spend(now, self.settings.peer_budget) {
                Allowed::Yes => {}
                Allowed::Later => {
                    let why = "it bans more than peer_budget allows";
                    return self.defer(index, (subnet, reason), why, host);
                }
                Allowed::Quarantined => {
                    let why = "it bans ten times what peer_budget allows: \
                               nothing new of it is taken for ten minutes";
                    return self.defer(index, (subnet, reason), why, host);
                }
            }
        }
        let peer = &self.peers[index];
        let now = now.seconds();
        let end = peer
            .to_local(held.end)
            .min(now + Duration::from_secs(MAX_TTL.into()));
        match host.place(&peer.uri, subnet, end, reason) {
            Placed::Yes => State::Placed,
            Placed::Full => {
                let why = "the table is full: see max_peer_entries";
                self.defer(index, (subnet, reason), why, host)
            }
            Placed::Refused => {
                self.refuse(
                    index,
                    "it bans what is trusted here or cannot be banned",
                    host,
                );
                State::Refused
            }
        }
    }

    /// Keeps a ban, with its own reason, for when there is room.
    fn defer(
        &mut self,
        index: usize,
        (subnet, reason): (Subnet, &str),
        why: &'static str,
        host: &mut dyn Host,
    ) -> State {
        let most = self.settings.peer_capacity / 2;
        let peer = &mut self.peers[index];
        peer.deferred = true;
        if !reason.is_empty() {
            let reasons = &mut peer.deferred_reasons;
            if reasons.len() >= most {
                // Of bans that were lifted while they waited.
                reasons.retain(|subnet, _| peer.bans.get(*subnet).is_some());
            }
            if reasons.len() < most {
                reasons.insert(subnet, reason.to_owned());
            }
        }
        self.refuse(index, why, host);
        State::Deferred
    }

    fn refuse(&mut self, index: usize, reason: &'static str, host: &mut dyn Host) {
        self.counts.refused += 1;
        let peer = &mut self.peers[index];
        peer.refused += 1;
        if peer.complained != Some(reason) {
            peer.complained = Some(reason);
            let text = format!("cluster: bans of node {} are refused: {reason}", peer.uri);
            host.log(Level::Warn, &text);
        }
    }

    /// Bans that there was no room for, as far as there is now.
    pub(super) fn place_deferred(&mut self, now: UnixMillis, host: &mut dyn Host) {
        let limit = self.settings.peer_budget;
        for index in 0..self.peers.len() {
            let peer = &mut self.peers[index];
            if !peer.deferred || !peer.budget.has_left(now, limit) {
                continue;
            }
            peer.deferred = false;
            let waiting: Vec<(Subnet, Held)> = peer
                .bans
                .iter()
                .filter(|(_, held)| held.state == State::Deferred)
                .map(|(subnet, held)| (subnet, *held))
                .collect();
            for (subnet, held) in waiting {
                if self.peers[index].deferred || !self.peers[index].budget.has_left(now, limit) {
                    self.peers[index].deferred = true;
                    break;
                }
                let reasons = &mut self.peers[index].deferred_reasons;
                let reason = reasons.remove(&subnet).unwrap_or_default();
                let state = self.place(now, index, subnet, held, &reason, host);
                if let Some(held) = self.peers[index].bans.get_mut(subnet) {
                    held.state = state;
                }
            }
            let peer = &mut self.peers[index];
            if !peer.deferred {
                peer.deferred_reasons.clear();
            }
        }
    }

    /// After a ban of one node ended early: what the others still say of the address counts.
    pub(super) fn settle(&self, subnet: Subnet, host: &mut dyn Host) {
        let ends = self.peers.iter().filter_map(|peer| {
            let held = peer
                .bans
                .get(subnet)
                .filter(|held| held.state == State::Placed)?;
            Some(peer.to_local(held.end))
        });
        match ends.max() {
            Some(end) => host.shorten(subnet, end),
            None => host.lift(subnet),
        }
    }

    fn take_lift(
        &mut self,
        now: UnixMillis,
        index: usize,
        subnet: Subnet,
        origins: &[(u64, UnixMillis)],
        host: &mut dyn Host,
    ) {
        let limit = self.settings.peer_budget;
        for (node, stamp) in origins {
            let maker = self.peers.iter().find(|peer| peer.id == *node);
            let is_dead = maker.is_some_and(|maker| maker.is_silent(now));
            let held = match *node == self.id {
                true => self.own.get(subnet).copied(),
                false => maker.and_then(|maker| maker.bans.get(subnet).copied()),
            };
            let until = held.map_or(now + UNDER_WAY, |held| held.end.millis() + BEYOND_END);
            let dies = held.is_some_and(|held| held.stamp <= *stamp);
            if dies && self.peers[index].lifts.spend(now, limit) != Allowed::Yes {
                self.refuse(index, "it lifts more bans than peer_budget allows", host);
                continue;
            }
            // Only what peer_budget allowed is said again: one node must not make all others talk.
            self.bury(now, (subnet, *node), *stamp, until, dies && is_dead);
            if !dies {
                continue;
            }
            if let Some(stone) = self.tombstones.get_mut(&(subnet, *node)) {
                stone.met = true;
            }
            if *node == self.id {
                self.own.remove(subnet);
                self.dirty.remove(&subnet);
                host.lift_own(subnet);
            } else if let Some(origin) = self.peers.iter_mut().find(|peer| peer.id == *node) {
                let placed = origin
                    .bans
                    .remove(subnet)
                    .is_some_and(|held| held.state == State::Placed);
                if placed {
                    self.settle(subnet, host);
                }
            }
        }
    }

    /// What was lifted here a while ago is said again.
    pub(super) fn say_lifts_again(&mut self, now: UnixMillis) {
        for ((subnet, node), stone) in &mut self.tombstones {
            let pause = SAID_AGAIN.get(stone.repeats).filter(|_| stone.ours);
            if pause.is_some_and(|pause| now >= stone.lifted + *pause) {
                stone.repeats += 1;
                let item = Item::Lift(*subnet, vec![(*node, stone.stamp)]);
                self.dirty_lifts.push(item);
            }
        }
    }

    /// A node that was last heard at this moment has died: what others lifted of its bans this node says, too.
    pub(super) fn say_lifts_of(&mut self, now: UnixMillis, (dead, heard): (u64, UnixMillis)) {
        for ((_, maker), stone) in &mut self.tombstones {
            let is_new = stone.met && !stone.ours && heard < stone.lifted + HEARD_LATELY;
            if *maker == dead && is_new {
                (stone.ours, stone.lifted, stone.repeats) = (true, now, 0);
            }
        }
    }

    /// What was lifted here while a node was away.
    pub(super) fn repeat_lifts(&mut self, now: UnixMillis, index: usize, host: &mut dyn Host) {
        let mut parts = vec![Items::new()];
        for ((subnet, node), stone) in self.tombstones.iter().filter(|(_, stone)| stone.ours) {
            add(&mut parts, &Item::Lift(*subnet, vec![(*node, stone.stamp)]));
        }
        if self.peers[index].session.theirs == 0 {
            return;
        }
        for items in parts.iter().filter(|items| !items.is_empty()) {
            self.send_to(now, index, Kind::Bans, items, host);
        }
    }

    /// Throws away the bans of one node, or of all without a URI; they do not come back. Returns how many they
    /// were; `None` if there is no such node.
    pub fn flush_peer(&mut self, uri: Option<&str>, host: &mut dyn Host) -> Option<usize> {
        let mut known = uri.is_none();
        let mut thrown = Vec::new();
        for peer in &mut self.peers {
            if uri.is_none_or(|uri| uri == peer.uri) {
                known = true;
                for (subnet, held) in peer.bans.iter_mut() {
                    peer.floor = peer.floor.max(held.stamp);
                    if std::mem::replace(&mut held.state, State::Refused) == State::Placed {
                        thrown.push(subnet);
                    }
                }
            }
        }
        for subnet in &thrown {
            self.settle(*subnet, host);
        }
        known.then_some(thrown.len())
    }
}

/// Adds an item to the last message, or to a new one if it does not fit.
pub(super) fn add(parts: &mut Vec<Items>, item: &Item) {
    let fits = parts.last_mut().is_some_and(|last| last.add(item));
    if !fits {
        let mut next = Items::new();
        next.add(item);
        parts.push(next);
    }
}
