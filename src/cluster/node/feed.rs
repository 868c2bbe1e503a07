//! One node fetches the list for all that share URL, dataset and key.
//!
//! The fetcher keeps the service's limit for the whole cluster, even when the cluster falls apart. Before each
//! request it tells the others, and those that confirm count it. It spends only the part of the limit that belongs
//! to the nodes which confirmed: with `a` of `k` known nodes, `limit * a / k` requests in a window. The parts of a
//! partition have fewer than `k` nodes together at most `k`, so together they stay within the limit, whoever fetches
//! in each; and a successor has counted what its predecessor asked.

use std::time::Duration;

use super::lease::{FeedMode, FeedView, Holder};
use super::{Host, Node};
use crate::clock::{milliseconds, UnixMillis, UnixSeconds};
use crate::cluster::message::{Feed, Item, Items};
use crate::cluster::replica::Replica;
use crate::log::Level;

/// Nobody fetches before the nodes had this long to find each other.
const SETTLE: Duration = Duration::from_secs(3);
/// The same while the bus lists nodes that have not answered.
const SETTLE_LONG: Duration = Duration::from_secs(10);
/// An intention that is not confirmed by all within this time goes on with those who did.
pub(super) const CONFIRM: Duration = Duration::from_millis(1_500);
/// A node that is gone keeps its part of the limit this long: it may live in another part of a partition.
const KNOWN_FOR: Duration = Duration::from_secs(3_600);
/// Nobody took over within this time: whoever can does.
const LAST_RESORT: Duration = Duration::from_secs(10);
/// A node whose engine failed may fetch again after this time: without fetching it cannot get well.
const RECOVERY: Duration = Duration::from_secs(600);
/// Requests that are remembered at most; the largest limit in use is far below.
const MOST_REQUESTS: usize = 4_096;
/// Requests that fit a HELLO.
const TOLD_REQUESTS: usize = 20;

impl Node {
    /// What this node's own engine says of the list: `holds` and `epoch` are ignored.
    pub fn set_feed(&mut self, now: UnixMillis, feed: Feed) {
        let lease = &mut self.lease;
        lease.unhealthy_since = match feed.healthy {
            true => None,
            false => lease.unhealthy_since.or(Some(now)),
        };
        // A successor must know where to go on, even if this node dies in the next second.
        lease.has_news |= (&lease.own.id, lease.own.last_full) != (&feed.id, feed.last_full);
        lease.own = feed;
    }

    /// The engine wants to send request `number`; they grow.
    pub fn wish(&mut self, number: u64) {
        self.lease.wished = self.lease.wished.max(number);
    }

    /// The operator wants a held back shrink applied.
    pub fn force(&mut self) {
        self.lease.force = true;
    }

    /// What the updater has to know.
    pub fn feed_view(&self) -> FeedView {
        let lease = &self.lease;
        let mut view = FeedView {
            granted: lease.granted,
            held: lease.held.is_some(),
            ..FeedView::default()
        };
        view.mode = match lease.holder {
            _ if self.settings.fingerprint == 0 => FeedMode::Alone,
            Holder::Nobody => FeedMode::Wait,
            Holder::Me => FeedMode::Lead,
            Holder::Peer(_) => FeedMode::Follow,
        };
        match lease.holder {
            Holder::Me => view.fetcher = self.uri.clone(),
            Holder::Peer(id) => {
                if let Some(peer) = self.peers.iter().find(|peer| peer.id == id) {
                    view.fetcher = peer.uri.clone();
                    view.fetched = peer.feed.clone();
                    let local = |time: Option<UnixSeconds>| time.map(|time| peer.to_local(time));
                    view.fetched.last_success = local(peer.feed.last_success);
                    view.fetched.last_full = local(peer.feed.last_full);
                    view.whole = lease.whole;
                }
            }
            Holder::Nobody => {}
        }
        view
    }

    /// What a HELLO says of the list.
    pub(super) fn add_feed(&mut self, now: UnixMillis, index: usize, items: &mut Items) {
        let lease = &self.lease;
        items.add(&Item::Feed(Feed {
            fingerprint: self.settings.fingerprint,
            epoch: lease.epoch,
            holds: lease.holds(),
            healthy: self.is_healthy(now),
            ..lease.own.clone()
        }));
        let mut requests: Vec<(u64, u32, u32)> = lease
            .requests
            .iter()
            .map(|((node, number), at)| {
                let age = u32::try_from(milliseconds(now.since(*at))).unwrap_or(u32::MAX);
                (*node, *number, age)
            })
            .collect();
        requests.sort_unstable_by_key(|(_, _, age)| *age);
        requests.truncate(TOLD_REQUESTS);
        if !requests.is_empty() {
            items.add(&Item::Requests(requests));
        }
        if lease.intended_at.is_some() {
            items.add(&Item::Intent(lease.intent));
        }
        let confirm = std::mem::take(&mut self.peers[index].confirm);
        if confirm != 0 {
            items.add(&Item::Confirm(confirm));
        }
    }

    fn is_healthy(&self, now: UnixMillis) -> bool {
        let since = self.lease.unhealthy_since;
        since.is_none_or(|since| now >= since + RECOVERY)
    }

    pub(super) fn take_feed(
        &mut self,
        now: UnixMillis,
        index: usize,
        items: Vec<Item>,
        host: &mut dyn Host,
    ) {
        let mut asked = false;
        for item in items {
            match item {
                Item::Feed(feed) => self.peers[index].feed = feed,
                Item::Requests(requests) => {
                    for (node, number, age) in requests {
                        if self.lease.requests.len() < MOST_REQUESTS {
                            let at = now.before(Duration::from_millis(age.into()));
                            self.lease.requests.entry((node, number)).or_insert(at);
                        }
                    }
                }
                Item::Intent(number) if number != 0 => {
                    self.peers[index].confirm = number;
                    asked = true;
                }
                Item::Confirm(number) => self.peers[index].confirmed = number,
                _ => {}
            }
        }
        self.weigh(now, index, host);
        if asked {
            let to = self.peers[index].session.theirs;
            self.greet(now, index, to, host);
        }
        self.decide_wish(now, host);
    }

    fn shares_list(&self, index: usize) -> bool {
        let fingerprint = self.settings.fingerprint;
        fingerprint != 0 && self.peers[index].feed.fingerprint == fingerprint
    }

    /// Whether that node's claim counts.
    fn weigh(&mut self, now: UnixMillis, index: usize, host: &mut dyn Host) {
        if !self.shares_list(index) {
            if self.lease.follows(self.peers[index].id) {
                self.lease.holder = Holder::Nobody;
            }
            return;
        }
        let (id, epoch, holds) = {
            let peer = &self.peers[index];
            (peer.id, peer.feed.epoch, peer.feed.holds)
        };
        let lease = &mut self.lease;
        let rank = |epoch: u32, id: u64| (epoch, std::cmp::Reverse(id));
        let wins = match lease.holder {
            Holder::Nobody => epoch >= lease.epoch,
            Holder::Me => rank(epoch, id) > rank(lease.epoch, self.id),
            Holder::Peer(other) if other == id => true,
            Holder::Peer(other) => rank(epoch, id) > rank(lease.epoch, other),
        };
        if !holds {
            if lease.follows(id) {
                lease.holder = Holder::Nobody;
            }
            lease.epoch = lease.epoch.max(epoch);
            return;
        }
        if wins {
            lease.epoch = epoch;
            if lease.holder != Holder::Peer(id) {
                self.follow(id, host);
            }
        } else if lease.holds() {
            // It has not heard of this node's claim.
            let to = self.peers[index].session.theirs;
            self.greet(now, index, to, host);
        }
    }

    fn follow(&mut self, id: u64, host: &mut dyn Host) {
        let lease = &mut self.lease;
        lease.holder = Holder::Peer(id);
        lease.vacant_since = None;
        lease.intended_at = None;
        if lease.source != id {
            lease.source = id;
            lease.list = Replica::default();
            lease.whole = false;
            lease.shrunk = true;
        }
        if let Some(peer) = self.peers.iter().find(|peer| peer.id == id) {
            host.log(
                Level::Notice,
                &format!("cluster: node {} fetches the list", peer.uri),
            );
        }
    }

    pub(super) fn tend_lease(&mut self, now: UnixMillis, host: &mut dyn Host) {
        if self.settings.fingerprint == 0 {
            self.lease.granted = self.lease.wished;
            return;
        }
        let window = self.settings.rate_window;
        self.lease.requests.retain(|_, at| *at + window > now);
        if let Holder::Peer(id) = self.lease.holder {
            let lives = |peer: &&super::Peer| peer.id == id && !peer.is_silent(now);
            if !self.peers.iter().any(|peer| lives(&peer)) {
                self.lease.holder = Holder::Nobody;
            }
        }
        let known = |peer: &super::Peer| peer.is_authenticated() || !peer.listed;
        let settled = !self.uri.is_empty()
            && now >= self.started + SETTLE
            && (self.peers.iter().all(known) || now >= self.started + SETTLE_LONG);
        let others = |node: &Node, healthy: bool| {
            let member = |index: &usize| {
                let peer = &node.peers[*index];
                node.shares_list(*index) && peer.is_fresh(now) && (peer.feed.healthy || !healthy)
            };
            let members = (0..node.peers.len()).filter(member);
            members
                .map(|index| node.peers[index].id)
                .collect::<Vec<u64>>()
        };
        if self.lease.holds() && !self.is_healthy(now) && !others(self, true).is_empty() {
            host.log(
                Level::Warn,
                "cluster: the service does not answer this node: another one fetches",
            );
            self.lease.holder = Holder::Nobody;
            self.greet_all(now, host);
        }
        if self.lease.holder == Holder::Nobody && settled {
            let since = *self.lease.vacant_since.get_or_insert(now);
            let healthy = self.is_healthy(now);
            let mut rivals = others(self, true);
            if rivals.is_empty() && !healthy {
                rivals = others(self, false);
            }
            let first = rivals.iter().all(|id| self.id < *id);
            let able = healthy || others(self, true).is_empty();
            if able && (first || now >= since + LAST_RESORT) {
                self.claim(now, host);
            }
        }
        if std::mem::take(&mut self.lease.has_news) && self.lease.holds() {
            self.greet_all(now, host);
        }
        self.decide_wish(now, host);
    }

    fn claim(&mut self, now: UnixMillis, host: &mut dyn Host) {
        self.lease.holder = Holder::Me;
        self.lease.vacant_since = None;
        self.lease.epoch = self.lease.epoch.saturating_add(1);
        host.log(Level::Notice, "cluster: this node fetches the list");
        self.scan_list(now, host);
        self.greet_all(now, host);
    }

    fn greet_all(&mut self, now: UnixMillis, host: &mut dyn Host) {
        for index in 0..self.peers.len() {
            if self.peers[index].is_fresh(now) {
                let to = self.peers[index].session.theirs;
                self.greet(now, index, to, host);
            }
        }
    }

    /// Grants a wish if the limit allows, after the others have been told.
    fn decide_wish(&mut self, now: UnixMillis, host: &mut dyn Host) {
        if !self.lease.holds() || self.lease.wished <= self.lease.granted {
            return;
        }
        let members: Vec<usize> = (0..self.peers.len())
            .filter(|i| self.shares_list(*i))
            .collect();
        let fresh: Vec<usize> = members
            .iter()
            .copied()
            .filter(|index| self.peers[*index].is_fresh(now))
            .collect();
        let known = self.known(now, &members);
        let share = |there: usize| self.settings.rate_limit as usize * there / known.max(there);
        let Some(at) = self.lease.intended_at else {
            if self.lease.requests.len() < share(fresh.len() + 1) {
                self.lease.intent += 1;
                // Unlike any number of this or an earlier run.
                let number = (self.run as u32).wrapping_add(self.lease.intent as u32);
                let key = (self.id, number);
                self.lease.requests.insert(key, now);
                self.lease.intended_at = Some(now);
                self.greet_all(now, host);
                if fresh.is_empty() {
                    self.grant();
                }
            }
            return;
        };
        let intent = self.lease.intent;
        let confirmed = fresh
            .iter()
            .filter(|index| self.peers[**index].confirmed == intent);
        let there = confirmed.count() + 1;
        let heard = there > fresh.len() || now >= at + CONFIRM;
        if heard && self.lease.requests.len() <= share(there) {
            self.grant();
        } else if heard {
            // Granted later, it would be counted too early: it is announced again, and this one counts as made.
            self.lease.intended_at = None;
        }
    }

    fn grant(&mut self) {
        self.lease.intended_at = None;
        self.lease.granted = self.lease.wished;
    }

    /// The nodes that may fetch somewhere: this one, those heard in the last hour, and in the hour after the start
    /// one of which the bus knows and this node does not.
    fn known(&self, now: UnixMillis, members: &[usize]) -> usize {
        let recent = |index: &&usize| now < self.peers[**index].heard + KNOWN_FOR;
        let stranger = |peer: &super::Peer| peer.listed && !peer.is_authenticated();
        let waits = now < self.started + KNOWN_FOR && self.peers.iter().any(stranger);
        1 + members.iter().filter(recent).count() + usize::from(waits)
    }
}
