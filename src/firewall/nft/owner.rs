//! Which process a table belongs to, and whether that process lives.
//!
//! Two Kamailios with one table would empty each other's bans at every refill. So the table names its
//! owner, and the owner holds a socket with a name of its own in the abstract namespace of Unix sockets.
//! That namespace belongs to the network namespace, as the table does, and the kernel frees the name with
//! the process, however it ends. Only a process with CAP_NET_ADMIN can write the owner into the table.
//! The name is random, and the table names the user who holds it: no other local user can pass for a
//! living owner.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::errno::Errno;
use nix::sys::socket::{
    connect, getsockopt, shutdown, socket, sockopt, AddressFamily, Shutdown, SockFlag, SockType,
    UnixAddr,
};

/// An owner as the table names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User of the process.
    uid: u32,
    /// Random name of its socket.
    id: u64,
    /// Tells one installation from another on the same host: it stays the same over restarts.
    pub instance: u32,
}

impl Owner {
    /// Reads what [`Owner`] displays.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("owner=")?.split(':');
        let owner = Owner {
            uid: parts.next()?.parse().ok()?,
            id: u64::from_str_radix(parts.next()?, 16).ok()?,
            instance: u32::from_str_radix(parts.next()?, 16).ok()?,
        };
        parts.next().is_none().then_some(owner)
    }

    fn name(&self) -> String {
        format!("apiban.so {:016x}", self.id)
    }

    /// True if the process that owns the table runs.
    pub fn lives(&self) -> bool {
        match self.peer_uid() {
            Ok(uid) => uid == self.uid,
            // So many look at it that its queue is full: it holds the name.
            Err(Errno::EAGAIN) => true,
            Err(_) => false,
        }
    }

    /// The user who holds the name.
    fn peer_uid(&self) -> Result<u32, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let address = UnixAddr::new_abstract(self.name().as_bytes())?;
        connect(fd.as_raw_fd(), &address)?;
        Ok(getsockopt(&fd, sockopt::PeerCredentials)?.uid())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "owner={}:{:016x}:{:08x}",
            self.uid, self.id, self.instance
        )
    }
}

/// This process as an owner; the claim ends when it is dropped or the process ends.
#[derive(Debug)]
pub struct Claim {
    owner: Owner,
    listener: UnixListener,
}

impl Claim {
    /// Takes a fresh name.
    ///
    /// # Errors
    /// That of the system: no random numbers, or no socket.
    pub fn new(instance: u32) -> io::Result<Self> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let mut owner = Owner {
            uid: 0,
            id: u64::from_ne_bytes(id),
            instance,
        };
        let address = SocketAddr::from_abstract_name(owner.name())?;
        let listener = UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        // As the kernel reports it to others.
        owner.uid = owner.peer_uid()?;
        Ok(Claim { owner, listener })
    }

    /// What to write into the table.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Accepts and closes the connections of processes that looked whether we live: the queue must not fill up.
    pub fn greet(&self) {
        while self.listener.accept().is_ok() {}
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A child between its fork and its exec may hold a copy of the descriptor for a moment.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_lives_as_long_as_its_claim() {
        let claim = Claim::new(7).unwrap();
        let owner = claim.owner();
        assert_eq!(Owner::parse(&owner.to_string()), Some(owner));
        for _ in 0..300 {
            assert!(owner.lives());
        }
        claim.greet();
        assert!(owner.lives());
        let other = Owner {
            uid: owner.uid + 1,
            ..owner
        };
        assert!(!other.lives(), "held by another user than the table says");
        drop(claim);
        assert!(!owner.lives());
        for bad in [
            "",
            "owner=",
            "owner=1:2",
            "owner=a:1:1",
            "owner=1:1:1:1",
            "0:1:1",
        ] {
            assert_eq!(Owner::parse(bad), None, "{bad}");
        }
    }
}
