//! The updater: turns the feed, requests and time into changes of the tables.
//!
//! One [`Updater::turn`] after another, in a process of its own. It never waits: HTTP runs in a thread
//! that hands its results back, and the caller sleeps between turns.

mod capacity;
mod firewalls;
mod intake;
mod resolver;
#[cfg(test)]
mod tests;
mod trust;
pub mod uri;

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::address::Subnet;
use crate::clock::Clock;
use crate::config::files;
use crate::config::Config;
use crate::feed::client::{self, HttpClient, HttpSettings};
use crate::feed::{self, ApiKey, Effect, Engine, Source, Step};
use crate::shared::changes::ChangeKind;
use crate::shared::events::{Event, EventKind};
use crate::shared::origin::Origin;
use crate::shared::requests::Request;
use crate::shared::Shared;
use crate::state::restore::Resumed;
use crate::state::writer::{self, StateWriter};
use crate::table::Entry;
use crate::trust::Trusted;
use crate::{error, info, log, warning};
use capacity::CapacityWatch;
use firewalls::Firewalls;
use intake::Intake;
use resolver::Resolver;
pub use trust::Discovered;
use trust::TrustWatch;

/// What the updater asks of the program it runs in.
pub trait Host {
    /// True for an address that this server listens on.
    fn is_own(&self, ip: IpAddr) -> bool;
    /// Whom the program knows by itself, as far as the parameters trust them.
    fn discovered(&self) -> Discovered;
    /// True where somebody listens to such events.
    fn wants(&self, kind: EventKind) -> bool;
    /// Tells an event.
    fn raise(&self, event: &Event);
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
    /// The key.
    pub key: ApiKey,
    /// Name and version of this program, for the service.
    pub product: &'static str,
    /// What parameters and files trust.
    pub trusted: Vec<Trusted>,
    /// What the last run left.
    pub resumed: Resumed,
}

/// The state of the updater process.
pub struct Updater<'a> {
    config: &'a Config,
    shared: &'a Shared,
    clock: Clock,
    key: ApiKey,
    engine: Engine,
    exchange: client::Worker,
    intake: Intake,
    state_writer: StateWriter,
    capacity: CapacityWatch,
    trust: TrustWatch,
    firewalls: Option<Firewalls>,
    /// The firewall must be compared with the tables as a whole.
    refill: bool,
}

impl<'a> Updater<'a> {
    /// Starts the threads for HTTP and the firewall; `waker` ends the caller's sleep from there.
    ///
    /// # Errors
    /// The system refuses a thread; trying again later may help.
    pub fn new(
        parts: Parts<'a>,
        waker: impl Fn() + Clone + Send + 'static,
    ) -> Result<Self, String> {
        let Parts {
            config,
            shared,
            clock,
            source,
            key,
            product,
            trusted,
            resumed,
        } = parts;
        let client = HttpClient::new(HttpSettings {
            product: product.to_owned(),
            source: source.clone(),
            timeout: u64::from(config.http_timeout),
            ca_file: None,
        });
        if let Some(text) = client.notice() {
            warning!("{text}");
        }
        let exchange = client::spawn(Box::new(client), Box::new(waker.clone()))
            .map_err(|error| error.to_string())?;
        let resolver = Resolver::spawn(Box::new(waker.clone()))
            .inspect_err(|error| warning!("names of discovered are not followed: {error}"))
            .ok();
        let firewalls = Firewalls::new(config, Box::new(waker)).unwrap_or_else(|problem| {
            error!("firewall: {problem}; going on without it");
            None
        });
        let settings = feed_settings(config, source);
        Ok(Updater {
            engine: Engine::new(settings, key.clone(), resumed.feed, clock.unix_ms()),
            exchange,
            intake: Intake::default(),
            state_writer: StateWriter::new(resumed.state_file),
            capacity: CapacityWatch::default(),
            trust: TrustWatch::new(trusted, resolver),
            firewalls,
            refill: false,
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
        self.shared.ban_changes.awake();
        self.serve_requests(now, host);
        if self.trust.is_due(now) {
            self.follow_trust(now, host);
        }
        self.follow_ban_changes(host);
        self.expire(host);
        self.capacity.look(self.shared, self.config);
        let next = self.drive_feed(now, host);
        self.state_writer
            .save_if_due(now, || writer::collect(self.shared, self.engine.saved()));
        if let Some(firewalls) = &self.firewalls {
            firewalls.tend(self.shared, std::mem::take(&mut self.refill));
        }
        intake::publish(
            &self.shared.published,
            &self.engine.status(now),
            self.shared.feed.len(),
        );
        let next = next.min(self.state_writer.due(now)).min(self.trust.due());
        Duration::from_millis(next.saturating_sub(now))
    }

    /// The last turn: what must survive goes to the state file, and the firewall is left as configured.
    pub fn end(&mut self, host: &dyn Host) {
        self.follow_ban_changes(host);
        // A request without an answer yet counts for the service, so for the next run, too.
        let saved = self.engine.saved();
        if !saved.budget.is_empty() {
            self.state_writer.changed();
        }
        self.state_writer
            .save_now(|| writer::collect(self.shared, saved));
        if let Some(firewalls) = self.firewalls.take() {
            firewalls.end();
        }
    }

    fn serve_requests(&mut self, now: u64, host: &dyn Host) {
        let asked = self.shared.requests.take();
        for origin in Origin::ALL {
            if !asked.has(Request::Flushed(origin)) {
                continue;
            }
            self.state_writer.changed();
            if origin == Origin::Feed {
                self.engine.flush_feed();
                if let Some(firewalls) = &self.firewalls {
                    firewalls.clear(origin.set());
                }
            } else {
                // Local bans and those of peers share a set of the firewall: what is left must go back in.
                self.refill = true;
            }
        }
        if asked.has(Request::Reload) {
            self.reload_files(now, host);
            let force = asked.has(Request::Force);
            self.engine.reload(now, self.key.clone(), force);
            self.carry_out(host);
        }
    }

    /// Reads key and trust files again; what cannot be read stays as it was.
    fn reload_files(&mut self, now: u64, host: &dyn Host) {
        let (key, open) = files::read_key(self.config);
        if let Some(text) = open {
            warning!("{text}");
        }
        match (&key, self.key.key()) {
            (ApiKey::Unusable(problem), Some(_)) => error!("{problem}; the key stays as it was"),
            (ApiKey::Unusable(problem), None) => {
                error!("{problem}; the feed stays off");
                self.key = key;
            }
            _ => self.key = key,
        }
        match self.trust.reload(self.config) {
            Ok(()) => self.follow_trust(now, host),
            Err(error) => error!("{error}; the trust list stays as it was"),
        }
    }

    /// Brings the trust set up to date, and throws out of tables and firewall who is trusted by now.
    fn follow_trust(&mut self, now: u64, host: &dyn Host) {
        let evicted = self.trust.follow(now, self.shared, host);
        if evicted.is_empty() {
            return;
        }
        self.state_writer.changed();
        for subnet in evicted {
            for origin in Origin::ALL {
                self.tell_firewalls(origin, subnet);
            }
        }
    }

    /// Brings the firewall and the event routes up to date with bans that other processes changed.
    fn follow_ban_changes(&mut self, host: &dyn Host) {
        if self.shared.ban_changes.lost() {
            self.refill = true;
            self.state_writer.changed();
        }
        while let Some(change) = self.shared.ban_changes.take() {
            self.state_writer.changed();
            self.tell_firewalls(change.origin, change.subnet);
            if change.kind == ChangeKind::Blocked && host.wants(EventKind::Block) {
                let table = self.shared.table(change.origin);
                let found = table.find(change.subnet);
                if let Some(entry) = found.and_then(|found| table.entry(found)) {
                    host.raise(&ban_event(EventKind::Block, change.origin, entry));
                }
            }
        }
    }

    fn tell_firewalls(&self, origin: Origin, subnet: Subnet) {
        if let Some(firewalls) = &self.firewalls {
            firewalls.follow(self.shared, origin.set(), subnet);
        }
    }

    fn expire(&mut self, host: &dyn Host) {
        let (shared, firewalls) = (self.shared, &self.firewalls);
        let now = shared.now();
        let mut any = false;
        for (origin, table) in shared.tables() {
            table.expire(now, |entry| {
                any = true;
                if let Some(firewalls) = firewalls {
                    firewalls.ended(shared, origin.set(), entry.subnet);
                }
                if origin == Origin::Local && host.wants(EventKind::Expired) {
                    host.raise(&ban_event(EventKind::Expired, origin, entry));
                }
            });
        }
        if any {
            self.state_writer.changed();
        }
    }

    /// Takes a result where there is one, and sends the next request when it is due; returns when to
    /// look again, in Unix milliseconds.
    fn drive_feed(&mut self, now: u64, host: &dyn Host) -> u64 {
        if let Some(result) = self.exchange.try_result() {
            let shared = self.shared;
            self.engine.on_result(now, result, &|| live(shared));
        }
        let next = match self.engine.next(now) {
            Step::Fetch(request) => {
                self.exchange.start(request);
                u64::MAX
            }
            Step::Wait(until) => until,
            Step::Busy | Step::Idle => u64::MAX,
        };
        self.carry_out(host);
        next
    }

    fn carry_out(&mut self, host: &dyn Host) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Apply(listed) => {
                    let own = |ip| self.config.trust_self && host.is_own(ip);
                    let (shared, firewalls) = (self.shared, &self.firewalls);
                    self.intake.apply(shared, &listed, own, |subnet| {
                        if let Some(firewalls) = firewalls {
                            firewalls.follow(shared, Origin::Feed.set(), subnet);
                        }
                    });
                }
                Effect::Sweep(keep) => self.sweep(&keep),
                Effect::FullDone { count } => {
                    let kept = self.shared.feed.len();
                    info!(
                        "feed: full fetch complete: {count} addresses listed, {kept} in the table"
                    );
                    if host.wants(EventKind::Sync) {
                        host.raise(&sync_event(kept));
                    }
                }
                Effect::Log(level, text) => {
                    log::write(level, file!(), line!(), format_args!("{text}"));
                }
                Effect::SaveSoon => self.state_writer.changed(),
            }
        }
    }

    /// Removes what a complete list no longer holds.
    fn sweep(&mut self, keep: &HashSet<Subnet>) {
        let mut dropped = Vec::new();
        self.shared.feed.retain(|subnet, _| {
            let keep = keep.contains(&subnet);
            if !keep {
                dropped.push(subnet);
            }
            keep
        });
        if !dropped.is_empty() {
            info!("{} addresses are no longer listed", dropped.len());
        }
        for subnet in dropped {
            self.tell_firewalls(Origin::Feed, subnet);
        }
    }
}

fn feed_settings(config: &Config, source: Source) -> feed::FeedSettings {
    feed::FeedSettings {
        source,
        poll_interval: u64::from(config.poll_interval),
        resync_interval: u64::from(config.resync_interval),
        feed_ttl: u64::from(config.feed_ttl),
        rate_limit_requests: config.rate_limit_requests,
        rate_limit_window: u64::from(config.rate_limit_window),
        feed_shrink_limit: config.feed_shrink_limit,
    }
}

fn ban_event(kind: EventKind, origin: Origin, entry: Entry) -> Event {
    Event {
        kind,
        ip: entry.subnet.to_string(),
        origin,
        reason: entry.reason,
        count: entry.hits,
    }
}

fn sync_event(count: usize) -> Event {
    Event {
        kind: EventKind::Sync,
        ip: String::new(),
        origin: Origin::Feed,
        reason: String::new(),
        count: u32::try_from(count).unwrap_or(u32::MAX),
    }
}

/// The live entries of the feed's table.
fn live(shared: &Shared) -> Vec<Subnet> {
    let now = shared.now();
    let mut subnets = Vec::new();
    shared
        .feed
        .for_each_live(now, |entry| subnets.push(entry.subnet));
    subnets
}
