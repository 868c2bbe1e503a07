//! What Kamailio calls at the start and the end of each of its processes.

use std::ffi::{c_int, c_void};

use super::bindings as k;
use super::child::Child;
use super::guard::guard;
use super::module::{module, publish, Module, Wakeups};
use super::{
    cluster, dmq, events, fixups, load, own, packet, params, sockets, statistics, updater,
};
use crate::address::Subnet;
use crate::bans::evict::evict_trusted;
use crate::clock::Clock;
use crate::config::{files, reading};
use crate::config::{Config, Mode};
use crate::feed::ApiKey;
use crate::firewall::socket_filter::kernel::Linux;
use crate::firewall::socket_filter::watchdog;
use crate::member;
use crate::memory::{Arena, AtomicU32};
use crate::shared::published::Place;
use crate::shared::Shared;
use crate::state::restore;
use crate::sys::mmap::Mapped;
use crate::trust::{Given, Rule};
use crate::{error, notice, warning};

/// All child processes, in the order in which they are forked.
const CHILDREN: &[Child] = &[updater::CHILD, events::CHILD, cluster::CHILD];

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
    let config = read_parameters()?;
    if config.enable_dmq {
        check_cluster(&config)?;
    }
    let (key, trusted) = read_files(&config)?;
    let clock = Clock::start();
    let mut arena = Mapped::shared();
    let shared = make_shared_memory(&mut arena, &config, &trusted, clock)?;
    let resumed = restore::restore(&config, &shared);
    shared.local.prepare();
    let module = Module {
        config,
        shared,
        clock,
        key,
        trusted,
        resumed,
        event_kinds: events::wanted(),
        wakeups: Wakeups::new()?,
        last_warning: last_warning(&mut arena)?,
    };
    register(&module)?;
    packet::learn_faked_message();
    publish(module)
}

fn read_parameters() -> Result<Config, String> {
    events::check_names()?;
    let config = params::take();
    config.check().map_err(|error| error.to_string())?;
    for text in config.without_effect() {
        warning!("{text}");
    }
    Ok(config)
}

/// What the cluster needs: the bus and a secret.
fn check_cluster(config: &Config) -> Result<(), String> {
    if !dmq::is_loaded() {
        return Err(
            "parameter \"enable_dmq\": value 1 needs the module dmq: loadmodule \"dmq.so\" after tm and sl".into(),
        );
    }
    let (_, open) = member::keyring(config)?;
    if let Some(text) = open {
        warning!("{text}");
    }
    Ok(())
}

/// The key, and the trust rules.
fn read_files(config: &Config) -> Result<(ApiKey, Given), String> {
    let (key, open) = files::read_key(config);
    if let Some(text) = open {
        warning!("{text}");
    }
    match &key {
        ApiKey::Usable(_) => {}
        ApiKey::NotSet => {
            warning!("no api_key and no api_key_file: the feed is disabled, local bans work");
        }
        ApiKey::Unusable(problem) => error!(
            "{problem}; the feed is off, all else works: write the key as the first line of a file \
             that Kamailio's user can read, then run apiban.reload"
        ),
    }
    let trusted = files::read_trust(config).map_err(|error| error.to_string())?;
    for text in &trusted.warnings {
        warning!("{text}");
    }
    reading::start_is_over();
    Ok((key, trusted))
}

/// The tables, with the trust rules in force.
fn make_shared_memory(
    arena: &mut Mapped,
    config: &Config,
    trusted: &Given,
    clock: Clock,
) -> Result<Shared, String> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| format!("no random numbers: {error}"))?;
    let shared =
        Shared::new(arena, config, u64::from_ne_bytes(seed)).map_err(|error| error.to_string())?;
    shared.set_now(clock.unix());
    shared.started(clock.unix());
    shared.trust.replace(&trusted.at(clock.unix()));
    if config.trust_self {
        trust_own_addresses(&shared);
    }
    Ok(shared)
}

/// A zeroed word of shared memory.
fn last_warning(arena: &mut Mapped) -> Result<&'static AtomicU32, String> {
    let words = arena.words("the time of the last warning", 1);
    words
        .map(|words| &words[0])
        .map_err(|error| error.to_string())
}

/// Tells the core of statistics, processes and the timer.
fn register(module: &Module) -> Result<(), String> {
    if !statistics::register() {
        return Err("cannot register the statistics".into());
    }
    let children = CHILDREN.iter().filter(|child| (child.wanted)(module));
    // SAFETY: this is mod_init, in which both calls are allowed; as many processes are forked, and the timer
    // function is called with the parameter given.
    unsafe {
        if k::register_procs(children.count() as c_int) < 0 {
            return Err("cannot register the processes".into());
        }
        if k::register_timer(Some(tick), std::ptr::null_mut(), 1) < 0 {
            return Err("cannot register a timer".into());
        }
    }
    Ok(())
}

/// Moves the shared clock on even while the updater is stopped, so that bans end in time; those in the sockets'
/// filters, too.
unsafe extern "C" fn tick(_: u32, _: *mut c_void) {
    guard((), "the timer", || {
        if let Some(module) = module() {
            module.shared.set_now(module.clock.unix());
            if module.config.socket_filter {
                watch_over_filters(module);
            }
        }
    });
}

/// Takes the filters off the sockets while the updater does not keep them up to date.
fn watch_over_filters(module: &Module) {
    let alive = module.shared.published.alive(Place::SocketFilter);
    let now = module.shared.now();
    if !watchdog::is_silent(alive, now) {
        return;
    }
    let released = sockets::with_descriptors(|sockets| watchdog::release_all(sockets, &mut Linux));
    if released > 0 {
        warning!(
            "socket filter: the updater has not been at work for {} s: the filter was taken off {released} sockets, \
             apiban_check() goes on",
            now.seconds_since(alive.unwrap_or_default())
        );
    }
}

/// Runs in every process, and in the main process for each stage of the start.
pub unsafe extern "C" fn child_init(rank: c_int) -> c_int {
    guard(-1, "child_init", || {
        let Some(module) = module() else {
            return -1;
        };
        match rank {
            k::PROC_INIT => {
                fixups::script_is_complete();
                // By now every listening address is known.
                if module.config.trust_self {
                    trust_own_addresses(&module.shared);
                    evict_trusted(&module.shared);
                }
                announce(module);
                // Before any fork: the timer process needs them as well as the updater.
                if module.config.socket_filter {
                    sockets::take_descriptors();
                }
                join_bus(module)
            }
            k::PROC_MAIN => {
                let code = fork_children(module);
                sockets::close_descriptors();
                code
            }
            // Its processes run `tick`.
            k::PROC_TIMER => 0,
            _ => {
                sockets::close_descriptors();
                0
            }
        }
    })
}

/// 0, or below 0 if there is no bus.
fn join_bus(module: &Module) -> c_int {
    if !module.config.enable_dmq {
        return 0;
    }
    match dmq::register() {
        Ok(()) => 0,
        Err(problem) => {
            error!("enable_dmq: {problem}");
            -1
        }
    }
}

/// One line that says what is in force from the first packet on.
fn announce(module: &Module) {
    let (config, shared) = (&module.config, &module.shared);
    let mode = match config.mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe, nobody is turned away",
    };
    let last_success = module
        .resumed
        .feed
        .as_ref()
        .and_then(|feed| feed.last_success);
    let age = match last_success {
        Some(then) if !shared.feed.is_empty() => {
            let seconds = module.clock.unix().seconds_since(then);
            format!(" (from the state file, {seconds} s old)")
        }
        _ => String::new(),
    };
    let feed = match &module.key {
        ApiKey::Usable(_) => format!("polls every {} s", config.poll_interval),
        ApiKey::NotSet | ApiKey::Unusable(_) => "feed off".to_owned(),
    };
    let (rules, automatic) = shared.trust.count();
    notice!(
        "apiban {} on Kamailio {}: {mode}; {} listed{age}, {} local bans, {rules} trust rules ({automatic} automatic), \
         firewall {}, socket filter {}, {feed}",
        env!("CARGO_PKG_VERSION"),
        load::release(),
        shared.feed.len(),
        shared.local.len(),
        config.firewall.facts().map_or("none", |facts| facts.name),
        if config.socket_filter { "on" } else { "off" },
    );
}

/// 0, or the first error.
fn fork_children(module: &'static Module) -> c_int {
    let wanted = CHILDREN.iter().filter(|child| (child.wanted)(module));
    wanted
        .map(|child| child.fork(module))
        .find(|code| *code < 0)
        .unwrap_or(0)
}

/// Runs in the main process after all others have ended: nothing of ours is left to do, and shared
/// memory goes with the process.
pub unsafe extern "C" fn destroy() {}

fn trust_own_addresses(shared: &Shared) {
    for ip in own::addresses() {
        shared.trust.add((Subnet::host(ip), Rule::Own));
    }
}
