//! k. The program `apiban`: what a run costs, the exports, and the mirror under load.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use apiban::cli::export::Format;
use apiban_testing::feed_server::{FeedServer, Options as Service};
use clap::ValueEnum;
use nix::sys::resource::{getrusage, UsageWho};

use crate::options::Options;
use crate::report::Section;
use crate::samples::Samples;
use crate::setup;

const KEY: &str = "benchmarkkey";
/// Addresses of the list that is fetched.
const LISTED: usize = 5_001;
/// Addresses of the list that is exported.
const EXPORTED: usize = 100_000;
/// Requests a second to the mirror.
const RATE: u32 = 5_000;
/// Connections that they come over.
const CONNECTIONS: u32 = 16;
const TEXT: &str = "\
The program `apiban` with a service on loopback. \"CPU\" is the time of the process and of what it starts \
(a cold one asks `iptables` and `nft` for what other clients left); \"memory\" the most that it had resident. \
A cold `sync` keeps within the real limit of 11 requests in 120 seconds, so nearly all of its time is waiting; a \
warm one finds nothing new and the kernel up to date. The mirror is asked for one page of 250 over 16 connections, \
each request at its own time whatever became of the one before, and the wait counts from that time; load generator \
and mirror share the machine.";

/// Runs the part; `netns`: it has a network namespace of its own, so that nft and ipset may be used.
pub fn run(options: &Options, _: &Path, netns: bool) -> Section {
    let mut section = Section::new("The program apiban", TEXT);
    syncs(options, netns, &mut section);
    exports(options, &mut section);
    mirror(options, &mut section);
    section
}

/// A directory with a configuration.
struct Program {
    dir: tempfile::TempDir,
}

/// What one run took.
#[derive(Debug)]
struct Cost {
    wall: f64,
    cpu: f64,
    megabytes: f64,
}

impl Program {
    fn new(config: &str) -> Program {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("apiban.state");
        let text = format!(
            "state_file = \"{}\"\ntrust_self = false\n{config}",
            state.display()
        );
        fs::write(dir.path().join("apiban.toml"), text).expect("a configuration");
        Program { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_apiban"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.file("apiban.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Runs it to its end, which must be a good one.
    fn run(&self, arguments: &[&str]) -> Cost {
        let before = children_cpu();
        let start = Instant::now();
        let mut child = self.command(arguments).spawn().expect("the program starts");
        let mut most = 0.0_f64;
        let status = loop {
            most = most.max(peak_megabytes(child.id()));
            if let Some(status) = child.try_wait().expect("it can be waited for") {
                break status;
            }
            sleep(Duration::from_millis(1));
        };
        assert!(status.success(), "apiban {arguments:?}: {status}");
        Cost {
            wall: start.elapsed().as_secs_f64(),
            cpu: (children_cpu() - before) * 1e3,
            megabytes: most,
        }
    }
}

/// Seconds of CPU that children took which have ended.
fn children_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the usage of children");
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// The most memory that a process has had, in megabytes; 0 if it is gone.
fn peak_megabytes(pid: u32) -> f64 {
    kilobytes(pid, "VmHWM:") / 1024.0
}

fn kilobytes(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

fn syncs(options: &Options, netns: bool, section: &mut Section) {
    let scale: u32 = options.pick(10, 1);
    let window = 120 / scale;
    let service = FeedServer::start(Service {
        rate: Some((11, Duration::from_secs(window.into()))),
        ..Service::new(KEY)
    })
    .expect("feed server");
    service.list(&(0..LISTED).map(setup::listed).collect::<Vec<_>>());
    let firewall = if netns { "nft" } else { "none" };
    let program = Program::new(&format!(
        "api_key = \"{KEY}\"\napi_url = \"{}\"\nfirewall = \"{firewall}\"\nrate_limit_window = {window}\n",
        service.url()
    ));
    eprintln!("k: cold sync");
    let cold = program.run(&["sync", "--quiet"]);
    assert_eq!(service.refused(), 0, "requests were refused");
    if scale != 1 {
        section.text.push_str(&format!(
            " **In this quick run the service's window is {window} s, and the cold sync's time is multiplied by {scale}.**"
        ));
    }
    let cold_wall: Samples = (cold.wall * f64::from(scale)).into();
    let (mut warm, mut filled) = (Vec::new(), Vec::new());
    for round in 0..options.runs(3, 9) {
        eprintln!("k: warm sync {round}");
        let before = service.requests().len();
        warm.push(program.run(&["sync", "--quiet"]));
        assert_eq!(service.requests().len(), before + 1, "one request");
        if netns {
            program.run(&["flush", "--quiet"]);
            filled.push(program.run(&["sync", "--quiet"]));
        }
        // Each sync is one request: ten of them fit into a window of the service.
        sleep(Duration::from_secs(u64::from(window) / 4));
    }
    let of =
        |costs: &[Cost], value: fn(&Cost) -> f64| -> Samples { costs.iter().map(value).collect() };
    section
        .table("apiban sync, 5,001 addresses", "s")
        .row("cold, within the limit, on the clock", cold_wall.clone());
    let table = section.table("apiban sync, 5,001 addresses: CPU", "ms");
    table.row("cold", cold.cpu.into());
    table.row("warm, nothing new", of(&warm, |cost| cost.cpu));
    if netns {
        table.row(
            "warm, the kernel's sets empty",
            of(&filled, |cost| cost.cpu),
        );
    }
    let memory = section.table("apiban sync, 5,001 addresses: memory", "MB");
    memory.row("cold", cold.megabytes.into());
    memory.row("warm, nothing new", of(&warm, |cost| cost.megabytes));
    section.target("cold sync of 5,001 addresses", cold_wall, 150.0, "s");
    section.target("warm sync, CPU", of(&warm, |cost| cost.cpu), 50.0, "ms");
    if netns {
        let name = "5,001 addresses into the kernel's empty sets, CPU of the whole run";
        section.target(name, of(&filled, |cost| cost.cpu), 200.0, "ms");
    }
    let most = warm.iter().chain(&filled).map(|cost| cost.megabytes);
    let most = most.fold(cold.megabytes, f64::max);
    section.target("memory of a sync", most.into(), 50.0, "MB");
}

fn exports(options: &Options, section: &mut Section) {
    let program = Program::new("");
    fs::write(
        program.file("apiban.state"),
        setup::state_file(EXPORTED, None),
    )
    .expect("a state file");
    let table = section.table("apiban export, 100,000 addresses, on the clock", "s");
    let mut slowest = Samples::from(0.0);
    let formats = Format::value_variants().iter();
    for format in formats.filter_map(ValueEnum::to_possible_value) {
        let format = format.get_name();
        eprintln!("k: export {format}");
        let output = program.file(format);
        let output = output.to_str().expect("a name");
        let mut arguments = vec!["export", format, "--output", output];
        if format == "ip6tables" {
            // The list has no IPv6 address, and an empty one is never written without --force.
            arguments.push("--force");
        }
        let walls: Samples = (0..options.runs(3, 9))
            .map(|_| program.run(&arguments).wall)
            .collect();
        if walls.median() > slowest.median() {
            slowest = walls.clone();
        }
        table.row(format, walls);
    }
    section.target(
        "export of 100,000 addresses, slowest format",
        slowest,
        0.3,
        "s",
    );
}

/// The program as a mirror; it ends with the benchmark.
struct Mirror(Child);

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mirror(options: &Options, section: &mut Section) {
    let service = FeedServer::start(Service::new(KEY)).expect("feed server");
    service.list(&(0..LISTED).map(setup::listed).collect::<Vec<_>>());
    let program = Program::new(&format!(
        "api_key = \"{KEY}\"\napi_url = \"{}\"\nrate_limit_requests = 1000\nrate_limit_window = 1\nfeed_rate_limit = 0\n",
        service.url()
    ));
    let mut child = program
        .command(&["feed", "--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("its messages")).lines();
    let mirror = Mirror(child);
    let address: SocketAddr = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("the mirror listens on ")?.1.parse().ok())
        .expect("its address");
    spawn(move || lines.for_each(drop));
    apiban_testing::wait::wait_until("the whole list", Duration::from_secs(60), || {
        Client::connect(address).ask() == 200
    });
    let seconds = options.pick(3, 20);
    // Warm: what grows with the first requests has grown.
    let _ = load(address, RATE, 1);
    let resident = || kilobytes(mirror.0.id(), "VmRSS:") / 1024.0;
    let before = resident();
    eprintln!("k: mirror at {RATE} requests/s");
    let seen = load(address, RATE, seconds);
    let after = resident();
    eprintln!("k: mirror, as much as it can");
    let most = load(address, 0, seconds);
    let table = section.table("wait for a page at 5,000 requests/s", "ms");
    for (q, name) in [(0.5, "median"), (0.99, "99 %"), (0.999, "99.9 %")] {
        table.row(name, seen.waits.quantile(q).into());
    }
    let table = section.table("pages", "1/s");
    table.row("asked for at 5,000 a second: answered", seen.rate.into());
    table.row("asked for as fast as they come", most.rate.into());
    let table = section.table("memory of the mirror", "MB");
    table.row("before", before.into());
    table.row("after", after.into());
    section.target(
        "99 % of the pages at 5,000 requests/s",
        seen.waits.quantile(0.99).into(),
        20.0,
        "ms",
    );
    let missing = f64::from(RATE) - seen.rate;
    section.target(
        "requests/s short of 5,000",
        missing.max(0.0).into(),
        50.0,
        "1/s",
    );
    section.target(
        "growth of the mirror's memory",
        (after - before).into(),
        1.0,
        "MB",
    );
}

/// What a load met.
struct Seen {
    /// Milliseconds from the time at which a request was due to its whole answer.
    waits: Samples,
    /// Good answers a second.
    rate: f64,
}

/// Asks `rate` times a second over all connections together (0: as fast as possible) for some seconds.
fn load(address: SocketAddr, rate: u32, seconds: u64) -> Seen {
    let good = Arc::new(AtomicU64::new(0));
    let start = Instant::now() + Duration::from_millis(20);
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let good = Arc::clone(&good);
            spawn(move || {
                let mut client = Client::connect(address);
                let pause = match rate {
                    0 => Duration::ZERO,
                    rate => Duration::from_secs(1) * CONNECTIONS / rate,
                };
                let mut due = start + pause * number / CONNECTIONS;
                let end = start + Duration::from_secs(seconds);
                let mut waits = Vec::new();
                while due < end && Instant::now() < end {
                    sleep(due.saturating_duration_since(Instant::now()));
                    if client.ask() == 200 {
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                    waits.push(due.elapsed().as_secs_f64() * 1e3);
                    due = if rate == 0 {
                        Instant::now()
                    } else {
                        due + pause
                    };
                }
                waits
            })
        })
        .collect();
    let waits = clients
        .into_iter()
        .flat_map(|client| client.join().expect("a client"));
    let waits: Samples = waits.collect();
    Seen {
        waits,
        rate: good.load(Ordering::Relaxed) as f64 / seconds as f64,
    }
}

/// A connection that is kept open.
struct Client {
    stream: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the mirror listens");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Client {
            stream: BufReader::new(stream),
            line: String::new(),
            body: Vec::new(),
        }
    }

    /// Asks for a page in the middle of the list; the status.
    fn ask(&mut self) -> u16 {
        let request = b"GET /api/key/banned/100 HTTP/1.1\r\nHost: mirror\r\n\r\n";
        self.stream.get_mut().write_all(request).expect("a request");
        let (mut status, mut length) = (0, 0);
        loop {
            self.line.clear();
            self.stream.read_line(&mut self.line).expect("a header");
            let line = self.line.trim_end();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest
                    .get(..3)
                    .and_then(|code| code.parse().ok())
                    .unwrap_or(0);
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            } else if line.is_empty() {
                break;
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).expect("a body");
        status
    }
}
