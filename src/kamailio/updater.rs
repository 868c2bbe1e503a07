//! The updater's process: hosts [`Updater`], which does everything that may block.

use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use super::bindings as k;
use super::child::{Child, Work, LONGEST_SLEEP};
use super::module::Module;
use super::{other_modules, own, sockets};
use crate::bans::Wake;
use crate::shared::events::{Event, EventKind};
use crate::sys::listening::ListeningSocket;
use crate::updater::{members, Discovered, Discovery, EventSink, Parts, Updater};
use crate::{error, warning};

/// No other module initialises itself in this process: it needs none.
pub const CHILD: Child = Child {
    rank: k::PROC_NOCHLDINIT,
    name: c"APIBAN updater",
    make_sock: false,
    wanted: |_| true,
    wakeup: |module| &module.wakeups.updater,
    orderly_end: true,
    life: |module| {
        Box::new(Updating {
            module,
            updater: None,
            failed: false,
        })
    },
};

struct Updating {
    module: &'static Module,
    /// `None` until it could be started.
    updater: Option<Updater<'static, KamailioHost>>,
    /// A start has failed, and that was logged.
    failed: bool,
}

impl Work for Updating {
    fn turn(&mut self) -> Duration {
        let updater = match &mut self.updater {
            Some(updater) => updater,
            none => match start(self.module) {
                Ok(new) => none.insert(new),
                Err(problem) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        error!("the updater cannot start: {problem}; trying again");
                    }
                    return LONGEST_SLEEP;
                }
            },
        };
        updater.turn()
    }

    fn end(&mut self) {
        if let Some(updater) = &mut self.updater {
            updater.end();
        }
    }
}

fn start(module: &'static Module) -> Result<Updater<'static, KamailioHost>, String> {
    let parts = Parts {
        config: &module.config,
        shared: &module.shared,
        clock: module.clock,
        source: module.config.source().map_err(|error| error.to_string())?,
        key: module.key.clone(),
        product: concat!("apiban.so/", env!("CARGO_PKG_VERSION")),
        trusted: module.trusted.clone(),
        resumed: module.resumed.clone(),
        listening: listening(module),
    };
    Updater::new(parts, KamailioHost(module), || module.wake())
}

/// The sockets; with descriptors of their own if a filter is to be put on them.
fn listening(module: &Module) -> Vec<ListeningSocket> {
    if !module.config.socket_filter {
        return sockets::listening();
    }
    // A copy: a start that fails is tried again.
    sockets::with_descriptors(|sockets| sockets.iter().map(ListeningSocket::copy).collect())
}

/// The nodes configured for the dmq module; a warning, once, if they cannot be read.
fn dmq_nodes() -> Vec<String> {
    static TOLD: Once = Once::new();
    other_modules::dmq_configured_uris().unwrap_or_else(|| {
        TOLD.call_once(|| {
            warning!(
                "trust_dmq: this dmq module does not show its notification_address: name the nodes in trust or trust_file"
            );
        });
        Vec::new()
    })
}

/// What the updater asks of Kamailio.
struct KamailioHost(&'static Module);

impl Discovery for KamailioHost {
    fn is_own(&self, ip: IpAddr) -> bool {
        own::is_own(ip)
    }

    fn discovered(&self) -> Discovered {
        let config = &self.0.config;
        let mut discovered = Discovered::default();
        if config.trust_self {
            discovered.own = own::addresses();
        }
        if config.trust_dmq {
            discovered.nodes = dmq_nodes();
            discovered.members = members(&self.0.shared);
        }
        if config.trust_dispatcher {
            discovered.destinations = other_modules::dispatcher_uris();
        }
        discovered
    }
}

impl EventSink for KamailioHost {
    fn wants(&self, kind: EventKind) -> bool {
        self.0.event_kinds.contains(&kind)
    }

    fn raise(&self, event: &Event) {
        self.0.raise(event);
    }

    fn wake_cluster(&self) {
        self.0.wake_cluster();
    }
}
