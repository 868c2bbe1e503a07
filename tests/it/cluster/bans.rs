//! A ban on one node is in force on all, and so is its end.

use apiban_testing::kamailio::{Kamailio, Release};
use apiban_testing::wait::wait_until;
use serde_json::json;

use super::{cluster, listed, node, peer_entries, source, uri, wait_source, Transport, SOON};

#[test]
fn a_ban_is_everywhere_and_lifted_by_anybody_in_mixed_releases() {
    let nodes = cluster(&Release::all(), 4, Transport::Udp);
    let first = &nodes[0];
    first.ask("apiban.block", &["127.0.0.66", "600", "flood"]);
    first.ask("apiban.block", &["198.51.100.0/24", "600"]);
    first.ask("apiban.block", &["2001:db8:1::7", "600"]);
    for other in &nodes[1..] {
        wait_source(other, "127.0.0.66", "peer");
        wait_source(other, "198.51.100.77", "peer");
        wait_source(other, "2001:db8:1::99", "peer");
        let verdict = other.verdict("127.0.0.66");
        assert_eq!(verdict["node"], json!(uri(first, Transport::Udp)));
        assert_eq!(verdict["reason"], "flood");
        let left = verdict["expires"].as_u64().expect("a time");
        assert!((500..=600).contains(&left), "{left}");
        // The check answers 3 and the packet is dropped.
        other.assert_dropped("127.0.0.66");
        other.wait_for_log("check 127.0.0.66 3", SOON);
        wait_until("the number of bans of the first node", SOON, || {
            let first = uri(first, Transport::Udp);
            listed(other)
                .iter()
                .any(|node| node["node"] == first && node["bans"] == 3)
        });
    }
    assert_eq!(source(first, "127.0.0.66"), "local");
    // Another node bans it for longer: the longer end counts there.
    nodes[1].ask("apiban.block", &["127.0.0.66", "3000"]);
    wait_until("the longer end", SOON, || {
        nodes[2].verdict("127.0.0.66")["expires"].as_u64() > Some(2000)
    });
    // Lifted by a node that made none of the bans.
    nodes[3].ask("apiban.unblock", &["127.0.0.66"]);
    for node in &nodes {
        wait_source(node, "127.0.0.66", "none");
    }
    assert_eq!(
        nodes[3]
            .kamcmd(&["apiban.unblock", "127.0.0.66"])
            .unwrap_err()
            .code,
        404
    );
    // Banned anew it is banned.
    nodes[2].ask("apiban.block", &["127.0.0.66", "60"]);
    wait_source(first, "127.0.0.66", "peer");
}

#[test]
fn the_bans_of_one_node_are_thrown_away() {
    let nodes = cluster(&[Release::Host], 3, Transport::Udp);
    nodes[0].ask("apiban.block", &["192.0.2.1", "600"]);
    nodes[0].ask("apiban.block", &["192.0.2.2", "600"]);
    nodes[1].ask("apiban.block", &["192.0.2.2", "600"]);
    nodes[1].ask("apiban.block", &["192.0.2.3", "600"]);
    let third = &nodes[2];
    // One of them is banned by both: what is still on its way would be a new ban after the flush.
    for maker in &nodes[..2] {
        let of_maker = uri(maker, Transport::Udp);
        wait_until("two bans of a node", SOON, || {
            listed(third)
                .iter()
                .any(|node| node["node"] == of_maker.as_str() && node["bans"] == 2)
        });
    }
    let unknown = third
        .kamcmd(&["apiban.flush", "peer", "sip:192.0.2.9"])
        .unwrap_err();
    assert_eq!(unknown.code, 404);
    third.ask("apiban.flush", &["peer", &uri(&nodes[0], Transport::Udp)]);
    wait_source(third, "192.0.2.1", "none");
    assert_eq!(source(third, "192.0.2.2"), "peer");
    third.ask("apiban.flush", &["peer"]);
    wait_until("an empty table", SOON, || peer_entries(third) == 0);
    // New bans are taken.
    nodes[0].ask("apiban.block", &["192.0.2.4", "600"]);
    wait_source(third, "192.0.2.4", "peer");
    assert_eq!(
        peer_entries(third),
        1,
        "{}",
        third.ask("apiban.list", &["peer"])
    );
    // What the maker throws away is gone everywhere.
    nodes[0].ask("apiban.flush", &["local"]);
    wait_source(third, "192.0.2.4", "none");
}

#[test]
fn tcp_and_tls_carry_bans_too() {
    // The module tls of this machine's release is not installed everywhere.
    let roots = Release::roots();
    let of_tls: Vec<(Release, Transport)> = roots
        .into_iter()
        .map(|release| (release, Transport::Tls))
        .collect();
    for (release, transport) in [(Release::Host, Transport::Tcp)].into_iter().chain(of_tls) {
        let nodes = cluster(&[release], 2, transport);
        nodes[0].ask("apiban.block", &["192.0.2.1", "600"]);
        wait_source(&nodes[1], "192.0.2.1", "peer");
        nodes[1].ask("apiban.unblock", &["192.0.2.1"]);
        wait_source(&nodes[0], "192.0.2.1", "none");
    }
}

#[test]
fn without_a_secret_or_the_bus_the_start_ends_with_the_reason() {
    let log = node(1, &Release::Host, Transport::Udp, None)
        .param("cluster_secret_file", "/nonexistent/secret")
        .expect_start_failure();
    assert!(
        log.contains("cluster_secret_file /nonexistent/secret"),
        "{log}"
    );
    let log = node(1, &Release::Host, Transport::Udp, None)
        .file("secret", "short")
        .expect_start_failure();
    assert!(
        log.contains("cluster_secret_file") && !log.contains("short\""),
        "{log}"
    );
    let log = Kamailio::builder()
        .dmq("sip:127.0.0.1:@PORT@")
        .param("enable_dmq", 1)
        .expect_start_failure();
    assert!(
        log.contains("cluster_secret_file") && log.contains("api_key"),
        "{log}"
    );
    let log = Kamailio::builder()
        .param("enable_dmq", 1)
        .param("api_key", "0123456789abcdef")
        .expect_start_failure();
    assert!(
        log.contains("enable_dmq") && log.contains("dmq.so"),
        "{log}"
    );
}

#[test]
fn a_secret_is_replaced_without_an_outage() {
    let nodes = cluster(&[Release::Host], 2, Transport::Udp);
    let write = |text: &str| {
        for node in &nodes {
            std::fs::write(node.dir().join("secret"), text).expect("secret file");
        }
    };
    let new = "another secret for these nodes";
    let steps = [
        format!("{}\n{new}\n", super::SECRET),
        format!("{new}\n{}\n", super::SECRET),
        format!("{new}\n"),
    ];
    for (n, step) in steps.iter().enumerate() {
        write(step);
        for (index, node) in nodes.iter().enumerate() {
            node.ask("apiban.reload", &[]);
            // While only one of them has read it, bans still travel both ways.
            let ip = format!("192.0.2.{}", n * 2 + index + 1);
            nodes[0].ask("apiban.block", &[&ip, "600"]);
            wait_source(&nodes[1], &ip, "peer");
        }
    }
    let log = nodes[0].log() + &nodes[1].log();
    assert!(!log.contains("is refused") && !log.contains(new), "{log}");
}
