//! The statistics of group `apiban`: name, meaning, and where the value comes from.

use crate::shared::cluster::Number as Of;
use crate::shared::counters::Counter;
use crate::shared::origin::Origin;
use crate::shared::published::{Gauge, Number, Place};
use crate::shared::Shared;

/// One statistic.
pub struct Statistic {
    /// Its name in the group `apiban`.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Reads it; never negative, since Prometheus is given it unsigned.
    pub read: fn(&Shared) -> u64,
}

const fn statistic(name: &'static str, help: &'static str, read: fn(&Shared) -> u64) -> Statistic {
    Statistic { name, help, read }
}

/// Every statistic.
#[rustfmt::skip]
pub const STATISTICS: &[Statistic] = &[
    statistic("checks", "calls of apiban_check", |s| s.counters.checks()),
    statistic("blocked_feed", "checks that met an address of the feed", |s| blocked(s, Origin::Feed)),
    statistic("blocked_local", "checks that met a local ban", |s| blocked(s, Origin::Local)),
    statistic("blocked_peer", "checks that met a ban of a cluster peer", |s| blocked(s, Origin::Peer)),
    statistic("feed_entries", "addresses of the feed", |s| entries(s, Origin::Feed)),
    statistic("local_entries", "local bans", |s| entries(s, Origin::Local)),
    statistic("local_capacity", "how many local bans there can be", |s| s.local.capacity() as u64),
    statistic("peer_entries", "bans of cluster peers", |s| entries(s, Origin::Peer)),
    statistic("feed_age", "seconds since the last successful fetch", feed_age),
    statistic("fetch_ok", "successful requests to the service", |s| s.published.number(Number::FetchOk)),
    statistic("fetch_errors", "failed requests to the service", |s| s.published.number(Number::FetchErrors)),
    statistic("rate_limited", "requests that the service refused as too many", |s| s.published.number(Number::RateLimited)),
    statistic("trusted_skips", "checks and bans that trust decided", trusted_skips),
    statistic("block_refused", "bans refused: trusted, full, over budget", |s| s.counters.sum(Counter::BlockRefused)),
    statistic("firewall_errors", "failed firewall operations", |s| s.published.gauge(Place::Firewall, Gauge::Errors)),
    statistic("firewall_dropped", "packets that our rules in the kernel dropped", |s| s.published.gauge(Place::Firewall, Gauge::Dropped)),
    statistic("cluster_nodes", "nodes of the cluster that are there, this one included", |s| cluster(s, &[Of::Nodes])),
    statistic("cluster_sent", "messages sent to other nodes", |s| cluster(s, &[Of::Sent])),
    statistic("cluster_received", "messages taken from other nodes", |s| cluster(s, &[Of::Received])),
    statistic("cluster_refused", "messages and bans of other nodes refused", |s| cluster(s, &[Of::Refused, Of::Dropped])),
    statistic("filter_drops", "packets dropped at Kamailio's sockets while the filter was on them", |s| s.published.gauge(Place::SocketFilter, Gauge::Dropped)),
];

fn blocked(shared: &Shared, origin: Origin) -> u64 {
    shared.counters.sum(Counter::blocked(origin))
}

/// The sum of these numbers of the cluster; 0 without one.
fn cluster(shared: &Shared, numbers: &[Of]) -> u64 {
    let of = |number: &Of| shared.cluster.map_or(0, |cluster| cluster.number(*number));
    numbers.iter().map(of).sum()
}

fn entries(shared: &Shared, origin: Origin) -> u64 {
    shared.table(origin).len() as u64
}

fn trusted_skips(shared: &Shared) -> u64 {
    shared.counters.sum(Counter::TrustedChecks) + shared.counters.sum(Counter::TrustedBans)
}

/// Seconds since the last success of the feed; since the start as long as there was none.
pub fn feed_age(shared: &Shared) -> u64 {
    let time = |number| shared.published.time(number);
    let since = time(Number::FeedLastSuccess).or_else(|| time(Number::Started));
    shared.now().since(since.unwrap_or_default()).as_secs()
}
