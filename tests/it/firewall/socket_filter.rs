//! Bans on Kamailio's own sockets. The script of these tests answers whoever it sees, so that silence means: the
//! kernel dropped the packet. Few packets are let through, so silence is waited for, never taken for granted.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use apiban::firewall::socket_filter::sample;
use apiban::sys::socket_filter::{self, Instruction};
use apiban_testing::fed::{fed, service};
use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::netns::{in_namespace, run};
use apiban_testing::sip::Answer;
use apiban_testing::wait::{patience, wait_until, SOON};
use nix::poll::{poll, PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::sys::socket::{bind, connect, socket, AddressFamily, SockFlag, SockType, SockaddrStorage};
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};
use serde_json::Value;

const BANNED: &str = "127.0.0.66";
const OTHER: &str = "127.0.0.5";
const UPDATER: &str = "APIBAN updater";
/// A ban or a lift must be in the kernel within this time.
const AT_ONCE: Duration = Duration::from_secs(1);
/// As an ordinary user who never was root and can do nothing.
const NOBODY: &[&str] = &[
    "--reuid=kamailio",
    "--regid=kamailio",
    "--init-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
];

/// Everybody is answered, banned or not.
fn builder() -> Builder {
    Kamailio::builder()
        .param("trust_self", 0)
        .param("socket_filter", 1)
        .request_route("apiban_check();")
}

/// The sockets of a process; none if it ended.
fn sockets_of(pid: i32) -> Vec<OwnedFd> {
    let Some(pidfd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            target.to_string_lossy().starts_with("socket:")
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|fd| pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty()).ok())
        .collect()
}

/// The instructions of all filters on the sockets of a process.
fn instructions_of(pid: i32) -> usize {
    let sockets = sockets_of(pid);
    let lengths = sockets
        .iter()
        .map(|fd| socket_filter::read(fd.as_fd()).map_or(0, |p| p.len()));
    lengths.sum()
}

/// The same for the main process, which has every socket that listens.
fn instructions(kamailio: &Kamailio) -> usize {
    instructions_of(kamailio.pid())
}

/// True if a filter of this process lets one banned packet in `one_in` through. The test of the random number is
/// the only `BPF_JSET` in a program for UDP.
fn lets_through(pid: i32, one_in: u32) -> bool {
    let is_sample = |step: &Instruction| {
        u32::from(step.code) == libc::BPF_JMP | libc::BPF_JSET && step.k == one_in - 1
    };
    let mut programs = sockets_of(pid)
        .into_iter()
        .map(|fd| socket_filter::read(fd.as_fd()));
    programs.any(|program| program.is_ok_and(|program| program.iter().any(is_sample)))
}

fn status(kamailio: &Kamailio) -> Value {
    kamailio.ask("apiban.status", &[])["socket_filter"].clone()
}

fn state(kamailio: &Kamailio) -> String {
    status(kamailio)["state"].as_str().unwrap().to_owned()
}

/// Waits until the bans in the filter are `elements` of `of`.
#[track_caller]
fn wait_elements(kamailio: &Kamailio, elements: u64, of: u64) {
    let what = format!("{elements} of {of} in the filter");
    wait_until(&what, SOON, || {
        let status = status(kamailio);
        status["elements"] == elements && status["of"] == of
    });
}

/// Whether the socket at `to` takes a new TCP connection from `from` within half a second, `patience` times.
fn connects(from: &str, to: SocketAddr) -> bool {
    let ip: IpAddr = from.parse().unwrap();
    let family = match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None).unwrap();
    let own = SockaddrStorage::from(SocketAddr::new(ip, 0));
    bind(fd.as_raw_fd(), &own).unwrap();
    if connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).is_ok() {
        return true;
    }
    let mut wait = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    let limit = u16::try_from(500 * patience()).unwrap();
    poll(&mut wait, limit).unwrap() == 1
}

/// Sends packets that are hardly SIP, slowly enough for the buffers. Kamailio ignores very short ones unseen.
fn flood(kamailio: &Kamailio, from: &str, packets: u32) {
    let sender = UdpSocket::bind((from, 0)).unwrap();
    for number in 0..packets {
        sender.send_to(&[b'x'; 100], kamailio.address()).unwrap();
        if number % 2_000 == 1_999 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_banned_source_is_dropped_on_its_way_in_until_it_is_lifted() {
    for release in Release::all() {
        let kamailio = builder().release(&release).ipv6().tls().start();
        kamailio.assert_answered(BANNED);
        kamailio.assert_answered("::1");
        let mut early = kamailio.tcp(BANNED);
        assert_eq!(early.options(), Answer::Status(200));
        assert_eq!(instructions(&kamailio), 0);

        let begin = Instant::now();
        kamailio.ask("apiban.block", &[BANNED, "600"]);
        wait_until("the filter", SOON, || instructions(&kamailio) > 0);
        let took = begin.elapsed();
        println!("{}: ban to socket {took:?}", release.name());
        assert!(took < AT_ONCE * patience(), "{took:?}");
        kamailio.wait_dropped(BANNED, SOON);
        kamailio.assert_answered(OTHER);
        // No new connection; the one that there was goes on, and ends only by the script.
        let address = kamailio.address();
        let tls = SocketAddr::new(address.ip(), kamailio.tls_port());
        for to in [address, tls] {
            wait_until("no connection", SOON, || !connects(BANNED, to));
            assert!(connects(OTHER, to), "{to}");
        }
        assert_eq!(early.options(), Answer::Status(200));

        kamailio.ask("apiban.block", &["::1", "600"]);
        kamailio.ask("apiban.block", &["127.7.0.0/16", "600"]);
        wait_elements(&kamailio, 3, 3);
        kamailio.wait_dropped("127.7.9.9", SOON);
        kamailio.assert_answered("127.8.0.0");
        wait_until("no connection", SOON, || {
            !connects("::1", kamailio.address_v6())
        });
        assert_eq!(state(&kamailio), "ok");

        let begin = Instant::now();
        for subnet in [BANNED, "::1", "127.7.0.0/16"] {
            kamailio.ask("apiban.unblock", &[subnet]);
        }
        wait_until("no filter", SOON, || instructions(&kamailio) == 0);
        let took = begin.elapsed();
        println!("{}: lift to socket {took:?}", release.name());
        assert!(
            took < (AT_ONCE + Duration::from_millis(300)) * patience(),
            "three commands: {took:?}"
        );
        kamailio.assert_answered(BANNED);
        assert!(connects("::1", kamailio.address_v6()));
        let stopped = kamailio.stop();
        assert!(stopped.status.success(), "{}", stopped.log);
    }
}

#[test]
fn without_any_privilege_udp_is_filtered_and_tcp_is_one_line_of_information() {
    let kamailio = builder().setpriv(NOBODY).start();
    kamailio.ask("apiban.block", &[BANNED, "600"]);
    kamailio.ask("apiban.block", &["127.0.0.67", "600"]);
    kamailio.wait_dropped(BANNED, SOON);
    kamailio.wait_dropped("127.0.0.67", SOON);
    kamailio.assert_answered(OTHER);
    assert!(connects(BANNED, kamailio.address()));
    wait_elements(&kamailio, 2, 2);
    assert_eq!(state(&kamailio), "ok");
    assert_eq!(status(&kamailio)["errors"], 0);
    let stopped = kamailio.stop();
    let lines: Vec<&str> = stopped
        .log
        .lines()
        .filter(|line| line.contains("socket filter: "))
        .collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains("CAP_NET_ADMIN") && lines[0].contains("INFO"),
        "{}",
        lines[0]
    );
    assert!(!stopped.log.contains("ERROR"), "{}", stopped.log);
}

/// With `-D` there is one process besides those of the module and the timers.
#[test]
fn one_process_that_receives_is_enough() {
    for release in Release::all() {
        let kamailio = builder().release(&release).without_forks().start();
        kamailio.ask("apiban.block", &[BANNED, "600"]);
        kamailio.wait_dropped(BANNED, SOON);
        kamailio.assert_answered(OTHER);
        assert!(kamailio.stop().status.success());
    }
}

#[test]
fn nothing_is_dropped_in_mode_observe() {
    let kamailio = builder().param("mode", "observe").start();
    kamailio.ask("apiban.block", &[BANNED, "600"]);
    for _ in 0..20 {
        kamailio.assert_answered(BANNED);
    }
    assert_eq!(instructions(&kamailio), 0);
    assert_eq!(state(&kamailio), "off");
    assert_eq!(kamailio.verdict(BANNED)["banned"], 1);
}

#[test]
fn no_filter_bans_beyond_the_end_of_a_ban() {
    let kamailio = builder().start();
    kamailio.ask("apiban.block", &[BANNED, &(4 * patience()).to_string()]);
    kamailio.wait_dropped(BANNED, SOON);
    wait_until("the end", SOON, || {
        // Asked in this order: what holds at the second question held at the first.
        let filtered = instructions(&kamailio) > 0;
        let banned = kamailio.verdict(BANNED)["banned"] == 1;
        assert!(banned || !filtered, "the filter outlived the ban");
        !banned
    });
    kamailio.assert_answered(BANNED);
}

#[test]
fn trust_takes_a_source_out_at_once() {
    let kamailio = builder().start();
    kamailio.ask("apiban.block", &[BANNED, "600"]);
    kamailio.wait_dropped(BANNED, SOON);
    let begin = Instant::now();
    kamailio.ask("apiban.trust_add", &[BANNED]);
    wait_until("no filter", SOON, || instructions(&kamailio) == 0);
    let took = begin.elapsed();
    assert!(took < AT_ONCE * patience(), "{took:?}");
    kamailio.assert_answered(BANNED);
}

/// A stopped updater ends no bans: another process takes its filters off.
#[test]
fn a_stopped_updater_leaves_no_filter_behind() {
    for release in Release::all() {
        let kamailio = builder().release(&release).start();
        kamailio.ask("apiban.block", &[BANNED, "600"]);
        kamailio.wait_dropped(BANNED, SOON);
        wait_until("TCP", SOON, || !connects(BANNED, kamailio.address()));
        let updater = kamailio.pid_of(UPDATER);
        let begin = Instant::now();
        kamailio.signal(updater, Signal::SIGSTOP);
        wait_until("no filter", SOON, || instructions(&kamailio) == 0);
        println!("{}: taken off after {:?}", release.name(), begin.elapsed());
        assert!(begin.elapsed() < Duration::from_secs(9) * patience());
        kamailio.assert_answered(BANNED);
        assert!(connects(BANNED, kamailio.address()));
        kamailio.wait_for_log("the updater has not been at work", SOON);
        // It comes back, and so does the filter.
        kamailio.signal(updater, Signal::SIGCONT);
        kamailio.wait_dropped(BANNED, SOON);
        wait_until("ok", SOON, || state(&kamailio) == "ok");
        let stopped = kamailio.stop();
        assert!(stopped.status.success(), "{}", stopped.log);
    }
}

#[test]
fn a_killed_updater_takes_kamailio_and_its_sockets_along() {
    for release in Release::all() {
        let kamailio = builder().release(&release).start();
        kamailio.ask("apiban.block", &[BANNED, "600"]);
        kamailio.wait_dropped(BANNED, SOON);
        let port = kamailio.port();
        kamailio.signal(kamailio.pid_of(UPDATER), Signal::SIGKILL);
        kamailio.wait_for_end(SOON);
        assert_eq!(run("ss", &["-Hlutn", &format!("sport = :{port}")]), "");
    }
}

/// The main process dies and can tell nobody: the updater notices and takes the filters off, whoever still has
/// the sockets.
#[test]
fn a_killed_main_process_leaves_no_filter_behind() {
    for release in Release::all() {
        let kamailio = builder().release(&release).start();
        kamailio.ask("apiban.block", &[BANNED, "600"]);
        kamailio.wait_dropped(BANNED, SOON);
        let worker = kamailio.pid_of("udp receiver");
        assert!(instructions_of(worker) > 0);
        kamailio.signal(kamailio.pid(), Signal::SIGKILL);
        wait_until("no filter", SOON, || instructions_of(worker) == 0);
        kamailio.kill9();
    }
}

/// The kernel's drops and what came through are all that was sent, and the hits are near it.
#[test]
fn what_is_dropped_is_counted_and_the_hits_are_estimated() {
    let kamailio = builder()
        .routes("event_route[core:msg-received] { apiban_check(); drop; }")
        .global("received_route_mode=1")
        .start();
    kamailio.ask("apiban.block", &[BANNED, "600"]);
    kamailio.ask("apiban.block", &["127.0.0.67", "600"]);
    wait_elements(&kamailio, 2, 2);
    let mut all = 0;
    let mut flood = |from: &str, packets: u32| {
        flood(&kamailio, from, packets);
        all += u64::from(packets);
    };
    // Fewer come through as soon as it is a flood.
    let worker = kamailio.pid_of("udp receiver");
    assert!(lets_through(worker, sample::OFTEN));
    wait_until("the sample of a flood", SOON, || {
        flood(BANNED, 2_000);
        lets_through(worker, sample::SELDOM)
    });
    let before = kamailio.statistic("apiban", "blocked_local");
    flood(BANNED, 200_000);
    flood("127.0.0.67", 20_000);
    let counted = || {
        kamailio.statistic("apiban", "filter_drops") + kamailio.statistic("apiban", "blocked_local")
    };
    wait_until("all packets", SOON, || counted() >= all);
    assert_eq!(counted(), all);
    let through = kamailio.statistic("apiban", "blocked_local");
    println!(
        "{before} and then {} of 220,000 came through",
        through - before
    );
    // 13 are expected.
    assert!(through - before < 60, "{through}");
    let hits = |ip: &str| kamailio.verdict(ip)["hits"].as_u64().unwrap();
    wait_until("the hits", SOON, || hits(BANNED) > 50_000);
    println!("hits: {} and {}", hits(BANNED), hits("127.0.0.67"));
    assert!(hits(BANNED) + hits("127.0.0.67") <= all);
    assert_eq!(status(&kamailio)["dropped"], all - through);
}

#[test]
fn a_filter_that_is_not_ours_is_left_alone_and_told() {
    let kamailio = builder().without_tcp().start();
    let foreign = [Instruction {
        code: 0x06,
        k: u32::MAX,
        ..Instruction::default()
    }];
    kamailio.ask("apiban.block", &[BANNED, "600"]);
    kamailio.wait_dropped(BANNED, SOON);
    let sockets = sockets_of(kamailio.pid());
    let filtered = |fd: &&OwnedFd| socket_filter::read(fd.as_fd()).is_ok_and(|p| p.len() > 1);
    let ours: Vec<&OwnedFd> = sockets.iter().filter(filtered).collect();
    assert_eq!(ours.len(), 1);
    socket_filter::attach(ours[0].as_fd(), &foreign).unwrap();
    kamailio.wait_for_log("another program's filter is on it", SOON);
    wait_until("the state", SOON, || state(&kamailio) == "degraded");
    kamailio.ask("apiban.block", &["127.0.0.67", "600"]);
    kamailio.assert_answered(BANNED);
    assert_eq!(socket_filter::read(ours[0].as_fd()).unwrap(), foreign);
    let told = status(&kamailio)["last_error"].as_str().unwrap().to_owned();
    assert!(told.contains("another program's filter"), "{told}");
    // When it goes, ours comes back by itself.
    socket_filter::detach(ours[0].as_fd()).unwrap();
    kamailio.wait_dropped("127.0.0.67", SOON);
    wait_until("the state", SOON, || state(&kamailio) == "ok");
    kamailio.stop();
}

/// The list of an older kernel's limit: not all fit, and those that call go in.
#[test]
fn a_small_limit_of_the_kernel_takes_the_busiest_sources() {
    in_namespace(|| {
        std::fs::write("/proc/sys/net/core/optmem_max", "20480").unwrap();
        let service = service();
        let listed: Vec<String> = (0..4_000u32)
            .map(|n| format!("127.{}.{}.{}", 16 + n % 100, n / 100, 2 * (n % 7)))
            .collect();
        service.list(&listed);
        let kamailio = fed(&service)
            .param("socket_filter", 1)
            .request_route("apiban_check();")
            .start();
        wait_until("the list", SOON, || {
            kamailio.statistic("apiban", "feed_entries") == 4_000
                && status(&kamailio)["of"] == 4_000
        });
        let elements = status(&kamailio)["elements"].as_u64().unwrap();
        println!("{elements} of 4,000 with 20,480 bytes");
        assert!((1_000..1_300).contains(&elements), "{elements}");
        assert_eq!(state(&kamailio), "ok");
        // Whoever is not in the filter gets in by calling.
        for ip in [&listed[0], &listed[2_000], &listed[3_999]] {
            wait_until("a caller in the filter", SOON, || {
                kamailio.drops(ip.as_str())
            });
        }
    });
}

/// Only the processes that need them keep descriptors of sockets that are not theirs.
#[test]
fn no_worker_holds_a_listening_socket_of_tcp() {
    let sockets = |filter: i32| {
        let kamailio = builder().param("socket_filter", filter).start();
        wait_until("the updater", SOON, || {
            kamailio.verdict(OTHER)["banned"] == 0
        });
        let count = |name: &str| {
            let folder = format!("/proc/{}/fd", kamailio.pid_of(name));
            let links = std::fs::read_dir(folder).unwrap().flatten();
            links
                .filter_map(|entry| std::fs::read_link(entry.path()).ok())
                .filter(|target| target.to_string_lossy().starts_with("socket:"))
                .count()
        };
        ["udp receiver", "tcp receiver", "ctl handler"].map(count)
    };
    assert_eq!(sockets(1), sockets(0));
}
