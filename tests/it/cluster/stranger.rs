//! A node in the test itself: it speaks the protocol over plain UDP, as it likes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use apiban::address::Subnet;
use apiban::clock::UnixSeconds;
use apiban::cluster::message::{Header, Items, Kind, VERSION};
use apiban::cluster::{Host, Keyring, Node, OwnBan, Placed, Settings};
use apiban::log::Level;
use apiban_testing::feed_server::now;
use apiban_testing::kamailio::Kamailio;

/// What the node has, and what it would send.
#[derive(Default)]
pub struct Tables {
    pub own: BTreeMap<Subnet, OwnBan>,
    pub peer: BTreeMap<Subnet, UnixSeconds>,
    pub sent: Vec<Vec<u8>>,
}

impl Host for Tables {
    fn send(&mut self, _: &str, message: &[u8]) {
        self.sent.push(message.to_vec());
    }
    fn own(&self, subnet: Subnet) -> Option<OwnBan> {
        self.own.get(&subnet).cloned()
    }
    fn each_own(&self, visit: &mut dyn FnMut(Subnet, UnixSeconds, UnixSeconds)) {
        self.own
            .iter()
            .for_each(|(subnet, ban)| visit(*subnet, ban.end, ban.since));
    }
    fn holds(&self, subnet: Subnet) -> bool {
        self.peer.contains_key(&subnet)
    }
    fn place(&mut self, _: &str, subnet: Subnet, end: UnixSeconds, _: &str) -> Placed {
        self.peer.insert(subnet, end);
        Placed::Yes
    }
    fn shorten(&mut self, subnet: Subnet, end: UnixSeconds) {
        self.peer.insert(subnet, end);
    }
    fn lift(&mut self, subnet: Subnet) {
        self.peer.remove(&subnet);
    }
    fn lift_own(&mut self, subnet: Subnet) {
        self.own.remove(&subnet);
    }
    fn each_listed(&self, _: &mut dyn FnMut(Subnet, UnixSeconds)) {}
    fn list(&mut self, _: &[(Subnet, UnixSeconds)]) {}
    fn keep_listed(&mut self, _: &dyn Fn(Subnet) -> bool) -> usize {
        0
    }
    fn log(&mut self, _: Level, _: &str) {}
}

/// The second that it is.
fn second() -> UnixSeconds {
    UnixSeconds::saturating(now())
}

/// The node.
pub struct Stranger {
    socket: UdpSocket,
    to: SocketAddr,
    uri: String,
    pub keys: Keyring,
    pub node: Node,
    pub tables: Tables,
    /// Changes each message before it is sent.
    pub change: fn(&Keyring, Vec<u8>) -> Vec<u8>,
    /// Every message that was sent.
    pub recorded: Vec<Vec<u8>>,
    count: u32,
}

impl Stranger {
    /// A node at 127.0.77.9 that talks to `kamailio` and has this secret.
    pub fn new(kamailio: &Kamailio, secret: &str) -> Stranger {
        let address = Ipv4Addr::new(127, 0, 77, 9);
        let socket = UdpSocket::bind((address, 0)).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a time-out");
        let port = socket.local_addr().expect("an address").port();
        let settings = Settings {
            peer_budget: 1000,
            peer_capacity: 10_000,
            software: "made-up".into(),
            fingerprint: 0,
            rate_limit: 1,
            rate_window: Duration::from_millis(1),
            shrink_limit: 50,
        };
        let keys = || Keyring::new([secret.as_bytes()]).expect("a key");
        let random = Box::new(|| getrandom::u64().expect("random numbers"));
        let mut node = Node::new(settings, keys(), random, second().millis());
        let uri = format!("sip:{address}:{port}");
        node.listed(&uri, &[super::uri(kamailio, super::Transport::Udp)]);
        Stranger {
            socket,
            to: kamailio.address(),
            uri,
            keys: keys(),
            node,
            tables: Tables::default(),
            change: |_, bytes| bytes,
            recorded: Vec::new(),
            count: 0,
        }
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Sends a message as it is.
    pub fn send(&mut self, body: &[u8]) {
        self.count += 1;
        let (from, to, count) = (
            self.socket.local_addr().expect("an address"),
            self.to,
            self.count,
        );
        let mut text = format!(
            "KDMQ sip:apiban@{to} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {from};branch=z9hG4bK-s{count}\r\n\
             From: <sip:apiban@{from}>;tag=1\r\n\
             To: <sip:apiban@{to}>\r\n\
             Call-ID: stranger-{from}-{count}\r\n\
             CSeq: 1 KDMQ\r\n\
             Max-Forwards: 1\r\n\
             Content-Type: application/octet-stream\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        text.extend(body);
        self.socket.send_to(&text, to).expect("a datagram");
    }

    /// Sends a message as it is and waits for its answer; the code.
    pub fn exchange(&mut self, body: &[u8]) -> Option<u16> {
        self.send(body);
        let id = format!("-{}\r\n", self.count);
        let mut buffer = [0; 65_536];
        let end = Instant::now() + super::SOON;
        while Instant::now() < end {
            let Ok(length) = self.socket.recv(&mut buffer) else {
                continue;
            };
            let text = String::from_utf8_lossy(&buffer[..length]);
            let of_this = text
                .lines()
                .any(|line| line.starts_with("Call-ID:") && format!("{line}\r\n").ends_with(&id));
            if let Some(code) = text.strip_prefix("SIP/2.0 ").filter(|_| of_this) {
                return code.get(..3)?.parse().ok();
            }
        }
        None
    }

    /// A message under the cluster's secret, with any items, in the run of nobody.
    pub fn seal(&self, kind: Kind, to: u64, sequence: u64, items: &Items) -> Vec<u8> {
        let header = Header {
            version: VERSION,
            kind,
            run: 77,
            to,
            sequence,
            time: second().millis(),
        };
        items.seal(&header, &self.keys)
    }

    /// Lives until `done` or for 40 seconds; true if it was done.
    pub fn live(&mut self, mut done: impl FnMut(&mut Stranger) -> bool) -> bool {
        let start = Instant::now();
        let mut buffer = [0; 65_536];
        let begin = second().millis();
        while start.elapsed() < Duration::from_secs(40) {
            let time = begin + start.elapsed();
            if let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
                let datagram = buffer[..length].to_vec();
                if let Some(body) = self.answer(&datagram, from) {
                    self.node.receive(time, from.ip(), &body, &mut self.tables);
                }
            }
            self.node.tick(time, &mut self.tables);
            for bytes in std::mem::take(&mut self.tables.sent) {
                let bytes = (self.change)(&self.keys, bytes);
                self.recorded.push(bytes.clone());
                self.send(&bytes);
            }
            if done(self) {
                return true;
            }
        }
        false
    }

    /// Answers a request with 200; its body.
    fn answer(&self, datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
        let end = datagram
            .windows(4)
            .position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&datagram[..end]).into_owned();
        if !head.starts_with("KDMQ") {
            return None;
        }
        let copied = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let lines = head
            .lines()
            .filter(|line| copied.iter().any(|name| line.starts_with(name)));
        let lines: String = lines.map(|line| format!("{line}\r\n")).collect();
        let reply = format!("SIP/2.0 200 OK\r\n{lines}Content-Length: 0\r\n\r\n");
        self.socket
            .send_to(reply.as_bytes(), from)
            .expect("an answer");
        Some(datagram[end + 4..].to_vec())
    }

    /// Bans an address for ten minutes.
    pub fn ban(&mut self, subnet: &str) {
        let subnet: Subnet = subnet.parse().expect("an address");
        let since = second();
        let ban = OwnBan {
            end: since.shifted(600),
            since,
            reason: "made-up".into(),
        };
        self.tables.own.insert(subnet, ban);
        self.node
            .own_changed(second().millis(), subnet, &self.tables);
    }
}
