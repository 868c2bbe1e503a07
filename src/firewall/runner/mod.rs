//! Gives a backend a thread of its own: the process that bans puts a change into a queue and goes on.
//!
//! The owner keeps the ban tables, which are the truth, and does four things: it sends every change
//! after making it in the tables; when woken it asks [`Runner::needs_refill`] and, if so, reads the
//! tables and hands everything to [`Runner::refill`]; it prints what [`Runner::drain_logs`] gives; and it
//! ends with [`Runner::shutdown`]. Whenever the backend failed, was found changed from outside or could
//! not keep up, the runner asks for a refill, so an error costs a moment and never the agreement.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::queue::Queue;
use super::{Change, Element, Firewall, LogLine, Report};

mod queue;
mod worker;

/// How a runner behaves; the defaults suit Kamailio.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// True: begin with an empty firewall. False: keep what an earlier run left until the first refill
    /// replaces it (if the backend can do that).
    pub flush_at_start: bool,
    /// New changes that may wait; with more of them the queue is dropped and a refill asked for.
    pub queue_capacity: usize,
    /// Pause between two looks whether somebody changed our state.
    pub check_interval: Duration,
    /// Pause between two readings of the backend's report.
    pub report_interval: Duration,
    /// Shortest time between two calls that change something, for a backend to which many changes cost as much as
    /// one. The first change after a pause goes at once.
    pub apply_interval: Duration,
    /// Pause after a first failure; doubled with each further one.
    pub first_delay: Duration,
    /// Longest pause after failures.
    pub longest_delay: Duration,
    /// Pause after an error that only an operator can mend.
    pub hopeless_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            flush_at_start: true,
            queue_capacity: 65_536,
            check_interval: Duration::from_secs(1),
            report_interval: Duration::from_secs(5),
            apply_interval: Duration::ZERO,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(30),
            hopeless_delay: Duration::from_secs(60),
        }
    }
}

/// How the firewall is doing, as shown by RPC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Not in use, or ended.
    #[default]
    Off,
    /// The first refill is not through yet.
    Starting,
    /// Firewall and ban tables agree, but for what is queued.
    Ok,
    /// Something failed; the runner is at it.
    Degraded,
    /// CAP_NET_ADMIN is missing.
    NoPermission,
}

impl State {
    /// Every state, in the order of its number.
    const ALL: [State; 5] = [
        State::Off,
        State::Starting,
        State::Ok,
        State::Degraded,
        State::NoPermission,
    ];

    /// The state with this number; unknown numbers are [`State::Off`].
    pub fn from_number(number: u64) -> Self {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        State::ALL.get(index).copied().unwrap_or_default()
    }

    /// The word in `apiban.status`.
    pub fn name(self) -> &'static str {
        match self {
            State::Off => "off",
            State::Starting => "starting",
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::NoPermission => "no_permission",
        }
    }
}

/// A snapshot for RPC and statistics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Name of the backend; empty if there is none.
    pub backend: &'static str,
    /// How it is doing.
    pub state: State,
    /// Changes that wait.
    pub queued: usize,
    /// Failed calls of the backend since the start.
    pub errors: u64,
    /// Changes that the backend could not express or would not take.
    pub skipped: u64,
    /// Changes applied since the start, without those of a refill that the backend takes in one step.
    pub applied: u64,
    /// Refills since the start; 1 is the normal number.
    pub refills: u64,
    /// Text of the latest error.
    pub last_error: Option<String>,
    /// The backend's last report, some seconds old.
    pub report: Report,
    /// How often the report was read.
    pub reports: u64,
    /// When the thread last found the backend in order, or brought it there.
    pub seen_in_order: Option<Instant>,
}

/// What owner and thread hand each other. The lock is held for moments only, never during a backend's call.
#[derive(Debug, Default)]
struct Mailbox {
    queue: Queue,
    refill: Option<(Vec<Element>, Instant)>,
    wants_refill: bool,
    stop: Option<Stop>,
    ended: bool,
    status: Status,
    logs: Vec<LogLine>,
    hits: Vec<(IpAddr, u64)>,
}

/// How to end.
#[derive(Debug, Clone, Copy)]
struct Stop {
    remove: bool,
    deadline: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    mailbox: Mutex<Mailbox>,
    /// There is something to do for the thread.
    work: Condvar,
    /// The thread has ended.
    end: Condvar,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        // No code panics while it holds the lock; were it so, the data would still be whole.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A backend at work. Dropping it ends the thread without waiting for it.
#[derive(Debug)]
pub struct Runner {
    inner: Arc<Inner>,
    options: Options,
}

impl Runner {
    /// Starts the thread. It has the caller's network namespace and signal mask: block signals first
    /// where the process handles them elsewhere. `wake` is called from the thread whenever a refill is
    /// needed, there are log lines, or the report was read; it must return at once.
    ///
    /// # Errors
    /// That of the system where it has no thread to give.
    pub fn spawn(
        backend: Box<dyn Firewall>,
        options: Options,
        wake: Box<dyn Fn() + Send>,
    ) -> io::Result<Runner> {
        let inner = Arc::new(Inner::default());
        inner.lock().status = Status {
            backend: backend.facts().name,
            state: State::Starting,
            ..Status::default()
        };
        let worker = worker::Worker::new(Arc::clone(&inner), backend, options, wake);
        thread::Builder::new()
            .name("apiban firewall".to_owned())
            .spawn(move || worker.run())?;
        Ok(Runner { inner, options })
    }

    /// Hands over a change that the ban tables already hold. Takes about a microsecond, whatever the
    /// backend is doing.
    pub fn send(&self, change: Change) {
        let now = Instant::now();
        let mut mailbox = self.inner.lock();
        mailbox.queue.push(&change, now);
        if mailbox.queue.urgent() > self.options.queue_capacity {
            mailbox.queue.clear();
            mailbox.wants_refill = true;
        }
        drop(mailbox);
        self.inner.work.notify_one();
    }

    /// True if the runner waits for [`refill`](Runner::refill).
    pub fn needs_refill(&self) -> bool {
        self.inner.lock().wants_refill
    }

    /// Hands over all that should be banned, as the tables hold it now. To be called by the thread that
    /// sends changes, at any time. Changes that were sent before are dropped: the tables have them, and one of a ban
    /// that was lifted with its whole table must not come after the refill.
    pub fn refill(&self, wanted: Vec<Element>) {
        let mut mailbox = self.inner.lock();
        mailbox.refill = Some((wanted, Instant::now()));
        mailbox.wants_refill = false;
        mailbox.queue.clear();
        drop(mailbox);
        self.inner.work.notify_one();
    }

    /// A snapshot of how it goes.
    pub fn status(&self) -> Status {
        let mailbox = self.inner.lock();
        let waiting = mailbox
            .refill
            .as_ref()
            .map_or(0, |(wanted, _)| wanted.len());
        Status {
            queued: mailbox.queue.len() + waiting,
            ..mailbox.status.clone()
        }
    }

    /// Log lines since the last call, oldest first: changes of state only, at most 100 are kept.
    pub fn drain_logs(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.inner.lock().logs)
    }

    /// Packets of single sources that the kernel dropped since the last call.
    pub fn drain_hits(&self) -> Vec<(IpAddr, u64)> {
        std::mem::take(&mut self.inner.lock().hits)
    }

    /// Ends the thread: with `remove` all that is ours is taken away, without it what waits is still
    /// applied. Returns within `limit`, true if all was done by then; a backend that hangs is left
    /// behind.
    pub fn shutdown(self, remove: bool, limit: Duration) -> bool {
        let now = Instant::now();
        let deadline = now.checked_add(limit).unwrap_or(now);
        let mut mailbox = self.inner.lock();
        mailbox.stop = Some(Stop { remove, deadline });
        self.inner.work.notify_one();
        while !mailbox.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            mailbox = self
                .inner
                .end
                .wait_timeout(mailbox, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let mut mailbox = self.inner.lock();
        if mailbox.stop.is_none() {
            let deadline = Instant::now();
            mailbox.stop = Some(Stop {
                remove: false,
                deadline,
            });
        }
        drop(mailbox);
        self.inner.work.notify_one();
    }
}
