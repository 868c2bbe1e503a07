//! The updater: turns the feed, requests and time into changes of the tables.
//!
//! One [`Updater::turn`] after another, in a process of its own. It never waits: HTTP runs in a thread
//! that hands its results back, and the caller sleeps between turns.

mod intake;
mod keeper;
mod watch;

use std::net::IpAddr;
use std::time::Duration;

use crate::address::Subnet;
use crate::clock::Clock;
use crate::config::Config;
use crate::feed::client::{self, HttpClient, HttpSettings};
use crate::feed::{self, Effect, Engine, Key, Source, Step};
use crate::log::{self, Level};
use crate::restore::Resumed;
use crate::shared::requests::Request;
use crate::shared::Shared;
use crate::trust::Trusted;
use crate::{error, info, sources, warning};
use intake::Intake;
use keeper::Keeper;
use watch::TrustWatch;

/// What the updater asks of the program it runs in.
pub trait Host {
    /// True for an address that this server listens on.
    fn is_own(&self, ip: IpAddr) -> bool;
    /// Trust rules that the program finds by itself.
    fn automatic_trust(&self) -> Vec<Trusted>;
}

/// What an updater is made from.
pub struct Parts<'a> {
    /// The parameters.
    pub config: &'a Config,
    /// The shared memory.
    pub shared: &'a Shared,
    /// The time.
    pub clock: Clock,
    /// The list to fetch.
    pub source: Source,
    /// The key, where there is one.
    pub key: Option<Key>,
    /// What the last run left.
    pub resumed: Resumed,
}

/// The state of the updater process.
pub struct Updater<'a> {
    config: &'a Config,
    shared: &'a Shared,
    clock: Clock,
    key: Option<Key>,
    engine: Engine,
    exchange: client::Worker,
    intake: Intake,
    keeper: Keeper,
    trust: TrustWatch,
}

impl<'a> Updater<'a> {
    /// Starts the HTTP thread; `waker` ends the caller's sleep from there.
    ///
    /// # Errors
    /// The system refuses a thread; trying again later may help.
    pub fn new(parts: Parts<'a>, waker: Box<dyn Fn() + Send>) -> Result<Self, String> {
        let Parts {
            config,
            shared,
            clock,
            source,
            key,
            resumed,
        } = parts;
        let client = HttpClient::new(HttpSettings {
            source: source.clone(),
            timeout: u64::from(config.http_timeout),
            ca_file: None,
        });
        let exchange = client::spawn(Box::new(client), waker).map_err(|error| error.to_string())?;
        let settings = feed::Config {
            source,
            poll_interval: u64::from(config.poll_interval),
            resync_interval: u64::from(config.resync_interval),
            feed_ttl: u64::from(config.feed_ttl),
            rate_limit_requests: config.rate_limit_requests,
            rate_limit_window: u64::from(config.rate_limit_window),
            feed_shrink_limit: config.feed_shrink_limit,
        };
        let engine = Engine::new(settings, key.clone(), resumed.feed, clock.unix_ms());
        Ok(Updater {
            engine,
            exchange,
            intake: Intake::default(),
            keeper: Keeper::new(resumed.state_file),
            trust: TrustWatch::new(config),
            config,
            shared,
            clock,
            key,
        })
    }

    /// Does what is to be done now; returns how long there is nothing to do unless somebody wakes us.
    pub fn turn(&mut self, host: &dyn Host) -> Duration {
        let now = self.clock.unix_ms();
        self.shared.set_now(now / 1000);
        self.shared.notes.awake();
        self.serve_requests(now, host);
        if self.trust.is_due(now) {
            self.follow_trust(now, host);
        }
        self.take_notes();
        self.expire();
        let next = self.drive_feed(now, host);
        self.keeper
            .save_if_due(now, || keeper::collect(self.shared, self.engine.saved()));
        intake::publish(&self.shared.board, &self.engine.status(now));
        Duration::from_millis(
            next.min(self.keeper.due(now))
                .min(self.trust.due())
                .saturating_sub(now),
        )
    }

    /// The last turn: what must survive goes to the state file.
    pub fn end(&mut self) {
        self.take_notes();
        self.keeper
            .save_now(|| keeper::collect(self.shared, self.engine.saved()));
    }

    fn serve_requests(&mut self, now: u64, host: &dyn Host) {
        let asked = self.shared.requests.take();
        if asked.has(Request::FeedFlushed) {
            self.engine.flush_feed();
            self.keeper.changed();
        }
        if asked.has(Request::LocalFlushed) || asked.has(Request::PeerFlushed) {
            self.keeper.changed();
        }
        if asked.has(Request::Reload) {
            self.reload_files(now, host);
            let effects = self
                .engine
                .reload(now, self.key.clone(), asked.has(Request::Force));
            self.carry_out(effects, host);
        }
    }

    /// Reads key and trust files again; what cannot be read stays as it was.
    fn reload_files(&mut self, now: u64, host: &dyn Host) {
        match sources::read_key(self.config) {
            Ok((key, open)) => {
                self.key = key;
                if let Some(text) = open {
                    warning!("{text}");
                }
            }
            Err(error) => error!("{error}; the key stays as it was"),
        }
        match self.trust.reload(self.config) {
            Ok(()) => self.follow_trust(now, host),
            Err(error) => error!("{error}; the trust list stays as it was"),
        }
    }

    /// Brings the trust set up to date, and throws out of the tables who is trusted by now.
    fn follow_trust(&mut self, now: u64, host: &dyn Host) {
        if self
            .trust
            .follow(now, self.shared, || host.automatic_trust())
        {
            self.keeper.changed();
        }
    }

    /// What workers and operators changed in the local table.
    fn take_notes(&mut self) {
        let lost = self.shared.notes.lost();
        let mut any = lost;
        while self.shared.notes.take().is_some() {
            any = true;
        }
        if any {
            self.keeper.changed();
        }
    }

    fn expire(&mut self) {
        let now = self.shared.now();
        let mut ended = 0;
        self.shared.feed.expire(now, |_| ended += 1);
        self.shared.local.expire(now, |_| ended += 1);
        self.shared.peer.expire(now, |_| ended += 1);
        if ended > 0 {
            self.keeper.changed();
        }
    }

    /// Takes a result where there is one, and sends the next request when it is due; returns when to
    /// look again, in Unix milliseconds.
    fn drive_feed(&mut self, now: u64, host: &dyn Host) -> u64 {
        if let Some(result) = self.exchange.try_result() {
            let shared = self.shared;
            let effects = self.engine.on_result(now, result, &|| live(shared));
            self.carry_out(effects, host);
        }
        match self.engine.next(now) {
            Step::Fetch(request) => {
                self.exchange.start(request);
                u64::MAX
            }
            Step::Wait(until) => until,
            Step::Busy | Step::Idle => u64::MAX,
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>, host: &dyn Host) {
        for effect in effects {
            match effect {
                Effect::Apply(listed) => {
                    let own = |ip| self.config.trust_self && host.is_own(ip);
                    self.intake.apply(self.shared, &listed, own);
                }
                Effect::Sweep(keep) => {
                    let dropped = self.shared.feed.retain(|subnet, _| keep.contains(&subnet));
                    if dropped > 0 {
                        info!("{dropped} addresses are no longer listed");
                    }
                }
                Effect::FullDone { .. } => {}
                Effect::Log(level, text) => {
                    let level = match level {
                        feed::Level::Error => Level::Error,
                        feed::Level::Warn => Level::Warn,
                        feed::Level::Info => Level::Info,
                    };
                    log::write(level, file!(), line!(), format_args!("{text}"));
                }
                Effect::SaveSoon => self.keeper.changed(),
            }
        }
    }
}

/// The live entries of the feed's table.
fn live(shared: &Shared) -> Vec<Subnet> {
    let now = shared.now();
    let mut subnets = Vec::new();
    shared.feed.for_each(|entry| {
        if entry.value > now {
            subnets.push(entry.subnet);
        }
    });
    subnets
}
