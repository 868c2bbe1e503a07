//! Tables that earlier runs left in force.

use std::collections::BTreeSet;

use super::found::{self, Found};
use super::{Nft, Settings, TableName};
use crate::firewall::Error;

/// Removes tables that an earlier run of this installation left behind: every one with our mark that names
/// `instance` as its owner, and one called `configured` that names nobody, as earlier versions made it. The
/// table `keep`, those of other installations and those whose owner lives stay. Returns the names.
///
/// # Errors
/// [`Error::Permission`] without CAP_NET_ADMIN, and any other [`Error`].
pub fn remove_leftovers(
    keep: Option<&TableName>,
    configured: &TableName,
    instance: u32,
) -> Result<Vec<TableName>, Error> {
    let mut names = Nft::new(Settings {
        table: configured.clone(),
        ..Settings::default()
    });
    let marked = names.ask(|socket, _| found::marked_tables(socket));
    let marked = marked.map_err(|error| names.error("listing tables", error))?;
    let mut removed = Vec::new();
    // A name that the parameter does not accept is not ours, whatever its comment.
    let marked = marked.iter().filter_map(|name| name.parse().ok());
    for table in BTreeSet::from_iter(marked.chain([configured.clone()])) {
        if Some(&table) == keep {
            continue;
        }
        let mut nft = Nft::new(Settings {
            table: table.clone(),
            ..Settings::default()
        });
        let found = nft.inspect();
        let Found::Ours(ours) = found.map_err(|error| nft.error("looking at a table", error))?
        else {
            continue;
        };
        let left = match ours.owner {
            Some((owner, _)) => owner.instance == instance && !owner.lives(),
            None => table == *configured,
        };
        if left {
            nft.delete()
                .map_err(|error| nft.error("deleting a table", error))?;
            removed.push(table);
        }
    }
    Ok(removed)
}
