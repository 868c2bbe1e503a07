//! The sockets that the program listens on, as a firewall needs them.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// The transport below SIP. WebSocket is `Tcp`, secure WebSocket is `Tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// SCTP.
    Sctp,
}

/// One socket that receives SIP.
#[derive(Debug)]
pub struct ListeningSocket {
    /// The transport.
    pub transport: Transport,
    /// The address that it is bound to; unspecified (`0.0.0.0`, `::`) for every address of the host.
    pub ip: IpAddr,
    /// The port that it is bound to.
    pub port: u16,
    /// A descriptor of the socket of our own; `None` if the socket is not open in this process.
    pub fd: Option<OwnedFd>,
}

impl ListeningSocket {
    /// The same socket, with a further descriptor of it if it has one.
    pub fn copy(&self) -> Self {
        ListeningSocket {
            transport: self.transport,
            ip: self.ip,
            port: self.port,
            fd: self.fd.as_ref().and_then(|fd| fd.try_clone().ok()),
        }
    }
}
