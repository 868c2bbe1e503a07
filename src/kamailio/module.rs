//! The state that every process of this Kamailio shares: made in `mod_init`, before any fork.

use std::sync::OnceLock;

use nix::sys::eventfd::EventFd;

use super::bindings as k;
use crate::bans::{Bans, Policy, Wake};
use crate::clock::Clock;
use crate::config::Config;
use crate::feed::ApiKey;
use crate::memory::{AtomicU32, Ordering};
use crate::shared::counters::ProcessCounters;
use crate::shared::events::{Event, EventKind};
use crate::shared::Shared;
use crate::state::restore::Resumed;
use crate::trust::Given;
use crate::{wake, warning};

/// The module in this process.
pub struct Module {
    /// The parameters.
    pub config: Config,
    /// The shared memory.
    pub shared: Shared,
    /// The time.
    pub clock: Clock,
    /// The key at the start.
    pub key: ApiKey,
    /// The trust rules from parameters and files at the start.
    pub trusted: Given,
    /// What the updater resumes from.
    pub resumed: Resumed,
    /// The kinds of event for which the script has a route.
    pub event_kinds: Vec<EventKind>,
    /// Ends the sleep of the processes.
    pub wakeups: Wakeups,
    /// When [`Module::may_warn`] last said yes, in Unix seconds, in shared memory.
    pub last_warning: &'static AtomicU32,
}

/// One eventfd per child process that sleeps.
pub struct Wakeups {
    /// Of the updater.
    pub updater: EventFd,
    /// Of the process of the event routes.
    pub events: EventFd,
    /// Of the process of the cluster.
    pub cluster: EventFd,
}

impl Wakeups {
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> Result<Self, String> {
        let eventfd =
            || wake::eventfd().map_err(|error| format!("cannot make an eventfd: {}", error.desc()));
        Ok(Wakeups {
            updater: eventfd()?,
            events: eventfd()?,
            cluster: eventfd()?,
        })
    }
}

static MODULE: OnceLock<Module> = OnceLock::new();

/// The module; `None` before `mod_init`.
#[inline]
pub fn module() -> Option<&'static Module> {
    MODULE.get()
}

/// Makes `module` the one that [`module`] returns.
///
/// # Errors
/// There is one already.
pub fn publish(module: Module) -> Result<(), String> {
    MODULE
        .set(module)
        .map_err(|_| "initialised twice".to_owned())
}

impl Module {
    /// The counters of this process.
    #[inline]
    pub fn counters(&self) -> ProcessCounters {
        // SAFETY: a plain read of the core's own index of this process, which the core sets before it runs
        // any script. An index that no process can have is beyond all counters.
        let index = unsafe { k::process_no } as u32 as usize;
        self.shared.counters.of_process(index)
    }

    /// The ban tables, for a process that bans.
    pub fn bans(&self) -> Bans<'_> {
        Bans {
            shared: &self.shared,
            policy: Policy::from(&self.config),
            counters: self.counters(),
            wake: self,
        }
    }

    /// True once a minute, for one of all processes: for warnings that any packet may cause.
    pub fn may_warn(&self) -> bool {
        let (now, last) = (
            self.shared.now().get(),
            self.last_warning.load(Ordering::Relaxed),
        );
        now.abs_diff(last) >= 60
            && self
                .last_warning
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Hands an event to the process of the event routes.
    pub fn raise(&self, event: &Event) {
        static LOST: std::sync::Once = std::sync::Once::new();
        if !self.shared.events.put(event) {
            LOST.call_once(|| warning!("event routes are too slow: events are lost"));
            return;
        }
        let _ = self.wakeups.events.write(1);
    }
}

impl Wake for Module {
    /// Wakes the updater. Never blocks: if the counter of the eventfd is full, the updater is awake anyway.
    fn wake(&self) {
        let _ = self.wakeups.updater.write(1);
    }

    fn wake_cluster(&self) {
        let _ = self.wakeups.cluster.write(1);
    }
}
