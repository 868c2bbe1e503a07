//! One node fetches the list for all that share URL, dataset and key.
//!
//! The fetcher keeps the service's limit for the whole cluster, even when the cluster falls apart. Before each
//! request it tells the others, and those that confirm count it. It spends only the part of the limit that belongs
//! to the nodes which confirmed: with `a` of `k` known nodes, `limit * a / k` requests in a window. The parts of a
//! partition have fewer than `k` nodes together at most `k`, so together they stay within the limit, whoever fetches
//! in each; and a successor has counted what its predecessor asked.

use std::collections::{BTreeMap, HashSet};

use super::sync::list_parts;
use super::{Host, Node};
use crate::address::Subnet;
use crate::cluster::message::{Feed, Header, Item, Items, Kind, Place};
use crate::cluster::replica::{Held, Replica, State};
use crate::log::Level;

/// Nobody fetches before the nodes had this long to find each other, in ms.
const SETTLE: u64 = 3_000;
/// The same while the bus lists nodes that have not answered, in ms.
const SETTLE_LONG: u64 = 10_000;
/// An intention that is not confirmed by all within this time goes on with those who did, in ms.
const CONFIRM: u64 = 1_500;
/// A wish that is not granted is looked at again after this time, in ms.
const AGAIN: u64 = 200;
/// A node that is gone keeps its part of the limit this long, in ms: it may live in another part of a partition.
const KNOWN_FOR: u64 = 3_600_000;
/// Nobody took over within this time: whoever can does, in ms.
const LAST_RESORT: u64 = 10_000;
/// Requests that are remembered at most; the largest limit in use is far below.
const MOST_REQUESTS: usize = 4_096;
/// Requests that fit a HELLO.
const TOLD_REQUESTS: usize = 20;
/// Changed entries of the list that are told one by one; beyond, the digests tell.
const MOST_PUSHED: usize = 8_192;
/// A list shorter than this may shrink as it likes.
const SHRINK_MIN: usize = 100;

/// Who fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody yet.
    #[default]
    Nobody,
    /// This node.
    Me,
    /// That node.
    Peer(u64),
}

/// Whether this node may ask the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedMode {
    /// It shares no list with anybody.
    #[default]
    Alone,
    /// It is not known yet who fetches.
    Wait,
    /// It fetches, request by request as granted.
    Lead,
    /// Another node does.
    Follow,
}

impl FeedMode {
    /// The mode with this number, as `mode as u64` gives it.
    pub fn from_number(number: u64) -> Self {
        let all = [
            FeedMode::Alone,
            FeedMode::Wait,
            FeedMode::Lead,
            FeedMode::Follow,
        ];
        all.into_iter()
            .find(|mode| *mode as u64 == number)
            .unwrap_or_default()
    }
}

/// What the updater has to know. Times are seconds of this node's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedView {
    /// Whether it may ask.
    pub mode: FeedMode,
    /// The last wish that was granted.
    pub granted: u64,
    /// The fetcher's URI; empty if there is none.
    pub fetcher: String,
    /// What the fetcher said; of use when following.
    pub fetched: Feed,
    /// True if the list is what the fetcher has.
    pub whole: bool,
    /// True if a shrink is held back.
    pub held: bool,
}

/// The state of the lease.
#[derive(Default)]
pub(super) struct Lease {
    holder: Holder,
    epoch: u32,
    vacant_since: Option<u64>,
    /// What this node knows of the list by itself.
    own: Feed,
    unhealthy_since: Option<u64>,
    /// The others have not heard of the latest full fetch or control ID.
    has_news: bool,
    /// The fetcher's list, in its clock.
    list: Replica,
    source: u64,
    /// Something went since the list was complete last.
    shrunk: bool,
    whole: bool,
    /// The fetcher's full fetch of which a shrink was held back.
    held: Option<u32>,
    force: bool,
    wished: u64,
    granted: u64,
    intent: u64,
    intended_at: Option<u64>,
    /// Requests to the service by node and number, with the time.
    requests: BTreeMap<(u64, u32), u64>,
}

impl Lease {
    pub fn holds(&self) -> bool {
        self.holder == Holder::Me
    }

    pub fn follows(&self, id: u64) -> bool {
        self.holder == Holder::Peer(id)
    }

    pub fn list(&self) -> &Replica {
        &self.list
    }

    /// When there is something to decide, in ms.
    pub fn due(&self, now: u64) -> Option<u64> {
        let heard = self.intended_at.map_or(0, |at| at + CONFIRM);
        (self.wished > self.granted).then_some(heard.max(now + AGAIN))
    }
}

impl Node {
    /// What this node's own engine says of the list: `holds` and `epoch` are ignored.
    pub fn set_feed(&mut self, now: u64, feed: Feed) {
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
                    let local = |second: u32| {
                        if second == 0 {
                            0
                        } else {
                            peer.to_local(second)
                        }
                    };
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
    pub(super) fn add_feed(&mut self, now: u64, index: usize, items: &mut Items) {
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
                let age = u32::try_from(now.saturating_sub(*at)).unwrap_or(u32::MAX);
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

    fn is_healthy(&self, now: u64) -> bool {
        // A node that does not fetch cannot get well by itself: it may try again after a while.
        let since = self.lease.unhealthy_since;
        since.is_none_or(|since| now >= since + 600_000)
    }

    pub(super) fn take_feed(
        &mut self,
        now: u64,
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
                            let at = now.saturating_sub(u64::from(age));
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
    fn weigh(&mut self, now: u64, index: usize, host: &mut dyn Host) {
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

    pub(super) fn tend_lease(&mut self, now: u64, host: &mut dyn Host) {
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

    fn claim(&mut self, now: u64, host: &mut dyn Host) {
        self.lease.holder = Holder::Me;
        self.lease.vacant_since = None;
        self.lease.epoch = self.lease.epoch.saturating_add(1);
        host.log(Level::Notice, "cluster: this node fetches the list");
        self.scan_list(now, host);
        self.greet_all(now, host);
    }

    fn greet_all(&mut self, now: u64, host: &mut dyn Host) {
        for index in 0..self.peers.len() {
            if self.peers[index].is_fresh(now) {
                let to = self.peers[index].session.theirs;
                self.greet(now, index, to, host);
            }
        }
    }

    /// Grants a wish if the limit allows, after the others have been told.
    fn decide_wish(&mut self, now: u64, host: &mut dyn Host) {
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
            // Granted later, it would be counted too early: it is announced anew, and this one counts as made.
            self.lease.intended_at = None;
        }
    }

    fn grant(&mut self) {
        self.lease.intended_at = None;
        self.lease.granted = self.lease.wished;
    }

    /// The nodes that may fetch somewhere: this one, those heard in the last hour, and in the hour after the start
    /// one of which the bus knows and this node does not.
    fn known(&self, now: u64, members: &[usize]) -> usize {
        let recent = |index: &&usize| now < self.peers[**index].heard + KNOWN_FOR;
        let stranger = |peer: &super::Peer| peer.listed && !peer.is_authenticated();
        let waits = now < self.started + KNOWN_FOR && self.peers.iter().any(stranger);
        1 + members.iter().filter(recent).count() + usize::from(waits)
    }

    /// Compares what is known of this node's list with the table; tells the others what is new.
    pub fn scan_list(&mut self, now: u64, host: &mut dyn Host) {
        if !self.lease.holds() {
            return;
        }
        let clock = (now / 1000) as u32;
        let mut seen = HashSet::new();
        let mut news = Vec::new();
        host.each_listed(&mut |subnet, end| {
            if end > clock {
                seen.insert(subnet);
                if self.own_list.get(subnet).is_none_or(|held| held.end != end) {
                    news.push((subnet, end));
                }
            }
        });
        let listed = self.own_list.iter().map(|(subnet, _)| subnet);
        let gone: Vec<Subnet> = listed.filter(|subnet| !seen.contains(subnet)).collect();
        for subnet in gone {
            self.own_list.remove(subnet);
        }
        for (subnet, end) in &news {
            let held = Held {
                end: *end,
                stamp: now,
                state: State::Placed,
            };
            self.own_list.insert(*subnet, held);
        }
        if news.len() <= MOST_PUSHED {
            self.broadcast(now, Kind::Listed, list_parts(&news));
        }
    }

    /// Entries that the fetcher has just got.
    pub(super) fn take_listed(
        &mut self,
        index: usize,
        header: &Header,
        items: Vec<Item>,
        host: &mut dyn Host,
    ) {
        if !self.lease.follows(self.peers[index].id) {
            return;
        }
        for item in items {
            if let Item::Listed(entries) = item {
                self.take_entries(index, &entries, header.time, host);
            }
        }
    }

    fn take_entries(
        &mut self,
        index: usize,
        entries: &[(Subnet, u32)],
        time: u64,
        host: &mut dyn Host,
    ) {
        let mut news = Vec::new();
        for (subnet, end) in entries {
            let known = self.lease.list.get(*subnet).copied();
            if known.is_some_and(|held| held.stamp > time || held.end == *end) {
                continue;
            }
            let held = Held {
                end: *end,
                stamp: time,
                state: State::Placed,
            };
            self.lease.list.insert(*subnet, held);
            news.push((*subnet, self.peers[index].to_local(*end)));
        }
        if !news.is_empty() {
            host.list(&news);
        }
    }

    pub(super) fn take_list_part(
        &mut self,
        index: usize,
        (mask, after, upto): (u32, Option<Place>, Option<Place>),
        entries: &[(Subnet, u32)],
        header: &Header,
        host: &mut dyn Host,
    ) {
        if !self.lease.follows(self.peers[index].id) {
            return;
        }
        let has: HashSet<Subnet> = entries.iter().map(|(subnet, _)| *subnet).collect();
        let range = self.lease.list.range(mask, after, upto);
        let gone: Vec<Subnet> = range
            .filter(|((_, subnet), held)| !has.contains(subnet) && held.stamp <= header.time)
            .map(|((_, subnet), _)| subnet)
            .collect();
        self.lease.shrunk |= !gone.is_empty();
        for subnet in gone {
            self.lease.list.remove(subnet);
        }
        self.take_entries(index, entries, header.time, host);
    }

    /// The list is what the fetcher has: what is in the table and not in it goes, unless that is suspicious.
    pub(super) fn list_is_whole(&mut self, host: &mut dyn Host) {
        let fetched = match self.lease.holder {
            Holder::Peer(id) => self.peers.iter().find(|peer| peer.id == id),
            _ => None,
        };
        let Some(last_full) = fetched.map(|peer| peer.feed.last_full) else {
            return;
        };
        let first = !std::mem::replace(&mut self.lease.whole, true);
        let forced = std::mem::take(&mut self.lease.force);
        let again = self.lease.held.is_some_and(|held| held != last_full);
        if !first && !self.lease.shrunk && !forced && !again {
            return;
        }
        self.lease.shrunk = false;
        let (mut known, mut dropped) = (0usize, 0usize);
        host.each_listed(&mut |subnet, _| {
            known += 1;
            dropped += usize::from(self.lease.list.get(subnet).is_none());
        });
        if dropped == 0 {
            self.lease.held = None;
            return;
        }
        let limit = usize::from(self.settings.shrink_limit);
        if known >= SHRINK_MIN && dropped * 100 > known * limit && !forced && !again {
            if self.lease.held.replace(last_full).is_none() {
                let text = format!(
                    "cluster: the fetcher's list would drop {dropped} of {known} addresses \
                     (feed_shrink_limit {limit} %): nothing is dropped until its next full fetch \
                     agrees or apiban.reload force"
                );
                host.log(Level::Warn, &text);
            }
            return;
        }
        self.lease.held = None;
        let list = &self.lease.list;
        let went = host.keep_listed(&|subnet| list.get(subnet).is_some());
        host.log(
            Level::Info,
            &format!("cluster: {went} addresses are no longer listed"),
        );
    }
}
