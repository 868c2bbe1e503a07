//! The cluster: `apiban.nodes`, its part of `apiban.status`, and `apiban.flush peer NODE`.

use super::{crop, number, text, Arguments, Fault, Fields, Reply, Service};
use crate::clock::UnixSeconds;
use crate::shared::cluster::{Ask, Cluster, Number, ShownNode, SHOWN_NODES};
use crate::shared::Shared;
use crate::table::Entry;

/// Seconds after which the process of the cluster counts as stuck: in a name lookup, for example.
const STUCK_AFTER: u32 = 10;

/// `apiban.nodes`.
pub fn nodes(service: &Service<'_>, _: &Arguments) -> Result<Reply, Fault> {
    let Some(cluster) = &service.shared().cluster else {
        return Ok(Reply::List(Vec::new()));
    };
    let now = service.shared().now();
    let nodes = (0..SHOWN_NODES).filter_map(|n| ShownNode::read(cluster.node(n)));
    Ok(Reply::List(
        nodes.map(|node| describe(&node, now)).collect(),
    ))
}

fn describe(node: &ShownNode, now: UnixSeconds) -> Fields {
    vec![
        text("node", &node.uri),
        text("state", &node.state),
        text("role", &node.role),
        number("bans", node.bans),
        // A node that was never heard has no age.
        match node.heard {
            None => text("seen", "never"),
            Some(heard) => number("seen", now.seconds_since(heard)),
        },
        number("refused", node.refused),
        text("version", &node.version),
    ]
}

/// `cluster` of `apiban.status`.
pub fn status(service: &Service<'_>) -> Fields {
    let cluster = service.shared().cluster.as_ref();
    let of = |wanted| cluster.map_or(0, |cluster| cluster.number(wanted));
    vec![
        text("state", state(service, cluster)),
        number("nodes", of(Number::Nodes)),
        text(
            "fetcher",
            cluster.map_or(String::new(), |cluster| cluster.fetcher().get()),
        ),
        number("sent", of(Number::Sent)),
        number("received", of(Number::Received)),
        number("refused", of(Number::Refused) + of(Number::Dropped)),
    ]
}

fn state(service: &Service<'_>, cluster: Option<&Cluster>) -> &'static str {
    let Some(cluster) = cluster else {
        return "off";
    };
    let now = service.shared().now();
    let turned = cluster.time(Number::Turned);
    match cluster.number(Number::Nodes) {
        _ if turned.is_some_and(|at| now.seconds_since(at) > STUCK_AFTER) => "stuck",
        0 => "starting",
        1 => "alone",
        _ => "ok",
    }
}

/// Throws away the bans of one node.
pub fn flush_node(service: &Service<'_>, uri: &str) -> Result<Reply, Fault> {
    let unknown = || Fault {
        code: 404,
        text: format!(
            "node: no other node is called {}: see apiban.nodes",
            crop(uri)
        ),
    };
    let cluster = service.shared().cluster.as_ref().ok_or_else(unknown)?;
    let nodes = (1..SHOWN_NODES).filter_map(|n| ShownNode::read(cluster.node(n)));
    let node = nodes
        .into_iter()
        .find(|node| node.uri == uri)
        .ok_or_else(unknown)?;
    if !cluster.flush_node(uri) {
        return Err(Fault {
            code: 503,
            text: "too many commands wait".into(),
        });
    }
    service.bans.wake.wake_cluster();
    Ok(Reply::Text(format!(
        "Ok. {} bans of {uri} are being removed.",
        node.bans
    )))
}

/// Asks the process of the cluster for this, if there is one.
pub fn ask(service: &Service<'_>, what: Ask) {
    if let Some(cluster) = &service.shared().cluster {
        cluster.ask(what);
        service.bans.wake.wake_cluster();
    }
}

/// The node that made a ban of the table of peers; empty if it is gone.
pub fn node_of(shared: &Shared, entry: &Entry) -> String {
    let cluster = shared.cluster.as_ref();
    let node = cluster.and_then(|cluster| ShownNode::read(cluster.node(usize::from(entry.node))));
    node.filter(|_| entry.node != 0)
        .map_or(String::new(), |node| node.uri)
}
