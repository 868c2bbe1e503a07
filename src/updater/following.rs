//! Whether this node asks the service itself, or takes the list from the node of the cluster that does.

use std::time::Duration;

use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::FeedMode;
use crate::feed::{ControlId, FeedState, Saved, Status};
use crate::shared::cluster::{Cluster, Number, ShownNode, SHOWN_NODES};
use crate::shared::Shared;

/// Without a cluster or while another node fetches, this is looked at again after so long.
const PAUSE: Duration = Duration::from_secs(1);
/// A request that is due within this time is wished for.
const SOON: Duration = Duration::from_secs(1);
/// Poll intervals without a success of the fetcher after which the list counts as stale.
const STALE_INTERVALS: u32 = 3;

/// What the engine may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// What it wants.
    Ask,
    /// Nothing before this time.
    Wait(UnixMillis),
}

/// The updater's side of the lease; see [`crate::cluster::node`].
#[derive(Default)]
pub struct Following {
    mode: Option<FeedMode>,
    wished: u64,
    used: u64,
}

impl Following {
    /// Whether the engine, whose next request is due at `due`, may send it. The second value is true
    /// if a wish was made: the process of the cluster must be woken.
    pub fn permit(
        &mut self,
        shared: &Shared,
        now: UnixMillis,
        due: Option<UnixSeconds>,
    ) -> (Permit, bool) {
        let Some(cluster) = &shared.cluster else {
            return (Permit::Ask, false);
        };
        match mode(cluster) {
            FeedMode::Alone => (Permit::Ask, false),
            FeedMode::Wait | FeedMode::Follow => (Permit::Wait(now + PAUSE), false),
            FeedMode::Lead => {
                if self.wished > self.used && cluster.number(Number::Granted) >= self.wished {
                    return (Permit::Ask, false);
                }
                match due {
                    Some(due) if due.millis() < now + SOON && self.wished == self.used => {
                        self.wished += 1;
                        cluster.set(Number::Wished, self.wished);
                        (Permit::Wait(now + PAUSE), true)
                    }
                    Some(due) => (Permit::Wait(due.millis().max(now + PAUSE)), false),
                    None => (Permit::Wait(now + PAUSE), false),
                }
            }
        }
    }

    /// The request that was granted has been sent.
    pub fn sent(&mut self) {
        self.used = self.wished;
    }

    /// What the engine must begin anew from, if this node has just stopped following.
    pub fn take_over(&mut self, shared: &Shared, engine: &Saved) -> Option<Saved> {
        let mode = mode(shared.cluster.as_ref()?);
        let before = self.mode.replace(mode);
        let ends = before == Some(FeedMode::Follow) && mode != FeedMode::Follow;
        ends.then(|| fetched(shared, engine)).flatten()
    }

    /// True while another node fetches.
    pub fn follows(&self) -> bool {
        self.mode == Some(FeedMode::Follow)
    }

    /// What the state file keeps of the list.
    pub fn saved(&self, shared: &Shared, engine: Saved) -> Saved {
        match self.follows() {
            true => fetched(shared, &engine).unwrap_or(engine),
            false => engine,
        }
    }

    /// What operators see of the list.
    pub fn status(&self, shared: &Shared, poll_interval: u32, engine: Status) -> Status {
        let Some(cluster) = shared.cluster.as_ref().filter(|_| self.follows()) else {
            return engine;
        };
        let success = cluster.time(Number::FetchedSuccess);
        let patience = Duration::from_secs(poll_interval.into()).saturating_mul(STALE_INTERVALS);
        let is = |number| cluster.number(number) != 0;
        let state = if is(Number::Held) {
            FeedState::Held
        } else if success.is_some_and(|at| shared.now().since(at) > patience) {
            FeedState::Stale
        } else if success.is_none() {
            FeedState::Starting
        } else if !is(Number::Whole) {
            FeedState::Syncing
        } else {
            FeedState::Ok
        };
        Status {
            state,
            id: ControlId::new(&cluster.fetched_id().get()).ok(),
            last_success: success,
            last_error: String::new(),
            next_poll: None,
            held_since: None,
            ..engine
        }
    }

    /// Tells the other nodes how this one gets along with the service.
    pub fn tell(&self, shared: &Shared, status: &Status, saved: &Saved) {
        let Some(cluster) = &shared.cluster else {
            return;
        };
        if self.follows() {
            return;
        }
        let bad = [
            FeedState::Stale,
            FeedState::Unauthorized,
            FeedState::Disabled,
        ];
        cluster.set(Number::OwnHealthy, u64::from(!bad.contains(&status.state)));
        cluster.set_time(Number::OwnSuccess, saved.last_success);
        cluster.set_time(Number::OwnFull, saved.last_full);
    }
}

fn mode(cluster: &Cluster) -> FeedMode {
    // Before the process of the cluster has decided nothing is known.
    match cluster.number(Number::Mode).checked_sub(1) {
        None => FeedMode::Wait,
        Some(number) => FeedMode::from_number(number),
    }
}

/// The list as the fetcher told it; `None` if it never came whole.
fn fetched(shared: &Shared, engine: &Saved) -> Option<Saved> {
    let cluster = shared.cluster.as_ref()?;
    Some(Saved {
        id: Some(ControlId::new(&cluster.fetched_id().get()).ok()?),
        last_success: cluster.time(Number::FetchedSuccess),
        last_full: cluster.time(Number::FetchedFull),
        held: None,
        ..engine.clone()
    })
}

/// Addresses of the nodes that hold the secret and are reachable there.
pub fn members(shared: &Shared) -> Vec<std::net::IpAddr> {
    let nodes = shared.cluster.iter().flat_map(|cluster| {
        (1..SHOWN_NODES).filter_map(|number| ShownNode::read(cluster.node(number)))
    });
    nodes.filter_map(|node| node.address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::{at, at_ms};
    use crate::config::Config;
    use crate::memory::HeapArena;

    fn shared() -> Shared {
        let config = Config {
            enable_dmq: true,
            ..Config::default()
        };
        Shared::new(&mut HeapArena, &config, 1).unwrap()
    }

    #[test]
    fn a_request_is_sent_when_it_was_granted() {
        let shared = shared();
        let cluster = shared.cluster.unwrap();
        let mut following = Following::default();
        let now = at_ms(10_000);
        assert_eq!(
            following.permit(&shared, now, Some(at(10))),
            (Permit::Wait(at_ms(11_000)), false)
        );
        cluster.set(Number::Mode, FeedMode::Lead as u64 + 1);
        // Not due, due, wished, granted, sent.
        assert_eq!(
            following.permit(&shared, now, Some(at(60))),
            (Permit::Wait(at_ms(60_000)), false)
        );
        assert_eq!(
            following.permit(&shared, now, Some(at(10))),
            (Permit::Wait(at_ms(11_000)), true)
        );
        assert_eq!(
            following.permit(&shared, now, Some(at(10))),
            (Permit::Wait(at_ms(11_000)), false)
        );
        cluster.set(Number::Granted, 1);
        assert_eq!(
            following.permit(&shared, now, Some(at(10))),
            (Permit::Ask, false)
        );
        following.sent();
        assert_eq!(
            following.permit(&shared, now, Some(at(10))),
            (Permit::Wait(at_ms(11_000)), true)
        );
        cluster.set(Number::Mode, FeedMode::Follow as u64 + 1);
        assert_eq!(
            following.permit(&shared, now, Some(at(10))),
            (Permit::Wait(at_ms(11_000)), false)
        );
        cluster.set(Number::Mode, FeedMode::Alone as u64 + 1);
        assert_eq!(
            following.permit(&shared, now, Some(at(10))),
            (Permit::Ask, false)
        );
    }

    #[test]
    fn a_successor_goes_on_where_the_fetcher_was() {
        let shared = shared();
        let cluster = shared.cluster.unwrap();
        let mut following = Following::default();
        let own = Saved {
            budget: vec![at_ms(1)],
            source: "here".into(),
            ..Saved::default()
        };
        cluster.set(Number::Mode, FeedMode::Follow as u64 + 1);
        assert_eq!(following.take_over(&shared, &own), None);
        assert!(following.follows());
        cluster.fetched_id().set("1795300250");
        cluster.set_time(Number::FetchedSuccess, Some(at(90)));
        cluster.set_time(Number::FetchedFull, Some(at(80)));
        assert_eq!(
            following.saved(&shared, own.clone()).last_full,
            Some(at(80))
        );
        cluster.set(Number::Mode, FeedMode::Lead as u64 + 1);
        let begun = following.take_over(&shared, &own).unwrap();
        assert_eq!(
            (begun.last_success, begun.last_full, begun.budget),
            (Some(at(90)), Some(at(80)), vec![at_ms(1)])
        );
        assert_eq!(begun.id.unwrap().as_str(), "1795300250");
        assert_eq!(following.take_over(&shared, &own), None);
    }
}
