//! `apiban.block`, `apiban.unblock` and `apiban.top`.

use std::cmp::Reverse;

use super::listing::{describe, page};
use super::{crop, number, text, Arguments, Fault, Fields, Reply, Service};
use crate::address::{parse_address, Subnet};
use crate::bans::{By, Order, Refusal, MAX_TTL};
use crate::shared::origin::Origin;
use crate::table::{Entry, Inserted};

/// Rows of `apiban.top` where no number is given, and the most.
const TOP: (u64, u64) = (20, 100);

/// An address as a source is banned (IPv6: its network), a prefix as it stands there.
fn subnet(service: &Service<'_>, given: &str) -> Result<Subnet, Fault> {
    if given.contains('/') {
        return given.parse().map_err(|error| Fault::argument("ip", error));
    }
    let ip = parse_address(given).map_err(|error| Fault::argument("ip", error))?;
    Ok(service.bans.source_subnet(ip))
}

/// `apiban.block ip [ttl] [reason]`.
pub fn block(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let subnet = subnet(service, arguments.required(0, "ip")?)?;
    let ttl = arguments.number(
        1,
        "ttl",
        u64::from(service.config.block_ttl),
        u64::from(MAX_TTL),
    )?;
    if ttl == 0 {
        return Err(Fault::argument("ttl", "0 is no time to ban"));
    }
    let order = Order {
        subnet,
        ttl: ttl as u32,
        reason: arguments.get(2).unwrap_or("rpc"),
        by: By::Operator,
    };
    match service.bans.block(order) {
        Ok(placed) => Ok(Reply::Text(match placed {
            Inserted::Kept => format!("Ok. {subnet} was banned for longer already."),
            Inserted::Extended => format!("Ok. The ban of {subnet} now ends in {ttl} seconds."),
            _ => format!("Ok. {subnet} is banned for {ttl} seconds."),
        })),
        Err(Refusal::Trusted(rule)) => Err(Fault {
            code: 403,
            text: format!(
                "{subnet} is trusted: {}",
                service
                    .shared()
                    .trust
                    .explain(subnet)
                    .unwrap_or_else(|| rule.to_string())
            ),
        }),
        Err(Refusal::Unbannable(why)) => {
            Err(Fault::argument("ip", format_args!("{subnet}: {why}")))
        }
        Err(Refusal::Full | Refusal::OverBudget) => Err(Fault {
            code: 507,
            text: format!(
                "the local table is full: max_local_entries is {}",
                service.config.max_local_entries
            ),
        }),
    }
}

/// `apiban.unblock ip`.
pub fn unblock(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let given = arguments.required(0, "ip")?;
    let lifted = match parse_address(given) {
        Ok(ip) => service.bans.unblock_source(ip),
        Err(_) => service.bans.unblock(subnet(service, given)?),
    };
    if !lifted {
        return Err(Fault {
            code: 404,
            text: format!("{} is not banned locally", crop(given)),
        });
    }
    Ok(Reply::Text(format!(
        "Ok. {} is no longer banned.",
        crop(given)
    )))
}

/// `apiban.top [n]`.
pub fn top(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let rows = arguments.number(0, "n", TOP.0, TOP.1)? as usize;
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
    let sources = page(&mut bans, 0, rows, |(entry, origin)| {
        (Reverse(entry.hits), entry.subnet, *origin)
    })
    .iter()
    .map(|(entry, origin)| describe(service.shared(), entry, *origin));
    let networks = page(&mut networks, 0, rows, |(network, count)| {
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
