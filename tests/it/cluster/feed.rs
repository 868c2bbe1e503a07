//! One node fetches the list for all.

use std::collections::BTreeSet;

use apiban_testing::cluster::fetchers;
use apiban_testing::fed::{self, KEY};
use apiban_testing::feed_server::FeedServer;
use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::wait::{wait_for, wait_until};
use nix::sys::signal::Signal;

use super::{listed, node, wait_source, wait_together, Transport, SOON};

/// A node that fetches from the stand-in for the service.
fn fed_node(number: u8, service: &FeedServer, first: Option<&Kamailio>) -> Builder {
    node(number, &Release::Host, Transport::Udp, first)
        .param("api_url", service.url())
        .param("api_key", KEY)
        .param("poll_interval", 4)
        .param("rate_limit_requests", 1000)
        .param("rate_limit_window", 1)
}

#[test]
fn one_fetches_all_hold_the_list_and_another_takes_over() {
    let service = fed::service();
    let addresses: BTreeSet<String> = (0..700)
        .map(|n| format!("198.18.{}.{}", n / 250, n % 250 + 1))
        .collect();
    let addresses: Vec<String> = addresses.into_iter().collect();
    service.list(&addresses);
    let mut nodes = vec![fed_node(1, &service, None).start()];
    for number in 2..=3 {
        let next = fed_node(number, &service, nodes.first()).start();
        nodes.push(next);
    }
    wait_together(&nodes);
    for node in &nodes {
        wait_until("the whole list", SOON, || {
            node.statistic("apiban", "feed_entries") == 700
        });
        wait_source(node, &addresses[0], "feed");
        fed::wait_state(node, "ok");
    }
    let first = fetchers(&nodes);
    assert_eq!(first.len(), 1);
    for (index, node) in nodes.iter().enumerate() {
        let status = node.ask("apiban.status", &[]);
        let requests = status["feed"]["requests"].as_u64().expect("a number");
        assert_eq!(requests > 0, index == first[0], "node {index}: {status}");
        assert!(status["feed"]["last_success"].as_u64() > Some(0));
        wait_until("the fetcher's control ID", SOON, || {
            let id = |node: &Kamailio| node.ask("apiban.status", &[])["feed"]["id"].clone();
            id(node) == id(&nodes[first[0]])
        });
    }
    // What is new comes with the next poll, to all.
    service.list(&["198.51.100.77"]);
    for node in &nodes {
        wait_source(node, "198.51.100.77", "feed");
    }
    // What is no longer listed goes everywhere.
    service.delist(&[&addresses[3]]);
    nodes[first[0]].ask("apiban.reload", &[]);
    for node in &nodes {
        wait_source(node, &addresses[3], "none");
    }
    // The fetcher dies: another one goes on where it was, without beginning anew.
    let before = service.requests().len();
    let dead = nodes.remove(first[0]);
    dead.kill9();
    let second = wait_for("another fetcher", SOON * 2, || {
        fetchers(&nodes).first().copied()
    });
    wait_until("a request of the successor", SOON, || {
        service.requests().len() > before
    });
    service.list(&["198.51.100.78"]);
    for node in &nodes {
        wait_source(node, "198.51.100.78", "feed");
        assert_eq!(node.statistic("apiban", "feed_entries"), 701);
    }
    let asked: u64 = nodes[second].ask("apiban.status", &[])["feed"]["pages"]
        .as_u64()
        .expect("pages");
    assert!(
        asked < 3,
        "the successor fetched the whole list again: {asked} pages"
    );
}

#[test]
fn a_stopped_fetcher_stands_back_when_it_goes_on() {
    let service = fed::service();
    service.list(&["198.51.100.1"]);
    let first = fed_node(1, &service, None).start();
    let second = fed_node(2, &service, Some(&first)).start();
    let nodes = [first, second];
    wait_together(&nodes);
    let fetcher = wait_for("a fetcher", SOON, || fetchers(&nodes).first().copied());
    wait_source(&nodes[1 - fetcher], "198.51.100.1", "feed");
    let pid = nodes[fetcher].pid_of("APIBAN cluster");
    nodes[fetcher].signal(pid, Signal::SIGSTOP);
    let other = &nodes[1 - fetcher];
    wait_until("the other to fetch", SOON * 2, || {
        listed(other)[0]["role"] == "fetcher"
    });
    nodes[fetcher].signal(pid, Signal::SIGCONT);
    wait_until("one fetcher", SOON, || fetchers(&nodes) == [1 - fetcher]);
    service.list(&["198.51.100.2"]);
    for node in &nodes {
        wait_source(node, "198.51.100.2", "feed");
    }
}

#[test]
fn each_fetches_for_itself_if_told_so() {
    let service = fed::service();
    service.list(&["198.51.100.1"]);
    let first = fed_node(1, &service, None)
        .param("cluster_fetch", "each")
        .start();
    let second = fed_node(2, &service, Some(&first))
        .param("cluster_fetch", "each")
        .start();
    let nodes = [first, second];
    wait_together(&nodes);
    for node in &nodes {
        wait_source(node, "198.51.100.1", "feed");
        assert!(node.ask("apiban.status", &[])["feed"]["requests"].as_u64() > Some(0));
        assert_eq!(listed(node)[0]["role"], "alone");
    }
}
