//! From the state file back into the tables, before the first packet.

use std::path::{Path, PathBuf};

use crate::address::Subnet;
use crate::config::Config;
use crate::feed::Saved;
use crate::shared::Shared;
use crate::state::{self, Ban, LoadError};
use crate::table::{Insert, Table};
use crate::{error, info, warning};

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
            let same_list = state.feed.as_ref().is_some_and(|saved| {
                config
                    .source()
                    .is_ok_and(|source| saved.belongs_to(&source))
            });
            let listed = if same_list {
                load_table(shared, &shared.feed, &state.listed, "max_feed_entries")
            } else {
                0
            };
            let local = load_table(shared, &shared.local, &state.local, "max_local_entries");
            if !same_list && !state.listed.is_empty() {
                info!(
                    "state_file {}: it holds another list, which is not used",
                    path.display()
                );
            }
            info!(
                "state_file {}: {listed} listed addresses and {local} local bans",
                path.display()
            );
            resumed.feed = state.feed.map(|saved| {
                if same_list && listed > 0 {
                    return saved;
                }
                // Only a full fetch makes the list whole; the service counts our requests all the same.
                Saved {
                    budget: saved.budget,
                    ..Saved::default()
                }
            });
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

/// Fills a table with what is still live, not trusted and bannable; returns how many.
fn load_table(shared: &Shared, table: &Table, bans: &[Ban], limit: &str) -> usize {
    let now = shared.now();
    let mut loaded = 0;
    for ban in bans.iter().filter(|ban| ban.end > now) {
        let Ok(subnet) = ban.ip.parse::<Subnet>() else {
            continue;
        };
        if subnet.never_bannable().is_some() || shared.trust.spares(subnet).is_some() {
            continue;
        }
        if table.insert(subnet, ban.end, ban.since, &ban.reason) == Insert::Full {
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

/// Removes from every table what is trusted by now; returns what was removed.
pub fn evict_trusted(shared: &Shared) -> Vec<Subnet> {
    let mut evicted = Vec::new();
    for table in [&shared.feed, &shared.local, &shared.peer] {
        table.retain(|subnet, _| {
            let spared = shared.trust.spares(subnet);
            if let Some(rule) = spared {
                info!("{subnet} is no longer banned: {rule}");
                evicted.push(subnet);
            }
            spared.is_none()
        });
    }
    evicted
}
