//! `apiban.list`: bans, sorted by address, a page at a time; and `apiban.top`.

use std::cmp::Reverse;

use super::page::{part, Page};
use super::{cluster, crop, number, text, Arguments, Fault, Fields, Reply, Service};
use crate::address::Subnet;
use crate::shared::origin::Origin;
use crate::shared::Shared;
use crate::table::Entry;

/// Rows of `apiban.top` if no number is given, and the most.
const TOP: (u64, u64) = (20, 100);

/// One ban.
pub fn describe(shared: &Shared, entry: &Entry, origin: Origin) -> Fields {
    let now = shared.now();
    let since = shared.wall_offset().wall(entry.since);
    let mut fields = vec![
        text("ip", entry.subnet.to_string()),
        number("banned", 1u32),
        text("source", origin.name()),
        number("expires", entry.value.seconds_since(now)),
        number("since", since.get()),
        number("hits", entry.hits),
        text("reason", &entry.reason),
    ];
    if origin == Origin::Peer {
        fields.push(text("node", cluster::node_of(shared, entry)));
    }
    fields
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
    let wanted = match arguments.get(0) {
        None | Some("all") => None,
        Some(name) => Some(Origin::from_name(name).ok_or_else(|| {
            let problem = format!("\"{}\" is not feed, local, peer or all", crop(name));
            Fault::argument("source", problem)
        })?),
    };
    let page = Page::asked(arguments, 1)?;
    let now = service.shared().now();
    let mut bans: Vec<(Entry, Origin)> = Vec::new();
    for (origin, table) in service.shared().tables() {
        if wanted.is_none_or(|wanted| wanted == origin) {
            table.for_each_live(now, |entry| bans.push((entry, origin)));
        }
    }
    let order = |(entry, origin): &(Entry, Origin)| (entry.subnet, *origin);
    Ok(page.of(&mut bans, order, |(entry, origin)| {
        describe(service.shared(), entry, *origin)
    }))
}

/// `apiban.top [n]`.
pub fn top(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let rows = arguments.number(0, "n", TOP.0, 0..=TOP.1)? as usize;
    let now = service.shared().now();
    let mut bans: Vec<(Entry, Origin)> = Vec::new();
    let mut network_of_each: Vec<Subnet> = Vec::new();
    for (origin, table) in service.shared().tables() {
        table.for_each_live(now, |entry| {
            let length = if entry.subnet.is_v4() { 24 } else { 64 };
            let length = length.min(entry.subnet.prefix_len());
            network_of_each.extend(Subnet::new(entry.subnet.address(), length));
            if entry.hits > 0 {
                bans.push((entry, origin));
            }
        });
    }
    network_of_each.sort_unstable();
    let mut networks: Vec<(Subnet, usize)> = network_of_each
        .chunk_by(|a, b| a == b)
        .map(|same| (same[0], same.len()))
        .collect();
    let sources = part(&mut bans, 0, rows, |(entry, origin)| {
        (Reverse(entry.hits), entry.subnet, *origin)
    })
    .iter()
    .map(|(entry, origin)| describe(service.shared(), entry, *origin));
    let networks = part(&mut networks, 0, rows, |(network, count)| {
        (Reverse(*count), *network)
    })
    .iter()
    .map(|(network, count)| -> Fields {
        vec![
            text("network", network.to_string()),
            number("banned", *count as u64),
        ]
    });
    Ok(Reply::List(sources.chain(networks).collect()))
}
