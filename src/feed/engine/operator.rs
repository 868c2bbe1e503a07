//! What operators can tell the feed: reload, flush.

use super::{Effect, Engine, Trouble};
use crate::feed::key::ApiKey;
use crate::log::Level;

impl Engine {
    /// Takes the key as the configuration has it now and starts a full fetch. Pauses after errors and
    /// refused keys end; only a rate limit of the same key is waited for. `force` drops at once what
    /// was held back, and believes the full fetch that follows however short it is.
    pub fn reload(&mut self, now: u64, key: impl Into<ApiKey>, force: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        if force {
            self.force = true;
            if let Some(held) = self.held.take() {
                effects.push(Effect::Sweep(held));
                effects.push(Effect::SaveSoon);
                let text = "the shrink that was held back is applied by force";
                self.log(Level::Warn, text, &mut effects);
            }
        }
        let key = key.into();
        let changed = self.key != key;
        if changed {
            self.abandon();
            self.key = key;
        }
        if self.key.key().is_none() {
            self.walk = None;
            self.trouble = None;
            self.last_error.clear();
            if changed && self.key == ApiKey::NotSet {
                let text = "no API key: the feed is disabled until a reload brings one";
                self.log(Level::Warn, text, &mut effects);
            }
            return effects;
        }
        if changed || self.trouble != Some(Trouble::RateLimited) {
            self.blocked_until = 0;
            self.failures = 0;
            self.trouble = None;
            self.last_error.clear();
        }
        match &self.walk {
            // One that has not begun yet is as good as a new one.
            Some(walk) if walk.is_full() && !walk.has_pages() => {}
            Some(walk) if walk.is_full() => self.again = true,
            _ => {
                self.next_full = now;
                self.walk = None;
                self.abandon();
            }
        }
        effects
    }

    /// The feed's table was emptied: the next fetch, at its usual time, is a full one.
    pub fn flush_feed(&mut self) {
        self.abandon();
        self.walk = None;
        self.held = None;
        self.id = None;
        self.last_full = None;
        self.filling = true;
        self.again = false;
    }

    fn abandon(&mut self) {
        if let Some(flight) = &mut self.in_flight {
            flight.abandoned = true;
        }
    }
}
