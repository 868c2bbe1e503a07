//! The netlink socket: sends one request and reads every answer to it.
//!
//! The kernel works on a netfilter request inside `sendto`, so all answers are there when it returns:
//! nothing here waits, and nothing is left over for the next request.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    recv, sendto, setsockopt, socket, sockopt, AddressFamily, MsgFlags, NetlinkAddr, SockFlag,
    SockProtocol, SockType,
};

use super::uapi::*;
use super::wire::{messages, Message, Writer};

/// Wanted send buffer, bytes: one transaction that replaces 1,000,000 IPv6 elements has 52 MB. It is a
/// limit, nothing is reserved. Without CAP_NET_ADMIN in the first user namespace the kernel allows
/// `net.core.wmem_max`, about 200 kB.
const SEND_BUFFER: usize = 64 << 20;
/// Wanted receive buffer, bytes: each error answer repeats the message that caused it.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The longest datagram: an error answer that repeats a message with a full 64 KiB attribute.
const LONGEST_ANSWER: usize = 128 << 10;

/// A connection to nf_tables in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    family: u8,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens the socket; requests are for objects of this family.
    ///
    /// # Errors
    /// That of `socket(2)`: `EPROTONOSUPPORT` if the kernel has no nfnetlink.
    pub fn open(family: u8) -> Result<Self, Errno> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        // The plain options are capped by a sysctl and the forced ones need a capability: take what
        // there is, the callers cut their transactions to what fits.
        if setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            let _ = setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER);
        }
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let _ = setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER);
        }
        Ok(Socket {
            fd,
            family,
            sequence: 1,
            buffer: vec![0; LONGEST_ANSWER],
        })
    }

    /// A buffer for the next request.
    pub fn writer(&self) -> Writer {
        Writer::new(self.sequence, self.family)
    }

    /// Runs one transaction: all of it takes effect, or nothing.
    ///
    /// # Errors
    /// The first error that the kernel reports, or that of the socket.
    pub fn commit(&mut self, mut writer: Writer) -> Result<(), Errno> {
        let begin = self.sequence;
        writer.commit();
        let last = writer.sequence().wrapping_sub(1);
        self.send(&writer)?;
        let mut answered = false;
        let mut failure = None;
        self.receive(begin, |message| {
            if let Some(error) = message.error() {
                // The first number stands for the transaction as a whole.
                answered |= message.sequence == begin || message.sequence == last;
                if error != 0 && failure.is_none() {
                    failure = Some(Errno::from_raw(error));
                }
            }
        })?;
        match failure {
            Some(error) => Err(error),
            None if answered => Ok(()),
            None => Err(Errno::ENOMSG),
        }
    }

    /// Asks for one object or, with [`NLM_F_DUMP`] in the request, a list, and hands over every message
    /// of the answer.
    ///
    /// # Errors
    /// The kernel's answer; `EINTR` if the list changed while it was read.
    pub fn ask(
        &mut self,
        writer: &Writer,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), Errno> {
        let begin = self.sequence;
        self.send(writer)?;
        let mut failure = None;
        self.receive(begin, |message| {
            // A list ends with NLMSG_DONE and a number that is negative if it failed on the way.
            let error = match (message.kind, message.payload.first_chunk::<4>()) {
                (NLMSG_DONE, Some(code)) => i32::from_ne_bytes(*code).wrapping_neg(),
                _ => message.error().unwrap_or(0),
            };
            if error > 0 {
                failure = failure.or(Some(Errno::from_raw(error)));
            } else if message.flags & NLM_F_DUMP_INTR != 0 {
                failure = failure.or(Some(Errno::EINTR));
            }
            if message.kind >> 8 == NFNL_SUBSYS_NFTABLES {
                each(message);
            }
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn send(&mut self, writer: &Writer) -> Result<(), Errno> {
        // Numbers are not used twice, so an answer cannot be taken for that to another request.
        self.sequence = writer.sequence().wrapping_add(1);
        let kernel = NetlinkAddr::new(0, 0);
        let sent = sendto(
            self.fd.as_raw_fd(),
            writer.bytes(),
            &kernel,
            MsgFlags::empty(),
        )?;
        if sent == writer.bytes().len() {
            Ok(())
        } else {
            Err(Errno::EMSGSIZE)
        }
    }

    /// Reads until nothing is left; messages from before `begin` are not ours to judge.
    fn receive(&mut self, begin: u32, mut each: impl FnMut(&Message<'_>)) -> Result<(), Errno> {
        let mut lost = None;
        loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            match recv(self.fd.as_raw_fd(), &mut self.buffer, flags) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(length) => {
                    let bytes = self.buffer.get(..length).unwrap_or(&self.buffer);
                    messages(bytes)
                        .filter(|message| message.sequence.wrapping_sub(begin) < 1 << 31)
                        .for_each(|message| each(&message));
                }
                Err(Errno::EINTR) => {}
                // Answers were thrown away: read on, or the next request would get the rest.
                Err(Errno::ENOBUFS) => lost = Some(Errno::ENOBUFS),
                Err(error) => return Err(error),
            }
        }
        lost.map_or(Ok(()), Err)
    }
}
