//! What must stay as it was: processes, descriptors, memory, and a log that does not fill the disk.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::Duration;

use crate::world::World;
use apiban_testing::wait::poll;

/// Growth of one process that is no leak: pages of tables and pools that are used for the first time.
const SHMEM_SLACK: u64 = 12 << 10;
const ANON_SLACK: u64 = 12 << 10;
/// Lines of the module in a minute, with an event every few seconds and a reload every three.
const LINES: usize = 300;
/// Warnings and errors among them.
const WARNINGS: usize = 90;

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    name: String,
    descriptors: usize,
    /// Shared and private memory in KiB.
    shmem: u64,
    anon: u64,
}

pub struct Vitals {
    processes: BTreeMap<i32, Process>,
    log: usize,
}

impl Vitals {
    pub fn of(world: &World) -> Vitals {
        let all = world.kamailio.processes();
        let processes = all.into_iter().map(|p| (p.pid, look(p.pid, p.name)));
        Vitals {
            processes: processes.collect(),
            log: world.kamailio.log().len(),
        }
    }

    /// Fails the run where something has changed that must not; what there is to say otherwise.
    pub fn compare(&self, world: &World, length: Duration) -> String {
        let names = |vitals: &Vitals| -> Vec<(i32, String)> {
            vitals
                .processes
                .iter()
                .map(|(pid, p)| (*pid, p.name.clone()))
                .collect()
        };
        // Connections that just ended take a moment.
        let leaking = || {
            let now = Vitals::of(world);
            now.processes
                .iter()
                .find(|(pid, p)| {
                    self.processes
                        .get(pid)
                        .is_some_and(|b| p.descriptors > b.descriptors)
                })
                .map(|(_, p)| format!("{}: {} descriptors", p.name, p.descriptors))
        };
        if poll(Duration::from_secs(20), || {
            leaking().is_none().then_some(())
        })
        .is_none()
        {
            world.fail(format!("descriptors leak: {:?}", leaking()));
        }
        let now = Vitals::of(world);
        if names(self) != names(&now) {
            world.fail(format!(
                "processes changed: {:?} to {:?}",
                names(self),
                names(&now)
            ));
        }
        let mut growth = Growth::default();
        for (pid, p) in &now.processes {
            let Some(before) = self.processes.get(pid) else {
                continue;
            };
            let grown = [
                (p.shmem, before.shmem, SHMEM_SLACK),
                (p.anon, before.anon, ANON_SLACK),
            ];
            let [shmem, anon] = grown.map(|(now, before, slack)| {
                let grown = now.saturating_sub(before);
                if grown > slack {
                    world.fail(format!("{}: memory grew by {grown} KiB", p.name));
                }
                grown
            });
            growth.shmem = growth.shmem.max(shmem);
            growth.anon = growth.anon.max(anon);
            growth.descriptors += p.descriptors;
        }
        growth.processes = now.processes.len();
        growth.log(world, self.log, length);
        growth.to_string()
    }
}

fn look(pid: i32, name: String) -> Process {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field));
        line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or(0)
    };
    Process {
        name,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
        shmem: kib("RssShmem:"),
        anon: kib("RssAnon:"),
    }
}

#[derive(Default)]
struct Growth {
    processes: usize,
    descriptors: usize,
    shmem: u64,
    anon: u64,
    lines: usize,
    warnings: usize,
}

impl Growth {
    fn log(&mut self, world: &World, from: usize, length: Duration) {
        let log = world.kamailio.log();
        let ours = log.get(from..).unwrap_or_default().lines();
        let ours: Vec<&str> = ours.filter(|line| line.contains("apiban [")).collect();
        let serious = |line: &&&str| line.contains("WARNING:") || line.contains("ERROR:");
        // A command of a person is a line each, however many there are.
        let by_itself = |line: &&&str| !line.contains(" by RPC");
        self.lines = ours.iter().filter(by_itself).count();
        self.warnings = ours.iter().filter(serious).count();
        let minutes = length.as_secs().div_ceil(60).max(1) as usize;
        if self.lines > LINES * minutes || self.warnings > WARNINGS * minutes {
            world.fail(format!(
                "{} log lines, {} of them serious",
                self.lines, self.warnings
            ));
        }
        // Nothing of an attacker's may begin a line, and no secret may stand in one.
        if log.contains("chaos-key") {
            world.fail("the key stands in the log".into());
        }
        if ours.iter().any(|line| line.contains("internal error")) {
            world.fail("an internal error stands in the log".into());
        }
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} processes, all the same; {} descriptors, none more; memory of one process grew by at most \
             {} KiB shared, {} KiB private; {} log lines, {} of them warnings or errors",
            self.processes, self.descriptors, self.shmem, self.anon, self.lines, self.warnings
        )
    }
}
