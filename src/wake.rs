//! How a process sleeps until another process, a thread or a signal wakes it.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// A descriptor that ends a sleep when it is written to. A write never blocks: if the counter is full, the sleeper
/// is awake anyway.
///
/// # Errors
/// The system has no descriptor left.
pub fn eventfd() -> Result<EventFd, Errno> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
}

/// Sleeps until `wakeup` was written to, one of `others` can be read, a signal comes, or `pause` is over. True in the
/// first two cases; the caller then reads `wakeup`.
pub fn sleep(wakeup: &EventFd, others: &[&dyn AsFd], pause: Duration) -> bool {
    let others = others.iter().map(|other| other.as_fd());
    let mut wait: Vec<PollFd<'_>> = std::iter::once(wakeup.as_fd())
        .chain(others)
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
    poll(&mut wait, timeout).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_ends_the_sleep_and_a_pause_does_not_wait_for_one() {
        let (wakeup, other) = (eventfd().unwrap(), eventfd().unwrap());
        assert!(!sleep(&wakeup, &[&other], Duration::from_millis(1)));
        other.write(1).unwrap();
        assert!(sleep(&wakeup, &[&other], Duration::from_secs(60)));
        assert!(!sleep(&wakeup, &[], Duration::ZERO));
        wakeup.write(1).unwrap();
        assert!(sleep(&wakeup, &[], Duration::from_secs(60)));
        wakeup.read().unwrap();
        assert!(!sleep(&wakeup, &[], Duration::ZERO));
    }
}
