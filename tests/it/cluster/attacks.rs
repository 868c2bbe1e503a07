//! What does not belong to the cluster changes nothing; what belongs to it and misbehaves is bounded.

use apiban::address::Subnet;
use apiban::cluster::message::{Item, Items, Kind, VERSION};
use apiban::cluster::Keyring;
use apiban_testing::kamailio::{Kamailio, Release};
use apiban_testing::sip::Answer;
use apiban_testing::wait::wait_until;

use super::stranger::Stranger;
use super::{cluster, listed, peer_entries, source, wait_source, Transport, SECRET, SOON};

fn refused(node: &Kamailio) -> u64 {
    node.statistic("apiban", "cluster_refused")
}

#[test]
fn forged_replayed_cut_and_long_messages_change_nothing() {
    for release in Release::all() {
        let nodes = cluster(&[release], 1, Transport::Udp);
        let node = &nodes[0];
        // A member records everything that it says, and leaves.
        let mut member = Stranger::new(node, SECRET);
        member.ban("192.0.2.1");
        assert!(member.live(|_| source(node, "192.0.2.1") == "peer"));
        let recorded = member.recorded.clone();
        node.ask("apiban.unblock", &["192.0.2.1"]);
        let before = refused(node);
        // Somebody else with what was recorded, and with everything that can be made of it.
        let mut thief = Stranger::new(node, "not the secret of the cluster");
        for bytes in &recorded {
            thief.send(bytes);
            thief.send(&bytes[..bytes.len() / 2]);
            let mut changed = bytes.clone();
            changed[30] ^= 1;
            thief.send(&changed);
            thief.send(&[bytes.as_slice(), &[0; 1200]].concat());
        }
        thief.send(b"");
        thief.send(b"APBN");
        thief.ban("192.0.2.2");
        thief.live(|thief| thief.recorded.len() > 2);
        wait_until("them to be counted", SOON, || {
            refused(node) > before + recorded.len() as u64
        });
        for ip in ["192.0.2.1", "192.0.2.2"] {
            assert_eq!(source(node, ip), "none", "{ip}");
        }
        assert!(thief.tables.peer.is_empty());
        node.wait_for_log("127.0.77.9 is refused", SOON);
        node.assert_answered("127.0.0.5");
    }
}

#[test]
fn what_is_refused_is_answered_and_fills_no_log() {
    for release in Release::all() {
        let nodes = cluster(&[release], 1, Transport::Udp);
        let node = &nodes[0];
        let mut stranger = Stranger::new(node, "not the secret of the cluster");
        let lines = node.log().lines().count();
        let before = refused(node);
        const COUNT: u64 = 300;
        for sequence in 1..=COUNT {
            // With a token that this node never gave.
            let bytes = stranger.seal(Kind::Bans, 7 << 32 | sequence, sequence, &Items::new());
            assert_eq!(stranger.exchange(&bytes), Some(403));
        }
        wait_until("all to be counted", SOON, || {
            refused(node) >= before + COUNT
        });
        let log = node.log();
        let new: Vec<&str> = log.lines().skip(lines).collect();
        assert!(new.len() < 10, "{} lines: {new:?}", new.len());
    }
}

#[test]
fn a_flood_of_messages_leaves_sip_and_the_cluster_alone() {
    let nodes = cluster(&[Release::Host], 2, Transport::Udp);
    let mut flood = Stranger::new(&nodes[0], "not the secret of the cluster");
    let mut items = Items::new();
    items.add(&Item::Uri(flood.uri().to_owned()));
    items.add(&Item::Token(1));
    for sequence in 1..=5_000 {
        // In the form of a first HELLO: the only one that a stranger can get into a queue.
        let bytes = flood.seal(Kind::Hello, 0, sequence, &items);
        flood.send(&bytes);
        if sequence % 500 == 0 {
            // The flood itself may push a request out of the socket's buffer.
            wait_until("SIP to be answered", SOON, || {
                nodes[0].udp("127.0.0.5").options() == Answer::Status(200)
            });
            let ip = format!("192.0.2.{}", sequence / 500);
            nodes[1].ask("apiban.block", &[&ip, "600"]);
        }
    }
    wait_until("the bans of the other node", SOON, || {
        peer_entries(&nodes[0]) == 10
    });
    assert!(refused(&nodes[0]) > 0);
}

#[test]
fn nonsense_under_the_right_secret_is_refused_and_bans_are_bounded() {
    let nodes = cluster(&[Release::Host], 2, Transport::Udp);
    let node = &nodes[0];
    node.ask("apiban.block", &["192.0.2.200", "600"]);
    let mut member = Stranger::new(node, SECRET);
    member.ban("10.0.0.0/20");
    member.ban("224.0.0.1");
    member.ban("198.51.100.0/24");
    for n in 0..2_000u32 {
        member.ban(&format!("198.18.{}.{}", n / 250, n % 250 + 1));
    }
    assert!(member.live(|_| source(node, "198.51.100.7") == "peer"));
    member.live(|member| member.recorded.len() > 45);
    // A wide prefix, and what nobody may ban, is never in force; the rest within the budget.
    assert_eq!(source(node, "10.0.0.1"), "none");
    assert_eq!(source(node, "224.0.0.1"), "none");
    // Its bans are its own: the other node hears of them from itself alone.
    assert_eq!(source(&nodes[1], "198.51.100.7"), "none");
    // Valid in form and MAC, and no sense in it.
    let before = refused(node);
    member.change = |keys: &Keyring, mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 16);
        bytes.extend([5, 0, 3, 9, 9, 9]);
        let mac = keys.sign(&bytes);
        bytes.extend(mac);
        bytes
    };
    member.ban("192.0.2.99");
    member.live(|_| refused(node) > before);
    assert_eq!(source(node, "192.0.2.99"), "none");
    assert_eq!(source(node, "192.0.2.200"), "local");
    node.assert_answered("127.0.0.5");
}

#[test]
fn a_stranger_in_the_list_of_the_bus_hears_nothing() {
    let nodes = cluster(&[Release::Host], 2, Transport::Udp);
    let mut stranger = Stranger::new(&nodes[0], "not the secret of the cluster");
    // dmq believes anybody.
    let body = format!("{};status=active\r\n", stranger.uri());
    let to = nodes[0].address();
    let text = format!(
        "KDMQ sip:notification_peer@{to} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.77.9;branch=z9hG4bK-n\r\n\
         From: <sip:notification_peer@127.0.77.9>;tag=1\r\nTo: <sip:notification_peer@{to}>\r\n\
         Call-ID: stranger-in-the-list\r\nCSeq: 1 KDMQ\r\nMax-Forwards: 1\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    nodes[0]
        .udp("127.0.77.9")
        .send_again(&text)
        .expect("a datagram");
    wait_until("the stranger in the list", SOON, || {
        listed(&nodes[0])
            .iter()
            .any(|node| node["node"] == stranger.uri())
    });
    nodes[1].ask("apiban.block", &["192.0.2.1", "600"]);
    nodes[0].ask("apiban.block", &["192.0.2.2", "600"]);
    wait_source(&nodes[0], "192.0.2.1", "peer");
    stranger.live(|stranger| stranger.node.counts().refused > 2);
    assert!(stranger.tables.peer.is_empty());
    let states: Vec<_> = listed(&nodes[0])
        .into_iter()
        .filter(|n| n["node"] == stranger.uri())
        .collect();
    assert_ne!(states[0]["state"], "ok");
}

#[test]
fn the_next_version_and_this_one_share_bans() {
    let nodes = cluster(&[Release::Host], 1, Transport::Udp);
    let node = &nodes[0];
    node.ask("apiban.block", &["192.0.2.1", "600"]);
    let mut next = Stranger::new(node, SECRET);
    next.change = |keys, mut bytes| {
        bytes.truncate(bytes.len() - 16);
        // A later version, and an item that this one does not know.
        bytes[4] = VERSION + 1;
        bytes.extend([250, 0, 4, 1, 2, 3, 4]);
        let mac = keys.sign(&bytes);
        bytes.extend(mac);
        bytes
    };
    next.ban("192.0.2.2");
    assert!(next.live(|_| source(node, "192.0.2.2") == "peer"));
    let theirs: Subnet = "192.0.2.1".parse().expect("an address");
    assert!(next.live(|next| next.tables.peer.contains_key(&theirs)));
    node.wait_for_log("has version made-up", SOON);
    // One that this version cannot read at all is refused, and said so.
    let mut later = Stranger::new(node, SECRET);
    later.change = |keys, mut bytes| {
        bytes.truncate(bytes.len() - 16);
        bytes[4..6].copy_from_slice(&[VERSION + 1, VERSION + 1]);
        let mac = keys.sign(&bytes);
        bytes.extend(mac);
        bytes
    };
    later.ban("192.0.2.3");
    later.live(|later| later.recorded.len() > 3);
    node.wait_for_log("need a later version", SOON);
    assert_eq!(source(node, "192.0.2.3"), "none");
}
