//! The thread round the backend: what it does next, and what it does about failures.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::queue::seconds_between;
use super::{Inner, Mailbox, Options, State, Stop};
use crate::firewall::{Change, Element, Error, Firewall, Shortfall};
use crate::log::Level;

/// Log lines that wait for the owner; more are dropped.
const MOST_LOGS: usize = 100;
/// Sources with hits that wait for the owner; more are not taken.
const MOST_HITS: usize = 65_536;
/// The same line is not written again within this time.
const SAME_LINE: Duration = Duration::from_secs(60);
/// Lines remembered for that.
const LINES_REMEMBERED: usize = 16;
/// The doublings of the pause after failures stop here, long after the longest pause is reached.
const MOST_DOUBLINGS: u32 = 16;

/// Where the thread stands.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The backend has to be made ready, not before this moment.
    Down(Instant),
    /// The backend is ready and waits for a refill.
    Waiting,
    /// Changes are applied as they come.
    Running,
}

/// What to do next.
#[derive(Debug)]
enum Task {
    End(Stop),
    Start,
    Refill(Vec<Element>, Instant),
    Apply(Vec<Change>),
    AskForRefill,
    Check,
}

/// The backend and what is known of it; lives on the thread.
pub struct Worker {
    inner: Arc<Inner>,
    backend: Box<dyn Firewall>,
    options: Options,
    wake: Box<dyn Fn() + Send>,
    phase: Phase,
    started: bool,
    /// Failures since firewall and tables last agreed.
    failures: u32,
    /// A refill is partly in the queue: the state is not yet ok.
    settling: bool,
    next_check: Instant,
    next_report: Instant,
    /// No change before this moment.
    next_apply: Instant,
    /// What the backend said last that it cannot do.
    shortfall: Option<Shortfall>,
    written: Vec<(String, Instant)>,
}

impl Worker {
    pub fn new(
        inner: Arc<Inner>,
        backend: Box<dyn Firewall>,
        options: Options,
        wake: Box<dyn Fn() + Send>,
    ) -> Self {
        let now = Instant::now();
        Worker {
            inner,
            backend,
            options,
            wake,
            phase: Phase::Down(now),
            started: false,
            failures: 0,
            settling: false,
            next_check: now,
            next_report: now,
            next_apply: now,
            shortfall: None,
            written: Vec::new(),
        }
    }

    /// Works until the owner ends it.
    pub fn run(mut self) {
        loop {
            let result = match self.next() {
                Task::End(stop) => return self.end(stop),
                Task::Start => self.start(),
                Task::Refill(wanted, read_at) => self.refill(&wanted, read_at),
                Task::Apply(changes) => self.apply(&changes),
                Task::AskForRefill => {
                    self.ask_for_refill();
                    Ok(())
                }
                Task::Check => self.check(),
            };
            let notes = self.backend.drain_notes();
            for (level, text) in notes {
                self.log(level, text);
            }
            let hits = self.backend.drain_hits();
            let mut mailbox = self.inner.lock();
            mailbox.status.skipped = self.backend.skipped();
            // The owner takes them every time it is woken. If it does not come, what is more is not kept.
            if mailbox.hits.len() < MOST_HITS {
                mailbox.hits.extend(hits);
            }
            drop(mailbox);
            if let Err(error) = result {
                self.failed(&error);
                continue;
            }
            if self.settled() {
                self.agreed();
            }
            self.follow_shortfall();
            if let Phase::Running = self.phase {
                self.inner.lock().status.seen_in_order = Some(Instant::now());
            }
        }
    }

    /// Waits for something to do.
    fn next(&mut self) -> Task {
        let inner = Arc::clone(&self.inner);
        let mut mailbox = inner.lock();
        loop {
            let now = Instant::now();
            let (task, until) = self.choose(&mut mailbox, now);
            if let Some(task) = task {
                return task;
            }
            mailbox = match until.map(|until| until.saturating_duration_since(now)) {
                Some(pause) => {
                    inner
                        .work
                        .wait_timeout(mailbox, pause)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => inner
                    .work
                    .wait(mailbox)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The next task, or until when to wait for one.
    fn choose(&self, mailbox: &mut Mailbox, now: Instant) -> (Option<Task>, Option<Instant>) {
        if let Some(stop) = mailbox.stop {
            return (Some(Task::End(stop)), None);
        }
        if let Phase::Down(until) = self.phase {
            return ((now >= until).then_some(Task::Start), Some(until));
        }
        let may_apply = now >= self.next_apply;
        if may_apply {
            if let Some((wanted, read_at)) = mailbox.refill.take() {
                return (Some(Task::Refill(wanted, read_at)), None);
            }
        }
        if let Phase::Waiting = self.phase {
            let until = mailbox.refill.is_some().then_some(self.next_apply);
            return (None, until);
        }
        if mailbox.wants_refill {
            // The queue overflowed.
            return (Some(Task::AskForRefill), None);
        }
        // Before the queue, which may never be empty.
        if now >= self.next_check {
            return (Some(Task::Check), None);
        }
        let due = self.backend.due();
        if !may_apply {
            let waits = mailbox.refill.is_some() || mailbox.queue.len() > 0 || due.is_some();
            let until = match waits {
                true => self.next_check.min(self.next_apply),
                false => self.next_check,
            };
            return (None, Some(until));
        }
        let changes = mailbox.queue.pop(self.backend.batch_size(), now);
        let is_due = due.is_some_and(|due| now >= due);
        let task = (is_due || !changes.is_empty()).then_some(Task::Apply(changes));
        let until = due.map_or(self.next_check, |due| due.min(self.next_check));
        (task, Some(until))
    }

    /// First contact, or the first after a failure.
    fn start(&mut self) -> Result<(), Error> {
        if self.options.flush_at_start && !self.started {
            self.call(|backend| backend.reset())?;
        } else {
            self.call(|backend| backend.probe())?;
        }
        self.started = true;
        self.phase = Phase::Waiting;
        if self.inner.lock().refill.is_none() {
            self.ask_for_refill();
        }
        Ok(())
    }

    fn ask_for_refill(&mut self) {
        self.phase = Phase::Waiting;
        self.inner.lock().wants_refill = true;
        (self.wake)();
    }

    fn refill(&mut self, wanted: &[Element], read_at: Instant) -> Result<(), Error> {
        let now = Instant::now();
        // The list may have waited for the end of an outage.
        let wanted: Vec<_> = wanted
            .iter()
            .map(|element| Element {
                seconds_left: read_at
                    .checked_add(Duration::from_secs(element.seconds_left.into()))
                    .map_or(u32::MAX, |end| seconds_between(now, end)),
                ..*element
            })
            .filter(|element| element.seconds_left > 0)
            .collect();
        let rest = self.call(|backend| backend.reconcile(&wanted))?;
        self.next_apply = Instant::now() + self.options.apply_interval;
        let mut mailbox = self.inner.lock();
        mailbox.status.refills += 1;
        for change in &rest {
            mailbox.queue.push_backlog(change, now);
        }
        drop(mailbox);
        self.settling = true;
        self.phase = Phase::Running;
        self.next_check = Instant::now() + self.options.check_interval;
        Ok(())
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.call(|backend| backend.apply(changes))?;
        self.next_apply = Instant::now() + self.options.apply_interval;
        self.inner.lock().status.applied += changes.len() as u64;
        Ok(())
    }

    fn check(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        self.next_check = now + self.options.check_interval;
        if !self.call(|backend| backend.intact())? {
            let name = self.backend.facts().name;
            let text = format!("firewall {name}: changed from outside, filling it again");
            self.log(Level::Warn, text);
            self.inner.lock().status.state = State::Degraded;
            self.settling = true;
            self.ask_for_refill();
        } else if now >= self.next_report {
            self.next_report = now + self.options.report_interval;
            let report = self.call(|backend| backend.report())?;
            let mut mailbox = self.inner.lock();
            mailbox.status.report = report;
            mailbox.status.reports += 1;
            drop(mailbox);
            // What the owner counts itself belongs to the same moment.
            (self.wake)();
        }
        Ok(())
    }

    /// True if a whole refill has just been applied.
    fn settled(&self) -> bool {
        let running = matches!(self.phase, Phase::Running);
        running && self.settling && self.inner.lock().queue.backlog() == 0
    }

    /// Firewall and ban tables agree again.
    fn agreed(&mut self) {
        self.settling = false;
        self.failures = 0;
        let mut mailbox = self.inner.lock();
        let before = std::mem::replace(&mut mailbox.status.state, State::Ok);
        drop(mailbox);
        // Said again if it is still so.
        self.shortfall = None;
        if before != State::Ok && self.backend.shortfall().is_none() {
            let text = format!(
                "firewall {}: in step with the ban tables",
                self.backend.facts().name
            );
            self.log(Level::Info, text);
        }
    }

    /// Takes over what the backend says that it cannot do.
    fn follow_shortfall(&mut self) {
        let shortfall = self.backend.shortfall();
        if shortfall == self.shortfall || !matches!(self.phase, Phase::Running) {
            return;
        }
        let mut mailbox = self.inner.lock();
        match &shortfall {
            Some((state, reason)) => {
                mailbox.status.state = *state;
                if mailbox.status.last_error.as_ref() != Some(reason) {
                    mailbox.status.errors += 1;
                    mailbox.status.last_error = Some(reason.clone());
                }
            }
            None if !self.settling => mailbox.status.state = State::Ok,
            None => {}
        }
        drop(mailbox);
        self.shortfall = shortfall;
    }

    fn failed(&mut self, error: &Error) {
        let first = self.failures == 0;
        let doubled = self
            .options
            .first_delay
            .saturating_mul(1 << self.failures.min(MOST_DOUBLINGS));
        let (state, level, delay) = match error {
            Error::Permission(_) => {
                let delay = self.options.hopeless_delay;
                (State::NoPermission, Level::Error, delay)
            }
            Error::Unsupported(_) => (State::Degraded, Level::Error, self.options.hopeless_delay),
            Error::Lost(_) if first => (State::Degraded, Level::Warn, Duration::ZERO),
            Error::Lost(_) | Error::Transient(_) => {
                let delay = doubled.min(self.options.longest_delay);
                (State::Degraded, Level::Warn, delay)
            }
        };
        self.failures = self.failures.saturating_add(1);
        self.settling = true;
        self.phase = Phase::Down(Instant::now() + delay);
        let mut mailbox = self.inner.lock();
        mailbox.status.errors += 1;
        mailbox.status.last_error = Some(error.to_string());
        let before = std::mem::replace(&mut mailbox.status.state, state);
        // What is queued of a refill is out of date; the next one brings it again.
        mailbox.queue.clear_backlog();
        drop(mailbox);
        if before != state {
            let later = match error {
                Error::Transient(_) => format!(
                    "; tried again, at the latest every {} s, and filled with all bans then",
                    self.options.longest_delay.as_secs()
                ),
                _ => String::new(),
            };
            self.log(level, format!("firewall {error}{later}"));
        }
    }

    fn end(mut self, stop: Stop) {
        let result = if stop.remove {
            self.call(|backend| backend.remove())
        } else {
            self.apply_the_rest(stop.deadline)
        };
        if let Err(error) = result {
            self.log(Level::Warn, format!("firewall at shutdown: {error}"));
        }
        let mut mailbox = self.inner.lock();
        mailbox.status.state = State::Off;
        mailbox.ended = true;
        drop(mailbox);
        self.inner.end.notify_all();
    }

    fn apply_the_rest(&mut self, deadline: Instant) -> Result<(), Error> {
        while let Phase::Running = self.phase {
            let now = Instant::now();
            let batch = self.backend.batch_size();
            let changes = self.inner.lock().queue.pop(batch, now);
            if changes.is_empty() || now >= deadline {
                break;
            }
            self.apply(&changes)?;
        }
        Ok(())
    }

    /// Calls the backend; a panic there is an error like others.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Firewall) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let backend = &mut *self.backend;
        // A backend that panicked is made ready and refilled before it is used again.
        catch_unwind(AssertUnwindSafe(|| call(backend))).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no text");
            Err(Error::Transient(format!("the backend panicked: {text}")))
        })
    }

    fn log(&mut self, level: Level, text: String) {
        let now = Instant::now();
        self.written
            .retain(|(_, at)| now.duration_since(*at) < SAME_LINE);
        if self.written.iter().any(|(known, _)| *known == text) {
            return;
        }
        if self.written.len() < LINES_REMEMBERED {
            self.written.push((text.clone(), now));
        }
        let mut mailbox = self.inner.lock();
        if mailbox.logs.len() < MOST_LOGS {
            mailbox.logs.push((level, text));
        }
        drop(mailbox);
        (self.wake)();
    }
}
