//! Free loopback ports that stay ours for as long as a test runs.
//!
//! Asking the kernel for port 0 is not enough: Kamailio sets SO_REUSEADDR on its UDP sockets, so two
//! of them on one port start without a complaint and steal each other's packets. A locked file per
//! port keeps all tests of this user apart, in threads and in processes; the kernel drops the lock
//! with the process, so nothing is left reserved after a crash.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's ephemeral range (32768 up), so that no client socket ever sits on one of them.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Next port to try in this process; each process starts elsewhere to avoid needless tries.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port reserved for UDP and TCP on all loopback addresses, until dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: Flock<File>,
}

impl Port {
    /// Reserves a port that nothing listens on now.
    pub fn reserve() -> Port {
        let uid = fs::metadata("/proc/self").map_or(0, |me| me.uid());
        let dir = std::env::temp_dir().join(format!("apiban-test-ports-{uid}"));
        fs::create_dir_all(&dir).expect("directory of the port locks");
        let start = (std::process::id() as u16).wrapping_mul(61) % COUNT;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + (start.wrapping_add(step)) % COUNT;
            let Ok(file) = File::create(dir.join(number.to_string())) else {
                continue;
            };
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
                continue;
            };
            if is_free(number) {
                return Port {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Whether this machine has `::1`.
pub fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Binds the wildcard addresses, so that a listener on any single address shows.
fn is_free(port: u16) -> bool {
    let v4 = (Ipv4Addr::UNSPECIFIED, port);
    let v6 = (Ipv6Addr::LOCALHOST, port);
    UdpSocket::bind(v4).is_ok()
        && TcpListener::bind(v4).is_ok()
        && (!has_ipv6() || (UdpSocket::bind(v6).is_ok() && TcpListener::bind(v6).is_ok()))
}
