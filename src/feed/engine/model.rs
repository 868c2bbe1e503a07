//! What goes into the engine and what comes out.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::address::Subnet;
use crate::feed::client::Request;
use crate::feed::control_id::ControlId;
use crate::feed::parse::Page;
use crate::feed::source::Source;
use crate::log::Level;

/// The feed's part of the configuration. Intervals are seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedSettings {
    /// Which list.
    pub source: Source,
    /// Pause between polls, 1 or more.
    pub poll_interval: u64,
    /// Pause between full fetches; 0: only on request.
    pub resync_interval: u64,
    /// How long the service keeps an address active.
    pub feed_ttl: u64,
    /// Requests that the service allows per window, 1 or more.
    pub rate_limit_requests: u32,
    /// Length of that window, 1 or more.
    pub rate_limit_window: u64,
    /// Percent of the list that a full fetch may drop without a second opinion.
    pub feed_shrink_limit: u8,
}

impl FeedSettings {
    /// Pause before the full fetch that has to agree with one that was held back, in milliseconds.
    pub(super) fn held_pause(&self) -> u64 {
        self.poll_interval.max(1).saturating_mul(1_000)
    }

    /// The page's entries with their ends; `now` in seconds. If the control ID is no plausible time,
    /// they count from now.
    pub(super) fn ends(&self, page: &Page, now: u64) -> Vec<Listed> {
        let listed_at = page.id.listed_at(now, self.feed_ttl).unwrap_or(now);
        let end = listed_at.saturating_add(self.feed_ttl);
        let listed = |&subnet| Listed { subnet, end };
        page.addresses.iter().map(listed).collect()
    }
}

/// What the main loop has to do about the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Hand this to the HTTP thread.
    Fetch(Request),
    /// Nothing before this Unix time in milliseconds.
    Wait(u64),
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
    /// Wall-clock time in seconds since 1970 at which the service stops listing it.
    pub end: u64,
}

/// What the main loop has to carry out, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Put these into the feed's table; what is there gets the later end.
    Apply(Vec<Listed>),
    /// Remove from the feed's table whatever is not in this set.
    Sweep(HashSet<Subnet>),
    /// A full fetch has come through and was believed.
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
    /// Unix time in seconds of the last answer of use.
    pub last_success: Option<u64>,
    /// Unix time in seconds of the last full fetch that was believed.
    pub last_full: Option<u64>,
    /// Unix times in milliseconds of the requests that still count.
    pub budget: Vec<u64>,
    /// Which list it was.
    pub source: String,
    /// A full fetch that was not believed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldBack>,
}

/// A full fetch that is not believed before a second one agrees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// Unix time in seconds at which it was held back.
    pub since: u64,
    /// What it listed, and what has been listed since.
    pub listed: Vec<String>,
}

impl Saved {
    /// True where the saved list is the configured one. If not, its entries are of no use either.
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

/// The feed as operators see it. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The state in one word.
    pub state: FeedState,
    /// Where the next poll begins.
    pub id: Option<ControlId>,
    /// Time of the last answer of use.
    pub last_success: Option<u64>,
    /// What is wrong now; empty if nothing is. At most 250 characters, without the key.
    pub last_error: String,
    /// Time of the next request; `None` where none is planned.
    pub next_poll: Option<u64>,
    /// What the next request waits for if not for its usual time: `request budget` or `pause after an
    /// error`; otherwise empty.
    pub waiting_for: &'static str,
    /// Since when a full fetch is held back; `None` if none is.
    pub held_since: Option<u64>,
    /// Requests sent since the start, redirects included.
    pub requests: u64,
    /// Pages received since the start.
    pub pages: u64,
    /// Answers of use since the start.
    pub fetch_ok: u64,
    /// Failed requests since the start, refusals for the rate limit apart.
    pub fetch_errors: u64,
    /// Requests refused for the rate limit since the start.
    pub rate_limited: u64,
    /// Items that were no address since the start.
    pub skipped: u64,
}
