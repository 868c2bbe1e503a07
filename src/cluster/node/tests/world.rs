//! A cluster under simulated time: its nodes, their tables and what the way between them does to messages.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::super::*;
use crate::clock::UnixSeconds;
use crate::cluster::keys::Keyring;
use crate::feed::schedule::Jitter;

/// The start of the simulated time.
pub(super) const START: UnixMillis = UnixMillis::new(1_795_300_000_000);
pub(super) const LIMIT: u32 = 11;
pub(super) const WINDOW: Duration = Duration::from_secs(120);
pub(in super::super) const SECRET: &[u8] = b"a secret of the simulation";

/// What one node's tables hold.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) own: BTreeMap<Subnet, OwnBan>,
    pub(super) peer: BTreeMap<Subnet, UnixSeconds>,
    /// Why the others banned; the first hundred of them.
    pub(super) reasons: BTreeMap<Subnet, String>,
    pub(super) list: BTreeMap<Subnet, UnixSeconds>,
    pub(super) trusted: Vec<Subnet>,
    pub(super) full: usize,
    pub(super) sent: Vec<(String, Vec<u8>)>,
    pub(super) log: Vec<String>,
}

impl Host for Tables {
    fn send(&mut self, uri: &str, message: &[u8]) {
        self.sent.push((uri.to_owned(), message.to_vec()));
    }
    fn own(&self, subnet: Subnet) -> Option<OwnBan> {
        self.own.get(&subnet).cloned()
    }
    fn each_own(&self, visit: &mut dyn FnMut(Subnet, UnixSeconds, UnixSeconds)) {
        self.own
            .iter()
            .for_each(|(subnet, ban)| visit(*subnet, ban.end, ban.since));
    }
    fn holds(&self, subnet: Subnet) -> bool {
        self.peer.contains_key(&subnet)
    }
    fn place(&mut self, _: &str, subnet: Subnet, end: UnixSeconds, reason: &str) -> Placed {
        if self.trusted.contains(&subnet) {
            return Placed::Refused;
        }
        if self.full != 0 && self.peer.len() >= self.full && !self.holds(subnet) {
            return Placed::Full;
        }
        let held = self.peer.entry(subnet).or_insert(end);
        *held = end.max(*held);
        if self.reasons.len() < 100 {
            self.reasons.insert(subnet, reason.to_owned());
        }
        Placed::Yes
    }
    fn shorten(&mut self, subnet: Subnet, end: UnixSeconds) {
        self.peer.insert(subnet, end);
    }
    fn lift(&mut self, subnet: Subnet) {
        self.peer.remove(&subnet);
    }
    fn lift_own(&mut self, subnet: Subnet) {
        self.own.remove(&subnet);
    }
    fn each_listed(&self, visit: &mut dyn FnMut(Subnet, UnixSeconds)) {
        self.list
            .iter()
            .for_each(|(subnet, end)| visit(*subnet, *end));
    }
    fn list(&mut self, entries: &[(Subnet, UnixSeconds)]) {
        self.list.extend(entries.iter().copied());
    }
    fn keep_listed(&mut self, keep: &dyn Fn(Subnet) -> bool) -> usize {
        let before = self.list.len();
        self.list.retain(|subnet, _| keep(*subnet));
        before - self.list.len()
    }
    fn log(&mut self, _: Level, text: &str) {
        self.log.push(text.to_owned());
    }
}

/// What the way between two nodes does to messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) loss: u64,
    pub(super) double: u64,
    pub(super) delay: u64,
}

pub(super) const GOOD: Way = Way {
    loss: 0,
    double: 0,
    delay: 1,
};

pub(super) struct Member {
    pub(super) node: Node,
    pub(super) tables: Tables,
    /// How far its clock is ahead, in ms.
    pub(super) skew: i64,
    pub(super) alive: bool,
    pub(super) side: u8,
    pub(super) next: UnixMillis,
    /// The number of its wish, and when the last was granted.
    pub(super) wished: u64,
    pub(super) used: u64,
}

/// A message under way: when it arrives, a running number, sender, receiver, bytes.
pub(super) type UnderWay = (UnixMillis, u64, usize, usize, Vec<u8>);

pub(super) struct World {
    pub(super) now: UnixMillis,
    pub(super) members: Vec<Member>,
    pub(super) queue: BinaryHeap<Reverse<UnderWay>>,
    pub(super) count: u64,
    pub(super) random: Jitter,
    pub(super) way: Way,
    /// Every request that the service saw.
    pub(super) requests: Vec<UnixMillis>,
    pub(super) recorded: Vec<(usize, Vec<u8>)>,
    pub(super) places: HashMap<String, usize>,
}

pub(super) fn uri(index: usize) -> String {
    format!("sip:10.0.{}.{}:5060", index / 250, index % 250 + 1)
}

pub(super) fn settings(software: &str) -> Settings {
    Settings {
        peer_budget: 1_000_000,
        peer_capacity: 400_000,
        software: software.into(),
        fingerprint: 77,
        rate_limit: LIMIT,
        // With what passes between the announcement of a request and its end.
        rate_window: WINDOW + Duration::from_secs(5),
        shrink_limit: 50,
    }
}

pub(super) fn host(n: u32) -> Subnet {
    Subnet::host(std::net::IpAddr::V4((0x0a01_0000 + n).into()))
}

impl World {
    pub(super) fn new(count: usize, seed: u64) -> World {
        let mut world = World {
            now: START,
            members: Vec::new(),
            queue: BinaryHeap::new(),
            count: 0,
            random: Jitter::seeded(seed),
            way: GOOD,
            requests: Vec::new(),
            recorded: Vec::new(),
            places: HashMap::new(),
        };
        for index in 0..count {
            // Clocks that differ by up to an hour.
            let skew = (index as i64 * 1_234_567) % 7_200_000 - 3_600_000;
            let node = world.fresh(index, skew);
            world.members.push(Member {
                node,
                tables: Tables::default(),
                skew,
                alive: true,
                side: 0,
                next: START,
                wished: 0,
                used: 0,
            });
        }
        world.introduce();
        world
    }

    pub(super) fn fresh(&mut self, index: usize, skew: i64) -> Node {
        let mut random = Jitter::seeded(self.random.below(u64::MAX - 1) ^ index as u64);
        let source = Box::new(move || random.below(u64::MAX - 1));
        let keys = Keyring::new([SECRET]).unwrap();
        Node::new(settings("1"), keys, source, self.now.shifted(skew))
    }

    /// The bus lists every node at every node.
    pub(super) fn introduce(&mut self) {
        let all: Vec<String> = (0..self.members.len()).map(uri).collect();
        self.places = all.iter().cloned().zip(0..).collect();
        for (index, member) in self.members.iter_mut().enumerate() {
            member.node.listed(&all[index], &all);
        }
    }

    pub(super) fn clock(&self, index: usize) -> UnixMillis {
        self.now.shifted(self.members[index].skew)
    }

    pub(super) fn ban(&mut self, index: usize, subnet: Subnet, seconds: u32) {
        let now = self.clock(index);
        let since = now.seconds();
        let member = &mut self.members[index];
        let end = since.shifted(seconds.into());
        let own = member.tables.own.entry(subnet).or_insert(OwnBan {
            end,
            since,
            reason: "test".into(),
        });
        own.end = own.end.max(end);
        member.node.own_changed(now, subnet, &member.tables);
        member.next = self.now;
    }

    pub(super) fn unban(&mut self, index: usize, subnet: Subnet) {
        let now = self.clock(index);
        let member = &mut self.members[index];
        member.tables.own.remove(&subnet);
        member.node.lifted(now, subnet, &mut member.tables);
        member.next = self.now;
    }

    pub(super) fn restart(&mut self, index: usize) {
        let skew = self.members[index].skew;
        let node = self.fresh(index, skew);
        let member = &mut self.members[index];
        member.node = node;
        member.tables.peer.clear();
        member.alive = true;
        member.wished = 0;
        member.used = 0;
        member.next = self.now;
        self.introduce();
    }

    /// Lets the time pass.
    pub(super) fn run(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        loop {
            let message = self.queue.peek().map(|Reverse((at, ..))| *at);
            let timers = self.members.iter().filter(|m| m.alive).map(|m| m.next);
            // Nothing is due if all nodes are dead and no message is under way.
            let next = timers.chain(message).min().unwrap_or(UnixMillis::MAX);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            while self
                .queue
                .peek()
                .is_some_and(|Reverse((at, ..))| *at <= self.now)
            {
                if let Some(Reverse((_, _, from, to, bytes))) = self.queue.pop() {
                    self.deliver(from, to, &bytes);
                }
            }
            for index in 0..self.members.len() {
                if self.members[index].alive && self.members[index].next <= self.now {
                    self.tick(index);
                }
            }
        }
    }

    pub(super) fn tick(&mut self, index: usize) {
        let now = self.clock(index);
        let member = &mut self.members[index];
        let due = member.node.tick(now, &mut member.tables);
        member.next = self.now + due.since(now).max(Duration::from_millis(1));
        self.fetch(index);
        self.post(index);
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if !self.members[to].alive || self.members[from].side != self.members[to].side {
            return;
        }
        let now = self.clock(to);
        let source = crate::cluster::peer::address_of(&uri(from)).unwrap();
        let member = &mut self.members[to];
        member.node.receive(now, source, bytes, &mut member.tables);
        self.fetch(to);
        // Whatever is to be done at once is done by the next tick.
        self.members[to].next = self.members[to].next.min(self.now.shifted(1));
        self.post(to);
    }

    /// An engine that wants to ask all the time.
    pub(super) fn fetch(&mut self, index: usize) {
        let member = &mut self.members[index];
        let view = member.node.feed_view();
        if view.mode == FeedMode::Lead && view.granted == member.wished {
            if member.wished > member.used {
                member.used = member.wished;
                self.requests.push(self.now);
            }
            member.wished += 1;
            member.node.wish(member.wished);
        }
    }

    pub(super) fn post(&mut self, index: usize) {
        let sent = std::mem::take(&mut self.members[index].tables.sent);
        for (to, bytes) in sent {
            let Some(to) = self.places.get(&to).copied() else {
                continue;
            };
            if self.recorded.len() < 2_000 {
                self.recorded.push((to, bytes.clone()));
            }
            if self.random.below(99) < self.way.loss {
                continue;
            }
            let copies = 1 + u64::from(self.random.below(99) < self.way.double);
            for _ in 0..copies {
                self.count += 1;
                let delay = 1 + self.random.below(self.way.delay);
                let at = self.now + Duration::from_millis(delay);
                self.queue
                    .push(Reverse((at, self.count, index, to, bytes.clone())));
            }
        }
    }

    /// What every node must hold of other nodes' bans: the latest end of all that are alive.
    pub(super) fn wanted(&self, index: usize) -> BTreeMap<Subnet, UnixSeconds> {
        let mut wanted = BTreeMap::new();
        for (other, member) in self.members.iter().enumerate() {
            if other == index {
                continue;
            }
            let shift = (self.members[index].skew - member.skew).div_euclid(1000);
            for (subnet, ban) in &member.tables.own {
                let end = ban.end.shifted(shift);
                let held = wanted.entry(*subnet).or_insert(end);
                *held = end.max(*held);
            }
        }
        wanted
    }

    /// The first difference between what a node holds and what it must, ends two seconds apart ignored.
    pub(super) fn difference(&self) -> Option<String> {
        for (index, member) in self.members.iter().enumerate().filter(|(_, m)| m.alive) {
            let wanted = self.wanted(index);
            let held = &member.tables.peer;
            if held.len() != wanted.len() {
                return Some(format!("node {index}: {} of {}", held.len(), wanted.len()));
            }
            for (subnet, end) in &wanted {
                match held.get(subnet) {
                    Some(known) if known.get().abs_diff(end.get()) <= 2 => {}
                    other => return Some(format!("node {index} {subnet}: {other:?}, not {end}")),
                }
            }
        }
        None
    }

    /// The most requests in any window.
    pub(super) fn busiest_window(&self) -> usize {
        let count = |from: &UnixMillis| {
            let inside = |at: &&UnixMillis| (*from..*from + WINDOW).contains(*at);
            self.requests.iter().filter(inside).count()
        };
        self.requests.iter().map(count).max().unwrap_or(0)
    }

    pub(super) fn fetchers(&self) -> Vec<usize> {
        let leads = |index: &usize| {
            let member = &self.members[*index];
            member.alive && member.node.feed_view().mode == FeedMode::Lead
        };
        (0..self.members.len()).filter(leads).collect()
    }
}
