//! From the state file back into the tables, before the first packet.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::file::remove_leftovers;
use super::loans::{self, SavedLoan};
use super::lock::{LockError, StateLock};
use super::other_lists;
use super::writer::StateFile;
use crate::address::Subnet;
use crate::bans::MAX_TTL;
use crate::clock::{UnixSeconds, WallOffset};
use crate::config::Config;
use crate::feed::control_id::MAX_SKEW;
use crate::feed::Saved;
use crate::quote::{foreign, plain};
use crate::shared::origin::Origin;
use crate::shared::Shared;
use crate::state::{self, Aside, Ban, LoadError, State};
use crate::table::{Inserted, FIRST_END};
use crate::{error, info, warning};

/// How often, and with which pause, a lock that another process has is tried again: a predecessor may be
/// about to end.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Longest name of a source that is logged, in characters.
const MAX_SOURCE: usize = 100;

/// What the updater goes on from.
#[derive(Clone, Debug, Default)]
pub struct Resumed {
    /// Where the walk through the list stood.
    pub feed: Option<Saved>,
    /// Where the state is kept; `None` if it is not.
    pub state_file: Option<StateFile>,
    /// What the state file said, also of what has ended by the clock of the start.
    pub saved: SavedEnds,
}

/// The ends of the state file, by the wall clock.
#[derive(Clone, Debug, Default)]
pub struct SavedEnds {
    /// Of bans.
    pub bans: Vec<SavedBan>,
    /// Of trust that was lent.
    pub loans: Vec<SavedLoan>,
}

/// A ban of the state file.
#[derive(Clone, Debug)]
pub struct SavedBan {
    /// The table it belongs to.
    pub origin: Origin,
    subnet: Subnet,
    /// Wall-clock second at which it ends.
    end: UnixSeconds,
    /// Wall-clock second at which it was placed.
    since: UnixSeconds,
    reason: Box<str>,
    /// The end that this gave it in the table, in internal time; 0 if it seemed to be over.
    placed: UnixSeconds,
}

impl SavedBan {
    /// Makes its internal end again after a step of the wall clock; true if that changed anything. A ban that was
    /// lifted or extended since the start stays as it is.
    pub fn settle(&mut self, shared: &Shared, config: &Config, offset: WallOffset) -> bool {
        let now = shared.now();
        let table = shared.table(self.origin);
        let latest = now + longest(self.origin, config);
        // A value of 0 has no place in the table.
        let end = offset.internal(self.end).clamp(FIRST_END, latest);
        match table.find(self.subnet) {
            Some(found) if found.value() == self.placed => {
                self.placed = end;
                return table.replace(self.subnet, end);
            }
            // It was lifted.
            None if self.placed > now => return false,
            _ => {}
        }
        if end <= now || !is_bannable(shared, self.subnet) {
            return false;
        }
        let since = offset.internal(self.since).min(now);
        match table.insert(self.subnet, end, since, &self.reason) {
            Inserted::New | Inserted::Extended => {
                self.placed = end;
                true
            }
            Inserted::Kept | Inserted::Full => false,
        }
    }
}

/// The longest that a ban of this origin can last from now, in seconds.
fn longest(origin: Origin, config: &Config) -> Duration {
    match origin {
        Origin::Feed => Duration::from_secs(config.feed_ttl.into()) + MAX_SKEW,
        Origin::Local | Origin::Peer => Duration::from_secs(MAX_TTL.into()),
    }
}

fn is_bannable(shared: &Shared, subnet: Subnet) -> bool {
    subnet.never_bannable().is_none() && shared.trust.spares(subnet).is_none()
}

/// Takes the state file for this program and loads it into the tables. Whatever is wrong with it, the
/// start goes on, and what cannot be used is never overwritten.
pub fn restore(config: &Config, shared: &Shared) -> Resumed {
    if config.state_file.is_empty() {
        return Resumed::default();
    }
    let path = PathBuf::from(&config.state_file);
    let name = path.display();
    if !path.parent().is_some_and(Path::is_dir) {
        info!(
            "state_file {name}: the directory does not exist, so no state is kept: after a restart the \
             list is fetched again, and local bans are lost"
        );
        return Resumed::default();
    }
    match lock(&path, &config.firewall_identity()) {
        Ok(lock) => restore_locked(config, shared, lock),
        Err(pid) => {
            warning!(
                "state_file {name}: process {pid} uses it, so this one keeps no state and reads none: \
                 give each its own state_file"
            );
            Resumed::default()
        }
    }
}

/// The same for a program that has taken the lock already, or for which there can be none.
pub fn restore_locked(config: &Config, shared: &Shared, lock: Option<StateLock>) -> Resumed {
    let path = PathBuf::from(&config.state_file);
    remove_leftovers(&path);
    let ((feed, saved), is_safe_to_write) = match state::load(&path) {
        Ok(None) => (resume_other(config, shared, &path, State::default()), true),
        Ok(Some(state)) => take_list(config, shared, &path, state),
        Err(LoadError::Unreadable(error)) => {
            (Loaded::default(), put_unreadable_aside(&path, &error))
        }
        Err(LoadError::Damaged(problem)) => (Loaded::default(), put_damaged_aside(&path, &problem)),
    };
    Resumed {
        feed,
        saved,
        state_file: is_safe_to_write.then_some(StateFile {
            path,
            lock: lock.map(Arc::new),
        }),
    }
}

/// Where the walk through the list goes on, and the ends of the file.
type Loaded = (Option<Saved>, SavedEnds);

/// Takes the lock; `None` if there can be none here.
///
/// # Errors
/// The ID of the process that has it.
fn lock(path: &Path, firewall: &str) -> Result<Option<StateLock>, u32> {
    let mut tries = 1;
    loop {
        match StateLock::take(path, firewall) {
            Ok(lock) => return Ok(Some(lock)),
            Err(LockError::Held(_)) if tries < LOCK_TRIES => {
                tries += 1;
                thread::sleep(LOCK_PAUSE);
            }
            Err(LockError::Held(holder)) => return Err(holder.pid),
            Err(LockError::Unusable(error)) => {
                // In a directory that cannot be written the state file cannot be either, which is told
                // when that is tried.
                if super::lock::path_of(path).exists() {
                    warning!(
                        "state_file {}: {}.lock: {}; a second program with this file would not be noticed",
                        path.display(),
                        path.display(),
                        plain(&error)
                    );
                }
                return Ok(None);
            }
        }
    }
}

/// True if the file may be written from now on.
fn put_unreadable_aside(path: &Path, error: &io::Error) -> bool {
    let name = path.display();
    let problem = plain(error);
    let aside = if path.is_file() {
        state::put_aside(path, Aside::Unreadable)
    } else {
        Err(io::Error::other("it stays where it is"))
    };
    match aside {
        Ok(aside) => {
            error!(
                "state_file {name}: {problem}; starting without it; it is kept as {}",
                aside.display()
            );
            true
        }
        Err(failure) => {
            error!(
                "state_file {name}: {problem}; starting without it; it is left as it is ({}), and no \
                 state is kept",
                plain(&failure)
            );
            false
        }
    }
}

/// True: a damaged file is worth nothing.
fn put_damaged_aside(path: &Path, problem: &str) -> bool {
    let name = path.display();
    match state::put_aside(path, Aside::Damaged) {
        Ok(aside) => warning!(
            "state_file {name}: {problem}; put aside as {}",
            aside.display()
        ),
        Err(error) => warning!(
            "state_file {name}: {problem}; it cannot be put aside: {}",
            plain(&error)
        ),
    }
    true
}

/// Fills the tables from the file, or with the list that was kept for the configured source. The second
/// value is true if the file may be written from now on.
fn take_list(config: &Config, shared: &Shared, path: &Path, state: State) -> (Loaded, bool) {
    let name = path.display();
    let wanted = fingerprint(config);
    let found = state.feed.as_ref().map(|saved| saved.source.clone());
    let mut is_safe = true;
    if found.as_deref() != Some(&wanted) && !state.listed.is_empty() {
        let of = found.unwrap_or_default();
        let of = foreign(&of, MAX_SOURCE);
        match other_lists::keep(path, &state, config.feed_ttl) {
            Ok(kept) => warning!(
                "state_file {name}: it holds the list of another api_url or dataset ({of}), which is \
                 not used; it is kept as {}",
                kept.display()
            ),
            Err(error) => {
                error!(
                    "state_file {name}: it holds the list of another api_url or dataset ({of}), which \
                     cannot be kept beside it: {}; it is left as it is, and no state is kept",
                    plain(&error)
                );
                is_safe = false;
            }
        }
    }
    let loaded = resume_other(config, shared, path, state);
    info!(
        "state_file {name}: read {} listed addresses and {} local bans",
        shared.feed.len(),
        shared.local.len()
    );
    (loaded, is_safe)
}

/// Fills the tables; if `state` holds the list of another source, with the list that was kept for the
/// configured one.
fn resume_other(config: &Config, shared: &Shared, path: &Path, mut state: State) -> Loaded {
    let wanted = fingerprint(config);
    let is_other = state
        .feed
        .as_ref()
        .is_none_or(|saved| saved.source != wanted);
    if is_other {
        if let Some(kept) = other_lists::bring_back(path, &mut state, &wanted) {
            info!("state_file: the list is taken from {}", kept.display());
        }
    }
    resume(config, shared, state)
}

/// The name of the configured list.
fn fingerprint(config: &Config) -> String {
    config
        .source()
        .map(|source| source.fingerprint())
        .unwrap_or_default()
}

/// Fills the empty tables, at the start, when internal time is that of the wall clock; returns where the walk
/// through the list goes on, and the ends of the file.
pub fn resume(config: &Config, shared: &Shared, state: State) -> Loaded {
    // A file from the future: the clock is behind now, or it was ahead then. Either way each ban had at that time
    // the rest that the file says.
    let ahead = state.written.since(shared.now());
    let loans = loans::restore(shared, &state.trusted, ahead);
    let mut saved = Vec::new();
    let same_list = state
        .feed
        .as_ref()
        .is_some_and(|saved| saved.source == fingerprint(config));
    let listed = if same_list {
        load_table(
            shared,
            config,
            Origin::Feed,
            &state.listed,
            ahead,
            &mut saved,
        )
    } else {
        0
    };
    load_table(
        shared,
        config,
        Origin::Local,
        &state.local,
        ahead,
        &mut saved,
    );
    let feed = state.feed.map(|feed| {
        if listed > 0 {
            return feed;
        }
        // Only a full fetch makes the list whole; the service counts our requests all the same.
        Saved {
            budget: feed.budget,
            ..Saved::default()
        }
    });
    (feed, SavedEnds { bans: saved, loans })
}

/// Fills a table with what is still live, not trusted and bannable; returns how many, and adds each ban that
/// may be live by another clock to `saved`. No ban is longer than it could be if it came now: the clock may
/// have been wrong when the file was written. `ahead` seconds are taken off each time of the file.
fn load_table(
    shared: &Shared,
    config: &Config,
    origin: Origin,
    bans: &[Ban],
    ahead: Duration,
    saved: &mut Vec<SavedBan>,
) -> usize {
    let table = shared.table(origin);
    let now = shared.now();
    let latest = now + longest(origin, config);
    let mut loaded = 0;
    for ban in bans {
        let Ok(subnet) = ban.ip.parse::<Subnet>() else {
            continue;
        };
        if !is_bannable(shared, subnet) {
            let listed = origin == Origin::Feed && subnet.never_bannable().is_none();
            let end = ban.end.before(ahead).min(latest);
            if listed && end > now {
                shared.trust.spared().insert(subnet, end, ban.since, "");
            }
            continue;
        }
        let mut known = SavedBan {
            origin,
            subnet,
            end: ban.end,
            since: ban.since,
            reason: ban.reason.as_str().into(),
            placed: UnixSeconds::ZERO,
        };
        // A ban from the future: the clock was ahead when it was placed, so its end is, too.
        let ahead = ahead.max(ban.since.since(now));
        let end = ban.end.before(ahead).min(latest);
        if end > now {
            let since = ban.since.before(ahead);
            if table.insert(subnet, end, since, &ban.reason) == Inserted::Full {
                let limit = match origin {
                    Origin::Feed => "max_feed_entries",
                    Origin::Local | Origin::Peer => "max_local_entries",
                };
                warning!(
                    "state_file: more entries than {limit} allows ({})",
                    table.capacity()
                );
                break;
            }
            if let Some(found) = table.find(subnet).filter(|_| ban.hits > 0) {
                table.add_hits(found, u64::from(ban.hits));
            }
            known.placed = end;
            loaded += 1;
        }
        saved.push(known);
    }
    loaded
}

#[cfg(test)]
mod tests;
