//! The figures of a report.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::geo::Places;
use super::history::History;
use crate::address::Subnet;
use crate::cli::listing::{Item, Listing};
use crate::cli::times::{self, day_of, DAY};
use crate::clock::UnixSeconds;

/// Networks in each table.
const TOP: usize = 10;

/// What the list and the history say at one moment.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// The moment.
    pub at: UnixSeconds,
    /// Addresses and prefixes in the list.
    pub listed: usize,
    /// Those that were listed in the last 24 hours.
    pub new_since_yesterday: usize,
    /// How much of the list the ten largest /24 networks hold, in percent.
    pub top_ten_share: f64,
    /// Oldest first.
    pub days: Vec<DayCount>,
    /// Largest first.
    pub networks_16: Vec<Network>,
    /// Largest first.
    pub networks_24: Vec<Network>,
    /// Since the history began.
    pub ever_16: Vec<Network>,
    /// Since the history began.
    pub ever_24: Vec<Network>,
    /// Those of the list that sent anything to this host.
    pub hit_us: HitUs,
    /// With a database of countries: most addresses first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub countries: Option<Vec<Count>>,
    /// With a database of autonomous systems: most addresses first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operators: Option<Vec<Count>>,
}

/// Who of the list sent packets to this host while it was listed, as the state file says.
#[derive(Debug, Default, Serialize)]
pub struct HitUs {
    /// Addresses and prefixes.
    pub addresses: usize,
    /// Their packets together.
    pub packets: u64,
    /// Most packets first.
    pub top: Vec<Hitter>,
}

/// One of them.
#[derive(Debug, Serialize)]
pub struct Hitter {
    /// Address or prefix.
    pub ip: String,
    /// Its packets.
    pub packets: u64,
}

/// A name and how many addresses of the list belong to it.
#[derive(Debug, Serialize)]
pub struct Count {
    /// Country or operator.
    pub name: String,
    /// Addresses.
    pub addresses: u64,
}

/// One day.
#[derive(Debug, Serialize)]
pub struct DayCount {
    /// `2026-11-25`, in UTC.
    pub date: String,
    /// Addresses that were listed on it.
    pub listed: u64,
}

/// One network.
#[derive(Debug, Serialize)]
pub struct Network {
    /// The prefix.
    pub network: String,
    /// Addresses of the list in it.
    pub addresses: u64,
}

impl Figures {
    /// Counts; `days` is how far the plot goes back.
    pub fn of(
        listing: &Listing,
        history: &History,
        places: Places,
        feed_ttl: Duration,
        days: u32,
    ) -> Self {
        let items = &listing.items;
        let yesterday = listing.now.before(DAY);
        let is_new = |item: &&Item| item.until.before(feed_ttl) > yesterday;
        let networks_24 = largest(items, 24);
        let in_top: u64 = networks_24.iter().map(|network| network.addresses).sum();
        let today = day_of(listing.now);
        Figures {
            at: listing.now,
            listed: items.len(),
            new_since_yesterday: items.iter().filter(is_new).count(),
            top_ten_share: if items.is_empty() {
                0.0
            } else {
                in_top as f64 * 100.0 / items.len() as f64
            },
            days: (today.saturating_sub(days.saturating_sub(1))..=today)
                .map(|day| DayCount {
                    date: times::date(UnixSeconds::ZERO + DAY.saturating_mul(day)),
                    listed: history.days.get(&day).copied().unwrap_or(0),
                })
                .collect(),
            networks_16: largest(items, 16),
            networks_24,
            ever_16: ever(&history.networks_16),
            ever_24: ever(&history.networks_24),
            hit_us: hit_us(items),
            countries: places.countries,
            operators: places.operators,
        }
    }
}

/// The IPv4 networks of this length with the most entries.
fn largest(items: &[Item], length: u8) -> Vec<Network> {
    let mut counts: HashMap<Subnet, u64> = HashMap::new();
    for item in items {
        if let ip @ IpAddr::V4(_) = item.subnet.address() {
            if let Some(network) = Subnet::new(ip, length) {
                *counts.entry(network).or_default() += 1;
            }
        }
    }
    networks(top(counts
        .into_iter()
        .map(|(network, count)| (network.to_string(), count))))
}

/// The networks of the history with the most addresses.
fn ever(counts: &BTreeMap<String, u64>) -> Vec<Network> {
    networks(top(counts
        .iter()
        .map(|(name, count)| (name.clone(), *count))))
}

fn networks(counts: Vec<Count>) -> Vec<Network> {
    let network = |count: Count| Network {
        network: count.name,
        addresses: count.addresses,
    };
    counts.into_iter().map(network).collect()
}

fn hit_us(items: &[Item]) -> HitUs {
    let hitters = items.iter().filter(|item| item.hits > 0);
    let counts = top(hitters
        .clone()
        .map(|item| (item.subnet.to_string(), u64::from(item.hits))));
    let hitter = |count: Count| Hitter {
        ip: count.name,
        packets: count.addresses,
    };
    HitUs {
        addresses: hitters.clone().count(),
        packets: hitters.map(|item| u64::from(item.hits)).sum(),
        top: counts.into_iter().map(hitter).collect(),
    }
}

/// The largest, by name if they are equal.
pub fn top(counts: impl Iterator<Item = (String, u64)>) -> Vec<Count> {
    let mut counts: Vec<Count> = counts
        .map(|(name, addresses)| Count { name, addresses })
        .collect();
    counts.sort_by(|a, b| {
        b.addresses
            .cmp(&a.addresses)
            .then_with(|| a.name.cmp(&b.name))
    });
    counts.truncate(TOP);
    counts
}
