//! `apiban.list`: bans, sorted by address, a page at a time.

use super::first::First;
use super::{crop, number, text, Arguments, Fault, Fields, Reply, Service};
use crate::address::Subnet;
use crate::shared::Shared;
use crate::table::{Entry, Table};

/// Entries that fit every transport: kamcmd takes 128 KiB and a JSON-RPC datagram 64 KiB, an entry with
/// the longest IPv6 prefix and the longest reason takes less than 250 bytes.
const MOST: u64 = 250;
const USUAL: u64 = 100;

/// The tables by the names they have in replies, in the order of the check.
pub fn tables(shared: &Shared) -> [(&'static str, &Table); 3] {
    [
        ("feed", &shared.feed),
        ("local", &shared.local),
        ("peer", &shared.peer),
    ]
}

/// One ban.
pub fn describe(entry: &Entry, source: &str, now: u32) -> Fields {
    vec![
        text("ip", entry.subnet.to_string()),
        number("banned", 1u32),
        text("source", source),
        number("expires", entry.value.saturating_sub(now)),
        number("since", entry.since),
        number("hits", entry.hits),
        text("reason", &entry.reason),
    ]
}

/// An address without a ban; the reason is to be added.
pub fn unbanned(subnet: Subnet, source: &str) -> Fields {
    vec![
        text("ip", subnet.to_string()),
        number("banned", 0u32),
        text("source", source),
        number("expires", 0u32),
        number("since", 0u32),
        number("hits", 0u32),
    ]
}

/// `apiban.list [source] [limit] [offset]`.
pub fn list(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let wanted = arguments.get(0).unwrap_or("all");
    if !["feed", "local", "peer", "all"].contains(&wanted) {
        let problem = format!("\"{}\" is not feed, local, peer or all", crop(wanted));
        return Err(Fault::argument("source", problem));
    }
    let limit = arguments.number(1, "limit", USUAL, u64::from(u32::MAX))?;
    let offset = arguments.number(2, "offset", 0, u64::from(u32::MAX))?;
    let now = service.shared.now();
    let mut bans = First::new((offset + limit.min(MOST)) as usize);
    let mut total = 0u64;
    for (rank, (name, table)) in tables(service.shared).into_iter().enumerate() {
        if wanted == "all" || wanted == name {
            table.for_each(|entry| {
                if entry.value > now {
                    total += 1;
                    bans.offer((entry.subnet, rank), (entry, name));
                }
            });
        }
    }
    let mut reply: Vec<Fields> = bans
        .in_order()
        .skip(offset as usize)
        .map(|(_, (entry, name))| describe(&entry, name, now))
        .collect();
    let next = offset + reply.len() as u64;
    if limit > MOST && next < total {
        reply.push(vec![
            text("cut", format!("an answer carries {MOST} entries at most")),
            number("next_offset", next),
            number("total", total),
        ]);
    }
    Ok(Reply::List(reply))
}
