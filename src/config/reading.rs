//! Reads a file with a time limit: it may lie on a file system that hangs, such as NFS without its server.
//!
//! A thread reads, and the caller waits for it a limited time. A thread that does not come back stays, one for
//! each file; meanwhile nobody waits for that file again. What it read in the end is taken by the next who asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::files::FileError;

/// How long a read may take before the start is over, in milliseconds. Nobody waits then but the start itself.
const AT_START: u64 = 5_000;
/// How long later: the updater has other things to do.
const LATER: u64 = 250;
/// What came late is taken if it came within this time, else the file is read again.
const FRESH: Duration = Duration::from_secs(5);

static PATIENCE: AtomicU64 = AtomicU64::new(AT_START);
static LATE: Mutex<BTreeMap<String, Arc<Read>>> = Mutex::new(BTreeMap::new());

/// Content and mode of a file, or why there is none.
pub type Outcome = Result<(String, u32), FileError>;

/// A read that is under way.
struct Read {
    /// The process whose thread reads: a forked process has inherited the entry without the thread.
    process: u32,
    done: Mutex<Option<(Outcome, Instant)>>,
    came: Condvar,
}

/// From now on nobody waits longer than a quarter of a second. To be called before processes are forked.
pub fn start_is_over() {
    PATIENCE.store(LATER, Ordering::Relaxed);
}

/// What `reader` answers for this file, or an error if that takes too long.
pub fn read(path: &str, reader: impl FnOnce(&str) -> Outcome + Send + 'static) -> Outcome {
    match take_late(path) {
        Late::Fresh(outcome) => return outcome,
        Late::Hanging => return Err(no_answer(path)),
        Late::None => {}
    }
    let read = Arc::new(Read {
        process: std::process::id(),
        done: Mutex::new(None),
        came: Condvar::new(),
    });
    let (of_thread, owned) = (Arc::clone(&read), path.to_owned());
    thread::Builder::new()
        .name("apiban file".to_owned())
        .spawn(move || {
            let outcome = reader(&owned);
            let mut done = locked(&of_thread.done);
            *done = Some((outcome, Instant::now()));
            of_thread.came.notify_all();
        })
        .map_err(|error| FileError::new(path, crate::quote::plain(&error)))?;
    let patience = Duration::from_millis(PATIENCE.load(Ordering::Relaxed));
    let done = locked(&read.done);
    let (mut done, _) = read
        .came
        .wait_timeout_while(done, patience, |done| done.is_none())
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((outcome, _)) = done.take() {
        return outcome;
    }
    drop(done);
    locked(&LATE).insert(path.to_owned(), read);
    Err(no_answer(path))
}

/// True while a read of this file is under way that took too long.
pub fn hangs(path: &str) -> bool {
    locked(&LATE)
        .get(path)
        .is_some_and(|read| read.process == std::process::id() && locked(&read.done).is_none())
}

enum Late {
    None,
    Hanging,
    Fresh(Outcome),
}

/// What became of a read that took too long.
fn take_late(path: &str) -> Late {
    if hangs(path) {
        return Late::Hanging;
    }
    let late = locked(&LATE).remove(path);
    match late.and_then(|read| locked(&read.done).take()) {
        Some((outcome, at)) if at.elapsed() < FRESH => Late::Fresh(outcome),
        _ => Late::None,
    }
}

fn no_answer(path: &str) -> FileError {
    FileError::new(path, "its file system does not answer")
}

/// Whoever had a lock here changed one value, so a panic leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_file_that_does_not_answer_is_waited_for_once_and_taken_when_it_comes() {
        start_is_over();
        let path = "/a/file/that/hangs";
        let (answer, answers) = mpsc::channel::<()>();
        let outcome = read(path, move |_| {
            let _ = answers.recv();
            Ok(("late".to_owned(), 0o600))
        });
        let error = outcome.unwrap_err().to_string();
        assert_eq!(error, "/a/file/that/hangs: its file system does not answer");
        assert!(hangs(path));
        let begin = Instant::now();
        let again = read(path, |_| panic!("a second thread"));
        assert!(again.is_err() && begin.elapsed() < Duration::from_millis(LATER));
        answer.send(()).unwrap();
        while hangs(path) {
            thread::yield_now();
        }
        let late = read(path, |_| panic!("a second thread")).unwrap();
        assert_eq!(late.0, "late");
        let anew = read(path, |_| Ok(("anew".to_owned(), 0o600))).unwrap();
        assert_eq!(anew.0, "anew");
    }
}
