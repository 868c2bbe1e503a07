//! The list at one moment, in the forms that the mirror serves.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use flate2::write::GzEncoder;
use flate2::Compression;
use hyper::body::Bytes;

use crate::address::Subnet;
use crate::cli::args::Part;
use crate::cli::export::{Format, Job};
use crate::cli::listing::Item;
use crate::cli::times;
use crate::shared::Shared;
use crate::trust::Trust;

/// Addresses in a full page. A shorter one is the last for now, and more of them old recipes do not take.
const PAGE: usize = 250;
/// A text with the time that each ban has left is made anew after this time.
const TIMED_AGE: Duration = Duration::from_secs(30);

/// A rendered list and what HTTP says of it.
#[derive(Clone)]
pub struct Text {
    /// The text itself.
    pub body: Bytes,
    /// The same, compressed.
    pub gzip: Bytes,
    /// Changes with every byte.
    pub etag: String,
    /// When it changed, to the second.
    pub modified: SystemTime,
    made: Instant,
}

/// The list at one moment.
pub struct Snapshot {
    /// By address.
    items: Vec<Item>,
    /// Address and control ID, in the order in which the service listed them.
    ordered: Vec<(u64, Subnet)>,
    /// Pages that were asked for, by the index of their first address.
    pages: Mutex<HashMap<usize, Bytes>>,
    trust: Trust,
    changed: SystemTime,
    texts: Mutex<HashMap<Format, Text>>,
    feed_ttl: Duration,
}

impl Snapshot {
    /// What the feed's table holds now.
    pub fn of(shared: &Shared, feed_ttl: Duration) -> Self {
        let now = shared.now();
        let mut items = Vec::with_capacity(shared.feed.len());
        shared.feed.for_each(|entry| {
            if entry.value > now {
                items.push(Item {
                    subnet: entry.subnet,
                    source: Part::Feed,
                    since: entry.since,
                    until: entry.value,
                    hits: entry.hits,
                });
            }
        });
        items.sort_unstable_by_key(|item| item.subnet);
        Snapshot {
            ordered: ordered(&items, feed_ttl),
            pages: Mutex::default(),
            items,
            trust: shared.trust.clone(),
            changed: SystemTime::now(),
            texts: Mutex::default(),
            feed_ttl,
        }
    }

    /// The page behind this control ID; `None`: there is nothing newer.
    pub fn page_after(&self, id: u64) -> Option<Bytes> {
        let first = self.ordered.partition_point(|(known, _)| *known <= id);
        let rest = self.ordered.get(first..).filter(|rest| !rest.is_empty())?;
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let page = pages
            .entry(first)
            .or_insert_with(|| Bytes::from(page_text(&rest[..rest.len().min(PAGE)])));
        Some(page.clone())
    }

    /// The control ID of the live entry that covers this address.
    pub fn find(&self, ip: std::net::IpAddr) -> Option<u64> {
        let now = times::now();
        let covers = |item: &&Item| item.subnet.contains(ip) && item.until > now;
        let alone = Subnet::host(ip);
        let exact = self
            .items
            .binary_search_by_key(&alone, |item| item.subnet)
            .ok()
            .map(|index| &self.items[index])
            .filter(covers);
        let nets = || {
            self.items
                .iter()
                .filter(|item| !item.subnet.is_host())
                .find(covers)
        };
        let item = exact.or_else(nets)?;
        Some(item.until.before(self.feed_ttl).get().into())
    }

    /// The list for a device; `None` if there is nobody to ban.
    pub fn text(&self, format: Format) -> Option<Text> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |text: &&Text| !format.is_timed() || text.made.elapsed() < TIMED_AGE;
        if let Some(text) = texts.get(&format).filter(fresh) {
            return Some(text.clone());
        }
        let now = times::now();
        // Somebody may have become trusted, and some bans may have ended, since the list was read.
        let items: Vec<Item> = self
            .items
            .iter()
            .filter(|item| item.until > now && self.trust.spares(item.subnet).is_none())
            .filter(|item| format.holds(item))
            .copied()
            .collect();
        if items.is_empty() {
            return None;
        }
        let body = format.render(&Job {
            name: format.default_name(),
            items: &items,
            previous: None,
            now,
        });
        let text = Text {
            gzip: compressed(body.as_bytes()),
            etag: format!(
                "\"{:08x}-{:x}\"",
                crc32fast::hash(body.as_bytes()),
                body.len()
            ),
            body: Bytes::from(body),
            modified: if format.is_timed() {
                SystemTime::now()
            } else {
                self.changed
            },
            made: Instant::now(),
        };
        texts.insert(format, text.clone());
        Some(text)
    }
}

fn compressed(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), Compression::fast());
    // Memory takes whatever is written.
    let _ = encoder.write_all(body);
    Bytes::from(encoder.finish().unwrap_or_default())
}

/// Every address with a control ID of its own: a page may end behind any of them, and who goes on from there
/// must get the next one.
///
/// The service tells one time for a whole page, that of its last address; the others came between that time
/// and the page before. They are spread over it evenly, and never later than the service said.
fn ordered(items: &[Item], feed_ttl: Duration) -> Vec<(u64, Subnet)> {
    let mut by_time: Vec<&Item> = items.iter().collect();
    by_time.sort_by_key(|item| item.until);
    let mut ordered = Vec::with_capacity(items.len());
    let mut limit = u64::MAX;
    for together in by_time.chunk_by(|a, b| a.until == b.until).rev() {
        let time = |item: &Item| u64::from(item.until.before(feed_ttl).get());
        let count = together.len() as u64;
        let last = time(together[0]);
        let before = by_time.len() - ordered.len() - together.len();
        let begin = match before.checked_sub(1).and_then(|index| by_time.get(index)) {
            Some(item) => time(item),
            None => last.saturating_sub(count),
        };
        for (place, item) in (1..=count).rev().zip(together.iter().rev()) {
            let spread = begin + (last - begin) * place / count;
            limit = spread.min(limit.saturating_sub(1));
            ordered.push((limit, item.subnet));
        }
    }
    ordered.reverse();
    ordered
}

fn page_text(page: &[(u64, Subnet)]) -> String {
    let addresses: Vec<String> = page.iter().map(|(_, ip)| format!("\"{ip}\"")).collect();
    let id = page.last().map_or(0, |(id, _)| *id);
    format!(
        "{{\"ipaddress\":[{}],\"ID\":\"{id}\"}}",
        addresses.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::at;

    fn items(count: u32, until: impl Fn(u32) -> u32) -> Vec<Item> {
        (0..count)
            .map(|n| Item {
                subnet: format!("20.0.{}.{}", n / 250, n % 250).parse().unwrap(),
                source: Part::Feed,
                since: at(1),
                until: at(until(n)),
                hits: 0,
            })
            .collect()
    }

    const TTL: u32 = 604_800;

    fn snapshot(items: &[Item]) -> Vec<(u64, Subnet)> {
        let ordered = ordered(items, Duration::from_secs(TTL.into()));
        assert_eq!(ordered.len(), items.len());
        assert!(
            ordered.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "IDs grow"
        );
        for (id, subnet) in &ordered {
            let item = items.iter().find(|item| item.subnet == *subnet).unwrap();
            assert!(
                *id <= item
                    .until
                    .before(Duration::from_secs(TTL.into()))
                    .get()
                    .into(),
                "never later than the service said"
            );
        }
        ordered
    }

    #[test]
    fn every_address_has_an_id_of_its_own_near_the_services() {
        let start = 1_795_000_000 + TTL;
        // As the service lists: 250 in about a day, and one time for all of them.
        let daily = items(1_000, |n| start + n / 250 * 86_400);
        let ordered = snapshot(&daily);
        for page in 0..4u64 {
            let last = ordered[page as usize * 250 + 249].0;
            assert_eq!(
                last,
                1_795_000_000 + page * 86_400,
                "the last of a page keeps its time"
            );
        }
        assert!(ordered[400].0 > 1_795_000_000 && ordered[400].0 < 1_795_086_400);
        // All in one second, and one a second.
        let dense = snapshot(&items(6_000, |_| start));
        assert_eq!((dense[0].0, dense[5_999].0), (1_794_994_001, 1_795_000_000));
        snapshot(&items(600, |n| start + n));
        snapshot(&items(600, |n| start + n / 2));
        assert!(snapshot(&[]).is_empty());
    }
}
