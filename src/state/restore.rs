//! From the state file back into the tables, before the first packet.

use std::path::{Path, PathBuf};

use crate::address::Subnet;
use crate::bans::MAX_TTL;
use crate::config::Config;
use crate::feed::Saved;
use crate::shared::Shared;
use crate::state::{self, Ban, LoadError, State};
use crate::table::{Inserted, Table};
use crate::{error, info, warning};

/// How far in seconds the service's clock may have been ahead of ours.
const MAX_SKEW: u32 = 300;

/// What the updater goes on from.
#[derive(Clone, Debug, Default)]
pub struct Resumed {
    /// Where the walk through the list stood.
    pub feed: Option<Saved>,
    /// Where the state is kept; `None` where it is not.
    pub state_file: Option<PathBuf>,
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
        feed: None,
        state_file: Some(path.clone()),
    };
    match state::load(&path) {
        Ok(None) => {}
        Ok(Some(state)) => {
            resumed.feed = resume(config, shared, state);
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

/// Fills the empty tables; returns where the walk through the list goes on.
pub fn resume(config: &Config, shared: &Shared, state: State) -> Option<Saved> {
    let same_list = state.feed.as_ref().is_some_and(|saved| {
        config
            .source()
            .is_ok_and(|source| saved.belongs_to(&source))
    });
    let listed = if same_list {
        let longest = config.feed_ttl.saturating_add(MAX_SKEW);
        let limit = "max_feed_entries";
        load_table(shared, &shared.feed, &state.listed, longest, limit)
    } else {
        if !state.listed.is_empty() {
            info!("state_file: it holds another list, which is not used");
        }
        0
    };
    let limit = "max_local_entries";
    load_table(shared, &shared.local, &state.local, MAX_TTL, limit);
    let saved = state.feed?;
    if listed > 0 {
        return Some(saved);
    }
    // Only a full fetch makes the list whole; the service counts our requests all the same.
    Some(Saved {
        budget: saved.budget,
        ..Saved::default()
    })
}

/// Fills a table with what is still live, not trusted and bannable; returns how many. No ban is longer
/// than it could be if it came now: the clock may have been wrong when the file was written.
fn load_table(shared: &Shared, table: &Table, bans: &[Ban], longest: u32, limit: &str) -> usize {
    let now = shared.now();
    let latest = now.saturating_add(longest);
    let mut loaded = 0;
    for ban in bans.iter().filter(|ban| ban.end > now) {
        let Ok(subnet) = ban.ip.parse::<Subnet>() else {
            continue;
        };
        if subnet.never_bannable().is_some() || shared.trust.spares(subnet).is_some() {
            continue;
        }
        let end = ban.end.min(latest);
        if table.insert(subnet, end, ban.since, &ban.reason) == Inserted::Full {
            warning!(
                "state_file: more entries than {limit} allows ({})",
                table.capacity()
            );
            break;
        }
        loaded += 1;
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
            since: u32::MAX,
            reason: "a clock that was wrong".into(),
        };
        let state = State {
            feed: Some(Saved {
                source: config.source().unwrap().fingerprint(),
                ..Saved::default()
            }),
            listed: vec![ban("192.0.2.1")],
            local: vec![ban("192.0.2.2")],
        };
        assert!(resume(&config, &shared, state).is_some());
        let end = |table: &Table, ip: &str| table.find(ip.parse().unwrap()).unwrap().value();
        assert_eq!(end(&shared.feed, "192.0.2.1"), 1_000 + 604_800 + MAX_SKEW);
        assert_eq!(end(&shared.local, "192.0.2.2"), 1_000 + MAX_TTL);
    }
}
