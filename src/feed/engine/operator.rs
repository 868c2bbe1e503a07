//! What operators can ask of the feed: reload, flush.

use super::outcome::Outage;
use super::{Effect, Engine, Trouble};
use crate::clock::{UnixMillis, WallOffset};
use crate::feed::key::ApiKey;
use crate::log::Level;

impl Engine {
    /// Takes the key as the configuration has it now and starts a full fetch. Pauses after errors and
    /// refused keys end; only a rate limit of the same key is waited for. `force` drops at once what
    /// was held back, and believes the full fetch that follows however short it is.
    pub fn reload(&mut self, now: UnixMillis, key: impl Into<ApiKey>, force: bool) {
        let key = key.into();
        if force {
            self.force();
        }
        let changed = self.key != key;
        if changed {
            self.abandon();
            self.key = key;
        }
        if self.key.key().is_none() {
            self.walk = None;
            self.outage = Outage::default();
            if changed && self.key == ApiKey::NotSet {
                let text = "no API key: the feed is disabled until a reload brings one";
                self.log(Level::Warn, text);
            }
            return;
        }
        if changed || self.outage.trouble != Some(Trouble::RateLimited) {
            self.outage = Outage::default();
        }
        match &self.walk {
            // A full fetch that has not received a page can be reused.
            Some(walk) if walk.is_full() && !walk.has_pages() => {}
            Some(walk) if walk.is_full() => self.full.again = true,
            _ => {
                self.full.next = now;
                self.walk = None;
                self.abandon();
            }
        }
    }

    fn force(&mut self) {
        self.full.force = true;
        if let Some(held) = self.full.take_held() {
            self.effects.push_back(Effect::Sweep(held));
            self.effects.push_back(Effect::SaveSoon);
            let text = "the shrink that was held back is applied by force";
            self.log(Level::Warn, text);
        }
    }

    /// How far the wall clock is ahead of the time that the calls of this engine are given. Control IDs are
    /// wall-clock times of the service.
    pub fn set_wall_offset(&mut self, offset: WallOffset) {
        self.wall_offset = offset;
    }

    /// Starts a full fetch as soon as pauses and budget allow: the wall clock was set, so the ends of entries may be
    /// wrong.
    pub fn refetch(&mut self, now: UnixMillis) {
        match &self.walk {
            Some(walk) if walk.is_full() => self.full.again = true,
            _ => self.full.next = now,
        }
    }

    /// The feed's table was emptied: the next fetch, at its usual time, is a full one.
    pub fn flush_feed(&mut self) {
        self.abandon();
        self.walk = None;
        self.id = None;
        self.full.take_held();
        self.full.last = None;
        self.full.filling = true;
        self.full.again = false;
    }

    fn abandon(&mut self) {
        if let Some(flight) = &mut self.in_flight {
            flight.abandoned = true;
        }
    }
}
