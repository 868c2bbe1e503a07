//! Waiting for something to become true: short polls under a deadline, never a fixed sleep.
//!
//! Every deadline of the tests follows [`patience`], which is applied here, to the answers of [`crate::sip`] and to the
//! commands of `kamailio::rpc`.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Pause between two looks: short against anything a test waits for, long against a look's cost.
const POLL: Duration = Duration::from_millis(10);

/// How long tests wait for what should come at once: far longer than it takes on a busy machine, because
/// only a failure waits to the end.
pub const SOON: Duration = Duration::from_secs(30);

/// How many times longer everything may take here: `APIBAN_TEST_PATIENCE`, 1 without it. A memory checker or an emulator
/// that runs Kamailio sets it.
pub fn patience() -> u32 {
    static PATIENCE: OnceLock<u32> = OnceLock::new();
    *PATIENCE.get_or_init(|| {
        let given = std::env::var("APIBAN_TEST_PATIENCE").ok();
        given.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
    })
}

/// Calls `probe` until it gives a value or `within` is over, [`patience`] times.
pub fn poll<T>(within: Duration, probe: impl FnMut() -> Option<T>) -> Option<T> {
    watch(within * patience(), probe)
}

/// Calls `probe` until it gives a value or exactly `time` is over: for what must not happen meanwhile.
pub fn watch<T>(time: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + time;
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
        None => panic!("waited {:?} in vain for {what}", within * patience()),
    }
}

/// [`wait_for`] a condition.
#[track_caller]
pub fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, within, || condition().then_some(()));
}
