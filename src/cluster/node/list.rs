//! The list on its way from the node that fetches it to those that follow.

use std::collections::HashSet;

use super::lease::Holder;
use super::sync::list_parts;
use super::{Host, Node};
use crate::address::Subnet;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::message::{Header, Item, Kind, Place};
use crate::cluster::replica::{Held, State};
use crate::log::Level;

/// Changed entries of the list that are told one by one; beyond, the digests tell.
const MOST_PUSHED: usize = 8_192;
/// A list shorter than this may shrink as it likes.
const SHRINK_MIN: usize = 100;

impl Node {
    /// Compares what is known of this node's list with the table; tells the others what is new.
    pub fn scan_list(&mut self, now: UnixMillis, host: &mut dyn Host) {
        if !self.lease.holds() {
            return;
        }
        let clock = now.seconds();
        let mut seen = HashSet::new();
        let mut news = Vec::new();
        host.each_listed(&mut |subnet, end| {
            if end > clock {
                seen.insert(subnet);
                if self.own_list.get(subnet).is_none_or(|held| held.end != end) {
                    news.push((subnet, end));
                }
            }
        });
        let listed = self.own_list.iter().map(|(subnet, _)| subnet);
        let gone: Vec<Subnet> = listed.filter(|subnet| !seen.contains(subnet)).collect();
        for subnet in gone {
            self.own_list.remove(subnet);
        }
        for (subnet, end) in &news {
            let held = Held {
                end: *end,
                stamp: now,
                state: State::Placed,
            };
            self.own_list.insert(*subnet, held);
        }
        if news.len() <= MOST_PUSHED {
            self.broadcast(now, Kind::Listed, list_parts(&news));
        }
    }

    /// Entries that the fetcher has just got.
    pub(super) fn take_listed(
        &mut self,
        index: usize,
        header: &Header,
        items: Vec<Item>,
        host: &mut dyn Host,
    ) {
        if !self.lease.follows(self.peers[index].id) {
            return;
        }
        for item in items {
            if let Item::Listed(entries) = item {
                self.take_entries(index, &entries, header.time, host);
            }
        }
    }

    fn take_entries(
        &mut self,
        index: usize,
        entries: &[(Subnet, UnixSeconds)],
        time: UnixMillis,
        host: &mut dyn Host,
    ) {
        let mut news = Vec::new();
        for (subnet, end) in entries {
            let known = self.lease.list.get(*subnet).copied();
            if known.is_some_and(|held| held.stamp > time || held.end == *end) {
                continue;
            }
            let held = Held {
                end: *end,
                stamp: time,
                state: State::Placed,
            };
            self.lease.list.insert(*subnet, held);
            news.push((*subnet, self.peers[index].to_local(*end)));
        }
        if !news.is_empty() {
            host.list(&news);
        }
    }

    pub(super) fn take_list_part(
        &mut self,
        index: usize,
        (mask, after, upto): (u32, Option<Place>, Option<Place>),
        entries: &[(Subnet, UnixSeconds)],
        header: &Header,
        host: &mut dyn Host,
    ) {
        if !self.lease.follows(self.peers[index].id) {
            return;
        }
        let has: HashSet<Subnet> = entries.iter().map(|(subnet, _)| *subnet).collect();
        let range = self.lease.list.range(mask, after, upto);
        let gone: Vec<Subnet> = range
            .filter(|((_, subnet), held)| !has.contains(subnet) && held.stamp <= header.time)
            .map(|((_, subnet), _)| subnet)
            .collect();
        self.lease.shrunk |= !gone.is_empty();
        for subnet in gone {
            self.lease.list.remove(subnet);
        }
        self.take_entries(index, entries, header.time, host);
    }

    /// The list is what the fetcher has: what is in the table and not in it goes, unless that is suspicious.
    pub(super) fn list_is_whole(&mut self, host: &mut dyn Host) {
        let fetched = match self.lease.holder {
            Holder::Peer(id) => self.peers.iter().find(|peer| peer.id == id),
            _ => None,
        };
        let Some(last_full) = fetched.map(|peer| peer.feed.last_full.unwrap_or_default()) else {
            return;
        };
        let first = !std::mem::replace(&mut self.lease.whole, true);
        let forced = std::mem::take(&mut self.lease.force);
        let again = self.lease.held.is_some_and(|held| held != last_full);
        if !first && !self.lease.shrunk && !forced && !again {
            return;
        }
        self.lease.shrunk = false;
        let (mut known, mut dropped) = (0usize, 0usize);
        host.each_listed(&mut |subnet, _| {
            known += 1;
            dropped += usize::from(self.lease.list.get(subnet).is_none());
        });
        if dropped == 0 {
            self.lease.held = None;
            return;
        }
        let limit = usize::from(self.settings.shrink_limit);
        if known >= SHRINK_MIN && dropped * 100 > known * limit && !forced && !again {
            if self.lease.held.replace(last_full).is_none() {
                let text = format!(
                    "cluster: the fetcher's list would drop {dropped} of {known} addresses \
                     (feed_shrink_limit {limit} %): nothing is dropped until its next full fetch \
                     agrees or apiban.reload force"
                );
                host.log(Level::Warn, &text);
            }
            return;
        }
        self.lease.held = None;
        let list = &self.lease.list;
        let went = host.keep_listed(&|subnet| list.get(subnet).is_some());
        host.log(
            Level::Info,
            &format!("cluster: {went} addresses are no longer listed"),
        );
    }
}
