//! Signals and the end of a child process.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use libc::c_int;

/// True once the process was asked to end. Set by [`on_end`].
static ENDING: AtomicBool = AtomicBool::new(false);
/// The eventfd that [`on_end`] writes to.
static WAKE_FD: AtomicI32 = AtomicI32::new(-1);

/// SIGTERM and SIGINT set [`ending`] and write to the eventfd `wake`, which must stay open for the life of
/// the process. For a process that has something to save before it ends.
pub fn end_orderly(wake: BorrowedFd<'_>) {
    WAKE_FD.store(wake.as_raw_fd(), Ordering::Release);
    install(on_end);
}

/// SIGTERM and SIGINT end the process at once. For a process that has nothing to save.
pub fn end_at_once() {
    install(on_end_exit);
}

/// True once SIGTERM or SIGINT has come, after [`end_orderly`].
pub fn ending() -> bool {
    ENDING.load(Ordering::Acquire)
}

/// Ends this process. Exit handlers, which belong to the main process, do not run; threads are not waited for.
pub fn exit() -> ! {
    // SAFETY: always callable.
    unsafe { libc::_exit(0) }
}

/// Replaces inherited handlers, which may log from inside a signal and so deadlock, and asks the kernel for
/// SIGTERM if the parent dies without a signal to us.
fn install(on_end: extern "C" fn(c_int)) {
    // SAFETY: both handlers use nothing but atomics, write(2) and _exit(2), which are safe in a signal.
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
    // SAFETY: an eventfd takes eight bytes. errno may change; no caller here reads it later. If the write
    // fails, the loop sees the flag one second later.
    unsafe { libc::write(WAKE_FD.load(Ordering::Acquire), (&raw const one).cast(), 8) };
}

extern "C" fn on_end_exit(_: c_int) {
    exit();
}
