//! SIP to a running Kamailio, and the proof that it dropped a packet.

use super::process::Kamailio;
use crate::sip::{drops, Answer, Sip, ToIp};
use crate::wait::wait_until;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Source of the requests that must be answered, so that the silence before them means something.
/// Tests must not ban it.
pub const CONTROL: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 250));

impl Kamailio {
    /// Where it listens for UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        (self.listens_on(), self.port()).into()
    }

    /// The same on `::1`; needs `Builder::ipv6`.
    pub fn address_v6(&self) -> SocketAddr {
        (Ipv6Addr::LOCALHOST, self.port()).into()
    }

    fn address_for(&self, from: IpAddr) -> SocketAddr {
        match from {
            IpAddr::V4(_) => self.address(),
            IpAddr::V6(_) => self.address_v6(),
        }
    }

    /// A SIP client on UDP with this source address.
    #[track_caller]
    pub fn udp(&self, from: impl ToIp) -> Sip {
        let from = from.to_ip().expect("source address");
        Sip::udp(from, self.address_for(from)).expect("UDP socket")
    }

    /// A SIP client on TCP with this source address.
    #[track_caller]
    pub fn tcp(&self, from: impl ToIp) -> Sip {
        let from = from.to_ip().expect("source address");
        Sip::tcp(from, self.address_for(from)).expect("TCP connection")
    }

    /// A SIP client on TLS with this source address; needs `Builder::tls`.
    #[track_caller]
    pub fn tls(&self, from: impl ToIp) -> Sip {
        let from = from.to_ip().expect("source address");
        let to = SocketAddr::new(self.address_for(from).ip(), self.tls_port());
        let certificate = self.certificate().expect("Builder::tls");
        certificate.connect(from, to).expect("TLS connection")
    }

    /// Whether an OPTIONS over UDP from this address is dropped.
    #[track_caller]
    pub fn drops(&self, from: impl ToIp) -> bool {
        self.drops_on(&mut self.udp(from))
    }

    /// Whether an OPTIONS of this client is dropped; `CONTROL` must be answered meanwhile.
    #[track_caller]
    pub fn drops_on(&self, sip: &mut Sip) -> bool {
        match drops(sip, &mut self.udp(CONTROL), self.children() * 4) {
            Ok(dropped) => dropped,
            Err(error) => panic!("{error}:\n{}", self.log()),
        }
    }

    /// An OPTIONS from this address must be dropped.
    #[track_caller]
    pub fn assert_dropped(&self, from: impl ToIp) {
        let from = from.to_ip().expect("source address");
        assert!(self.drops(from), "{from} was answered");
    }

    /// An OPTIONS from this address must be answered.
    #[track_caller]
    pub fn assert_answered(&self, from: impl ToIp) {
        let from = from.to_ip().expect("source address");
        let answer = self.udp(from).options();
        assert_ne!(answer, Answer::Nothing, "{from} was dropped");
    }

    /// Waits until packets from this address are dropped.
    #[track_caller]
    pub fn wait_dropped(&self, from: impl ToIp, within: Duration) {
        let from = from.to_ip().expect("source address");
        let what = format!("packets from {from} to be dropped");
        wait_until(&what, within, || self.drops(from));
    }

    /// Waits until packets from this address are answered.
    #[track_caller]
    pub fn wait_answered(&self, from: impl ToIp, within: Duration) {
        let from = from.to_ip().expect("source address");
        let what = format!("packets from {from} to be answered");
        wait_until(&what, within, || !self.drops(from));
    }
}
