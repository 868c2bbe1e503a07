//! A cluster whose nodes are killed, stopped and cut off from each other while they ban and lift bans: SIP is
//! always answered, and in the end every node holds what every other one made, and nothing that was lifted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use apiban_testing::cluster::{cut, heal, listed, nft, node, Transport};
use apiban_testing::fed;
use apiban_testing::feed_server::{Fault, FeedServer};
use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::netns::in_namespace;
use apiban_testing::sip::Answer;
use apiban_testing::wait::{poll, wait_until};

use crate::random::Random;

const NODES: u8 = 4;
/// Addresses on the service's list.
const LISTED: u64 = 600;
/// A killed node counts as silent after 17 s, and another one fetches 10 s later at the most.
const RECOVERY: Duration = Duration::from_secs(60);
/// Requests that may be lost before silence counts: a fifth of the packets is dropped at times.
const ROUNDS: usize = 8;

/// What is broken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    Cut,
    Loss,
    Stopped(usize, i32),
    Feed,
}

struct Stage {
    nodes: Vec<Kamailio>,
    service: FeedServer,
    transport: Transport,
    releases: Vec<Release>,
    random: Random,
    broken: Broken,
    next: u32,
    /// Lifted bans, and at which node.
    lifted: BTreeMap<String, usize>,
    banned: BTreeSet<String>,
    told: [u32; 6],
}

/// Plays for `seconds` over each transport.
pub fn run(seed: u64, seconds: u64) {
    let releases = Release::all();
    // Not every machine has the module tls of its own release.
    let with_tls = Release::roots();
    for (transport, releases) in [
        (Transport::Udp, releases.clone()),
        (Transport::Tcp, releases),
        (Transport::Tls, with_tls),
    ] {
        if !releases.is_empty() {
            let length = Duration::from_secs(seconds);
            in_namespace(move || Stage::start(seed, transport, releases).play(length));
        }
    }
}

impl Stage {
    fn start(seed: u64, transport: Transport, releases: Vec<Release>) -> Stage {
        let service = fed::service();
        let addresses: Vec<String> = (0..LISTED)
            .map(|n| format!("198.18.{}.{}", n / 250, n % 250 + 1))
            .collect();
        service.list(&addresses);
        let mut stage = Stage {
            nodes: Vec::new(),
            service,
            transport,
            releases,
            random: Random::seeded(seed),
            broken: Broken::Nothing,
            next: 0,
            lifted: BTreeMap::new(),
            banned: BTreeSet::new(),
            told: [0; 6],
        };
        for index in 0..usize::from(NODES) {
            let started = stage.builder(index).start();
            stage.nodes.push(started);
        }
        stage
    }

    fn builder(&self, index: usize) -> Builder {
        let release = &self.releases[index % self.releases.len()];
        node(index as u8 + 1, release, self.transport, self.nodes.first())
            .param("api_url", self.service.url())
            .param("api_key", fed::KEY)
            .param("poll_interval", 4)
            .param("rate_limit_requests", 1000)
            .param("rate_limit_window", 1)
            .param("block_budget", 0)
            .request_route("if (is_method(\"KDMQ\")) { dmq_handle_message(); exit; } if (apiban_check() > 0) { exit; }")
    }

    fn play(mut self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end {
            self.next_event();
            self.bans();
            self.calls();
        }
        self.mend();
        self.last_look();
        let [kills, stops, cuts, losses, faults, calls] = self.told;
        println!(
            "\n== cluster over {:?}: nodes killed {kills}, stopped {stops}, cut off {cuts}, packets lost {losses} times, \
             feed failed {faults}; bans {}, lifted {}; calls answered {calls}",
            self.transport,
            self.next,
            self.lifted.len()
        );
        for node in &mut self.nodes {
            assert!(node.is_running());
        }
    }

    fn next_event(&mut self) {
        let one = self.random.below(self.nodes.len());
        match self.random.below(8) {
            0 => {
                self.mend();
                self.told[0] += 1;
                let dead = self.nodes.remove(one);
                dead.kill9();
                self.forget_untold(one);
                // The others go on while it is away.
                self.bans();
                let started = self.builder(one).start();
                self.nodes.insert(one, started);
            }
            1 => {
                self.mend();
                self.told[1] += 1;
                let pid = self.nodes[one].pid_of("APIBAN cluster");
                self.nodes[one].signal(pid, Signal::SIGSTOP);
                self.broken = Broken::Stopped(one, pid);
            }
            2 => {
                self.mend();
                self.told[2] += 1;
                let at = 1 + self.random.below(self.nodes.len() - 1);
                let (left, right) = self.nodes.split_at(at);
                cut(
                    &left.iter().collect::<Vec<_>>(),
                    &right.iter().collect::<Vec<_>>(),
                );
                self.broken = Broken::Cut;
            }
            3 => {
                self.mend();
                self.told[3] += 1;
                nft("table ip cut {\nchain in {\ntype filter hook input priority 0;\nip daddr 127.0.77.0/24 meta l4proto { tcp, udp } numgen random mod 100 < 20 drop\n}\n}\n");
                self.broken = Broken::Loss;
            }
            4 => {
                self.mend();
                self.told[4] += 1;
                self.service.set_fault(Fault::Status(500, None), None);
                self.broken = Broken::Feed;
            }
            5 => self.mend(),
            // What is broken stays so.
            _ => {}
        }
        // Long enough for silence to be noticed now and then.
        let hold = Duration::from_millis(200 + self.random.below(4_000) as u64);
        poll(hold, || None::<()>);
    }

    /// What the dead node lifted and could tell nobody, stopped or cut off as it was, no node can know.
    fn forget_untold(&mut self, dead: usize) {
        let nodes = &self.nodes;
        let is_banned = |ip: &str| {
            nodes
                .iter()
                .any(|node| node.verdict(ip)["source"] != "none")
        };
        self.lifted
            .retain(|ip, lifter| *lifter != dead || !is_banned(ip));
    }

    fn bans(&mut self) {
        for _ in 0..20 {
            let index = self.random.below(self.nodes.len());
            let node = &self.nodes[index];
            self.next += 1;
            let ip = format!("10.0.{}.{}", self.next / 250, self.next % 250 + 1);
            node.ask("apiban.block", &[&ip, "7200", "chaos"]);
            self.banned.insert(ip);
            if self.random.below(5) == 0 {
                let all: Vec<&String> = self.banned.iter().collect();
                let ip = all[self.random.below(all.len())].clone();
                let index = self.random.below(self.nodes.len());
                // Not known there: then nothing is lifted.
                if self.nodes[index]
                    .jsonrpc("apiban.unblock", json!([ip]))
                    .is_ok()
                {
                    self.banned.remove(&ip);
                    self.lifted.insert(ip, index);
                }
            }
        }
    }

    fn calls(&mut self) {
        for node in &self.nodes {
            let answered =
                (0..ROUNDS).any(|_| node.udp("127.0.0.5").options() == Answer::Status(200));
            assert!(answered, "{} with {:?}", node.listens_on(), self.broken);
            self.told[5] += 1;
        }
    }

    fn mend(&mut self) {
        match std::mem::replace(&mut self.broken, Broken::Nothing) {
            Broken::Nothing => {}
            Broken::Cut | Broken::Loss => heal(),
            Broken::Stopped(index, pid) => self.nodes[index].signal(pid, Signal::SIGCONT),
            Broken::Feed => self.service.clear_faults(),
        }
    }

    /// Every node has the list and what each other one made, and nothing that was lifted.
    fn last_look(&self) {
        for node in &self.nodes {
            let own = listed(node)[0]["node"].clone();
            let local = || node.statistic("apiban", "local_entries");
            for other in self
                .nodes
                .iter()
                .filter(|other| !std::ptr::eq(*other, node))
            {
                let what = format!("{} to have all of {own}", other.listens_on());
                wait_until(&what, RECOVERY, || {
                    let nodes = listed(other);
                    let seen = nodes.iter().find(|seen| seen["node"] == own);
                    seen.is_some_and(|seen| seen["state"] == "ok" && seen["bans"] == local())
                });
            }
            wait_until("the list", RECOVERY, || {
                node.statistic("apiban", "feed_entries") == LISTED
            });
        }
        wait_until("one fetcher", RECOVERY, || {
            apiban_testing::cluster::fetchers(&self.nodes).len() == 1
        });
        for ip in self.lifted.keys() {
            for node in &self.nodes {
                let what = format!("the end of {ip} at {}", node.listens_on());
                wait_until(&what, RECOVERY * 2, || node.verdict(ip)["source"] == "none");
            }
        }
    }
}
