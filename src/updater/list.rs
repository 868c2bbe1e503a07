//! The list: exchanges with the service, and what comes of them in tables and firewalls.

use std::collections::HashSet;

use super::following::Permit;
use super::{feed_settings, Discovery, EventSink, Updater};
use crate::address::Subnet;
use crate::clock::UnixMillis;
use crate::feed::{Effect, Engine, Listed, Step};
use crate::shared::cluster::Ask;
use crate::shared::events::{Event, EventKind};
use crate::shared::origin::Origin;
use crate::shared::Shared;
use crate::{info, log};

impl<H: Discovery + EventSink> Updater<'_, H> {
    /// Takes the result of an exchange, and sends the next request when it is due; returns when to look again.
    pub(super) fn drive_feed(&mut self, now: UnixMillis) -> UnixMillis {
        if let Some(result) = self.exchange.try_result() {
            let shared = self.shared;
            self.engine.on_result(now, result, &|| live(shared));
        }
        self.carry_out();
        let saved = self.engine.saved();
        if let Some(saved) = self.following.take_over(self.shared, &saved) {
            if let Ok(source) = self.config.source() {
                let settings = feed_settings(self.config, source);
                self.engine = Engine::new(settings, self.key.clone(), Some(saved), now);
            }
        }
        let due = self.engine.status(now).next_poll;
        let (permit, wished) = self.following.permit(self.shared, now, due);
        if wished {
            self.host.wake_cluster();
        }
        let next = match permit {
            Permit::Wait(until) => until,
            Permit::Ask => match self.engine.next(now) {
                Step::Fetch(request) => {
                    self.following.sent();
                    self.exchange.start(request);
                    UnixMillis::MAX
                }
                Step::Wait(until) => until,
                Step::Busy | Step::Idle => UnixMillis::MAX,
            },
        };
        self.carry_out();
        next
    }

    pub(super) fn carry_out(&mut self) {
        let mut list_changed = false;
        while let Some(effect) = self.engine.poll_effect() {
            list_changed |= matches!(effect, Effect::Apply(_) | Effect::Sweep(_));
            match effect {
                Effect::Apply(listed) => self.apply(&listed),
                Effect::Sweep(keep) => {
                    self.wall.forget(Origin::Feed);
                    self.sweep(&keep);
                }
                Effect::FullDone { count } => {
                    let kept = self.shared.feed.len();
                    info!(
                        "feed: full fetch complete: {count} addresses listed, {kept} in the table"
                    );
                    if self.host.wants(EventKind::Sync) {
                        self.host.raise(&sync_event(kept));
                    }
                }
                Effect::Log(level, text) => {
                    log!(level, "{text}");
                }
                Effect::SaveSoon => self.state_writer.changed(),
            }
        }
        if let (true, Some(cluster)) = (list_changed, &self.shared.cluster) {
            cluster.ask(Ask::ListChanged);
            self.host.wake_cluster();
        }
    }

    /// Puts a page of the list into table and firewall.
    pub(super) fn apply(&mut self, listed: &[Listed]) {
        let own = |ip| self.config.trust_self && self.host.is_own(ip);
        let (shared, firewalls) = (self.shared, &self.firewalls);
        self.intake.apply(shared, listed, own, |subnet| {
            firewalls.follow(shared, Origin::Feed, subnet);
        });
    }

    /// Removes what a complete list no longer holds.
    fn sweep(&mut self, keep: &HashSet<Subnet>) {
        let spared = self.shared.trust.spared();
        spared.retain(|subnet, _| keep.contains(&subnet));
        let mut dropped = Vec::new();
        self.shared.feed.retain(|subnet, _| {
            let keep = keep.contains(&subnet);
            if !keep {
                dropped.push(subnet);
            }
            keep
        });
        if !dropped.is_empty() {
            info!("{} addresses are no longer listed", dropped.len());
        }
        for subnet in dropped {
            self.tell_firewalls(Origin::Feed, subnet);
        }
    }
}

fn sync_event(count: usize) -> Event {
    Event {
        kind: EventKind::Sync,
        ip: String::new(),
        origin: Origin::Feed,
        reason: String::new(),
        count: u32::try_from(count).unwrap_or(u32::MAX),
    }
}

/// The live entries of the feed's table.
fn live(shared: &Shared) -> Vec<Subnet> {
    let now = shared.now();
    let mut subnets = Vec::new();
    shared
        .feed
        .for_each_live(now, |entry| subnets.push(entry.subnet));
    subnets
}
