//! The iptables-api backend and its runner against a stand-in daemon with the real interface.

use std::time::Duration;

use apiban::firewall::iptables_api::IptablesApi;
use apiban::firewall::runner::{Options, Runner, State};
use apiban::firewall::{Change, Element, Error, Firewall};
use apiban::log::Level;

use apiban_testing::iptables_api::{Daemon, Fault};
use apiban_testing::wait::{wait_until, SOON};

fn element(text: &str) -> Element {
    Element {
        subnet: text.parse().unwrap(),
        seconds_left: 600,
        hits: 0,
    }
}

fn add(text: &str) -> Change {
    Change::Add(element(text))
}

fn remove(text: &str) -> Change {
    Change::Remove(text.parse().unwrap())
}

fn backend_for(url: &str) -> IptablesApi {
    IptablesApi::new(&url.parse().unwrap())
}

fn runner(daemon: &Daemon) -> Runner {
    let options = Options {
        first_delay: Duration::from_millis(20),
        longest_delay: Duration::from_millis(100),
        queue_capacity: 1000,
        ..Options::default()
    };
    let backend = backend_for(&daemon.url());
    Runner::spawn(Box::new(backend), options, Box::new(|| {})).unwrap()
}

/// A runner that was filled with `wanted`.
fn filled(daemon: &Daemon, wanted: &[Element]) -> Runner {
    let runner = runner(daemon);
    wait_until("the first refill is asked for", SOON, || {
        runner.needs_refill()
    });
    runner.refill(wanted.to_vec());
    wait_until("ok", SOON, || runner.status().state == State::Ok);
    runner
}

#[test]
fn bans_and_lifts() {
    let daemon = Daemon::start();
    daemon.state().chain.push("192.0.2.200".to_owned());
    let mut backend = backend_for(&format!("{}/", daemon.url()));
    backend.reset().unwrap();
    assert!(daemon.chain().is_empty());
    backend
        .apply(&[add("192.0.2.1"), add("2001:db8::1"), add("192.0.2.1")])
        .unwrap();
    assert_eq!(daemon.chain(), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(daemon.count("/addip/"), 2);
    // What is certainly there needs no call, nor does what we did not put there.
    backend
        .apply(&[remove("192.0.2.1"), remove("192.0.2.99")])
        .unwrap();
    assert_eq!(daemon.chain(), ["2001:db8::1"]);
    assert_eq!(daemon.count("/removeip/"), 1);
    assert_eq!(backend.report().unwrap().elements, Some(1));
    backend.remove().unwrap();
    assert!(daemon.chain().is_empty());
}

/// The chain of somebody who also uses it himself, with `firewall_flush` 0.
#[test]
fn what_others_put_into_the_chain_stays() {
    let mut daemon = Daemon::start();
    daemon.state().chain.push("192.0.2.200".to_owned());
    let mut backend = backend_for(&daemon.url());
    let apply = |backend: &mut IptablesApi, wanted: &[Element]| {
        let changes = backend.reconcile(wanted)?;
        backend.apply(&changes)
    };
    let (one, two) = (element("192.0.2.1"), element("192.0.2.2"));
    apply(&mut backend, &[one, two]).unwrap();
    assert_eq!(daemon.chain(), ["192.0.2.1", "192.0.2.2", "192.0.2.200"]);
    // What is known to agree is left alone, and what is no longer wanted goes.
    let before = daemon.count("/");
    apply(&mut backend, &[two]).unwrap();
    assert_eq!(daemon.chain(), ["192.0.2.2", "192.0.2.200"]);
    assert_eq!(daemon.count("/"), before + 1);
    // Out of reach, the daemon may lose the chain: all of ours is added again, and nothing is flushed.
    daemon.die();
    assert!(apply(&mut backend, &[one, two]).is_err());
    daemon.state().chain.retain(|known| known != "192.0.2.2");
    daemon.revive();
    apply(&mut backend, &[two]).unwrap();
    assert_eq!(daemon.chain(), ["192.0.2.2", "192.0.2.200"]);
    apply(&mut backend, &[]).unwrap();
    assert_eq!(daemon.chain(), ["192.0.2.200"]);
    assert_eq!(daemon.count("/flushchain"), 0);
}

#[test]
fn prefixes_are_left_out_and_counted() {
    let daemon = Daemon::start();
    let mut backend = backend_for(&daemon.url());
    backend
        .apply(&[
            add("2001:db8::/64"),
            add("198.51.100.0/24"),
            remove("198.51.100.0/24"),
        ])
        .unwrap();
    assert_eq!(backend.skipped(), 2);
    assert_eq!(daemon.state().requests.len(), 0);
    let notes = backend.drain_notes();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].1.contains("2001:db8::/64"), "{notes:?}");
}

#[test]
fn faults_are_told_apart() {
    let mut daemon = Daemon::start();
    let mut backend = backend_for(&daemon.url());
    for fault in [Fault::Garbage, Fault::NoJson, Fault::Status500] {
        daemon.fail(fault);
        let error = backend.apply(&[add("192.0.2.1")]).unwrap_err();
        assert!(matches!(error, Error::Transient(_)), "{fault:?}: {error}");
    }
    // Without ip6tables IPv4 goes on.
    daemon.fail(Fault::RefuseV6);
    backend
        .apply(&[add("2001:db8::1"), add("192.0.2.2")])
        .unwrap();
    assert_eq!(daemon.chain(), ["192.0.2.2"]);
    assert_eq!(backend.skipped(), 1);
    let notes = backend.drain_notes();
    assert!(notes[0].1.contains("ip6tables"), "{notes:?}");
    assert_eq!(backend.probe(), Ok(()));
    daemon.die();
    assert!(backend.probe().is_err());
}

#[test]
fn a_hanging_daemon_holds_up_nobody() {
    let daemon = Daemon::start();
    let runner = filled(&daemon, &[element("192.0.2.1")]);
    assert_eq!(daemon.chain(), ["192.0.2.1"]);
    daemon.fail(Fault::Hang);
    let before = daemon.state().requests.len();
    for n in 0..500 {
        runner.send(add(&format!("198.51.{}.{}", n / 250, n % 250)));
    }
    // Had a change waited for the daemon, each would have cost a call until its timeout.
    let calls = daemon.state().requests.len() - before;
    assert!(calls < 50, "{calls} calls while 500 changes were sent");
    wait_until("degraded", SOON, || {
        runner.status().state == State::Degraded
    });
    assert_eq!(daemon.state().most_at_once, 1);
    // The daemon still hangs: it was the deadline that ended this.
    assert!(!runner.shutdown(true, Duration::from_millis(300)));
}

#[test]
fn after_an_outage_chain_and_table_agree() {
    let mut daemon = Daemon::start();
    let first = element("192.0.2.1");
    let second = element("192.0.2.2");
    let third = element("192.0.2.3");
    let runner = filled(&daemon, &[first, second]);
    runner.drain_logs();
    daemon.die();
    runner.send(Change::Add(third));
    runner.send(remove("192.0.2.1"));
    wait_until("degraded", SOON, || {
        runner.status().state == State::Degraded
    });
    assert!(runner.status().errors > 0);
    assert!(!runner.needs_refill());
    // What somebody else put into the chain meanwhile is his.
    daemon.state().chain.push("192.0.2.77".to_owned());
    daemon.revive();
    wait_until("a refill is asked for", SOON, || runner.needs_refill());
    runner.refill(vec![second, third]);
    wait_until("ok", SOON, || runner.status().state == State::Ok);
    let wanted = ["192.0.2.2", "192.0.2.3", "192.0.2.77"];
    assert_eq!(daemon.chain(), wanted);
    let logs = runner.drain_logs();
    let levels: Vec<_> = logs.iter().map(|(level, _)| *level).collect();
    // A second "in step" within a minute is not worth a line.
    assert_eq!(levels, [Level::Warn], "{logs:?}");
    assert!(runner.shutdown(false, Duration::from_secs(5)));
    assert_eq!(daemon.chain(), wanted);
}

#[test]
fn an_overflow_ends_in_a_refill() {
    let daemon = Daemon::start();
    let runner = filled(&daemon, &[]);
    daemon.fail(Fault::Hang);
    let all: Vec<_> = (0..1200)
        .map(|n| element(&format!("198.51.{}.{}", n / 250, n % 250)))
        .collect();
    for element in &all {
        runner.send(Change::Add(*element));
        assert!(runner.status().queued <= 1000);
    }
    assert!(runner.needs_refill());
    daemon.fail(Fault::None);
    runner.refill(all.clone());
    wait_until("everything is there", SOON, || {
        daemon.chain().len() == all.len()
    });
    wait_until("ok", SOON, || runner.status().state == State::Ok);
    assert!(runner.shutdown(true, Duration::from_secs(5)));
    assert!(daemon.chain().is_empty());
}

#[test]
fn a_refill_gives_way_to_new_bans() {
    let daemon = Daemon::start();
    let runner = runner(&daemon);
    wait_until("the first refill is asked for", SOON, || {
        runner.needs_refill()
    });
    let many: Vec<_> = (0..1000)
        .map(|n| element(&format!("198.51.{}.{}", n / 250, n % 250)))
        .collect();
    runner.refill(many);
    runner.send(add("192.0.2.1"));
    runner.send(remove("198.51.3.249"));
    wait_until("everything is there", SOON, || daemon.chain().len() == 1000);
    wait_until("ok", SOON, || runner.status().state == State::Ok);
    let state = daemon.state();
    let at = state.chain.iter().position(|ip| ip == "192.0.2.1").unwrap();
    assert!(at < 500, "{at}");
    assert!(!state.chain.iter().any(|ip| ip == "198.51.3.249"));
    assert_eq!(state.most_at_once, 1);
}

#[test]
fn emptying_a_table_empties_the_chain() {
    let daemon = Daemon::start();
    let local = element("192.0.2.1");
    let runner = filled(&daemon, &[local, element("192.0.2.2")]);
    runner.refill(Vec::new());
    wait_until("empty", SOON, || daemon.chain().is_empty());
    runner.send(Change::Add(local));
    wait_until("banned again", SOON, || daemon.chain() == ["192.0.2.1"]);
}
