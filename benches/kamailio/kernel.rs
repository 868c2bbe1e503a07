//! g. From `apiban_block()` in a worker to the kernel's drop.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::time::{clock_gettime, ClockId};

use crate::options::Options;
use crate::report::Section;
use crate::samples::Samples;
use crate::setup::{self, timed_once, STRANGER};

const TEXT: &str = "\
A request makes a worker ban another source with `firewall=nft`, in a network namespace of its own. That \
source sends packets to a socket of the benchmark all the time; the first one that the kernel drops ends \
the measurement, which begins when the worker enters `apiban_block()`.";

/// Runs the part; only in a network namespace.
pub fn run(options: &Options, stopwatch: &Path) -> Section {
    let mut section = Section::new("From ban to kernel", TEXT);
    let ban = timed_once("ban", "apiban_block(\"$hdr(X-Ban)\", \"600\");");
    let kamailio = setup::builder(stopwatch, 1)
        .param("firewall", "nft")
        .param("block_budget", 0)
        .routes(&format!("route[ban] {{ {ban} }}\n{}", setup::WRITE_LAPS))
        .start();
    let listener = UdpSocket::bind(("127.0.0.1", 0)).expect("socket");
    let to = listener.local_addr().expect("address");
    listener.set_nonblocking(true).expect("non-blocking");
    let mut sip = kamailio.udp(STRANGER);
    let mut took = Samples::default();
    for run in 0..options.runs(10, 50) {
        // Alone: what follows at once is taken together by the updater.
        std::thread::sleep(Duration::from_millis(20));
        // Away from the sources that setup lists.
        let ip = format!("127.0.128.{}", run % 250 + 1);
        let probe = UdpSocket::bind((ip.as_str(), 0)).expect("socket");
        assert!(
            arrives(&probe, &listener, to),
            "{ip} is banned before its time"
        );
        std::thread::scope(|scope| {
            let dropped = scope.spawn(|| first_dropped(&probe, &listener, to));
            setup::run_route_on(&mut sip, "ban", &format!("X-Ban: {ip}\r\n"));
            let dropped = dropped.join().expect("probe");
            let (_, lap) = setup::laps(&kamailio).pop().expect("one lap");
            took.0.push((dropped as f64 - lap.start as f64) / 1e6);
        });
    }
    let table = section.table("from the call to the first packet dropped", "ms");
    table.row("apiban_block(), nft", took.clone());
    table.row("slowest", took.quantile(1.0).into());
    section
}

/// Sends packets until one does not arrive; gives the time at which that was sent, by the monotonic clock.
fn first_dropped(probe: &UdpSocket, listener: &UdpSocket, to: std::net::SocketAddr) -> u64 {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("clock");
        if !arrives(probe, listener, to) {
            return now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
        }
        assert!(Instant::now() < end, "the kernel never dropped a packet");
    }
}

/// Whether a packet arrives. On loopback it is there as soon as the system call returns; a little
/// patience is for a kernel thread that took it over.
fn arrives(probe: &UdpSocket, listener: &UdpSocket, to: std::net::SocketAddr) -> bool {
    probe.send_to(b"probe", to).expect("send");
    let begin = Instant::now();
    loop {
        match listener.recv(&mut [0; 16]) {
            Ok(_) => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if begin.elapsed() > Duration::from_millis(2) {
                    return false;
                }
            }
            Err(error) => panic!("probe: {error}"),
        }
    }
}
