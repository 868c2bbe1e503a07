//! The panic boundary: no panic of ours may unwind into C.

use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use crate::error;

thread_local! {
    /// Where and why the last panic of this thread happened.
    static LAST: Cell<Option<String>> = const { Cell::new(None) };
}

/// Runs `body`. If it panics, logs that once in this process and returns `fallback`.
#[inline]
pub fn guard<T>(fallback: T, entry: &'static str, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(_) => {
            complain(entry);
            fallback
        }
    }
}

/// Once a process: a panic on every packet must not fill the log.
#[cold]
fn complain(entry: &'static str) {
    static ONCE: Once = Once::new();
    let what = take_last();
    ONCE.call_once(|| {
        // The log itself may be what panicked.
        let _ = catch_unwind(|| {
            error!("internal error in {entry}: {what}; going on, further ones are not logged")
        });
    });
}

/// What the last panic of this thread said.
pub fn take_last() -> String {
    LAST.take().unwrap_or_else(|| "unknown".into())
}

/// Keeps panics off standard error, which a daemon does not have, and remembers them for the log.
pub fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map(|place| format!(" at {}:{}", place.file(), place.line()));
        let payload = info.payload();
        let cause = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("panic");
        LAST.set(Some(format!("{cause}{}", place.unwrap_or_default())));
    }));
}
