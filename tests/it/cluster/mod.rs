//! Real Kamailios that share their bans and the list over the dmq module.

mod attacks;
mod bans;
mod faults;
mod feed;
mod join;
mod stranger;

use std::time::Duration;

use apiban_testing::cluster::{self, listed, peer_entries, uri, wait_together, Transport, SECRET};
use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::wait::wait_until;

/// For a busy machine; what is waited for comes much sooner.
const SOON: Duration = Duration::from_secs(25);

/// Node `number` of a cluster, which says what it found of each source.
fn node(number: u8, release: &Release, transport: Transport, first: Option<&Kamailio>) -> Builder {
    cluster::node(number, release, transport, first).request_route(
        "if (is_method(\"KDMQ\")) { dmq_handle_message(); exit; }
         $var(found) = apiban_check();
         if ($var(found) > 0) { xlog(\"L_NOTICE\", \"check $si $var(found)\\n\"); exit; }",
    )
}

/// `count` nodes of these releases in turn, which know each other.
fn cluster(releases: &[Release], count: u8, transport: Transport) -> Vec<Kamailio> {
    let mut nodes: Vec<Kamailio> = Vec::new();
    for (number, release) in (1..=count).zip(releases.iter().cycle()) {
        let started = node(number, release, transport, nodes.first()).start();
        nodes.push(started);
    }
    wait_together(&nodes);
    nodes
}

/// `source` of `apiban.check`.
fn source(node: &Kamailio, ip: &str) -> String {
    node.verdict(ip)["source"]
        .as_str()
        .expect("a source")
        .to_owned()
}

#[track_caller]
fn wait_source(node: &Kamailio, ip: &str, wanted: &str) {
    wait_until(
        &format!("{ip} to be {wanted} at {}", node.listens_on()),
        SOON,
        || source(node, ip) == wanted,
    );
}
