//! A node that joins, or comes back after a crash, has everything in a moment.

use std::time::{Duration, Instant};

use apiban::clock::UnixSeconds;
use apiban::state::{self, Ban, State};
use apiban_testing::fed::{self, KEY};
use apiban_testing::feed_server::{now, FeedServer};
use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::wait::{patience, wait_until};

use super::{node, peer_entries, Transport, SOON};

/// Addresses of the service's list.
const LISTED: u64 = 5_000;
/// Bans of the first node.
const BANS: u64 = 10_000;
/// The module promises two seconds on a machine with nothing else to do. Whoever must wait for the next HELLO, or for
/// something lost to be asked for again, takes five and more.
const MOMENT: Duration = Duration::from_secs(4);

/// A state file with the bans.
fn bans() -> Vec<u8> {
    let since = UnixSeconds::saturating(now());
    let ban = |n: u64| Ban {
        ip: format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255),
        end: since.shifted(80_000),
        since,
        reason: "scanner".into(),
        hits: 0,
    };
    let state = State {
        written: since,
        feed: None,
        trusted: Vec::new(),
        listed: Vec::new(),
        local: (0..BANS).map(ban).collect(),
    };
    state::encode(&state).expect("a state file")
}

fn fed_node(number: u8, service: &FeedServer, first: Option<&Kamailio>) -> Builder {
    node(number, &Release::Host, Transport::Udp, first)
        .param("api_url", service.url())
        .param("api_key", KEY)
        .param("rate_limit_requests", 1000)
        .param("rate_limit_window", 1)
}

fn has_all(node: &Kamailio) -> bool {
    node.statistic("apiban", "feed_entries") == LISTED && peer_entries(node) == BANS
}

#[test]
fn who_joins_or_comes_back_has_all_in_a_moment() {
    let service = fed::service();
    let addresses: Vec<String> = (0..LISTED)
        .map(|n| format!("198.{}.{}.{}", 18 + n / 62_500, n / 250, n % 250 + 1))
        .collect();
    service.list(&addresses);
    let first = fed_node(1, &service, None)
        .file("apiban.state", bans())
        .start();
    fed::wait_state(&first, "ok");
    wait_until("the list", SOON, || {
        first.statistic("apiban", "feed_entries") == LISTED
    });
    for round in ["joins", "comes back"] {
        let second = fed_node(2, &service, Some(&first)).start();
        // From the moment at which it serves: how long a start takes is another matter.
        let begin = Instant::now();
        wait_until("the list and all bans", SOON, || has_all(&second));
        let took = begin.elapsed();
        println!(
            "a node that {round} has {LISTED} listed addresses and {BANS} bans after {took:?}"
        );
        assert!(took < MOMENT * patience(), "{round}: {took:?}");
        wait_until("the list to be whole", MOMENT, || {
            fed::state(&second) == "ok"
        });
        second.kill9();
    }
}
