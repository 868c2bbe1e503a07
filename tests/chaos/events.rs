//! What goes wrong, one event after another, and how each is mended.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::random::Random;
use crate::world::{Wall, World};
use apiban_testing::feed_server::Fault;
use apiban_testing::iptables_api;
use apiban_testing::netns::run;
use apiban_testing::wait::poll;

/// How long something stays broken.
const HOLD: Duration = Duration::from_secs(2);
/// How long the updater stands still: in a long run as long as a slow disk may take it.
const STILL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// Limit for what must come right again. A state file that failed is tried again after 30 s.
const RECOVERY: Duration = Duration::from_secs(45);

#[derive(Clone, Debug)]
enum Event {
    /// The feed answers so for a while.
    Feed(Fault),
    /// The feed gives one answer that looks right and is wrong.
    Lie(Fault),
    /// More is listed, and must be banned soon.
    ListMore,
    /// Somebody empties nf_tables.
    FlushRuleset,
    DeleteTable,
    /// The daemon of the other firewall.
    Daemon(iptables_api::Fault),
    DaemonDies,
    StateReadOnly,
    StateFull,
    /// The system's clock jumps by so many seconds.
    Clock(i64),
    StopUpdater,
    FlushFeed,
    FlushLocal,
}

pub struct Conductor<'a> {
    world: &'a World,
    random: Random,
    deck: Vec<Event>,
    played: BTreeMap<String, u32>,
    first_stop: bool,
}

fn all(world: &World) -> Vec<Event> {
    use Event::*;
    let mut all: Vec<Event> = [
        Fault::RateLimited(None),
        Fault::RateLimited(Some(1)),
        Fault::RateLimited403,
        Fault::Unauthorized(401),
        Fault::Unauthorized(403),
        Fault::Status(500, None),
        Fault::Status(503, Some(1)),
        Fault::Hang,
        Fault::Drop,
        Fault::Truncated,
        Fault::HalfJson,
        Fault::Html,
        Fault::Empty,
        Fault::Giant,
        Fault::SlowDrip,
        Fault::SamePage,
        Fault::Redirect(307, "{path}".into()),
        Fault::Redirect(302, "http://192.0.2.1/api/get".into()),
    ]
    .map(Feed)
    .into();
    let lies = [
        Fault::NoNewBans(400),
        Fault::NoNewBansString(200),
        Fault::BareNone(200),
        Fault::StringShape,
        Fault::Junk,
        Fault::Poison,
        Fault::EchoKey,
    ];
    all.extend(lies.map(Lie));
    all.extend([
        ListMore,
        ListMore,
        StateReadOnly,
        StateFull,
        StopUpdater,
        FlushFeed,
        FlushLocal,
    ]);
    match world.wall {
        Wall::Nft => all.extend([FlushRuleset, DeleteTable, FlushRuleset, DeleteTable]),
        Wall::IptablesApi => {
            use iptables_api::Fault::{Garbage, Hang, NoJson, Status500};
            all.extend([Hang, Garbage, NoJson, Status500].map(Daemon));
            all.push(DaemonDies);
        }
    }
    if world.clock.is_some() {
        all.extend([Clock(7_200), Clock(-7_200), Clock(90)]);
    }
    all
}

impl<'a> Conductor<'a> {
    pub fn new(world: &'a World, random: Random) -> Self {
        if world.clock.is_none() {
            println!("without libfaketime the clock does not jump");
        }
        Conductor {
            world,
            random,
            deck: Vec::new(),
            played: BTreeMap::new(),
            first_stop: true,
        }
    }

    /// Plays one event; each comes once before any comes again.
    pub fn next_event(&mut self) {
        if self.deck.is_empty() {
            self.deck = all(self.world);
            self.random.shuffle(&mut self.deck);
        }
        let Some(event) = self.deck.pop() else {
            return;
        };
        println!("  {event:?}");
        let name = format!("{event:?}");
        let kind = name.split('(').next().unwrap_or_default().to_owned();
        *self.played.entry(kind).or_default() += 1;
        self.play(event);
    }

    pub fn summary(&self) -> String {
        let all = self
            .played
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"));
        all.collect::<Vec<_>>().join(", ")
    }

    fn play(&mut self, event: Event) {
        let world = self.world;
        match event {
            Event::Feed(fault) => {
                world.feed.set_fault(fault, None);
                self.hold(HOLD);
                world.feed.clear_faults();
                self.reload();
            }
            Event::Lie(fault) => self.lie(fault),
            Event::ListMore => self.list_more(),
            Event::FlushRuleset => drop(run("nft", &["flush", "ruleset"])),
            Event::DeleteTable => {
                // It may be gone from the event before.
                let gone = Command::new("nft")
                    .args(["delete", "table", "inet", "apiban"])
                    .output();
                drop(gone);
            }
            Event::Daemon(fault) => {
                world.daemon.lock().expect("no panic").fail(fault);
                self.hold(HOLD * 2);
                world
                    .daemon
                    .lock()
                    .expect("no panic")
                    .fail(iptables_api::Fault::None);
            }
            Event::DaemonDies => {
                world.daemon.lock().expect("no panic").die();
                self.hold(HOLD);
                world.daemon.lock().expect("no panic").revive();
            }
            Event::StateReadOnly => {
                self.cover_state();
                self.hold(HOLD * 2);
                self.uncover_state();
            }
            Event::StateFull => {
                let filler = world.state.join("filler");
                // Ends with an error, when the file system is full.
                let _ = fs::write(&filler, vec![1; 8 << 20]);
                self.hold(HOLD * 2);
                let _ = fs::remove_file(filler);
            }
            Event::Clock(seconds) => {
                self.set_clock(seconds);
                self.hold(HOLD * 2);
                self.set_clock(0);
                self.hold(HOLD);
            }
            Event::StopUpdater => self.stop_updater(),
            Event::FlushFeed => {
                let mut banned = world.banned.write().expect("no panic");
                world.ask("apiban.flush", json!(["feed"]));
                self.reload();
                world.wait_synced(banned.listed.len());
                // All of them may be there before the last page is.
                banned.listed.retain(|ip| {
                    let found = world.ask("apiban.check", json!([ip.to_string()]));
                    let listed = found.is_some_and(|found| found["source"] == "feed");
                    if !listed {
                        world.fail(format!("{ip} is not banned after the feed was flushed"));
                    }
                    listed
                });
            }
            Event::FlushLocal => {
                let mut banned = world.banned.write().expect("no panic");
                world.ask("apiban.flush", json!(["local"]));
                banned.local.clear();
            }
        }
    }

    /// Waits, or until the run is over.
    fn hold(&self, time: Duration) {
        poll(time, || self.world.has_failed().then_some(()));
    }

    fn reload(&self) {
        self.world.ask("apiban.reload", json!([]));
    }

    /// A second lie might be believed, and rightly: so the truth is awaited in between.
    fn lie(&self, fault: Fault) {
        let world = self.world;
        self.settle();
        let before = world.feed.requests().len();
        world.feed.set_fault(fault, Some(1));
        self.reload();
        poll(RECOVERY, || {
            (world.feed.requests().len() > before + 1).then_some(())
        });
        world.feed.clear_faults();
        self.settle();
    }

    /// Until a full fetch has been believed.
    fn settle(&self) {
        let world = self.world;
        self.reload();
        let settled = poll(RECOVERY, || {
            let (state, entries) = world.feed_state();
            (state == "ok" && entries >= world.listed()).then_some(())
        });
        if settled.is_none() {
            world.fail(format!(
                "the feed did not recover: {:?}",
                world.feed_state()
            ));
        }
    }

    fn list_more(&self) {
        let world = self.world;
        let new = world.list_more();
        let mut control = world.client(crate::world::caller(27)).expect("a socket");
        for ip in &new {
            let mut probe = world.client(*ip).expect("a socket");
            let dropped = poll(RECOVERY, || {
                world.drops(&mut probe, &mut control).filter(|d| *d)
            });
            if dropped.is_none() {
                return world.fail(format!("{ip} is listed and answered after {RECOVERY:?}"));
            }
        }
        world.banned.write().expect("no panic").listed.extend(new);
    }

    /// Lays a read-only view of the state directory over it. The file system itself cannot be made
    /// read-only: Kamailio holds the lock file open for writing, as long as it runs.
    fn cover_state(&self) {
        let place = self.world.state.display().to_string();
        self.mount("mount", &["--bind", &place, &place]);
        self.mount("mount", &["-o", "remount,bind,ro", &place]);
        let probe = self.world.state.join("probe");
        if fs::write(probe, "").is_ok() {
            self.world
                .fail("the state directory can still be written".to_owned());
        }
    }

    fn uncover_state(&self) {
        self.mount("umount", &[&self.world.state.display().to_string()]);
    }

    /// Runs a command of `mount(8)`, again while a file is open there.
    fn mount(&self, command: &str, arguments: &[&str]) {
        let done = poll(RECOVERY, || {
            let ended = Command::new(command).args(arguments).output();
            ended.is_ok_and(|out| out.status.success()).then_some(())
        });
        if done.is_none() {
            self.world
                .fail(format!("cannot {command} {}", arguments.join(" ")));
        }
    }

    fn set_clock(&self, seconds: i64) {
        if let Some(clock) = &self.world.clock {
            fs::write(clock, format!("{seconds:+}\n")).expect("the clock's file");
        }
    }

    fn stop_updater(&mut self) {
        let kamailio = &self.world.kamailio;
        let updater = kamailio.pid_of("APIBAN updater");
        kamailio.signal(updater, Signal::SIGSTOP);
        // The long one once: it takes its share of the time.
        let long = std::env::var_os("APIBAN_CHAOS_SECONDS").is_some();
        let still = if std::mem::take(&mut self.first_stop) && long {
            STILL.1
        } else {
            STILL.0
        };
        self.hold(still);
        kamailio.signal(updater, Signal::SIGCONT);
    }

    /// All is mended; in a long run the state file must have come through too.
    pub fn recover(&mut self, wait_for_file: bool) {
        let world = self.world;
        world.feed.clear_faults();
        self.settle();
        let last = world.banned.read().expect("no panic").local.last().copied();
        let (true, Some(ip)) = (wait_for_file, last) else {
            return;
        };
        let saved = || {
            let text = fs::read_to_string(world.state.join("apiban.state")).unwrap_or_default();
            text.contains(&format!("\"{ip}\"")).then_some(())
        };
        if poll(RECOVERY, saved).is_none() {
            world.fail(format!("the ban of {ip} is not in the state file"));
        }
    }
}
