//! The table of commands and the short ones among them.

use super::{bans, check, cluster, listing, trust};
use super::{
    crop, crop_to, number, text, Arguments, Command, Fault, Fields, Reply, Service, Shape, Value,
};
use crate::config::{files, reading, Config};
use crate::feed::{ApiKey, FeedState};
use crate::firewall::runner::State;
use crate::notice;
use crate::shared::cluster::Ask;
use crate::shared::counters::Counter;
use crate::shared::origin::Origin;
use crate::shared::published::{Gauge, Number, Place, Text};
use crate::shared::requests::Request;
use crate::statistics::feed_age;

/// Every command.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "apiban.reload",
        help: "Read key and trust files again and start a full fetch; with \"force\" apply a shrunk list.",
        arguments: &["force"],
        returns: Shape::Line, run: reload,
    },
    Command { name: "apiban.status", help: "State of feed, tables, trust and firewall.", arguments: &[], returns: Shape::Struct, run: status },
    Command {
        name: "apiban.check",
        help: "Say whether an address is banned, by whom, until when, and why or why not.",
        arguments: &["ip"],
        returns: Shape::Struct, run: check::check,
    },
    Command {
        name: "apiban.list",
        help: "List bans: source (feed, local, peer, all), limit, offset.",
        arguments: &["source", "limit", "offset"],
        returns: Shape::List, run: listing::list,
    },
    Command {
        name: "apiban.block",
        help: "Ban an address or prefix: ip, ttl in seconds, reason.",
        arguments: &["ip", "ttl", "reason"],
        returns: Shape::Line, run: bans::block,
    },
    Command { name: "apiban.unblock", help: "Lift a ban, on every node of the cluster.", arguments: &["ip"], returns: Shape::Line, run: bans::unblock },
    Command {
        name: "apiban.top",
        help: "The banned sources with most hits, and the networks with most bans.",
        arguments: &["n"],
        returns: Shape::List, run: bans::top,
    },
    Command {
        name: "apiban.flush",
        help: "Empty a table: local, peer or feed; after peer a node's URI: its bans alone.",
        arguments: &["table", "node"],
        returns: Shape::Line, run: flush,
    },
    Command {
        name: "apiban.trust_add",
        help: "Trust an address or prefix: ip, ttl in seconds (none: until deleted), comment.",
        arguments: &["ip", "ttl", "comment"],
        returns: Shape::Line, run: trust::add,
    },
    Command {
        name: "apiban.trust_del",
        help: "End what apiban.trust_add gave: ip.",
        arguments: &["ip"],
        returns: Shape::Line, run: trust::delete,
    },
    Command {
        name: "apiban.trust_list",
        help: "List what is trusted and by which rule: limit, offset.",
        arguments: &["limit", "offset"],
        returns: Shape::List, run: trust::list,
    },
    Command {
        name: "apiban.nodes",
        help: "The nodes of the cluster, this one first.",
        arguments: &[],
        returns: Shape::List, run: cluster::nodes,
    },
];

fn reload(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
    let force = match arguments.get(0) {
        None => false,
        Some("force") => true,
        Some(other) => {
            return Err(Fault::argument(
                "force",
                format_args!("\"{}\" is not \"force\"", crop(other)),
            ))
        }
    };
    if let Err(fault) = check_files(service.config) {
        let files = [&service.config.api_key_file, &service.config.trust_file];
        if files.iter().any(|path| reading::hangs(path)) {
            // The updater takes them over once they can be read.
            service.ask(Request::Reload);
        }
        return Err(fault);
    }
    if force {
        service.shared().requests.ask(Request::Force);
        cluster::ask(service, Ask::Force);
    }
    cluster::ask(service, Ask::Reload);
    service.ask(Request::Reload);
    let hint = if service.config.trust_file.is_empty() {
        " (no trust_file is set)"
    } else {
        ""
    };
    Ok(Reply::Text(format!("Ok. Reload has begun.{hint}")))
}

/// Reads the files that the updater is about to read, so that whoever asks learns what is wrong with them.
fn check_files(config: &Config) -> Result<(), Fault> {
    let unusable = |problem: String| Fault {
        code: 500,
        // kamcmd shows the first 128 bytes of a fault.
        text: crop_to(&format!("nothing was changed: {problem}"), 240),
    };
    if let (ApiKey::Unusable(problem), _) = files::read_key(config) {
        return Err(unusable(problem));
    }
    let path = config.trust_file.as_str();
    if path.is_empty() {
        return Ok(());
    }
    files::read_trust_file(path).map_err(|error| unusable(format!("trust_file {error}")))?;
    // Together with the parameter `trust` it may be too long.
    files::read_trust(config).map_err(|error| unusable(error.to_string()))?;
    Ok(())
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
                text("last_error", shared.published.text(Text::TrustLastError)),
            ]),
        ),
        ("firewall", Value::Struct(firewall_status(service))),
        ("socket_filter", Value::Struct(filter_status(service))),
        ("cluster", Value::Struct(cluster::status(service))),
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
        (
            "state",
            Value::Struct(vec![
                text("file", config.state_file.as_str()),
                text("last_error", shared.published.text(Text::StateLastError)),
            ]),
        ),
    ]))
}

fn feed_status(service: &Service<'_>) -> Fields {
    let published = &service.shared().published;
    let offset = service.shared().wall_offset();
    let now = u64::from(service.shared().now());
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
        number("last_success_ago", feed_age(service.shared())),
        number(
            "next_poll_in",
            published.number(Number::FeedNextPoll).saturating_sub(now),
        ),
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

fn filter_status(service: &Service<'_>) -> Fields {
    let gauge = |gauge| {
        let published = &service.shared().published;
        published.gauge(Place::SocketFilter, gauge)
    };
    let mut fields = place_status(service, Place::SocketFilter);
    fields.extend([
        number("elements", gauge(Gauge::Elements)),
        number("of", gauge(Gauge::Wanted)),
    ]);
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

fn flush(service: &Service<'_>, arguments: &Arguments) -> Result<Reply, Fault> {
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
