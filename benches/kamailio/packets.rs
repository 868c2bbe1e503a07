//! c. What a banned packet costs a worker.

use std::net::UdpSocket;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::netns;
use crate::options::Options;
use crate::proc::{settled_cpu_ns, udp_queue, wait_for_empty_queue};
use crate::report::Section;
use crate::samples::Samples;
use crate::setup::{self, BANNED};
use crate::support::kamailio::Kamailio;
use crate::support::sip::Sip;

/// Length of the list in all variants.
const ENTRIES: usize = 5_000;
/// Packets that wait when the worker is let go: they fit into the smallest socket buffer.
const BATCH: usize = 64;

const TEXT: &str = "\
The same INVITE over and over from one banned source to a Kamailio with one UDP worker and 5,000 listed \
addresses; each variant has a Kamailio of its own, all run at the same time, and the rounds go from one \
to the next. As in a flood the worker finds its next packet waiting: it is stopped while 64 packets are \
queued, and then works them off; otherwise half of what is measured is falling asleep and waking up. None \
is lost. CPU time of the worker as the kernel \
counts it, system calls included. The recipe's `request_route` block is the published one (with its \
`xdbg()` and its counter); \"check, then exit\" leaves those two out. Before parsing, the recipe has to use \
`$rcv(srcip)`.";

/// One way to treat a banned packet.
pub struct Variant {
    /// For the report.
    pub name: &'static str,
    global: &'static str,
    request: &'static str,
    routes: &'static str,
    /// The module's firewall.
    pub nft: bool,
}

/// Name of the variant that the promise is about.
const OURS: &str = "apiban: before parsing";

const RECIPE: &str = "if ($sht(apiban=>$si) != $null) {
    xdbg(\"request from apiban.org blocked IP - $rm from $fu (IP:$si:$sp)\\n\");
    $sht(apibanctl=>blocks) = $sht(apibanctl=>blocks) + 1;
    exit;
}";

/// All variants. The one with the firewall needs a network namespace.
pub fn variants(with_nft: bool) -> Vec<Variant> {
    let variant = |name, request, early: &'static str| Variant {
        name,
        global: if early.is_empty() {
            ""
        } else {
            "received_route_mode=1"
        },
        request,
        routes: early,
        nft: false,
    };
    let mut all = vec![
        variant("no protection: answered 200", "", ""),
        variant("recipe: request_route, as published", RECIPE, ""),
        variant(
            "recipe: request_route, check, then exit",
            "if ($sht(apiban=>$si) != $null) { exit; }",
            "",
        ),
        variant(
            "recipe: before parsing",
            "",
            "event_route[core:msg-received] { if ($sht(apiban=>$rcv(srcip)) != $null) { drop; } }",
        ),
        variant("apiban: request_route", "if (apiban_check()) { exit; }", ""),
        variant(
            OURS,
            "",
            "event_route[core:msg-received] { if (apiban_check()) { drop; } }",
        ),
    ];
    if with_nft {
        all.push(Variant {
            nft: true,
            ..variant("apiban: nft", "if (apiban_check()) { exit; }", "")
        });
    }
    all
}

/// Starts the Kamailio of a variant, with all tables full.
pub fn start(variant: &Variant, stopwatch: &Path) -> Kamailio {
    let dispatch =
        "if (is_method(\"OPTIONS\") && $rU != $null) { $var(route) = $rU; route($var(route)); }";
    let mut builder = setup::builder(stopwatch, ENTRIES)
        .modparam("htable", "htable", "apiban=>size=11;")
        .modparam("htable", "htable", "apibanctl=>size=1;initval=0;")
        .global(variant.global)
        .request_route(&format!("{}\n{dispatch}", variant.request))
        .routes(variant.routes)
        .routes(&setup::fill("apiban", ENTRIES));
    if variant.nft {
        builder = builder.param("firewall", "nft");
    }
    let kamailio = builder.start();
    setup::fill_table(&kamailio, "apiban", ENTRIES);
    if variant.nft {
        wait_for_element(BANNED);
    }
    kamailio
}

/// Waits until the kernel bans an address that the feed lists.
fn wait_for_element(ip: &str) {
    let within = std::time::Duration::from_secs(20);
    crate::support::wait::wait_until("the address in the kernel", within, || {
        let sets = netns::objects("set");
        let feed = sets.iter().filter_map(|set| set["name"].as_str());
        feed.filter(|name| name.starts_with("feed") && name.contains('4'))
            .any(|set| netns::addresses(set).iter().any(|known| known == ip))
    });
}

/// A socket on the banned source, connected to Kamailio, and the INVITE to send.
pub fn attacker(kamailio: &Kamailio) -> (UdpSocket, Vec<u8>) {
    let socket = UdpSocket::bind((BANNED, 0)).expect("socket");
    socket.connect(kamailio.address()).expect("connect");
    let sip = Sip::udp(BANNED, kamailio.address()).expect("socket");
    (socket, sip.text("INVITE", "one-banned-call").into_bytes())
}

/// Runs the part; in a network namespace where `with_nft`.
pub fn run(options: &Options, stopwatch: &Path, with_nft: bool) -> Section {
    let mut section = Section::new("Worker CPU of a banned INVITE", TEXT);
    let rounds = options.runs(5, 20);
    let packets = options.pick(32, 160) * BATCH;
    let variants = variants(with_nft);
    let mut costs = Vec::new();
    for together in groups(&variants) {
        costs.extend(costs_of(together, stopwatch, rounds, packets));
    }
    let table = section.table("what is done with the packet", "us of worker CPU");
    for (variant, cost) in variants.iter().zip(&costs) {
        table.row(variant.name, cost.clone());
    }
    table.compared_with("recipe: request_route, as published");
    let found = |name: &str| {
        let place = variants.iter().position(|one| one.name == name);
        place.map(|i| costs[i].clone())
    };
    if let Some(ours) = found(OURS) {
        section.target(
            "worker CPU of a banned INVITE, before parsing",
            ours,
            4.6,
            "us",
        );
    }
    if let Some(nft) = found("apiban: nft") {
        section.target(
            "worker CPU of a banned INVITE, dropped by nft",
            nft,
            0.05,
            "us",
        );
    }
    section
}

/// The variants that can run at the same time: what the firewall bans, it bans for all.
pub fn groups(variants: &[Variant]) -> impl Iterator<Item = &[Variant]> {
    variants.chunk_by(|one, next| one.nft == next.nft)
}

/// CPU time of a packet in us, one sample a round, for each variant.
fn costs_of(variants: &[Variant], stopwatch: &Path, rounds: usize, packets: usize) -> Vec<Samples> {
    let started: Vec<Kamailio> = variants.iter().map(|one| start(one, stopwatch)).collect();
    let attackers: Vec<_> = started.iter().map(attacker).collect();
    let workers: Vec<i32> = started.iter().map(|k| k.pid_of("udp receiver")).collect();
    let mut costs = vec![Samples::default(); variants.len()];
    for round in 0..=rounds {
        eprintln!("c: round {round} of {rounds}");
        for (i, kamailio) in started.iter().enumerate() {
            let (socket, invite) = &attackers[i];
            let before = settled_cpu_ns(workers[i]);
            for _ in 0..packets / BATCH {
                kamailio.signal(workers[i], Signal::SIGSTOP);
                for _ in 0..BATCH {
                    socket.send(invite).expect("send");
                }
                kamailio.signal(workers[i], Signal::SIGCONT);
                wait_for_empty_queue(kamailio.port());
            }
            let spent = settled_cpu_ns(workers[i]) - before;
            // The first round warms up.
            if round > 0 {
                costs[i].0.push(spent as f64 / packets as f64 / 1000.0);
            }
            // Answers to the attacker must not fill its socket.
            drain(socket);
        }
    }
    for (variant, kamailio) in variants.iter().zip(&started) {
        assert_eq!(
            udp_queue(kamailio.port()).1,
            0,
            "{}: packets were lost",
            variant.name
        );
        let blocked = kamailio.statistic("apiban", "blocked_feed") as usize;
        let expected = match variant.nft {
            false if variant.name.starts_with("apiban") => (rounds + 1) * packets,
            _ => 0,
        };
        assert_eq!(blocked, expected, "{}", variant.name);
    }
    costs
}

/// Reads what has arrived.
pub fn drain(socket: &UdpSocket) {
    socket.set_nonblocking(true).expect("non-blocking");
    let mut datagram = [0; 2048];
    while socket.recv(&mut datagram).is_ok() {}
    socket.set_nonblocking(false).expect("blocking");
}
