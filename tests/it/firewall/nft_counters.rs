//! `firewall_counters`: what the kernel dropped of each source, in the backend and in a real Kamailio. Needs
//! root, `nft` and `ip`.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};

use apiban::firewall::nft::{Nft, Settings};
use apiban::firewall::ports::Ports;
use apiban::firewall::{Element, Firewall};
use apiban_testing::kamailio::Release;
use apiban_testing::netns::{held, in_namespace, objects, run};
use apiban_testing::sip::Answer;
use apiban_testing::veth::{server, Host};
use apiban_testing::wait::{wait_until, SOON};

fn elements(subnets: &[&str]) -> Vec<Element> {
    subnets
        .iter()
        .map(|subnet| Element {
            subnet: subnet.parse().unwrap(),
            seconds_left: 600,
            hits: 0,
        })
        .collect()
}

/// Sends this many datagrams from `source` to a port on loopback; the kernel has handled them on return.
fn send(source: &str, port: u16, count: usize) {
    let source: IpAddr = source.parse().unwrap();
    let target = match source {
        IpAddr::V4(_) => "127.0.0.1",
        IpAddr::V6(_) => "::1",
    };
    let socket = UdpSocket::bind((source, 0)).unwrap();
    for _ in 0..count {
        // What an earlier datagram met, such as a closed port, is told at the next one.
        while socket.send_to(b"x", (target, port)).is_err() {}
    }
}

fn counted(nft: &mut Nft) -> BTreeMap<String, u64> {
    nft.report().unwrap();
    let mut sum = BTreeMap::new();
    for (source, packets) in nft.drain_hits() {
        *sum.entry(source.to_string()).or_default() += packets;
    }
    sum
}

fn map(counters: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counters
        .iter()
        .map(|(source, packets)| ((*source).to_owned(), *packets))
        .collect()
}

fn with_counters(ports: Option<&str>) -> Nft {
    let ports = ports.map(|ports| Ports::parse(ports).unwrap());
    Nft::new(Settings {
        counts: true,
        ports,
        ..Settings::default()
    })
}

#[test]
fn each_source_is_counted_exactly() {
    in_namespace(|| {
        run(
            "ip",
            &["addr", "add", "2001:db8:9::1/64", "dev", "lo", "nodad"],
        );
        let mut nft = with_counters(None);
        let banned = elements(&["127.0.0.9", "127.0.8.0/24", "2001:db8:9::/64", "127.0.0.10"]);
        nft.reconcile(&banned).unwrap();
        assert!(nft.intact().unwrap());
        // What the operator reads in the list of rules.
        let rules = objects("rule");
        let of_banned = rules.iter().filter(|rule| rule["chain"] == "banned");
        let comments: Vec<_> = of_banned.map(|rule| &rule["comment"]).collect();
        assert_eq!(
            comments,
            [
                "apiban.so counted4 drop",
                "apiban.so counted6 drop",
                "apiban.so drop"
            ]
        );
        send("127.0.0.9", 9, 7);
        send("127.0.8.1", 9, 3);
        send("127.0.8.2", 9, 1);
        send("2001:db8:9::1", 9, 4);
        send("127.0.0.77", 9, 5);
        let first = [
            ("127.0.0.9", 7),
            ("127.0.8.1", 3),
            ("127.0.8.2", 1),
            ("2001:db8:9::1", 4),
        ];
        assert_eq!(counted(&mut nft), map(&first));
        assert_eq!(nft.report().unwrap().dropped, Some(15));
        assert_eq!(counted(&mut nft), map(&[]));
        send("127.0.0.9", 9, 2);
        assert_eq!(counted(&mut nft), map(&[("127.0.0.9", 2)]));

        // A refill, and one that makes the rules again, lose nothing that was counted.
        send("127.0.0.9", 9, 2);
        nft.reconcile(&banned).unwrap();
        send("127.0.0.9", 9, 1);
        run(
            "nft",
            &[
                "delete",
                "rule",
                "inet",
                "apiban",
                "prerouting",
                "handle",
                &first_handle(),
            ],
        );
        assert!(!nft.intact().unwrap());
        nft.reconcile(&banned).unwrap();
        send("127.0.0.9", 9, 1);
        assert_eq!(counted(&mut nft), map(&[("127.0.0.9", 4)]));
        assert!(nft.intact().unwrap());

        // Without the parameter at the next start, the table is made again.
        drop(nft);
        let mut nft = Nft::new(Settings::default());
        nft.reconcile(&banned).unwrap();
        assert!(nft.intact().unwrap());
        assert_eq!(objects("chain").len(), 2);
        let before = nft.report().unwrap().dropped.unwrap();
        send("127.0.0.9", 9, 2);
        assert_eq!(counted(&mut nft), map(&[]));
        assert_eq!(nft.report().unwrap().dropped, Some(before + 2));
    });
}

/// The handle of a rule in the base chain that finds sources.
fn first_handle() -> String {
    objects("rule")
        .iter()
        .find(|rule| rule["chain"] == "prerouting" && rule["comment"] == "apiban.so hosts4")
        .map(|rule| rule["handle"].to_string())
        .expect("a rule for hosts4")
}

#[test]
fn only_what_is_dropped_is_counted() {
    in_namespace(|| {
        let mut nft = with_counters(Some("5060"));
        nft.reconcile(&elements(&["127.0.0.9"])).unwrap();
        assert!(nft.intact().unwrap());
        send("127.0.0.9", 5060, 3);
        send("127.0.0.9", 5061, 5);
        assert_eq!(counted(&mut nft), map(&[("127.0.0.9", 3)]));
        assert_eq!(nft.report().unwrap().dropped, Some(3));
    });
}

/// A full set counts no further source, and every source is dropped all the same.
#[test]
fn more_sources_than_can_be_counted_are_dropped() {
    in_namespace(|| {
        let mut nft = with_counters(None);
        nft.reconcile(&elements(&["127.16.0.0/12"])).unwrap();
        let sources = 10_000u32;
        for number in 0..sources {
            let source = IpAddr::from((0x7f10_0000 + number).to_be_bytes());
            send(&source.to_string(), 9, 1);
        }
        assert_eq!(nft.report().unwrap().dropped, Some(u64::from(sources)));
        let counted = nft.drain_hits();
        assert!((8000..=8192).contains(&counted.len()), "{}", counted.len());
        assert!(counted.iter().all(|(_, packets)| *packets == 1));
    });
}

#[test]
fn top_and_check_show_what_the_kernel_dropped() {
    in_namespace(|| {
        let host = Host::connect();
        for release in Release::all() {
            let kamailio = server()
                .param("firewall", "nft")
                .param("firewall_counters", 1)
                .release(&release)
                .start();
            let mut attacker = host.udp("10.9.0.2", &kamailio);
            assert_eq!(attacker.options(), Answer::Status(200));
            for address in ["10.9.0.2", "10.9.0.3"] {
                kamailio.ask("apiban.block", &[address, "600"]);
            }
            wait_until("both bans in the kernel", SOON, || {
                held("hosts4", "10.9.0.2").is_some() && held("hosts4", "10.9.0.3").is_some()
            });
            let hits = |address: &str| kamailio.ask("apiban.check", &[address])["hits"].as_u64();
            assert_eq!(hits("10.9.0.2"), Some(0));
            for _ in 0..25 {
                attacker.send("OPTIONS").unwrap();
            }
            wait_until("the hits of the kernel", 3 * SOON, || {
                hits("10.9.0.2") == Some(25)
            });
            assert_eq!(hits("10.9.0.3"), Some(0));
            let top = kamailio.ask("apiban.top", &["1"]);
            assert_eq!(top[0]["ip"], "10.9.0.2", "{top}");
            assert!(kamailio.stop().status.success());
        }
    });
}
