//! What differs is asked for and sent again, a part at a time.
//!
//! A part says where it begins and ends, and holds everything that the sender has between: the receiver needs no
//! other part to act on it, and one that is lost is asked for again when the digests differ the next time.

use std::collections::HashSet;
use std::time::Duration;

use super::{Host, Node};
use crate::address::Subnet;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::message::{Header, Item, Items, Kind, Place, Set};
use crate::cluster::peer::{Asking, Serving, Unsettled};

/// Messages sent for one request: what arrives at once, and what is lost at most.
const PER_REQUEST: u32 = 32;
/// Bytes at the end of a part that say where it ends, and that there is more.
const END: usize = 32;
/// Bytes of the list in one part: the longest message without header, MAC, beginning and end.
const LIST_BYTES: usize = 1_060;
/// A part that did not come within this time will not.
const PATIENCE: Duration = Duration::from_secs(3);

impl Node {
    /// Compares digests whose time has come with what is here.
    pub(super) fn look_again(&mut self, now: UnixMillis, host: &mut dyn Host) {
        for index in 0..self.peers.len() {
            let unsettled = std::mem::take(&mut self.peers[index].unsettled);
            for one in unsettled {
                if one.at > now {
                    self.peers[index].unsettled.push(one);
                } else {
                    self.compare(now, index, one, host);
                }
            }
        }
    }

    fn compare(
        &mut self,
        now: UnixMillis,
        index: usize,
        Unsettled { set, digests, .. }: Unsettled,
        host: &mut dyn Host,
    ) {
        let mask = match set {
            Set::Bans => self.peers[index].bans.differing(&digests),
            Set::List if !self.lease.follows(self.peers[index].id) => return,
            Set::List => self.lease.list().differing(&digests),
        };
        if mask == 0 {
            if set == Set::List {
                self.list_is_whole(host);
            }
            return;
        }
        let full = self.peers[index].bans.len() >= self.settings.peer_capacity / 2;
        if set == Set::Bans && full {
            // Nothing more of it would be taken.
            return;
        }
        let asking = self.peers[index].asking_mut(set);
        if asking.is_none_or(|asking| now >= asking.at + PATIENCE) {
            self.ask(now, index, (set, mask, None), host);
        }
    }

    fn ask(
        &mut self,
        now: UnixMillis,
        index: usize,
        (set, mask, after): (Set, u32, Option<Place>),
        host: &mut dyn Host,
    ) {
        let mut items = Items::new();
        items.add(&Item::After(set, mask, after));
        *self.peers[index].asking_mut(set) = Some(Asking { at: now });
        self.send_to(now, index, Kind::Request, &items, host);
    }

    /// A node asks for a part of what this one has.
    pub(super) fn take_request(&mut self, index: usize, items: &[Item]) {
        for item in items {
            let Item::After(set, mask, after) = *item else {
                continue;
            };
            if set == Set::List && !self.lease.holds() {
                continue;
            }
            self.peers[index].serving[set as usize] = Some(Serving {
                set,
                mask,
                after,
                left: PER_REQUEST,
            });
        }
    }

    /// Sends parts that were asked for, one message to each node in turn.
    pub(super) fn serve(&mut self, now: UnixMillis, host: &mut dyn Host) {
        let mut busy = true;
        while busy {
            busy = false;
            for (index, slot) in (0..self.peers.len()).flat_map(|index| [(index, 0), (index, 1)]) {
                let Some(serving) = self.peers[index].serving[slot] else {
                    continue;
                };
                if self.pace.left(now) == 0 {
                    return;
                }
                self.pace.spend();
                self.peers[index].serving[slot] = self.serve_one(now, index, serving, host);
                busy = true;
            }
        }
    }

    fn serve_one(
        &mut self,
        now: UnixMillis,
        index: usize,
        serving: Serving,
        host: &mut dyn Host,
    ) -> Option<Serving> {
        let (items, last) = match serving.set {
            Set::Bans => self.part_of_bans(&serving, host),
            Set::List => self.part_of_list(&serving),
        };
        let mut items = items;
        items.add(&Item::UpTo(last));
        let left = serving.left - 1;
        if last.is_some() && left == 0 {
            items.add(&Item::More);
        }
        self.send_to(now, index, Kind::Part, &items, host);
        if last.is_none() {
            // Whether all of it came need not wait for the next HELLO.
            let to = self.peers[index].session.theirs;
            self.greet(now, index, to, host);
        }
        (last.is_some() && left > 0).then_some(Serving {
            after: last,
            left,
            ..serving
        })
    }

    /// As many bans as fit, and the last one's place; `None` if there are no more.
    fn part_of_bans(&self, serving: &Serving, host: &dyn Host) -> (Items, Option<Place>) {
        let mut items = beginning(serving);
        let mut last = serving.after;
        for (place, _) in self.own.range(serving.mask, serving.after, None) {
            let item = self.ban_item(place.1, host);
            if item.is_some_and(|item| !items.add_leaving(END, &item)) {
                return (items, last);
            }
            last = Some(place);
        }
        (items, None)
    }

    fn part_of_list(&self, serving: &Serving) -> (Items, Option<Place>) {
        let mut items = beginning(serving);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut last = serving.after;
        for (place, held) in self.own_list.range(serving.mask, serving.after, None) {
            bytes += list_bytes(place.1);
            if bytes > LIST_BYTES {
                items.add(&Item::Listed(entries));
                return (items, last);
            }
            entries.push((place.1, held.end));
            last = Some(place);
        }
        items.add(&Item::Listed(entries));
        (items, None)
    }

    /// A part of what another node has.
    pub(super) fn take_part(
        &mut self,
        now: UnixMillis,
        index: usize,
        header: &Header,
        items: Vec<Item>,
        host: &mut dyn Host,
    ) {
        let (mut begin, mut end, mut more) = (None, None, false);
        let (mut bans, mut listed) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::After(set, mask, after) => begin = Some((set, mask, after)),
                Item::UpTo(place) => end = Some(place),
                Item::More => more = true,
                Item::Ban(ban) => bans.push(ban),
                Item::Listed(entries) => listed.extend(entries),
                _ => {}
            }
        }
        let (Some((set, mask, after)), Some(upto)) = (begin, end) else {
            return;
        };
        match set {
            Set::Bans => {
                let has: HashSet<Subnet> = bans.iter().map(|ban| ban.subnet).collect();
                let range = (mask, after, upto);
                self.drop_missing(index, range, &has, header.time, host);
                let mut told = Items::new();
                for ban in &bans {
                    self.take_ban(now, index, ban, &mut told, host);
                }
                if !told.is_empty() {
                    self.send_to(now, index, Kind::Bans, &told, host);
                }
            }
            Set::List => self.take_list_part(index, (mask, after, upto), &listed, header, host),
        }
        // Also after the last part: what still differs then is asked for a while later, not over and over.
        *self.peers[index].asking_mut(set) = Some(Asking { at: now });
        if more {
            self.ask(now, index, (set, mask, upto), host);
        }
    }

    /// What the sender no longer has, unless it is younger than the part.
    fn drop_missing(
        &mut self,
        index: usize,
        (mask, after, upto): (u32, Option<Place>, Option<Place>),
        has: &HashSet<Subnet>,
        time: UnixMillis,
        host: &mut dyn Host,
    ) {
        let peer = &mut self.peers[index];
        let range = peer.bans.range(mask, after, upto);
        let gone: Vec<Subnet> = range
            .filter(|((_, subnet), held)| !has.contains(subnet) && held.stamp <= time)
            .map(|((_, subnet), _)| subnet)
            .collect();
        for subnet in gone {
            self.peers[index].bans.remove(subnet);
            self.settle(subnet, host);
        }
    }
}

fn beginning(serving: &Serving) -> Items {
    let mut items = Items::new();
    items.add(&Item::After(serving.set, serving.mask, serving.after));
    items
}

/// What an entry of the list takes in a message.
pub(super) fn list_bytes(subnet: Subnet) -> usize {
    // Family, length, address, end.
    6 + if subnet.is_v4() { 4 } else { 16 }
}

/// Cuts entries of the list into items that fit one message each.
pub(super) fn list_parts(entries: &[(Subnet, UnixSeconds)]) -> Vec<Items> {
    let most = LIST_BYTES / list_bytes(Subnet::host(std::net::Ipv6Addr::LOCALHOST.into()));
    let of = |some: &[(Subnet, UnixSeconds)]| {
        let mut items = Items::new();
        items.add(&Item::Listed(some.to_vec()));
        items
    };
    entries.chunks(most).map(of).collect()
}
