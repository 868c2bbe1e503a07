//! The updater process: everything that may block lives there.

use std::ffi::{c_int, CStr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::bindings as k;
use super::events;
use super::guard::take_last;
use super::lifecycle::{self, Module};
use super::other_modules;
use crate::shared::events::{Event, EventKind};
use crate::updater::{Discovered, Host, Parts, Updater};
use crate::{error, notice};

/// The longest sleep: signs of a gone main process and of a changed log level are looked for this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Wakes that follow one another faster than this are taken together: a worker that wakes somebody pays
/// microseconds for it, and in an attack there is a ban with every packet. A wake after a quiet time
/// still counts at once.
const SHORTEST_SLEEP: Duration = Duration::from_millis(2);
/// After a panic, so that a lasting cause does not spin.
const PANIC_PAUSE: Duration = Duration::from_secs(1);
/// Panics further apart than this are logged each.
const PANIC_QUIET: Duration = Duration::from_secs(60);

/// Set by the signal handler.
static ENDING: AtomicBool = AtomicBool::new(false);
/// The descriptor that the signal handler writes to.
static WAKE_FD: AtomicI32 = AtomicI32::new(-1);
/// The main process. It may well be number 1, in a container.
static PARENT: AtomicU32 = AtomicU32::new(0);

/// Forks the updater; in the parent 0, or below 0 where it cannot be forked.
pub fn fork_updater(module: &'static Module) -> c_int {
    fork(k::PROC_NOCHLDINIT, c"APIBAN updater", || run(module))
}

/// Forks a process that was registered in `mod_init` and lives in `life`; in the parent 0, or below 0
/// where it cannot be forked. Only child_init of the main process may call this.
pub fn fork(rank: c_int, name: &CStr, life: impl FnOnce()) -> c_int {
    PARENT.store(std::process::id(), Ordering::Release);
    // SAFETY: the caller's stage of the start is the one that the core demands.
    let (pid, is_main) = unsafe {
        (
            k::fork_process(rank, name.as_ptr(), 0),
            k::_ksr_is_main != 0,
        )
    };
    match pid {
        // A process whose life returned all the same must not go on as the main process.
        0 => {
            life();
            exit()
        }
        _ if pid < 0 && is_main => {
            error!("cannot fork the process {}", name.to_string_lossy());
            -1
        }
        // An error that the child sees: it must not return into the main process's code.
        _ if pid < 0 => exit(),
        _ => 0,
    }
}

/// The life of the updater process.
fn run(module: &'static Module) {
    take_signals(module);
    let host = KamailioHost(module);
    let mut updater: Option<Updater<'static>> = None;
    let mut failed = false;
    let mut last_panic: Option<Instant> = None;
    let mut last_wake: Option<Instant> = None;
    loop {
        follow_log_level();
        let turn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let updater = match &mut updater {
                Some(updater) => updater,
                none => match start(module) {
                    Ok(new) => none.insert(new),
                    Err(problem) => {
                        once(&mut failed, || {
                            error!("the updater cannot start: {problem}; trying again")
                        });
                        let ending = ENDING.load(Ordering::Acquire);
                        return (!ending).then_some(LONGEST_SLEEP);
                    }
                },
            };
            if ENDING.load(Ordering::Acquire) || main_is_gone() {
                updater.end(&host);
                None
            } else {
                Some(updater.turn(&host))
            }
        }));
        match turn {
            Ok(None) => exit(),
            Ok(Some(pause)) => {
                sleep(module, pause.min(LONGEST_SLEEP), &mut last_wake);
            }
            Err(_) => {
                let what = take_last();
                if last_panic.is_none_or(|last| last.elapsed() > PANIC_QUIET) {
                    error!("internal error in the updater: {what}; going on");
                    last_panic = Some(Instant::now());
                }
                if ENDING.load(Ordering::Acquire) {
                    exit();
                }
                sleep(module, PANIC_PAUSE, &mut last_wake);
            }
        }
    }
}

fn start(module: &'static Module) -> Result<Updater<'static>, String> {
    let parts = Parts {
        config: &module.config,
        shared: &module.shared,
        clock: module.clock,
        source: module.config.source().map_err(|error| error.to_string())?,
        key: module.key.clone(),
        trusted: module.trusted.clone(),
        resumed: module.resumed.clone(),
    };
    Updater::new(parts, || module.wake())
}

/// Runs `act` the first time only.
fn once(done: &mut bool, act: impl FnOnce()) {
    if !std::mem::replace(done, true) {
        act();
    }
}

/// Takes over a changed log level; once a loop.
pub fn follow_log_level() {
    // SAFETY: only the one thread that may call the core comes here.
    unsafe { k::cfg_main_set_local() };
}

/// Until somebody wakes us, a signal comes, or the time is over.
fn sleep(module: &Module, pause: Duration, last_wake: &mut Option<Instant>) {
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
    let mut wait = [PollFd::new(module.wakeup().as_fd(), PollFlags::POLLIN)];
    if poll(&mut wait, timeout).is_ok_and(|ready| ready > 0) {
        if let Some(last) = last_wake {
            std::thread::sleep(SHORTEST_SLEEP.saturating_sub(last.elapsed()));
        }
        *last_wake = Some(Instant::now());
        let _ = module.wakeup().read();
    }
}

/// Own handlers instead of the core's, which log from inside a signal and could so deadlock.
fn take_signals(module: &Module) {
    WAKE_FD.store(module.wakeup().as_raw_fd(), Ordering::Release);
    handle_signals(on_end);
}

/// For a process that needs no orderly end.
pub fn end_at_once_on_signals() {
    extern "C" fn end(_: c_int) {
        exit();
    }
    handle_signals(end);
}

fn handle_signals(on_end: extern "C" fn(c_int)) {
    // SAFETY: both handlers use nothing but atomics, write(2) and _exit(2), all safe in a signal; the
    // parent's death is turned into the signal that ends us.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_end as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        for signal in [libc::SIGTERM, libc::SIGINT] {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
    }
}

extern "C" fn on_end(_: c_int) {
    ENDING.store(true, Ordering::Release);
    let one = 1u64;
    // SAFETY: an eventfd takes eight bytes; errno may change, which nothing here relies on, and a failed
    // write only means that the loop sees the flag a second later.
    unsafe { libc::write(WAKE_FD.load(Ordering::Acquire), (&raw const one).cast(), 8) };
}

/// True where the main process died so hard that it could not signal us.
pub fn main_is_gone() -> bool {
    // SAFETY: always callable.
    let gone = unsafe { libc::getppid() } as u32 != PARENT.load(Ordering::Acquire);
    if gone {
        notice!("the main process is gone: this process ends");
    }
    gone
}

/// Ends this process without running the exit handlers of the main process, and whatever its threads do.
pub fn exit() -> ! {
    // SAFETY: always callable.
    unsafe { libc::_exit(0) }
}

/// What the updater asks of Kamailio.
struct KamailioHost(&'static Module);

impl Host for KamailioHost {
    fn is_own(&self, ip: std::net::IpAddr) -> bool {
        lifecycle::is_own(ip)
    }

    fn discovered(&self) -> Discovered {
        let config = &self.0.config;
        let mut discovered = Discovered::default();
        if config.trust_self {
            discovered.own = lifecycle::own_addresses();
        }
        if config.trust_dmq {
            discovered.nodes = other_modules::dmq_addresses();
        }
        if config.trust_dispatcher {
            discovered.destinations = other_modules::dispatcher_uris();
        }
        discovered
    }

    fn wants(&self, kind: EventKind) -> bool {
        self.0.event_kinds.contains(&kind)
    }

    fn raise(&self, event: &Event) {
        events::raise(self.0, event);
    }
}
