//! A whole updater in simulated time: a service that is asked directly, a firewall that records, clocks that
//! the test moves.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::super::*;
use crate::bans::{Bans, By, Order, Policy};
use crate::clock::simulated::Simulated;
use crate::clock::UnixSeconds;
use crate::config::{files, FirewallKind};
use crate::feed::client::{FetchError, FetchErrorKind, Request as Fetch, Response};
use crate::feed::Key;
use crate::firewall::{Change, Element, Error, Facts, Firewall, Report, Scope};
use crate::memory::HeapArena;
use crate::shared::published::Place;
use crate::state::restore;
use crate::state::writer::StateWriter;

/// Where the wall clock of most tests begins.
pub const START: UnixSeconds = UnixSeconds::new(1_795_300_000);
/// The key that the service accepts.
pub const KEY: &str = "s3cret-Key";
/// Addresses on one page.
const PAGE: usize = 250;
/// Longest time between two turns; the process that hosts the updater turns more often.
const LONGEST_STEP: Duration = Duration::from_secs(100);
/// In about as many steps at most passes a time: what is due more often waits for the next one.
const STEPS: u32 = 50;

/// What the firewall drops.
pub type Dropped = Arc<Mutex<BTreeSet<Subnet>>>;

/// A firewall without timeouts: each ban stays until it is lifted.
struct Recorder(Dropped);

impl Firewall for Recorder {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "recorder",
            ends_bans_itself: false,
            is_limited: false,
            scopes_by_port: false,
            knows_what_it_holds: true,
            default_scope: Scope::Local,
        }
    }

    fn probe(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn intact(&mut self) -> Result<bool, Error> {
        Ok(true)
    }

    fn report(&mut self) -> Result<Report, Error> {
        Ok(Report::default())
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.0.lock().unwrap().clear();
        Ok(())
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        let mut dropped = self.0.lock().unwrap();
        for change in changes {
            match change {
                Change::Add(element) => dropped.insert(element.subnet),
                Change::Remove(subnet) => dropped.remove(subnet),
            };
        }
        Ok(())
    }

    fn reconcile(&mut self, wanted: &[Element]) -> Result<Vec<Change>, Error> {
        let wanted = wanted.iter().map(|element| element.subnet);
        *self.0.lock().unwrap() = wanted.collect();
        Ok(Vec::new())
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.reset()
    }

    fn batch_size(&self) -> usize {
        100
    }
}

/// The service: wall-clock time of the listing and address, oldest first. Its clock is always right.
#[derive(Default)]
pub struct Service {
    pub list: Vec<(UnixSeconds, Subnet)>,
    pub requests: usize,
    pub fails: bool,
}

impl Service {
    fn answer(&mut self, request: &Fetch) -> Result<Response, FetchError> {
        self.requests += 1;
        if self.fails {
            return Err(FetchErrorKind::Timeout(10).into());
        }
        let answer = |status, body: String| {
            Ok(Response {
                status,
                body: body.into_bytes(),
                ..Response::default()
            })
        };
        if request.key != Key::new(KEY).unwrap() {
            return answer(401, "{}".to_owned());
        }
        let after = request.after.as_ref();
        let after = after.map_or(0, |id| id.as_str().parse().unwrap());
        let after = UnixSeconds::new(after);
        let page: Vec<_> = self.list.iter().filter(|(id, _)| *id > after).collect();
        let page = &page[..page.len().min(PAGE)];
        match page.last() {
            None => answer(
                400,
                r#"{"ipaddress":["no new bans"],"ID":"none"}"#.to_owned(),
            ),
            Some((id, _)) => {
                let ips: Vec<String> = page.iter().map(|(_, ip)| ip.to_string()).collect();
                let body = serde_json::json!({"ipaddress": ips, "ID": id.to_string()});
                answer(200, body.to_string())
            }
        }
    }
}

/// The result is there at the next turn.
struct Direct {
    service: Rc<RefCell<Service>>,
    result: Option<Result<Response, FetchError>>,
}

impl Exchange for Direct {
    fn start(&mut self, request: Fetch) {
        self.result = Some(self.service.borrow_mut().answer(&request));
    }

    fn try_result(&mut self) -> Option<Result<Response, FetchError>> {
        self.result.take()
    }
}

/// What the program around the updater knows and was told.
#[derive(Default)]
pub struct Around {
    pub discovered: Discovered,
    pub own: Vec<IpAddr>,
    pub wants: Vec<EventKind>,
    pub events: Vec<Event>,
}

impl Discovery for Rc<RefCell<Around>> {
    fn is_own(&self, ip: IpAddr) -> bool {
        self.borrow().own.contains(&ip)
    }

    fn discovered(&self) -> Discovered {
        self.borrow().discovered.clone()
    }
}

impl EventSink for Rc<RefCell<Around>> {
    fn wants(&self, kind: EventKind) -> bool {
        self.borrow().wants.contains(&kind)
    }

    fn raise(&self, event: &Event) {
        self.borrow_mut().events.push(event.clone());
    }
}

/// Everything together.
pub struct World {
    pub time: &'static Simulated,
    pub config: &'static Config,
    pub shared: &'static Shared,
    pub service: Rc<RefCell<Service>>,
    pub around: Rc<RefCell<Around>>,
    pub dropped: Dropped,
    pub updater: Updater<'static, Rc<RefCell<Around>>>,
}

/// Parameters with small tables, the key, and a firewall without timeouts that gets all bans.
pub fn config() -> Config {
    Config {
        api_key: Key::new(KEY).ok(),
        max_feed_entries: 4_000,
        max_local_entries: 1_000,
        firewall: FirewallKind::IptablesApi,
        firewall_scope: Some(Scope::All),
        state_file: String::new(),
        // Its prefixes make each look at the trust table a hundred times as long.
        trust_self: false,
        ..Config::default()
    }
}

/// An address of its own for each number.
pub fn address(n: u32) -> Subnet {
    Subnet::host(IpAddr::V4((0x0a00_0000 + n).into()))
}

impl World {
    /// Starts with these parameters at [`START`].
    pub fn new(config: Config) -> Self {
        Self::at(Simulated::at(START), config)
    }

    /// Starts with these clocks; what the state file says is in force.
    pub fn at(time: &'static Simulated, config: Config) -> Self {
        let config: &Config = Box::leak(Box::new(config));
        let shared: &Shared = Box::leak(Box::new(Shared::new(&mut HeapArena, config, 1).unwrap()));
        let clock = Clock::with(time);
        shared.set_now(clock.unix());
        let trusted = files::read_trust(config).unwrap();
        shared.trust.replace(&trusted.at(clock.unix()));
        let resumed = restore::restore(config, shared);
        let state_writer = StateWriter::new(resumed.state_file.clone(), || {});
        let service = Rc::<RefCell<Service>>::default();
        let around = Rc::<RefCell<Around>>::default();
        let dropped = Dropped::default();
        let recorder = Box::new(Recorder(Arc::clone(&dropped)));
        let mut firewalls = Firewalls::default();
        firewalls.add(Place::Firewall, recorder, config, || {});
        let exchange = Direct {
            service: Rc::clone(&service),
            result: None,
        };
        let parts = Parts {
            config,
            shared,
            clock,
            source: config.source().unwrap(),
            key: files::read_key(config).0,
            product: "test",
            trusted: trusted.clone(),
            resumed,
            listening: Vec::new(),
        };
        let updater = Updater::assemble(
            parts,
            Rc::clone(&around),
            Box::new(exchange),
            state_writer,
            TrustWatch::new(trusted, None),
            firewalls,
        );
        World {
            time,
            config,
            shared,
            service,
            around,
            dropped,
            updater,
        }
    }

    /// Lists this many new addresses, one in each of the seconds before now.
    pub fn list(&mut self, addresses: std::ops::Range<u32>) {
        let count = i64::from(addresses.end - addresses.start);
        let first = self.time.wall().shifted(-count);
        let mut service = self.service.borrow_mut();
        for (n, ip) in (0..).zip(addresses) {
            service.list.push((first.shifted(n), address(ip)));
        }
    }

    /// Turns until `time` has passed, as the process does that hosts the updater.
    pub fn pass(&mut self, time: Duration) {
        let mut left = time;
        loop {
            self.updater.turn();
            self.updater.state_writer.wait_for_disk();
            // The answer to a request is there at once, and wakes the process.
            let pause = self.updater.turn();
            self.updater.state_writer.wait_for_disk();
            if left.is_zero() {
                return;
            }
            let step = pause.max(time / STEPS).min(LONGEST_STEP).min(left);
            self.time.pass(step);
            left -= step;
        }
    }

    /// [`World::pass`] in seconds.
    pub fn pass_seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// Bans as an operator does.
    pub fn block(&self, subnet: Subnet, ttl: u32) {
        self.block_by(By::Operator, subnet, ttl);
    }

    /// Bans.
    pub fn block_by(&self, by: By, subnet: Subnet, ttl: u32) {
        let order = Order {
            subnet,
            ttl,
            reason: "a reason",
            by,
        };
        self.bans().block(order).unwrap();
    }

    /// The tables as other processes have them.
    pub fn bans(&self) -> Bans<'static> {
        Bans {
            shared: self.shared,
            policy: Policy::from(self.config),
            counters: self.shared.counters.of_process(1),
            wake: &|| {},
        }
    }

    /// The live bans of one table.
    pub fn live(&self, origin: Origin) -> BTreeSet<Subnet> {
        let now = self.shared.now();
        let mut live = BTreeSet::new();
        self.shared.table(origin).for_each(|entry| {
            if entry.value > now {
                live.insert(entry.subnet);
            }
        });
        live
    }

    /// Seconds that a ban has left; `None` if there is none.
    pub fn left(&self, origin: Origin, subnet: Subnet) -> Option<u32> {
        let end = self.shared.table(origin).find(subnet)?.value();
        Some(end.seconds_since(self.shared.now())).filter(|left| *left > 0)
    }

    /// Waits until the thread of the firewall has done its work, and holds its state against the tables.
    pub fn assert_firewall_agrees(&mut self) {
        let mut wanted = BTreeSet::new();
        for origin in Origin::ALL {
            let live = self.live(origin);
            wanted.extend(live);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while *self.dropped.lock().unwrap() != wanted {
            if Instant::now() > deadline {
                let dropped = self.dropped.lock().unwrap();
                panic!(
                    "in the tables alone: {:?}; in the firewall alone: {:?}",
                    wanted.difference(&dropped),
                    dropped.difference(&wanted)
                );
            }
            // A turn hands a refill over if the thread asks for one.
            self.updater.turn();
            self.updater.state_writer.wait_for_disk();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes the events so far: kind, origin and address.
    pub fn events(&self) -> Vec<(EventKind, Origin, String)> {
        let events = std::mem::take(&mut self.around.borrow_mut().events);
        events
            .into_iter()
            .map(|event| (event.kind, event.origin, event.ip))
            .collect()
    }
}
