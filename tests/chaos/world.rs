//! The stage: Kamailio, feed, firewall and state directory of one run, and what was seen in it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use nix::sched::{unshare, CloneFlags};
use serde_json::{json, Value};

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::iptables_api::Daemon;
use apiban_testing::kamailio::Kamailio;
use apiban_testing::netns::{elements, run};
use apiban_testing::sip::{drops, Sip};
use apiban_testing::wait::{poll, wait_until};

/// Addresses on the list from the beginning: more than two pages.
const LISTED: u32 = 600;
/// Where `libfaketime` is where Debian's package put it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// Requests that must be answered before silence counts: several for each worker.
const ROUNDS: u32 = 8;

/// The firewall in use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wall {
    Nft,
    IptablesApi,
}

impl Wall {
    pub fn name(self) -> &'static str {
        match self {
            Wall::Nft => "nft",
            Wall::IptablesApi => "iptables-api",
        }
    }
}

/// Who must not be answered.
#[derive(Default)]
pub struct Banned {
    pub listed: Vec<Ipv4Addr>,
    pub local: Vec<Ipv4Addr>,
}

/// How often something happened.
#[derive(Default)]
pub struct Counts {
    pub calls: AtomicU64,
    pub resent: AtomicU64,
    pub slowest_ms: AtomicU64,
    pub dropped: AtomicU64,
    pub attacks: AtomicU64,
    pub commands: AtomicU64,
    pub faults: AtomicU64,
}

pub struct World {
    pub kamailio: Kamailio,
    pub feed: FeedServer,
    pub daemon: Mutex<Daemon>,
    pub wall: Wall,
    pub state: PathBuf,
    /// The file that says how far the clock is off; `None` where the clock cannot be faked.
    pub clock: Option<PathBuf>,
    /// Readers rely on the bans in here; the writer changes them for a good reason.
    pub banned: RwLock<Banned>,
    pub counts: Counts,
    next_listed: Mutex<u32>,
    failures: Mutex<Vec<String>>,
    stopping: AtomicBool,
    _folder: tempfile::TempDir,
}

/// The address number `n` of a network of 65,536.
fn address(net: u8, n: u32) -> Ipv4Addr {
    let [high, low] = (n as u16).to_be_bytes();
    Ipv4Addr::new(198, net, high, low)
}

/// A legitimate caller, 0 to 29.
pub fn caller(n: u32) -> Ipv4Addr {
    address(18, 0x0100 + n)
}

/// An attacker that nobody knows yet.
pub fn attacker(n: u32) -> Ipv4Addr {
    address(19, n)
}

impl World {
    /// Starts everything; the caller's thread is in a network namespace of its own.
    pub fn start(wall: Wall) -> World {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        run("mount", &["--make-rprivate", "/"]);
        // Every address of 198.18.0.0/15 (RFC 2544: for such tests) is ours.
        run("ip", &["address", "add", "198.18.0.1/15", "dev", "lo"]);
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        std::fs::create_dir(&state).expect("a folder");
        let place = state.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", "size=4m", "chaos", &place]);
        let feed = FeedServer::start(Options::new("chaos-key")).expect("a feed");
        let listed: Vec<Ipv4Addr> = (0..LISTED).map(|n| address(18, 0x1000 + n)).collect();
        feed.list(&listed);
        let daemon = Daemon::start();
        let mut builder = Kamailio::builder()
            .param("api_key", "chaos-key")
            .param("api_url", feed.url())
            .param("poll_interval", 1)
            .param("resync_interval", 5)
            .param("http_timeout", 2)
            .param("rate_limit_requests", 200)
            .param("rate_limit_window", 2)
            // Small tables: all of their pages are soon in use, and what grows then is a leak.
            .param("max_feed_entries", 4096)
            .param("max_local_entries", 4096)
            .param("state_file", format!("{place}/apiban.state"))
            .param("firewall", wall.name())
            .param("firewall_url", daemon.url())
            .global("received_route_mode=1")
            .request_route(
                r#"if ($ua =~ "friendly") { apiban_block("$si", "7200", "$ua"); exit; }"#,
            )
            .routes("event_route[core:msg-received] { if (apiban_check()) { drop; } }");
        let clock = std::path::Path::new(FAKETIME)
            .exists()
            .then(|| folder.path().join("clock"));
        if let Some(clock) = &clock {
            std::fs::write(clock, "+0\n").expect("a file");
            builder = builder
                .environment("LD_PRELOAD", FAKETIME)
                .environment("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string())
                .environment("FAKETIME_CACHE_DURATION", "1")
                .environment("DONT_FAKE_MONOTONIC", "1")
                .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let world = World {
            kamailio: builder.start(),
            feed,
            daemon: Mutex::new(daemon),
            wall,
            state,
            clock,
            banned: RwLock::default(),
            counts: Counts::default(),
            next_listed: Mutex::new(LISTED),
            failures: Mutex::default(),
            stopping: AtomicBool::new(false),
            _folder: folder,
        };
        world.wait_synced(listed.len());
        world.banned.write().expect("no panic").listed = listed;
        world
    }

    /// Lists some more; the new ones.
    pub fn list_more(&self) -> Vec<Ipv4Addr> {
        let mut next = self.next_listed.lock().expect("no panic");
        let new: Vec<Ipv4Addr> = (*next..*next + 3)
            .map(|n| address(18, 0x1000 + n))
            .collect();
        *next += 3;
        self.feed.list(&new);
        new
    }

    pub fn listed(&self) -> usize {
        *self.next_listed.lock().expect("no panic") as usize
    }

    /// A client of this source address.
    pub fn client(&self, from: Ipv4Addr) -> Option<Sip> {
        Sip::udp(IpAddr::V4(from), self.kamailio.address()).ok()
    }

    /// Whether this client is dropped; `None` where the control request got lost.
    pub fn drops(&self, probe: &mut Sip, control: &mut Sip) -> Option<bool> {
        drops(probe, control, ROUNDS).ok()
    }

    /// A command; an answer that never comes is a failure.
    pub fn ask(&self, method: &str, arguments: Value) -> Option<Value> {
        let answer = self.kamailio.jsonrpc(method, arguments.clone());
        self.counts.commands.fetch_add(1, Ordering::Relaxed);
        match answer {
            Ok(value) => Some(value),
            Err(fault) => {
                self.counts.faults.fetch_add(1, Ordering::Relaxed);
                if !matches!(fault.code, 400 | 403 | 404 | 507) {
                    self.fail(format!("{method} {arguments}: {fault}"));
                }
                None
            }
        }
    }

    /// The feed's state and number of entries.
    pub fn feed_state(&self) -> (String, usize) {
        let status = self.ask("apiban.status", json!([])).unwrap_or_default();
        let feed = &status["feed"];
        let state = feed["state"].as_str().unwrap_or_default().to_owned();
        (state, feed["entries"].as_u64().unwrap_or(0) as usize)
    }

    /// Waits until the list is in the table as a whole.
    pub fn wait_synced(&self, least: usize) {
        let synced = || {
            let (state, entries) = self.feed_state();
            matches!(state.as_str(), "ok" | "syncing") && entries >= least
        };
        let within = Duration::from_secs(60);
        if poll(within, || synced().then_some(())).is_none() {
            self.fail(format!(
                "no whole list after {within:?}: {:?}",
                self.feed_state()
            ));
        }
    }

    pub fn fail(&self, text: String) {
        println!("FAILED: {text}");
        self.failures.lock().expect("no panic").push(text);
    }

    pub fn has_failed(&self) -> bool {
        !self.failures.lock().expect("no panic").is_empty()
    }

    pub fn stop_load(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub fn summary(&self) -> String {
        let counts = &self.counts;
        let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "calls answered {} (resent {}, slowest {} ms); banned sources dropped {}; attackers banned {}; \
             commands {} (refused {})",
            n(&counts.calls),
            n(&counts.resent),
            n(&counts.slowest_ms),
            n(&counts.dropped),
            n(&counts.attacks),
            n(&counts.commands),
            n(&counts.faults),
        )
    }

    /// When all is well again every caller is served, every banned source is not, and the kernel agrees.
    pub fn last_look(&self) {
        for n in 0..30 {
            if let Some(mut sip) = self.client(caller(n)) {
                let answer = crate::load::call(self, &mut sip);
                if answer.is_none() {
                    self.fail(format!("in the end {} is not answered", caller(n)));
                }
            }
        }
        let banned = self.banned.read().expect("no panic");
        let mut control = self.client(caller(29)).expect("a socket");
        for ip in banned
            .listed
            .iter()
            .step_by(7)
            .chain(banned.local.iter().step_by(3))
        {
            let mut probe = self.client(*ip).expect("a socket");
            if self.drops(&mut probe, &mut control) == Some(false) {
                self.fail(format!("in the end {ip} is answered"));
            }
        }
        let within = Duration::from_secs(40);
        let missing = || self.missing_in_kernel(&banned);
        if poll(within, || missing().is_none().then_some(())).is_none() {
            self.fail(format!("not in the firewall: {:?}", missing()));
        }
    }

    /// An address that should be in the firewall and is not.
    fn missing_in_kernel(&self, banned: &Banned) -> Option<Ipv4Addr> {
        let texts = |set: &str| -> std::collections::HashSet<String> {
            match self.wall {
                Wall::Nft => elements(set).into_iter().map(|(ip, _)| ip).collect(),
                Wall::IptablesApi => self
                    .daemon
                    .lock()
                    .expect("no panic")
                    .chain()
                    .into_iter()
                    .collect(),
            }
        };
        let local = texts("hosts4");
        // The list goes to nft only.
        let listed = (self.wall == Wall::Nft).then(|| texts("hosts4"));
        let lost = |set: &std::collections::HashSet<String>, ips: &[Ipv4Addr]| {
            ips.iter()
                .find(|ip| !set.contains(&ip.to_string()))
                .copied()
        };
        lost(&local, &banned.local).or_else(|| lost(&listed?, &banned.listed))
    }

    /// Ends it; fails the test where anything has failed.
    pub fn finish(self) {
        let failures = self.failures.into_inner().expect("no panic");
        let (log, pid) = (self.kamailio.log(), self.kamailio.pid());
        let stopped = self.kamailio.stop();
        for kind in ["faketime_shm_", "sem.faketime_sem_"] {
            // What libfaketime leaves behind; there is none without it.
            let _ = std::fs::remove_file(format!("/dev/shm/{kind}{pid}"));
        }
        assert!(
            failures.is_empty(),
            "{failures:#?}\nlog of Kamailio:\n{}",
            tail(&log)
        );
        assert!(stopped.status.success(), "{}", tail(&stopped.log));
        if self.wall == Wall::Nft {
            wait_until("our table to go", Duration::from_secs(5), || {
                !run("nft", &["list", "tables"]).contains("apiban")
            });
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(200)..].join("\n")
}
