//! n. What the kernel's work on a packet costs with our nft table, and with that of the first version.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use apiban::address::Subnet;
use apiban::firewall::nft::{Nft, Settings};
use apiban::firewall::{Element, Firewall};
use apiban_testing::netns::run as command;
use apiban_testing::veth::{Host, SERVER_V4};
use etherparse::PacketBuilder;
use nix::ifaddrs::getifaddrs;
use nix::sched::{unshare, CloneFlags};
use nix::sys::socket::{bind, send, socket, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType};

use crate::filter::thread_cpu;
use crate::options::Options;
use crate::report::Section;
use crate::samples::Samples;

/// Banned addresses. All of them send, in turn.
const LISTED: u32 = 5_000;
/// So many of them the script banned; the table of the first version has sets of their own for those.
const LOCAL: usize = 500;
/// Other addresses that send.
const OTHERS: u32 = 200;
/// Packets whose work is measured at once: few, since the machine's speed changes all the time.
const BURST: usize = 1_000;
/// The first banned address and the first other one that sends.
const BANNED: Ipv4Addr = Ipv4Addr::new(10, 9, 64, 1);
const WANTED: Ipv4Addr = Ipv4Addr::new(10, 9, 128, 1);
/// A banned address that sends nothing.
const BANNED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The payload is as long as a short INVITE.
const PAYLOAD: [u8; 500] = [b'x'; 500];

const TEXT: &str = "\
For each variant a server in a network namespace of its own, joined by a veth pair to a host in another one. The host sends packets \
of 500 bytes, from 5,000 banned addresses in turn, 500 of which the script banned, or from 200 others, to a UDP socket that nobody \
reads. The receiving side's work is done in the sender's thread, whose CPU time is measured; what sending alone costs, to a device that throws packets away, is \
subtracted. A run goes through all variants with 1,000 packets each, and ratios are those within a run. The table of the first version \
has four host sets with counters, and its chain is at `input`. The smallest table that could do it has one rule for IPv4 alone, \
without a counter, at the same place as ours: no table that drops by source address costs less. Connection tracking is on where a rule \
of another table uses it. The list is IPv4 in practice; one ban of an IPv6 source makes every packet pay for one more rule of ours.";

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
/// The least that can drop banned IPv4 sources.
const LEAST: &str = "
table ip least {
    set banned { type ipv4_addr; flags timeout; }
    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        ip saddr @banned drop
    }
}";
/// A table that makes the kernel track connections.
const TRACKING: &str = "
table inet tracking {
    chain input { type filter hook input priority 0; policy accept; ct state invalid counter; }
}";

/// What the kernel of a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    None,
    First,
    Least,
    Ours,
    /// Ours with a banned IPv6 address, for which other packets pay as well.
    OursWithIpv6,
}

/// Every combination of a table and connection tracking that is of interest.
const VARIANTS: [(Table, bool); 9] = [
    (Table::None, false),
    (Table::First, false),
    (Table::Least, false),
    (Table::Ours, false),
    (Table::OursWithIpv6, false),
    (Table::None, true),
    (Table::First, true),
    (Table::Least, true),
    (Table::Ours, true),
];

/// The sending and the receiving side of a variant.
struct Bed {
    /// These two keep their namespaces, and what is in the kernel.
    _host: Host,
    _ours: Option<Nft>,
    /// Sends what it is given to the server.
    wire: OwnedFd,
    /// Throws away what it is given.
    nowhere: OwnedFd,
    banned: Vec<Vec<u8>>,
    wanted: Vec<Vec<u8>>,
    sink: UdpSocket,
}

/// Runs the part; only in a network namespace.
pub fn run(options: &Options) -> Section {
    let mut section = Section::new("The kernel's work on a packet", TEXT);
    let beds: Vec<Bed> = VARIANTS
        .into_iter()
        .map(|(table, tracking)| Bed::new(table, tracking))
        .collect();
    let empty = || vec![Samples::default(); VARIANTS.len()];
    let (mut dropped, mut wanted) = (empty(), empty());
    let runs = options.runs(200, 2_000);
    for run in 0..=runs {
        if run % 100 == 0 {
            eprintln!("n: round {run} of {runs}");
        }
        let sending = price(&beds[0].nowhere, &beds[0].wanted, run);
        for step in 0..beds.len() {
            let number = (run + step) % beds.len();
            let bed = &beds[number];
            let banned_price = price(&bed.wire, &bed.banned, run) - sending;
            let wanted_price = price(&bed.wire, &bed.wanted, run) - sending;
            // The first round warms up.
            if run > 0 {
                dropped[number].0.push(banned_price);
                wanted[number].0.push(wanted_price);
            }
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
                Table::Least => "the smallest table",
                Table::Ours => "apiban",
                Table::OursWithIpv6 => "apiban, IPv6 banned too",
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
    let table = section.table("What a wanted packet pays, median differences", "ns");
    for (name, number) in [
        ("table of the first version", first),
        ("the smallest table", place(Table::Least, false)),
        ("apiban", ours),
        ("apiban, IPv6 banned too", place(Table::OursWithIpv6, false)),
    ] {
        table.row(name, paid(number).median().into());
    }
    table.compared_with("table of the first version");
}

impl Bed {
    /// Makes both sides, and ends the benchmark if the kernel does not drop what it should, or drops what it
    /// should not.
    fn new(table: Table, tracking: bool) -> Bed {
        // A namespace of its own, which its socket keeps.
        let server = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root, to make a namespace");
            Bed::in_namespace(table, tracking)
        });
        let bed = server.join().expect("the server");
        assert!(bed.arrives(&bed.wanted[0]), "{table:?}");
        assert_eq!(
            bed.arrives(&bed.banned[0]),
            table == Table::None,
            "{table:?}"
        );
        bed
    }

    /// Makes both sides; the caller's namespace is the server's.
    fn in_namespace(table: Table, tracking: bool) -> Bed {
        let host = Host::connect();
        let server = device("wire").addr().expect("an Ethernet address");
        let [wire, nowhere] = host.run(|| {
            command("ip", &["link", "add", "nowhere", "type", "ifb"]);
            command("ip", &["link", "set", "nowhere", "up"]);
            ["wire", "nowhere"].map(raw_socket)
        });
        let sink = UdpSocket::bind((SERVER_V4, 5060)).expect("socket");
        sink.set_nonblocking(true).expect("non-blocking");
        let ours = put_into_kernel(table, tracking);
        Bed {
            _host: host,
            _ours: ours,
            wire,
            nowhere,
            banned: frames(server, BANNED, LISTED),
            wanted: frames(server, WANTED, OTHERS),
            sink,
        }
    }

    fn arrives(&self, frame: &[u8]) -> bool {
        transmit(&self.wire, frame);
        let end = Instant::now() + Duration::from_millis(20);
        while Instant::now() < end {
            if self.sink.recv(&mut [0; 512]).is_ok() {
                return true;
            }
        }
        false
    }
}

/// CPU time of a packet that is sent to a device, in ns.
fn price(device: &OwnedFd, frames: &[Vec<u8>], run: usize) -> f64 {
    let burst = frames.iter().cycle().skip(run * BURST % frames.len());
    let before = thread_cpu();
    for frame in burst.take(BURST) {
        transmit(device, frame);
    }
    (thread_cpu() - before).as_nanos() as f64 / BURST as f64
}

/// The address of a network device of the caller's namespace.
fn device(name: &str) -> LinkAddr {
    let mut all = getifaddrs().expect("the devices");
    let found = all.find_map(|device| {
        let address = device.address.filter(|_| device.interface_name == name)?;
        address.as_link_addr().copied()
    });
    found.expect(name)
}

/// A socket that sends Ethernet frames to a device.
fn raw_socket(name: &str) -> OwnedFd {
    let raw = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::empty(),
        None,
    )
    .expect("root, for a packet socket");
    bind(raw.as_raw_fd(), &device(name)).expect(name);
    raw
}

fn transmit(device: &OwnedFd, frame: &[u8]) {
    send(device.as_raw_fd(), frame, MsgFlags::empty()).expect("send");
}

/// A packet from each of `count` consecutive addresses.
fn frames(server: [u8; 6], first: Ipv4Addr, count: u32) -> Vec<Vec<u8>> {
    let to: Ipv4Addr = SERVER_V4.parse().expect("address");
    let frame = |n| {
        let from = Ipv4Addr::from_bits(first.to_bits() + n);
        let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], server)
            .ipv4(from.octets(), to.octets(), 64)
            .udp(5060, 5060);
        let mut frame = Vec::with_capacity(packet.size(PAYLOAD.len()));
        packet.write(&mut frame, &PAYLOAD).expect("a frame");
        frame
    };
    (0..count).map(frame).collect()
}

/// What the variant has in the kernel. It goes with the namespace.
fn put_into_kernel(table: Table, tracking: bool) -> Option<Nft> {
    let banned = (0..LISTED).map(|n| Ipv4Addr::from_bits(BANNED.to_bits() + n));
    if tracking {
        nft(TRACKING);
    }
    match table {
        Table::None => None,
        Table::First => {
            let elements: Vec<String> = banned.map(|ip| format!("{ip} timeout 1h")).collect();
            let (local, listed) = elements.split_at(LOCAL);
            let (local, listed) = (local.join(","), listed.join(","));
            nft(&format!(
                "{FIRST}\nadd element inet first local4 {{ {local} }}\n\
                 add element inet first feed4 {{ {listed} }}"
            ));
            None
        }
        Table::Least => {
            let elements: Vec<String> = banned.map(|ip| format!("{ip} timeout 1h")).collect();
            let elements = elements.join(",");
            nft(&format!(
                "{LEAST}\nadd element ip least banned {{ {elements} }}"
            ));
            None
        }
        Table::Ours | Table::OursWithIpv6 => {
            let ipv6 = (table == Table::OursWithIpv6).then_some(IpAddr::V6(BANNED_V6));
            let elements: Vec<Element> = banned
                .map(IpAddr::V4)
                .chain(ipv6)
                .map(|ip| Element {
                    subnet: Subnet::host(ip),
                    seconds_left: 3_600,
                    hits: 0,
                })
                .collect();
            let mut nft = Nft::new(Settings::default());
            nft.reset().expect("the table");
            nft.reconcile(&elements).expect("the elements");
            Some(nft)
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
