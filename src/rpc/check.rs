//! `apiban.check`: is this address or prefix banned, by whom, and until when?

use super::list::{describe, unbanned};
use super::{text, Arguments, Fault, Fields, Reply, Service};
use crate::address::Subnet;

/// `apiban.check ip`. For a prefix: what bans or trusts the whole of it, or how many bans are inside.
pub fn check(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let given = arguments.required(0, "ip")?;
    let subnet: Subnet = given
        .parse()
        .map_err(|error| Fault::argument("ip", error))?;
    Ok(Reply::Struct(verdict(service, subnet)))
}

fn verdict(service: &Service<'_>, subnet: Subnet) -> Fields {
    let shared = service.shared();
    let rule = if subnet.is_host() {
        shared.trust.rule(subnet.address())
    } else {
        // Also a part of it that is trusted spares it.
        shared.trust.spares(subnet)
    };
    if rule.is_some() {
        let reason = shared.trust.explain(subnet).unwrap_or_default();
        return with_reason(unbanned(subnet, "trusted"), &reason);
    }
    let now = shared.now();
    for (origin, table) in shared.tables() {
        let found = if subnet.is_host() {
            table.lookup(subnet.address(), now)
        } else {
            covering(subnet)
                .filter_map(|wider| table.find(wider))
                .find(|found| found.value() > now)
        };
        let Some(entry) = found.and_then(|found| table.entry(found)) else {
            continue;
        };
        let mut fields = describe(shared, &entry, origin);
        // The question was for this address; a wider prefix that covers it stands in the reason.
        if entry.subnet != subnet {
            fields[0] = text("ip", subnet.to_string());
            fields.pop();
            let reason = format!("{} {}", entry.subnet, entry.reason);
            return with_reason(fields, reason.trim_end());
        }
        return fields;
    }
    let fields = unbanned(subnet, "none");
    if subnet.is_host() {
        return with_reason(fields, "");
    }
    let mut inside = 0;
    for (_, table) in shared.tables() {
        table.for_each_live(now, |entry| {
            inside += u64::from(subnet.overlaps(&entry.subnet))
        });
    }
    let reason = match inside {
        0 => String::new(),
        1 => "1 ban inside".to_owned(),
        _ => format!("{inside} bans inside"),
    };
    with_reason(fields, &reason)
}

/// The prefix and every wider one, from the longest to the shortest.
pub fn covering(subnet: Subnet) -> impl Iterator<Item = Subnet> {
    (1..=subnet.prefix_len())
        .rev()
        .filter_map(move |length| Subnet::new(subnet.address(), length))
}

fn with_reason(mut fields: Fields, reason: &str) -> Fields {
    fields.push(text("reason", reason));
    fields
}
