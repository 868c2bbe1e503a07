//! A child process of our own: how it is forked, how it sleeps, and how it ends.
//!
//! Kamailio ends as a whole when one of its processes ends. So a child never ends by itself: it goes on
//! after a panic, and ends only on a signal or when the main process is gone.

use std::ffi::{c_int, CStr};
use std::os::fd::AsFd;
use std::os::unix::process::parent_id;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use super::bindings as k;
use super::guard::take_last;
use super::module::Module;
use crate::sys::signal;
use crate::{error, notice, wake};

/// The longest sleep: a lost main process and a changed log level are noticed after this time at most.
pub const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Wake-ups that come faster than this are served together. Each costs the sender microseconds, and in an
/// attack there is a ban with every packet. The first wake-up after a pause is served at once.
const SHORTEST_SLEEP: Duration = Duration::from_millis(2);
/// The pause after a panic: a lasting cause must not keep a processor busy.
const PANIC_PAUSE: Duration = Duration::from_secs(1);
/// Of panics that come faster than this only the first is logged.
const PANIC_QUIET: Duration = Duration::from_secs(60);

/// A kind of child process.
pub struct Child {
    /// The rank that the core gives it: decides which modules initialise themselves in it.
    pub rank: c_int,
    /// The name in Kamailio's list of processes, at most 127 bytes.
    pub name: &'static CStr,
    /// Gives the process its connection to the TCP main process: without it nothing can be sent over TCP
    /// or TLS.
    pub make_sock: bool,
    /// True if this configuration needs the process. Must not change after `mod_init`.
    pub wanted: fn(&Module) -> bool,
    /// The eventfd that ends its sleep.
    pub wakeup: fn(&Module) -> &EventFd,
    /// True if [`Work::end`] must run before the process ends on a signal.
    pub orderly_end: bool,
    /// Makes its work, in the new process.
    pub life: fn(&'static Module) -> Box<dyn Work>,
}

/// The work of a child process.
pub trait Work {
    /// Does what is to do now; returns how long there is nothing to do unless a wake-up comes.
    fn turn(&mut self) -> Duration;
    /// The last thing that runs.
    fn end(&mut self);
}

/// The main process. Its number may be 1, in a container.
static PARENT: AtomicU32 = AtomicU32::new(0);

impl Child {
    /// Forks the process; in the parent 0, or below 0 if it cannot be forked. Only `child_init` of the main
    /// process may call this.
    pub fn fork(&self, module: &'static Module) -> c_int {
        PARENT.store(std::process::id(), Ordering::Release);
        let make_sock = c_int::from(self.make_sock);
        // SAFETY: the caller's stage of the start is the one that the core demands.
        let (pid, is_main) = unsafe {
            (
                k::fork_process(self.rank, self.name.as_ptr(), make_sock),
                k::_ksr_is_main != 0,
            )
        };
        match pid {
            0 => self.live(module),
            _ if pid < 0 && is_main => {
                error!("cannot fork the process {}", self.name.to_string_lossy());
                -1
            }
            // An error that the child sees: it must not return into the main process's code.
            _ if pid < 0 => signal::exit(),
            _ => 0,
        }
    }

    fn live(&self, module: &'static Module) -> ! {
        let wakeup = (self.wakeup)(module);
        if self.orderly_end {
            signal::end_orderly(wakeup.as_fd());
        } else {
            signal::end_at_once();
        }
        let mut work: Option<Box<dyn Work>> = None;
        let mut last_panic: Option<Instant> = None;
        let mut last_wake: Option<Instant> = None;
        loop {
            follow_log_level();
            let end = signal::ending() || main_is_gone();
            let turn = catch_unwind(AssertUnwindSafe(|| {
                let work = work.get_or_insert_with(|| (self.life)(module));
                if end {
                    work.end();
                    return Duration::ZERO;
                }
                work.turn()
            }));
            let pause = turn.unwrap_or_else(|_| {
                let what = take_last();
                if last_panic.is_none_or(|last| last.elapsed() > PANIC_QUIET) {
                    let name = self.name.to_string_lossy();
                    error!("internal error in the process {name}: {what}; going on");
                    last_panic = Some(Instant::now());
                }
                PANIC_PAUSE
            });
            if end {
                signal::exit();
            }
            sleep(wakeup, pause.min(LONGEST_SLEEP), &mut last_wake);
        }
    }
}

/// Takes over a changed log level.
fn follow_log_level() {
    // SAFETY: only the one thread that may call the core comes here.
    unsafe { k::cfg_main_set_local() };
}

/// Sleeps until a wake-up or a signal comes, or for `pause`.
fn sleep(wakeup: &EventFd, pause: Duration, last_wake: &mut Option<Instant>) {
    if wake::sleep(wakeup, &[], pause) {
        if let Some(last) = last_wake {
            std::thread::sleep(SHORTEST_SLEEP.saturating_sub(last.elapsed()));
        }
        *last_wake = Some(Instant::now());
        let _ = wakeup.read();
    }
}

/// True if the main process died in a way that left it no time to signal us.
fn main_is_gone() -> bool {
    let gone = parent_id() != PARENT.load(Ordering::Acquire);
    if gone {
        notice!("the main process is gone: this process ends");
    }
    gone
}
