//! What is known of one other node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::budget::BanBudget;
use super::keys::node_id;
use super::message::{Feed, Place, Set, LONGEST_URI};
use super::replica::{Digests, Replica};
use super::window::Window;
use crate::address::Subnet;
use crate::clock::{UnixMillis, UnixSeconds};

/// HELLO comes this often, unless the node says otherwise.
pub const HELLO_PAUSE: Duration = Duration::from_secs(5);
/// A first HELLO is said again after twice this time if it is not answered; then each pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A node counts as silent after this many of its pauses without a sign of life, and two seconds.
const SILENT_AFTER: u32 = 3;
/// The offset of the clocks is the smallest of the last one or two periods of this length, in milliseconds: the
/// message with the shortest way tells it best, and clocks drift.
const OFFSET_PERIOD: u64 = 300_000;

/// The numbers that a session with a node stands on.
///
/// A token is given to an address in a HELLO, and whoever answers with it is reachable there and has answered now:
/// so neither a recorded message nor a wrong address gets a session.
#[derive(Debug, Default)]
pub struct Session {
    /// The run of the node; `None` before the first session.
    pub run: Option<u64>,
    /// What it must put into its messages.
    pub token: u64,
    /// The token before that, for messages under way.
    pub previous: u64,
    /// What it must put into a HELLO to begin a session of another run; 0: none was asked for.
    pub next: u64,
    /// What this node puts into messages to it; 0: not known.
    pub theirs: u64,
    /// The numbers seen of its run.
    pub window: Window,
}

/// A part of a set that this node asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// When the last part came or was asked for.
    pub at: UnixMillis,
}

/// Digests that are to be looked at.
#[derive(Clone, Copy, Debug)]
pub struct Unsettled {
    /// Of which set.
    pub set: Set,
    /// What the node said.
    pub digests: Digests,
    /// When.
    pub at: UnixMillis,
}

/// A part of a set that is being sent.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    /// Which set.
    pub set: Set,
    /// Which buckets.
    pub mask: u32,
    /// What was sent last.
    pub after: Option<Place>,
    /// Messages left until the other side must ask again.
    pub left: u32,
}

/// Another node.
#[derive(Debug)]
pub struct Peer {
    /// Its URI.
    pub uri: String,
    /// Its identity.
    pub id: u64,
    /// The address in its URI.
    pub address: IpAddr,
    /// True while the bus lists it.
    pub listed: bool,
    /// The session.
    pub session: Session,
    /// When it was heard last in a session; 0: never.
    pub heard: UnixMillis,
    /// True if silence was reported.
    pub silent: bool,
    /// When it was said HELLO last; 0: never.
    pub greeted: UnixMillis,
    /// When a HELLO that proved nothing was answered last.
    pub answered: UnixMillis,
    /// How often it was said HELLO without an answer.
    pub unanswered: u32,
    /// How often it says HELLO.
    pub pause: Duration,
    /// Its software.
    pub software: String,
    offsets: [i64; 2],
    offset_period: u64,
    /// The bans that it made, as far as they are known here.
    pub bans: Replica,
    /// True if some of them wait for room.
    pub deferred: bool,
    /// Why those that wait were made.
    pub deferred_reasons: BTreeMap<Subnet, String>,
    /// Its bans up to this stamp were thrown away by the operator.
    pub floor: UnixMillis,
    /// What it may ban.
    pub budget: BanBudget,
    /// How many bans it may lift.
    pub lifts: BanBudget,
    /// Messages and bans of it that were refused.
    pub refused: u64,
    /// Why it was refused last, for the log: once for each reason.
    pub complained: Option<&'static str>,
    /// Its digests, to be looked at again when messages under way have come.
    pub unsettled: Vec<Unsettled>,
    /// What it was asked for.
    pub asking: [Option<Asking>; 2],
    /// What it asked for, of each set.
    pub serving: [Option<Serving>; 2],
    /// What it knows of the list.
    pub feed: Feed,
    /// The intention that it confirmed last.
    pub confirmed: u64,
    /// The intention of it that is to be confirmed.
    pub confirm: u64,
}

impl Peer {
    /// A node of which only the URI is known; `None` if that has no numeric address: names are never looked up here.
    pub fn new(uri: &str, listed: bool) -> Option<Peer> {
        let address = address_of(uri)?;
        Some(Peer {
            uri: uri.to_owned(),
            id: node_id(uri),
            address,
            listed,
            session: Session::default(),
            heard: UnixMillis::ZERO,
            silent: false,
            greeted: UnixMillis::ZERO,
            answered: UnixMillis::ZERO,
            unanswered: 0,
            pause: HELLO_PAUSE,
            software: String::new(),
            offsets: [i64::MAX; 2],
            offset_period: 0,
            bans: Replica::default(),
            deferred: false,
            deferred_reasons: BTreeMap::new(),
            floor: UnixMillis::ZERO,
            budget: BanBudget::default(),
            lifts: BanBudget::default(),
            refused: 0,
            complained: None,
            unsettled: Vec::new(),
            asking: [None; 2],
            serving: [None; 2],
            feed: Feed::default(),
            confirmed: 0,
            confirm: 0,
        })
    }

    /// True if it holds the secret and answered.
    pub fn is_authenticated(&self) -> bool {
        self.session.run.is_some()
    }

    /// True if nothing was heard of it for too long.
    pub fn is_silent(&self, now: UnixMillis) -> bool {
        now.since(self.heard) > self.pause * SILENT_AFTER + Duration::from_secs(2)
    }

    /// True if it is there now: bans go to it. What it misses otherwise, its digests tell.
    pub fn is_fresh(&self, now: UnixMillis) -> bool {
        self.is_authenticated()
            && self.session.theirs != 0
            && now.since(self.heard) <= self.pause * 2 + Duration::from_secs(1)
    }

    /// How often it is to be said HELLO: soon again while it has never answered, as the first may come before
    /// it is ready, and less often the longer it does not answer.
    pub fn hello_pause(&self, now: UnixMillis, pause: Duration) -> Duration {
        match self.is_authenticated() && !self.is_silent(now) {
            true => pause,
            false if self.heard == UnixMillis::ZERO && self.unanswered < 6 => {
                pause.min(FIRST_PAUSE * (1 << self.unanswered))
            }
            false if self.unanswered < 6 => pause,
            false if self.unanswered < 60 => pause * 2,
            false => pause * 6,
        }
    }

    /// Takes note of the time in one of its messages.
    pub fn sample_clock(&mut self, now: UnixMillis, theirs: UnixMillis) {
        let offset = now.ahead_of(theirs);
        let period = now.get() / OFFSET_PERIOD;
        if period != self.offset_period {
            let skipped = period != self.offset_period + 1;
            self.offsets[1] = if skipped { i64::MAX } else { self.offsets[0] };
            self.offsets[0] = i64::MAX;
            self.offset_period = period;
        }
        self.offsets[0] = self.offsets[0].min(offset);
    }

    /// Forgets the clock of an earlier run.
    pub fn forget_clock(&mut self) {
        self.offsets = [i64::MAX; 2];
    }

    /// How far this node's clock is ahead of its, in ms.
    pub fn offset(&self) -> i64 {
        match self.offsets[0].min(self.offsets[1]) {
            i64::MAX => 0,
            offset => offset,
        }
    }

    /// A time by its clock as one by ours.
    pub fn to_local(&self, time: UnixSeconds) -> UnixSeconds {
        time.shifted(self.offset().saturating_add(500).div_euclid(1000))
    }

    /// Its clock now.
    pub fn clock(&self, now: UnixMillis) -> UnixSeconds {
        now.shifted(self.offset().saturating_neg()).seconds()
    }

    /// True while something that it asked for is being sent.
    pub fn is_served(&self) -> bool {
        self.serving.iter().any(Option::is_some)
    }

    /// The slot of a set in [`Peer::asking`].
    pub fn asking_mut(&mut self, set: Set) -> &mut Option<Asking> {
        &mut self.asking[set as usize]
    }
}

/// The numeric address in `sip:HOST:PORT;...`.
pub fn address_of(uri: &str) -> Option<IpAddr> {
    if uri.len() > LONGEST_URI || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let rest = uri
        .strip_prefix("sip:")
        .or_else(|| uri.strip_prefix("sips:"))?;
    let host = match rest.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => rest.split([':', ';']).next()?,
    };
    host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::{at, at_ms};

    #[test]
    fn only_numeric_addresses() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        assert_eq!(
            address_of("sip:10.0.0.1:5060;transport=tcp"),
            ip("10.0.0.1")
        );
        assert_eq!(address_of("sip:[2001:db8::1]:5060"), ip("2001:db8::1"));
        for bad in [
            "sip:node1:5060",
            "10.0.0.1",
            "sip:",
            "sip:10.0.0.1 :1",
            "sip:[::1",
        ] {
            assert_eq!(address_of(bad).filter(|_| bad != "sip:[::1"), None, "{bad}");
        }
        assert!(Peer::new("sip:name.example", true).is_none());
    }

    #[test]
    fn clocks_need_not_agree() {
        let mut peer = Peer::new("sip:10.0.0.1", true).unwrap();
        // An hour ahead of ours, with messages that take 5 to 900 ms.
        for (n, delay) in [900, 5, 300].into_iter().enumerate() {
            let sent = 10_000_000 + n as u64 * 1000;
            peer.sample_clock(at_ms(sent + delay), at_ms(sent + 3_600_000));
        }
        assert_eq!(peer.to_local(at(20_000)), at(16_400));
        assert_eq!(peer.clock(at_ms(10_000_000)), at(13_599));
        // A slower way does not lengthen anything, and an old minimum is forgotten.
        peer.sample_clock(at_ms(12_000_900), at_ms(15_600_000));
        peer.sample_clock(at_ms(12_301_000), at_ms(15_900_000));
        assert_eq!(peer.to_local(at(20_000)), at(16_401));
    }

    #[test]
    fn the_dead_are_asked_less_often() {
        let mut peer = Peer::new("sip:10.0.0.1", true).unwrap();
        let pause = |peer: &Peer| peer.hello_pause(at_ms(1_000_000), HELLO_PAUSE).as_millis();
        peer.unanswered = 1;
        assert_eq!(pause(&peer), 200);
        peer.unanswered = 5;
        assert_eq!(pause(&peer), 3_200);
        peer.unanswered = 6;
        assert_eq!(pause(&peer), 10_000);
        // One that was there before is not asked so often.
        peer.heard = at_ms(1);
        peer.unanswered = 1;
        assert_eq!(pause(&peer), 5_000);
        peer.unanswered = 100;
        assert_eq!(pause(&peer), 30_000);
        assert!(!peer.is_fresh(at_ms(1_000)) && peer.is_silent(at_ms(100_000)));
    }
}
