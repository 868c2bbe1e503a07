//! c. The highest rate of banned packets at which one worker loses nobody else's.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::packets::{self, Bed};
use crate::proc::wait_for_empty_queue;
use crate::report::Section;
use crate::samples::Samples;
use apiban_testing::sip::{Answer, Sip};

/// No flood is faster than this, whatever the machine.
const CEILING: f64 = 600_000.0;
/// A request without an answer for so long was lost.
const LOST: Duration = Duration::from_millis(500);

const TEXT: &str = "\
INVITEs from one banned source at a steady rate, and from another source, which is not banned, an OPTIONS \
every 5 ms, on the same socket and to the same single worker. The rate is raised until an OPTIONS is lost, \
in a second try too, or the sender cannot go faster, then halved in on; the highest rate without a loss is given, and how long \
the OPTIONS took at half of that rate. Sender and Kamailio share the machine.";

/// What came of a flood.
struct Outcome {
    /// Packets per second that were really sent.
    rate: f64,
    lost: usize,
    /// Round trips of the OPTIONS in us.
    trips: Samples,
}

/// Runs the part; in a network namespace where `with_nft`.
pub fn run(options: &Options, stopwatch: &Path, with_nft: bool) -> Section {
    let mut section = Section::new("A flood from a banned source", TEXT);
    let length = Duration::from_millis(options.pick(400, 2000));
    let mut rows: Vec<(&str, Samples, Samples)> = Vec::new();
    packets::with_beds(stopwatch, with_nft, |beds| {
        let first = rows.len();
        for bed in beds {
            let empty = |name: &&'static str| (*name, Samples::default(), Samples::default());
            rows.extend(bed.variants.iter().map(empty));
        }
        for _ in 0..options.runs(1, 5) {
            let mut row = rows[first..].iter_mut();
            for bed in beds {
                for (variant, (name, highest, trips)) in (0..bed.variants.len()).zip(&mut row) {
                    eprintln!("c: flood, {name}");
                    bed.choose(variant);
                    let best = search(bed, length);
                    highest.0.push(best / 1000.0);
                    trips.0.extend(flood(bed, best / 2.0, length).trips.0);
                }
            }
        }
    });
    let table = section.table("highest rate without a loss", "1,000 packets/s");
    for (name, highest, _) in &rows {
        table.row(name, highest.clone());
    }
    table.compared_with(packets::BASE);
    let table = section.table("an OPTIONS meanwhile, at half of that rate", "us");
    for (name, _, trips) in &rows {
        table.row(name, trips.clone());
        table.row(
            &format!("{name}, 99th percentile"),
            trips.quantile(0.99).into(),
        );
    }
    section
}

/// The highest rate at which nothing is lost.
fn search(bed: &Bed, length: Duration) -> f64 {
    // What is lost once may be the fault of another program on the machine.
    let try_at = |rate| match flood(bed, rate, length) {
        outcome if outcome.lost == 0 => outcome,
        _ => flood(bed, rate, length),
    };
    let (mut good, mut rate) = (0.0, 10_000.0);
    let mut bad = loop {
        let outcome = try_at(rate);
        if outcome.lost > 0 {
            break rate;
        }
        good = outcome.rate;
        // The sender is at its end, or this is enough.
        if outcome.rate < 0.9 * rate || rate >= CEILING {
            return good;
        }
        rate *= 1.6;
    };
    for _ in 0..4 {
        let middle = (good + bad) / 2.0;
        let outcome = try_at(middle);
        if outcome.lost > 0 {
            bad = middle;
        } else {
            good = outcome.rate;
        }
    }
    good
}

/// Floods for a while; the OPTIONS run on this thread, the flood on another.
fn flood(bed: &Bed, rate: f64, length: Duration) -> Outcome {
    let (socket, invite) = bed.attacker();
    let stop = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        let flood = scope.spawn(|| send(&socket, &invite, rate, length, &stop));
        let mut sip = bed.kamailio.udp("127.0.0.7").with_deadline(LOST);
        let (trips, lost) = options_until(&stop, &mut sip, Duration::from_millis(5));
        let rate = flood.join().expect("flood");
        Outcome { rate, lost, trips }
    });
    wait_for_empty_queue(bed.kamailio.port());
    outcome
}

/// Sends one OPTIONS after another, `pause` apart, until `stop`; gives the round trips in us, and how many had no answer.
pub fn options_until(stop: &AtomicBool, sip: &mut Sip, pause: Duration) -> (Samples, usize) {
    let (mut trips, mut lost) = (Samples::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        match sip.options() {
            Answer::Nothing => lost += 1,
            Answer::Status(_) => trips.0.push(begin.elapsed().as_secs_f64() * 1e6),
        }
        std::thread::sleep(pause);
    }
    (trips, lost)
}

/// Sends at a steady rate; gives the rate that came of it.
pub fn send(
    socket: &UdpSocket,
    invite: &[u8],
    rate: f64,
    length: Duration,
    stop: &AtomicBool,
) -> f64 {
    let begin = Instant::now();
    let mut sent = 0u32;
    let most = (rate * length.as_secs_f64()) as u32;
    while sent < most && begin.elapsed() < length {
        let due = (begin.elapsed().as_secs_f64() * rate) as u32;
        while sent < due.min(most) {
            // A full queue is what a flood is about.
            let _ = socket.send(invite);
            sent += 1;
        }
        std::hint::spin_loop();
    }
    let took = begin.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    f64::from(sent) / took
}
