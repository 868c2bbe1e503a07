//! Nodes of a cluster: Kamailios on loopback addresses that share bans and list over the dmq module.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use crate::kamailio::{Builder, Kamailio, Release};
use crate::wait::wait_until;

/// The secret of all nodes.
pub const SECRET: &str = "a secret for the nodes of a test";
/// How long nodes may take to find each other: for a busy machine, it comes much sooner.
const SOON: Duration = Duration::from_secs(25);

/// How the nodes talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// Node `number` of a cluster, that hears of the others through `first`: 127.0.77.`number`.
pub fn node(
    number: u8,
    release: &Release,
    transport: Transport,
    first: Option<&Kamailio>,
) -> Builder {
    let of_module = on_bus(Kamailio::builder(), number, release, transport, first);
    of_module
        .param("enable_dmq", 1)
        .param("cluster_secret_file", "@DIR@/secret")
        .file("secret", SECRET)
        // Loopback is all that tests have, so it is not trusted as such.
        .param("trust_self", 0)
        .param("trust_dmq", 0)
}

/// Any Kamailio on the bus; its request route must hand KDMQ requests to dmq.
pub fn on_bus(
    builder: Builder,
    number: u8,
    release: &Release,
    transport: Transport,
    first: Option<&Kamailio>,
) -> Builder {
    let address = Ipv4Addr::new(127, 0, 77, number);
    let (port, suffix) = match transport {
        Transport::Udp => ("@PORT@", ""),
        Transport::Tcp => ("@PORT@", ";transport=tcp"),
        Transport::Tls => ("@TLSPORT@", ";transport=tls"),
    };
    let mut builder = builder
        .release(release)
        .address(address)
        .dmq(&format!("sip:{address}:{port}{suffix}"))
        .modparam("dmq", "ping_interval", 5);
    if transport == Transport::Tls {
        builder = builder.tls();
    }
    if let Some(first) = first {
        builder = builder.modparam("dmq", "notification_address", uri(first, transport));
    }
    builder
}

/// The URI of a node on the bus.
pub fn uri(node: &Kamailio, transport: Transport) -> String {
    let address = node.listens_on();
    match transport {
        Transport::Udp => format!("sip:{address}:{}", node.port()),
        Transport::Tcp => format!("sip:{address}:{};transport=tcp", node.port()),
        Transport::Tls => format!("sip:{address}:{};transport=tls", node.tls_port()),
    }
}

/// `apiban.nodes`; empty until the node has looked around for the first time.
#[track_caller]
pub fn listed(node: &Kamailio) -> Vec<Value> {
    match node.ask("apiban.nodes", &[]) {
        Value::Array(nodes) => nodes,
        Value::Null => Vec::new(),
        Value::Object(fields) if fields.is_empty() => Vec::new(),
        other => panic!("no list: {other}"),
    }
}

/// How many bans of other nodes a node has.
#[track_caller]
pub fn peer_entries(node: &Kamailio) -> u64 {
    node.statistic("apiban", "peer_entries")
}

/// Waits until every node has a session with every other.
#[track_caller]
pub fn wait_together(nodes: &[Kamailio]) {
    for node in nodes {
        wait_until("every node to know every other", SOON, || {
            let nodes_there = listed(node);
            let there = nodes_there.iter().filter(|other| other["state"] == "ok");
            there.count() == nodes.len() - 1
        });
    }
}

/// The numbers of the nodes that fetch the list.
#[track_caller]
pub fn fetchers(nodes: &[Kamailio]) -> Vec<usize> {
    let fetches = |node: &Kamailio| listed(node)[0]["role"] == "fetcher";
    (0..nodes.len())
        .filter(|index| fetches(&nodes[*index]))
        .collect()
}

/// Drops, in the network namespace of the caller, everything between these nodes and the others; until [`heal`].
pub fn cut(nodes: &[&Kamailio], others: &[&Kamailio]) {
    let mut rules =
        String::from("table ip cut {\nchain in {\ntype filter hook input priority 0;\n");
    for node in nodes {
        for other in others {
            for (a, b) in [(node, other), (other, node)] {
                let (a, b) = (a.listens_on(), b.listens_on());
                rules.push_str(&format!("ip saddr {a} ip daddr {b} drop\n"));
            }
        }
    }
    rules.push_str("}\n}\n");
    nft(&rules);
}

/// Ends what [`cut`] began.
pub fn heal() {
    nft("delete table ip cut\n");
}

/// Loads nft rules in the network namespace of the caller.
pub fn nft(rules: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rules");
    std::fs::write(&file, rules).expect("rules");
    let done = std::process::Command::new("nft")
        .arg("-f")
        .arg(&file)
        .status()
        .expect("nft");
    assert!(done.success(), "{rules}");
}
