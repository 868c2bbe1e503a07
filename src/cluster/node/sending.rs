//! Messages on their way out, at the pace that Kamailio's memory allows.

use std::rc::Rc;

use super::{Host, Node, MOST_WAITING};
use crate::clock::UnixMillis;
use crate::cluster::message::{Header, Items, Kind, Set, VERSION};

/// A message on its way to all nodes.
pub(super) struct Broadcast {
    kind: Kind,
    items: Rc<Items>,
    /// The nodes that were there when it was made, by identity; the last goes first.
    to: Vec<u64>,
}

impl Node {
    /// Sends one message to a node, under the token that it gave.
    pub(super) fn send_to(
        &mut self,
        now: UnixMillis,
        index: usize,
        kind: Kind,
        items: &Items,
        host: &mut dyn Host,
    ) {
        let to = self.peers[index].session.theirs;
        self.send_as(now, index, kind, to, items, host);
    }

    /// The same with another token.
    pub(super) fn send_as(
        &mut self,
        now: UnixMillis,
        index: usize,
        kind: Kind,
        to: u64,
        items: &Items,
        host: &mut dyn Host,
    ) {
        self.sequence += 1;
        let header = Header {
            version: VERSION,
            kind,
            run: self.run,
            to,
            sequence: self.sequence,
            time: now,
        };
        let bytes = items.seal(&header, &self.keys);
        self.counts.sent += 1;
        self.counts.bytes += bytes.len() as u64;
        host.send(&self.peers[index].uri, &bytes);
    }

    /// Queues messages for every node that is there; what no node gets, the digests tell.
    pub(super) fn broadcast(&mut self, now: UnixMillis, kind: Kind, parts: Vec<Items>) {
        let fresh = self.peers.iter().filter(|peer| peer.is_fresh(now));
        let to: Vec<u64> = fresh.map(|peer| peer.id).collect();
        if to.is_empty() {
            return;
        }
        for items in parts {
            if self.waiting.len() >= MOST_WAITING {
                return;
            }
            self.waiting.push_back(Broadcast {
                kind,
                items: Rc::new(items),
                to: to.clone(),
            });
        }
    }

    /// Sends what waits, as fast as the pace allows; then parts of sets that were asked for.
    pub(super) fn send_waiting(&mut self, now: UnixMillis, host: &mut dyn Host) {
        while self.pace.left(now) > 0 {
            let Some(first) = self.waiting.front_mut() else {
                break;
            };
            let Some(id) = first.to.pop() else {
                self.waiting.pop_front();
                continue;
            };
            let (kind, items) = (first.kind, Rc::clone(&first.items));
            if let Some(index) = self.peers.iter().position(|peer| peer.id == id) {
                if self.peers[index].is_fresh(now) {
                    self.send_to(now, index, kind, &items, host);
                    self.pace.spend();
                }
            }
        }
        self.serve(now, host);
    }

    /// True while changes of a set are under way to the others: its digests would only confuse them.
    pub(super) fn is_sending(&self, set: Set) -> bool {
        let wanted = match set {
            Set::Bans => Kind::Bans,
            Set::List => Kind::Listed,
        };
        self.waiting.iter().any(|waiting| waiting.kind == wanted)
    }
}
