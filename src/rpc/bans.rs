//! `apiban.block`, `apiban.unblock` and `apiban.top`.

use std::cmp::Reverse;

use super::check::covering;
use super::listing::{describe, page};
use super::{number, text, Arguments, Fault, Fields, Reply, Service};
use crate::address::{parse_address, Subnet};
use crate::bans::{By, Order, Refusal, MAX_TTL};
use crate::notice;
use crate::quote::foreign;
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
        1..=u64::from(MAX_TTL),
    )?;
    let order = Order {
        subnet,
        ttl: ttl as u32,
        reason: arguments.get(2).unwrap_or("rpc"),
        by: By::Operator,
    };
    match service.bans.block(order) {
        Ok(placed) => {
            let reason = foreign(order.reason, 56);
            notice!("{subnet} banned for {ttl} s by RPC: {reason}");
            Ok(Reply::Text(match placed {
                Inserted::Kept => format!("Ok. {subnet} was banned for longer already."),
                Inserted::Extended => format!("Ok. The ban of {subnet} now ends in {ttl} seconds."),
                _ => format!("Ok. {subnet} is banned for {ttl} seconds."),
            }))
        }
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
    let subnet: Subnet = given
        .parse()
        .map_err(|error| Fault::argument("ip", error))?;
    let lifted = if subnet.is_host() {
        service.bans.unblock_source(subnet.address())
    } else {
        service.bans.unblock(subnet)
    };
    let left = still_banned(service, subnet);
    if !lifted {
        return Err(Fault {
            code: 404,
            text: format!(
                "{subnet} is not banned locally{}",
                left.map_or_else(String::new, |left| format!("; {left}"))
            ),
        });
    }
    notice!("{subnet} unbanned by RPC");
    Ok(Reply::Text(match left {
        None => format!("Ok. {subnet} is no longer banned."),
        Some(left) => format!("Ok. The local ban of {subnet} is lifted; {left}"),
    }))
}

/// What else bans this address or prefix, and what an operator can do about it.
fn still_banned(service: &Service<'_>, subnet: Subnet) -> Option<String> {
    let shared = service.shared();
    let now = shared.now();
    if shared.trust.spares(subnet).is_some() {
        return None;
    }
    for wider in covering(subnet) {
        let bans = |origin| {
            let found = shared.table(origin).find(wider);
            found.is_some_and(|found| found.value() > now)
        };
        if bans(Origin::Feed) {
            let file = service.config.trust_file.as_str();
            return Some(if file.is_empty() {
                "it is on APIBAN's list: add it to the parameter trust and restart Kamailio (no trust_file is set)".to_owned()
            } else {
                format!(
                    "it is on APIBAN's list: add it to trust_file ({file}) and run apiban.reload"
                )
            });
        }
        if wider != subnet && (bans(Origin::Local) || bans(Origin::Peer)) {
            return Some(format!(
                "it is covered by the local ban {wider}: apiban.unblock {wider}"
            ));
        }
    }
    None
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
