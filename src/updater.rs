//! The updater: turns the feed, requests and time into changes of the tables.
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Config;
use crate::feed::Key;
use crate::restore::Resumed;
use crate::shared::Shared;
use crate::trust::Trusted;

/// What the updater asks of the program it runs in.
pub trait Host {
    /// True for an address that this server listens on.
    fn is_own(&self, ip: IpAddr) -> bool;
    /// Trust rules that the program finds by itself.
    fn automatic_trust(&self) -> Vec<Trusted>;
}

/// What an updater is made from.
pub struct Parts<'a> {
    /// The parameters.
    pub config: &'a Config,
    /// The shared memory.
    pub shared: &'a Shared,
    /// The time.
    pub clock: Clock,
    /// The key, where there is one.
    pub key: Option<Key>,
    /// What the last run left.
    pub resumed: Resumed,
}
/// x
pub struct Updater<'a> {
    parts: Parts<'a>,
}
impl<'a> Updater<'a> {
    /// x
    pub fn new(parts: Parts<'a>, _: Box<dyn Fn()>) -> Self {
        Updater { parts }
    }
    /// x
    pub fn turn(&mut self, _: &dyn Host) -> Duration {
        self.parts.shared.set_now(self.parts.clock.unix());
        Duration::from_secs(1)
    }
    /// x
    pub fn end(&mut self) {}
}
