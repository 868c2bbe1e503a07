//! The table of commands and the short ones among them.

use super::{bans, listing, trust};
use super::{crop, number, text, Arguments, Command, Fault, Fields, Reply, Service, Value};
use crate::address::{parse_address, Subnet};
use crate::feed::FeedState;
use crate::firewall::runner::State;
use crate::shared::counters::Counter;
use crate::shared::origin::Origin;
use crate::shared::published::{Gauge, Number, Place, Text};
use crate::shared::requests::Request;

/// Every command.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "apiban.reload",
        help: "Read key and trust files again and start a full fetch; with \"force\" apply a shrunk list.",
        arguments: &["force"],
        run: reload,
    },
    Command { name: "apiban.status", help: "State of feed, tables, trust and firewall.", arguments: &[], run: status },
    Command {
        name: "apiban.check",
        help: "Say whether an address is banned, by whom, until when, and why or why not.",
        arguments: &["ip"],
        run: check_ip,
    },
    Command {
        name: "apiban.list",
        help: "List bans: source (feed, local, peer, all), limit, offset.",
        arguments: &["source", "limit", "offset"],
        run: listing::list,
    },
    Command {
        name: "apiban.block",
        help: "Ban an address or prefix: ip, ttl in seconds, reason.",
        arguments: &["ip", "ttl", "reason"],
        run: bans::block,
    },
    Command { name: "apiban.unblock", help: "Lift a local ban.", arguments: &["ip"], run: bans::unblock },
    Command {
        name: "apiban.top",
        help: "The banned sources with most hits, and the networks with most bans.",
        arguments: &["n"],
        run: bans::top,
    },
    Command { name: "apiban.flush", help: "Empty a table: local, peer or feed.", arguments: &["table"], run: flush },
    Command {
        name: "apiban.trust_add",
        help: "Trust an address or prefix: ip, ttl in seconds (none: until deleted), comment.",
        arguments: &["ip", "ttl", "comment"],
        run: trust::add,
    },
    Command {
        name: "apiban.trust_del",
        help: "End what apiban.trust_add gave: ip.",
        arguments: &["ip"],
        run: trust::delete,
    },
    Command {
        name: "apiban.trust_list",
        help: "List what is trusted and by which rule: limit, offset.",
        arguments: &["limit", "offset"],
        run: trust::list,
    },
];

fn reload(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    match arguments.get(0) {
        None => {}
        Some("force") => service.shared().requests.ask(Request::Force),
        Some(other) => {
            return Err(Fault::argument(
                "force",
                format_args!("\"{}\" is not \"force\"", crop(other)),
            ))
        }
    }
    service.ask(Request::Reload);
    Ok(Reply::Text("Ok. Reload has begun.".into()))
}

fn status(service: &Service<'_>, _: &Arguments) -> Result<Reply, Fault> {
    let (shared, config) = (service.shared(), service.config);
    let (prefixes, automatic) = shared.trust.count();
    Ok(Reply::Struct(vec![
        text("version", env!("CARGO_PKG_VERSION")),
        text("kamailio", service.kamailio),
        ("feed", Value::Struct(feed_status(service))),
        (
            "local",
            Value::Struct(vec![
                number("entries", shared.local.len() as u64),
                number("capacity", shared.local.capacity() as u64),
            ]),
        ),
        (
            "trust",
            Value::Struct(vec![
                number("prefixes", prefixes as u64),
                number("automatic", automatic as u64),
            ]),
        ),
        ("firewall", Value::Struct(firewall_status(service))),
        (
            "blocked",
            Value::Struct(
                Origin::ALL
                    .map(|origin| {
                        number(origin.name(), shared.counters.sum(Counter::blocked(origin)))
                    })
                    .to_vec(),
            ),
        ),
        text(
            "mode",
            if config.mode == crate::config::Mode::Observe {
                "observe"
            } else {
                "enforce"
            },
        ),
    ]))
}

fn feed_status(service: &Service<'_>) -> Fields {
    let published = &service.shared().published;
    let offset = service.shared().wall_offset();
    // 0 says that there is none.
    let wall = |time| match published.number(time) {
        0 => 0,
        time => offset.wall(time),
    };
    vec![
        text("dataset", service.config.dataset.as_str()),
        number("entries", service.shared().feed.len() as u64),
        text("id", published.text(Text::FeedId)),
        text(
            "state",
            FeedState::from_number(published.number(Number::FeedState)).as_str(),
        ),
        number("last_success", wall(Number::FeedLastSuccess)),
        text("last_error", published.text(Text::FeedLastError)),
        number("next_poll", wall(Number::FeedNextPoll)),
        number("requests", published.number(Number::FeedRequests)),
        number("pages", published.number(Number::FeedPages)),
        number("refused", published.number(Number::FeedRefused)),
        text("control_id", published.text(Text::FeedId)),
        text("waiting_for", published.text(Text::FeedWaitingFor)),
    ]
}

fn firewall_status(service: &Service<'_>) -> Fields {
    let backend = match service.config.firewall.facts() {
        Some(facts) => facts.name,
        None => "none",
    };
    let mut fields = vec![text("backend", backend)];
    fields.extend(place_status(service, Place::Firewall));
    fields
}

/// What every place that drops packets tells.
fn place_status(service: &Service<'_>, place: Place) -> Fields {
    let published = &service.shared().published;
    let gauge = |gauge| published.gauge(place, gauge);
    vec![
        text("state", State::from_number(gauge(Gauge::State)).name()),
        number("queued", gauge(Gauge::Queued)),
        number("errors", gauge(Gauge::Errors)),
        number("dropped", gauge(Gauge::Dropped)),
        text("last_error", published.text(place.error())),
    ]
}

fn check_ip(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let given = arguments.required(0, "ip")?;
    let ip = parse_address(given).map_err(|error| Fault::argument("ip", error))?;
    let shared = service.shared();
    if shared.trust.rule(ip).is_some() {
        let rule = shared.trust.explain(Subnet::host(ip));
        let mut fields = listing::unbanned(Subnet::host(ip), "trusted");
        fields.push(text("reason", rule.unwrap_or_default()));
        return Ok(Reply::Struct(fields));
    }
    let now = shared.now();
    for (origin, table) in shared.tables() {
        if let Some(entry) = table.lookup(ip, now).and_then(|found| table.entry(found)) {
            let mut fields = listing::describe(shared, &entry, origin);
            // The question was for the address; a prefix that covers it stands in the reason.
            if !entry.subnet.is_host() {
                fields[0] = text("ip", ip.to_string());
                fields.pop();
                let reason = format!("{} {}", entry.subnet, entry.reason);
                fields.push(text("reason", reason.trim_end()));
            }
            return Ok(Reply::Struct(fields));
        }
    }
    let mut fields = listing::unbanned(Subnet::host(ip), "none");
    fields.push(text("reason", ""));
    Ok(Reply::Struct(fields))
}

fn flush(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let shared = service.shared();
    let name = arguments.required(0, "table")?;
    let origin = Origin::from_name(name).ok_or_else(|| {
        Fault::argument(
            "table",
            format_args!("\"{}\" is not feed, local or peer", crop(name)),
        )
    })?;
    let removed = shared.table(origin).retain(|_, _| false);
    service.ask(Request::Flushed(origin));
    Ok(Reply::Text(format!("Ok. {removed} entries removed.")))
}
