//! This server as a node of the cluster: [`Node`] at work between shared memory, the bus and the clock.

mod tables;

use std::collections::HashMap;
use std::time::Duration;

use crate::bans::block::Bans;
use crate::clock::{Clock, UnixMillis};
use crate::cluster::keys::list_fingerprint;
use crate::cluster::message::Feed;
use crate::cluster::{FeedMode, Keyring, Node, NodeState, NodeView, Settings};
use crate::config::{files, Config};
use crate::shared::changes::ChangeKind;
use crate::shared::cluster::{Ask, Cluster, Number, ShownNode};
use crate::updater::intake::Intake;
use crate::{error, warning};
pub use tables::Bus;
use tables::Tables;

/// How often the bus is asked which nodes there are.
const LIST_PAUSE: Duration = Duration::from_secs(2);
/// The same in the first seconds, while it lists no other node: the bus and this process start side by side.
const FIRST_LIST_PAUSE: Duration = Duration::from_millis(100);
/// How long these first seconds are.
const FIRST: Duration = Duration::from_secs(10);
/// How often operators' view is brought up to date.
const SHOW_PAUSE: Duration = Duration::from_millis(500);
/// Messages taken in one turn, so that time-outs are served meanwhile.
const PER_TURN: usize = 256;
/// Added to the rate limit's window: for clocks of a second's grain.
const WINDOW_MARGIN: Duration = Duration::from_secs(2);

/// The node of this server.
pub struct Driver<'a, B> {
    node: Node,
    config: &'a Config,
    cluster: &'a Cluster,
    clock: Clock,
    tables: Tables<'a, B>,
    /// When this process began.
    started: UnixMillis,
    list_due: UnixMillis,
    show_due: UnixMillis,
    mode: FeedMode,
    granted: u64,
}

/// The secrets of the cluster: of the file, or derived from the API key.
///
/// # Errors
/// There is none, or it cannot be used; the text names the parameters.
pub fn keyring(config: &Config) -> Result<(Keyring, Option<String>), String> {
    let none =
        "enable_dmq 1 needs a secret that all nodes share: set cluster_secret_file, or api_key or \
                api_key_file";
    if !config.cluster_secret_file.is_empty() {
        let file = files::read_secret_file(&config.cluster_secret_file)
            .map_err(|error| format!("cluster_secret_file {error}"))?;
        let secrets = file.secrets.iter().map(|secret| secret.as_bytes());
        let keys = Keyring::new(secrets).ok_or(none)?;
        return Ok((keys, file.warning));
    }
    let (key, _) = files::read_key(config);
    let Some(key) = key.key() else {
        return Err(none.to_owned());
    };
    let keys = Keyring::new([key.expose().as_bytes()]).ok_or(none)?;
    Ok((keys, None))
}

impl<'a, B: Bus> Driver<'a, B> {
    /// A node that knows nobody yet. `cluster` is the part of `bans.shared` for it.
    ///
    /// # Errors
    /// There is no secret.
    pub fn new(
        bans: Bans<'a>,
        cluster: &'a Cluster,
        config: &'a Config,
        clock: Clock,
        bus: B,
    ) -> Result<Self, String> {
        let (keys, _) = keyring(config)?;
        // Without the kernel's randomness there is no session: zero is no valid token.
        let random = Box::new(|| getrandom::u64().unwrap_or(0));
        let window = config.rate_limit_window + config.http_timeout;
        let settings = Settings {
            peer_budget: config.peer_budget,
            peer_capacity: config.max_peer_entries,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: fingerprint(config),
            rate_limit: config.rate_limit_requests,
            rate_window: Duration::from_secs(window.into()) + WINDOW_MARGIN,
            shrink_limit: config.feed_shrink_limit,
        };
        let node = Node::new(settings, keys, random, clock.unix_ms());
        cluster.set(Number::TokenPrefix, u64::from(node.token_prefix()));
        Ok(Driver {
            node,
            config,
            cluster,
            clock,
            tables: Tables {
                bans,
                bus,
                intake: Intake::default(),
                trust_self: config.trust_self,
                numbers: HashMap::new(),
            },
            started: clock.unix_ms(),
            list_due: UnixMillis::ZERO,
            show_due: UnixMillis::ZERO,
            mode: FeedMode::Alone,
            granted: 0,
        })
    }

    /// Does what is to be done now; returns how long there is nothing to do unless somebody wakes us.
    pub fn turn(&mut self) -> Duration {
        let now = self.clock.unix_ms();
        self.cluster.set_time(Number::Turned, Some(now.seconds()));
        self.cluster.changes.awake();
        if now >= self.list_due {
            let nodes = self.tables.bus.nodes();
            let others = nodes.as_ref().map_or(0, |(_, others)| others.len());
            let pause = if others == 0 && now < self.started + FIRST {
                FIRST_LIST_PAUSE
            } else {
                LIST_PAUSE
            };
            self.list_due = now + pause;
            if let Some((own, others)) = nodes {
                self.node.listed(&own, &others);
            }
        }
        self.serve_requests(now);
        self.take_changes(now);
        let mut taken = 0;
        while taken < PER_TURN {
            let Some((from, bytes)) = self.cluster.take_message() else {
                break;
            };
            self.node.receive(now, from, &bytes, &mut self.tables);
            taken += 1;
        }
        self.tell_feed(now);
        let mut due = self.node.tick(now, &mut self.tables);
        self.show_feed();
        if now >= self.show_due {
            self.show_due = now + SHOW_PAUSE;
            self.show(now);
        }
        if taken == PER_TURN {
            due = now;
        }
        let due = due.min(self.list_due).min(self.show_due);
        due.since(now)
    }

    fn serve_requests(&mut self, now: UnixMillis) {
        let asked = self.cluster.take_asked();
        if asked(Ask::Reload) {
            self.reload();
        }
        if asked(Ask::Force) {
            self.node.force();
        }
        if asked(Ask::FlushedPeers) {
            self.node.flush_peer(None, &mut self.tables);
        }
        while let Some(uri) = self.cluster.take_flush() {
            self.node.flush_peer(Some(&uri), &mut self.tables);
        }
        if asked(Ask::FlushedLocal) {
            self.node.scan(now, &mut self.tables);
        }
        if asked(Ask::ListChanged) {
            self.node.scan_list(now, &mut self.tables);
        }
    }

    fn reload(&mut self) {
        match keyring(self.config) {
            Ok((keys, open)) => {
                if let Some(text) = open {
                    warning!("{text}");
                }
                self.node.set_keys(keys);
            }
            Err(problem) => error!("{problem}; the secrets of the cluster stay as they were"),
        }
        self.node.set_fingerprint(fingerprint(self.config));
    }

    fn take_changes(&mut self, now: UnixMillis) {
        if self.cluster.changes.lost() {
            self.node.scan(now, &mut self.tables);
        }
        while let Some(change) = self.cluster.changes.take() {
            match change.kind {
                ChangeKind::Blocked => {
                    self.node.own_changed(now, change.subnet, &self.tables);
                }
                ChangeKind::Unblocked => self.node.lifted(now, change.subnet, &mut self.tables),
            }
        }
    }

    /// What this node's engine says of the list.
    fn tell_feed(&mut self, now: UnixMillis) {
        let number = |number| self.cluster.number(number);
        let published = &self.tables.bans.shared.published;
        let feed = Feed {
            healthy: number(Number::OwnHealthy) != 0,
            last_success: self.cluster.time(Number::OwnSuccess),
            last_full: self.cluster.time(Number::OwnFull),
            id: published.text(crate::shared::published::Text::FeedId),
            ..Feed::default()
        };
        self.node.set_feed(now, feed);
        self.node.wish(number(Number::Wished));
    }

    /// What the updater has to know of the list.
    fn show_feed(&mut self) {
        let view = self.node.feed_view();
        let cluster = self.cluster;
        if self.mode != view.mode || view.mode == FeedMode::Follow {
            cluster.fetcher().set(&view.fetcher);
        }
        // What the last fetcher said stays: a successor goes on from there.
        if view.mode == FeedMode::Follow {
            cluster.fetched_id().set(&view.fetched.id);
            cluster.set_time(Number::FetchedSuccess, view.fetched.last_success);
            cluster.set_time(Number::FetchedFull, view.fetched.last_full);
        }
        cluster.set(Number::Whole, u64::from(view.whole));
        cluster.set(Number::Held, u64::from(view.held));
        cluster.set(Number::Granted, view.granted);
        cluster.set(Number::Mode, view.mode as u64 + 1);
        if self.mode != view.mode || self.granted != view.granted {
            self.mode = view.mode;
            self.granted = view.granted;
            self.tables.bans.wake.wake();
        }
    }

    /// What operators see.
    fn show(&mut self, now: UnixMillis) {
        let counts = self.node.counts();
        let nodes = self.node.view(now);
        let there = nodes.iter().filter(|node| {
            matches!(node.state, NodeState::Myself | NodeState::Ok) && !node.uri.is_empty()
        });
        self.cluster.set(Number::Nodes, there.count() as u64);
        self.cluster.set(Number::Sent, counts.sent);
        self.cluster.set(Number::Received, counts.received);
        self.cluster.set(Number::Refused, counts.refused);
        let numbers = &mut self.tables.numbers;
        let known: Vec<(String, u16)> = numbers.iter().map(|(uri, n)| (uri.clone(), *n)).collect();
        for (uri, number) in known {
            if !nodes.iter().any(|node| node.uri == uri) {
                numbers.remove(&uri);
                self.cluster.node(usize::from(number)).set("");
            }
        }
        for (index, node) in nodes.iter().enumerate() {
            let number = match index {
                0 => 0,
                _ => self.tables.number_of(&node.uri),
            };
            if !node.uri.is_empty() {
                shown(node, now).write(self.cluster.node(usize::from(number)));
            }
        }
    }
}

fn shown(node: &NodeView, now: UnixMillis) -> ShownNode {
    ShownNode {
        uri: node.uri.clone(),
        state: node.state.as_str().to_owned(),
        role: node.role.as_str().to_owned(),
        bans: node.bans,
        heard: node.seen.map(|age| now.seconds().before(age)),
        refused: node.refused,
        version: node.version.clone(),
        address: node
            .authenticated
            .map_or(String::new(), |ip| ip.to_string()),
    }
}

/// What the list is, for nodes to know whether they share it; 0: this node shares none.
fn fingerprint(config: &Config) -> u64 {
    let (key, _) = files::read_key(config);
    match (config.source(), key.key()) {
        (Ok(source), Some(key)) if config.cluster_fetch_one => {
            list_fingerprint(&source.fingerprint(), key.expose().as_bytes())
        }
        _ => 0,
    }
}
