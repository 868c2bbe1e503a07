//! Every way into the module once: script functions, commands, statistics, variables, event routes, other
//! modules' lists, feed, firewall and state file, from start to end.
//!
//! It looks at little: `tests/tools/valgrind` runs it under memcheck, which looks at everything. Needs root.

use apiban_testing::feed_server::{Fault, FeedServer, Options};
use apiban_testing::kamailio::Kamailio;
use apiban_testing::netns::in_namespace;
use apiban_testing::sip::Answer;
use apiban_testing::wait::{wait_until, SOON};
use serde_json::json;

/// One branch for each function; the request's user says which.
const SCRIPT: &str = r#"
    switch ($rU) {
    case "check": apiban_check("192.0.2.1"); apiban_check("$hdr(X-IP)"); break;
    case "block": apiban_block("203.0.113.1"); apiban_block("203.0.113.2", "1"); break;
    case "reason": apiban_block("$hdr(X-IP)", "60", "$ua"); break;
    case "unblock": apiban_unblock("203.0.113.1"); apiban_unblock(); break;
    case "wrong": apiban_block("$rU"); apiban_block("203.0.113.3", "$rU"); apiban_unblock("$rU"); break;
    case "self": apiban_block(); break;
    }
"#;

const ROUTES: &str = r#"
    event_route[core:msg-received] { if (apiban_check()) { drop; } }
    event_route[apiban:block] { xlog("L_INFO", "event block $apiban(ip) $apiban(source) $apiban(reason)\n"); }
    event_route[apiban:expired] { xlog("L_INFO", "event expired $apiban(ip) $apiban(count)\n"); }
    event_route[apiban:sync] { xlog("L_INFO", "event sync $apiban(count)\n"); }
"#;

const COMMANDS: &[&[&str]] = &[
    &["apiban.status"],
    &["apiban.check", "192.0.2.7"],
    &["apiban.check", "127.0.0.1"],
    &["apiban.check", "::1%x"],
    &["apiban.block", "2001:db8::1", "30", "by hand"],
    &["apiban.block", "198.51.100.0/24"],
    &["apiban.block", "10.0.0.0/8", "-1"],
    &["apiban.list", "all", "300"],
    &["apiban.list", "local", "1", "1"],
    &["apiban.top", "5"],
    &["apiban.unblock", "2001:db8::1"],
    &["apiban.unblock", "8.8.8.8"],
    &["apiban.flush", "peer"],
    &["apiban.flush", "nothing"],
    &["apiban.reload", "force"],
];

#[test]
fn every_entry_point_from_start_to_end() {
    in_namespace(|| {
        let feed = FeedServer::start(Options::new("key")).expect("a feed");
        let listed: Vec<String> = (0..300)
            .map(|n| format!("198.18.{}.{}", n / 250, n % 250))
            .collect();
        feed.list(&listed);
        let kamailio = Kamailio::builder()
            .param("api_key", "key")
            .param("api_url", feed.url())
            .param("poll_interval", 1)
            .param("resync_interval", 2)
            .param("http_timeout", 2)
            .param("rate_limit_requests", 1000)
            .param("rate_limit_window", 1)
            .param("trust", "192.0.2.200 2001:db8:5::/48")
            .param("firewall", "nft")
            .load("dispatcher")
            .modparam("dispatcher", "list_file", "@DIR@/dispatcher")
            .file(
                "dispatcher",
                "1 sip:192.0.2.201:5060\n1 sip:[2001:db8:6::1]:5060\n",
            )
            .global("received_route_mode=1")
            .children(1)
            .request_route(SCRIPT)
            .routes(ROUTES)
            .start();
        wait_until("the list", SOON, || {
            kamailio.statistic("apiban", "feed_entries") == 300
        });
        let mut sip = kamailio.udp("127.0.0.5");
        for user in ["check", "block", "reason", "unblock", "wrong", "self"] {
            for ip in ["203.0.113.77", "2001:db8:7::1", "junk"] {
                let id = format!("{user}-{ip}");
                let text = sip
                    .text("INVITE", &id)
                    .replace("sip:test@", &format!("sip:{user}@"))
                    .replace("User-Agent", &format!("X-IP: {ip}\r\nUser-Agent"));
                assert_eq!(sip.raw(text.as_bytes()), Answer::Status(200), "{text}");
            }
        }
        let mut tcp = kamailio.tcp("127.0.0.6");
        assert_eq!(tcp.options(), Answer::Status(200));
        for words in COMMANDS {
            // Some are wrong on purpose: the fault is the answer.
            let _ = kamailio.kamcmd(words);
            let _ = kamailio.jsonrpc(words[0], json!(words[1..]));
        }
        for fault in [
            Fault::Junk,
            Fault::HalfJson,
            Fault::Status(500, None),
            Fault::Hang,
            Fault::Poison,
        ] {
            let before = feed.requests().len();
            feed.set_fault(fault, Some(1));
            let _ = kamailio.jsonrpc("apiban.reload", json!([]));
            wait_until("another request", SOON, || feed.requests().len() > before);
        }
        for event in [
            "event block 203.0.113.77",
            "event expired 203.0.113.2",
            "event sync 300",
        ] {
            kamailio.wait_for_log(event, SOON);
        }
        let stopped = kamailio.stop();
        assert!(stopped.status.success(), "{}", stopped.log);
        assert!(!stopped.log.contains("internal error"), "{}", stopped.log);
    });
}
