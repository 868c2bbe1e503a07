//! The table of commands.

use super::{bans, check, cluster, list, reload, status, trust};
use super::{Command, Shape};

/// Every command.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "apiban.reload",
        help: "Read key and trust files again and start a full fetch; with \"force\" apply a shrunk list.",
        arguments: &["force"],
        returns: Shape::Line, run: reload::reload,
    },
    Command { name: "apiban.status", help: "State of feed, tables, trust and firewall.", arguments: &[], returns: Shape::Struct, run: status::status },
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
        returns: Shape::List, run: list::list,
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
        returns: Shape::List, run: list::top,
    },
    Command {
        name: "apiban.flush",
        help: "Empty a table: local, peer or feed; after peer a node's URI: its bans alone.",
        arguments: &["table", "node"],
        returns: Shape::Line, run: bans::flush,
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
