//! i. The cluster: how fast bans and the list travel, and what they cost.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use apiban::clock::UnixSeconds;
use apiban::state::{self, Ban, State};
use apiban_testing::cluster::{
    cut, fetchers, heal, node, on_bus, peer_entries, wait_together, Transport,
};
use apiban_testing::fed::{self, KEY};
use apiban_testing::feed_server::{now, FeedServer, Options as Service};
use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::sip::{Answer, Sip};
use apiban_testing::wait::{wait_for, wait_until};
use serde_json::json;

use crate::options::Options;
use crate::report::Section;
use crate::samples::Samples;
use crate::setup::{self, timed, unrolled, STRANGER};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// What the service allows: requests, and in how many seconds.
const LIMIT: (usize, u64) = (11, 120);
/// What a joining node must get.
const LISTED: usize = 5_001;
const BANS: usize = 10_000;

const TEXT: &str = "\
Nodes are Kamailios on loopback addresses of one machine, over UDP. A ban is made in a script function on A; the \
source sends one OPTIONS after another to B, which answers 403 instead of dropping where `apiban_check()` says so, so \
that the moment is seen. \"Loaded\" is 1,000 OPTIONS a second to each node at the same time. The peer is htable with \
`dmqreplicate=1`, set in the script on A and asked on B. A join is counted from the moment at which the new node \
serves. The service of the cold start enforces 11 requests in 120 seconds. Shared memory is what `core.shmmem` calls \
used: before 1,000 bans in a second, and 40 s after them.";

/// Answers 403 for a banned source, runs a named route, and hands the bus its messages.
const ROUTE: &str = "\
if (is_method(\"KDMQ\")) { dmq_handle_message(); exit; }
if ($rU != $null) { $var(route) = $rU; route($var(route)); }
else if (BANNED) { sl_send_reply(\"403\", \"Forbidden\"); exit; }";

fn member(number: u8, first: Option<&Kamailio>) -> Builder {
    node(number, &Release::Host, Transport::Udp, first)
        .memory(256, 16)
        .debug(1)
        .param("block_budget", 0)
        .param("peer_budget", 1_000_000)
        .request_route(&ROUTE.replace("BANNED", "apiban_check() > 0"))
        .routes("route[ban] { apiban_block(\"$hdr(X-Ban)\", \"600\"); }")
}

fn members(count: u8) -> Vec<Kamailio> {
    let mut nodes: Vec<Kamailio> = Vec::new();
    for number in 1..=count {
        let started = member(number, nodes.first()).start();
        nodes.push(started);
    }
    wait_together(&nodes);
    nodes
}

/// Two nodes that share a hash table.
fn htables() -> Vec<Kamailio> {
    let mut nodes: Vec<Kamailio> = Vec::new();
    for number in 1..=2 {
        let plain = on_bus(
            Kamailio::plain(),
            number,
            &Release::Host,
            Transport::Udp,
            nodes.first(),
        );
        let started = plain
            .memory(256, 16)
            .debug(1)
            .load("htable")
            .modparam("htable", "enable_dmq", 1)
            .modparam(
                "htable",
                "htable",
                "bans=>size=12;autoexpire=600;dmqreplicate=1;",
            )
            .request_route(&ROUTE.replace("BANNED", "$sht(bans=>$si) != $null"))
            .routes("route[ban] { $var(ip) = $hdr(X-Ban); $sht(bans=>$var(ip)) = 1; }")
            .start();
        nodes.push(started);
    }
    for node in &nodes {
        wait_until("the bus", Duration::from_secs(30), || {
            let listed = node.jsonrpc("dmq.list_nodes", json!([]));
            listed.is_ok_and(|listed| listed.to_string().matches("active").count() >= 2)
        });
    }
    nodes
}

/// Milliseconds from a ban on the first node until the second refuses the source, for `count` sources.
fn ban_to_refusal(nodes: &[Kamailio], count: usize) -> Samples {
    let mut maker = nodes[0].udp(STRANGER);
    let travel = |n: usize| {
        let source = format!("127.1.{}.{}", n / 250, n % 250 + 1);
        let mut probe: Sip = nodes[1].udp(source.as_str());
        assert_eq!(probe.options(), Answer::Status(200), "{source}");
        let begin = Instant::now();
        setup::run_route_on(&mut maker, "ban", &format!("X-Ban: {source}\r\n"));
        while probe.options() != Answer::Status(403) {
            assert!(begin.elapsed() < PATIENCE, "{source} is still answered");
        }
        begin.elapsed().as_secs_f64() * 1000.0
    };
    (0..count).map(travel).collect()
}

/// Runs `work` while each node gets 1,000 OPTIONS a second.
fn under_load<T>(nodes: &[Kamailio], work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for node in nodes {
            let stop = &stop;
            scope.spawn(move || {
                let socket = UdpSocket::bind("127.0.0.7:0").expect("a socket");
                socket.set_nonblocking(true).expect("a socket");
                let text = node.udp("127.0.0.7").text("OPTIONS", "load");
                let (begin, mut sent) = (Instant::now(), 0u64);
                let mut buffer = [0; 4096];
                while !stop.load(Ordering::Acquire) {
                    while sent < begin.elapsed().as_millis() as u64 {
                        sent += 1;
                        let one = text
                            .replace("branch=z9hG4bK", &format!("branch=z9hG4bK{sent}"))
                            .replace("load", &format!("load{sent}"));
                        let _ = socket.send_to(one.as_bytes(), node.address());
                    }
                    while socket.recv(&mut buffer).is_ok() {}
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let done = work();
        stop.store(true, Ordering::Release);
        done
    })
}

fn shared_memory(node: &Kamailio) -> f64 {
    let memory = node.ask("core.shmmem", &[]);
    memory["used"].as_f64().expect("a number") / 1024.0
}

/// 1,000 bans in a second: seconds until all are on the others, and KB of shared memory that is not given back.
fn a_thousand(nodes: &[Kamailio]) -> (f64, f64) {
    let before = shared_memory(&nodes[0]);
    let had: Vec<u64> = nodes.iter().map(peer_entries).collect();
    let begin = Instant::now();
    for n in 0..1_000u64 {
        let due = Duration::from_millis(n).saturating_sub(begin.elapsed());
        std::thread::sleep(due);
        let ip = format!("10.7.{}.{}", n / 250, n % 250 + 1);
        nodes[0].ask("apiban.block", &[&ip, "600"]);
    }
    for (node, had) in nodes.iter().zip(had).skip(1) {
        wait_until("a thousand bans", PATIENCE, || {
            peer_entries(node) == had + 1_000
        });
    }
    let took = begin.elapsed().as_secs_f64();
    let least = wait_for("the memory", PATIENCE, || {
        let left = shared_memory(&nodes[0]) - before;
        (left < 64.0 || begin.elapsed() > Duration::from_secs(40)).then_some(left)
    });
    (took, least.max(0.0))
}

fn service(limit: bool) -> FeedServer {
    let mut options = Service::new(KEY);
    if limit {
        options.rate = Some((LIMIT.0, Duration::from_secs(LIMIT.1)));
    }
    FeedServer::start(options).expect("the stand-in for the service")
}

fn fed_member(number: u8, service: &FeedServer, first: Option<&Kamailio>) -> Builder {
    member(number, first)
        .param("api_url", service.url())
        .param("api_key", KEY)
}

fn addresses(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("198.{}.{}.{}", 18 + n / 62_500, n / 250, n % 250 + 1))
        .collect()
}

fn has_list(node: &Kamailio, count: usize) -> bool {
    node.statistic("apiban", "feed_entries") == count as u64
}

/// Seconds until a node that joins has everything.
fn joins(runs: usize) -> Samples {
    let service = service(false);
    service.list(&addresses(LISTED));
    let fast = |builder: Builder| {
        builder
            .param("rate_limit_requests", 1000)
            .param("rate_limit_window", 1)
    };
    let since = UnixSeconds::saturating(now());
    let ban = |n: usize| Ban {
        ip: format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255),
        end: since.shifted(80_000),
        since,
        reason: "scanner".into(),
        hits: 0,
    };
    let state = State {
        written: since,
        feed: None,
        trusted: Vec::new(),
        listed: Vec::new(),
        local: (0..BANS).map(ban).collect(),
    };
    let first = fast(fed_member(1, &service, None))
        .file("apiban.state", state::encode(&state).expect("a state file"))
        .start();
    wait_until("the list", PATIENCE, || has_list(&first, LISTED));
    let join = |_| {
        let second = fast(fed_member(2, &service, Some(&first))).start();
        let begin = Instant::now();
        wait_until("all of it", PATIENCE, || {
            has_list(&second, LISTED) && peer_entries(&second) == BANS as u64
        });
        let took = begin.elapsed().as_secs_f64();
        second.kill9();
        took
    };
    (0..runs).map(join).collect()
}

/// Four nodes start with nothing: how many requests they make, how many are refused, and how long it takes (s).
fn cold_start() -> (usize, usize, f64) {
    let service = service(true);
    service.list(&addresses(LISTED));
    let begin = Instant::now();
    let mut nodes: Vec<Kamailio> = Vec::new();
    for number in 1..=4 {
        let started = fed_member(number, &service, nodes.first()).start();
        nodes.push(started);
    }
    for node in &nodes {
        wait_until("the whole list", PATIENCE, || has_list(node, LISTED));
        fed::wait_state(node, "ok");
    }
    let took = begin.elapsed().as_secs_f64();
    (service.requests().len(), service.refused(), took)
}

/// Seconds from the end of the fetcher until another node has fetched.
fn fetcher_killed() -> f64 {
    let service = service(false);
    service.list(&addresses(100));
    let mut nodes: Vec<Kamailio> = Vec::new();
    for number in 1..=3 {
        let started = fed_member(number, &service, nodes.first())
            .param("poll_interval", 2)
            .param("rate_limit_requests", 1000)
            .param("rate_limit_window", 1)
            .start();
        nodes.push(started);
    }
    wait_together(&nodes);
    let fetcher = wait_for("a fetcher", PATIENCE, || fetchers(&nodes).first().copied());
    for node in &nodes {
        wait_until("the list", PATIENCE, || has_list(node, 100));
    }
    let dead = nodes.remove(fetcher);
    dead.kill9();
    let (begin, before) = (Instant::now(), service.requests().len());
    wait_until("a request of another", PATIENCE, || {
        service.requests().len() > before
    });
    begin.elapsed().as_secs_f64()
}

/// Seconds from the end of a partition until all nodes have what was banned meanwhile.
fn partition(nodes: &[Kamailio], seconds: u64, run: usize) -> f64 {
    let (left, right) = nodes.split_at(2);
    cut(
        &left.iter().collect::<Vec<_>>(),
        &right.iter().collect::<Vec<_>>(),
    );
    let begin = Instant::now();
    let had: Vec<u64> = nodes.iter().map(peer_entries).collect();
    for n in 1..=100 {
        left[0].ask("apiban.block", &[&format!("10.9.{run}.{n}"), "6000"]);
        right[1].ask("apiban.block", &[&format!("10.10.{run}.{n}"), "6000"]);
    }
    std::thread::sleep(Duration::from_secs(seconds).saturating_sub(begin.elapsed()));
    heal();
    let begin = Instant::now();
    for (index, node) in nodes.iter().enumerate() {
        // The two that banned have half of it as bans of their own.
        let more = if index == 0 || index == 3 { 100 } else { 200 };
        wait_until("all of it", PATIENCE, || {
            peer_entries(node) == had[index] + more
        });
    }
    begin.elapsed().as_secs_f64()
}

/// Messages that a node sends to each other one in a second.
fn idle(nodes: &[Kamailio], seconds: u64) -> f64 {
    let sent = || nodes[0].statistic("apiban", "cluster_sent");
    let (begin, before) = (Instant::now(), sent());
    std::thread::sleep(Duration::from_secs(seconds));
    let messages = (sent() - before) as f64;
    messages / begin.elapsed().as_secs_f64() / (nodes.len() - 1) as f64
}

/// Microseconds of the worker for a ban: of a node with another one, or alone.
fn worker(stopwatch: &Path, in_cluster: bool, runs: usize) -> Samples {
    const UNROLLED: usize = 100;
    const TURNS: usize = 10;
    let bans = timed(
        "new",
        &unrolled(UNROLLED, |n| {
            format!("apiban_block(\"31.{n}.$var(i).$var(run)\");")
        }),
        TURNS,
    );
    let routes = format!(
        "route[bans] {{\n$var(run) = $var(run) + 1;\n{bans}}}\n{}",
        setup::WRITE_LAPS
    );
    let route = "if (is_method(\"KDMQ\")) { dmq_handle_message(); exit; }
        if ($rU != $null) { $var(route) = $rU; route($var(route)); }";
    let with = |builder: Builder| {
        builder
            .children(1)
            .debug(1)
            .memory(256, 64)
            .global("max_while_loops=100000000")
            .load(stopwatch.to_str().expect("path"))
            .param("block_budget", 0)
            .param("peer_budget", 1_000_000)
            .routes(&routes)
            .request_route(route)
    };
    let mut nodes = Vec::new();
    if in_cluster {
        for number in 1..=2 {
            let builder = node(number, &Release::Host, Transport::Udp, nodes.first());
            let started = with(builder).start();
            nodes.push(started);
        }
        wait_together(&nodes);
    } else {
        let alone = on_bus(Kamailio::builder(), 1, &Release::Host, Transport::Udp, None);
        nodes.push(with(alone.param("trust_self", 0)).start());
    }
    for _ in 0..runs {
        setup::run_route(&nodes[0], STRANGER, "bans");
    }
    let laps = setup::laps(&nodes[0]);
    let per = |lap: &setup::Lap| lap.cpu / (UNROLLED * TURNS) as f64 / 1000.0;
    laps.iter().map(|(_, lap)| per(lap)).collect()
}

/// Runs the part. `root`: in a network namespace of its own.
pub fn run(options: &Options, stopwatch: &Path, root: bool) -> Section {
    let mut section = Section::new("The cluster", TEXT);
    let count = options.pick(20, 200);
    let nodes = members(2);
    let idle_bans = ban_to_refusal(&nodes, count);
    let nodes = {
        drop(nodes);
        members(2)
    };
    let loaded = under_load(&nodes, || ban_to_refusal(&nodes, count));
    drop(nodes);
    let nodes = htables();
    let peer = ban_to_refusal(&nodes, count);
    drop(nodes);
    let nodes = htables();
    let peer_loaded = under_load(&nodes, || ban_to_refusal(&nodes, count));
    drop(nodes);
    let slowest = |samples: &Samples| Samples(vec![samples.quantile(1.0)]);
    let table = section.table("a ban on A until B refuses the source", "ms");
    table.row("apiban, idle", idle_bans.clone());
    table.row("apiban, idle, the slowest", slowest(&idle_bans));
    table.row("apiban, loaded", loaded.clone());
    table.row("apiban, loaded, the slowest", slowest(&loaded));
    table.row("htable, idle", peer);
    table.row("htable, loaded", peer_loaded);
    section.target(
        "cluster: a ban on A until B refuses the source, idle",
        idle_bans.clone(),
        20.0,
        "ms",
    );
    section.target(
        "cluster: the same, the slowest",
        slowest(&idle_bans),
        250.0,
        "ms",
    );
    section.target(
        "cluster: the same with 1,000 OPTIONS/s on both",
        loaded.clone(),
        20.0,
        "ms",
    );
    section.target(
        "cluster: with 1,000 OPTIONS/s, the slowest",
        slowest(&loaded),
        250.0,
        "ms",
    );

    let nodes = members(3);
    let (took, left) = a_thousand(&nodes);
    drop(nodes);
    let nodes = members(4);
    let said = idle(&nodes, options.pick(10, 60));
    let mut healed = Samples::default();
    if root {
        for n in 0..options.runs(1, 3) {
            healed.0.push(partition(&nodes, options.pick(20, 60), n));
        }
    }
    drop(nodes);
    let joined = joins(options.runs(2, 7));
    let successor: Samples = (0..options.runs(1, 3)).map(|_| fetcher_killed()).collect();
    let table = section.table("until all nodes have it", "s");
    table.row("1,000 bans in a second, on two other nodes", took.into());
    table.row(
        "a node that joins: 5,001 listed, 10,000 bans",
        joined.clone(),
    );
    table.row("a partition of 60 s is healed: 200 bans", healed.clone());
    table.row(
        "the fetcher is killed: another has fetched",
        successor.clone(),
    );
    section.target(
        "cluster: 1,000 bans in a second, until all are on B and C",
        took.into(),
        1.5,
        "s",
    );
    section.target(
        "cluster: shared memory not given back after them",
        left.into(),
        64.0,
        "KB",
    );
    section.target(
        "cluster: a node joins, 5,001 listed and 10,000 bans",
        joined,
        2.0,
        "s",
    );
    section.target(
        "cluster: the fetcher is killed, until another has fetched",
        successor,
        45.0,
        "s",
    );
    if !healed.0.is_empty() {
        section.target(
            "cluster: a partition of 60 s is healed, until all are equal",
            healed,
            15.0,
            "s",
        );
    }
    section.target(
        "cluster: messages a second, idle cluster of 4, to each peer",
        said.into(),
        2.0,
        "",
    );
    if !options.quick {
        let (requests, refused, seconds) = cold_start();
        let one_node = LISTED.div_ceil(250);
        let table = section.table("four nodes start with nothing, 5,001 listed", "");
        table.row("requests of a single node", (one_node as f64).into());
        table.row("requests of all four", (requests as f64).into());
        table.row("refused of them", (refused as f64).into());
        table.row("seconds until all have the list", seconds.into());
        section.target(
            "cluster: requests of four cold nodes",
            (requests as f64).into(),
            one_node as f64 + 1.0,
            "",
        );
        section.target("cluster: refused of them", (refused as f64).into(), 0.0, "");
    }
    let runs = options.runs(5, 21);
    let (alone, there) = (
        worker(stopwatch, false, runs),
        worker(stopwatch, true, runs),
    );
    let table = section.table("a ban in a SIP worker, CPU", "us");
    table.row("without a cluster", alone.clone());
    table.row("in a cluster", there.clone());
    table.compared_with("without a cluster");
    let limit = alone.quantile(0.75) * 1.25;
    section.target(
        "cluster: a SIP worker's work for a ban that travels",
        there,
        limit,
        "us",
    );
    section
}
