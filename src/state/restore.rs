//! From the state file back into the tables, before the first packet.

use std::path::{Path, PathBuf};

use crate::address::Subnet;
use crate::bans::MAX_TTL;
use crate::clock::WallOffset;
use crate::config::Config;
use crate::feed::Saved;
use crate::shared::origin::Origin;
use crate::shared::Shared;
use crate::state::{self, Ban, LoadError, State};
use crate::table::Inserted;
use crate::trust::NO_END;
use crate::{error, info, warning};

/// How far in seconds the service's clock may have been ahead of ours.
const MAX_SKEW: u32 = 300;

/// What the updater goes on from.
#[derive(Clone, Debug, Default)]
pub struct Resumed {
    /// Where the walk through the list stood.
    pub feed: Option<Saved>,
    /// Where the state is kept; `None` if it is not.
    pub state_file: Option<PathBuf>,
    /// The bans of the state file, also those that have ended by the clock of the start.
    pub saved: Vec<SavedBan>,
}

/// A ban of the state file.
#[derive(Clone, Debug)]
pub struct SavedBan {
    /// The table it belongs to.
    pub origin: Origin,
    subnet: Subnet,
    /// Wall-clock second at which it ends.
    end: u32,
    /// Wall-clock second at which it was placed.
    since: u32,
    reason: Box<str>,
    /// The end that this gave it in the table, in internal time; 0 if it seemed to be over.
    placed: u32,
}

impl SavedBan {
    /// Makes its internal end again after a step of the wall clock; true if that changed anything. A ban that was
    /// lifted or extended since the start stays as it is.
    pub fn settle(&mut self, shared: &Shared, config: &Config, offset: WallOffset) -> bool {
        let now = shared.now();
        let table = shared.table(self.origin);
        let latest = now.saturating_add(longest(self.origin, config));
        let end = u32::try_from(offset.internal(u64::from(self.end))).unwrap_or(u32::MAX);
        let end = end.clamp(1, latest);
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
        let since = offset.internal(u64::from(self.since)).min(u64::from(now)) as u32;
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
fn longest(origin: Origin, config: &Config) -> u32 {
    match origin {
        Origin::Feed => config.feed_ttl.saturating_add(MAX_SKEW),
        Origin::Local | Origin::Peer => MAX_TTL,
    }
}

fn is_bannable(shared: &Shared, subnet: Subnet) -> bool {
    subnet.never_bannable().is_none() && shared.trust.spares(subnet).is_none()
}

/// Loads the state file into the tables; whatever is wrong with it, the start goes on.
pub fn restore(config: &Config, shared: &Shared) -> Resumed {
    if config.state_file.is_empty() {
        return Resumed::default();
    }
    let path = PathBuf::from(&config.state_file);
    if !path.parent().is_some_and(Path::is_dir) {
        info!(
            "state_file {}: the directory does not exist, so no state is kept",
            path.display()
        );
        return Resumed::default();
    }
    let mut resumed = Resumed {
        state_file: Some(path.clone()),
        ..Resumed::default()
    };
    match state::load(&path) {
        Ok(None) => {}
        Ok(Some(state)) => {
            (resumed.feed, resumed.saved) = resume(config, shared, state);
            info!(
                "state_file {}: {} listed addresses and {} local bans",
                path.display(),
                shared.feed.len(),
                shared.local.len()
            );
        }
        Err(LoadError::Unreadable(error)) => error!(
            "state_file {}: {error}; starting without it",
            path.display()
        ),
        Err(LoadError::Damaged(problem)) => match state::put_aside(&path) {
            Ok(aside) => warning!(
                "state_file {}: {problem}; put aside as {}",
                path.display(),
                aside.display()
            ),
            Err(error) => warning!(
                "state_file {}: {problem}; it cannot be put aside: {error}",
                path.display()
            ),
        },
    }
    resumed
}

/// Fills the empty tables, at the start, when internal time is that of the wall clock; returns where the walk
/// through the list goes on, and the bans of the file.
pub fn resume(config: &Config, shared: &Shared, state: State) -> (Option<Saved>, Vec<SavedBan>) {
    // A file from the future: the clock is behind now, or it was ahead then. Either way each ban had at that time
    // the rest that the file says.
    let ahead = state.written.saturating_sub(u64::from(shared.now()));
    let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
    lend(shared, &state.trusted, ahead);
    let mut saved = Vec::new();
    let same_list = state.feed.as_ref().is_some_and(|saved| {
        config
            .source()
            .is_ok_and(|source| saved.belongs_to(&source))
    });
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
        if !state.listed.is_empty() {
            info!("state_file: it holds another list, which is not used");
        }
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
    (feed, saved)
}

/// Puts trust that an operator has lent in force again. `ahead` seconds are taken off each time of the file.
fn lend(shared: &Shared, loans: &[Ban], ahead: u32) {
    for loan in loans {
        let end = match loan.end {
            NO_END => NO_END,
            end => end.saturating_sub(ahead),
        };
        let Ok(subnet) = loan.ip.parse::<Subnet>() else {
            continue;
        };
        if end <= shared.now() {
            continue;
        }
        let since = loan.since.saturating_sub(ahead);
        if let Err(problem) = shared.trust.lend(subnet, end, since, &loan.reason) {
            warning!("state_file: {subnet} is not trusted: {problem}");
        }
    }
}

/// Fills a table with what is still live, not trusted and bannable; returns how many, and adds each ban that
/// may be live by another clock to `saved`. No ban is longer than it could be if it came now: the clock may
/// have been wrong when the file was written. `ahead` seconds are taken off each time of the file.
fn load_table(
    shared: &Shared,
    config: &Config,
    origin: Origin,
    bans: &[Ban],
    ahead: u32,
    saved: &mut Vec<SavedBan>,
) -> usize {
    let table = shared.table(origin);
    let now = shared.now();
    let latest = now.saturating_add(longest(origin, config));
    let mut loaded = 0;
    for ban in bans {
        let Ok(subnet) = ban.ip.parse::<Subnet>() else {
            continue;
        };
        if !is_bannable(shared, subnet) {
            let listed = origin == Origin::Feed && subnet.never_bannable().is_none();
            let end = ban.end.saturating_sub(ahead).min(latest);
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
            placed: 0,
        };
        // A ban from the future: the clock was ahead when it was placed, so its end is, too.
        let ahead = ahead.max(ban.since.saturating_sub(now));
        let end = ban.end.saturating_sub(ahead).min(latest);
        if end > now {
            let since = ban.since.saturating_sub(ahead);
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
            known.placed = end;
            loaded += 1;
        }
        saved.push(known);
    }
    loaded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    #[test]
    fn no_saved_ban_is_longer_than_a_new_one() {
        let config = Config::default();
        let shared = Shared::new(&mut HeapArena, &config, 1).unwrap();
        shared.set_now(1_000);
        let ban = |ip: &str| Ban {
            ip: ip.into(),
            end: u32::MAX,
            since: 900,
            reason: "a clock that was wrong".into(),
        };
        let state = State {
            feed: Some(Saved {
                source: config.source().unwrap().fingerprint(),
                ..Saved::default()
            }),
            written: 950,
            listed: vec![ban("192.0.2.1")],
            local: vec![ban("192.0.2.2")],
            trusted: Vec::new(),
        };
        assert!(resume(&config, &shared, state).0.is_some());
        let end = |table: &crate::table::Table, ip: &str| {
            table.find(ip.parse().unwrap()).unwrap().value()
        };
        assert_eq!(end(&shared.feed, "192.0.2.1"), 1_000 + 604_800 + MAX_SKEW);
        assert_eq!(end(&shared.local, "192.0.2.2"), 1_000 + MAX_TTL);
    }
}
