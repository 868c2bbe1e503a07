//! Child processes that share memory with the test, as Kamailio's processes do.

// Forking is what this file is for; the tests themselves stay safe Rust.
#![allow(unsafe_code)]

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::{Duration, Instant};

/// Runs `work` in `count` processes at once, each with its number; fails where one panics, crashes or is
/// not done in time. `work` must not print: another thread may hold that lock in the moment of the fork.
pub fn in_processes(count: usize, limit: Duration, work: impl Fn(usize)) {
    let children: Vec<libc::pid_t> = (0..count).map(|number| child(|| work(number))).collect();
    let deadline = Instant::now() + limit;
    let failed: Vec<String> = children
        .into_iter()
        .filter_map(|pid| wait(pid, deadline))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

fn child(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child has this thread only; it runs `work` and ends without running anything of ours
    // that belongs to the test harness. The C library keeps its allocator usable after a fork.
    match unsafe { libc::fork() } {
        0 => {
            let done = catch_unwind(AssertUnwindSafe(work)).is_ok();
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(if done { 0 } else { 101 }) }
        }
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        pid => pid,
    }
}

/// What went wrong with a child; `None` where it ended well.
fn wait(pid: libc::pid_t, deadline: Instant) -> Option<String> {
    let mut status = 0;
    loop {
        // SAFETY: our own child, not yet waited for.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            0 => {
                // SAFETY: as above; a killed child is waited for, so that none is left.
                unsafe {
                    libc::kill(pid, libc::SIGKILL);
                    libc::waitpid(pid, &mut status, 0);
                }
                return Some(format!("{pid} was not done in time"));
            }
            _ => return (status != 0).then(|| format!("{pid} ended with status {status:#x}")),
        }
    }
}
