//! i. The socket filter: what a flood leaves of the workers' time, and what an exchange of the program costs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apiban::address::Subnet;
use apiban::firewall::socket_filter::kernel::Linux;
use apiban::firewall::socket_filter::SocketFilter;
use apiban::firewall::{Change, Element, Error, Firewall};
use apiban::sys::listening::{ListeningSocket, Transport};
use apiban_testing::kamailio::Kamailio;
use apiban_testing::sip::Sip;
use nix::time::{clock_gettime, ClockId};

use crate::flood::{options_until, send};
use crate::options::Options;
use crate::proc::{settled_cpu_ns, wait_for_empty_queue};
use crate::report::Section;
use crate::samples::Samples;
use crate::setup::{self, BANNED, STRANGER};

/// The flood that talks about APIBAN show, and one that a single host on a good line can send; packets/s. Each is
/// sent to a port that nobody reads too, which costs the machine as much and Kamailio nothing.
const FLOODS: [(&str, Option<f64>, bool); 5] = [
    ("no flood", None, false),
    ("750/s to another port", Some(750.0), false),
    ("750/s", Some(750.0), true),
    ("50,000/s to another port", Some(50_000.0), false),
    ("50,000/s", Some(50_000.0), true),
];
/// The places in [`FLOODS`] of a flood and of what it is compared with.
const PAIRS: [(usize, usize); 2] = [(2, 1), (4, 3)];
/// As many random addresses as fit the longest program.
const FULL: u32 = 3_900;
/// Wanted packets that are sent during exchanges.
const WANTED: usize = 60_000;

const TEXT: &str = "\
`socket_filter=1` as a user without any capability, one worker, 1,000 listed addresses; the check is in \
`request_route`. From one banned source come INVITEs at a steady rate, from another source an OPTIONS every 2 ms, which is answered. \
Rounds go from no flood to each of the rates. Sender, client and Kamailio share the machine, so the round trips hold the \
sender's time, too: therefore the flood is compared with the same flood to a port of the benchmark that nobody reads. The exchanges take place in the benchmark itself: the backend of the module on a UDP socket, \
3,900 random addresses, one of which gives way to another one, or all to others, CPU time of the thread; beside them a client sends packets that are wanted.";

/// Runs the part.
pub fn run(options: &Options, stopwatch: &Path) -> Section {
    let mut section = Section::new("The socket filter", TEXT);
    floods(options, stopwatch, &mut section);
    exchanges(options, &mut section);
    section
}

/// What one round gives.
struct Round {
    /// CPU time of the worker for each OPTIONS, in us.
    cpu: f64,
    /// Round trips in us.
    trips: Samples,
    lost: usize,
}

fn floods(options: &Options, stopwatch: &Path, section: &mut Section) {
    let kamailio = start(stopwatch);
    let length = Duration::from_millis(options.pick(500, 2000));
    let sink = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let elsewhere = sink.local_addr().expect("address");
    let mut cpu = vec![Samples::default(); FLOODS.len()];
    let mut trips = vec![Samples::default(); FLOODS.len()];
    let mut late: Vec<Samples> = vec![Samples::default(); FLOODS.len()];
    let mut lost = 0;
    let rounds = options.runs(3, 15);
    for round in 0..=rounds {
        eprintln!("i: round {round} of {rounds}");
        for (number, (_, rate, here)) in FLOODS.into_iter().enumerate() {
            let to = if here { kamailio.address() } else { elsewhere };
            let result = one_round(&kamailio, rate, to, length);
            // The first round warms up.
            if round > 0 {
                cpu[number].0.push(result.cpu);
                late[number].0.push(result.trips.quantile(0.99));
                trips[number].0.extend(result.trips.0);
                lost += result.lost;
            }
        }
    }
    assert_eq!(lost, 0, "an OPTIONS was lost");
    for (flood, other) in PAIRS {
        let name = FLOODS[flood].0;
        section.target(
            &format!("worker CPU for each OPTIONS beside {name} of a banned source, times that beside the same to another port"),
            cpu[flood].ratio(&cpu[other]),
            1.1,
            "",
        );
        section.target(
            &format!("99th percentile of an OPTIONS beside {name}, times that beside the same to another port"),
            late[flood].ratio(&late[other]),
            1.1,
            "",
        );
    }
    let table = section.table("worker CPU for each OPTIONS", "us");
    for ((name, ..), samples) in FLOODS.iter().zip(&cpu) {
        table.row(name, samples.clone());
    }
    table.compared_with("no flood");
    let table = section.table("an OPTIONS, round trip", "us");
    for (((name, ..), trips), late) in FLOODS.iter().zip(&trips).zip(&late) {
        table.row(name, trips.clone());
        table.row(&format!("{name}, 99th percentile"), late.clone());
    }
}

fn start(stopwatch: &Path) -> Kamailio {
    let kamailio = setup::builder(stopwatch, 1_000)
        .setpriv(setup::NO_RIGHTS)
        .param("socket_filter", 1)
        .request_route("if (apiban_check()) { exit; }\nsl_send_reply(\"200\", \"OK\"); exit;")
        .start();
    setup::wait_for_filter(&kamailio, 1_000);
    kamailio
}

fn one_round(kamailio: &Kamailio, rate: Option<f64>, to: SocketAddr, length: Duration) -> Round {
    let worker = kamailio.pid_of("udp receiver");
    let socket = UdpSocket::bind((BANNED, 0)).expect("socket");
    socket.connect(to).expect("connect");
    let invite = Sip::udp(BANNED, kamailio.address())
        .expect("socket")
        .text("INVITE", "one-banned-call")
        .into_bytes();
    let mut sip = kamailio.udp(STRANGER).with_deadline(Duration::from_secs(2));
    let before = settled_cpu_ns(worker);
    let stop = AtomicBool::new(false);
    let (trips, lost) = std::thread::scope(|scope| {
        scope.spawn(|| match rate {
            Some(rate) => drop(send(&socket, &invite, rate, length, &stop)),
            None => {
                std::thread::sleep(length);
                stop.store(true, Ordering::Relaxed);
            }
        });
        options_until(&stop, &mut sip, Duration::from_millis(2))
    });
    wait_for_empty_queue(kamailio.port());
    let spent = settled_cpu_ns(worker) - before;
    Round {
        cpu: spent as f64 / 1000.0 / trips.0.len().max(1) as f64,
        trips,
        lost,
    }
}

/// `FULL` addresses that look random; another list for each `series`.
fn full(series: u32) -> Vec<Element> {
    (0..FULL)
        .map(|n| {
            let bits = (n ^ series << 20).wrapping_mul(0x9e37_79b1);
            Element {
                // Not loopback, which sends the wanted packets.
                subnet: Subnet::host(IpAddr::V4(Ipv4Addr::from_bits(
                    bits & 0x7fff_ffff | 0x8000_0000,
                ))),
                seconds_left: 86_400,
                hits: 0,
            }
        })
        .collect()
}

fn exchanges(options: &Options, section: &mut Section) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let to = socket.local_addr().expect("address");
    let listening = ListeningSocket {
        transport: Transport::Udp,
        ip: to.ip(),
        port: to.port(),
        fd: Some(socket.try_clone().expect("a copy").into()),
    };
    let mut filter = SocketFilter::new(vec![listening], Box::new(Linux));
    let lists = [full(1), full(2)];
    filter.reconcile(&lists[0]).expect("an exchange");
    let (mut one, mut all) = (Samples::default(), Samples::default());
    let one_by_one = lists[1].iter().cycle();
    let runs = options.runs(20, 200);
    for (run, new) in (0..=runs).zip(one_by_one) {
        // One ban for another, as it happens: the program is compiled and attached as a whole.
        let changes = [Change::Remove(lists[0][run].subnet), Change::Add(*new)];
        let spent = cost(|| filter.apply(&changes));
        let spent_for_all = cost(|| filter.reconcile(&lists[1]));
        filter.reconcile(&lists[0]).expect("an exchange");
        // The first round warms up.
        if run > 0 {
            one.0.push(spent);
            all.0.push(spent_for_all);
        }
    }
    let held = filter.held().get().bans.len();
    section.target(
        "CPU of an exchange of a full program, one socket",
        one.clone(),
        2.0,
        "ms",
    );
    let (received, swaps) = wanted_during_exchanges(&socket, filter, &lists);
    section.target(
        &format!("wanted packets lost of {WANTED}, during {swaps} exchanges"),
        Samples::from((WANTED - received) as f64),
        0.0,
        "",
    );
    let table = section.table("an exchange of a full program", "");
    table.row("CPU of the updater for a new ban, ms", one);
    table.row("CPU of the updater for another list, ms", all);
    table.row("addresses in it", Samples::from(held as f64));
}

/// CPU time of an exchange, in ms. The kernel frees the program before it meanwhile.
fn cost<T>(exchange: impl FnOnce() -> Result<T, Error>) -> f64 {
    std::thread::sleep(Duration::from_millis(20));
    let before = thread_cpu();
    exchange().expect("an exchange");
    (thread_cpu() - before).as_secs_f64() * 1000.0
}

fn wanted_during_exchanges(
    socket: &UdpSocket,
    mut filter: SocketFilter,
    lists: &[Vec<Element>; 2],
) -> (usize, usize) {
    let stop = AtomicBool::new(false);
    socket.set_nonblocking(true).expect("non-blocking");
    let to = socket.local_addr().expect("address");
    let sender = UdpSocket::bind((STRANGER, 0)).expect("socket");
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut swaps = 0;
            while !stop.load(Ordering::Relaxed) {
                filter.reconcile(&lists[swaps % 2]).expect("an exchange");
                swaps += 1;
            }
            swaps
        });
        let (mut received, mut buffer) = (0, [0; 16]);
        for _ in 0..WANTED {
            sender.send_to(b"wanted", to).expect("send");
            while socket.recv_from(&mut buffer).is_ok() {
                received += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        (received, swapping.join().expect("exchanges"))
    })
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map(Duration::from)
        .expect("the clock of the thread")
}
