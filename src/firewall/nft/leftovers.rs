//! Tables that earlier runs left in force.

use std::collections::BTreeSet;

use super::found::{self, Found};
use super::{Nft, Settings};
use crate::firewall::Error;

/// Removes tables that an earlier run of this installation left behind: every one with our mark that names
/// `instance` as its owner, and one called `configured` that names nobody, as earlier versions made it. The
/// table `keep`, those of other installations and those whose owner lives stay. Returns the names.
///
/// # Errors
/// [`Error::Permission`] without CAP_NET_ADMIN, and any other [`Error`].
pub fn remove_leftovers(
    keep: Option<&str>,
    configured: &str,
    instance: u32,
) -> Result<Vec<String>, Error> {
    let mut names = Nft::new(Settings {
        table: configured.to_owned(),
        ..Settings::default()
    })?;
    let marked = names.ask(|socket, _| found::marked_tables(socket));
    let marked = marked.map_err(|error| names.error("listing tables", error))?;
    let mut removed = Vec::new();
    for table in BTreeSet::from_iter(marked.into_iter().chain([configured.to_owned()])) {
        if Some(table.as_str()) == keep {
            continue;
        }
        let mut nft = Nft::new(Settings {
            table: table.clone(),
            ..Settings::default()
        })?;
        let found = nft.inspect();
        let Found::Ours(ours) = found.map_err(|error| nft.error("looking at a table", error))?
        else {
            continue;
        };
        let left = match ours.owner {
            Some((owner, _)) => owner.instance == instance && !owner.lives(),
            None => table == configured,
        };
        if left {
            nft.delete()
                .map_err(|error| nft.error("deleting a table", error))?;
            removed.push(table);
        }
    }
    Ok(removed)
}
