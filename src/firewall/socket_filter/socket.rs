//! One socket, and what is on it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv6V6Only, SockType};
use nix::sys::socket::{getsockopt, SockType as Type};

use super::compile::{is_ours, Kind};
use super::kernel::Kernel;
use crate::sys::listening::{ListeningSocket, Transport};
use crate::sys::socket_filter::{Instruction, LONGEST};

/// The kernel frees the program before the last a moment after it was replaced.
const FREED: Duration = Duration::from_millis(20);

/// How a socket stands to our filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has none, or ours.
    Free,
    /// It has a filter that somebody else put there.
    Foreign,
    /// The kernel wants a privilege for sockets of this kind that we do not have.
    Denied,
    /// Something else does not work.
    Refused(String),
}

/// A socket of this server.
pub struct Socket {
    fd: OwnedFd,
    /// Transport and address, for messages.
    pub name: String,
    /// What it receives.
    pub kind: Kind,
    /// The longest program that it took, after one was too long for it.
    pub limit: usize,
    /// How it stands to our filter.
    pub state: State,
    /// What we put on it last; empty: nothing.
    program: Vec<Instruction>,
    /// The kernel's count of drops when it was last read.
    last_drops: Option<u32>,
}

impl Socket {
    /// `None` for a socket that takes no filter of ours: not open here, or neither UDP nor TCP.
    pub fn new(socket: ListeningSocket) -> Option<Self> {
        let fd = socket.fd?;
        let (word, wanted) = match socket.transport {
            Transport::Udp => ("udp", Type::Datagram),
            Transport::Tcp => ("tcp", Type::Stream),
            Transport::Tls => ("tls", Type::Stream),
            Transport::Sctp => return None,
        };
        if getsockopt(&fd, SockType) != Ok(wanted) {
            return None;
        }
        let v6 = socket.ip.is_ipv6();
        // IPv4 packets come to a socket of all IPv6 addresses unless it is for IPv6 alone.
        let v4 = !v6 || socket.ip.is_unspecified() && getsockopt(&fd, Ipv6V6Only) != Ok(true);
        Some(Socket {
            fd,
            name: format!(
                "{word} {}",
                std::net::SocketAddr::new(socket.ip, socket.port)
            ),
            kind: Kind {
                v4,
                v6,
                tcp: wanted == Type::Stream,
            },
            limit: LONGEST,
            state: State::Free,
            program: Vec::new(),
            last_drops: None,
        })
    }

    /// True if our filter is on it, as far as we know.
    pub fn is_filtered(&self) -> bool {
        !self.program.is_empty()
    }

    /// Puts `program` on the socket; an empty one takes ours off. The filter of somebody else stays. The error
    /// `ENOMEM` says that a shorter program may fit; what was there is still there then.
    pub fn put(&mut self, kernel: &mut dyn Kernel, program: &[Instruction]) -> io::Result<()> {
        let there = match kernel.read(self.fd.as_fd()) {
            Ok(there) => there,
            Err(error) if is(&error, Errno::EACCES) => {
                // Not a program of classic BPF, so not ours.
                self.is_taken();
                return Ok(());
            }
            Err(error) => return self.refused(kernel, "asking for its filter", &error),
        };
        if !there.is_empty() && !is_ours(&there) {
            self.is_taken();
            return Ok(());
        }
        if there == program {
            self.now_has(program);
            return Ok(());
        }
        if program.is_empty() {
            return self.release(kernel);
        }
        // What was dropped before the first program is not ours.
        if there.is_empty() {
            self.last_drops = kernel.drops(self.fd.as_fd()).ok();
        }
        let mut result = kernel.attach(self.fd.as_fd(), program);
        let too_much = result.as_ref().is_err_and(|error| is(error, Errno::ENOMEM));
        if too_much && !there.is_empty() {
            thread::sleep(FREED);
            result = kernel.attach(self.fd.as_fd(), program);
        }
        match result {
            Ok(()) => {
                self.now_has(program);
                Ok(())
            }
            Err(error) if is(&error, Errno::ENOMEM) => Err(error),
            Err(error) => self.refused(kernel, "putting the filter on it", &error),
        }
    }

    /// Takes our filter off, if it is there.
    pub fn release(&mut self, kernel: &mut dyn Kernel) -> io::Result<()> {
        if release(kernel, &self.fd)? && self.state != State::Foreign {
            self.state = State::Free;
        }
        self.program.clear();
        Ok(())
    }

    /// True if what we put on it is still there, or it was not ours to begin with.
    pub fn is_intact(&mut self, kernel: &mut dyn Kernel) -> bool {
        let there = kernel.read(self.fd.as_fd());
        let is_free = there.as_ref().is_ok_and(Vec::is_empty);
        match there {
            // Whoever had a filter of his own there took it off.
            Ok(_) if is_free && self.state == State::Foreign => false,
            Ok(there) if there == self.program => true,
            // Somebody took ours away, or another process of ours did because it was not kept up to date.
            Ok(_) if is_free => false,
            Ok(there) if is_ours(&there) => false,
            Ok(_) => {
                self.is_taken();
                true
            }
            Err(_) => true,
        }
    }

    /// Packets dropped at the socket since the last call, with our filter on it.
    pub fn new_drops(&mut self, kernel: &mut dyn Kernel) -> u64 {
        let Ok(drops) = kernel.drops(self.fd.as_fd()) else {
            return 0;
        };
        let before = self.last_drops.replace(drops);
        match before {
            Some(before) if self.is_filtered() => u64::from(drops.wrapping_sub(before)),
            _ => 0,
        }
    }

    fn now_has(&mut self, program: &[Instruction]) {
        self.state = State::Free;
        self.program.clear();
        self.program.extend_from_slice(program);
    }

    fn is_taken(&mut self) {
        self.state = State::Foreign;
        self.program.clear();
    }

    /// A filter that we cannot keep up to date must not stay.
    fn refused(
        &mut self,
        kernel: &mut dyn Kernel,
        doing: &str,
        error: &io::Error,
    ) -> io::Result<()> {
        let denied = is(error, Errno::EPERM) && self.kind.tcp;
        let mut text = format!("{doing}: {error}");
        if let Err(error) = release(kernel, &self.fd) {
            text += &format!("; taking ours off: {error}");
        }
        self.program.clear();
        self.state = match denied {
            true => State::Denied,
            false => State::Refused(text),
        };
        Ok(())
    }
}

/// Takes our filter off a socket; false if ours is not there.
pub fn release(kernel: &mut dyn Kernel, socket: &OwnedFd) -> io::Result<bool> {
    let there = kernel.read(socket.as_fd());
    if !there.is_ok_and(|there| is_ours(&there)) {
        return Ok(false);
    }
    match kernel.detach(socket.as_fd()) {
        Err(error) if is(&error, Errno::ENOENT) => Ok(false),
        result => result.map(|()| true),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
