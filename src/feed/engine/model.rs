//! What goes into the engine and what comes out.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Subnet;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::feed::client::Request;
use crate::feed::control_id::ControlId;
use crate::feed::parse::Page;
use crate::feed::source::Source;
use crate::log::Level;

/// The shortest pause between polls.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// The feed's part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedSettings {
    /// Which list.
    pub source: Source,
    /// Pause between polls, a second or more.
    pub poll_interval: Duration,
    /// Pause between full fetches; nothing: only on request.
    pub resync_interval: Duration,
    /// How long the service keeps an address active.
    pub feed_ttl: Duration,
    /// Requests that the service allows per window, 1 or more.
    pub rate_limit_requests: u32,
    /// Length of that window, a second or more.
    pub rate_limit_window: Duration,
    /// Percent of the list that a full fetch may drop without a second opinion.
    pub feed_shrink_limit: u8,
}

impl FeedSettings {
    /// Pause before the full fetch that has to agree with one that was held back; without spread also the one
    /// between polls.
    pub(super) fn held_pause(&self) -> Duration {
        self.poll_interval.max(SHORTEST_INTERVAL)
    }

    /// The page's entries with their ends by the wall clock, which shows `now`. If the control ID is no plausible
    /// time, they count from now.
    pub(super) fn ends(&self, page: &Page, now: UnixSeconds) -> Vec<Listed> {
        let listed_at = page.id.listed_at(now, self.feed_ttl).unwrap_or(now);
        let end = listed_at + self.feed_ttl;
        let listed = |&subnet| Listed { subnet, end };
        page.addresses.iter().map(listed).collect()
    }
}

/// What the main loop has to do about the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Hand this to the HTTP thread.
    Fetch(Request),
    /// Nothing before this time.
    Wait(UnixMillis),
    /// A request is under way: nothing before its result.
    Busy,
    /// No key: nothing before a reload brings one.
    Idle,
}

/// One entry of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// What is listed; neither trust nor the poison guard has seen it.
    pub subnet: Subnet,
    /// When the service stops listing it, by the wall clock.
    pub end: UnixSeconds,
}

/// What the main loop has to carry out, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Put these into the feed's table; what is there gets the later end.
    Apply(Vec<Listed>),
    /// Remove from the feed's table whatever is not in this set.
    Sweep(HashSet<Subnet>),
    /// A full fetch is complete and was believed.
    FullDone {
        /// Entries listed.
        count: usize,
    },
    /// A line for the log: a change of state, not every retry.
    Log(Level, String),
    /// The state file is out of date.
    SaveSoon,
}

/// What survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Where the next poll begins.
    pub id: Option<ControlId>,
    /// When the last usable answer came.
    pub last_success: Option<UnixSeconds>,
    /// When the last full fetch was believed.
    pub last_full: Option<UnixSeconds>,
    /// When the requests that still count were made.
    pub budget: Vec<UnixMillis>,
    /// Which list it was.
    pub source: String,
    /// A full fetch that was not believed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldBack>,
}

/// A full fetch that is not believed before a second one agrees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// When it was held back.
    pub since: UnixSeconds,
    /// What it listed, and what has been listed since.
    pub listed: Vec<String>,
}

impl Saved {
    /// True if the saved list is the configured one. If not, its entries are not used either.
    pub fn belongs_to(&self, source: &Source) -> bool {
        self.source == source.fingerprint()
    }
}

/// The feed's state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedState {
    /// Nothing has come yet.
    Starting,
    /// A full fetch is under way.
    Syncing,
    /// Up to date.
    Ok,
    /// No success for three poll intervals.
    Stale,
    /// The service refused the key.
    Unauthorized,
    /// The service refused to be asked so often.
    RateLimited,
    /// A suspicious shrink waits for confirmation.
    Held,
    /// No key.
    Disabled,
}

impl FeedState {
    /// Every state, by its number.
    const ALL: [FeedState; 8] = [
        FeedState::Starting,
        FeedState::Syncing,
        FeedState::Ok,
        FeedState::Stale,
        FeedState::Unauthorized,
        FeedState::RateLimited,
        FeedState::Held,
        FeedState::Disabled,
    ];

    /// The state with this number, as `state as u64` gives it; an unknown one is `Starting`.
    pub fn from_number(number: u64) -> Self {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        Self::ALL.get(index).copied().unwrap_or(FeedState::Starting)
    }

    /// The word that operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            FeedState::Starting => "starting",
            FeedState::Syncing => "syncing",
            FeedState::Ok => "ok",
            FeedState::Stale => "stale",
            FeedState::Unauthorized => "unauthorized",
            FeedState::RateLimited => "rate_limited",
            FeedState::Held => "held",
            FeedState::Disabled => "disabled",
        }
    }
}

/// The feed as operators see it, in internal time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The state in one word.
    pub state: FeedState,
    /// Where the next poll begins.
    pub id: Option<ControlId>,
    /// Time of the last usable answer.
    pub last_success: Option<UnixSeconds>,
    /// What is wrong now; empty if nothing is. At most 250 characters, without the key.
    pub last_error: String,
    /// Time of the next request; `None` if none is planned.
    pub next_poll: Option<UnixSeconds>,
    /// What the next request waits for if not for its usual time: `request budget` or `pause after an
    /// error`; otherwise empty.
    pub waiting_for: &'static str,
    /// Since when a full fetch is held back; `None` if none is.
    pub held_since: Option<UnixSeconds>,
    /// Requests sent since the start, redirects included.
    pub requests: u64,
    /// Pages received since the start.
    pub pages: u64,
    /// Usable answers since the start.
    pub fetch_ok: u64,
    /// Failed requests since the start, refusals for the rate limit apart.
    pub fetch_errors: u64,
    /// Requests refused for the rate limit since the start.
    pub rate_limited: u64,
    /// Items that were no address since the start.
    pub skipped: u64,
}
