//! Trust in nodes of the DMQ bus: only those that the operator configured. The bus itself believes
//! whoever reaches its port.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::wait::wait_until;

/// For a busy machine; what is waited for comes much sooner.
const SOON: Duration = Duration::from_secs(15);
/// An address that nobody configured.
const STRANGER: &str = "127.0.0.5";

/// A node of a DMQ bus with the usual script: the check comes first, then the bus.
fn node(release: &Release) -> Builder {
    Kamailio::builder()
        .release(release)
        .memory(128, 32)
        .dmq("sip:127.0.0.1:@PORT@")
        .modparam("dmq", "notification_address", "sip:127.0.0.31:5060")
        .modparam(
            "dmq",
            "notification_address",
            "sip:127.0.0.32:5061;transport=udp",
        )
        // Loopback is all that tests have, so it is not trusted as such.
        .param("trust_self", 0)
        .param("trust_file", "@DIR@/trust")
        .file("trust", "")
        .request_route(
            "if (apiban_check() > 0) { exit; }
             if (is_method(\"KDMQ\")) { dmq_handle_message(); exit; }",
        )
}

/// Sends a notification of the DMQ bus that names these nodes, from an address that nobody configured.
fn notify(kamailio: &Kamailio, nodes: impl Iterator<Item = IpAddr>) {
    let from = STRANGER;
    let mut body = String::new();
    for node in nodes {
        let _ = write!(body, "sip:{node}:5060;status=active\r\n");
    }
    let to = kamailio.address();
    let call_id = format!("{}-{}", body.len(), &body[..16]).replace(':', "-");
    let text = format!(
        "KDMQ sip:notification_peer@{to} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {from}:5060;rport;branch=z9hG4bK-{call_id}\r\n\
         From: <sip:notification_peer@{from}:5060>;tag=1\r\n\
         To: <sip:notification_peer@{to}>\r\n\
         Call-ID: {call_id}\r\n\
         CSeq: 1 KDMQ\r\n\
         Max-Forwards: 1\r\n\
         Content-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let ip: IpAddr = from.parse().expect("an address");
    kamailio.udp(ip).send_again(&text).expect("a datagram");
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn source(kamailio: &Kamailio, ip: &str) -> String {
    let verdict = kamailio.verdict(ip);
    verdict["source"].as_str().expect("a source").to_owned()
}

/// Makes the updater look at everything that can be trusted, and waits until it has.
fn look_again(kamailio: &Kamailio, now_trusted: &str) {
    let file = kamailio.dir().join("trust");
    std::fs::write(file, format!("{now_trusted}\n")).expect("trust file");
    kamailio.ask("apiban.reload", &[]);
    wait_until("the new line of trust_file in force", SOON, || {
        source(kamailio, now_trusted) == "trusted"
    });
}

#[test]
fn what_a_stranger_tells_the_bus_makes_nobody_trusted() {
    for release in Release::all() {
        let kamailio = node(&release).start();
        for banned in ["198.51.100.66", "127.0.0.66"] {
            kamailio.ask("apiban.block", &[banned]);
        }
        kamailio.assert_dropped("127.0.0.66");
        let told = ["198.51.100.66", "127.0.0.66", "203.0.113.66"];
        notify(&kamailio, told.iter().map(|text| ip(text)));
        // The bus believes it: without this the test would prove nothing.
        wait_until("dmq to list what it was told", SOON, || {
            let nodes = kamailio.ask("dmq.list_nodes", &[]).to_string();
            told.iter().all(|node| nodes.contains(node))
        });
        look_again(&kamailio, "192.0.2.1");
        for banned in ["198.51.100.66", "127.0.0.66"] {
            assert_eq!(source(&kamailio, banned), "local", "{}", release.name());
        }
        kamailio.assert_dropped("127.0.0.66");
        assert_eq!(source(&kamailio, "203.0.113.66"), "none");
        assert_eq!(source(&kamailio, STRANGER), "none");
        kamailio.ask("apiban.block", &["203.0.113.66"]);
        assert_eq!(source(&kamailio, "203.0.113.66"), "local");
    }
}

#[test]
fn the_configured_nodes_are_trusted() {
    for release in Release::all() {
        let kamailio = node(&release).start();
        for (peer, line) in [
            ("127.0.0.31", "127.0.0.31 is trusted from now on: trust_dmq"),
            ("127.0.0.32", "127.0.0.32 is trusted from now on: trust_dmq"),
            ("127.0.0.1", "127.0.0.1 is trusted from now on: trust_dmq"),
        ] {
            let line = kamailio.wait_for_log(line, SOON);
            assert!(line.contains("NOTICE"), "{line}");
            assert_eq!(source(&kamailio, peer), "trusted", "{}", release.name());
            let fault = kamailio
                .jsonrpc("apiban.block", serde_json::json!([peer]))
                .expect_err("a node");
            assert_eq!(fault.code, 403, "{fault}");
        }
        let log = kamailio.log();
        assert_eq!(log.matches("is trusted from now on").count(), 3, "{log}");
    }
}

#[test]
fn a_flood_of_nodes_changes_nothing() {
    const PACKETS: u8 = 12;
    for release in Release::all() {
        let kamailio = node(&release).start();
        for packet in 0..PACKETS {
            // As many as fit into a datagram that every release accepts.
            let nodes = (0..800u16).map(|n| {
                let [high, low] = n.to_be_bytes();
                IpAddr::from([127, 20 + packet, high, low])
            });
            notify(&kamailio, nodes);
        }
        // dmq takes them all, and cannot even write its own list of nodes any more.
        wait_until("dmq to take all nodes", SOON * 4, || {
            let log = kamailio.log();
            log.matches("no response body").count() == usize::from(PACKETS)
        });
        look_again(&kamailio, "203.0.113.2");
        let status = kamailio.ask("apiban.status", &[]);
        // One line of the file, two configured nodes and the own address.
        assert_eq!(status["trust"]["prefixes"], 4, "{status}");
        assert_eq!(status["trust"]["automatic"], 3, "{status}");
        let log = kamailio.log();
        assert!(!log.contains("ERROR: apiban"), "{log}");
        kamailio.ask("apiban.block", &["127.20.0.7"]);
        assert_eq!(source(&kamailio, "127.20.0.7"), "local");
    }
}

#[test]
fn trust_dmq_0_trusts_no_node() {
    let kamailio = node(&Release::Host).param("trust_dmq", 0).start();
    look_again(&kamailio, "192.0.2.1");
    for peer in ["127.0.0.31", "127.0.0.32", "127.0.0.1"] {
        assert_eq!(source(&kamailio, peer), "none", "{peer}");
    }
}
