//! The copies of the ban tables in the kernel: told of each change, refilled in every doubt.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::address::Subnet;
use crate::bans::check::dropped_by_kernel;
use crate::config::{Config, FirewallKind, Mode};
use crate::firewall::iptables_api::IptablesApi;
use crate::firewall::nft::{self, Nft};
use crate::firewall::runner::{Options, Runner, Status};
use crate::firewall::socket_filter::kernel::Linux;
use crate::firewall::socket_filter::{Held, SocketFilter, SWAP_INTERVAL};
use crate::firewall::{later_ends, Change, Element, Error, Facts, Firewall, Scope};
use crate::shared::origin::Origin;
use crate::shared::published::{Gauge, Place};
use crate::shared::Shared;
use crate::sys::listening::{ListeningSocket, Transport};
use crate::{error, log, notice, warning};

use super::estimate::Estimate;

/// How long the end of the process may wait for the firewall. Kamailio has to be gone within a second.
const LAST_WORDS: Duration = Duration::from_millis(600);

/// How long a backend's thread may be busy before the bans there count as not kept up to date.
const BUSY: Duration = Duration::from_secs(3);
/// A place without room for all bans is given them anew so often, since others may have most hits by now.
const RANKING: Duration = Duration::from_secs(5);

/// Every place in the kernel that drops for us; none if only `apiban_check()` does.
#[derive(Default)]
pub struct Firewalls(Vec<Backend>);

/// One of them.
struct Backend {
    runner: Runner,
    facts: &'static Facts,
    place: Place,
    scope: Scope,
    /// Our state there is emptied at the start and at the end.
    flush: bool,
    /// For a place that counts no hits: which bans are there, and whose the drops were.
    sampled: Option<Sampled>,
    /// When the bans were last given to the backend as a whole.
    filled: Instant,
}

/// How the hits of bans in a place are known that counts none.
struct Sampled {
    held: Held,
    estimate: Estimate,
    /// The number of the report at the last look.
    looked: u64,
}

/// The backend for iptables-api, which remembers beside the state file what it put into the chain.
///
/// # Errors
/// The memory cannot be read.
pub fn iptables_api(config: &Config, state: Option<&Path>) -> Result<IptablesApi, Error> {
    let api = IptablesApi::new(&config.firewall_url);
    match state {
        Some(state) => api.remembering(&notes_path(state)),
        None => Ok(api),
    }
}

/// The file beside the state file `state` that says what is in the chain of iptables-api.
pub fn notes_path(state: &Path) -> PathBuf {
    let mut path = state.as_os_str().to_owned();
    path.push(".iptables-api");
    PathBuf::from(path)
}

impl Firewalls {
    /// Starts the backends that the parameters name. `listening` are this server's sockets, `state` the state
    /// file if this process may write it. What cannot be started is logged and left out.
    pub fn start(
        config: &Config,
        state: Option<&Path>,
        listening: Vec<ListeningSocket>,
        waker: impl Fn() + Clone + Send + 'static,
    ) -> Self {
        let mut firewalls = Firewalls::default();
        remove_leftovers(config);
        if config.mode == Mode::Observe {
            return firewalls;
        }
        let backend: Option<Result<Box<dyn Firewall>, Error>> = match config.firewall {
            FirewallKind::None => None,
            FirewallKind::Nft => {
                let settings = config.nft_settings(&sip_ports(&listening));
                Some(Ok(Box::new(Nft::new(settings))))
            }
            FirewallKind::IptablesApi => {
                // What is emptied at the start needs no memory.
                let state = state.filter(|_| !config.firewall_flush);
                let made = iptables_api(config, state);
                Some(made.map(|api| Box::new(api) as Box<dyn Firewall>))
            }
        };
        match backend {
            Some(Ok(backend)) => firewalls.add(Place::Firewall, backend, config, waker.clone()),
            Some(Err(problem)) => error!("firewall: {problem}; going on without it"),
            None => {}
        }
        if config.socket_filter {
            firewalls.add_socket_filter(listening, waker);
        }
        firewalls
    }

    /// Puts all bans on the server's own sockets, whatever the parameters of the host's firewall say.
    fn add_socket_filter(
        &mut self,
        listening: Vec<ListeningSocket>,
        waker: impl Fn() + Send + 'static,
    ) {
        let filter = SocketFilter::new(listening, Box::new(Linux));
        let sampled = Sampled {
            held: filter.held(),
            estimate: Estimate::default(),
            looked: 0,
        };
        let facts = filter.facts();
        let options = Options {
            report_interval: Duration::from_secs(1),
            apply_interval: SWAP_INTERVAL,
            ..Options::default()
        };
        let spawned = Runner::spawn(Box::new(filter), options, Box::new(waker));
        // A filter that stays behind would ban without end.
        let flush = true;
        self.admit(
            spawned,
            facts,
            Place::SocketFilter,
            facts.default_scope,
            flush,
        );
        if let Some(backend) = self.0.last_mut().filter(|b| b.place == Place::SocketFilter) {
            backend.sampled = Some(sampled);
        }
    }

    /// Starts one backend with the parameters of the configuration.
    pub fn add(
        &mut self,
        place: Place,
        backend: Box<dyn Firewall>,
        config: &Config,
        waker: impl Fn() + Send + 'static,
    ) {
        let facts = backend.facts();
        let options = Options {
            flush_at_start: config.firewall_flush,
            ..Options::default()
        };
        let spawned = Runner::spawn(backend, options, Box::new(waker));
        let scope = config.firewall_scope.unwrap_or(facts.default_scope);
        self.admit(spawned, facts, place, scope, config.firewall_flush);
    }

    /// Takes a backend in if it could be started.
    fn admit(
        &mut self,
        spawned: io::Result<Runner>,
        facts: &'static Facts,
        place: Place,
        scope: Scope,
        flush: bool,
    ) {
        match spawned {
            Ok(runner) => self.0.push(Backend {
                runner,
                facts,
                place,
                scope,
                flush,
                sampled: None,
                filled: Instant::now(),
            }),
            Err(problem) => error!(
                "firewall {}: no thread: {problem}; going on without it",
                facts.name
            ),
        }
    }

    /// A ban came, was lifted, or its end moved: the tables are asked what holds now.
    pub fn follow(&self, shared: &Shared, origin: Origin, subnet: Subnet) {
        for backend in self
            .0
            .iter()
            .filter(|backend| includes(backend.scope, origin))
        {
            backend.follow(shared, subnet);
        }
    }

    /// A ban ended. The tables are asked what holds now: another origin may still ban the address.
    pub fn ended(&self, shared: &Shared, origin: Origin, subnet: Subnet) {
        let lifts = |backend: &&Backend| !backend.facts.ends_bans_itself;
        for backend in self.0.iter().filter(lifts) {
            if includes(backend.scope, origin) {
                backend.follow(shared, subnet);
            }
        }
    }

    /// Serves the runners: their log lines, their state, and a refill for each that asks for one, or
    /// for all of them.
    pub fn poll(&mut self, shared: &Shared, refill_all: bool) {
        for backend in &mut self.0 {
            for (level, text) in backend.runner.drain_logs() {
                log!(level, "{text}");
            }
            for (source, packets) in backend.runner.drain_hits() {
                dropped_by_kernel(shared, source, packets);
            }
            let status = backend.runner.status();
            if refill_all || backend.runner.needs_refill() || backend.wants_ranking(&status) {
                backend.filled = Instant::now();
                backend.runner.refill(backend.wanted(shared));
            }
            backend.estimate(shared, &status);
            backend.publish(shared, status);
        }
    }

    /// The end: our state is removed if `firewall_flush` says so; otherwise its own timeouts end it.
    pub fn end(&mut self) {
        for backend in self.0.drain(..) {
            if !backend.runner.shutdown(backend.flush, LAST_WORDS) {
                warning!(
                    "firewall {}: it did not answer in time at the end",
                    backend.facts.name
                );
            }
        }
    }
}

impl Backend {
    fn follow(&self, shared: &Shared, subnet: Subnet) {
        let now = shared.now();
        let mut hits = 0u32;
        let end = shared
            .tables()
            .into_iter()
            .filter(|(origin, _)| includes(self.scope, *origin))
            .filter_map(|(_, table)| table.entry(table.find(subnet)?))
            .inspect(|entry| hits = hits.saturating_add(entry.hits))
            .map(|entry| entry.value)
            .max();
        self.runner.send(match end {
            Some(end) if end > now => Change::Add(Element {
                subnet,
                seconds_left: end.seconds_since(now),
                hits,
            }),
            _ => Change::Remove(subnet),
        });
    }

    /// All that belongs into the backend, with the time that each ban has left.
    fn wanted(&self, shared: &Shared) -> Vec<Element> {
        let now = shared.now();
        let mut elements: Vec<Element> = Vec::new();
        for (origin, table) in shared.tables() {
            if includes(self.scope, origin) {
                table.for_each_live(now, |entry| {
                    elements.push(Element {
                        subnet: entry.subnet,
                        seconds_left: entry.value.seconds_since(now),
                        hits: entry.hits,
                    });
                });
            }
        }
        later_ends(elements)
    }

    /// True if there is no room for all bans, and others may have the most hits by now.
    fn wants_ranking(&self, status: &Status) -> bool {
        self.facts.is_limited
            && status.report.elements < status.report.wanted
            && self.filled.elapsed() >= RANKING
    }

    /// Adds to the hits of the bans what was dropped without being counted, once for each report: right after it,
    /// since the packets that came through are counted up to this moment.
    fn estimate(&mut self, shared: &Shared, status: &Status) {
        let Some(sampled) = &mut self.sampled else {
            return;
        };
        if std::mem::replace(&mut sampled.looked, status.reports) != status.reports {
            let dropped = status.report.dropped.unwrap_or(0);
            sampled
                .estimate
                .follow(shared, &sampled.held.get(), dropped);
        }
    }

    fn publish(&self, shared: &Shared, status: Status) {
        let published = &shared.published;
        let set = |gauge, value| published.set_gauge(self.place, gauge, value);
        set(Gauge::State, status.state as u64);
        set(Gauge::Queued, status.queued as u64);
        set(Gauge::Errors, status.errors);
        set(Gauge::Dropped, status.report.dropped.unwrap_or(0));
        set(Gauge::Elements, status.report.elements.unwrap_or(0));
        set(Gauge::Wanted, status.report.wanted.unwrap_or(0));
        // This process and the thread have both just been at work.
        if status.seen_in_order.is_some_and(|at| at.elapsed() < BUSY) {
            published.set_alive(self.place, shared.now());
        }
        let last_error = status.last_error.unwrap_or_default();
        published.set_text(self.place.error(), &last_error);
    }
}

/// True if bans of this origin are within the scope. Those of other nodes count as local.
fn includes(scope: Scope, origin: Origin) -> bool {
    match origin {
        Origin::Feed => scope.has_feed(),
        Origin::Local | Origin::Peer => scope.has_local(),
    }
}

/// The UDP and TCP ports that this server listens on.
fn sip_ports(listening: &[ListeningSocket]) -> Vec<u16> {
    listening
        .iter()
        .filter(|socket| socket.transport != Transport::Sctp)
        .map(|socket| socket.port)
        .collect()
}

/// Removes our nft tables that an earlier run left with `firewall_flush` 0 and that this run does not use:
/// they would go on dropping.
fn remove_leftovers(config: &Config) {
    let uses_nft = config.mode == Mode::Enforce && config.firewall == FirewallKind::Nft;
    let keep = uses_nft.then_some(&config.nft_table);
    match nft::remove_leftovers(keep, &config.nft_table, config.instance()) {
        Ok(removed) => {
            for table in removed {
                notice!(
                    "firewall nft: removed table inet {table}, which an earlier run left in force"
                );
            }
        }
        // Who may not change the firewall has left nothing there either, or can do nothing about it.
        Err(Error::Permission(_) | Error::Unsupported(_)) => {}
        Err(problem) => warning!("firewall: looking for tables of earlier runs: {problem}"),
    }
}
