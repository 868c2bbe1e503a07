//! The firewall's copy of the tables: told of each change, refilled where in doubt.

use std::io;
use std::time::Duration;

use crate::address::Subnet;
use crate::config::{Config, FirewallKind, Mode, Scope};
use crate::firewall::iptables_api::IptablesApi;
use crate::firewall::nft::Nft;
use crate::firewall::runner::{Options, Runner};
use crate::firewall::{Change, Element, Firewall, Set};
use crate::log::{self, Level};
use crate::shared::origin::Origin;
use crate::shared::published::{Number, Text};
use crate::shared::Shared;

/// How long the end of the process may wait for the firewall. Kamailio has to be gone within a second.
const LAST_WORDS: Duration = Duration::from_millis(600);

/// The firewall, where one is configured.
pub struct Firewalls {
    runner: Runner,
    scope: Scope,
    flush: bool,
    /// Bans do not end by themselves in there.
    must_tell_ends: bool,
}

impl Firewalls {
    /// Starts the backend of the configuration; `None` where there is none, or bans are only observed.
    ///
    /// # Errors
    /// The backend cannot work with these parameters, or the system refuses a thread.
    pub fn new(config: &Config, waker: Box<dyn Fn() + Send>) -> Result<Option<Firewalls>, String> {
        if config.mode == Mode::Observe {
            return Ok(None);
        }
        let backend: Box<dyn Firewall> = match config.firewall {
            FirewallKind::None => return Ok(None),
            FirewallKind::Nft => {
                Box::new(Nft::new(&config.nft_table).map_err(|error| error.to_string())?)
            }
            FirewallKind::IptablesApi => Box::new(
                IptablesApi::new(config.firewall_url.as_str())
                    .map_err(|error| error.to_string())?,
            ),
        };
        Self::with_backend(backend, config, waker)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    /// Starts this backend with the other parameters of `config`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn with_backend(
        backend: Box<dyn Firewall>,
        config: &Config,
        waker: Box<dyn Fn() + Send>,
    ) -> io::Result<Firewalls> {
        let options = Options {
            flush_at_start: config.firewall_flush,
            ..Options::default()
        };
        Ok(Firewalls {
            runner: Runner::spawn(backend, options, waker)?,
            scope: config.scope(),
            flush: config.firewall_flush,
            must_tell_ends: config.firewall == FirewallKind::IptablesApi,
        })
    }

    /// An entry came or its end moved: the table is asked what holds now.
    pub fn follow(&self, shared: &Shared, set: Set, subnet: Subnet) {
        if !self.wants(set) {
            return;
        }
        let now = shared.now();
        let end = Origin::ALL
            .into_iter()
            .filter(|origin| origin.set() == set)
            .filter_map(|origin| shared.table(origin).find(subnet))
            .map(|found| found.value())
            .max();
        self.runner.send(match end {
            Some(end) if end > now => Change::Add(Element {
                subnet,
                set,
                seconds_left: end - now,
            }),
            _ => Change::Remove { subnet, set },
        });
    }

    /// A ban ended. The tables are asked what holds now: another origin of the same set may still ban it.
    pub fn ended(&self, shared: &Shared, set: Set, subnet: Subnet) {
        if self.must_tell_ends {
            self.follow(shared, set, subnet);
        }
    }

    /// Looks after the runner: its log lines, its state, and everything anew where it asks for that or
    /// notes were `lost`.
    pub fn tend(&self, shared: &Shared, lost: bool) {
        for (level, text) in self.runner.drain_logs() {
            log::write(level, file!(), line!(), format_args!("{text}"));
        }
        if lost || self.runner.needs_refill() {
            self.runner.refill(self.wanted(shared));
        }
        let status = self.runner.status();
        let published = &shared.published;
        published.set_text(Text::FirewallState, status.state.name());
        published.set_number(Number::FirewallQueued, status.queued as u64);
        published.set_number(Number::FirewallErrors, status.errors);
        if let Some(counters) = status.counters {
            published.set_number(Number::FirewallDroppedFeed, counters.feed_packets);
            published.set_number(Number::FirewallDroppedLocal, counters.local_packets);
        }
    }

    /// Everything that belongs into the firewall, with the time that each ban has left.
    fn wanted(&self, shared: &Shared) -> Vec<Element> {
        let now = shared.now();
        let mut elements = Vec::new();
        for (origin, table) in shared.tables() {
            let set = origin.set();
            if self.wants(set) {
                table.for_each_live(now, |entry| {
                    elements.push(Element {
                        subnet: entry.subnet,
                        set,
                        seconds_left: entry.value - now,
                    });
                });
            }
        }
        elements
    }

    /// The end: our state goes where `firewall_flush` says so; otherwise its own timeouts end it.
    pub fn end(self) {
        if !self.runner.shutdown(self.flush, LAST_WORDS) {
            log::write(
                Level::Warn,
                file!(),
                line!(),
                format_args!("firewall: it did not answer in time at the end"),
            );
        }
    }

    fn wants(&self, set: Set) -> bool {
        match set {
            Set::Feed => self.scope.has_feed(),
            Set::Local => self.scope.has_local(),
        }
    }
}
