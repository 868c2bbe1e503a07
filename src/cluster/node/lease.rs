//! Who fetches the list, as a node knows it, and what its updater is told of that.

use std::collections::BTreeMap;
use std::time::Duration;

use super::feed::CONFIRM;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::message::Feed;
use crate::cluster::replica::Replica;

/// A wish that is not granted is looked at again after this time.
const AGAIN: Duration = Duration::from_millis(200);

/// Who fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody yet.
    #[default]
    Nobody,
    /// This node.
    Me,
    /// That node.
    Peer(u64),
}

/// Whether this node may ask the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedMode {
    /// It shares no list with anybody.
    #[default]
    Alone,
    /// It is not known yet who fetches.
    Wait,
    /// It fetches, request by request as granted.
    Lead,
    /// Another node does.
    Follow,
}

impl FeedMode {
    /// The mode with this number, as `mode as u64` gives it.
    pub fn from_number(number: u64) -> Self {
        let all = [
            FeedMode::Alone,
            FeedMode::Wait,
            FeedMode::Lead,
            FeedMode::Follow,
        ];
        all.into_iter()
            .find(|mode| *mode as u64 == number)
            .unwrap_or_default()
    }
}

/// What the updater has to know. Times are those of this node's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedView {
    /// Whether it may ask.
    pub mode: FeedMode,
    /// The last wish that was granted.
    pub granted: u64,
    /// The fetcher's URI; empty if there is none.
    pub fetcher: String,
    /// What the fetcher said; used when following.
    pub fetched: Feed,
    /// True if the list is what the fetcher has.
    pub whole: bool,
    /// True if a shrink is held back.
    pub held: bool,
}

/// The state of the lease.
#[derive(Default)]
pub(super) struct Lease {
    pub(super) holder: Holder,
    pub(super) epoch: u32,
    pub(super) vacant_since: Option<UnixMillis>,
    /// What this node knows of the list by itself.
    pub(super) own: Feed,
    pub(super) unhealthy_since: Option<UnixMillis>,
    /// The others have not heard of the latest full fetch or control ID.
    pub(super) has_news: bool,
    /// The fetcher's list, in its clock.
    pub(super) list: Replica,
    pub(super) source: u64,
    /// Something went since the list was complete last.
    pub(super) shrunk: bool,
    pub(super) whole: bool,
    /// The fetcher's full fetch of which a shrink was held back.
    pub(super) held: Option<UnixSeconds>,
    pub(super) force: bool,
    pub(super) wished: u64,
    pub(super) granted: u64,
    pub(super) intent: u64,
    pub(super) intended_at: Option<UnixMillis>,
    /// Requests to the service by node and number, with the time.
    pub(super) requests: BTreeMap<(u64, u32), UnixMillis>,
}

impl Lease {
    pub fn holds(&self) -> bool {
        self.holder == Holder::Me
    }

    pub fn follows(&self, id: u64) -> bool {
        self.holder == Holder::Peer(id)
    }

    pub fn list(&self) -> &Replica {
        &self.list
    }

    /// When there is something to decide.
    pub fn due(&self, now: UnixMillis) -> Option<UnixMillis> {
        let heard = self.intended_at.map_or(UnixMillis::ZERO, |at| at + CONFIRM);
        (self.wished > self.granted).then_some(heard.max(now + AGAIN))
    }
}
