//! Bans of a real Kamailio in the kernel: what is banned is dropped by nf_tables before any worker wakes.
//! Each test has network namespaces of its own, and attackers behind a cable. Needs root, `nft` and `ip`.

use std::time::{Duration, Instant};

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::netns::{addresses, dropped, elements, held, in_namespace, objects, run};
use apiban_testing::sip::{Answer, Sip};
use apiban_testing::veth::{server, tell, Host};
use apiban_testing::wait::{wait_until, SOON};
use nix::sys::signal::Signal;
use serde_json::json;

/// Waits until the kernel has (or has no longer) an element; returns how long that took.
#[track_caller]
fn wait_held(set: &str, address: &str, wanted: bool) -> Duration {
    let begin = Instant::now();
    let what = format!("{address} in {set}: {wanted}");
    wait_until(&what, SOON, || held(set, address).is_some() == wanted);
    begin.elapsed()
}

/// A Kamailio with nft that fetches its list from `feed`.
fn fed(feed: &FeedServer) -> Builder {
    server()
        .param("firewall", "nft")
        .param("api_key", "key")
        .param("api_url", feed.url())
}

/// Five packets of a banned client must end in the kernel: its counter grows, no worker sees one.
#[track_caller]
fn assert_kernel_drops(kamailio: &Kamailio, banned: &mut Sip, set: &str) {
    let (before, checks) = (dropped(set), kamailio.statistic("apiban", "checks"));
    for _ in 0..5 {
        banned.send("OPTIONS").unwrap();
    }
    wait_until("the kernel's counter", SOON, || dropped(set) >= before + 5);
    assert_eq!(kamailio.statistic("apiban", "checks"), checks);
    wait_until("the counter in the status", 2 * SOON, || {
        kamailio.ask("apiban.status", &[])["firewall"]["dropped"].as_u64() >= Some(before + 5)
    });
}

#[test]
fn a_banned_source_is_dropped_by_the_kernel_until_it_is_lifted() {
    in_namespace(|| {
        let host = Host::connect();
        for release in Release::all() {
            let kamailio = server().param("firewall", "nft").release(&release).start();
            let mut attacker = host.udp("10.9.0.2", &kamailio);
            let mut neighbour = host.udp("10.9.0.3", &kamailio);
            assert_eq!(attacker.options(), Answer::Status(200));
            assert_eq!(attacker.invite(), Answer::Status(200));
            let took = wait_held("hosts4", "10.9.0.2", true);
            println!("{}: ban to kernel {took:?}", release.name());
            assert!((590..=600).contains(&held("hosts4", "10.9.0.2").unwrap()));
            assert_kernel_drops(&kamailio, &mut attacker, "hosts4");
            assert_eq!(neighbour.options(), Answer::Status(200));

            tell(&mut neighbour, "REGISTER", "10.9.0.2");
            let took = wait_held("hosts4", "10.9.0.2", false);
            println!("{}: lift to kernel {took:?}", release.name());
            assert_eq!(attacker.options(), Answer::Status(200));
            assert!(kamailio.stop().status.success());
        }
    });
}

#[test]
fn an_ipv6_source_is_banned_with_its_network() {
    in_namespace(|| {
        let host = Host::connect();
        let kamailio = server().param("firewall", "nft").start();
        let mut attacker = host.udp("2001:db8:2::2", &kamailio);
        let mut sibling = host.udp("2001:db8:2::ffff:1", &kamailio);
        let mut other = host.udp("2001:db8:3::2", &kamailio);
        assert_eq!(sibling.options(), Answer::Status(200));
        assert_eq!(attacker.invite(), Answer::Status(200));
        wait_held("nets6_64", "2001:db8:2::", true);
        assert_kernel_drops(&kamailio, &mut attacker, "nets6_64");
        assert_kernel_drops(&kamailio, &mut sibling, "nets6_64");
        assert_eq!(other.options(), Answer::Status(200));
        // Lifting any address of the network lifts its ban.
        tell(&mut other, "REGISTER", "2001:db8:2::77");
        wait_held("nets6_64", "2001:db8:2::", false);
        assert_eq!(sibling.options(), Answer::Status(200));

        // In the server's own network only the source itself is banned.
        let mut near = host.udp("2001:db8:1::66", &kamailio);
        assert_eq!(near.invite(), Answer::Status(200));
        wait_held("hosts6", "2001:db8:1::66", true);
        assert_kernel_drops(&kamailio, &mut near, "hosts6");
        let mut beside = host.udp("2001:db8:1::67", &kamailio);
        assert_eq!(beside.options(), Answer::Status(200));
    });
}

#[test]
fn a_forged_ban_of_the_ipv6_router_does_not_cut_the_server_off() {
    in_namespace(|| {
        let host = Host::connect();
        let kamailio = server().param("firewall", "nft").start();
        // The host is the router to 2001:db8:3::/64.
        let router = "2001:db8:1::fe";
        let mut forger = host.udp(router, &kamailio);
        let mut client = host.udp("2001:db8:3::2", &kamailio);
        let route = format!("-6 route add 2001:db8:3::/64 via {router} dev wire");
        run("ip", &route.split_whitespace().collect::<Vec<_>>());
        assert_eq!(forger.invite(), Answer::Status(200));
        wait_held("hosts6", router, true);
        assert_kernel_drops(&kamailio, &mut forger, "hosts6");
        // Sooner or later both forget where the other is, and have to ask.
        run("ip", &["-6", "neigh", "flush", "dev", "wire"]);
        host.run(|| run("ip", &["-6", "neigh", "flush", "dev", "wire"]));
        assert_eq!(client.options(), Answer::Status(200));
    });
}

#[test]
fn an_operator_bans_prefixes() {
    in_namespace(|| {
        let host = Host::connect();
        let kamailio = server().param("firewall", "nft").start();
        let mut inside = host.udp("10.9.7.200", &kamailio);
        let mut outside = host.udp("10.9.8.1", &kamailio);
        kamailio.ask("apiban.block", &["10.9.7.0/24", "300", "a whole network"]);
        kamailio.ask("apiban.block", &["2001:db8:7::/48", "300"]);
        kamailio.ask("apiban.block", &["10.9.7.7", "300"]);
        wait_held("nets4_24", "10.9.7.0", true);
        wait_held("nets6_48", "2001:db8:7::", true);
        assert_kernel_drops(&kamailio, &mut inside, "nets4_24");
        let mut inside6 = host.udp("2001:db8:7:9::1", &kamailio);
        assert_kernel_drops(&kamailio, &mut inside6, "nets6_48");
        assert_eq!(outside.options(), Answer::Status(200));
        // A prefix and an address in it are two bans.
        kamailio.ask("apiban.unblock", &["10.9.7.0/24"]);
        wait_held("nets4_24", "10.9.7.0", false);
        assert!(held("hosts4", "10.9.7.7").is_some());
        assert_eq!(inside.options(), Answer::Status(200));
        // Nobody bans the server together with its network.
        let fault = kamailio.jsonrpc("apiban.block", json!(["10.9.0.0/24"]));
        assert_eq!(fault.unwrap_err().code, 403);
        // Flushing the table empties the kernel's sets too.
        kamailio.ask("apiban.flush", &["local"]);
        wait_held("hosts4", "10.9.7.7", false);
        wait_held("nets6_48", "2001:db8:7::", false);
    });
}

#[test]
fn the_kernel_ends_bans_by_itself() {
    in_namespace(|| {
        let host = Host::connect();
        let kamailio = server().param("firewall", "nft").start();
        let mut attacker = host.udp("10.9.0.2", &kamailio);
        kamailio.ask("apiban.block", &["10.9.0.2", "3"]);
        wait_held("hosts4", "10.9.0.2", true);
        assert_kernel_drops(&kamailio, &mut attacker, "hosts4");
        // Even where the process that looks after the firewall does nothing any more.
        kamailio.signal(kamailio.pid_of("APIBAN updater"), Signal::SIGSTOP);
        wait_until("the end of the ban", SOON * 2, || {
            held("hosts4", "10.9.0.2").is_none()
        });
        assert_eq!(attacker.options(), Answer::Status(200));
        kamailio.signal(kamailio.pid_of("APIBAN updater"), Signal::SIGCONT);

        // A longer ban of the same address counts in the kernel too, a shorter one does not.
        for (ttl, least, most) in [("100", 90, 100), ("5000", 4900, 5000), ("7", 4900, 5000)] {
            kamailio.ask("apiban.block", &["10.9.0.2", ttl]);
            wait_until(&format!("the end of a ban for {ttl}"), SOON, || {
                held("hosts4", "10.9.0.2").is_some_and(|left| (least..=most).contains(&left))
            });
        }
    });
}

#[test]
fn the_feed_stands_in_the_kernel() {
    in_namespace(|| {
        let host = Host::connect();
        let feed = FeedServer::start(Options::new("key")).unwrap();
        let listed: Vec<String> = (0..600)
            .map(|n| format!("198.51.{}.{}", n / 200, n % 200 + 1))
            .chain(["10.9.0.5".to_owned(), "2001:db8:5::5".to_owned()])
            .collect();
        feed.list(&listed);
        let kamailio = fed(&feed).start();
        let begin = Instant::now();
        wait_until("the list in the kernel", SOON * 4, || {
            objects("set").len() >= 2 && addresses("hosts4").len() == 601
        });
        println!("602 listed addresses in the kernel: {:?}", begin.elapsed());
        wait_held("hosts6", "2001:db8:5::5", true);
        // As long as the service lists them, which is a week from their control ID.
        assert!(elements("hosts4").iter().all(|(_, left)| *left > 600_000));
        let mut attacker = host.udp("10.9.0.5", &kamailio);
        assert_kernel_drops(&kamailio, &mut attacker, "hosts4");
        assert_kernel_drops(
            &kamailio,
            &mut host.udp("2001:db8:5::5", &kamailio),
            "hosts6",
        );

        // A local ban of a listed address, lifted again, leaves the feed's.
        kamailio.ask("apiban.block", &["10.9.0.5", "3000000"]);
        let left = || held("hosts4", "10.9.0.5").unwrap_or(0);
        wait_until("the later end of both", SOON, || left() > 2_000_000);
        kamailio.ask("apiban.unblock", &["10.9.0.5"]);
        wait_until("the feed's end", SOON, || {
            (600_000..700_000).contains(&left())
        });
        assert_kernel_drops(&kamailio, &mut attacker, "hosts4");

        feed.delist(&["10.9.0.5"]);
        kamailio.ask("apiban.reload", &[]);
        wait_until("the delisted address to go", SOON * 4, || {
            held("hosts4", "10.9.0.5").is_none()
        });
        assert_eq!(addresses("hosts4").len(), 600);
        assert_eq!(attacker.options(), Answer::Status(200));
        // Flushing the feed lifts its bans and no others.
        kamailio.ask("apiban.block", &["10.9.0.9"]);
        kamailio.ask("apiban.flush", &["feed"]);
        wait_until("only the local ban to be left", SOON, || {
            addresses("hosts4") == ["10.9.0.9"] && addresses("hosts6").is_empty()
        });
    });
}

/// The list is flushed in the middle of a fetch: in the end table and kernel hold the same, the whole list.
#[test]
fn a_flush_during_a_fetch_leaves_table_and_kernel_in_agreement() {
    const LISTED: usize = 5_000;
    const ROUNDS: usize = 12;
    in_namespace(|| {
        let _host = Host::connect();
        let feed = FeedServer::start(Options::new("key")).unwrap();
        let listed: Vec<String> = (0..LISTED)
            .map(|n| format!("198.18.{}.{}", n / 200, n % 200 + 1))
            .collect();
        feed.list(&listed);
        let kamailio = fed(&feed)
            .param("rate_limit_requests", 1000)
            .param("rate_limit_window", 1)
            .param("poll_interval", 80_000)
            .start();
        let entries = || kamailio.statistic("apiban", "feed_entries") as usize;
        let agree = || entries() == LISTED && addresses("hosts4").len() == LISTED;
        wait_until("the list in table and kernel", SOON * 4, agree);
        let mut in_the_middle = 0;
        for round in 0..ROUNDS {
            kamailio.ask("apiban.flush", &["feed"]);
            kamailio.ask("apiban.reload", &[]);
            let some = LISTED * (round % 4 + 1) / 6;
            wait_until("a part of the list", SOON, || entries() >= some);
            kamailio.ask("apiban.flush", &["feed"]);
            in_the_middle += usize::from(entries() < LISTED);
            kamailio.ask("apiban.reload", &[]);
            wait_until("the list in table and kernel", SOON * 4, agree);
            let status = kamailio.ask("apiban.status", &[]);
            assert_eq!(status["firewall"]["state"], "ok", "{status}");
        }
        println!("{in_the_middle} of {ROUNDS} flushes met a fetch");
        assert!(in_the_middle > 0);
    });
}

#[test]
fn the_scope_decides_which_bans_go_to_the_kernel() {
    for scope in ["feed", "local", "all"] {
        in_namespace(move || {
            let _host = Host::connect();
            let feed = FeedServer::start(Options::new("key")).unwrap();
            feed.list(&["198.51.100.7"]);
            let kamailio = fed(&feed).param("firewall_scope", scope).start();
            kamailio.ask("apiban.block", &["192.0.2.7"]);
            wait_until("the feed", SOON * 4, || {
                kamailio.statistic("apiban", "feed_entries") == 1
            });
            let (fed, local) = (scope != "local", scope != "feed");
            if fed {
                wait_held("hosts4", "198.51.100.7", true);
            }
            if local {
                wait_held("hosts4", "192.0.2.7", true);
            }
            // A refill keeps to it as well.
            run("nft", &["flush", "ruleset"]);
            wait_until("the refill", SOON, || {
                !fed || held("hosts4", "198.51.100.7").is_some()
            });
            wait_until("the refill", SOON, || {
                !local || held("hosts4", "192.0.2.7").is_some()
            });
            assert_eq!(held("hosts4", "198.51.100.7").is_some(), fed, "{scope}");
            assert_eq!(held("hosts4", "192.0.2.7").is_some(), local, "{scope}");
            for (ip, source) in [("198.51.100.7", "feed"), ("192.0.2.7", "local")] {
                assert_eq!(kamailio.verdict(ip)["source"], source);
            }
        });
    }
}

#[test]
fn observed_bans_touch_no_kernel() {
    in_namespace(|| {
        let host = Host::connect();
        let feed = FeedServer::start(Options::new("key")).unwrap();
        feed.list(&["198.51.100.7"]);
        let kamailio = fed(&feed).param("mode", "observe").start();
        let mut attacker = host.udp("10.9.0.2", &kamailio);
        assert_eq!(attacker.invite(), Answer::Status(200));
        kamailio.ask("apiban.block", &["10.9.7.0/24"]);
        wait_until("the feed", SOON * 4, || {
            kamailio.statistic("apiban", "feed_entries") == 1
        });
        assert_eq!(attacker.options(), Answer::Status(200));
        assert_eq!(kamailio.verdict("10.9.0.2")["banned"], 1);
        assert!(kamailio.statistic("apiban", "blocked_local") >= 1);
        assert!(objects("table").is_empty(), "{:?}", objects("table"));
        assert!(kamailio.stop().status.success());
    });
}
