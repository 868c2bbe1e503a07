//! The updater with a firewall that records what it is told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::*;
use crate::config::FirewallKind;
use crate::firewall::{Change, Error, Firewall, Set};
use crate::memory::HeapArena;

/// What the firewall drops.
type Dropped = Arc<Mutex<BTreeSet<(Set, Subnet)>>>;

struct Recorder(Dropped);

impl Firewall for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.0.lock().unwrap().clear();
        Ok(())
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        let mut dropped = self.0.lock().unwrap();
        for change in changes {
            match change {
                Change::Add(element) => dropped.insert((element.set, element.subnet)),
                Change::Remove { subnet, set } => dropped.remove(&(*set, *subnet)),
            };
        }
        Ok(())
    }

    fn clear(&mut self, set: Set) -> Result<bool, Error> {
        self.0.lock().unwrap().retain(|(of, _)| *of != set);
        Ok(true)
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.reset()
    }

    fn batch_size(&self) -> usize {
        100
    }
}

struct NoHost;

impl Host for NoHost {
    fn is_own(&self, _: IpAddr) -> bool {
        false
    }

    fn discovered(&self) -> Discovered {
        Discovered::default()
    }

    fn wants(&self, _: EventKind) -> bool {
        false
    }

    fn raise(&self, _: &Event) {}
}

/// Takes turns until `done`.
fn turn_until(updater: &mut Updater<'_>, what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        updater.turn(&NoHost);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The backend has no timeouts, so the updater must lift each ban; but not one that a peer still holds.
#[test]
fn the_end_of_a_local_ban_does_not_lift_the_ban_of_a_peer() {
    let config = Config {
        firewall: FirewallKind::IptablesApi,
        ..Config::default()
    };
    let shared = Shared::new(&mut HeapArena, &config, 1).unwrap();
    let parts = Parts {
        config: &config,
        shared: &shared,
        clock: Clock::start(),
        source: config.source().unwrap(),
        key: Default::default(),
        product: "test",
        trusted: Vec::new(),
        resumed: Resumed::default(),
    };
    let mut updater = Updater::new(parts, || {}).unwrap();
    let dropped = Dropped::default();
    let recorder = Box::new(Recorder(Arc::clone(&dropped)));
    updater.firewalls = Some(Firewalls::with_backend(recorder, &config, Box::new(|| {})).unwrap());
    let (both, local): (Subnet, Subnet) =
        ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let now = updater.clock.unix() as u32;
    shared.local.insert(both, now + 60, now, "");
    shared.local.insert(local, now + 60, now, "");
    shared.peer.insert(both, now + 600, now, "");
    let holds = |expected: &[Subnet]| {
        let expected: BTreeSet<_> = expected
            .iter()
            .map(|subnet| (Set::Local, *subnet))
            .collect();
        *dropped.lock().unwrap() == expected
    };
    turn_until(&mut updater, "both are dropped", || holds(&[both, local]));
    shared.set_now(u64::from(now) + 61);
    turn_until(&mut updater, "only the peer's is left", || holds(&[both]));
    assert!(shared.local.is_empty() && shared.peer.len() == 1);
}
