//! Trust and the kernel: whoever is trusted is in no set of the kernel, by whatever way a ban came in, and
//! at no moment. Needs root, `nft` and `ip`.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::kamailio::{Builder, Kamailio};
use apiban_testing::netns::{addresses, held, in_namespace, objects, run};
use apiban_testing::sip::Answer;
use apiban_testing::veth::{server, Host};
use apiban_testing::wait::{wait_until, SOON};
use serde_json::json;
use tempfile::TempDir;

#[track_caller]
fn wait_held(set: &str, address: &str, wanted: bool) {
    wait_until(&format!("{address} in {set}: {wanted}"), SOON * 2, || {
        held(set, address).is_some() == wanted
    });
}

/// A server with a feed, a trust file and a state file in `dir`.
fn with_feed(dir: &TempDir, feed: &FeedServer) -> Builder {
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    server()
        .param("firewall", "nft")
        .param("api_key", "key")
        .param("api_url", feed.url())
        .param("trust_file", file("trust"))
        .param("state_file", file("apiban.state"))
        // The lists of these tests are short, and what is asked for is meant.
        .param("feed_shrink_limit", 100)
        .param("rate_limit_requests", 1000)
}

/// Everything that happens to the namespace's elements, as nft sees it.
struct Monitor {
    nft: Child,
    path: PathBuf,
}

impl Monitor {
    fn start(dir: &TempDir) -> Monitor {
        let path = dir.path().join("monitor");
        let nft = Command::new("stdbuf")
            .args(["-oL", "nft", "monitor"])
            .stdout(File::create(&path).unwrap())
            .spawn()
            .unwrap();
        let monitor = Monitor { nft, path };
        wait_until("nft monitor to listen", SOON, || {
            run("nft", &["add table inet probe; delete table inet probe"]);
            monitor.text().contains("probe")
        });
        monitor
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap()
    }

    /// Whether an element, address or network, was ever added.
    fn added(&self, address: &str) -> bool {
        self.text()
            .lines()
            .filter(|line| line.starts_with("add element"))
            .any(|line| line.split_whitespace().any(|word| word == address))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.nft.kill();
        let _ = self.nft.wait();
    }
}

#[test]
fn who_becomes_trusted_leaves_the_kernel() {
    in_namespace(|| {
        let host = Host::connect();
        let dir = tempfile::tempdir().unwrap();
        let trust = |text: &str| std::fs::write(dir.path().join("trust"), text).unwrap();
        trust("203.0.113.1\n");
        let feed = FeedServer::start(Options::new("key")).unwrap();
        feed.list(&["10.9.0.5", "198.51.100.7"]);
        let kamailio = with_feed(&dir, &feed).start();
        for subnet in ["10.9.0.2", "10.9.0.3", "10.9.7.0/24", "2001:db8:2::/64"] {
            kamailio.ask("apiban.block", &[subnet]);
        }
        wait_held("hosts4", "10.9.0.3", true);
        wait_held("nets4_24", "10.9.7.0", true);
        wait_held("nets6_64", "2001:db8:2::", true);
        wait_held("hosts4", "10.9.0.5", true);

        trust("10.9.0.2\n10.9.0.5 # listed\n10.9.7.9\n2001:db8:2::9\n");
        let begin = Instant::now();
        kamailio.ask("apiban.reload", &[]);
        wait_held("hosts4", "10.9.0.2", false);
        println!("trusted, and out of the kernel: {:?}", begin.elapsed());
        wait_held("hosts4", "10.9.0.5", false);
        // A network that holds a trusted address is banned no longer.
        wait_held("nets4_24", "10.9.7.0", false);
        wait_held("nets6_64", "2001:db8:2::", false);
        assert_eq!(addresses("hosts4"), ["10.9.0.3", "198.51.100.7"]);
        for address in ["10.9.0.2", "10.9.0.5", "10.9.7.9", "2001:db8:2::9"] {
            let mut spared = host.udp(address, &kamailio);
            assert_eq!(spared.options(), Answer::Status(200), "{address}");
        }
        // A refill does not bring them back.
        run("nft", &["flush ruleset"]);
        wait_held("hosts4", "10.9.0.3", true);
        wait_held("hosts4", "198.51.100.7", true);
        assert_eq!(addresses("hosts4"), ["10.9.0.3", "198.51.100.7"]);

        // Trusted no longer: the list counts again, the old ban does not.
        trust("");
        kamailio.ask("apiban.reload", &[]);
        wait_held("hosts4", "10.9.0.5", true);
        assert!(held("hosts4", "10.9.0.2").is_none());
    });
}

/// The whole way of a customer who is on the list: free by one command, free after a restart, banned again
/// when the operator takes the trust back, and when its time is over.
#[test]
fn an_operator_lends_trust_to_a_customer_who_is_listed() {
    in_namespace(|| {
        let host = Host::connect();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("trust"), "").unwrap();
        let feed = FeedServer::start(Options::new("key")).unwrap();
        feed.list(&["10.9.0.5", "198.51.100.7"]);
        let kamailio = with_feed(&dir, &feed).start();
        wait_held("hosts4", "10.9.0.5", true);
        kamailio.ask("apiban.trust_add", &["10.9.0.5", "3600", "ticket 4711"]);
        let reason = |kamailio: &Kamailio| kamailio.verdict("10.9.0.5")["reason"].clone();
        assert_eq!(reason(&kamailio), "trust_add: ticket 4711");
        wait_held("hosts4", "10.9.0.5", false);
        let answered = |kamailio: &Kamailio| {
            let answer = host.udp("10.9.0.5", kamailio).options();
            assert_eq!(answer, Answer::Status(200));
        };
        answered(&kamailio);
        kamailio.stop();

        let kamailio = with_feed(&dir, &feed).start();
        assert_eq!(reason(&kamailio), "trust_add: ticket 4711");
        wait_held("hosts4", "198.51.100.7", true);
        answered(&kamailio);
        assert!(held("hosts4", "10.9.0.5").is_none());
        // Each start asks once. Nothing is fetched from here on: what the list said is remembered.
        wait_until("the request of the second start", SOON, || {
            feed.requests().len() == 2
        });
        let requests = feed.requests().len();
        kamailio.ask("apiban.trust_del", &["10.9.0.5"]);
        wait_held("hosts4", "10.9.0.5", true);
        assert_eq!(kamailio.verdict("10.9.0.5")["source"], "feed");

        kamailio.ask("apiban.trust_add", &["10.9.0.0/28", "2"]);
        wait_held("hosts4", "10.9.0.5", false);
        kamailio.wait_for_log("10.9.0.0/28 is no longer trusted, the time", SOON);
        wait_held("hosts4", "10.9.0.5", true);
        assert_eq!(feed.requests().len(), requests);
    });
}

#[test]
fn a_trusted_address_is_in_the_kernel_at_no_moment() {
    in_namespace(|| {
        let host = Host::connect();
        let dir = tempfile::tempdir().unwrap();
        let trust = |text: &str| std::fs::write(dir.path().join("trust"), text).unwrap();
        trust("");
        let feed = FeedServer::start(Options::new("key")).unwrap();
        feed.list(&["10.9.0.5", "198.51.100.7", "10.9.0.1", "2001:db8:5::5"]);
        // A run that trusts nobody leaves a state file in which all are banned.
        let careless = with_feed(&dir, &feed).start();
        for subnet in ["10.9.0.6", "192.0.2.6", "10.9.6.0/24"] {
            careless.ask("apiban.block", &[subnet]);
        }
        wait_held("hosts4", "192.0.2.6", true);
        wait_held("hosts4", "10.9.0.5", true);
        assert!(careless.stop().status.success());

        trust("10.9.0.2\n10.9.0.6\n10.9.6.6\n2001:db8:2::2\n");
        let monitor = Monitor::start(&dir);
        let kamailio = with_feed(&dir, &feed)
            .param("trust", "10.9.0.5, 2001:db8:5::5")
            .start();
        wait_held("hosts4", "192.0.2.6", true);
        wait_held("hosts4", "198.51.100.7", true);
        // By script, from the trusted source and from a neighbour in its IPv6 network.
        for address in ["10.9.0.2", "2001:db8:2::2", "10.9.0.9", "2001:db8:2::3"] {
            let mut caller = host.udp(address, &kamailio);
            assert_eq!(caller.options(), Answer::Status(200), "{address}");
            assert_eq!(caller.invite(), Answer::Status(200), "{address}");
        }
        // By an operator, alone and inside a network; and the server itself.
        for subnet in ["10.9.0.2", "10.9.6.0/24", "2001:db8::/32", "10.9.0.1"] {
            let fault = kamailio
                .jsonrpc("apiban.block", json!([subnet]))
                .unwrap_err();
            assert_eq!(fault.code, 403, "{subnet}");
        }
        // By the feed, anew.
        feed.list(&["10.9.0.2", "198.51.100.8", "10.9.0.5", "2001:db8:2::2"]);
        kamailio.ask("apiban.reload", &[]);
        wait_held("hosts4", "198.51.100.8", true);
        run("nft", &["delete table inet apiban"]);
        wait_held("hosts6", "2001:db8:2::3", true);
        kamailio.ask("apiban.block", &["192.0.2.77"]);
        wait_until("the last ban on the monitor", SOON, || {
            monitor.added("192.0.2.77")
        });

        for others in ["192.0.2.6", "198.51.100.7", "10.9.0.9", "2001:db8:2::3"] {
            assert!(monitor.added(others), "{others} in\n{}", monitor.text());
        }
        for trusted in [
            "10.9.0.1",
            "10.9.0.2",
            "10.9.0.5",
            "10.9.0.6",
            "10.9.6.0",
            "2001:db8:2::",
            "2001:db8:2::2",
            "2001:db8:5::5",
            "2001:db8::",
        ] {
            assert!(!monitor.added(trusted), "{trusted} in\n{}", monitor.text());
        }
        assert!(!objects("rule").is_empty());
    });
}
