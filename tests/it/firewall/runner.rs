//! The runner round the nft backend in network namespaces (needs root), and round one that misbehaves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiban::firewall::nft::{Nft, Settings};
use apiban::firewall::runner::{Options, Runner, State};
use apiban::firewall::{Change, Element, Error, Facts, Firewall, Report, Scope};
use apiban::log::Level;

use apiban_testing::netns::{addresses, elements, in_namespace, objects, run};
use apiban_testing::rerun::{alone, passes};
use apiban_testing::wait::{wait_until, SOON};

fn element(text: &str, seconds_left: u32) -> Element {
    Element {
        subnet: text.parse().unwrap(),
        seconds_left,
        hits: 0,
    }
}

fn options() -> Options {
    Options {
        first_delay: Duration::from_millis(20),
        longest_delay: Duration::from_millis(100),
        check_interval: Duration::from_millis(20),
        ..Options::default()
    }
}

fn spawn(backend: impl Firewall + 'static, options: Options) -> Runner {
    Runner::spawn(Box::new(backend), options, Box::new(|| {})).unwrap()
}

fn refill(runner: &Runner, wanted: &[Element]) {
    wait_until("a refill is asked for", SOON, || runner.needs_refill());
    runner.refill(wanted.to_vec());
    wait_until("ok", SOON, || runner.status().state == State::Ok);
}

#[test]
fn start_changes_and_end() {
    in_namespace(|| {
        let runner = spawn(Nft::new(Settings::default()), options());
        assert_eq!(runner.status().backend, "nft");
        refill(&runner, &[element("192.0.2.1", 600)]);
        assert_eq!(addresses("hosts4"), ["192.0.2.1"]);
        runner.send(Change::Add(element("2001:db8::/64", 600)));
        runner.send(Change::Add(element("192.0.2.2", 600)));
        wait_until("applied", SOON, || runner.status().applied == 2);
        assert_eq!(addresses("nets6_64"), ["2001:db8::"]);
        runner.send(Change::Remove("192.0.2.1".parse().unwrap()));
        wait_until("lifted", SOON, || addresses("hosts4") == ["192.0.2.2"]);
        wait_until("counters", SOON, || {
            runner.status().report.dropped.is_some()
        });
        assert_eq!(runner.status().errors, 0);
        let logs = runner.drain_logs();
        assert_eq!(logs.len(), 1, "{logs:?}");
        assert_eq!(logs[0].0, Level::Info);
        assert!(runner.shutdown(true, Duration::from_secs(5)));
        assert!(objects("table").is_empty());
    });
}

#[test]
fn a_flushed_ruleset_is_filled_again_with_the_time_left() {
    in_namespace(|| {
        let runner = spawn(Nft::new(Settings::default()), options());
        refill(&runner, &[element("192.0.2.1", 600)]);
        for (n, damage) in ["flush ruleset", "delete table inet apiban"]
            .iter()
            .enumerate()
        {
            run("nft", &[damage]);
            refill(&runner, &[element("192.0.2.1", 300)]);
            wait_until("filled", SOON, || runner.status().refills == n as u64 + 2);
            let left = elements("hosts4")[0].1;
            assert!((290..=300).contains(&left), "{left}");
            // One for each set, and neighbour discovery.
            assert_eq!(objects("rule").len(), 3);
        }
        // A change that comes before the check meets the gap first: no ban is lost.
        run("nft", &["flush ruleset"]);
        runner.send(Change::Add(element("192.0.2.2", 600)));
        refill(
            &runner,
            &[element("192.0.2.1", 300), element("192.0.2.2", 600)],
        );
        wait_until("both", SOON, || {
            addresses("hosts4") == ["192.0.2.1", "192.0.2.2"]
        });
        let logs = runner.drain_logs();
        assert!(logs.len() <= 4, "{logs:?}");
    });
}

#[test]
fn without_flush_the_kernel_goes_on_alone_and_is_adopted() {
    in_namespace(|| {
        let keep = Options {
            flush_at_start: false,
            ..options()
        };
        let first = spawn(Nft::new(Settings::default()), keep);
        refill(&first, &[element("192.0.2.1", 600)]);
        first.send(Change::Add(element("192.0.2.2", 600)));
        assert!(first.shutdown(false, Duration::from_secs(5)));
        // What was queued at the end is there too.
        assert_eq!(addresses("hosts4"), ["192.0.2.1", "192.0.2.2"]);
        let second = spawn(Nft::new(Settings::default()), keep);
        wait_until("a refill is asked for", SOON, || second.needs_refill());
        assert_eq!(addresses("hosts4"), ["192.0.2.1", "192.0.2.2"]);
        refill(&second, &[element("192.0.2.2", 60)]);
        assert_eq!(addresses("hosts4"), ["192.0.2.2"]);
        // One for each set, and neighbour discovery.
        assert_eq!(objects("rule").len(), 3);
        assert!(second.shutdown(true, Duration::from_secs(5)));
    });
}

/// The part of the next test that runs without the capability.
const WITHOUT: &str = "APIBAN_TEST_WITHOUT_NET_ADMIN";

#[test]
fn a_missing_capability_is_said_once() {
    if std::env::var_os(WITHOUT).is_some() {
        let runner = spawn(Nft::new(Settings::default()), options());
        wait_until("refused", SOON, || {
            runner.status().state == State::NoPermission
        });
        runner.send(Change::Add(element("192.0.2.1", 60)));
        assert!(runner.shutdown(true, Duration::from_secs(5)));
        return;
    }
    in_namespace(|| {
        let mut nft = Nft::new(Settings::default());
        nft.reset().unwrap();
        let launcher = [
            "setpriv",
            "--bounding-set=-net_admin",
            "--inh-caps=-net_admin",
        ];
        let test = "a_missing_capability_is_said_once";
        passes(alone(&launcher, module_path!(), test).env(WITHOUT, "1"));
    });
    let text = Error::Permission("nft").to_string();
    assert!(text.contains("AmbientCapabilities=CAP_NET_ADMIN"), "{text}");
}

/// A backend that does as it is told.
struct Puppet {
    calls: Arc<AtomicUsize>,
    batch: usize,
    script: fn(usize) -> Result<(), Error>,
}

impl Firewall for Puppet {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "puppet",
            ends_bans_itself: true,
            is_limited: false,
            scopes_by_port: false,
            knows_what_it_holds: true,
            default_scope: Scope::All,
        }
    }

    fn reconcile(&mut self, wanted: &[Element]) -> Result<Vec<Change>, Error> {
        Ok(wanted.iter().copied().map(Change::Add).collect())
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
        Ok(())
    }

    fn apply(&mut self, _: &[Change]) -> Result<(), Error> {
        (self.script)(self.calls.fetch_add(1, Ordering::SeqCst))
    }

    fn remove(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn batch_size(&self) -> usize {
        self.batch
    }
}

fn puppet(script: fn(usize) -> Result<(), Error>) -> (Runner, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let backend = Puppet {
        calls: Arc::clone(&calls),
        batch: 4,
        script,
    };
    (spawn(backend, options()), calls)
}

/// A backend to which many changes cost as much as one is called rarely, and a single change does not wait.
#[test]
fn changes_are_bundled_for_a_backend_that_wants_it() {
    let calls = Arc::new(AtomicUsize::new(0));
    let backend = Puppet {
        calls: Arc::clone(&calls),
        batch: usize::MAX,
        script: |_| Ok(()),
    };
    let interval = Duration::from_millis(200);
    let options = Options {
        apply_interval: interval,
        ..options()
    };
    let runner = spawn(backend, options);
    wait_until("a refill is asked for", SOON, || runner.needs_refill());
    let begin = Instant::now();
    runner.refill(Vec::new());
    for n in 0..5_000u32 {
        let subnet = format!("10.0.{}.{}", n / 250, n % 250);
        runner.send(Change::Add(element(&subnet, 60)));
        if n % 500 == 0 {
            // Refills are exchanges like others.
            runner.refill(Vec::new());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let took = begin.elapsed();
    let most = took.as_millis() as usize / interval.as_millis() as usize + 1;
    let refills = runner.status().refills as usize;
    let made = calls.load(Ordering::SeqCst) + refills;
    println!("{made} calls in {took:?}");
    assert!((2..=most).contains(&made), "{made} in {took:?}");
    // After a pause a change goes at once.
    wait_until("an empty queue", SOON, || runner.status().queued == 0);
    std::thread::sleep(interval);
    let before = calls.load(Ordering::SeqCst);
    let begin = Instant::now();
    runner.send(Change::Add(element("192.0.2.1", 60)));
    wait_until("the change", SOON, || calls.load(Ordering::SeqCst) > before);
    assert!(begin.elapsed() < interval, "{:?}", begin.elapsed());
}

/// More changes than it holds: they are forgotten, the tables know all of them.
#[test]
fn changes_that_find_no_room_make_it_ask_for_a_refill() {
    static GO_ON: AtomicBool = AtomicBool::new(false);
    let calls = Arc::new(AtomicUsize::new(0));
    let backend = Puppet {
        calls: Arc::clone(&calls),
        batch: 4,
        script: |_| {
            while !GO_ON.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        },
    };
    let options = Options {
        queue_capacity: 10,
        ..options()
    };
    let runner = spawn(backend, options);
    wait_until("a refill is asked for", SOON, || runner.needs_refill());
    runner.refill(vec![element("192.0.2.1", 60)]);
    wait_until("it hangs", SOON, || calls.load(Ordering::SeqCst) == 1);
    let send = |n: usize| runner.send(Change::Add(element(&format!("198.51.100.{n}"), 60)));
    (0..10).for_each(send);
    assert_eq!(runner.status().queued, 10);
    assert!(!runner.needs_refill());
    send(10);
    assert_eq!(runner.status().queued, 0);
    assert!(runner.needs_refill());
    GO_ON.store(true, Ordering::SeqCst);
    assert!(runner.shutdown(true, SOON));
}

#[test]
fn a_panic_is_an_error_like_others() {
    let (runner, _) = puppet(|call| {
        assert!(call != 1, "as told");
        Ok(())
    });
    refill(&runner, &[element("192.0.2.1", 60)]);
    runner.send(Change::Add(element("192.0.2.2", 60)));
    wait_until("it failed", SOON, || runner.status().errors == 1);
    let status = runner.status();
    assert_eq!(status.state, State::Degraded);
    assert!(status.last_error.unwrap().contains("as told"));
    refill(
        &runner,
        &[element("192.0.2.1", 60), element("192.0.2.2", 60)],
    );
    assert!(runner.shutdown(true, Duration::from_secs(5)));
}

#[test]
fn an_owner_is_woken_and_the_log_stays_short() {
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let backend = Puppet {
        calls: Arc::default(),
        batch: 4,
        script: |_| Err(Error::Transient("puppet: never".to_owned())),
    };
    let wake = move || {
        count.fetch_add(1, Ordering::SeqCst);
    };
    let runner = Runner::spawn(Box::new(backend), options(), Box::new(wake)).unwrap();
    for _ in 0..4 {
        wait_until("a refill is asked for", SOON, || runner.needs_refill());
        runner.refill(vec![element("192.0.2.1", 60)]);
    }
    wait_until("it failed", SOON, || runner.status().errors == 4);
    assert!(woken.load(Ordering::SeqCst) >= 4);
    let logs = runner.drain_logs();
    assert_eq!(logs.len(), 1, "{logs:?}");
}

#[test]
fn shutdown_keeps_its_deadline_when_the_backend_hangs() {
    static GO_ON: AtomicBool = AtomicBool::new(false);
    let (runner, calls) = puppet(|_| {
        while !GO_ON.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    });
    wait_until("a refill is asked for", SOON, || runner.needs_refill());
    runner.refill(vec![element("192.0.2.1", 60)]);
    wait_until("it hangs", SOON, || calls.load(Ordering::SeqCst) == 1);
    // The backend still hangs: it was the deadline that ended this.
    assert!(!runner.shutdown(true, Duration::from_millis(100)));
    GO_ON.store(true, Ordering::SeqCst);
}
