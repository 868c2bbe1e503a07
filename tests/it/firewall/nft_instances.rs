//! More than one Kamailio on a host, and one whose settings changed between two runs: whose table it is.
//! Needs root, `nft` and `ip`.

use std::time::Duration;

use apiban_testing::iptables_api::{Daemon, Fault};
use apiban_testing::kamailio::{Builder, Kamailio};
use apiban_testing::netns::{addresses, held, in_namespace, objects};
use apiban_testing::sip::Answer;
use apiban_testing::veth::{server, Host};
use apiban_testing::wait::wait_until;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(5);

fn firewall(kamailio: &Kamailio, field: &str) -> String {
    let status = kamailio.ask("apiban.status", &[]);
    status["firewall"][field].as_str().unwrap_or("").to_owned()
}

#[track_caller]
fn wait_state(kamailio: &Kamailio, state: &str) {
    wait_until(&format!("the state {state}"), SOON * 2, || {
        firewall(kamailio, "state") == state
    });
}

#[track_caller]
fn wait_held(address: &str) {
    wait_until(&format!("{address} in the kernel"), SOON, || {
        held("hosts4", address).is_some()
    });
}

/// A server with a state file that outlives it.
fn keeping(dir: &TempDir) -> Builder {
    let path = dir.path().join("apiban.state");
    server().param("state_file", path.to_str().expect("path"))
}

#[test]
fn a_second_kamailio_leaves_the_table_of_the_first_alone() {
    in_namespace(|| {
        let host = Host::connect();
        let first = server().param("firewall", "nft").start();
        first.ask("apiban.block", &["10.9.0.2"]);
        wait_held("10.9.0.2");
        let second = server().param("firewall", "nft").start();
        wait_state(&second, "degraded");
        assert!(firewall(&second, "last_error").contains("set nft_table"));
        second.wait_for_log("belongs to another running process", SOON);
        second.ask("apiban.block", &["10.9.0.3"]);
        // Whatever makes either of them fill its table again.
        first.ask("apiban.flush", &["feed"]);
        second.ask("apiban.flush", &["local"]);
        for _ in 0..20 {
            assert_eq!(addresses("hosts4"), ["10.9.0.2"]);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(firewall(&first, "state"), "ok");
        assert!(second.stop().status.success());
        assert_eq!(addresses("hosts4"), ["10.9.0.2"]);
        let mut attacker = host.udp("10.9.0.2", &first);
        assert!(first.drops_on(&mut attacker));

        // With a table of its own it is at work, and each removes its own at the end.
        let second = server()
            .param("firewall", "nft")
            .param("nft_table", "second")
            .start();
        wait_state(&second, "ok");
        assert_eq!(objects("table").len(), 2);
        // Killed with no chance to let go of anything, the first one is followed by the next.
        first.kill9();
        let third = server().param("firewall", "nft").start();
        wait_state(&third, "ok");
        assert!(third.stop().status.success());
        assert_eq!(objects("table").len(), 1);
        assert!(second.stop().status.success());
        assert!(objects("table").is_empty());
    });
}

#[test]
fn what_an_earlier_run_left_in_force_ends_with_a_change_of_the_settings() {
    in_namespace(|| {
        let host = Host::connect();
        let changes: [&[(&str, &str)]; 3] = [
            &[("mode", "observe"), ("firewall", "nft")],
            &[("firewall", "none")],
            &[("firewall", "nft"), ("nft_table", "other")],
        ];
        for change in changes {
            let dir = tempfile::tempdir().expect("directory");
            let neighbour = tempfile::tempdir().expect("directory");
            let before = keeping(&dir)
                .param("firewall", "nft")
                .param("firewall_flush", 0)
                .start();
            before.ask("apiban.block", &["10.9.0.2", "36000"]);
            wait_held("10.9.0.2");
            assert!(before.stop().status.success());
            assert!(held("hosts4", "10.9.0.2").is_some(), "kept over the stop");
            // Another installation on this host has no say.
            let other = keeping(&neighbour).start();
            assert!(other.stop().status.success());
            assert!(held("hosts4", "10.9.0.2").is_some());

            let mut builder = keeping(&dir);
            for (name, value) in change {
                builder = builder.param(name, *value);
            }
            let after = builder.start();
            wait_until("the old table to go", SOON, || {
                objects("table")
                    .iter()
                    .all(|table| table["name"] != "apiban")
            });
            after.wait_for_log("removed table inet apiban", SOON);
            after.ask("apiban.unblock", &["10.9.0.2"]);
            let mut lifted = host.udp("10.9.0.2", &after);
            wait_until("the lift", SOON, || lifted.options() == Answer::Status(200));
            assert!(after.stop().status.success());
            assert!(objects("table").is_empty());
        }
    });
}

#[test]
fn the_hook_and_the_ports_are_the_operators_choice() {
    in_namespace(|| {
        let host = Host::connect();
        let kamailio = server()
            .param("firewall", "nft")
            .param("nft_hook", "input")
            .param("firewall_ports", "sip")
            .start();
        kamailio.ask("apiban.block", &["10.9.0.2"]);
        wait_held("10.9.0.2");
        assert_eq!(objects("chain")[0]["hook"], "input");
        let mut attacker = host.udp("10.9.0.2", &kamailio);
        assert!(kamailio.drops_on(&mut attacker));
        wait_until("the count of drops", SOON * 2, || {
            kamailio.ask("apiban.status", &[])["firewall"]["dropped"].as_u64() >= Some(1)
        });
        // Any other service of the host goes on for a banned address.
        let other = std::net::UdpSocket::bind("10.9.0.1:0").expect("socket");
        other.set_read_timeout(Some(SOON)).expect("timeout");
        let to = other.local_addr().expect("address");
        host.run(move || {
            let from = std::net::UdpSocket::bind("10.9.0.2:0").expect("socket");
            from.send_to(b"hello", to).expect("sent")
        });
        assert_eq!(other.recv(&mut [0; 8]).expect("heard"), 5);
    });
}

/// Somebody who shares the chain of iptables-api says so with `firewall_flush` 0.
#[test]
fn a_shared_chain_of_iptables_api_is_never_emptied() {
    let daemon = Daemon::start();
    daemon.state().chain.push("203.0.113.99".into());
    let dir = tempfile::tempdir().expect("directory");
    let build = || {
        let path = dir.path().join("apiban.state");
        Kamailio::builder()
            .param("state_file", path.to_str().expect("path"))
            .param("firewall", "iptables-api")
            .param("firewall_url", daemon.url())
            .param("firewall_flush", 0)
    };
    let kamailio = build().start();
    wait_state(&kamailio, "ok");
    for n in 1..=30 {
        kamailio.ask("apiban.block", &[&format!("198.51.100.{n}")]);
    }
    let chain = |count| wait_until("the chain", SOON * 4, || daemon.chain().len() == count);
    chain(31);
    // One call that fails lifts no other ban.
    daemon.fail(Fault::Status500);
    kamailio.ask("apiban.block", &["198.51.100.77"]);
    wait_state(&kamailio, "degraded");
    assert_eq!(daemon.chain().len(), 31);
    daemon.fail(Fault::None);
    let lowest = std::cell::Cell::new(usize::MAX);
    wait_until("the last ban", SOON * 4, || {
        let chain = daemon.chain();
        lowest.set(lowest.get().min(chain.len()));
        chain.contains(&"198.51.100.77".to_owned())
    });
    assert_eq!(lowest.get(), 31, "no ban was lifted meanwhile");
    assert!(kamailio.stop().status.success());
    chain(32);
    let kamailio = build().start();
    wait_state(&kamailio, "ok");
    kamailio.ask("apiban.flush", &["local"]);
    chain(1);
    assert_eq!(daemon.chain(), ["203.0.113.99"]);
    assert!(kamailio.stop().status.success());
    assert_eq!(daemon.count("/flushchain"), 0);
}
