//! A small file beside the state file: how many addresses were listed on each day and in each network, also
//! long after their bans have ended.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Subnet;
use crate::cli::exit::Failure;
use crate::cli::export::file;
use crate::cli::listing::Item;
use crate::cli::times::day_of;
use crate::clock::UnixSeconds;
use crate::quote::plain;

/// Days that are remembered.
const MOST_DAYS: usize = 400;
/// Networks of each size that are remembered: those with the most addresses.
const MOST_NETWORKS: usize = 4_096;

/// What was listed so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct History {
    version: u32,
    /// When the latest listing that is counted came.
    counted_to: UnixSeconds,
    /// Addresses by day since 1970.
    pub days: BTreeMap<u32, u64>,
    /// Addresses by network of 16 bits.
    pub networks_16: BTreeMap<String, u64>,
    /// Addresses by network of 24 bits.
    pub networks_24: BTreeMap<String, u64>,
}

impl History {
    /// Reads the file; an empty history if there is none.
    pub fn read(path: &Path) -> Result<History, Failure> {
        let problem = |text: String| {
            Failure::trouble(format!(
                "{}: {text}; move it away to begin a new history",
                path.display()
            ))
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(History::default()),
            Err(error) => return Err(problem(plain(&error))),
        };
        let history: History = serde_json::from_slice(&bytes)
            .map_err(|_| problem("it is no history of this program".into()))?;
        match history.version {
            1 => Ok(history),
            other => Err(problem(format!("version {other} is unknown"))),
        }
    }

    /// Counts what was listed since the last time; false if nothing was.
    pub fn learn(&mut self, items: &[Item], feed_ttl: Duration) -> bool {
        let counted_to = self.counted_to;
        let listed_at = |item: &Item| item.until.before(feed_ttl);
        let new = items.iter().filter(|item| listed_at(item) > counted_to);
        for item in new {
            let time = listed_at(item);
            self.counted_to = self.counted_to.max(time);
            *self.days.entry(day_of(time)).or_default() += 1;
            if item.subnet.is_v4() {
                for (length, networks) in [(16, &mut self.networks_16), (24, &mut self.networks_24)]
                {
                    let network = Subnet::new(item.subnet.address(), length);
                    if let Some(network) = network {
                        *networks.entry(network.to_string()).or_default() += 1;
                    }
                }
            }
        }
        self.version = 1;
        while self.days.len() > MOST_DAYS {
            self.days.pop_first();
        }
        for networks in [&mut self.networks_16, &mut self.networks_24] {
            shorten(networks);
        }
        self.counted_to > counted_to
    }

    /// Writes the file as a whole.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        file::replace(path, &bytes)
    }
}

/// Leaves the networks with the most addresses; of equal ones as many as there is room for.
fn shorten(networks: &mut BTreeMap<String, u64>) {
    if networks.len() <= MOST_NETWORKS {
        return;
    }
    let mut counts: Vec<u64> = networks.values().copied().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let least = counts.get(MOST_NETWORKS).copied().unwrap_or(0);
    let larger = counts.partition_point(|count| *count > least);
    let mut room = MOST_NETWORKS - larger;
    networks.retain(|_, count| {
        let kept = *count > least || (*count == least && room > 0);
        if *count == least {
            room = room.saturating_sub(1);
        }
        kept
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Part;
    use crate::clock::simulated::at;

    const DAY: u32 = 86_400;
    const TTL: Duration = Duration::from_secs(100);

    #[test]
    fn every_listing_is_counted_once() {
        let item = |ip: &str, listed: u32| Item {
            subnet: ip.parse().unwrap(),
            source: Part::Feed,
            since: at(listed),
            until: at(listed + 100),
            hits: 0,
        };
        let mut history = History::default();
        let first = [item("192.0.2.1", DAY), item("192.0.2.2", DAY + 5)];
        assert!(history.learn(&first, TTL));
        assert!(!history.learn(&first, TTL));
        // Listed again, and a new one: both count.
        let second = [
            item("192.0.2.1", 2 * DAY),
            item("192.0.3.1", 2 * DAY),
            item("192.0.2.2", DAY + 5),
        ];
        assert!(history.learn(&second, TTL));
        assert_eq!(history.days, BTreeMap::from([(1, 2), (2, 2)]));
        assert_eq!(history.networks_16["192.0.0.0/16"], 4);
        assert_eq!(history.networks_24["192.0.2.0/24"], 3);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        history.write(&path).unwrap();
        assert_eq!(History::read(&path).unwrap().days, history.days);
        fs::write(&path, "{\"version\":9}").unwrap();
        assert!(History::read(&path).is_err());
    }

    #[test]
    fn small_networks_are_forgotten_first() {
        let mut networks: BTreeMap<String, u64> = (0..5_000).map(|n| (n.to_string(), 1)).collect();
        networks.insert("large".into(), 9);
        shorten(&mut networks);
        assert!(networks.contains_key("large") && networks.len() <= MOST_NETWORKS);
    }

    #[test]
    fn of_many_equal_networks_some_are_remembered() {
        let last = MOST_NETWORKS + 10;
        let mut networks: BTreeMap<String, u64> =
            (0..last).map(|n| (format!("{n:06}"), 1)).collect();
        networks.insert("busy".into(), 7);
        shorten(&mut networks);
        assert_eq!((networks.len(), networks["busy"]), (MOST_NETWORKS, 7));
        shorten(&mut networks);
        assert_eq!(networks.len(), MOST_NETWORKS);
    }
}
