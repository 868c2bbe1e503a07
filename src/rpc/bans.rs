//! `apiban.block`, `apiban.unblock` and `apiban.flush`.

use super::check::covering;
use super::{cluster, crop, Arguments, Fault, Reply, Service};
use crate::address::{parse_address, Subnet};
use crate::bans::{By, Order, Refusal, MAX_TTL};
use crate::notice;
use crate::quote::foreign;
use crate::shared::cluster::Ask;
use crate::shared::origin::Origin;
use crate::shared::requests::Request;
use crate::table::Inserted;

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

/// `apiban.flush table [node]`.
pub fn flush(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let shared = service.shared();
    let name = arguments.required(0, "table")?;
    let origin = Origin::from_name(name).ok_or_else(|| {
        Fault::argument(
            "table",
            format_args!("\"{}\" is not feed, local or peer", crop(name)),
        )
    })?;
    match (origin, arguments.get(1)) {
        (Origin::Peer, Some(node)) => return cluster::flush_node(service, node),
        (_, Some(_)) => return Err(Fault::argument("node", "only after peer")),
        _ => {}
    }
    let removed = shared.table(origin).retain(|_, _| false);
    match origin {
        Origin::Peer => cluster::ask(service, Ask::FlushedPeers),
        Origin::Local => cluster::ask(service, Ask::FlushedLocal),
        Origin::Feed => cluster::ask(service, Ask::ListChanged),
    }
    service.ask(Request::Flushed(origin));
    notice!("flush {}: {removed} bans removed by RPC", origin.name());
    Ok(Reply::Text(format!("Ok. {removed} entries removed.")))
}
