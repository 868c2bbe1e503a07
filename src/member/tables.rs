//! The tables of this server and the bus, as a [`Node`](crate::cluster::Node) uses them.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::address::Subnet;
use crate::bans::block::{Bans, By, Order, Refusal};
use crate::clock::UnixSeconds;
use crate::cluster::{Host, OwnBan, Placed};
use crate::log;
use crate::log::Level;
use crate::shared::changes::ChangeKind;
use crate::shared::cluster::SHOWN_NODES;
use crate::shared::origin::Origin;
use crate::updater::intake::Intake;

/// The bus that the messages travel on.
pub trait Bus {
    /// Sends a message to a node. It must not wait for the answer.
    fn send(&mut self, uri: &str, message: &[u8]);
    /// This node's URI and those of the others, with numeric addresses; `None` while the bus is not ready.
    fn nodes(&mut self) -> Option<(String, Vec<String>)>;
    /// True for an address that this server listens on.
    fn is_own(&self, ip: IpAddr) -> bool;
}

/// The tables of this server, for the node.
pub struct Tables<'a, B> {
    /// Places and lifts bans.
    pub bans: Bans<'a>,
    /// Sends the messages.
    pub bus: B,
    /// Takes the list of the fetcher.
    pub intake: Intake,
    /// This server's own addresses are never banned.
    pub trust_self: bool,
    /// The numbers of the nodes, from 1.
    pub numbers: HashMap<String, u16>,
}

impl<B> Tables<'_, B> {
    /// The number of a node, from 1; 0 if there are too many.
    pub fn number_of(&mut self, uri: &str) -> u16 {
        if let Some(number) = self.numbers.get(uri) {
            return *number;
        }
        let free = (1..SHOWN_NODES as u16).find(|n| !self.numbers.values().any(|used| used == n));
        let number = free.unwrap_or(0);
        if number != 0 {
            self.numbers.insert(uri.to_owned(), number);
        }
        number
    }
}

impl<B: Bus> Host for Tables<'_, B> {
    fn send(&mut self, uri: &str, message: &[u8]) {
        self.bus.send(uri, message);
    }

    fn own(&self, subnet: Subnet) -> Option<OwnBan> {
        let local = &self.bans.shared.local;
        let entry = local.entry(local.find(subnet)?)?;
        Some(OwnBan {
            end: entry.value,
            since: entry.since,
            reason: entry.reason,
        })
    }

    fn each_own(&self, visit: &mut dyn FnMut(Subnet, UnixSeconds, UnixSeconds)) {
        let local = &self.bans.shared.local;
        local.for_each(|entry| visit(entry.subnet, entry.value, entry.since));
    }

    fn holds(&self, subnet: Subnet) -> bool {
        self.bans.shared.peer.find(subnet).is_some()
    }

    fn place(&mut self, uri: &str, subnet: Subnet, end: UnixSeconds, reason: &str) -> Placed {
        let order = Order {
            subnet,
            ttl: end.seconds_since(self.bans.shared.now()).max(1),
            reason,
            by: By::Peer(self.number_of(uri)),
        };
        match self.bans.block(order) {
            Ok(_) => Placed::Yes,
            Err(Refusal::Full) => Placed::Full,
            Err(_) => Placed::Refused,
        }
    }

    fn shorten(&mut self, subnet: Subnet, end: UnixSeconds) {
        self.bans.shorten(Origin::Peer, subnet, end);
    }

    fn lift(&mut self, subnet: Subnet) {
        self.bans.lift(Origin::Peer, subnet);
    }

    fn lift_own(&mut self, subnet: Subnet) {
        self.bans.lift(Origin::Local, subnet);
    }

    fn each_listed(&self, visit: &mut dyn FnMut(Subnet, UnixSeconds)) {
        let feed = &self.bans.shared.feed;
        feed.for_each(|entry| visit(entry.subnet, entry.value));
    }

    fn list(&mut self, entries: &[(Subnet, UnixSeconds)]) {
        let offset = self.bans.shared.wall_offset();
        let listed: Vec<crate::feed::Listed> = entries
            .iter()
            .map(|(subnet, end)| crate::feed::Listed {
                subnet: *subnet,
                // The ends of the list are wall-clock times, those of the nodes are not.
                end: offset.wall(*end),
            })
            .collect();
        let (bus, trust_self, bans) = (&self.bus, self.trust_self, self.bans);
        let own = |ip| trust_self && bus.is_own(ip);
        self.intake.apply(bans.shared, &listed, own, |subnet| {
            bans.changed(Origin::Feed, subnet, ChangeKind::Blocked);
        });
    }

    fn keep_listed(&mut self, keep: &dyn Fn(Subnet) -> bool) -> usize {
        let mut gone = Vec::new();
        self.bans.shared.feed.retain(|subnet, _| {
            let keep = keep(subnet);
            if !keep {
                gone.push(subnet);
            }
            keep
        });
        for subnet in &gone {
            self.bans
                .changed(Origin::Feed, *subnet, ChangeKind::Unblocked);
        }
        gone.len()
    }

    fn log(&mut self, level: Level, text: &str) {
        log!(level, "{text}");
    }
}
