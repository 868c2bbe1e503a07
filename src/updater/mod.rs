//! The updater: turns the feed, requests and time into changes of the tables.
//!
//! One [`Updater::turn`] after another, in a process of its own. It never waits: HTTP runs in a thread
//! that hands its results back, and the caller sleeps between turns.

mod capacity;
mod estimate;
mod files;
pub mod firewalls;
mod following;
mod host;
pub(crate) mod intake;
mod list;
mod resolver;
#[cfg(test)]
mod tests;
mod trust;
pub mod uri;
mod wall;

use std::time::Duration;

use crate::address::Subnet;
use crate::clock::{Clock, UnixMillis};
use crate::config::Config;
use crate::feed::client::{self, HttpClient, HttpSettings};
use crate::feed::{self, ApiKey, Engine, Source};
use crate::shared::changes::ChangeKind;
use crate::shared::events::{Event, EventKind};
use crate::shared::origin::Origin;
use crate::shared::published::Text;
use crate::shared::requests::Request;
use crate::shared::Shared;
use crate::state::restore::Resumed;
use crate::state::writer::{self, StateWriter};
use crate::sys::listening::ListeningSocket;
use crate::table::Entry;
use crate::trust::Given;
use crate::warning;
use capacity::CapacityWatch;
use firewalls::Firewalls;
pub use following::members;
use following::Following;
pub use host::{Discovery, EventSink, Exchange};
use intake::Intake;
use resolver::Resolver;
pub use trust::Discovered;
use trust::TrustWatch;
use wall::WallWatch;

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
    pub trusted: Given,
    /// What the last run left.
    pub resumed: Resumed,
    /// The sockets that this server listens on.
    pub listening: Vec<ListeningSocket>,
}

/// The state of the updater process. `H` is the program around it.
pub struct Updater<'a, H> {
    host: H,
    config: &'a Config,
    shared: &'a Shared,
    clock: Clock,
    key: ApiKey,
    engine: Engine,
    exchange: Box<dyn Exchange>,
    intake: Intake,
    state_writer: StateWriter,
    capacity: CapacityWatch,
    trust: TrustWatch,
    wall: WallWatch,
    following: Following,
    firewalls: Firewalls,
    /// The firewall must be compared with the tables as a whole.
    refill: bool,
    /// Files that could not be read because their file system did not answer.
    hanging: Vec<&'a str>,
    /// Lost events of bans were logged.
    loss_logged: bool,
}

impl<'a, H: Discovery + EventSink> Updater<'a, H> {
    /// Starts the threads for HTTP and the firewall; `waker` ends the caller's sleep from there.
    ///
    /// # Errors
    /// The system refuses a thread; trying again later may help.
    pub fn new(
        mut parts: Parts<'a>,
        host: H,
        waker: impl Fn() + Clone + Send + 'static,
    ) -> Result<Self, String> {
        let config = parts.config;
        let client = HttpClient::new(HttpSettings {
            product: parts.product.to_owned(),
            source: parts.source.clone(),
            timeout: u64::from(config.http_timeout),
            ca_file: None,
        });
        if let Some(text) = client.notice() {
            warning!("{text}");
        }
        let exchange = client::spawn(Box::new(client), Box::new(waker.clone()))
            .map_err(|error| error.to_string())?;
        let resolver = Resolver::spawn(Box::new(waker.clone()))
            .inspect_err(|error| {
                warning!("names of nodes and destinations are not followed: {error}")
            })
            .ok();
        let state_writer = StateWriter::new(parts.resumed.state_file.clone(), waker.clone());
        let listening = std::mem::take(&mut parts.listening);
        let state = parts.resumed.state_file.as_ref();
        let state = state.map(|file| file.path.as_path());
        let firewalls = Firewalls::start(config, state, listening, waker);
        let trust = TrustWatch::new(parts.trusted.clone(), resolver);
        Ok(Self::assemble(
            parts,
            host,
            Box::new(exchange),
            state_writer,
            trust,
            firewalls,
        ))
    }

    /// Puts an updater together from parts that run already.
    fn assemble(
        parts: Parts<'a>,
        host: H,
        exchange: Box<dyn Exchange>,
        state_writer: StateWriter,
        trust: TrustWatch,
        firewalls: Firewalls,
    ) -> Self {
        let Parts {
            config,
            shared,
            clock,
            source,
            key,
            resumed,
            ..
        } = parts;
        let settings = feed_settings(config, source);
        Updater {
            host,
            engine: Engine::new(settings, key.clone(), resumed.feed, clock.unix_ms()),
            exchange,
            intake: Intake::default(),
            state_writer,
            capacity: CapacityWatch::default(),
            trust,
            wall: WallWatch::new(resumed.saved, clock.unix()),
            following: Following::default(),
            firewalls,
            refill: false,
            hanging: Vec::new(),
            loss_logged: false,
            config,
            shared,
            clock,
            key,
        }
    }

    /// Does what is to be done now; returns how long there is nothing to do unless somebody wakes us.
    pub fn turn(&mut self) -> Duration {
        let now = self.clock.unix_ms();
        self.shared.set_now(now.seconds());
        self.follow_wall_clock(now);
        self.shared.ban_changes.awake();
        self.serve_requests(now);
        if self.trust.is_due(now) {
            self.follow_hanging_files(now);
            self.follow_trust(now);
        }
        self.follow_ban_changes();
        self.expire();
        self.capacity.look(self.shared, self.config);
        let next = self.drive_feed(now);
        self.state_writer.save_if_due(now, || {
            let saved = self.following.saved(self.shared, self.engine.to_save());
            writer::collect(self.shared, saved)
        });
        self.firewalls
            .poll(self.shared, std::mem::take(&mut self.refill));
        let state_error = self.state_writer.last_error();
        let published = &self.shared.published;
        published.set_text(Text::StateLastError, state_error);
        let status = self.engine.status(now);
        self.following
            .tell(self.shared, &status, &self.engine.saved());
        let status = self
            .following
            .status(self.shared, self.config.poll_interval, status);
        intake::publish(&self.shared.published, &status, self.shared.feed.len());
        let next = next.min(self.state_writer.due(now)).min(self.trust.due());
        next.since(now)
    }

    /// The last turn: what must survive goes to the state file, and the firewall is left as configured.
    pub fn end(&mut self) {
        self.follow_ban_changes();
        // A command that came just before the end must survive, too.
        if !self.shared.requests.take().is_empty() {
            self.state_writer.changed();
        }
        // A request without an answer yet counts for the service, so for the next run, too.
        let saved = self.following.saved(self.shared, self.engine.to_save());
        if !saved.budget.is_empty() {
            self.state_writer.changed();
        }
        let now = self.clock.unix_ms();
        self.state_writer
            .end(now, || writer::collect(self.shared, saved));
        self.firewalls.end();
    }

    /// The feed as operators see it.
    pub fn feed(&self) -> feed::Status {
        self.engine.status(self.clock.unix_ms())
    }

    /// Takes over a step of the wall clock: see [`crate::clock`].
    fn follow_wall_clock(&mut self, now: UnixMillis) {
        let offset = self.clock.wall_offset();
        self.shared.set_wall_offset(offset);
        self.engine.set_wall_offset(offset);
        if self.wall.is_step(offset) {
            if self.wall.settle(self.shared, self.config, offset) {
                self.refill = true;
            }
            self.trust.outdated();
            self.follow_trust(now);
            self.engine.refetch(now);
            self.state_writer.changed();
        }
        self.wall.forget_when_old(self.shared.now());
    }

    fn serve_requests(&mut self, now: UnixMillis) {
        let asked = self.shared.requests.take();
        for origin in Origin::ALL {
            if !asked.has(Request::Flushed(origin)) {
                continue;
            }
            if origin == Origin::Feed {
                self.engine.flush_feed();
                self.shared.trust.spared().retain(|_, _| false);
            }
            self.wall.forget(origin);
            self.state_writer.changed();
            // Bans may have come since the table was emptied, and other origins may hold the same address: the
            // firewall is compared with the tables.
            self.refill = true;
        }
        if asked.has(Request::TrustChanged) {
            self.state_writer.changed();
            self.trust.outdated();
            self.follow_trust(now);
        }
        if asked.has(Request::Reload) {
            self.reload_files(now);
            let force = asked.has(Request::Force);
            self.engine.reload(now, self.key.clone(), force);
            self.carry_out();
        }
    }

    /// Brings the trust set up to date, and tables and firewall with it: what is trusted now leaves them, what is
    /// listed and no longer trusted comes back.
    fn follow_trust(&mut self, now: UnixMillis) {
        let changes = self.trust.follow(now, self.shared, &self.host);
        if changes.evicted.is_empty() && changes.restored.is_empty() {
            return;
        }
        self.state_writer.changed();
        for subnet in changes.evicted {
            for origin in Origin::ALL {
                self.tell_firewalls(origin, subnet);
            }
        }
        for subnet in changes.restored {
            self.tell_firewalls(Origin::Feed, subnet);
        }
    }

    /// Brings the firewall and the event routes up to date with bans that other processes changed.
    fn follow_ban_changes(&mut self) {
        let lost = self.shared.ban_changes.lost();
        if lost {
            self.refill = true;
            self.state_writer.changed();
            if self.host.wants(EventKind::Block) && !std::mem::replace(&mut self.loss_logged, true)
            {
                warning!(
                    "bans come faster than they are followed: events of apiban:block are lost"
                );
            }
        }
        let mut travels = lost;
        while let Some(change) = self.shared.ban_changes.take() {
            travels |= change.origin == Origin::Local || change.kind == ChangeKind::Unblocked;
            self.state_writer.changed();
            self.tell_firewalls(change.origin, change.subnet);
            let raises = change.kind == ChangeKind::Blocked && change.origin == Origin::Local;
            if raises && self.host.wants(EventKind::Block) {
                let table = self.shared.table(change.origin);
                let found = table.find(change.subnet);
                if let Some(entry) = found.and_then(|found| table.entry(found)) {
                    self.host
                        .raise(&ban_event(EventKind::Block, change.origin, entry));
                }
            }
        }
        // Whoever bans wakes the updater only, after it has told the cluster.
        if let (true, Some(cluster)) = (travels, &self.shared.cluster) {
            if cluster.changes.must_wake() {
                self.host.wake_cluster();
            }
        }
    }

    fn tell_firewalls(&self, origin: Origin, subnet: Subnet) {
        self.firewalls.follow(self.shared, origin, subnet);
    }

    fn expire(&mut self) {
        let (shared, firewalls, host) = (self.shared, &self.firewalls, &self.host);
        let now = shared.now();
        let mut any = false;
        for (origin, table) in shared.tables() {
            table.expire(now, |entry| {
                any = true;
                firewalls.ended(shared, origin, entry.subnet);
                if origin == Origin::Local && host.wants(EventKind::Expired) {
                    host.raise(&ban_event(EventKind::Expired, origin, entry));
                }
            });
        }
        if any {
            self.state_writer.changed();
        }
    }
}

fn feed_settings(config: &Config, source: Source) -> feed::FeedSettings {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    feed::FeedSettings {
        source,
        poll_interval: seconds(config.poll_interval),
        resync_interval: seconds(config.resync_interval),
        feed_ttl: seconds(config.feed_ttl),
        rate_limit_requests: config.rate_limit_requests,
        rate_limit_window: seconds(config.rate_limit_window),
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
