//! The kernel's part of the bans over time: ruleset changed from outside, Kamailio restarted or killed,
//! started without the right to change the firewall. Needs root, `nft` and `ip`.

use std::time::Instant;

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::netns::{addresses, held, in_namespace, objects, run};
use apiban_testing::sip::Answer;
use apiban_testing::veth::{server, Host};
use apiban_testing::wait::{wait_until, SOON};
use tempfile::TempDir;

fn nft(line: &str) {
    run("nft", &[line]);
}

fn state(kamailio: &Kamailio) -> String {
    let status = kamailio.ask("apiban.status", &[]);
    status["firewall"]["state"].as_str().unwrap().to_owned()
}

#[track_caller]
fn wait_held(set: &str, address: &str) {
    wait_until(&format!("{address} in {set}"), SOON, || {
        held(set, address).is_some()
    });
}

/// A server whose state outlives it.
fn keeping(state: &TempDir) -> Builder {
    let path = state.path().join("apiban.state");
    server()
        .param("firewall", "nft")
        .param("state_file", path.to_str().unwrap())
}

/// Waits until the state file names a ban.
#[track_caller]
fn wait_saved(state: &TempDir, address: &str) {
    wait_until(&format!("{address} in the state file"), SOON * 4, || {
        let bytes = std::fs::read(state.path().join("apiban.state")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(address)
    });
}

#[test]
fn what_is_taken_away_comes_back_with_the_time_left() {
    in_namespace(|| {
        let feed = FeedServer::start(Options::new("key")).unwrap();
        feed.list(&["198.51.100.7", "2001:db8:9::9"]);
        let kamailio = server_without_cable()
            .param("api_key", "key")
            .param("api_url", feed.url())
            .start();
        // Somebody else's table is nobody's business but theirs.
        nft("add table inet other; add set inet other s { type ipv4_addr; }");
        kamailio.ask("apiban.block", &["192.0.2.7", "300"]);
        kamailio.ask("apiban.block", &["192.0.3.0/24", "300"]);
        let banned = Instant::now();
        wait_held("hosts4", "198.51.100.7");
        wait_held("hosts4", "192.0.2.7");
        for damage in [
            "delete table inet apiban",
            "flush table inet apiban",
            "flush set inet apiban hosts4; flush set inet apiban nets4_24",
            "delete element inet apiban hosts4 { 192.0.2.7 }",
            "delete element inet apiban nets4_24 { 192.0.3.0 }",
            "flush chain inet apiban prerouting; delete chain inet apiban prerouting",
            "flush ruleset",
        ] {
            let begin = Instant::now();
            nft(damage);
            wait_until(&format!("all to be back after {damage}"), SOON, || {
                objects("chain").len() == 2
                    && objects("rule").len() >= 5
                    && held("hosts4", "198.51.100.7").is_some()
                    && held("hosts6", "2001:db8:9::9").is_some()
                    && held("hosts4", "192.0.2.7").is_some()
                    && held("nets4_24", "192.0.3.0").is_some()
            });
            println!("back after {:?}: {damage}", begin.elapsed());
            let left = held("hosts4", "192.0.2.7").unwrap();
            let most = 301 - banned.elapsed().as_secs();
            assert!((250..=most).contains(&left), "{left} of {most}: {damage}");
            assert_eq!(objects("rule").len(), 5, "{damage}");
            let other = objects("table")
                .iter()
                .any(|table| table["name"] == "other");
            assert_eq!(other, damage != "flush ruleset");
            wait_until("ok again", SOON, || state(&kamailio) == "ok");
        }
        assert!(kamailio.stop().status.success());
    });
}

/// With no host to talk to.
fn server_without_cable() -> Builder {
    Kamailio::builder().param("firewall", "nft")
}

#[test]
fn at_the_end_our_table_goes_or_stays_as_configured() {
    in_namespace(|| {
        let host = Host::connect();
        let dir = tempfile::tempdir().unwrap();
        nft("add table inet other");
        let kamailio = keeping(&dir).start();
        kamailio.ask("apiban.block", &["10.9.0.2"]);
        wait_held("hosts4", "10.9.0.2");
        let stopped = kamailio.stop();
        println!("stop with firewall_flush=1: {:?}", stopped.took);
        assert!(stopped.status.success(), "{}", stopped.log);
        let tables = objects("table");
        assert!(tables.len() == 1 && tables[0]["name"] == "other");

        // The next one finds the ban in the state file, with what is left of it.
        let kamailio = keeping(&dir).param("firewall_flush", 0).start();
        wait_held("hosts4", "10.9.0.2");
        let mut attacker = host.udp("10.9.0.2", &kamailio);
        kamailio.ask("apiban.block", &["10.9.7.0/24"]);
        kamailio.ask("apiban.block", &["10.9.0.3", "20"]);
        wait_held("hosts4", "10.9.0.3");
        wait_held("nets4_24", "10.9.7.0");
        let (handle, rules) = (objects("table"), objects("rule").len());
        let stopped = kamailio.stop();
        println!("stop with firewall_flush=0: {:?}", stopped.took);
        assert_eq!(objects("table"), handle);
        assert!((500..=600).contains(&held("hosts4", "10.9.0.2").unwrap()));
        assert!((1..=20).contains(&held("hosts4", "10.9.0.3").unwrap()));

        // What no table holds is no ban: a refill makes kernel and tables agree.
        nft("add element inet apiban hosts4 { 192.0.2.99 timeout 1h }");
        let kamailio = keeping(&dir).param("firewall_flush", 0).start();
        wait_until("ok", SOON, || state(&kamailio) == "ok");
        assert_eq!(objects("table"), handle, "adopted, not made anew");
        assert_eq!(objects("rule").len(), rules);
        assert_eq!(addresses("hosts4"), ["10.9.0.2", "10.9.0.3"]);
        assert_eq!(addresses("nets4_24"), ["10.9.7.0"]);
        assert!(attacker.send("OPTIONS").is_ok());
        kamailio.ask("apiban.unblock", &["10.9.0.2"]);
        wait_until("the lift", SOON, || held("hosts4", "10.9.0.2").is_none());
        let mut lifted = host.udp("10.9.0.2", &kamailio);
        assert_eq!(lifted.options(), Answer::Status(200));
        drop(kamailio);
    });
}

#[test]
fn after_a_crash_nothing_is_there_twice() {
    for flush in [0, 1] {
        in_namespace(move || {
            let host = Host::connect();
            let dir = tempfile::tempdir().unwrap();
            let build = || keeping(&dir).param("firewall_flush", flush);
            let kamailio = build().start();
            kamailio.ask("apiban.block", &["10.9.0.2", "600", "scan"]);
            wait_saved(&dir, "10.9.0.2");
            kamailio.ask("apiban.block", &["10.9.7.0/24", "600"]);
            wait_saved(&dir, "10.9.7.0");
            wait_held("nets4_24", "10.9.7.0");
            // Too late for the state file.
            kamailio.ask("apiban.block", &["10.9.0.3", "600"]);
            wait_held("hosts4", "10.9.0.3");
            kamailio.kill9();
            assert!(held("hosts4", "10.9.0.2").is_some(), "the kernel goes on");
            assert_eq!(objects("rule").len(), 4);

            for round in 0..3 {
                let kamailio = build().start();
                wait_until("ok", SOON, || state(&kamailio) == "ok");
                let rules = objects("rule");
                assert_eq!(rules.len(), 4, "{rules:?}");
                assert_eq!((objects("chain").len(), objects("set").len()), (2, 3));
                assert_eq!(addresses("hosts4"), ["10.9.0.2"], "round {round}");
                assert_eq!(addresses("nets4_24"), ["10.9.7.0"]);
                let verdict = kamailio.verdict("10.9.0.2");
                assert_eq!(verdict["reason"], "scan");
                let left = verdict["expires"].as_u64().unwrap();
                let kernel = held("hosts4", "10.9.0.2").unwrap();
                assert!(left.abs_diff(kernel) <= 2, "{left} {kernel}");
                let verdict = kamailio.verdict("10.9.0.3");
                assert_eq!(verdict["banned"], 0);
                let mut other = host.udp("10.9.0.3", &kamailio);
                assert_eq!(other.options(), Answer::Status(200));
                kamailio.kill9();
            }
        });
    }
}

#[test]
fn without_cap_net_admin_all_else_works_and_one_line_says_so() {
    let dropped: &[&str] = &[
        "--reuid",
        "kamailio",
        "--regid",
        "kamailio",
        "--init-groups",
    ];
    for never_root in [false, true] {
        in_namespace(move || {
            let host = Host::connect();
            let feed = FeedServer::start(Options::new("key")).unwrap();
            feed.list(&["10.9.0.5"]);
            let builder = checking()
                .param("api_key", "key")
                .param("api_url", feed.url());
            let kamailio = match never_root {
                true => builder.setpriv(dropped),
                false => builder.user("kamailio"),
            }
            .start();
            wait_until("the feed", SOON * 4, || {
                kamailio.statistic("apiban", "feed_entries") == 1
            });
            wait_until("the state", SOON, || state(&kamailio) == "no_permission");
            kamailio.ask("apiban.block", &["10.9.0.2"]);
            kamailio.ask("apiban.reload", &[]);
            for address in ["10.9.0.2", "10.9.0.5"] {
                let mut banned = host.udp(address, &kamailio);
                assert_eq!(banned.options(), Answer::Status(403), "{address}");
            }
            let mut other = host.udp("10.9.0.3", &kamailio);
            assert_eq!(other.options(), Answer::Status(200));
            assert!(objects("table").is_empty());
            assert_eq!(kamailio.statistic("apiban", "firewall_errors"), 1);
            let stopped = kamailio.stop();
            let lines: Vec<_> = stopped
                .log
                .lines()
                .filter(|line| line.contains("CAP_NET_ADMIN"))
                .collect();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].contains("AmbientCapabilities=CAP_NET_ADMIN"));
            println!("{}", lines[0]);
            assert!(stopped.status.success(), "{}", stopped.log);
        });
    }
}

#[test]
fn as_an_ordinary_user_with_cap_net_admin_bans_are_in_the_kernel() {
    in_namespace(|| {
        let host = Host::connect();
        let kamailio = checking()
            .setpriv(&[
                "--reuid",
                "kamailio",
                "--regid",
                "kamailio",
                "--init-groups",
                "--inh-caps",
                "+net_admin",
                "--ambient-caps",
                "+net_admin",
            ])
            .start();
        kamailio.ask("apiban.block", &["10.9.0.2"]);
        wait_held("hosts4", "10.9.0.2");
        let mut banned = host.udp("10.9.0.2", &kamailio);
        assert!(kamailio.drops_on(&mut banned));
        assert_eq!(state(&kamailio), "ok");
        assert_eq!(kamailio.statistic("apiban", "blocked_local"), 0);
        assert!(kamailio.stop().status.success());
        assert!(objects("table").is_empty());
    });
}

/// A server that answers 403 to who is banned.
fn checking() -> Builder {
    server()
        .release(&Release::Host)
        .param("firewall", "nft")
        .request_route(r#"if (apiban_check()) { sl_send_reply("403", "Banned"); exit; }"#)
}
