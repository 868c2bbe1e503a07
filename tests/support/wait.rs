//! Waiting for something to become true: short polls under a deadline, never a fixed sleep.

use std::time::{Duration, Instant};

/// Pause between two looks: short against anything a test waits for, long against a look's cost.
const POLL: Duration = Duration::from_millis(10);

/// How long tests wait for what should come at once: far longer than it takes on a busy machine, because
/// only a failure waits to the end.
pub const SOON: Duration = Duration::from_secs(30);

/// Calls `probe` until it gives a value or `within` is over.
pub fn poll<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Like [`poll`], but a test that waited in vain fails and says for what.
#[track_caller]
pub fn wait_for<T>(what: &str, within: Duration, probe: impl FnMut() -> Option<T>) -> T {
    match poll(within, probe) {
        Some(value) => value,
        None => panic!("waited {within:?} in vain for {what}"),
    }
}

/// [`wait_for`] a condition.
#[track_caller]
pub fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, within, || condition().then_some(()));
}
