//! HELLO: joining, signs of life, and what differs.

use std::time::Duration;

use super::{Host, Node};
use crate::clock::UnixMillis;
use crate::cluster::message::{Header, Item, Items, Kind, Set, BUCKETS};
use crate::cluster::peer::Unsettled;
use crate::cluster::replica::{Digests, Replica};
use crate::log::Level;

/// Digests are looked at after this long: what is under way has come by then.
const SECOND_LOOK: Duration = Duration::from_millis(300);
/// Clocks that differ by more than this are worth a line, in ms. Nothing depends on them.
const SKEW: i64 = 60_000;
/// A node is answered at most this often.
const ANSWER_PAUSE: Duration = Duration::from_millis(100);

/// What a HELLO says.
#[derive(Default)]
struct Hello {
    uri: String,
    token: u64,
    about: Option<(u16, String)>,
    digests: Vec<(Set, [u64; BUCKETS])>,
    rest: Vec<Item>,
}

impl Hello {
    fn read(items: Vec<Item>) -> Hello {
        let mut hello = Hello::default();
        for item in items {
            match item {
                Item::Uri(uri) => hello.uri = uri,
                Item::Token(token) => hello.token = token,
                Item::About(pause, software) => hello.about = Some((pause, software)),
                Item::Digests(set, sums) => hello.digests.push((set, *sums)),
                other => hello.rest.push(other),
            }
        }
        hello
    }
}

impl Node {
    pub(super) fn take_hello(
        &mut self,
        now: UnixMillis,
        header: &Header,
        items: Vec<Item>,
        host: &mut dyn Host,
    ) {
        let hello = Hello::read(items);
        let known = self.peers.iter().position(|peer| peer.uri == hello.uri);
        let Some(index) = known.or_else(|| self.add_peer(&hello.uri, false)) else {
            self.counts.refused += 1;
            return;
        };
        if header.run == self.run {
            // Our own, sent back to us.
            self.counts.refused += 1;
            return;
        }
        match self.admit(index, header) {
            Admission::Refused => self.counts.refused += 1,
            Admission::Unproven => {
                self.counts.received += 1;
                let peer = &mut self.peers[index];
                if now >= peer.answered + ANSWER_PAUSE {
                    peer.answered = now;
                    let known = peer.session.run == Some(header.run);
                    let to = if known && peer.session.theirs != 0 {
                        peer.session.theirs
                    } else {
                        hello.token
                    };
                    self.greet(now, index, to, host);
                }
            }
            Admission::New => {
                self.counts.received += 1;
                self.begin(now, index, &hello, header, host);
                // First of all the HELLO: until it has come, the node refuses everything else of this run.
                self.peers[index].session.theirs = hello.token;
                self.greet(now, index, hello.token, host);
                self.take_session_hello(now, index, header, hello, host);
                self.welcome(now, index, host);
            }
            Admission::Known => {
                self.counts.received += 1;
                self.heard(now, index, header, host);
                self.take_session_hello(now, index, header, hello, host);
            }
        }
    }

    /// Whether the HELLO belongs to the session, begins one, or proves nothing.
    fn admit(&mut self, index: usize, header: &Header) -> Admission {
        let random = u64::from(self.token_prefix) << 32 | (self.random)() & 0xffff_ffff;
        let session = &mut self.peers[index].session;
        let same_run = session.run == Some(header.run);
        if same_run && !session.window.take(header.sequence) {
            return Admission::Refused;
        }
        if header.to != 0 && header.to == session.next {
            if !same_run {
                // Tokens of the run before count no more.
                session.run = Some(header.run);
                session.window = Default::default();
                session.window.take(header.sequence);
                session.previous = 0;
            } else {
                session.previous = session.token;
            }
            session.token = std::mem::take(&mut session.next);
            return if same_run {
                Admission::Known
            } else {
                Admission::New
            };
        }
        if same_run && header.to != 0 && [session.token, session.previous].contains(&header.to) {
            return Admission::Known;
        }
        // It does not know its token: a new run, or a replay. Only an answer from its address tells.
        if session.next == 0 && !same_run {
            session.next = random;
        }
        Admission::Unproven
    }

    /// A node came, or came back after a restart.
    fn begin(
        &mut self,
        now: UnixMillis,
        index: usize,
        hello: &Hello,
        header: &Header,
        host: &mut dyn Host,
    ) {
        let peer = &mut self.peers[index];
        let again = peer.heard != UnixMillis::ZERO;
        peer.forget_clock();
        peer.sample_clock(now, header.time);
        peer.heard = now;
        peer.unanswered = 0;
        peer.silent = false;
        peer.complained = None;
        // Its stamps begin anew; what it still has it says.
        peer.bans
            .iter_mut()
            .for_each(|(_, held)| held.stamp = UnixMillis::ZERO);
        let software = hello.about.as_ref().map_or("", |(_, software)| software);
        let what = if again { "restarted" } else { "came" };
        let text = format!("cluster: node {} {what} (version {software})", peer.uri);
        let offset = peer.offset();
        host.log(Level::Notice, &text);
        if !software.is_empty() && software != self.settings.software {
            let text = format!(
                "cluster: node {} has version {software}, this one {}",
                self.peers[index].uri, self.settings.software
            );
            host.log(Level::Notice, &text);
        }
        if offset.abs() > SKEW {
            let text = format!(
                "cluster: the clock of node {} is off by {} s: bans keep their length, only times in lists look odd",
                self.peers[index].uri,
                -offset / 1000
            );
            host.log(Level::Warn, &text);
        }
    }

    /// What a node gets that came or came back.
    pub(super) fn welcome(&mut self, now: UnixMillis, index: usize, host: &mut dyn Host) {
        let half = self.settings.peer_capacity / 2;
        self.peers[index].budget.allow_whole_set(now, half);
        self.repeat_lifts(now, index, host);
    }

    fn take_session_hello(
        &mut self,
        now: UnixMillis,
        index: usize,
        header: &Header,
        hello: Hello,
        host: &mut dyn Host,
    ) {
        let peer = &mut self.peers[index];
        peer.session.theirs = hello.token;
        if let Some((pause, software)) = hello.about {
            peer.pause = Duration::from_secs(u64::from(pause).clamp(1, 300));
            peer.software = software;
        }
        self.take_feed(now, index, hello.rest, host);
        for (set, sums) in hello.digests {
            let digests = Digests {
                seed: header.run,
                time: header.time,
                sums,
            };
            let peer = &mut self.peers[index];
            peer.unsettled.retain(|known| known.set != set);
            let at = now + SECOND_LOOK;
            peer.unsettled.push(Unsettled { set, digests, at });
        }
        self.look_again(now, host);
    }

    /// HELLO to everybody who is due.
    pub(super) fn say_hello(&mut self, now: UnixMillis, host: &mut dyn Host) {
        if self.uri.is_empty() {
            return;
        }
        let pause = self.pause();
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            if peer.greeted == UnixMillis::ZERO
                || now >= peer.greeted + peer.hello_pause(now, pause)
            {
                let to = peer.session.theirs;
                self.greet(now, index, to, host);
            }
        }
    }

    /// HELLO to one node.
    pub(super) fn greet(&mut self, now: UnixMillis, index: usize, to: u64, host: &mut dyn Host) {
        if self.uri.is_empty() {
            return;
        }
        self.scan_own(now, host);
        let random = u64::from(self.token_prefix) << 32 | (self.random)() & 0xffff_ffff;
        let peer = &mut self.peers[index];
        if peer.session.run.is_none() && peer.session.next == 0 {
            peer.session.next = random;
        }
        peer.greeted = now;
        peer.unanswered = peer.unanswered.saturating_add(1);
        let token = match peer.session.next {
            0 => peer.session.token,
            next => next,
        };
        let mut items = Items::new();
        items.add(&Item::Uri(self.uri.clone()));
        items.add(&Item::Token(token));
        let pause = u16::try_from(self.pause().as_secs()).unwrap_or(u16::MAX);
        items.add(&Item::About(pause, self.settings.software.clone()));
        // Strangers learn nothing of what there is.
        if self.peers[index].is_authenticated() {
            self.add_feed(now, index, &mut items);
            if !self.is_sending(Set::Bans) && self.dirty.is_empty() {
                add_digests(&mut items, Set::Bans, &self.own, self.run, now);
            }
            if self.lease.holds() && !self.is_sending(Set::List) {
                add_digests(&mut items, Set::List, &self.own_list, self.run, now);
            }
        }
        self.send_as(now, index, Kind::Hello, to, &items, host);
    }
}

fn add_digests(items: &mut Items, set: Set, replica: &Replica, seed: u64, now: UnixMillis) {
    items.add(&Item::Digests(set, Box::new(replica.digests(seed, now))));
}

enum Admission {
    /// Seen before.
    Refused,
    /// It may be a replay.
    Unproven,
    /// The first of a session.
    New,
    /// Of the session.
    Known,
}
