//! Start and end of the module in each of Kamailio's processes.

use std::ffi::{c_int, c_void};
use std::net::IpAddr;
use std::sync::OnceLock;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::bindings as k;
use super::guard::guard;
use super::{events, load, params, process, statistics, text};
use crate::address::Subnet;
use crate::bans::evict::evict_trusted;
use crate::clock::Clock;
use crate::config::files;
use crate::config::Config;
use crate::feed::Key;
use crate::shared::counters::ProcessCounters;
use crate::shared::events::EventKind;
use crate::shared::Shared;
use crate::state::restore;
use crate::sys::mmap::SharedArena;
use crate::trust::{Rule, Trusted};
use crate::{error, info, warning};

/// What every process of this Kamailio has of the module. Set in `mod_init`, before any fork.
pub struct Module {
    /// The parameters.
    pub config: Config,
    /// The shared memory.
    pub shared: Shared,
    /// The time.
    pub clock: Clock,
    /// The key at the start.
    pub key: Option<Key>,
    /// What parameters and files trusted at the start.
    pub trusted: Vec<Trusted>,
    /// What the updater resumes from.
    pub resumed: restore::Resumed,
    /// The event routes that the script has.
    pub event_kinds: Vec<EventKind>,
    wake: EventFd,
    event_wake: EventFd,
}

static MODULE: OnceLock<Module> = OnceLock::new();

/// The module; `None` before `mod_init`.
#[inline]
pub fn module() -> Option<&'static Module> {
    MODULE.get()
}

impl Module {
    /// The counters of this process.
    #[inline]
    pub fn counters(&self) -> ProcessCounters {
        // SAFETY: a plain read of the core's own index of this process, set before it runs any script;
        // what is no index is beyond all lanes.
        self.shared
            .counters
            .of_process(unsafe { k::process_no } as u32 as usize)
    }

    /// Wakes the updater. Never blocks: a counter that is full wakes just as well.
    pub fn wake(&self) {
        let _ = self.wake.write(1);
    }

    /// Wakes the updater where a ban `changed` and nobody has woken it for that yet.
    pub fn wake_for_notes(&self, changed: bool) {
        if changed && self.shared.ban_changes.must_wake() {
            self.wake();
        }
    }

    /// What the updater waits on.
    pub fn wakeup(&self) -> &EventFd {
        &self.wake
    }

    /// What the process of the event routes waits on.
    pub fn event_wakeup(&self) -> &EventFd {
        &self.event_wake
    }
}

/// Runs once, in the main process, before sockets are opened and before any fork.
pub unsafe extern "C" fn mod_init() -> c_int {
    guard(-1, "mod_init", || match init() {
        Ok(()) => 0,
        Err(error) => {
            error!("{error}");
            -1
        }
    })
}

fn init() -> Result<(), String> {
    let config = params::take();
    config.check().map_err(|error| error.to_string())?;
    let (key, open) = files::read_key(&config).map_err(|error| error.to_string())?;
    if let Some(text) = open {
        warning!("{text}");
    }
    if key.is_none() {
        warning!("no api_key and no api_key_file: the feed is disabled, local bans work");
    }
    let trusted = files::read_trust(&config).map_err(|error| error.to_string())?;

    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| format!("no random numbers: {error}"))?;
    let shared = Shared::new(&mut SharedArena, &config, u64::from_ne_bytes(seed))
        .map_err(|error| error.to_string())?;
    let clock = Clock::start();
    shared.set_now(clock.unix());
    shared.started(clock.unix());
    shared
        .trust
        .replace(&trusted)
        .map_err(|error| format!("trust: {error}"))?;
    if config.trust_self {
        trust_own_addresses(&shared);
    }
    let resumed = restore::restore(&config, &shared);
    shared.local.prepare();

    let eventfd = || {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| format!("cannot make an eventfd: {error}"))
    };
    let (wake, event_wake) = (eventfd()?, eventfd()?);
    let event_kinds = events::wanted();
    if !statistics::register() {
        return Err("cannot register the statistics".into());
    }
    let processes = 1 + c_int::from(!event_kinds.is_empty());
    // SAFETY: this is mod_init, where both calls belong; as many processes are forked, and the timer
    // function is called with the parameter given.
    unsafe {
        if k::register_procs(processes) < 0 {
            return Err("cannot register the processes".into());
        }
        if k::register_timer(Some(tick), std::ptr::null_mut(), 1) < 0 {
            return Err("cannot register a timer".into());
        }
    }
    info!(
        "apiban {} on Kamailio {}",
        env!("CARGO_PKG_VERSION"),
        load::release()
    );
    let module = Module {
        config,
        shared,
        clock,
        key,
        trusted,
        resumed,
        event_kinds,
        wake,
        event_wake,
    };
    MODULE
        .set(module)
        .map_err(|_| "initialised twice".to_owned())
}

/// Keeps the shared clock going even while the updater is stopped: bans end in time.
unsafe extern "C" fn tick(_: u32, _: *mut c_void) {
    guard((), "the timer", || {
        if let Some(module) = module() {
            module.shared.set_now(module.clock.unix());
        }
    });
}

/// Runs in every process, and in the main process for each stage of the start.
pub unsafe extern "C" fn child_init(rank: c_int) -> c_int {
    guard(-1, "child_init", || {
        let Some(module) = module() else {
            return -1;
        };
        match rank {
            k::PROC_INIT => {
                // By now every listening address is known.
                if module.config.trust_self {
                    trust_own_addresses(&module.shared);
                    evict_trusted(&module.shared);
                }
                0
            }
            k::PROC_MAIN => match process::fork_updater(module) {
                0 if !module.event_kinds.is_empty() => events::fork(module),
                code => code,
            },
            _ => 0,
        }
    })
}

/// Runs in the main process after all others have ended: nothing of ours is left to do, and shared
/// memory goes with the process.
pub unsafe extern "C" fn destroy() {}

/// The addresses of this host that Kamailio listens on.
pub fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address
                .as_sockaddr_in()
                .map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| {
                address
                    .as_sockaddr_in6()
                    .map(|address| IpAddr::V6(address.ip()))
            })
        })
        .filter(|ip| is_own(*ip))
        .collect()
}

fn trust_own_addresses(shared: &Shared) {
    for ip in own_addresses() {
        shared.trust.add((Subnet::host(ip), Rule::Own));
    }
}

/// True where Kamailio listens on this address, whatever port.
pub fn is_own(ip: IpAddr) -> bool {
    let host = text::to_c(&ip.to_string());
    let mut host = k::str_ {
        s: host.as_ptr().cast_mut(),
        len: host.count_bytes() as c_int,
    };
    // SAFETY: the core only reads the text, which lives until the call returns.
    unsafe { k::check_self(&mut host, 0, 0) == 1 }
}
