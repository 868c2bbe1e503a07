//! Packets whose source address is a lie: what anybody can send over UDP.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    sendto, socket, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn,
};

const IP_HEADER: u16 = 20;
const UDP_HEADER: u16 = 8;
const UDP: u8 = 17;

/// A raw IPv4 socket. Needs root; it belongs to the network namespace of the thread that made it.
pub struct Forger {
    socket: OwnedFd,
    to: SocketAddrV4,
}

impl Forger {
    /// Sends to this address.
    pub fn new(to: SocketAddrV4) -> Forger {
        let (family, kind) = (AddressFamily::Inet, SockType::Raw);
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
            .expect("a raw socket, as root");
        Forger { socket, to }
    }

    /// Sends one UDP datagram in the name of `from`.
    pub fn send(&self, from: SocketAddrV4, payload: &str) {
        let udp = UDP_HEADER + u16::try_from(payload.len()).expect("a datagram");
        let mut packet = Vec::with_capacity(usize::from(IP_HEADER + udp));
        let be = |value: u16| value.to_be_bytes();
        // Version 4 with five words of header; the kernel fills in identification and checksum.
        packet.extend([0x45, 0]);
        packet.extend(be(IP_HEADER + udp));
        packet.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
        packet.extend(from.ip().octets());
        packet.extend(self.to.ip().octets());
        packet.extend(be(from.port()));
        packet.extend(be(self.to.port()));
        packet.extend(be(udp));
        // No checksum, as IPv4 allows.
        packet.extend(be(0));
        packet.extend(payload.as_bytes());
        let to = SockaddrIn::from(SocketAddrV4::new(*self.to.ip(), 0));
        loop {
            match sendto(self.socket.as_raw_fd(), &packet, &to, MsgFlags::empty()) {
                // The device's queue is full for the moment.
                Err(Errno::ENOBUFS | Errno::EAGAIN) => std::thread::yield_now(),
                sent => {
                    assert_eq!(sent, Ok(packet.len()));
                    return;
                }
            }
        }
    }
}

/// The forged source of this number: 16 million of them, none of which the tests use otherwise.
pub fn source(number: u32) -> SocketAddrV4 {
    let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + number);
    SocketAddrV4::new(ip, 5060)
}
