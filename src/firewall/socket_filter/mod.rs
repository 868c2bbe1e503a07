//! Bans on the server's own sockets: a program of classic BPF on each of them drops the packets of banned
//! sources before any process wakes. UDP sockets take it from every process, TCP sockets if the kernel allows it.
//!
//! A program has room for some thousands of addresses, no clock and no counter. So the sources with the most
//! hits go in; this backend takes each ban out before its time is over; the kernel counts the drops of a socket; and
//! one packet in some hundreds ([`sample`]) is let through, which shows whose they were. A program must not
//! outlive the process that keeps it up to date: see [`watchdog`].

mod assembler;
mod bans;
pub mod compile;
#[cfg(test)]
mod compile_tests;
mod fit;
#[cfg(test)]
mod interpret;
pub mod kernel;
pub mod ranges;
pub mod sample;
mod socket;
#[cfg(test)]
mod tests;
pub mod watchdog;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::runner::State as Health;
use super::{Change, Element, Error, Facts, Firewall, LogLine, Report, Scope, Shortfall};
use crate::address::Subnet;
use crate::log::Level;
use crate::sys::listening::ListeningSocket;
use crate::sys::socket_filter::LONGEST;
use bans::{Bans, Candidate, Rank};
use compile::Kind;
use fit::{concerns, fit, Fitted};
use kernel::Kernel;
use sample::Pace;
use socket::{Socket, State};

/// What the backend can do.
pub const FACTS: Facts = Facts {
    name: "socket_filter",
    ends_bans_itself: false,
    is_limited: true,
    scopes_by_port: true,
    knows_what_it_holds: true,
    default_scope: Scope::All,
};

/// The pause between two exchanges of the programs: a flood of bans is no flood of exchanges, and a ban is in
/// within a second.
pub const SWAP_INTERVAL: Duration = Duration::from_millis(500);

/// A ban is taken out so long before it ends, at least; an exchange may have to wait for [`SWAP_INTERVAL`].
const MARGIN: Duration = Duration::from_millis(1000);
/// The pause between two attempts on a socket that refused.
const RETRY: Duration = Duration::from_secs(30);
/// The memory that the operator allows a socket is read again after this pause.
const BUDGET_FOR: Duration = Duration::from_secs(5);
/// A socket that takes no program of this length takes none.
const SHORTEST_PROGRAM: usize = 16;

/// What is in the programs, readable from other threads.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<Arc<Programs>>>);

/// What is in the programs.
#[derive(Debug, Default)]
pub struct Programs {
    /// The bans that are in force on every socket that their packets can come to.
    pub bans: Vec<Subnet>,
    /// One packet in so many of theirs comes through; 0 if there are none.
    pub one_in: u32,
}

impl Held {
    /// What is in the programs now.
    pub fn get(&self) -> Arc<Programs> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, programs: Programs) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(programs);
    }
}

/// The backend.
pub struct SocketFilter {
    kernel: Box<dyn Kernel>,
    sockets: Vec<Socket>,
    bans: Bans,
    held: Held,
    /// Bans that packets to our sockets can meet.
    wanted: usize,
    /// When the first of the bans in the programs has to go.
    due: Option<Instant>,
    dropped: u64,
    pace: Pace,
    next_retry: Instant,
    notes: Vec<LogLine>,
    denial_told: bool,
    /// The longest program that the operator allows a socket, and when that was read.
    budget: usize,
    budget_read: Option<Instant>,
}

impl SocketFilter {
    /// For these sockets, as far as they are open here and of UDP or TCP.
    pub fn new(listening: Vec<ListeningSocket>, kernel: Box<dyn Kernel>) -> Self {
        SocketFilter {
            kernel,
            sockets: listening.into_iter().filter_map(Socket::new).collect(),
            bans: Bans::default(),
            held: Held::default(),
            wanted: 0,
            due: None,
            dropped: 0,
            pace: Pace::new(Instant::now()),
            next_retry: Instant::now(),
            notes: Vec::new(),
            denial_told: false,
            budget: 0,
            budget_read: None,
        }
    }

    /// A way to ask which bans are in the programs.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Brings every socket up to date with the bans.
    fn exchange(&mut self) {
        let now = Instant::now();
        let budget = self.budget(now);
        let sockets = &self.sockets;
        let concerned = |subnet: &Subnet| sockets.iter().any(|s| concerns(s.kind, subnet));
        let candidates = self.bans.candidates(now, concerned);
        self.wanted = candidates.len();
        let before: Vec<State> = self.sockets.iter().map(|s| s.state.clone()).collect();
        let mut fitted: HashMap<(Kind, usize), Fitted> = HashMap::new();
        let mut filtered: Vec<(Kind, Option<Rank>)> = Vec::new();
        let one_in = self.pace.one_in();
        let SocketFilter {
            sockets, kernel, ..
        } = self;
        for socket in sockets {
            let mut limit = socket.limit.min(budget);
            loop {
                let choice = fitted
                    .entry((socket.kind, limit))
                    .or_insert_with(|| fit(socket.kind, &candidates, limit, one_in));
                match socket.put(kernel.as_mut(), &choice.program) {
                    Ok(()) => break,
                    // Too much memory for this socket: half of it may do.
                    Err(_) if limit / 2 >= SHORTEST_PROGRAM => {
                        limit /= 2;
                        socket.limit = limit;
                    }
                    Err(error) => {
                        // A filter that cannot be brought up to date must not stay.
                        let _ = socket.release(kernel.as_mut());
                        socket.state = State::Refused(error.to_string());
                        break;
                    }
                }
            }
            if socket.is_filtered() {
                filtered.push((socket.kind, fitted[&(socket.kind, limit)].from));
            } else if socket.state != State::Denied {
                filtered.push((socket.kind, None));
            }
        }
        self.tell_changes(&before);
        self.note_held(&candidates, &filtered);
    }

    /// The longest program that a socket may have.
    fn budget(&mut self, now: Instant) -> usize {
        if self.budget_read.is_none_or(|read| now >= read + BUDGET_FOR) {
            self.budget_read = Some(now);
            let budget = fit::budget(self.kernel.option_memory());
            if std::mem::replace(&mut self.budget, budget) != budget {
                // The operator allows more or less: what a socket takes has to be tried again.
                for socket in &mut self.sockets {
                    socket.limit = LONGEST;
                }
            }
        }
        self.budget
    }

    /// Works out which bans are in force wherever their packets can come: on sockets of each kind, those of a rank and
    /// above. TCP sockets that the kernel allows no filter on do not count.
    fn note_held(&mut self, candidates: &[Candidate], filtered: &[(Kind, Option<Rank>)]) {
        let mut held = Vec::with_capacity(candidates.len());
        let mut first_end: Option<Instant> = None;
        for candidate in candidates {
            let (mut somewhere, mut everywhere) = (false, true);
            for (kind, from) in filtered {
                if concerns(*kind, &candidate.subnet) {
                    let is_in = from.is_some_and(|from| candidate.rank >= from);
                    somewhere |= is_in;
                    everywhere &= is_in;
                }
            }
            if somewhere {
                let end = candidate.end;
                first_end = Some(first_end.map_or(end, |first| first.min(end)));
            }
            if somewhere && everywhere {
                held.push(candidate.subnet);
            }
        }
        self.due = first_end.and_then(|end| end.checked_sub(MARGIN));
        self.held.set(Programs {
            bans: held,
            one_in: self.pace.one_in(),
        });
    }

    /// Adds a log line for each socket whose state changed.
    fn tell_changes(&mut self, before: &[State]) {
        for (socket, before) in self.sockets.iter().zip(before) {
            if socket.state == *before {
                continue;
            }
            let name = &socket.name;
            let line = match &socket.state {
                State::Free => (
                    Level::Info,
                    format!("socket filter: {name} has a filter again"),
                ),
                State::Denied if self.denial_told => continue,
                State::Denied => {
                    self.denial_told = true;
                    (
                        Level::Info,
                        "socket filter: on TCP and TLS sockets the kernel allows it with CAP_NET_ADMIN only: there \
                         apiban_check() alone turns banned sources away"
                            .to_owned(),
                    )
                }
                other => (
                    Level::Warn,
                    format!("socket filter: {name}: {}", why(other)),
                ),
            };
            self.notes.push(line);
        }
    }

    fn release_all(&mut self) -> Result<(), Error> {
        let mut problem = None;
        for socket in &mut self.sockets {
            if let Err(error) = socket.release(self.kernel.as_mut()) {
                problem = Some(format!("socket filter: {}: {error}", socket.name));
            }
        }
        self.held.set(Programs::default());
        self.due = None;
        problem.map_or(Ok(()), |text| Err(Error::Transient(text)))
    }
}

/// Why a socket has no filter.
fn why(state: &State) -> &str {
    match state {
        State::Free => "",
        State::Foreign => "another program's filter is on it, which is left alone: not filtered",
        State::Denied => "the kernel wants CAP_NET_ADMIN for a filter on it",
        State::Refused(text) => text,
    }
}

impl Drop for SocketFilter {
    fn drop(&mut self) {
        // Whatever ends the backend: nobody would end the bans.
        let _ = self.release_all();
    }
}

impl Firewall for SocketFilter {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.probe()?;
        self.bans.clear();
        self.release_all()
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        let now = Instant::now();
        for change in changes {
            match change {
                Change::Add(element) => self.bans.store(element, now),
                Change::Remove(subnet) => self.bans.remove(subnet),
            }
        }
        self.exchange();
        Ok(())
    }

    fn reconcile(&mut self, wanted: &[Element]) -> Result<Vec<Change>, Error> {
        self.bans.replace(wanted, Instant::now());
        self.exchange();
        Ok(Vec::new())
    }

    fn probe(&mut self) -> Result<(), Error> {
        if self.sockets.is_empty() {
            return Err(Error::Unsupported(
                "socket_filter: this server has no UDP or TCP socket that is open in the updater"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn intact(&mut self) -> Result<bool, Error> {
        let before: Vec<State> = self.sockets.iter().map(|s| s.state.clone()).collect();
        let mut lost = false;
        let mut again = Instant::now() >= self.next_retry;
        if again {
            self.next_retry = Instant::now() + RETRY;
        }
        for socket in &mut self.sockets {
            let intact = socket.is_intact(self.kernel.as_mut());
            match socket.state {
                State::Free => lost |= !intact,
                State::Foreign => again |= !intact,
                State::Denied | State::Refused(_) => {}
            }
        }
        self.tell_changes(&before);
        if again {
            // There may be more memory now.
            for socket in &mut self.sockets {
                socket.limit = LONGEST;
            }
        }
        let troubled = |socket: &Socket| matches!(socket.state, State::Refused(_) | State::Foreign);
        if !lost && again && self.sockets.iter().any(troubled) {
            self.exchange();
        }
        Ok(!lost)
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.bans.clear();
        self.release_all()
    }

    fn report(&mut self) -> Result<Report, Error> {
        for socket in &mut self.sockets {
            self.dropped += socket.new_drops(self.kernel.as_mut());
        }
        let now = Instant::now();
        if self.pace.follow(self.dropped, now) {
            self.due = Some(now);
        }
        Ok(Report {
            dropped: Some(self.dropped),
            elements: Some(self.held.get().bans.len() as u64),
            wanted: Some(self.wanted as u64),
        })
    }

    fn batch_size(&self) -> usize {
        // All that waits goes in with one exchange.
        usize::MAX
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn shortfall(&self) -> Option<Shortfall> {
        let usable = |socket: &&Socket| socket.state == State::Free;
        if self.sockets.iter().any(|s| s.state == State::Denied)
            && !self.sockets.iter().any(|s| usable(&s))
        {
            return Some((Health::NoPermission, why(&State::Denied).to_owned()));
        }
        let troubled = self
            .sockets
            .iter()
            .find(|s| !matches!(s.state, State::Free | State::Denied))?;
        Some((
            Health::Degraded,
            format!("{}: {}", troubled.name, why(&troubled.state)),
        ))
    }

    fn drain_notes(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.notes)
    }
}
