//! The copies of the ban tables in the kernel: told of each change, refilled in every doubt.

use std::time::Duration;

use crate::address::Subnet;
use crate::bans::check::dropped_by_kernel;
use crate::config::{Config, FirewallKind, Mode};
use crate::firewall::iptables_api::IptablesApi;
use crate::firewall::nft::{self, Nft};
use crate::firewall::runner::{Options, Runner};
use crate::firewall::{later_ends, Change, Element, Error, Facts, Firewall, Scope};
use crate::shared::origin::Origin;
use crate::shared::published::{Gauge, Place};
use crate::shared::Shared;
use crate::sys::listening::{ListeningSocket, Transport};
use crate::{error, log, notice, warning};

/// How long the end of the process may wait for the firewall. Kamailio has to be gone within a second.
const LAST_WORDS: Duration = Duration::from_millis(600);

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
}

impl Firewalls {
    /// Starts the backends that the parameters name. `listening` are this server's sockets. What
    /// cannot be started is logged and left out.
    pub fn start(
        config: &Config,
        listening: &[ListeningSocket],
        waker: impl Fn() + Send + 'static,
    ) -> Self {
        let mut firewalls = Firewalls::default();
        remove_leftovers(config);
        if config.mode == Mode::Observe {
            return firewalls;
        }
        let backend: Result<Box<dyn Firewall>, Error> = match config.firewall {
            FirewallKind::None => return firewalls,
            FirewallKind::Nft => Nft::new(config.nft_settings(&sip_ports(listening)))
                .map(|nft| Box::new(nft) as Box<dyn Firewall>),
            FirewallKind::IptablesApi => IptablesApi::new(config.firewall_url.as_str())
                .map(|api| Box::new(api) as Box<dyn Firewall>),
        };
        match backend {
            Ok(backend) => firewalls.add(Place::Firewall, backend, config, waker),
            Err(problem) => error!("firewall: {problem}; going on without it"),
        }
        firewalls
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
        match Runner::spawn(backend, options, Box::new(waker)) {
            Ok(runner) => self.0.push(Backend {
                runner,
                facts,
                place,
                scope: config.firewall_scope.unwrap_or(facts.default_scope),
                flush: config.firewall_flush,
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

    /// Looks after the runners: their log lines, their state, and a refill for each that asks for one, or
    /// for all of them.
    pub fn tend(&self, shared: &Shared, refill_all: bool) {
        for backend in &self.0 {
            for (level, text) in backend.runner.drain_logs() {
                log::write(level, file!(), line!(), format_args!("{text}"));
            }
            for (source, packets) in backend.runner.drain_hits() {
                dropped_by_kernel(shared, source, packets);
            }
            if refill_all || backend.runner.needs_refill() {
                backend.runner.refill(backend.wanted(shared));
            }
            backend.publish(shared);
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
                seconds_left: end - now,
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
                        seconds_left: entry.value - now,
                        hits: entry.hits,
                    });
                });
            }
        }
        later_ends(elements)
    }

    fn publish(&self, shared: &Shared) {
        let status = self.runner.status();
        let published = &shared.published;
        let set = |gauge, value| published.set_gauge(self.place, gauge, value);
        set(Gauge::State, status.state as u64);
        set(Gauge::Queued, status.queued as u64);
        set(Gauge::Errors, status.errors);
        set(Gauge::Dropped, status.report.dropped.unwrap_or(0));
        set(Gauge::Elements, status.report.elements.unwrap_or(0));
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
    let keep = uses_nft.then_some(config.nft_table.as_str());
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
