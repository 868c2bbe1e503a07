//! When the state file is written: soon after a change, but never so often that it fills a disk's time.
//!
//! A thread of its own encodes, writes and synchronises: a disk that hangs stops nothing else.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::lock::StateLock;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::feed::{HeldBack, Saved};
use crate::quote::plain;
use crate::shared::Shared;
use crate::state::{self, Ban, State};
use crate::table::Table;
use crate::trust::NO_END;
use crate::{error, notice, warning};

/// Shortest pause between two writes.
const PAUSE: Duration = Duration::from_secs(5);
/// Most bytes per second on average. A list and local bans of usual size have less than a megabyte; with
/// full tables of the default size this writes the file every two minutes.
const RATE: u64 = 250_000;
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(30);
/// A write that takes longer than this is logged.
const SLOW: Duration = Duration::from_secs(30);
/// How long the end of the program waits for the disk.
const LAST_WAIT: Duration = Duration::from_secs(8);

/// A state file that this program may write.
#[derive(Clone, Debug)]
pub struct StateFile {
    /// Its name.
    pub path: PathBuf,
    /// The lock on it; `None` if there can be none.
    pub lock: Option<Arc<StateLock>>,
}

/// The thread's answer: the bytes written.
type Written = io::Result<u64>;

struct Thread {
    jobs: Sender<State>,
    results: Receiver<Written>,
}

/// Keeps the state file.
pub struct StateWriter {
    file: Option<StateFile>,
    /// Makes the function that the thread calls after each write.
    waker: Box<dyn Fn() -> Box<dyn Fn() + Send>>,
    thread: Option<Thread>,
    changed: bool,
    /// Not written before this time.
    next: UnixMillis,
    /// Since when the thread has been writing.
    writing_since: Option<UnixMillis>,
    slow: bool,
    /// Why the last attempt failed; empty if it did not.
    last_error: String,
}

impl StateWriter {
    /// Keeps nothing if there is no file. `waker` is called in the thread after each write.
    pub fn new(file: Option<StateFile>, waker: impl Fn() + Clone + Send + 'static) -> Self {
        StateWriter {
            file,
            waker: Box::new(move || Box::new(waker.clone())),
            thread: None,
            changed: false,
            next: UnixMillis::ZERO,
            writing_since: None,
            slow: false,
            last_error: String::new(),
        }
    }

    /// Tells that the file is out of date.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// Why the file could not be written the last time; empty if it could.
    pub fn last_error(&self) -> &str {
        &self.last_error
    }

    /// When to call [`StateWriter::save_if_due`] next.
    pub fn due(&self, now: UnixMillis) -> UnixMillis {
        match (&self.file, self.writing_since, self.changed) {
            (None, _, _) => UnixMillis::MAX,
            // The waker tells when it is done; a disk that hangs is looked at.
            (_, Some(since), _) if !self.slow => (since + SLOW).max(now),
            (_, Some(_), _) | (_, None, false) => UnixMillis::MAX,
            (_, None, true) => self.next.max(now),
        }
    }

    /// Takes the result of the last write, and begins a new one if the file is out of date and the pause
    /// is over.
    pub fn save_if_due(&mut self, now: UnixMillis, state: impl FnOnce() -> State) {
        self.take_result(now);
        if let Some(since) = self.writing_since {
            self.warn_if_slow(now, since);
            return;
        }
        if self.file.is_some() && self.changed && self.next <= now {
            self.begin(now, state());
        }
    }

    /// The last write: waits for the one under way, then for one more if the file is out of date, but
    /// for eight seconds at most.
    pub fn end(&mut self, now: UnixMillis, state: impl FnOnce() -> State) {
        let deadline = Instant::now() + LAST_WAIT;
        if self.file.is_none() || !self.wait(now, deadline) {
            return;
        }
        if self.changed {
            self.begin(now, state());
            self.wait(now, deadline);
        }
    }

    /// Waits for a write that is under way: simulated time does not pass while the disk works.
    #[cfg(test)]
    pub fn wait_for_disk(&mut self) {
        if let Some(since) = self.writing_since {
            assert!(self.wait(since, Instant::now() + LAST_WAIT));
        }
    }

    fn begin(&mut self, now: UnixMillis, state: State) {
        if self.thread.is_none() {
            self.thread = self.start();
        }
        let sent = self
            .thread
            .as_ref()
            .is_some_and(|thread| thread.jobs.send(state).is_ok());
        if sent {
            self.changed = false;
            self.writing_since = Some(now);
            self.slow = false;
        } else {
            self.thread = None;
            self.ended(now, Err(io::Error::other("the system refuses a thread")));
        }
    }

    fn start(&self) -> Option<Thread> {
        let file = self.file.clone()?;
        let waker = (self.waker)();
        let (jobs, inbox) = mpsc::channel::<State>();
        let (outbox, results) = mpsc::channel();
        let run = move || {
            while let Ok(state) = inbox.recv() {
                if outbox.send(write(&file, &state)).is_err() {
                    return;
                }
                waker();
            }
        };
        let name = "apiban state".to_owned();
        thread::Builder::new().name(name).spawn(run).ok()?;
        Some(Thread { jobs, results })
    }

    fn take_result(&mut self, now: UnixMillis) {
        let Some(thread) = self
            .thread
            .as_ref()
            .filter(|_| self.writing_since.is_some())
        else {
            return;
        };
        match thread.results.try_recv() {
            Ok(result) => self.ended(now, result),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => self.lost(now),
        }
    }

    /// Waits until nothing is being written; false if it takes too long.
    fn wait(&mut self, now: UnixMillis, deadline: Instant) -> bool {
        let Some(thread) = self
            .thread
            .as_ref()
            .filter(|_| self.writing_since.is_some())
        else {
            return true;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match thread.results.recv_timeout(left) {
            Ok(result) => self.ended(now, result),
            Err(RecvTimeoutError::Disconnected) => self.lost(now),
            Err(RecvTimeoutError::Timeout) => {
                error!(
                    "state_file {}: the disk does not answer; what changed last is not saved",
                    self.name()
                );
                return false;
            }
        }
        true
    }

    fn lost(&mut self, now: UnixMillis) {
        self.thread = None;
        self.ended(now, Err(io::Error::other("the writing thread is gone")));
    }

    fn ended(&mut self, now: UnixMillis, result: Written) {
        self.writing_since = None;
        match result {
            Ok(bytes) => {
                self.next = now + pause(bytes);
                if !std::mem::take(&mut self.last_error).is_empty() || self.slow {
                    notice!("state_file {}: written again", self.name());
                }
            }
            Err(error) => {
                self.changed = true;
                self.next = now + RETRY;
                // Once, until it works again.
                let first = self.last_error.is_empty();
                self.last_error = explain(&error);
                if first {
                    error!(
                        "state_file {}: {}; going on without, trying again",
                        self.name(),
                        self.last_error
                    );
                }
            }
        }
    }

    fn warn_if_slow(&mut self, now: UnixMillis, since: UnixMillis) {
        if !self.slow && now.since(since) >= SLOW {
            self.slow = true;
            warning!(
                "state_file {}: writing it takes more than {} s; all else goes on",
                self.name(),
                SLOW.as_secs()
            );
        }
    }

    fn name(&self) -> String {
        let path = self.file.as_ref().map(|file| file.path.display());
        path.map(|path| path.to_string()).unwrap_or_default()
    }
}

/// The pause after a write of so many bytes.
fn pause(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1_000) / RATE).max(PAUSE)
}

fn write(file: &StateFile, state: &State) -> Written {
    if file.lock.as_ref().is_some_and(|lock| !lock.is_undisputed()) {
        return Err(io::Error::other("another process uses it by now"));
    }
    state::store(&file.path, state)
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "Permission denied: the user that runs this may not write in the directory".to_owned()
        }
        _ => plain(error),
    }
}

/// Everything that the state file holds, all times by the wall clock.
pub fn collect(shared: &Shared, feed: Saved) -> State {
    let (now, offset) = (shared.now(), shared.wall_offset());
    let bans = |table: &Table| {
        let mut bans = Vec::new();
        table.for_each_live(now, |entry| bans.push(Ban::new(entry, offset)));
        bans
    };
    // What trust spares is listed, too: it must come back when the trust ends after a restart.
    let mut listed = bans(&shared.feed);
    listed.extend(bans(shared.trust.spared()));
    let mut trusted = Vec::new();
    shared.trust.lent().for_each_live(now, |loan| {
        let has_end = loan.value != NO_END;
        let mut loan = Ban::new(loan, offset);
        if !has_end {
            loan.end = NO_END;
        }
        trusted.push(loan);
    });
    let wall = |time: Option<UnixSeconds>| time.map(|time| offset.wall(time));
    State {
        written: offset.wall(now),
        feed: Some(Saved {
            last_success: wall(feed.last_success),
            last_full: wall(feed.last_full),
            held: feed.held.map(|held| HeldBack {
                since: offset.wall(held.since),
                ..held
            }),
            budget: feed
                .budget
                .iter()
                .map(|&sent| offset.wall_ms(sent))
                .collect(),
            ..feed
        }),
        listed,
        trusted,
        local: bans(&shared.local),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::at_ms;

    fn writer(path: &std::path::Path) -> (StateWriter, Receiver<()>) {
        let (tell, told) = mpsc::channel();
        let file = StateFile {
            path: path.to_owned(),
            lock: None,
        };
        (
            StateWriter::new(Some(file), move || tell.send(()).unwrap_or(())),
            told,
        )
    }

    #[test]
    fn one_write_per_pause_and_the_last_one_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (mut writer, written) = writer(&path);
        let begins = |writer: &mut StateWriter, now| {
            let mut began = false;
            writer.save_if_due(now, || {
                began = true;
                State::default()
            });
            began
        };
        assert!(!begins(&mut writer, at_ms(1_000)));
        writer.changed();
        assert!(begins(&mut writer, at_ms(1_000)));
        // While it is written, nothing else begins; its end is what the pause counts from.
        writer.changed();
        assert!(!begins(&mut writer, at_ms(1_000_000)));
        written.recv().unwrap();
        if writer.writing_since.is_some() {
            writer.save_if_due(at_ms(1_000), || unreachable!("the pause is not over"));
        }
        let due = writer.due(at_ms(1_001));
        assert!(!begins(&mut writer, due.shifted(-1)));
        assert!(begins(&mut writer, due));
        written.recv().unwrap();
        writer.changed();
        std::fs::remove_file(&path).unwrap();
        writer.end(due.shifted(1), State::default);
        assert!(path.exists());
    }

    #[test]
    fn a_large_file_is_written_less_often() {
        assert_eq!(pause(100), PAUSE);
        assert_eq!(pause(RATE * 5), PAUSE);
        assert_eq!(pause(30_000_000), Duration::from_secs(120));
    }

    #[test]
    fn a_failure_is_retried_later() {
        let (mut writer, written) = writer("/nonexistent/folder/state".as_ref());
        writer.changed();
        writer.save_if_due(at_ms(1_000), State::default);
        written.recv().unwrap();
        writer.save_if_due(at_ms(2_000), State::default);
        assert_eq!(writer.due(at_ms(2_001)), at_ms(2_000) + RETRY);
    }

    #[test]
    fn a_write_that_hangs_is_told_and_does_not_hold_up_the_end() {
        let folder = tempfile::tempdir().unwrap();
        // A pipe in place of the directory's file would be renamed over; the thread itself must hang.
        let path = folder.path().join("state");
        let (mut writer, _written) = writer(&path);
        let (jobs, _keep) = mpsc::channel();
        let (_never, results) = mpsc::channel();
        writer.thread = Some(Thread { jobs, results });
        writer.changed();
        writer.save_if_due(at_ms(1_000), State::default);
        assert_eq!(writer.due(at_ms(2_000)), at_ms(1_000) + SLOW);
        writer.save_if_due(at_ms(1_000) + SLOW, || unreachable!("it is writing"));
        assert!(writer.slow);
        assert_eq!(writer.due(at_ms(40_000)), UnixMillis::MAX);
        assert!(!writer.wait(at_ms(40_000), Instant::now()));
    }
}
