//! One node of the cluster as a state machine. All times are those of a clock that never goes back.

mod bans;
mod feed;
mod hello;
mod host;
mod lease;
mod list;
mod own;
mod sending;
mod sync;
mod view;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::budget::Pace;
use super::keys::{node_id, Keyring};
use super::message::{self, Header, Item, Kind, Refusal};
use super::peer::{Peer, HELLO_PAUSE};
use super::replica::Replica;
use crate::address::Subnet;
use crate::clock::UnixMillis;
use crate::log::Level;
use bans::Tombstone;
pub use host::{Host, OwnBan, Placed};
use lease::Lease;
pub use lease::{FeedMode, FeedView};
use sending::Broadcast;
pub use view::{NodeState, NodeView, Role};

/// More nodes than a full mesh carries; see the figures of the simulation in `tests/it/cluster`.
pub const MOST_PEERS: usize = 256;
/// Changes are collected for this long before they go out, for each other node, so that a flood of changes
/// takes no more than [`PACE`]; the first after a quiet time goes at once.
const BATCH_PER_PEER: Duration = Duration::from_millis(5);
/// The shortest and the longest time for which changes are collected.
const BATCH: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// While messages or parts wait for the pace, it is looked at this often.
const SENDING_PAUSE: Duration = Duration::from_millis(5);
/// Changed addresses that wait; beyond, the digests tell.
const MOST_DIRTY: usize = 8_192;
/// Messages that wait for the pace; beyond, the digests tell.
const MOST_WAITING: usize = 512;
/// Messages at once, and a second. Kamailio's shared memory holds 10 KB for each for five seconds.
const PACE: (u64, u64) = (300, 200);
/// How often ended entries are forgotten.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// Above this many nodes HELLO comes less often, so that a node sends at most ten a second.
const NODES_AT_FULL_PACE: u32 = 50;

/// What the node is to do; from the parameters.
#[derive(Clone, Debug)]
pub struct Settings {
    /// New addresses that one other node may ban here in a minute.
    pub peer_budget: u32,
    /// Capacity of the table of other nodes' bans.
    pub peer_capacity: usize,
    /// Software version.
    pub software: String,
    /// Which list is fetched with which key; 0: nothing is shared.
    pub fingerprint: u64,
    /// Requests that the service allows per window.
    pub rate_limit: u32,
    /// That window, with all that a request may take.
    pub rate_window: Duration,
    /// Percent of the list that may go at once without a second opinion.
    pub shrink_limit: u8,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages sent.
    pub sent: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Messages taken.
    pub received: u64,
    /// Messages and bans refused.
    pub refused: u64,
}

/// The node.
pub struct Node {
    settings: Settings,
    keys: Keyring,
    random: Box<dyn FnMut() -> u64>,
    started: UnixMillis,
    /// Random, new at each start.
    run: u64,
    /// Begins every token, so that the DMQ callback can tell who knows one.
    token_prefix: u32,
    sequence: u64,
    last_stamp: UnixMillis,
    uri: String,
    id: u64,
    peers: Vec<Peer>,
    own: Replica,
    /// The list as this node fetched it.
    own_list: Replica,
    tombstones: HashMap<(Subnet, u64), Tombstone>,
    dirty: BTreeSet<Subnet>,
    dirty_lifts: Vec<Item>,
    flushed: UnixMillis,
    waiting: VecDeque<Broadcast>,
    pace: Pace,
    swept: UnixMillis,
    /// When the table of own bans was read last; `None`: never.
    scanned: Option<UnixMillis>,
    lease: Lease,
    counts: Counts,
    complained: BTreeSet<(IpAddr, &'static str)>,
}

impl Node {
    /// A node that knows nobody yet. `random` must be unpredictable.
    pub fn new(
        settings: Settings,
        keys: Keyring,
        mut random: Box<dyn FnMut() -> u64>,
        now: UnixMillis,
    ) -> Self {
        Node {
            run: random(),
            token_prefix: random() as u32 | 1,
            lease: Lease::default(),
            settings,
            keys,
            random,
            started: now,
            sequence: 0,
            last_stamp: UnixMillis::ZERO,
            uri: String::new(),
            id: 0,
            peers: Vec::new(),
            own: Replica::default(),
            own_list: Replica::default(),
            tombstones: HashMap::new(),
            dirty: BTreeSet::new(),
            dirty_lifts: Vec::new(),
            flushed: UnixMillis::ZERO,
            waiting: VecDeque::new(),
            pace: Pace::new(PACE.0, PACE.1, now),
            swept: UnixMillis::ZERO,
            scanned: None,
            counts: Counts::default(),
            complained: BTreeSet::new(),
        }
    }

    /// The upper half of every token that this node gives: see [`message::addressed_to`].
    pub fn token_prefix(&self) -> u32 {
        self.token_prefix
    }

    /// Counters since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Other secrets from now on.
    pub fn set_keys(&mut self, keys: Keyring) {
        self.keys = keys;
    }

    /// Another key of the service, so perhaps another fingerprint.
    pub fn set_fingerprint(&mut self, fingerprint: u64) {
        self.settings.fingerprint = fingerprint;
    }

    /// What the bus lists: this node's URI and those of the others, with numeric addresses.
    pub fn listed(&mut self, own: &str, others: &[String]) {
        if self.uri != own {
            self.uri = own.to_owned();
            self.id = node_id(own);
        }
        for peer in &mut self.peers {
            peer.listed = false;
        }
        for uri in others.iter().filter(|uri| *uri != own) {
            match self.peers.iter_mut().find(|peer| peer.uri == *uri) {
                Some(peer) => peer.listed = true,
                None => drop(self.add_peer(uri, true)),
            }
        }
        // Whoever holds the secret stays, listed or not; strangers go with the list.
        self.peers
            .retain(|peer| peer.uri != own && (peer.listed || peer.is_authenticated()));
    }

    fn add_peer(&mut self, uri: &str, listed: bool) -> Option<usize> {
        if uri == self.uri || self.peers.len() >= MOST_PEERS {
            return None;
        }
        self.peers.push(Peer::new(uri, listed)?);
        Some(self.peers.len() - 1)
    }

    /// Takes a message that came from `from`.
    pub fn receive(&mut self, now: UnixMillis, from: IpAddr, bytes: &[u8], host: &mut dyn Host) {
        let (header, rest) = match message::open(bytes, &self.keys) {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse_stranger(from, refusal, host),
        };
        let Some(items) = message::items(rest) else {
            self.counts.refused += 1;
            self.complain_of(from, "its messages make no sense", host);
            return;
        };
        if header.kind == Kind::Hello {
            return self.take_hello(now, &header, items, host);
        }
        let Some(index) = self.session_of(&header) else {
            // From before a restart, or seen before: no cause for a line.
            self.counts.refused += 1;
            return;
        };
        self.counts.received += 1;
        self.heard(now, index, &header, host);
        match header.kind {
            Kind::Bans => self.take_bans(now, index, items, host),
            Kind::Request => self.take_request(index, &items),
            Kind::Part => self.take_part(now, index, &header, items, host),
            Kind::Listed => self.take_listed(index, &header, items, host),
            Kind::Hello | Kind::Unknown(_) => {}
        }
    }

    /// The session that a message other than HELLO belongs to, if it was not seen before.
    fn session_of(&mut self, header: &Header) -> Option<usize> {
        let index = self.peers.iter().position(|peer| {
            let session = &peer.session;
            session.run == Some(header.run)
                && header.to != 0
                && [session.token, session.previous, session.next].contains(&header.to)
        })?;
        let fresh = self.peers[index].session.window.take(header.sequence);
        fresh.then_some(index)
    }

    /// Takes note that a node lives.
    fn heard(&mut self, now: UnixMillis, index: usize, header: &Header, host: &mut dyn Host) {
        let peer = &mut self.peers[index];
        peer.sample_clock(now, header.time);
        let returned = peer.heard != UnixMillis::ZERO && peer.is_silent(now);
        peer.heard = now;
        peer.unanswered = 0;
        if returned || std::mem::take(&mut peer.silent) {
            peer.silent = false;
            let text = format!("cluster: node {} is back", peer.uri);
            host.log(Level::Notice, &text);
            self.welcome(now, index, host);
        }
    }

    /// Does what is to be done now; returns when there is more if nothing happens before.
    pub fn tick(&mut self, now: UnixMillis, host: &mut dyn Host) -> UnixMillis {
        if self.scanned.is_none() {
            self.scan(now, host);
        }
        self.flush(now, host);
        self.send_waiting(now, host);
        self.look_again(now, host);
        if now >= self.swept + SWEEP_PAUSE {
            self.swept = now;
            self.sweep(now, host);
        }
        self.tend_lease(now, host);
        self.say_hello(now, host);
        self.due(now)
    }

    /// For how long changes are collected.
    fn batch(&self) -> Duration {
        (BATCH_PER_PEER * self.peer_count()).clamp(BATCH.0, BATCH.1)
    }

    fn due(&self, now: UnixMillis) -> UnixMillis {
        let mut due = self.swept + SWEEP_PAUSE;
        if !self.dirty.is_empty() || !self.dirty_lifts.is_empty() {
            due = due.min(self.flushed + self.batch());
        }
        if !self.waiting.is_empty() || self.peers.iter().any(Peer::is_served) {
            due = due.min(now + SENDING_PAUSE);
        }
        let looks = self.peers.iter().flat_map(|peer| &peer.unsettled);
        looks
            .map(|unsettled| unsettled.at)
            .chain(self.lease.due(now))
            .fold(due, UnixMillis::min)
            .max(now)
    }

    /// The other nodes, at most [`MOST_PEERS`].
    fn peer_count(&self) -> u32 {
        u32::try_from(self.peers.len()).unwrap_or(u32::MAX)
    }

    /// How often this node says HELLO.
    fn pause(&self) -> Duration {
        let nodes = self.peer_count() + 1;
        HELLO_PAUSE * nodes.max(NODES_AT_FULL_PACE) / NODES_AT_FULL_PACE
    }

    fn sweep(&mut self, now: UnixMillis, host: &mut dyn Host) {
        let clock = now.seconds();
        self.own.forget_ended(clock);
        self.own_list.forget_ended(clock);
        self.tombstones.retain(|_, stone| stone.until > now);
        self.say_lifts_again(now);
        let mut died = Vec::new();
        for index in 0..self.peers.len() {
            let peer = &mut self.peers[index];
            let theirs = peer.clock(now);
            peer.bans.forget_ended(theirs);
            if peer.is_authenticated() && !peer.silent && peer.is_silent(now) {
                peer.silent = true;
                died.push((peer.id, peer.heard));
                peer.serving = [None; 2];
                peer.asking = [None; 2];
                let text = format!(
                    "cluster: node {} is silent: its bans stay until they end",
                    peer.uri
                );
                host.log(Level::Warn, &text);
            }
        }
        for node in died {
            self.say_lifts_of(now, node);
        }
        self.place_deferred(now, host);
        self.forget_peers(now);
    }

    /// A node that was silent for a day is gone: nothing of it may be left.
    fn forget_peers(&mut self, now: UnixMillis) {
        const DAY: Duration = Duration::from_secs(86_400);
        self.peers
            .retain(|peer| peer.listed || !peer.bans.is_empty() || now.since(peer.heard) < DAY);
    }

    fn refuse_stranger(&mut self, from: IpAddr, refusal: Refusal, host: &mut dyn Host) {
        self.counts.refused += 1;
        let listed = self.peers.iter_mut().filter(|peer| peer.address == from);
        listed.for_each(|peer| peer.refused += 1);
        match refusal {
            Refusal::Malformed => {}
            Refusal::Mac => self.complain_of(
                from,
                "its messages do not verify: another cluster_secret_file or api_key, or not of the cluster",
                host,
            ),
            Refusal::Version(_) => self.complain_of(
                from,
                "its messages need a later version of this module",
                host,
            ),
        }
    }

    /// One line for each address and reason; forged addresses must not fill the log.
    fn complain_of(&mut self, from: IpAddr, reason: &'static str, host: &mut dyn Host) {
        const MOST: usize = 100;
        let listed = self.peers.iter_mut().find(|peer| peer.address == from);
        if let Some(peer) = listed {
            peer.complained = Some(reason);
        }
        if self.complained.len() < MOST && self.complained.insert((from, reason)) {
            host.log(
                Level::Warn,
                &format!("cluster: {from} is refused: {reason}"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
