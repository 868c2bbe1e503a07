//! Whole clusters under simulated time: messages are lost, doubled, delayed and cut off, nodes restart.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use proptest::prelude::*;

use super::*;
use crate::cluster::keys::Keyring;
use crate::feed::schedule::Jitter;

/// The start of the simulated time, in ms.
const START: u64 = 1_795_300_000_000;
const LIMIT: u32 = 11;
const WINDOW: u64 = 120_000;
pub(super) const SECRET: &[u8] = b"a secret of the simulation";

/// What one node's tables hold.
#[derive(Default)]
struct Tables {
    own: BTreeMap<Subnet, OwnBan>,
    peer: BTreeMap<Subnet, u32>,
    /// Why the others banned; the first hundred of them.
    reasons: BTreeMap<Subnet, String>,
    list: BTreeMap<Subnet, u32>,
    trusted: Vec<Subnet>,
    full: usize,
    sent: Vec<(String, Vec<u8>)>,
    log: Vec<String>,
}

impl Host for Tables {
    fn send(&mut self, uri: &str, message: &[u8]) {
        self.sent.push((uri.to_owned(), message.to_vec()));
    }
    fn own(&self, subnet: Subnet) -> Option<OwnBan> {
        self.own.get(&subnet).cloned()
    }
    fn each_own(&self, visit: &mut dyn FnMut(Subnet, u32, u32)) {
        self.own
            .iter()
            .for_each(|(subnet, ban)| visit(*subnet, ban.end, ban.since));
    }
    fn holds(&self, subnet: Subnet) -> bool {
        self.peer.contains_key(&subnet)
    }
    fn place(&mut self, _: &str, subnet: Subnet, end: u32, reason: &str) -> Placed {
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
    fn shorten(&mut self, subnet: Subnet, end: u32) {
        self.peer.insert(subnet, end);
    }
    fn lift(&mut self, subnet: Subnet) {
        self.peer.remove(&subnet);
    }
    fn lift_own(&mut self, subnet: Subnet) {
        self.own.remove(&subnet);
    }
    fn each_listed(&self, visit: &mut dyn FnMut(Subnet, u32)) {
        self.list
            .iter()
            .for_each(|(subnet, end)| visit(*subnet, *end));
    }
    fn list(&mut self, entries: &[(Subnet, u32)]) {
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
struct Way {
    loss: u64,
    double: u64,
    delay: u64,
}

const GOOD: Way = Way {
    loss: 0,
    double: 0,
    delay: 1,
};

struct Member {
    node: Node,
    tables: Tables,
    /// How far its clock is ahead, in ms.
    skew: i64,
    alive: bool,
    side: u8,
    next: u64,
    /// The number of its wish, and when the last was granted.
    wished: u64,
    used: u64,
}

/// A message under way: when it arrives, a running number, sender, receiver, bytes.
type UnderWay = (u64, u64, usize, usize, Vec<u8>);

struct World {
    now: u64,
    members: Vec<Member>,
    queue: BinaryHeap<Reverse<UnderWay>>,
    count: u64,
    random: Jitter,
    way: Way,
    /// Every request that the service saw, in ms.
    requests: Vec<u64>,
    recorded: Vec<(usize, Vec<u8>)>,
    places: HashMap<String, usize>,
}

fn uri(index: usize) -> String {
    format!("sip:10.0.{}.{}:5060", index / 250, index % 250 + 1)
}

fn settings(software: &str) -> Settings {
    Settings {
        peer_budget: 1_000_000,
        peer_capacity: 400_000,
        software: software.into(),
        fingerprint: 77,
        rate_limit: LIMIT,
        // With what passes between the announcement of a request and its end.
        rate_window: WINDOW + 5_000,
        shrink_limit: 50,
    }
}

fn host(n: u32) -> Subnet {
    Subnet::host(std::net::IpAddr::V4((0x0a01_0000 + n).into()))
}

impl World {
    fn new(count: usize, seed: u64) -> World {
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

    fn fresh(&mut self, index: usize, skew: i64) -> Node {
        let mut random = Jitter::seeded(self.random.below(u64::MAX - 1) ^ index as u64);
        let source = Box::new(move || random.below(u64::MAX - 1));
        let keys = Keyring::new([SECRET]).unwrap();
        Node::new(
            settings("1"),
            keys,
            source,
            self.now.wrapping_add_signed(skew),
        )
    }

    /// The bus lists every node at every node.
    fn introduce(&mut self) {
        let all: Vec<String> = (0..self.members.len()).map(uri).collect();
        self.places = all.iter().cloned().zip(0..).collect();
        for (index, member) in self.members.iter_mut().enumerate() {
            member.node.listed(&all[index], &all);
        }
    }

    fn clock(&self, index: usize) -> u64 {
        self.now.wrapping_add_signed(self.members[index].skew)
    }

    fn ban(&mut self, index: usize, subnet: Subnet, seconds: u32) {
        let now = self.clock(index);
        let since = (now / 1000) as u32;
        let member = &mut self.members[index];
        let end = since + seconds;
        let own = member.tables.own.entry(subnet).or_insert(OwnBan {
            end,
            since,
            reason: "test".into(),
        });
        own.end = own.end.max(end);
        member.node.own_changed(now, subnet, &member.tables);
        member.next = self.now;
    }

    fn unban(&mut self, index: usize, subnet: Subnet) {
        let now = self.clock(index);
        let member = &mut self.members[index];
        member.tables.own.remove(&subnet);
        member.node.lifted(now, subnet, &mut member.tables);
        member.next = self.now;
    }

    fn restart(&mut self, index: usize) {
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
    fn run(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        loop {
            let message = self.queue.peek().map(|Reverse((at, ..))| *at);
            let timers = self.members.iter().filter(|m| m.alive).map(|m| m.next);
            // Nothing is due if all nodes are dead and no message is under way.
            let next = timers.chain(message).min().unwrap_or(u64::MAX);
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

    fn tick(&mut self, index: usize) {
        let now = self.clock(index);
        let member = &mut self.members[index];
        let due = member.node.tick(now, &mut member.tables);
        member.next = self.now + (due - now).max(1);
        self.fetch(index);
        self.post(index);
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if !self.members[to].alive || self.members[from].side != self.members[to].side {
            return;
        }
        let now = self.clock(to);
        let source = crate::cluster::peer::address_of(&uri(from)).unwrap();
        let member = &mut self.members[to];
        member.node.receive(now, source, bytes, &mut member.tables);
        self.fetch(to);
        // Whatever is to be done at once is done by the next tick.
        self.members[to].next = self.members[to].next.min(self.now + 1);
        self.post(to);
    }

    /// An engine that wants to ask all the time.
    fn fetch(&mut self, index: usize) {
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

    fn post(&mut self, index: usize) {
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
                let at = self.now + 1 + self.random.below(self.way.delay);
                self.queue
                    .push(Reverse((at, self.count, index, to, bytes.clone())));
            }
        }
    }

    /// What every node must hold of other nodes' bans: the latest end of all that are alive.
    fn wanted(&self, index: usize) -> BTreeMap<Subnet, u32> {
        let mut wanted = BTreeMap::new();
        for (other, member) in self.members.iter().enumerate() {
            if other == index {
                continue;
            }
            let shift = (self.members[index].skew - member.skew).div_euclid(1000);
            for (subnet, ban) in &member.tables.own {
                let end = (i64::from(ban.end) + shift) as u32;
                let held = wanted.entry(*subnet).or_insert(end);
                *held = end.max(*held);
            }
        }
        wanted
    }

    /// The first difference between what a node holds and what it must, ends two seconds apart ignored.
    fn difference(&self) -> Option<String> {
        for (index, member) in self.members.iter().enumerate().filter(|(_, m)| m.alive) {
            let wanted = self.wanted(index);
            let held = &member.tables.peer;
            if held.len() != wanted.len() {
                return Some(format!("node {index}: {} of {}", held.len(), wanted.len()));
            }
            for (subnet, end) in &wanted {
                match held.get(subnet) {
                    Some(known) if known.abs_diff(*end) <= 2 => {}
                    other => return Some(format!("node {index} {subnet}: {other:?}, not {end}")),
                }
            }
        }
        None
    }

    /// The most requests in any window.
    fn busiest_window(&self) -> usize {
        let count = |from: &u64| {
            let inside = |at: &&u64| (*from..*from + WINDOW).contains(*at);
            self.requests.iter().filter(inside).count()
        };
        self.requests.iter().map(count).max().unwrap_or(0)
    }

    fn fetchers(&self) -> Vec<usize> {
        let leads = |index: &usize| {
            let member = &self.members[*index];
            member.alive && member.node.feed_view().mode == FeedMode::Lead
        };
        (0..self.members.len()).filter(leads).collect()
    }
}

#[test]
fn a_ban_is_everywhere_at_once_and_lifted_by_anybody() {
    let mut world = World::new(4, 1);
    world.run(500);
    world.ban(0, host(1), 600);
    world.ban(1, "2001:db8::/64".parse().unwrap(), 600);
    world.run(150);
    assert_eq!(world.difference(), None);
    // Banned by two nodes: lifted by a third, gone at both.
    world.ban(1, host(1), 900);
    world.run(150);
    assert_eq!(world.difference(), None);
    world.unban(3, host(1));
    world.run(150);
    assert!(world
        .members
        .iter()
        .all(|m| !m.tables.own.contains_key(&host(1))));
    assert_eq!(world.difference(), None);
    // Banned anew it is banned, for however short.
    world.ban(0, host(1), 60);
    world.run(150);
    assert!(world.members[2].tables.peer.contains_key(&host(1)));
    assert_eq!(world.difference(), None);
    // An idle cluster says little: HELLO every five seconds to each of three, and what the fetcher announces.
    let before = world.members[0].node.counts().sent;
    world.run(60_000);
    let sent = world.members[0].node.counts().sent - before;
    assert!(sent <= 3 * 40, "{sent} messages in a minute");
}

#[test]
fn who_joins_has_all_in_a_moment() {
    let mut world = World::new(3, 2);
    world.members[2].alive = false;
    world.run(1_000);
    for n in 0..10_000 {
        world.ban(n as usize % 2, host(n), 3_000);
    }
    world.run(90_000);
    let leader = world.fetchers()[0];
    let end = (world.clock(leader) / 1000) as u32 + 600_000;
    let list = (0..5_000).map(|n| (host(100_000 + n), end));
    world.members[leader].tables.list.extend(list);
    let now = world.clock(leader);
    let member = &mut world.members[leader];
    member.node.scan_list(now, &mut member.tables);
    world.run(10_000);
    // Once as one that was never heard, then as one that was there a moment ago.
    for _ in 0..2 {
        world.members[2].tables.list.clear();
        world.restart(2);
        world.run(2_000);
        assert_eq!(world.members[2].tables.peer.len(), 10_000);
        assert_eq!(world.members[2].tables.list.len(), 5_000);
        assert!(world.members[2].node.feed_view().whole);
        assert_eq!(world.difference(), None);
        world.run(30_000);
    }
}

#[test]
fn a_partition_heals_bans_and_lifted_bans() {
    let mut world = World::new(4, 3);
    world.run(500);
    for n in 0..50 {
        world.ban(n as usize % 4, host(n), 3_000);
    }
    world.run(1_000);
    world.members[2].side = 1;
    world.members[3].side = 1;
    world.run(2_000);
    world.ban(0, host(100), 3_000);
    world.ban(2, host(101), 3_000);
    // Node 0 lifts what node 2 made, while node 2 cannot hear it.
    world.unban(0, host(2));
    world.run(58_000);
    assert!(world.members[3].tables.peer.contains_key(&host(2)));
    world.members[2].side = 0;
    world.members[3].side = 0;
    world.run(15_000);
    assert!(!world.members[2].tables.own.contains_key(&host(2)));
    assert!(world.members[1].tables.peer.contains_key(&host(101)));
    assert_eq!(world.difference(), None);
}

#[test]
fn who_missed_that_a_dead_nodes_ban_was_lifted_hears_of_it() {
    let mut world = World::new(3, 14);
    world.run(500);
    world.ban(2, host(1), 3_000);
    world.run(1_000);
    // The lift does not reach node 1, and the maker of the ban dies before it can say what it still has.
    world.members[1].side = 1;
    world.unban(0, host(1));
    world.run(200);
    assert!(world.members[2].tables.own.is_empty());
    world.members[2].alive = false;
    world.members[1].side = 0;
    world.run(10_000);
    assert!(world.members[1].tables.peer.is_empty());
}

#[test]
fn a_restart_with_an_old_state_brings_no_lifted_ban_back() {
    let mut world = World::new(3, 4);
    world.run(500);
    world.ban(0, host(1), 3_000);
    world.run(1_000);
    let saved = world.members[0].tables.own.clone();
    world.unban(1, host(1));
    world.run(1_000);
    // Node 0 crashes before it saved that.
    world.members[0].tables.own = saved;
    world.restart(0);
    world.run(5_000);
    assert!(world.members[0].tables.own.is_empty());
    assert_eq!(world.difference(), None);
}

#[test]
fn replayed_and_foreign_messages_change_nothing() {
    let mut world = World::new(3, 5);
    world.run(500);
    world.ban(0, host(1), 3_000);
    world.run(1_000);
    let recorded = std::mem::take(&mut world.recorded);
    world.unban(0, host(1));
    world.run(1_000);
    for member in [1, 2] {
        // Also after the receiver forgot everything.
        if member == 2 {
            world.restart(2);
            world.run(1_000);
        }
        for (_, bytes) in &recorded {
            world.deliver(0, member, bytes);
        }
        world.run(100);
        assert!(world.members[member].tables.peer.is_empty());
    }
    // A stranger with another secret gets nothing and changes nothing.
    world.members.push(Member {
        node: Node::new(
            settings("x"),
            Keyring::new([b"some other secret text".as_slice()]).unwrap(),
            Box::new(|| 4),
            world.now,
        ),
        tables: Tables::default(),
        skew: 0,
        alive: true,
        side: 0,
        next: world.now,
        wished: 0,
        used: 0,
    });
    world.introduce();
    world.ban(3, host(9), 900);
    world.ban(0, host(10), 900);
    world.run(20_000);
    assert!(world.members[3].tables.peer.is_empty());
    assert!(!world.members[0].tables.peer.contains_key(&host(9)));
    let view = world.members[0].node.view(world.clock(0));
    let stranger = view.iter().find(|node| node.uri == uri(3)).unwrap();
    assert_eq!(stranger.state, NodeState::Refused);
}

#[test]
fn a_node_that_bans_too_much_is_bounded() {
    let mut world = World::new(2, 6);
    let bounded = Settings {
        peer_budget: 10,
        peer_capacity: 100,
        ..settings("1")
    };
    world.members[1].node.settings = bounded;
    world.members[1].tables.trusted.push(host(0));
    world.run(500);
    for n in 0..300 {
        world.ban(0, host(n), 3_000);
    }
    world.ban(0, "10.9.0.0/20".parse().unwrap(), 3_000);
    world.run(1_000);
    let held = world.members[1].tables.peer.len();
    // Ten of this minute, and what it had when it came: at most half of the table.
    assert!((10..=60).contains(&held), "{held}");
    assert!(!world.members[1].tables.peer.contains_key(&host(0)));
    assert!(world.members[1].node.counts().refused > 0);
    world.run(180_000);
    let later = world.members[1].tables.peer.len();
    assert!(later <= 50, "half of the table at most: {later}");
    assert!(!world.members[1]
        .tables
        .peer
        .contains_key(&"10.9.0.0/20".parse().unwrap()));
}

#[test]
fn a_ban_that_waited_for_room_has_its_reason() {
    let mut world = World::new(2, 13);
    world.members[1].node.settings.peer_budget = 5;
    world.run(20_000);
    // What a node brings when it comes costs no budget.
    world.members[1].node.peers[0].budget = Default::default();
    for n in 0..9 {
        world.ban(0, host(n), 3_000);
    }
    world.run(500);
    let reasons = |world: &World| world.members[1].tables.reasons.clone();
    assert_eq!(reasons(&world).len(), 5);
    // One of those that wait is lifted.
    let waits = (0..9).find(|n| !reasons(&world).contains_key(&host(*n)));
    world.unban(0, host(waits.unwrap()));
    world.run(60_000);
    assert_eq!(reasons(&world).len(), 8);
    assert!(reasons(&world).values().all(|reason| reason == "test"));
    assert!(world.members[1].node.peers[0].deferred_reasons.is_empty());
}

#[test]
fn flushed_bans_do_not_come_back() {
    let mut world = World::new(3, 7);
    world.run(500);
    for n in 0..20 {
        world.ban(n as usize % 2, host(n), 3_000);
    }
    world.ban(1, host(0), 3_000);
    world.run(1_000);
    let member = &mut world.members[2];
    assert_eq!(
        member
            .node
            .flush_peer(Some("sip:10.9.9.9"), &mut member.tables),
        None
    );
    assert_eq!(
        member.node.flush_peer(Some(&uri(0)), &mut member.tables),
        Some(10)
    );
    // What another node bans too stays.
    assert_eq!(member.tables.peer.len(), 11);
    world.run(30_000);
    assert_eq!(world.members[2].tables.peer.len(), 11);
    world.ban(0, host(50), 3_000);
    world.run(500);
    assert!(world.members[2].tables.peer.contains_key(&host(50)));
}

#[test]
fn one_fetches_and_another_takes_over() {
    let mut world = World::new(4, 8);
    world.run(10_000);
    let first = world.fetchers();
    assert_eq!(first.len(), 1);
    for n in 0..5_000 {
        world.members[first[0]]
            .tables
            .list
            .insert(host(n), (START / 1000) as u32 + 600_000);
    }
    let now = world.clock(first[0]);
    let member = &mut world.members[first[0]];
    member.node.scan_list(now, &mut member.tables);
    world.run(8_000);
    for member in &world.members {
        assert_eq!(member.tables.list.len(), 5_000);
    }
    // What the service no longer lists goes everywhere.
    world.members[first[0]].tables.list.remove(&host(7));
    let now = world.clock(first[0]);
    let member = &mut world.members[first[0]];
    member.node.scan_list(now, &mut member.tables);
    world.run(15_000);
    assert!(world.members.iter().all(|m| m.tables.list.len() == 4_999));
    world.members[first[0]].alive = false;
    world.run(40_000);
    let second = world.fetchers();
    assert!(second.len() == 1 && second != first);
    let before = world.requests.len();
    world.run(300_000);
    assert!(world.requests.len() > before);
    assert!(
        world.busiest_window() <= LIMIT as usize,
        "{}",
        world.busiest_window()
    );
}

#[test]
fn a_suspicious_shrink_is_held_at_the_follower() {
    let mut world = World::new(2, 9);
    world.run(6_000);
    let leader = world.fetchers()[0];
    for n in 0..500 {
        world.members[leader]
            .tables
            .list
            .insert(host(n), (START / 1000) as u32 + 600_000);
    }
    let scan = |world: &mut World, last_full: u32| {
        let now = world.clock(leader);
        let member = &mut world.members[leader];
        let healthy = true;
        member.node.set_feed(
            now,
            message::Feed {
                healthy,
                last_full,
                ..Default::default()
            },
        );
        member.node.scan_list(now, &mut member.tables);
        world.run(12_000);
    };
    scan(&mut world, 1);
    assert_eq!(world.members[1 - leader].tables.list.len(), 500);
    world.members[leader]
        .tables
        .list
        .retain(|subnet, _| *subnet < host(100));
    scan(&mut world, 2);
    assert_eq!(world.members[1 - leader].tables.list.len(), 500);
    assert!(world.members[1 - leader].node.feed_view().held);
    scan(&mut world, 3);
    assert_eq!(world.members[1 - leader].tables.list.len(), 100);
}

/// A case of these simulates minutes of a cluster: few of them, unless `PROPTEST_CASES` asks for more.
fn few_cases() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 8;
    }
    config
}

proptest! {
    #![proptest_config(few_cases())]

    /// Whatever is lost, doubled, late, cut off or restarted: at the end all tables are equal, and the service never
    /// saw more requests in a window than one key may make.
    #[test]
    fn at_the_end_all_are_equal(
        seed in any::<u64>(),
        count in 2usize..6,
        loss in 0u64..40,
        double in 0u64..30,
        delay in 1u64..2_000,
        steps in prop::collection::vec((0u8..8, 0usize..6, 0u32..12, 1u64..20_000), 1..40),
    ) {
        let mut world = World::new(count, seed);
        world.way = Way { loss, double, delay };
        for (what, index, n, pause) in steps {
            let index = index % count;
            match what {
                0..=2 => world.ban(index, host(n), 20_000 + n * 100),
                3 => world.unban(index, host(n)),
                4 => world.members[index].side ^= 1,
                5 => world.restart(index),
                6 => world.members[index].alive = false,
                _ if !world.members[index].alive => world.restart(index),
                _ => {}
            }
            world.run(pause);
        }
        world.way = GOOD;
        for index in 0..count {
            world.members[index].side = 0;
            if !world.members[index].alive {
                world.restart(index);
            }
        }
        world.run(60_000);
        prop_assert_eq!(world.difference(), None);
        prop_assert_eq!(world.fetchers().len(), 1);
    }

    /// Two parts of a cluster stay within the limit of one key together.
    #[test]
    fn a_partition_stays_within_the_limit(
        seed in any::<u64>(),
        count in 2usize..7,
        cuts in prop::collection::vec((0usize..7, 1u64..90_000), 1..12),
        loss in 0u64..20,
    ) {
        let mut world = World::new(count, seed);
        world.run(5_000);
        world.way = Way { loss, double: 0, delay: 50 };
        for (index, pause) in cuts {
            world.members[index % count].side ^= 1;
            world.run(pause);
        }
        prop_assert!(world.busiest_window() <= LIMIT as usize, "{}", world.busiest_window());
    }
}

/// Prints what a cluster costs against its size, with 100,000 bans in the largest:
/// `cargo test --release --lib figures -- --nocapture`. Unoptimised it is smaller: every node takes every ban.
#[test]
fn figures_of_a_large_cluster() {
    /// Twice the longest pause between HELLOs, in ms.
    const IDLE: u64 = 20_200;
    let seconds = IDLE as f64 / 1000.0;
    println!(
        "nodes  bans/node  seconds until all  messages/node  KB/node  idle messages/s  idle KB/s"
    );
    let sizes = match cfg!(debug_assertions) {
        true => vec![(2, 1_000), (10, 1_000), (50, 100)],
        false => vec![(2, 1_000), (10, 1_000), (50, 1_000), (100, 1_000)],
    };
    for (count, each) in sizes {
        let mut world = World::new(count, 10);
        world.run(10_000);
        let before = world.members[0].node.counts();
        for index in 0..count {
            for n in 0..each {
                world.ban(index, host((index as u32) * each + n), 3_000);
            }
        }
        let begin = world.now;
        let wanted = (count - 1) * each as usize;
        let complete = |world: &World| {
            let mut members = world.members.iter();
            members.all(|member| member.tables.peer.len() == wanted)
        };
        while !complete(&world) {
            assert!(world.now < begin + 60_000, "not complete after a minute");
            world.run(500);
        }
        let took = (world.now - begin) as f64 / 1000.0;
        let busy = world.members[0].node.counts();
        world.run(IDLE);
        assert!(complete(&world));
        let idle = world.members[0].node.counts();
        println!(
            "{count:5}  {each:9}  {took:18.1}  {:13}  {:7}  {:15.1}  {:9.1}",
            busy.sent - before.sent,
            (busy.bytes - before.bytes) / 1024,
            (idle.sent - busy.sent) as f64 / seconds,
            (idle.bytes - busy.bytes) as f64 / seconds / 1024.0,
        );
    }
}
