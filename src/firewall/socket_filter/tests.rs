//! The backend on real sockets of this machine's loopback, and with a kernel that refuses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use super::kernel::Linux;
use super::*;
use crate::clock::simulated::at;
use crate::sys::listening::Transport;
use crate::sys::socket_filter::{self as sys, Instruction};

/// So many packets of a banned source are sent where some must come through and most must not.
const MANY: usize = 512;
/// How many of them at most: two are expected, and more than this has no chance.
const FEW: usize = 40;

/// What is asked of the kernel, and which errors it gives.
#[derive(Default)]
struct Refusing {
    kernel: Linux,
    attach: Option<i32>,
    /// Longer programs are too much memory.
    longest: Option<usize>,
    option_memory: Option<usize>,
}

impl Kernel for Refusing {
    fn attach(&mut self, socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
        let too_long = self.longest.is_some_and(|longest| program.len() > longest);
        match self.attach.or(too_long.then_some(libc::ENOMEM)) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => self.kernel.attach(socket, program),
        }
    }

    fn detach(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.kernel.detach(socket)
    }

    fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<Vec<Instruction>> {
        self.kernel.read(socket)
    }

    fn drops(&mut self, socket: BorrowedFd<'_>) -> io::Result<u32> {
        self.kernel.drops(socket)
    }

    fn option_memory(&self) -> Option<usize> {
        self.option_memory.or(Some(131_072))
    }
}

fn listening(transport: Transport, address: SocketAddr, fd: OwnedFd) -> ListeningSocket {
    ListeningSocket {
        transport,
        ip: address.ip(),
        port: address.port(),
        fd: Some(fd),
    }
}

/// A UDP socket, and the backend for it.
fn on_udp(bind: &str, kernel: impl Kernel + 'static) -> (UdpSocket, SocketFilter) {
    let socket = UdpSocket::bind(bind).unwrap();
    socket.set_nonblocking(true).unwrap();
    let fd = socket.try_clone().unwrap().into();
    let address = socket.local_addr().unwrap();
    let sockets = vec![listening(Transport::Udp, address, fd)];
    (socket, SocketFilter::new(sockets, Box::new(kernel)))
}

fn ban(subnet: &str, seconds_left: u32, hits: u32) -> Change {
    Change::Add(Element {
        subnet: subnet.parse().unwrap(),
        seconds_left,
        hits,
    })
}

/// Sends packets from `from` to the socket, and returns how many it received. Loopback delivers before the
/// call of the sender returns.
fn received(socket: &UdpSocket, from: IpAddr, packets: usize) -> usize {
    let mut to = socket.local_addr().unwrap();
    if to.ip().is_unspecified() {
        to.set_ip(match from {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => "::1".parse().unwrap(),
        });
    }
    let sender = UdpSocket::bind((from, 0)).unwrap();
    let mut count = 0;
    let mut buffer = [0; 16];
    for _ in 0..packets {
        sender.send_to(b"x", to).unwrap();
        while socket.recv_from(&mut buffer).is_ok() {
            count += 1;
        }
    }
    count
}

#[track_caller]
fn assert_drops(socket: &UdpSocket, from: &str) {
    let count = received(socket, from.parse().unwrap(), MANY);
    assert!(count < FEW, "{count} of {MANY} from {from} came through");
}

#[track_caller]
fn assert_passes(socket: &UdpSocket, from: &str) {
    assert_eq!(received(socket, from.parse().unwrap(), 8), 8, "{from}");
}

#[test]
fn a_ban_is_in_force_until_it_is_lifted_or_over() {
    let (socket, mut filter) = on_udp("127.0.0.1:0", Linux);
    filter.reset().unwrap();
    assert_passes(&socket, "127.8.0.2");
    let changes = [ban("127.8.0.2", 600, 0), ban("127.9.0.0/16", 600, 0)];
    filter.apply(&changes).unwrap();
    assert_drops(&socket, "127.8.0.2");
    assert_drops(&socket, "127.9.255.255");
    assert_passes(&socket, "127.8.0.3");
    assert_passes(&socket, "127.10.0.0");
    assert_eq!(filter.held().get().bans.len(), 2);
    assert!(filter.intact().unwrap());
    let report = filter.report().unwrap();
    let dropped = report.dropped.unwrap() as usize;
    assert!(
        (2 * (MANY - FEW)..=2 * MANY).contains(&dropped),
        "{dropped}"
    );
    assert_eq!((report.elements, report.wanted), (Some(2), Some(2)));

    let subnet = "127.8.0.2".parse().unwrap();
    filter.apply(&[Change::Remove(subnet)]).unwrap();
    assert_passes(&socket, "127.8.0.2");
    assert_drops(&socket, "127.9.0.1");
    // Nothing is dropped any more, so nothing is left on the socket.
    filter.reconcile(&[]).unwrap();
    assert_eq!(sys::read(socket.as_fd()).unwrap(), []);
    assert_passes(&socket, "127.9.0.1");
    assert_eq!(filter.report().unwrap().dropped, Some(filter.dropped));
}

#[test]
fn a_ban_is_taken_out_before_it_ends() {
    let (socket, mut filter) = on_udp("127.0.0.1:0", Linux);
    let begin = Instant::now();
    // Too short, just long enough, long.
    let bans = [("127.8.1.1", 1), ("127.8.1.2", 2), ("127.8.1.3", 600)];
    let changes = bans.map(|(subnet, seconds)| ban(subnet, seconds, 0));
    filter.apply(&changes).unwrap();
    assert_passes(&socket, "127.8.1.1");
    assert_drops(&socket, "127.8.1.2");
    assert_drops(&socket, "127.8.1.3");
    let due = filter.due().unwrap();
    let ends = begin + Duration::from_secs(2);
    assert!(due + SWAP_INTERVAL < ends, "an exchange may have to wait");
    thread::sleep(due.saturating_duration_since(Instant::now()));
    filter.apply(&[]).unwrap();
    assert!(Instant::now() < ends);
    assert_passes(&socket, "127.8.1.2");
    assert_drops(&socket, "127.8.1.3");
    assert!(filter.due().unwrap() > begin + Duration::from_secs(500));
}

#[test]
fn a_socket_of_both_families_drops_both() {
    let (socket, mut filter) = on_udp("[::]:0", Linux);
    let changes = [ban("127.8.2.2", 600, 0), ban("::1", 600, 0)];
    assert_passes(&socket, "127.8.2.2");
    assert_passes(&socket, "::1");
    filter.apply(&changes).unwrap();
    assert_drops(&socket, "127.8.2.2");
    assert_drops(&socket, "::1");
    assert_passes(&socket, "127.8.2.3");
    filter
        .apply(&[Change::Remove("::1".parse().unwrap())])
        .unwrap();
    assert_passes(&socket, "::1");
    // A socket for IPv4 has nothing to do with IPv6.
    let (_socket, mut filter) = on_udp("127.0.0.1:0", Linux);
    filter.apply(&changes).unwrap();
    assert_eq!(filter.report().unwrap().wanted, Some(1));
}

/// The kernel's answer is the interpreter's: every member of a full program, and its neighbours.
#[test]
fn every_member_of_a_full_program_is_dropped_and_no_neighbour() {
    let (socket, mut filter) = on_udp("127.0.0.1:0", Linux);
    let scattered = |n: u32| 0x7f00_0000 | (n.wrapping_mul(0x9e37_79b1) >> 8) & !1 | 0x0080_0000;
    let members: Vec<IpAddr> = (0..3_900)
        .map(|n| IpAddr::V4(Ipv4Addr::from_bits(scattered(n))))
        .collect();
    let wanted: Vec<Element> = members
        .iter()
        .map(|ip| Element {
            subnet: Subnet::host(*ip),
            seconds_left: 600,
            hits: 1,
        })
        .collect();
    filter.reconcile(&wanted).unwrap();
    let held = filter.held().get().bans.len();
    let wanted = filter.report().unwrap().wanted.unwrap();
    println!(
        "{held} of {wanted} in {} instructions",
        sys::read(socket.as_fd()).unwrap().len()
    );
    assert!(held > 3_500 && held as u64 == wanted, "{held} {wanted}");
    let mut came = 0;
    for member in &members {
        came += received(&socket, *member, 1);
        let IpAddr::V4(ip) = member else {
            unreachable!()
        };
        let neighbour = IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() | 1));
        assert_eq!(received(&socket, neighbour, 1), 1, "{neighbour}");
    }
    // One in 256 is 15.
    assert!((1..60).contains(&came), "{came}");
}

#[test]
fn the_sources_with_most_hits_go_in_where_not_all_fit() {
    let kernel = Refusing {
        option_memory: Some(20_480),
        ..Refusing::default()
    };
    let (socket, mut filter) = on_udp("127.0.0.1:0", kernel);
    let ip = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(0x7f10_0000 | (n * 2) & 0xf_ffff));
    let wanted: Vec<Element> = (0..20_000)
        .map(|n| Element {
            subnet: Subnet::host(ip(n)),
            seconds_left: 600,
            hits: if n >= 19_900 { n } else { 0 },
        })
        .collect();
    filter.reconcile(&wanted).unwrap();
    let report = filter.report().unwrap();
    println!("{report:?}");
    assert_eq!(report.wanted, Some(20_000));
    assert!(report.elements.unwrap() > 1_050, "{report:?}");
    for hot in [19_900, 19_950, 19_999] {
        assert_drops(&socket, &ip(hot).to_string());
    }
    // Of equal ones the latest go in.
    assert_drops(&socket, &ip(19_899).to_string());
    assert_passes(&socket, &ip(0).to_string());
    // A ban that just came goes before others without hits.
    filter.apply(&[ban("127.8.3.3", 600, 0)]).unwrap();
    assert_drops(&socket, "127.8.3.3");
}

#[test]
fn a_kernel_without_memory_gets_shorter_programs() {
    let kernel = Refusing {
        longest: Some(300),
        ..Refusing::default()
    };
    let (socket, mut filter) = on_udp("127.0.0.1:0", kernel);
    let wanted: Vec<Element> = (0..2_000u32)
        .map(|n| Element {
            subnet: Subnet::host(IpAddr::V4(Ipv4Addr::from_bits(0x7f20_0000 + 2 * n))),
            seconds_left: 600,
            hits: n,
        })
        .collect();
    filter.reconcile(&wanted).unwrap();
    let length = sys::read(socket.as_fd()).unwrap().len();
    assert!((100..=300).contains(&length), "{length}");
    assert_drops(&socket, &wanted[1_999].subnet.to_string());
    assert_passes(&socket, &wanted[0].subnet.to_string());
    assert_eq!(filter.shortfall(), None);
    let report = filter.report().unwrap();
    assert!(report.elements < report.wanted);
}

#[test]
fn a_filter_of_somebody_else_is_left_alone() {
    let (socket, mut filter) = on_udp("127.0.0.1:0", Linux);
    let foreign = [Instruction {
        code: 0x06,
        k: u32::MAX,
        ..Instruction::default()
    }];
    filter.apply(&[ban("127.8.4.4", 600, 0)]).unwrap();
    assert_drops(&socket, "127.8.4.4");
    // It comes while ours is there.
    sys::attach(socket.as_fd(), &foreign).unwrap();
    assert!(filter.intact().unwrap(), "there is nothing to put back");
    filter.apply(&[ban("127.8.4.5", 600, 0)]).unwrap();
    assert_eq!(sys::read(socket.as_fd()).unwrap(), foreign);
    let (state, text) = filter.shortfall().unwrap();
    assert_eq!(state, Health::Degraded);
    assert!(text.contains("another program's filter"), "{text}");
    let notes = filter.drain_notes();
    assert!(
        notes.len() == 1 && notes[0].1.contains("another program"),
        "{notes:?}"
    );
    assert_eq!(filter.report().unwrap().elements, Some(0));
    filter.remove().unwrap();
    assert_eq!(sys::read(socket.as_fd()).unwrap(), foreign);
    // It goes.
    filter.apply(&[ban("127.8.4.4", 600, 0)]).unwrap();
    sys::detach(socket.as_fd()).unwrap();
    assert!(filter.intact().unwrap());
    assert_drops(&socket, "127.8.4.4");
    assert_eq!(filter.shortfall(), None);
    assert!(filter.drain_notes()[0].1.contains("has a filter again"));
    // Ours goes: the tables have to be asked again.
    sys::detach(socket.as_fd()).unwrap();
    assert!(!filter.intact().unwrap());
}

#[test]
fn a_kernel_that_refuses_is_told_and_asked_again_and_no_old_program_stays() {
    let refusals = [libc::EPERM, libc::EINVAL, libc::ENOPROTOOPT, libc::ENOMEM];
    for errno in refusals {
        let (socket, mut filter) = on_udp("127.0.0.1:0", Linux);
        filter.apply(&[ban("127.8.5.5", 600, 0)]).unwrap();
        assert_drops(&socket, "127.8.5.5");
        let refusing = Refusing {
            attach: Some(errno),
            ..Refusing::default()
        };
        filter.kernel = Box::new(refusing);
        // What cannot be brought up to date would ban without end.
        filter.apply(&[ban("127.8.5.6", 600, 0)]).unwrap();
        assert_eq!(sys::read(socket.as_fd()).unwrap(), [], "{errno}");
        assert_passes(&socket, "127.8.5.5");
        let (state, text) = filter.shortfall().unwrap();
        assert_eq!(state, Health::Degraded);
        let name = socket.local_addr().unwrap().to_string();
        assert!(text.contains(&name), "{text}");
        assert_eq!(filter.drain_notes().len(), 1);
        filter.kernel = Box::new(Linux);
        filter.next_retry = Instant::now();
        assert!(filter.intact().unwrap());
        assert_drops(&socket, "127.8.5.6");
        assert_eq!(filter.shortfall(), None);
    }
}

#[test]
fn tcp_without_a_privilege_is_normal_and_udp_goes_on() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tcp = || {
        listening(
            Transport::Tcp,
            address,
            listener.try_clone().unwrap().into(),
        )
    };
    let tls = || {
        listening(
            Transport::Tls,
            address,
            listener.try_clone().unwrap().into(),
        )
    };
    let refusing = || {
        Box::new(Refusing {
            attach: Some(libc::EPERM),
            ..Refusing::default()
        })
    };
    let mut filter = SocketFilter::new(vec![tcp(), tls()], refusing());
    filter.apply(&[ban("127.8.6.6", 600, 0)]).unwrap();
    filter.apply(&[ban("127.8.6.7", 600, 0)]).unwrap();
    let notes = filter.drain_notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(notes[0].0, Level::Info);
    assert_eq!(filter.shortfall().unwrap().0, Health::NoPermission);
    // Beside a UDP socket it is no trouble at all.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let fd = udp.try_clone().unwrap().into();
    let sockets = vec![
        listening(Transport::Udp, udp.local_addr().unwrap(), fd),
        tcp(),
    ];
    let mut filter = SocketFilter::new(sockets, Box::new(Linux));
    filter.sockets[1].state = State::Denied;
    filter.sockets[1].kind.v4 = false;
    filter.apply(&[ban("127.8.6.6", 600, 0)]).unwrap();
    assert_eq!(filter.shortfall(), None);
    assert_eq!(filter.report().unwrap().elements, Some(1));
}

#[test]
fn sockets_that_take_no_filter_are_left_out() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let fd = || OwnedFd::from(udp.try_clone().unwrap());
    let closed = ListeningSocket {
        fd: None,
        ..listening(Transport::Udp, address, fd())
    };
    let other = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let sockets = vec![
        closed,
        listening(Transport::Sctp, address, fd()),
        listening(Transport::Tcp, address, fd()),
        listening(Transport::Udp, address, other),
    ];
    let mut filter = SocketFilter::new(sockets, Box::new(Linux));
    let error = filter.probe().unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    assert!(error.to_string().contains("socket_filter"), "{error}");
}

#[test]
fn nothing_stays_behind_when_the_backend_goes() {
    let (socket, mut filter) = on_udp("127.0.0.1:0", Linux);
    filter.apply(&[ban("127.8.7.7", 600, 0)]).unwrap();
    assert_ne!(sys::read(socket.as_fd()).unwrap(), []);
    drop(filter);
    assert_eq!(sys::read(socket.as_fd()).unwrap(), []);
}

#[test]
fn the_watchdog_takes_ours_off_and_nobody_elses() {
    let (socket, mut filter) = on_udp("127.0.0.1:0", Linux);
    let fd = socket.try_clone().unwrap().into();
    let watched = [listening(Transport::Udp, socket.local_addr().unwrap(), fd)];
    filter.apply(&[ban("127.8.8.8", 600, 0)]).unwrap();
    assert_eq!(watchdog::release_all(&watched, &mut Linux), 1);
    assert_eq!(watchdog::release_all(&watched, &mut Linux), 0);
    assert_passes(&socket, "127.8.8.8");
    assert!(!filter.intact().unwrap());
    let foreign = [Instruction {
        code: 0x06,
        k: 9,
        ..Instruction::default()
    }];
    sys::attach(socket.as_fd(), &foreign).unwrap();
    assert_eq!(watchdog::release_all(&watched, &mut Linux), 0);
    assert_eq!(sys::read(socket.as_fd()).unwrap(), foreign);
    let is_silent = |alive| watchdog::is_silent(alive, at(1_000));
    assert!(!is_silent(None));
    assert!(!is_silent(Some(at(995))));
    assert!(is_silent(Some(at(994))));
    assert!(!is_silent(Some(at(1_001))));
}

/// Exchanging full programs as fast as possible loses no wanted packet and lets none of a banned source through.
#[test]
fn an_exchange_loses_no_packet() {
    let (socket, mut filter) = on_udp("127.0.0.1:0", Linux);
    let elements = |from: u32| -> Vec<Element> {
        (from..from + 3_800)
            .map(|n| Element {
                subnet: Subnet::host(IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + 2 * n))),
                seconds_left: 600,
                hits: 0,
            })
            .collect()
    };
    filter.reconcile(&elements(0)).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapping = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let mut swaps = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                swaps += 1;
                filter.reconcile(&elements(swaps % 2)).unwrap();
            }
            swaps
        })
    };
    let packets = 20_000;
    let came = received(&socket, "127.8.9.9".parse().unwrap(), packets);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let swaps = swapping.join().unwrap();
    println!("{came} of {packets} wanted packets during {swaps} exchanges");
    assert_eq!(came, packets);
    assert!(swaps > 2);
}
