//! n. What the kernel's work on a packet costs with our nft table, and with that of the first version.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use apiban::address::Subnet;
use apiban::firewall::nft::{Nft, Settings};
use apiban::firewall::{Element, Firewall};
use apiban_testing::netns::run as command;
use apiban_testing::veth::{Host, SERVER_V4};

use crate::filter::thread_cpu;
use crate::options::Options;
use crate::report::Section;
use crate::samples::Samples;

/// Banned addresses.
const LISTED: u32 = 5_000;
/// So many of them send, in turn.
const SENDERS: u32 = 200;
/// The first banned address and the first other one that sends.
const BANNED: Ipv4Addr = Ipv4Addr::new(10, 9, 64, 1);
const WANTED: Ipv4Addr = Ipv4Addr::new(10, 9, 128, 1);
/// An address beyond a device that throws away what it is given.
const NOWHERE: &str = "192.0.2.2";
/// As long as a short INVITE.
const PACKET: [u8; 500] = [b'x'; 500];

const TEXT: &str = "\
A host in a network namespace of its own sends packets of 500 bytes over a veth pair, from 200 of 5,000 banned addresses in turn, \
or from 200 others, to a UDP socket that nobody reads. The receiving side's work is done in the sender's thread, whose CPU time is \
measured; what sending alone costs, to a device that throws packets away, is subtracted. Each run goes through all \
variants, and ratios are those within a run. The table of the first version has four host sets with counters, and its chain is at `input`; \
connection tracking is on where a rule of another table uses it.";

/// The table of the first version, but for its elements.
const FIRST: &str = "
table inet first {
    set local4 { type ipv4_addr; flags timeout; counter; }
    set local6 { type ipv6_addr; flags timeout; counter; }
    set feed4 { type ipv4_addr; flags timeout; counter; }
    set feed6 { type ipv6_addr; flags timeout; counter; }
    chain input {
        type filter hook input priority -300; policy accept;
        icmpv6 type { 133, 134, 135, 136, 137 } accept
        ip saddr @local4 counter drop
        ip6 saddr @local6 counter drop
        ip saddr @feed4 counter drop
        ip6 saddr @feed6 counter drop
    }
}";
/// A table that makes the kernel track connections.
const TRACKING: &str = "
table inet tracking {
    chain input { type filter hook input priority 0; policy accept; ct state invalid counter; }
}";

/// What stands in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    None,
    First,
    Ours,
}

/// Every combination of a table and connection tracking.
const VARIANTS: [(Table, bool); 6] = [
    (Table::None, false),
    (Table::First, false),
    (Table::Ours, false),
    (Table::None, true),
    (Table::First, true),
    (Table::Ours, true),
];

/// The sending side and the receiving side.
struct Bed {
    /// Keeps its namespace.
    _host: Host,
    banned: Vec<UdpSocket>,
    wanted: Vec<UdpSocket>,
    sink: UdpSocket,
    packets: u32,
}

/// Runs the part; only in a network namespace.
pub fn run(options: &Options) -> Section {
    let mut section = Section::new("The kernel's work on a packet", TEXT);
    let bed = Bed::new(options.pick(10_000, 40_000));
    let empty = || vec![Samples::default(); VARIANTS.len()];
    let (mut dropped, mut wanted) = (empty(), empty());
    let runs = options.runs(5, 25);
    for run in 0..=runs {
        eprintln!("n: round {run} of {runs}");
        let sending = bed.price(&bed.banned, NOWHERE);
        for (number, (table, tracking)) in VARIANTS.into_iter().enumerate() {
            let with = in_kernel(table, tracking);
            bed.check(table);
            let here = SERVER_V4;
            // The first round warms up.
            if run > 0 {
                let add = |to: &mut Vec<Samples>, from| {
                    to[number].0.push(bed.price(from, here) - sending);
                };
                add(&mut dropped, &bed.banned);
                add(&mut wanted, &bed.wanted);
            }
            with.remove();
        }
    }
    targets(&mut section, &dropped, &wanted);
    for (tracking, title) in [(false, ""), (true, ", connection tracking active")] {
        let table = section.table(&format!("CPU of a packet{title}"), "ns");
        for (number, (place, with)) in VARIANTS.into_iter().enumerate() {
            if with != tracking {
                continue;
            }
            let name = match place {
                Table::None => "no table",
                Table::First => "table of the first version",
                Table::Ours => "apiban",
            };
            if place != Table::None {
                table.row(&format!("{name}: banned"), dropped[number].clone());
            }
            table.row(&format!("{name}: wanted"), wanted[number].clone());
        }
        table.compared_with("table of the first version: banned");
    }
    section
}

fn targets(section: &mut Section, dropped: &[Samples], wanted: &[Samples]) {
    let place = |table, tracking| {
        let found = VARIANTS
            .iter()
            .position(|variant| *variant == (table, tracking));
        found.expect("every combination")
    };
    let (none, first, ours) = (
        place(Table::None, false),
        place(Table::First, false),
        place(Table::Ours, false),
    );
    section.target(
        "a packet that nft drops, times the table of the first version",
        dropped[ours].ratio(&dropped[first]),
        0.70,
        "",
    );
    section.target(
        "the same with connection tracking active",
        dropped[place(Table::Ours, true)].ratio(&dropped[place(Table::First, true)]),
        0.50,
        "",
    );
    let paid = |number: usize| wanted[number].less(&wanted[none]);
    // Both are differences, so the ratio is that of the medians.
    section.target(
        "what a wanted packet pays for the table, times the table of the first version",
        (paid(ours).median() / paid(first).median()).into(),
        0.65,
        "",
    );
}

impl Bed {
    /// Makes both sides.
    fn new(packets: u32) -> Bed {
        let host = Host::connect();
        let sockets = host.run(|| {
            for line in [
                "addr add 10.9.200.1/16 dev wire",
                "link set lo up",
                "route add local 10.9.64.0/18 dev lo",
                "route add local 10.9.128.0/18 dev lo",
                "link add nowhere type ifb",
                "link set nowhere up",
                "route add 192.0.2.0/24 dev nowhere",
            ] {
                ip(line);
            }
            [BANNED, WANTED].map(senders)
        });
        let [banned, wanted] = sockets;
        let sink = UdpSocket::bind((SERVER_V4, 5060)).expect("socket");
        sink.set_nonblocking(true).expect("non-blocking");
        Bed {
            _host: host,
            banned,
            wanted,
            sink,
            packets,
        }
    }

    /// CPU time of a packet that is sent from `from` to `to`, in ns.
    fn price(&self, from: &[UdpSocket], to: &str) -> f64 {
        let before = thread_cpu();
        for (_, socket) in (0..self.packets).zip(from.iter().cycle()) {
            socket.send_to(&PACKET, (to, 5060)).expect("send");
        }
        (thread_cpu() - before).as_nanos() as f64 / f64::from(self.packets)
    }

    /// Ends the benchmark if the kernel does not drop what it should, or drops what it should not.
    fn check(&self, table: Table) {
        let arrives = |from: &UdpSocket| {
            while self.sink.recv(&mut [0; 512]).is_ok() {}
            from.send_to(&PACKET, (SERVER_V4, 5060)).expect("send");
            let end = Instant::now() + Duration::from_millis(20);
            while Instant::now() < end {
                if self.sink.recv(&mut [0; 512]).is_ok() {
                    return true;
                }
            }
            false
        };
        assert!(arrives(&self.wanted[0]), "{table:?}");
        assert_eq!(arrives(&self.banned[0]), table == Table::None, "{table:?}");
    }
}

/// Sockets of consecutive addresses.
fn senders(first: Ipv4Addr) -> Vec<UdpSocket> {
    let address = |n| Ipv4Addr::from_bits(first.to_bits() + n);
    let bound = |n| UdpSocket::bind((address(n), 0)).expect("socket");
    (0..SENDERS).map(bound).collect()
}

/// What was put into the kernel.
struct InKernel {
    tracking: bool,
    first: bool,
    ours: Option<Nft>,
}

fn in_kernel(table: Table, tracking: bool) -> InKernel {
    let banned = (0..LISTED).map(|n| Ipv4Addr::from_bits(BANNED.to_bits() + n));
    if tracking {
        nft(TRACKING);
    }
    if table == Table::First {
        let elements: Vec<String> = banned
            .clone()
            .map(|ip| format!("{ip} timeout 1h"))
            .collect();
        let elements = elements.join(",");
        nft(&format!(
            "{FIRST}\nadd element inet first feed4 {{ {elements} }}"
        ));
    }
    let ours = (table == Table::Ours).then(|| {
        let elements: Vec<Element> = banned
            .map(|ip| Element {
                subnet: Subnet::host(IpAddr::V4(ip)),
                seconds_left: 3_600,
                hits: 0,
            })
            .collect();
        let mut nft = Nft::new(Settings::default()).expect("nft");
        nft.reset().expect("the table");
        nft.reconcile(&elements).expect("the elements");
        nft
    });
    InKernel {
        tracking,
        first: table == Table::First,
        ours,
    }
}

impl InKernel {
    fn remove(self) {
        if let Some(mut ours) = self.ours {
            ours.remove().expect("removal");
        }
        for (is_there, name) in [(self.first, "first"), (self.tracking, "tracking")] {
            if is_there {
                command("nft", &["delete", "table", "inet", name]);
            }
        }
    }
}

/// Gives a script to nft.
fn nft(script: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nft");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(script.as_bytes()).expect("the script");
    drop(stdin);
    assert!(child.wait().expect("nft").success());
}

fn ip(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    command("ip", &words);
}
