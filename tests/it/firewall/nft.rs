//! The nft backend against the running kernel, in network namespaces of its own. Needs root, `nft` and
//! `ip`; nft is only the witness.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use apiban::address::Subnet;
use apiban::firewall::nft::{Nft, Settings};
use apiban::firewall::ports::Ports;
use apiban::firewall::{Change, Element, Firewall};

use apiban_testing::netns::{addresses, elements, in_namespace, objects, run};
use apiban_testing::wait::{wait_until, SOON};

pub fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

pub fn element(text: &str, seconds_left: u32) -> Element {
    Element {
        subnet: subnet(text),
        seconds_left,
        hits: 0,
    }
}

pub fn add(text: &str, seconds_left: u32) -> Change {
    Change::Add(element(text, seconds_left))
}

pub fn remove(text: &str) -> Change {
    Change::Remove(subnet(text))
}

/// Names of the sets, sorted.
pub fn set_names() -> Vec<String> {
    let mut names: Vec<_> = objects("set")
        .iter()
        .map(|set| set["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

pub fn ready() -> Nft {
    let mut nft = Nft::new(Settings::default());
    nft.reset().unwrap();
    nft
}

#[test]
fn bans_come_go_and_end_by_themselves() {
    in_namespace(|| {
        let mut nft = ready();
        nft.apply(&[
            add("192.0.2.1", 600),
            add("2001:db8::1", 60),
            add("192.0.2.2", 1),
            add("192.0.2.3", u32::MAX),
            add("192.0.2.4", 0),
        ])
        .unwrap();
        let local = elements("hosts4");
        assert_eq!(local[0].0, "192.0.2.1");
        assert!((595..=600).contains(&local[0].1), "{local:?}");
        assert_eq!(addresses("hosts6"), ["2001:db8::1"]);
        wait_until("192.0.2.2 ends", SOON, || {
            addresses("hosts4") == ["192.0.2.1", "192.0.2.3"]
        });
        // Lifting what is absent harms nothing.
        nft.apply(&[
            remove("192.0.2.99"),
            remove("192.0.2.1"),
            remove("198.51.100.0/24"),
            add("192.0.2.5", 60),
        ])
        .unwrap();
        assert_eq!(addresses("hosts4"), ["192.0.2.3", "192.0.2.5"]);
        assert!(nft.intact().unwrap());
    });
}

#[test]
fn banned_again_the_new_end_counts() {
    for old_kernel in [false, true] {
        in_namespace(move || {
            let mut nft = Nft::new(Settings::default());
            if old_kernel {
                nft = nft.assume_old_kernel();
            }
            nft.reset().unwrap();
            let left = || elements("hosts4")[0].1;
            nft.apply(&[add("192.0.2.1", 100)]).unwrap();
            nft.apply(&[add("192.0.2.1", 5000)]).unwrap();
            assert!(left() > 4990, "{}", left());
            nft.apply(&[add("192.0.2.1", 50)]).unwrap();
            assert!(left() <= 50, "{}", left());
            // In one transaction the later change wins.
            nft.apply(&[
                add("192.0.2.1", 200),
                remove("192.0.2.1"),
                add("192.0.2.1", 300),
                add("192.0.2.1", 400),
            ])
            .unwrap();
            assert!((395..=400).contains(&left()), "{}", left());
            nft.apply(&[add("192.0.2.1", 200), remove("192.0.2.1")])
                .unwrap();
            assert!(addresses("hosts4").is_empty());
        });
    }
}

#[test]
fn the_same_timeout_again_starts_anew() {
    in_namespace(|| {
        let mut nft = ready();
        nft.apply(&[add("192.0.2.1", 100)]).unwrap();
        wait_until("two seconds pass", SOON, || elements("hosts4")[0].1 < 98);
        nft.apply(&[add("192.0.2.1", 100)]).unwrap();
        assert!(elements("hosts4")[0].1 >= 99);
    });
}

#[test]
fn prefixes_of_all_lengths_may_overlap() {
    in_namespace(|| {
        let mut nft = ready();
        nft.apply(&[
            add("198.51.100.0/24", 60),
            add("198.51.100.128/25", 90),
            add("198.51.0.0/16", 60),
            add("255.255.255.0/24", 60),
            add("2001:db8:1:2::/64", 60),
            add("2001:db8::/33", 60),
        ])
        .unwrap();
        assert_eq!(addresses("nets4_24"), ["198.51.100.0", "255.255.255.0"]);
        assert_eq!(addresses("nets4_25"), ["198.51.100.128"]);
        assert_eq!(addresses("nets6_64"), ["2001:db8:1:2::"]);
        // Some releases of nft write `& mask == @set`.
        let text = run("nft", &["list", "table", "inet", "apiban"]).replace("== @", "@");
        for rule in [
            "ip saddr & 255.255.255.0 @nets4_24 counter",
            "ip saddr & 255.255.0.0 @nets4_16 counter",
            "ip6 saddr & ffff:ffff:ffff:ffff:: @nets6_64 counter",
            "ip6 saddr & ffff:ffff:8000:: @nets6_33 counter",
        ] {
            assert!(text.contains(rule), "{rule} not in\n{text}");
        }
        assert!(nft.intact().unwrap());
        nft.apply(&[remove("198.51.100.0/24")]).unwrap();
        assert_eq!(addresses("nets4_24"), ["255.255.255.0"]);
        assert_eq!(addresses("nets4_25"), ["198.51.100.128"]);
        assert_eq!(objects("rule").len(), 9);
    });
}

/// Sends one datagram from `source` and tells whether it arrives. What is not banned arrives at once,
/// on the same loopback and in order: a second one from a clean source marks the end of the wait.
pub fn arrives(server: &UdpSocket, source: &str, clean: &str) -> bool {
    let target = server.local_addr().unwrap();
    for (from, text) in [(source, b"1"), (clean, b"2")] {
        let client = UdpSocket::bind((from.parse::<IpAddr>().unwrap(), 0)).unwrap();
        client.send_to(text, target).unwrap();
    }
    let mut buffer = [0; 8];
    let mut first = false;
    loop {
        match server.recv_from(&mut buffer) {
            Ok(_) if buffer[0] == b'1' => first = true,
            Ok(_) => return first,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("the clean source is not heard: {error}"),
        }
    }
}

pub fn server(address: &str) -> UdpSocket {
    let server = UdpSocket::bind((address.parse::<IpAddr>().unwrap(), 0)).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    server
}

#[test]
fn banned_packets_never_reach_the_socket() {
    in_namespace(|| {
        let mut nft = ready();
        let v4 = server("127.0.0.1");
        let clean = "127.0.0.77";
        assert!(arrives(&v4, "127.0.0.9", clean));
        nft.apply(&[add("127.0.0.9", 60)]).unwrap();
        assert!(!arrives(&v4, "127.0.0.9", clean));
        assert!(arrives(&v4, "127.0.0.10", clean));
        assert_eq!(nft.report().unwrap().dropped, Some(1));
        nft.apply(&[remove("127.0.0.9")]).unwrap();
        assert!(arrives(&v4, "127.0.0.9", clean));

        nft.apply(&[add("127.0.9.0/24", 60)]).unwrap();
        assert!(!arrives(&v4, "127.0.9.0", clean));
        assert!(!arrives(&v4, "127.0.9.255", clean));
        assert!(arrives(&v4, "127.0.8.255", clean));
        assert!(arrives(&v4, "127.0.10.0", clean));
        assert_eq!(nft.report().unwrap().dropped, Some(3));

        for address in ["2001:db8:9::1/64", "2001:db8:9::2/64", "2001:db8:a::1/64"] {
            run("ip", &["addr", "add", address, "dev", "lo", "nodad"]);
        }
        let v6 = server("::1");
        nft.apply(&[add("2001:db8:9::/64", 60)]).unwrap();
        assert!(!arrives(&v6, "2001:db8:9::1", "::1"));
        assert!(!arrives(&v6, "2001:db8:9::2", "::1"));
        assert!(arrives(&v6, "2001:db8:a::1", "::1"));
        nft.apply(&[remove("2001:db8:9::/64"), add("2001:db8:9::1", 60)])
            .unwrap();
        assert!(!arrives(&v6, "2001:db8:9::1", "::1"));
        assert!(arrives(&v6, "2001:db8:9::2", "::1"));
    });
}

/// 20,000 bans, and one of this address.
pub fn many_and(address: &str) -> Vec<Element> {
    let others = (0..20_000u32).map(|n| Element {
        subnet: Subnet::host(IpAddr::V4((0x0a00_0000 + n).into())),
        seconds_left: 600,
        hits: 0,
    });
    others.chain([element(address, 600)]).collect()
}

/// How many datagrams went from `source` to the server, as fast as they can, while `work` ran.
pub fn sent_while(source: &str, server: &UdpSocket, work: impl FnOnce()) -> u64 {
    let client = UdpSocket::bind((source, 0)).unwrap();
    let target = server.local_addr().unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let sender = thread::spawn(move || {
        let mut sent = 0u64;
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            client.send_to(b"1", target).unwrap();
            sent += 1;
        }
        sent
    });
    work();
    drop(stop);
    sender.join().unwrap()
}

/// While the whole list is replaced again and again, a ban that stays in it must hold for every packet.
#[test]
fn a_refill_lets_nothing_through() {
    in_namespace(|| {
        let mut nft = ready();
        let wanted = many_and("127.0.0.9");
        nft.reconcile(&wanted).unwrap();
        let v4 = server("127.0.0.1");
        let sent = sent_while("127.0.0.9", &v4, || {
            for _ in 0..5 {
                nft.reconcile(&wanted).unwrap();
            }
        });
        assert!(!arrives(&v4, "127.0.0.9", "127.0.0.77"));
        println!("{sent} packets during 5 refills of 20,001 elements, none arrived");
        assert!(sent > 100);
    });
}

/// Until an IPv6 source is banned no packet pays for a rule of IPv6. That rule goes again when the table is filled and
/// no such ban is left.
#[test]
fn ipv6_packets_are_looked_at_from_the_first_ban_of_one_on() {
    in_namespace(|| {
        let v6 = server("::1");
        run(
            "ip",
            &["address", "add", "2001:db8::9/128", "dev", "lo", "nodad"],
        );
        let dropped = || !arrives(&v6, "2001:db8::9", "::1");
        let mut nft = ready();
        nft.apply(&[add("192.0.2.1", 60), remove("2001:db8::9")])
            .unwrap();
        assert_eq!(handle_of_the_ipv6_rule(), None);
        assert!(nft.intact().unwrap());
        nft.apply(&[add("2001:db8::9", 60)]).unwrap();
        assert!(dropped() && handle_of_the_ipv6_rule().is_some());
        assert!(nft.intact().unwrap());
        // A prefix of IPv4 whose rule comes behind it.
        nft.apply(&[add("198.51.0.0/16", 60), remove("2001:db8::9")])
            .unwrap();
        assert!(!dropped() && nft.intact().unwrap());
        nft.reconcile(&[element("192.0.2.1", 60)]).unwrap();
        assert_eq!(handle_of_the_ipv6_rule(), None);
        nft.reconcile(&[element("2001:db8::/64", 60)]).unwrap();
        assert!(dropped() && nft.intact().unwrap());
        // A restart that has to do with the table as it is.
        drop(nft);
        let mut nft = ready();
        nft.reconcile(&[]).unwrap();
        assert!(!dropped() && handle_of_the_ipv6_rule().is_none());
        assert!(nft.intact().unwrap());
    });
}

/// The handle of the rule in the base chain that leads IPv6 packets to theirs.
pub fn handle_of_the_ipv6_rule() -> Option<String> {
    objects("rule")
        .iter()
        .find(|rule| rule["chain"] == "prerouting" && rule["comment"] == "apiban.so ipv6")
        .map(|rule| rule["handle"].to_string())
}

/// More prefix lengths than there are sets for: the rest shares one interval set.
#[test]
fn many_prefix_lengths_share_one_set_of_ranges() {
    in_namespace(|| {
        let mut nft = ready();
        let lengths = [9, 10, 11, 12, 14, 16, 20, 25, 28];
        let prefix = |length: u8| {
            let ip = Ipv4Addr::from_bits(0x7f00_0000 | 1 << (32 - length));
            Subnet::new(IpAddr::V4(ip), length).unwrap().to_string()
        };
        let all: Vec<_> = lengths
            .iter()
            .map(|length| add(&prefix(*length), 600))
            .collect();
        nft.apply(&all).unwrap();
        nft.apply(&[add("2001:db8::/33", 60), add("127.0.0.0/30", 600)])
            .unwrap();
        let nets = |names: Vec<String>| {
            names
                .iter()
                .filter(|name| name.starts_with("nets4"))
                .count()
        };
        assert_eq!(nets(set_names()), 3);
        assert!(
            set_names().contains(&"ranges4".to_owned()),
            "{:?}",
            set_names()
        );
        assert!(nft.intact().unwrap());
        let v4 = server("127.0.0.1");
        let clean = "127.0.0.100";
        for length in lengths {
            let first: Subnet = prefix(length).parse().unwrap();
            let IpAddr::V4(first) = first.address() else {
                unreachable!()
            };
            let last = Ipv4Addr::from_bits(first.to_bits() | ((1u64 << (32 - length)) - 1) as u32);
            let source = last.to_string();
            assert!(!arrives(&v4, &source, clean), "{source} of /{length}");
        }
        assert!(!arrives(&v4, "127.0.0.3", clean) && arrives(&v4, "127.0.0.4", clean));
        // A lifted one leaves the others, and what it covered of them.
        nft.apply(&[remove(&prefix(28)), add("127.0.0.16/29", 600)])
            .unwrap();
        assert!(!arrives(&v4, "127.0.0.18", clean));
        assert!(arrives(&v4, "127.0.0.24", clean));
        // A refill gives sets to the lengths with the most bans.
        let wanted: Vec<_> = (0..100)
            .flat_map(|n| {
                [
                    element(&format!("10.{n}.0.0/18"), 600),
                    element(&format!("10.{n}.64.0/22"), 600),
                ]
            })
            .chain(lengths.iter().map(|length| element(&prefix(*length), 600)))
            .collect();
        nft.reconcile(&wanted).unwrap();
        for name in ["nets4_18", "nets4_22", "ranges4"] {
            assert!(set_names().contains(&name.to_owned()), "{:?}", set_names());
        }
        assert_eq!(nets(set_names()), 3);
        assert!(nft.intact().unwrap());
        assert!(!arrives(&v4, "127.0.0.16", clean));
        // Each range ends by itself.
        nft.reconcile(&[element("127.0.0.16/28", 600)]).unwrap();
        assert_eq!(nets(set_names()), 1);
        let mut short = all;
        short.push(add("127.0.0.64/27", 2));
        nft.apply(&short).unwrap();
        assert!(!arrives(&v4, "127.0.0.65", clean));
        wait_until("the range ends", SOON, || arrives(&v4, "127.0.0.65", clean));
        assert!(!arrives(&v4, "127.0.0.17", clean));
    });
}

#[test]
fn only_the_ports_asked_for_are_dropped() {
    in_namespace(|| {
        let v4 = server("127.0.0.1");
        let port = v4.local_addr().unwrap().port();
        let settings = |ports: &str| Settings {
            ports: Some(Ports::parse(ports).unwrap()),
            ..Settings::default()
        };
        let clean = "127.0.0.77";
        let banned = [element("127.0.0.9", 600), element("127.0.8.0/24", 600)];
        let mut nft = Nft::new(settings(&format!("{port},7-8")));
        nft.reconcile(&banned).unwrap();
        assert!(nft.intact().unwrap());
        assert!(!arrives(&v4, "127.0.0.9", clean) && !arrives(&v4, "127.0.8.1", clean));
        assert_eq!(nft.report().unwrap().dropped, Some(2));
        let tcp = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let connects = |to: &TcpListener| {
            let from = "127.0.0.9";
            let to = to.local_addr().unwrap().port().to_string();
            let script = format!(
                "import socket; s=socket.socket(); s.settimeout(0.3); s.bind(('{from}',0)); s.connect(('127.0.0.1',{to}))"
            );
            Command::new("python3")
                .args(["-c", &script])
                .output()
                .unwrap()
                .status
                .success()
        };
        assert!(!connects(&tcp));
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(connects(&other), "other services go on");
        // Other ports at the next start: the table is made again, and what is banned stays so.
        drop(nft);
        let mut nft = Nft::new(settings(&other.local_addr().unwrap().port().to_string()));
        nft.reconcile(&banned).unwrap();
        assert!(!connects(&other) && connects(&tcp) && arrives(&v4, "127.0.0.9", clean));
        drop(nft);
        let mut nft = Nft::new(Settings::default());
        nft.reconcile(&banned).unwrap();
        assert!(nft.intact().unwrap());
        assert!(!connects(&other) && !connects(&tcp) && !arrives(&v4, "127.0.0.9", clean));
        assert_eq!(objects("chain").len(), 2);
    });
}
