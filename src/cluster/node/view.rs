//! The cluster as operators see it.

use std::net::IpAddr;
use std::time::Duration;

use super::Node;
use crate::clock::UnixMillis;
use crate::cluster::replica::State;

/// How this node stands with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// This node itself.
    Myself,
    /// It holds the secret and lives.
    Ok,
    /// Nothing was heard of it, or not lately.
    Silent,
    /// Its messages are refused.
    Refused,
}

impl NodeState {
    /// The word in `apiban.nodes`.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Myself => "self",
            NodeState::Ok => "ok",
            NodeState::Silent => "silent",
            NodeState::Refused => "refused",
        }
    }
}

/// What a node does for the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It fetches for all.
    Fetcher,
    /// It takes the list from the fetcher.
    Follower,
    /// It shares no list with this node.
    Alone,
}

impl Role {
    /// The word in `apiban.nodes`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Fetcher => "fetcher",
            Role::Follower => "follower",
            Role::Alone => "alone",
        }
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its URI on the bus.
    pub uri: String,
    /// How this node stands with it.
    pub state: NodeState,
    /// What it does for the list.
    pub role: Role,
    /// Its bans that are in force here; of this node: its own.
    pub bans: u64,
    /// Time since it was heard last; `None`: never.
    pub seen: Option<Duration>,
    /// Messages and bans of it that were refused.
    pub refused: u64,
    /// Its software; empty if it never said.
    pub version: String,
    /// Its address if it holds the secret and is reachable there.
    pub authenticated: Option<IpAddr>,
}

impl Node {
    /// Every node, this one first.
    pub fn view(&self, now: UnixMillis) -> Vec<NodeView> {
        let role = |holds: bool, shares: bool| match (holds, shares) {
            (_, false) => Role::Alone,
            (true, true) => Role::Fetcher,
            (false, true) => Role::Follower,
        };
        let myself = NodeView {
            uri: self.uri.clone(),
            state: NodeState::Myself,
            role: role(self.lease.holds(), self.settings.fingerprint != 0),
            bans: self.own.len() as u64,
            seen: Some(Duration::ZERO),
            refused: 0,
            version: self.settings.software.clone(),
            authenticated: None,
        };
        let fingerprint = self.settings.fingerprint;
        let others = self.peers.iter().map(|peer| NodeView {
            uri: peer.uri.clone(),
            state: match () {
                _ if peer.is_authenticated() && !peer.is_silent(now) => NodeState::Ok,
                _ if peer.complained.is_some() && !peer.is_authenticated() => NodeState::Refused,
                _ => NodeState::Silent,
            },
            role: role(
                self.lease.follows(peer.id),
                fingerprint != 0 && peer.feed.fingerprint == fingerprint,
            ),
            bans: peer
                .bans
                .iter()
                .filter(|(_, held)| held.state == State::Placed)
                .count() as u64,
            seen: (peer.heard != UnixMillis::ZERO).then(|| now.since(peer.heard)),
            refused: peer.refused,
            version: peer.software.clone(),
            authenticated: peer.is_authenticated().then_some(peer.address),
        });
        std::iter::once(myself).chain(others).collect()
    }
}
