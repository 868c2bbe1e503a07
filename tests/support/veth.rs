//! A second host on a cable: a network namespace of its own, joined to the test's by a veth pair, so that
//! packets come from real IPv4 and IPv6 addresses through a real interface. Loopback is no part of it.
//!
//! The test's thread is the server's side. All of it ends with the threads, whatever becomes of the test.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{channel, Sender};
use std::thread::JoinHandle;

use nix::sched::{unshare, CloneFlags};
use nix::unistd::gettid;

use crate::kamailio::{Builder, Kamailio};
use crate::netns::run;
use crate::sip::Sip;

/// The server's addresses on the cable, both with a network that holds attackers too.
pub const SERVER_V4: &str = "10.9.0.1";
/// See [`SERVER_V4`].
pub const SERVER_V6: &str = "2001:db8:1::1";
type Job = Box<dyn FnOnce() + Send>;

/// The other end of the cable.
pub struct Host {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Makes the cable between the caller's namespace and a fresh one. The host there reaches the server
    /// from any address of 10.9.0.0/16 and 2001:db8::/32 that it is given by [`Host::udp`].
    pub fn connect() -> Host {
        let (jobs, todo) = channel::<Job>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root, to make a namespace");
            tell.send(gettid().as_raw()).expect("the test waits");
            todo.iter().for_each(|job| job());
        });
        let host = told.recv().expect("the thread tells").to_string();
        let words = |line: &str| {
            let arguments: Vec<&str> = line.split_whitespace().collect();
            run("ip", &arguments);
        };
        words(&format!(
            "link add wire type veth peer name wire netns {host}"
        ));
        words(&format!("addr add {SERVER_V4}/16 dev wire"));
        words(&format!("addr add {SERVER_V6}/32 dev wire nodad"));
        words("link set wire up");
        let host = Host {
            jobs: Some(jobs),
            thread: Some(thread),
        };
        host.run(move || words("link set wire up"));
        host
    }

    /// Runs something on the host.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let job: Job = Box::new(move || drop(tell.send(job())));
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(job).ok())
            .expect("the host's thread lives");
        told.recv().expect("the job on the host came to its end")
    }

    /// A SIP client on the host, with this source address.
    pub fn udp(&self, from: &str, server: &Kamailio) -> Sip {
        let from: IpAddr = from.parse().expect("address");
        let (own, length) = match from {
            IpAddr::V4(_) => (SERVER_V4, "16"),
            IpAddr::V6(_) => (SERVER_V6, "32"),
        };
        let to = SocketAddr::new(own.parse().expect("address"), server.port());
        self.run(move || {
            let address = format!("{from}/{length}");
            let mut words = vec!["addr", "replace", &address, "dev", "wire"];
            words.extend(from.is_ipv6().then_some("nodad"));
            run("ip", &words);
            Sip::udp(from, to).expect("UDP socket on the host")
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // A job that panicked has told the test already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A Kamailio that listens on the cable too and does what packets ask for: an INVITE bans its source, a
/// REGISTER lifts the ban of the address in its User-Agent, everything is checked and answered.
pub fn server() -> Builder {
    Kamailio::builder()
        .global(&format!("listen=udp:{SERVER_V4}:@PORT@"))
        .global(&format!("listen=udp:[{SERVER_V6}]:@PORT@"))
        .request_route(
            r#"if (is_method("INVITE")) { apiban_block(); }
if (is_method("REGISTER")) { apiban_unblock("$ua"); }
apiban_check();"#,
        )
}

/// Sends a request with this User-Agent, whatever becomes of it.
pub fn tell(sip: &mut Sip, method: &str, agent: &str) {
    let text = sip.text(method, &format!("tell-{agent}"));
    sip.raw(text.replace("apiban-test", agent).as_bytes());
}
