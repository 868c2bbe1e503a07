//! The lists of other sources: a typing error in `api_url` or `dataset` must not cost the saved list.
//!
//! If the state file holds the list of another source, that list is kept as `FILE.list-XXXXXXXX`, where
//! the digits stand for the source, and comes back as soon as the source does.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{beside, remove_old};
use super::{load, store, State};
use crate::feed::Saved;

/// The name of a list's file ends with this and eight hexadecimal digits.
const PREFIX: &str = "list-";

/// Keeps the list in `state` for its source; returns the name of the file. A list whose entries have all
/// ended, `feed_ttl` seconds after it was written, goes.
///
/// # Errors
/// The file cannot be written.
pub fn keep(path: &Path, state: &State, feed_ttl: u32) -> io::Result<PathBuf> {
    remove_old(path, PREFIX, Duration::from_secs(u64::from(feed_ttl)));
    let source = state
        .feed
        .as_ref()
        .map_or("", |saved| saved.source.as_str());
    let name = name_of(path, source);
    let list = State {
        written: state.written,
        feed: state.feed.clone(),
        listed: state.listed.clone(),
        local: Vec::new(),
        trusted: Vec::new(),
    };
    store(&name, &list)?;
    Ok(name)
}

/// Puts the list of `source` (its fingerprint) into `state`, if one was kept; returns the name of its
/// file. The requests that `state` counts stay.
pub fn bring_back(path: &Path, state: &mut State, source: &str) -> Option<PathBuf> {
    let name = name_of(path, source);
    let kept = load(&name).ok().flatten()?;
    let saved = kept.feed.filter(|saved| saved.source == source)?;
    let budget = state.feed.take().map_or(Vec::new(), |saved| saved.budget);
    state.feed = Some(Saved { budget, ..saved });
    state.listed = kept.listed;
    state.written = state.written.max(kept.written);
    Some(name)
}

fn name_of(path: &Path, source: &str) -> PathBuf {
    let digits = crc32fast::hash(source.as_bytes());
    beside(path, &format!("{PREFIX}{digits:08x}"))
}
