//! The end of filters that nobody keeps up to date.
//!
//! A program has no clock: a ban in it lasts until the program is replaced. If the updater ends, it takes the
//! programs off; if it dies, the whole server ends and the sockets with it. What is left is an updater that is
//! stopped or hangs. Another process looks every second when the updater was last seen at work.

use std::time::Duration;

use crate::clock::UnixSeconds;
use crate::sys::listening::ListeningSocket;

use super::kernel::Kernel;
use super::socket::release;

/// Time after which an updater that was not seen at work counts as stopped.
pub const SILENCE: Duration = Duration::from_secs(5);

/// True if the filters must go: the updater was last seen at work at `alive`; `None`: never, so it has put none
/// there.
pub fn is_silent(alive: Option<UnixSeconds>, now: UnixSeconds) -> bool {
    alive.is_some_and(|alive| now.since(alive) > SILENCE)
}

/// Takes our filters off these sockets; returns how many there were.
pub fn release_all(sockets: &[ListeningSocket], kernel: &mut dyn Kernel) -> usize {
    sockets
        .iter()
        .filter_map(|socket| socket.fd.as_ref())
        .filter(|fd| release(kernel, fd).unwrap_or(false))
        .count()
}
