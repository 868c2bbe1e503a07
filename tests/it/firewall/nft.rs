//! The nft backend against the running kernel, in network namespaces of its own. Needs root, `nft` and
//! `ip`; nft is only the witness.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use apiban::address::Subnet;
use apiban::firewall::nft::Nft;
use apiban::firewall::{Change, Element, Error, Firewall, Set};

use apiban_testing::netns::{addresses, elements, in_namespace, objects, run};
use apiban_testing::wait::{wait_until, SOON};

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn element(text: &str, set: Set, seconds_left: u32) -> Element {
    Element {
        subnet: subnet(text),
        set,
        seconds_left,
    }
}

fn add(text: &str, set: Set, seconds_left: u32) -> Change {
    Change::Add(element(text, set, seconds_left))
}

fn remove(text: &str, set: Set) -> Change {
    Change::Remove {
        subnet: subnet(text),
        set,
    }
}

/// Names of the sets, sorted.
fn set_names() -> Vec<String> {
    let mut names: Vec<_> = objects("set")
        .iter()
        .map(|set| set["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn ready() -> Nft {
    let mut nft = Nft::new("apiban").unwrap();
    nft.reset().unwrap();
    nft
}

#[test]
fn the_table_is_as_documented() {
    in_namespace(|| {
        let mut nft = ready();
        assert_eq!(set_names(), ["feed4", "feed6", "local4", "local6"]);
        let chains = objects("chain");
        assert_eq!(chains.len(), 1);
        assert_eq!(chains[0]["hook"], "input");
        assert_eq!(chains[0]["prio"], -300);
        assert_eq!(chains[0]["policy"], "accept");
        let text = run("nft", &["list", "ruleset"]);
        for line in [
            "table inet apiban {",
            "comment \"apiban.so\"",
            "type ipv4_addr",
            "flags timeout",
            "icmpv6 type 135-136 accept comment \"apiban.so neighbours\"",
            "ip saddr @local4 counter packets 0 bytes 0 drop comment \"apiban.so local4\"",
            "ip6 saddr @feed6 counter packets 0 bytes 0 drop comment \"apiban.so feed6\"",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        assert!(nft.intact().unwrap());
        // A second start makes nothing twice.
        ready();
        assert_eq!(objects("rule").len(), 5);
        nft.remove().unwrap();
        nft.remove().unwrap();
        assert!(objects("table").is_empty());
    });
}

#[test]
fn bans_come_go_and_end_by_themselves() {
    in_namespace(|| {
        let mut nft = ready();
        nft.apply(&[
            add("192.0.2.1", Set::Local, 600),
            add("192.0.2.1", Set::Feed, 60),
            add("2001:db8::1", Set::Feed, 60),
            add("192.0.2.2", Set::Local, 1),
            add("192.0.2.3", Set::Local, u32::MAX),
            add("192.0.2.4", Set::Local, 0),
        ])
        .unwrap();
        let local = elements("local4");
        assert_eq!(local[0].0, "192.0.2.1");
        assert!((595..=600).contains(&local[0].1), "{local:?}");
        assert_eq!(addresses("feed6"), ["2001:db8::1"]);
        wait_until("192.0.2.2 ends", SOON, || {
            addresses("local4") == ["192.0.2.1", "192.0.2.3"]
        });
        // Lifting what is absent harms nothing, and one set leaves the other alone.
        nft.apply(&[
            remove("192.0.2.99", Set::Local),
            remove("192.0.2.1", Set::Local),
            remove("198.51.100.0/24", Set::Local),
            add("192.0.2.5", Set::Local, 60),
        ])
        .unwrap();
        assert_eq!(addresses("local4"), ["192.0.2.3", "192.0.2.5"]);
        assert_eq!(addresses("feed4"), ["192.0.2.1"]);
        assert!(nft.clear(Set::Local).unwrap());
        assert!(addresses("local4").is_empty());
        assert_eq!(addresses("feed4"), ["192.0.2.1"]);
        assert!(nft.intact().unwrap());
    });
}

#[test]
fn banned_again_the_new_end_counts() {
    for old_kernel in [false, true] {
        in_namespace(move || {
            let mut nft = Nft::new("apiban").unwrap();
            if old_kernel {
                nft = nft.assume_old_kernel();
            }
            nft.reset().unwrap();
            let left = || elements("local4")[0].1;
            nft.apply(&[add("192.0.2.1", Set::Local, 100)]).unwrap();
            nft.apply(&[add("192.0.2.1", Set::Local, 5000)]).unwrap();
            assert!(left() > 4990, "{}", left());
            nft.apply(&[add("192.0.2.1", Set::Local, 50)]).unwrap();
            assert!(left() <= 50, "{}", left());
            // In one transaction the later change wins.
            nft.apply(&[
                add("192.0.2.1", Set::Local, 200),
                remove("192.0.2.1", Set::Local),
                add("192.0.2.1", Set::Local, 300),
                add("192.0.2.1", Set::Local, 400),
            ])
            .unwrap();
            assert!((395..=400).contains(&left()), "{}", left());
            nft.apply(&[
                add("192.0.2.1", Set::Local, 200),
                remove("192.0.2.1", Set::Local),
            ])
            .unwrap();
            assert!(addresses("local4").is_empty());
        });
    }
}

#[test]
fn the_same_timeout_again_starts_anew() {
    in_namespace(|| {
        let mut nft = ready();
        nft.apply(&[add("192.0.2.1", Set::Local, 100)]).unwrap();
        wait_until("two seconds pass", SOON, || elements("local4")[0].1 < 98);
        nft.apply(&[add("192.0.2.1", Set::Local, 100)]).unwrap();
        assert!(elements("local4")[0].1 >= 99);
    });
}

#[test]
fn prefixes_of_all_lengths_may_overlap() {
    in_namespace(|| {
        let mut nft = ready();
        nft.apply(&[
            add("198.51.100.0/24", Set::Local, 60),
            add("198.51.100.128/25", Set::Local, 90),
            add("198.51.0.0/16", Set::Feed, 60),
            add("255.255.255.0/24", Set::Local, 60),
            add("2001:db8:1:2::/64", Set::Local, 60),
            add("2001:db8::/33", Set::Local, 60),
        ])
        .unwrap();
        assert_eq!(addresses("local4_24"), ["198.51.100.0", "255.255.255.0"]);
        assert_eq!(addresses("local4_25"), ["198.51.100.128"]);
        assert_eq!(addresses("local6_64"), ["2001:db8:1:2::"]);
        // Some releases of nft write `& mask == @set`.
        let text = run("nft", &["list", "chain", "inet", "apiban", "input"]).replace("== @", "@");
        for rule in [
            "ip saddr & 255.255.255.0 @local4_24 counter",
            "ip saddr & 255.255.0.0 @feed4_16 counter",
            "ip6 saddr & ffff:ffff:ffff:ffff:: @local6_64 counter",
            "ip6 saddr & ffff:ffff:8000:: @local6_33 counter",
        ] {
            assert!(text.contains(rule), "{rule} not in\n{text}");
        }
        assert!(nft.intact().unwrap());
        nft.apply(&[remove("198.51.100.0/24", Set::Local)]).unwrap();
        assert_eq!(addresses("local4_24"), ["255.255.255.0"]);
        assert_eq!(addresses("local4_25"), ["198.51.100.128"]);
        assert_eq!(objects("rule").len(), 10);
    });
}

/// Sends one datagram from `source` and tells whether it arrives. What is not banned arrives at once,
/// on the same loopback and in order: a second one from a clean source marks the end of the wait.
fn arrives(server: &UdpSocket, source: &str, clean: &str) -> bool {
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

fn server(address: &str) -> UdpSocket {
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
        nft.apply(&[add("127.0.0.9", Set::Local, 60)]).unwrap();
        assert!(!arrives(&v4, "127.0.0.9", clean));
        assert!(arrives(&v4, "127.0.0.10", clean));
        let counters = nft.counters().unwrap().unwrap();
        assert_eq!((counters.local_packets, counters.feed_packets), (1, 0));
        assert_eq!(counters.local_bytes, 29);
        nft.apply(&[remove("127.0.0.9", Set::Local)]).unwrap();
        assert!(arrives(&v4, "127.0.0.9", clean));

        nft.apply(&[add("127.0.9.0/24", Set::Feed, 60)]).unwrap();
        assert!(!arrives(&v4, "127.0.9.0", clean));
        assert!(!arrives(&v4, "127.0.9.255", clean));
        assert!(arrives(&v4, "127.0.8.255", clean));
        assert!(arrives(&v4, "127.0.10.0", clean));
        assert_eq!(nft.counters().unwrap().unwrap().feed_packets, 2);
        let set = run("nft", &["list", "set", "inet", "apiban", "feed4_24"]);
        assert!(set.contains("counter packets 2"), "{set}");

        for address in ["2001:db8:9::1/64", "2001:db8:9::2/64", "2001:db8:a::1/64"] {
            run("ip", &["addr", "add", address, "dev", "lo", "nodad"]);
        }
        let v6 = server("::1");
        nft.apply(&[add("2001:db8:9::/64", Set::Local, 60)])
            .unwrap();
        assert!(!arrives(&v6, "2001:db8:9::1", "::1"));
        assert!(!arrives(&v6, "2001:db8:9::2", "::1"));
        assert!(arrives(&v6, "2001:db8:a::1", "::1"));
        nft.apply(&[
            remove("2001:db8:9::/64", Set::Local),
            add("2001:db8:9::1", Set::Feed, 60),
        ])
        .unwrap();
        assert!(!arrives(&v6, "2001:db8:9::1", "::1"));
        assert!(arrives(&v6, "2001:db8:9::2", "::1"));
    });
}

/// While the whole list is replaced again and again, a ban that stays in it must hold for every packet.
#[test]
fn a_refill_lets_nothing_through() {
    in_namespace(|| {
        let mut nft = ready();
        let mut wanted: Vec<_> = (0..20_000u32)
            .map(|n| Element {
                subnet: Subnet::host(IpAddr::V4((0x0a00_0000 + n).into())),
                set: Set::Feed,
                seconds_left: 600,
            })
            .collect();
        wanted.push(element("127.0.0.9", Set::Feed, 600));
        nft.reconcile(&wanted).unwrap();
        let v4 = server("127.0.0.1");
        let client = UdpSocket::bind(("127.0.0.9", 0)).unwrap();
        let target = v4.local_addr().unwrap();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let sender = std::thread::spawn(move || {
            let mut sent = 0u64;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                client.send_to(b"1", target).unwrap();
                sent += 1;
            }
            sent
        });
        for _ in 0..5 {
            nft.reconcile(&wanted).unwrap();
        }
        drop(stop);
        let sent = sender.join().unwrap();
        assert!(!arrives(&v4, "127.0.0.9", "127.0.0.77"));
        println!("{sent} packets during 5 refills of 20,001 elements, none arrived");
        assert!(sent > 100);
    });
}

#[test]
fn what_others_did_to_the_table_is_seen_and_mended() {
    in_namespace(|| {
        let mut nft = ready();
        let wanted = [
            element("192.0.2.1", Set::Local, 600),
            element("198.51.100.0/24", Set::Feed, 600),
        ];
        let mend = |nft: &mut Nft| {
            assert!(nft.reconcile(&wanted).unwrap().is_empty());
            assert!(nft.intact().unwrap());
            assert_eq!(addresses("local4"), ["192.0.2.1"]);
            assert_eq!(addresses("feed4_24"), ["198.51.100.0"]);
            assert_eq!(objects("rule").len(), 6);
            assert_eq!(objects("chain").len(), 1);
        };
        mend(&mut nft);
        for damage in [
            "flush ruleset",
            "delete table inet apiban",
            "flush chain inet apiban input",
            "flush table inet apiban",
            "flush set inet apiban local4",
            "delete element inet apiban feed4_24 { 198.51.100.0 }",
            "add table inet apiban { flags dormant; }",
            "chain inet apiban input { policy drop; }",
            "insert rule inet apiban input accept",
            "flush chain inet apiban input; delete chain inet apiban input",
            "flush chain inet apiban input; delete set inet apiban local6",
            "add set inet apiban mine { type ipv4_addr; }",
        ] {
            run("nft", &[damage]);
            assert!(!nft.intact().unwrap(), "{damage}");
            mend(&mut nft);
        }
        // What others do elsewhere does not matter.
        run("nft", &["add table inet other"]);
        assert!(nft.intact().unwrap());
        run("nft", &["add chain inet apiban aside"]);
        assert!(nft.intact().unwrap());
        // A change to a table that is gone says so.
        run("nft", &["flush ruleset"]);
        let error = nft.apply(&[add("192.0.2.2", Set::Local, 9)]).unwrap_err();
        assert!(matches!(error, Error::Lost(_)), "{error:?}");
    });
}

#[test]
fn a_restart_adopts_what_is_there() {
    in_namespace(|| {
        let mut first = ready();
        first
            .apply(&[
                add("127.0.0.9", Set::Local, 600),
                add("192.0.2.2", Set::Local, 600),
                add("192.0.2.3", Set::Feed, 600),
                add("2001:db8::/64", Set::Local, 600),
            ])
            .unwrap();
        let v4 = server("127.0.0.1");
        assert!(!arrives(&v4, "127.0.0.9", "127.0.0.1"));
        drop(first);

        let mut second = Nft::new("apiban").unwrap();
        let rest = second
            .reconcile(&[
                element("127.0.0.9", Set::Local, 600),
                element("192.0.2.2", Set::Local, 60),
                element("192.0.2.4", Set::Feed, 600),
                element("2001:db8::/64", Set::Local, 600),
            ])
            .unwrap();
        assert!(rest.is_empty());
        assert!(!arrives(&v4, "127.0.0.9", "127.0.0.1"));
        assert_eq!(addresses("local4"), ["127.0.0.9", "192.0.2.2"]);
        assert!(elements("local4")[1].1 <= 60);
        assert_eq!(addresses("feed4"), ["192.0.2.4"]);
        assert_eq!(addresses("local6_64"), ["2001:db8::"]);
        assert_eq!(objects("rule").len(), 6);
        assert!(second.intact().unwrap());
        // The rules' counters lived on.
        assert_eq!(second.counters().unwrap().unwrap().local_packets, 2);
    });
}

#[test]
fn the_operators_tables_are_never_touched() {
    in_namespace(|| {
        let own = "table inet mine { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; \
                   chain input { type filter hook input priority 0; policy accept; \
                   ip saddr @s drop; }; }; table inet apiban { chain x { accept; }; }";
        run("nft", &[own]);
        let before = run("nft", &["list", "ruleset"]);
        let mut nft = Nft::new("apiban").unwrap();
        for error in [
            nft.reset().unwrap_err(),
            nft.reconcile(&[]).unwrap_err(),
            nft.probe().unwrap_err(),
        ] {
            assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
            assert!(error.to_string().contains("nft_table"), "{error}");
        }
        nft.remove().unwrap();
        assert_eq!(run("nft", &["list", "ruleset"]), before);
        let mut other = Nft::new("sip_bans").unwrap();
        other.reset().unwrap();
        other.apply(&[add("192.0.2.7", Set::Local, 60)]).unwrap();
        other.remove().unwrap();
        assert_eq!(run("nft", &["list", "ruleset"]), before);
        assert!(Nft::new("x; flush ruleset").is_err());
    });
}
