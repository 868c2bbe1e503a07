//! Nodes that die, hang, restart, or lose each other.

use apiban_testing::cluster::{cut, heal, nft};
use apiban_testing::kamailio::Release;
use apiban_testing::netns;
use apiban_testing::wait::wait_until;
use nix::sys::signal::Signal;

use super::{
    cluster, listed, node, peer_entries, source, wait_source, wait_together, Transport, SOON,
};

#[test]
fn a_killed_node_is_missed_and_complete_when_it_is_back() {
    let mut nodes = cluster(&[Release::Host], 3, Transport::Udp);
    nodes[2].ask("apiban.block", &["192.0.2.3", "900"]);
    wait_source(&nodes[0], "192.0.2.3", "peer");
    let dead = nodes.pop().expect("three nodes");
    dead.kill9();
    wait_until("the silence to be noticed", SOON * 2, || {
        listed(&nodes[0])
            .iter()
            .any(|node| node["state"] == "silent")
    });
    // Its bans stay until they end, and the others go on.
    assert_eq!(source(&nodes[0], "192.0.2.3"), "peer");
    for n in 1..=200 {
        nodes[0].ask("apiban.block", &[&format!("198.18.0.{n}"), "900"]);
    }
    nodes[0].ask("apiban.block", &["192.0.2.1", "900"]);
    wait_source(&nodes[1], "192.0.2.1", "peer");
    let back = node(3, &Release::Host, Transport::Udp, nodes.first()).start();
    wait_source(&back, "192.0.2.1", "peer");
    wait_until("all bans", SOON, || peer_entries(&back) == 201);
    nodes.push(back);
    wait_together(&nodes);
}

#[test]
fn a_hanging_cluster_process_stops_nothing_else() {
    let nodes = cluster(&[Release::Host], 2, Transport::Udp);
    let pid = nodes[0].pid_of("APIBAN cluster");
    nodes[0].signal(pid, Signal::SIGSTOP);
    nodes[0].ask("apiban.block", &["127.0.0.66", "900"]);
    nodes[0].assert_dropped("127.0.0.66");
    wait_until("it to be called stuck", SOON * 2, || {
        nodes[0].ask("apiban.status", &[])["cluster"]["state"] == "stuck"
    });
    // More messages than the queue holds, and SIP goes on.
    for n in 0..700 {
        nodes[1].ask(
            "apiban.block",
            &[&format!("198.18.{}.{}", n / 250, n % 250 + 1), "900"],
        );
    }
    nodes[0].assert_answered("127.0.0.5");
    nodes[0].signal(pid, Signal::SIGCONT);
    wait_source(&nodes[1], "127.0.0.66", "peer");
    wait_until("everything that was missed", SOON, || {
        peer_entries(&nodes[0]) == 700
    });
}

#[test]
fn a_partition_heals() {
    netns::in_namespace(|| {
        let nodes = cluster(&[Release::Host], 4, Transport::Udp);
        nodes[0].ask("apiban.block", &["192.0.2.1", "900"]);
        nodes[2].ask("apiban.block", &["192.0.2.2", "900"]);
        for node in &nodes {
            wait_until("both bans", SOON, || {
                source(node, "192.0.2.1") != "none" && source(node, "192.0.2.2") != "none"
            });
        }
        cut(&[&nodes[0], &nodes[1]], &[&nodes[2], &nodes[3]]);
        nodes[0].ask("apiban.block", &["192.0.2.10", "900"]);
        nodes[3].ask("apiban.block", &["192.0.2.11", "900"]);
        wait_source(&nodes[1], "192.0.2.10", "peer");
        // Lifted in one half while its maker is in the other.
        nodes[1].ask("apiban.unblock", &["192.0.2.2"]);
        wait_source(&nodes[0], "192.0.2.2", "none");
        wait_until("the loss to be noticed", SOON * 2, || {
            listed(&nodes[0])
                .iter()
                .filter(|node| node["state"] == "silent")
                .count()
                == 2
        });
        assert_eq!(source(&nodes[3], "192.0.2.2"), "peer");
        assert_eq!(source(&nodes[2], "192.0.2.10"), "none");
        heal();
        for node in &nodes[2..] {
            wait_source(node, "192.0.2.10", "peer");
            wait_source(node, "192.0.2.2", "none");
        }
        wait_source(&nodes[0], "192.0.2.11", "peer");
        wait_together(&nodes);
    });
}

#[test]
fn a_fifth_of_the_packets_is_lost_and_no_ban() {
    netns::in_namespace(|| {
        let nodes = cluster(&Release::all(), 3, Transport::Udp);
        nft("table ip loss {\nchain in {\ntype filter hook input priority 0;\nmeta l4proto udp numgen random mod 100 < 20 drop\n}\n}\n");
        for n in 1..=100 {
            nodes[n % 3].ask("apiban.block", &[&format!("192.0.2.{n}"), "900"]);
        }
        for node in &nodes {
            wait_until("every ban", SOON * 2, || {
                peer_entries(node) + node.statistic("apiban", "local_entries") == 100
            });
        }
    });
}
