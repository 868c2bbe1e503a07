//! Real Kamailios that share their bans and the list over the dmq module.

mod attacks;
mod bans;
mod faults;
mod feed;
mod join;
mod stranger;

use std::net::Ipv4Addr;
use std::time::Duration;

use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::wait::wait_until;
use serde_json::Value;

/// For a busy machine; what is waited for comes much sooner.
const SOON: Duration = Duration::from_secs(25);
/// The secret of the test's nodes.
const SECRET: &str = "a secret for the nodes of a test";

/// How the nodes of a test talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// Node `number` of a cluster, that hears of the others through `first`.
fn node(number: u8, release: &Release, transport: Transport, first: Option<&Kamailio>) -> Builder {
    let address = Ipv4Addr::new(127, 0, 77, number);
    let (port, suffix) = match transport {
        Transport::Udp => ("@PORT@", ""),
        Transport::Tcp => ("@PORT@", ";transport=tcp"),
        Transport::Tls => ("@TLSPORT@", ";transport=tls"),
    };
    let mut builder = Kamailio::builder()
        .release(release)
        .address(address)
        .load("dmq")
        .modparam(
            "dmq",
            "server_address",
            format!("sip:{address}:{port}{suffix}"),
        )
        .modparam("dmq", "ping_interval", 5)
        .param("enable_dmq", 1)
        .param("cluster_secret_file", "@DIR@/secret")
        .file("secret", SECRET)
        // Loopback is all that tests have, so it is not trusted as such.
        .param("trust_self", 0)
        .param("trust_dmq", 0)
        .request_route(
            "if (is_method(\"KDMQ\")) { dmq_handle_message(); exit; }
             $var(found) = apiban_check();
             if ($var(found) > 0) { xlog(\"L_NOTICE\", \"check $si $var(found)\\n\"); exit; }",
        );
    if transport == Transport::Tls {
        builder = builder.tls();
    }
    if let Some(first) = first {
        builder = builder.modparam("dmq", "notification_address", uri(first, transport));
    }
    builder
}

/// The URI of a node on the bus.
fn uri(node: &Kamailio, transport: Transport) -> String {
    let address = node.listens_on();
    match transport {
        Transport::Udp => format!("sip:{address}:{}", node.port()),
        Transport::Tcp => format!("sip:{address}:{};transport=tcp", node.port()),
        Transport::Tls => format!("sip:{address}:{};transport=tls", node.tls_port()),
    }
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

/// Waits until every node has a session with every other.
#[track_caller]
fn wait_together(nodes: &[Kamailio]) {
    for node in nodes {
        wait_until("every node to know every other", SOON, || {
            listed(node)
                .iter()
                .filter(|other| other["state"] == "ok")
                .count()
                == nodes.len() - 1
        });
    }
}

/// `apiban.nodes`.
fn listed(node: &Kamailio) -> Vec<Value> {
    match node.ask("apiban.nodes", &[]) {
        Value::Array(nodes) => nodes,
        other => panic!("no list: {other}"),
    }
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

/// How many bans of other nodes a node has.
fn peer_entries(node: &Kamailio) -> u64 {
    node.statistic("apiban", "peer_entries")
}
