//! b. What a banned packet costs a worker.

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::options::Options;
use crate::proc::{settled_cpu_ns, udp_queue, wait_for_empty_queue};
use crate::report::Section;
use crate::samples::Samples;
use crate::setup::{self, BANNED, STRANGER};
use apiban_testing::kamailio::Kamailio;
use apiban_testing::netns;
use apiban_testing::sip::Sip;
use apiban_testing::wait::wait_until;

/// Length of the list.
const ENTRIES: usize = 5_000;
/// Packets that wait when the worker is let go: they fit into the smallest socket buffer.
const BATCH: usize = 64;

const TEXT: &str = "\
The same INVITE over and over from one banned source to a Kamailio with one UDP worker and 5,000 listed \
addresses. Variants with the same place for the check share one Kamailio, whose script is told which one to \
run: what parsing costs depends on the state of the worker's memory, which so is the same for all. Rounds go \
from one variant to the next. As in a flood the worker finds its next packet waiting: it is stopped while 64 \
packets are queued, and then works them off; otherwise half of what is measured is falling asleep and \
waking up. None is lost. CPU time of the worker as the kernel counts it, system calls included. The \
recipe's `request_route` block is the published one (with its `xdbg()` and its counter); \"check, then exit\" \
leaves those two out. Before parsing, the recipe has to use `$rcv(srcip)`.";

/// The row that the others are compared with.
pub const BASE: &str = "recipe: request_route, as published";
/// The rows that promises are about.
const OURS: &str = "apiban: before parsing";
const NFT: &str = "apiban: nft";
const FILTER: &str = "apiban: socket filter, no privileges";

/// One way to treat a banned packet: its name, and the statement that does it.
type Variant = (&'static str, &'static str);

const IN_REQUEST_ROUTE: [Variant; 4] = [
    (
        "no protection: answered 200",
        "sl_send_reply(\"200\", \"OK\"); exit;",
    ),
    (
        BASE,
        "if ($sht(apiban=>$si) != $null) {
            xdbg(\"request from apiban.org blocked IP - $rm from $fu (IP:$si:$sp)\\n\");
            $sht(apibanctl=>blocks) = $sht(apibanctl=>blocks) + 1;
            exit;
        }",
    ),
    (
        "recipe: request_route, check, then exit",
        "if ($sht(apiban=>$si) != $null) { exit; }",
    ),
    ("apiban: request_route", "if (apiban_check()) { exit; }"),
];
const BEFORE_PARSING: [Variant; 2] = [
    (
        "recipe: before parsing",
        "if ($sht(apiban=>$rcv(srcip)) != $null) { drop; }",
    ),
    (OURS, "if (apiban_check()) { drop; }"),
];
const IN_THE_KERNEL: [Variant; 1] = [(NFT, "if (apiban_check()) { exit; }")];

/// Of these few come through, so that they are counted.
const ON_THE_SOCKET: [Variant; 1] = [(FILTER, "if (apiban_check()) { exit; }")];
/// The longest list that is in the filter as a whole.
const FILTERED: usize = 3_000;

/// Where the check is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    RequestRoute,
    BeforeParsing,
    Kernel,
    Socket,
}

impl Place {
    /// True if packets of banned sources are dropped before a process wakes.
    fn is_kernel(self) -> bool {
        matches!(self, Place::Kernel | Place::Socket)
    }
}

/// A Kamailio with the variants of one place.
pub struct Bed {
    /// It runs, with all tables full.
    pub kamailio: Kamailio,
    place: Place,
    /// The names of its variants; [`Bed::choose`] takes the position.
    pub variants: Vec<&'static str>,
}

impl Bed {
    fn start(place: Place, stopwatch: &Path) -> Bed {
        let variants = match place {
            Place::RequestRoute => &IN_REQUEST_ROUTE[..],
            Place::BeforeParsing => &BEFORE_PARSING,
            Place::Kernel => &IN_THE_KERNEL,
            Place::Socket => &ON_THE_SOCKET,
        };
        let entries = match place {
            Place::Socket => FILTERED,
            _ => ENTRIES,
        };
        let (mut cases, mut routes) = (String::new(), String::new());
        for (i, (_, statement)) in variants.iter().enumerate() {
            cases.push_str(&format!("if ($var(mode) == {i}) {{ {statement} }}\n"));
            routes.push_str(&format!("route[mode_{i}] {{ $var(mode) = {i}; }}\n"));
        }
        let (early, request) = match place {
            Place::BeforeParsing => (cases, ";".into()),
            _ => (String::new(), cases),
        };
        // The stranger's requests, which choose the mode, are no INVITEs; nor is the flood's control.
        let dispatch = "if (is_method(\"OPTIONS\")) {
            if ($rU != $null) { $var(route) = $rU; route($var(route)); }
            sl_send_reply(\"200\", \"OK\");
            exit;
        }";
        // Our own check comes before all else, as it would; the others only look at the mode.
        let request = match place {
            Place::Kernel | Place::Socket => format!("{request}{dispatch}"),
            _ => format!("if (is_method(\"INVITE\")) {{ {request} }}\n{dispatch}"),
        };
        let mut builder = setup::builder(stopwatch, entries)
            .modparam("htable", "htable", "apiban=>size=11;")
            .modparam("htable", "htable", "apibanctl=>size=1;initval=0;")
            .request_route(&request)
            .routes(&routes);
        if place == Place::BeforeParsing {
            builder = builder
                .global("received_route_mode=1")
                .routes(&format!("event_route[core:msg-received] {{ {early} }}"));
        }
        if place == Place::Kernel {
            builder = builder.param("firewall", "nft");
        }
        if place == Place::Socket {
            builder = builder.param("socket_filter", 1).setpriv(setup::NO_RIGHTS);
        }
        let kamailio = builder.start();
        // By RPC, so that the worker's memory is as it was at the start.
        for ban in setup::bans(entries) {
            let set = kamailio.jsonrpc("htable.seti", json!(["apiban", ban.ip, 1]));
            set.expect("htable.seti");
        }
        if place == Place::Kernel {
            wait_until("the source in the kernel", Duration::from_secs(20), || {
                let sets = netns::objects("set");
                sets.iter().any(|set| set["name"] == "hosts4")
                    && netns::addresses("hosts4").iter().any(|ip| ip == BANNED)
            });
        }
        if place == Place::Socket {
            setup::wait_for_filter(&kamailio, entries);
        }
        Bed {
            kamailio,
            place,
            variants: variants.iter().map(|one| one.0).collect(),
        }
    }

    /// Has the script treat what comes next this way.
    pub fn choose(&self, variant: usize) {
        setup::run_route(&self.kamailio, STRANGER, &format!("mode_{variant}"));
    }

    /// A socket on the banned source, connected to Kamailio, and the INVITE to send.
    pub fn attacker(&self) -> (UdpSocket, Vec<u8>) {
        let socket = UdpSocket::bind((BANNED, 0)).expect("socket");
        socket.connect(self.kamailio.address()).expect("connect");
        let sip = Sip::udp(BANNED, self.kamailio.address()).expect("socket");
        (socket, sip.text("INVITE", "one-banned-call").into_bytes())
    }
}

/// Runs `with` for the beds that can be there at the same time: what the firewall bans, it bans for all.
pub fn with_beds(stopwatch: &Path, with_nft: bool, mut with: impl FnMut(&[Bed])) {
    let start = |place| Bed::start(place, stopwatch);
    with(&[Place::RequestRoute, Place::BeforeParsing].map(start));
    if with_nft {
        with(&[start(Place::Kernel)]);
        with(&[start(Place::Socket)]);
    }
}

/// Runs the part; in a network namespace where `with_nft`.
pub fn run(options: &Options, stopwatch: &Path, with_nft: bool) -> Section {
    let mut section = Section::new("Worker CPU of a banned INVITE", TEXT);
    let rounds = options.runs(5, 20);
    let packets = options.pick(32, 160) * BATCH;
    let table = section.table("what is done with the packet", "us of worker CPU");
    with_beds(stopwatch, with_nft, |beds| {
        for (name, costs) in measure(beds, rounds, packets) {
            table.row(name, costs);
        }
    });
    table.compared_with(BASE);
    let find = |name: &str| table.find(name).cloned();
    let (ours, nft, filter) = (find(OURS), find(NFT), find(FILTER));
    if let Some(ours) = ours {
        section.target(
            "worker CPU of a banned INVITE, before parsing",
            ours,
            4.6,
            "us",
        );
    }
    if let Some(nft) = nft {
        section.target(
            "worker CPU of a banned INVITE, dropped by nft",
            nft,
            0.05,
            "us",
        );
    }
    if let Some(filter) = filter {
        section.target(
            "worker CPU of a banned INVITE, dropped by the socket filter without any privilege",
            filter,
            0.02,
            "us",
        );
    }
    section
}

/// CPU time of a packet in us, one sample a round, for each variant.
fn measure(beds: &[Bed], rounds: usize, packets: usize) -> Vec<(&'static str, Samples)> {
    let mut costs: Vec<(&str, Samples)> = Vec::new();
    for bed in beds {
        costs.extend(bed.variants.iter().map(|name| (*name, Samples::default())));
    }
    let mut before = 0;
    for bed in beds.iter().filter(|bed| bed.place == Place::Socket) {
        // In a flood fewer come through; it is one after a second or two.
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            flood_in_batches(bed, BATCH);
            before += BATCH;
        }
    }
    for round in 0..=rounds {
        eprintln!("b: round {round} of {rounds}");
        let mut place = costs.iter_mut();
        for bed in beds {
            for (variant, (_, samples)) in (0..bed.variants.len()).zip(&mut place) {
                bed.choose(variant);
                let spent = flood_in_batches(bed, packets);
                // The first round warms up.
                if round > 0 {
                    samples.0.push(spent as f64 / packets as f64 / 1000.0);
                }
            }
        }
    }
    for bed in beds {
        let kamailio = &bed.kamailio;
        let dropped = udp_queue(kamailio.port()).1 as usize;
        let blocked = kamailio.statistic("apiban", "blocked_feed") as usize;
        let sent = (rounds + 1) * packets;
        if bed.place == Place::Socket {
            assert_eq!(
                dropped + blocked,
                before + sent,
                "packets were lost, or not dropped"
            );
            continue;
        }
        assert_eq!(dropped, 0, "packets were lost");
        let expected = if bed.place == Place::Kernel { 0 } else { sent };
        assert_eq!(blocked, expected, "not every packet of ours was blocked");
    }
    costs
}

/// Has the worker work off that many packets; gives its CPU time in ns.
fn flood_in_batches(bed: &Bed, packets: usize) -> u64 {
    let kamailio = &bed.kamailio;
    let worker = kamailio.pid_of("udp receiver");
    let (socket, invite) = bed.attacker();
    let before = settled_cpu_ns(worker);
    for _ in 0..packets / BATCH {
        // What never reaches the worker must not wake it either.
        let stop = !bed.place.is_kernel();
        if stop {
            kamailio.signal(worker, Signal::SIGSTOP);
        }
        for _ in 0..BATCH {
            socket.send(&invite).expect("send");
        }
        if stop {
            kamailio.signal(worker, Signal::SIGCONT);
        }
        wait_for_empty_queue(kamailio.port());
    }
    settled_cpu_ns(worker) - before
}
