//! The state file: whatever stands in it, the start goes on and nobody is banned who must not be.
//!
//! Input: the JSON part, which gets a right header; or, after `raw:`, the whole file.

use std::time::Duration;

use apiban::bans::check::{check, Verdict};
use apiban::feed::{Engine, FeedSettings, Key, Step};
use apiban::state::restore;
use apiban::state::{self, State};

use super::oracle::{self, Range};
use super::with_shared;

pub fn run(data: &[u8]) {
    let decoded = match data.strip_prefix(b"raw:") {
        Some(whole) => state::decode(whole),
        None => serde_json::from_slice::<State>(data)
            .ok()
            .map(|state| state::decode(&state::encode(&state).expect("a state that was read")))
            .unwrap_or_else(|| state::decode(data)),
    };
    let Ok(state) = decoded else {
        return;
    };
    with_shared(true, |shared, config| {
        let (saved, _) = restore::resume(config, shared, state);
        let now = shared.now();
        for (table, longest) in [
            (&shared.feed, config.feed_ttl + 300),
            (&shared.local, apiban::bans::MAX_TTL),
        ] {
            assert!(table.len() <= table.capacity());
            table.for_each(|entry| {
                assert!(entry.value > now && entry.value <= now.shifted(longest.into()));
                assert!(
                    !oracle::unbannable(&Range::of(entry.subnet)),
                    "{}",
                    entry.subnet
                );
                assert!(
                    shared.trust.spares(entry.subnet).is_none(),
                    "{}",
                    entry.subnet
                );
            });
        }
        for ip in ["198.51.100.9", "127.0.0.1", "::1", "2001:db8:5::7"] {
            let counters = shared.counters.of_process(1);
            let verdict = check(shared, counters, ip.parse().expect("an address"));
            assert_eq!(verdict, Verdict::Trusted, "{ip}");
        }
        let settings = FeedSettings {
            source: config.source().expect("the default"),
            poll_interval: Duration::from_secs(300),
            resync_interval: Duration::from_secs(86_400),
            feed_ttl: Duration::from_secs(config.feed_ttl.into()),
            rate_limit_requests: config.rate_limit_requests,
            rate_limit_window: Duration::from_secs(config.rate_limit_window.into()),
            feed_shrink_limit: config.feed_shrink_limit,
        };
        let now = now.millis();
        let mut engine = Engine::new(settings, Key::new("key").ok(), saved, now);
        match engine.next(now) {
            Step::Fetch(_) => {}
            // No file may keep the feed from being fetched for longer than the window.
            Step::Wait(until) => assert!(until <= now + Duration::from_secs(122), "{until}"),
            step => panic!("{step:?}"),
        }
        let _ = engine.status(now);
    });
}
