//! A small SIP sender: one request, its final answer, from a source address of our choice.
//!
//! Also in the program `sip_ping`, so it needs nothing but the standard library and `nix` (the standard
//! library cannot bind a TCP socket before it connects).

use crate::wait::patience;
use nix::sys::socket::{bind, connect, socket, AddressFamily, SockFlag, SockType, SockaddrStorage};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long an answer may take on a busy machine before it counts as none.
pub fn deadline() -> Duration {
    Duration::from_secs(5) * patience()
}

/// What came back for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The status of the final answer.
    Status(u16),
    /// No final answer within the deadline, or the connection was closed first.
    Nothing,
}

/// A byte stream that SIP runs over: TCP, or TLS on top of it.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

enum Link {
    Udp(UdpSocket),
    Stream {
        /// What bytes go through; the same connection as `tcp`.
        bytes: Box<dyn Stream>,
        /// For the timeouts.
        tcp: TcpStream,
        /// Received and not yet taken apart.
        pending: Vec<u8>,
    },
}

/// A SIP client on one socket.
pub struct Sip {
    link: Link,
    transport: &'static str,
    local: SocketAddr,
    to: SocketAddr,
    deadline: Duration,
}

impl Sip {
    /// A UDP socket on `from`, any port.
    pub fn udp(from: impl ToIp, to: SocketAddr) -> io::Result<Sip> {
        let socket = UdpSocket::bind((from.to_ip()?, 0))?;
        let local = socket.local_addr()?;
        Ok(Sip::on(Link::Udp(socket), "UDP", local, to))
    }

    /// A TCP connection from `from`.
    pub fn tcp(from: impl ToIp, to: SocketAddr) -> io::Result<Sip> {
        let tcp = connect_from(from.to_ip()?, to)?;
        Sip::over("TCP", Box::new(tcp.try_clone()?), tcp)
    }

    /// SIP over `bytes`, which run through the connection `tcp`.
    pub fn over(
        transport: &'static str,
        bytes: Box<dyn Stream>,
        tcp: TcpStream,
    ) -> io::Result<Sip> {
        let (local, to) = (tcp.local_addr()?, tcp.peer_addr()?);
        let link = Link::Stream {
            bytes,
            tcp,
            pending: Vec::new(),
        };
        Ok(Sip::on(link, transport, local, to))
    }

    fn on(link: Link, transport: &'static str, local: SocketAddr, to: SocketAddr) -> Sip {
        Sip {
            link,
            transport,
            local,
            to,
            deadline: deadline(),
        }
    }

    /// Waits this long for an answer instead of [`deadline()`].
    pub fn with_deadline(mut self, deadline: Duration) -> Sip {
        self.deadline = deadline;
        self
    }

    /// Our own address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends an OPTIONS and waits for its answer.
    #[track_caller]
    pub fn options(&mut self) -> Answer {
        self.request("OPTIONS").expect("OPTIONS")
    }

    /// Sends an INVITE and waits for its answer.
    #[track_caller]
    pub fn invite(&mut self) -> Answer {
        self.request("INVITE").expect("INVITE")
    }

    /// Sends a REGISTER and waits for its answer.
    #[track_caller]
    pub fn register(&mut self) -> Answer {
        self.request("REGISTER").expect("REGISTER")
    }

    /// Sends bytes as they are. An answer is theirs if it repeats their Call-ID; where they have
    /// none, any answer is.
    #[track_caller]
    pub fn raw(&mut self, bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes);
        let call_id = header(&text, "Call-ID").unwrap_or_default().to_string();
        self.send_bytes(bytes).expect("raw message");
        self.answer(&call_id).expect("answer to a raw message")
    }

    /// Sends a request and waits for its answer.
    pub fn request(&mut self, method: &str) -> io::Result<Answer> {
        let call_id = self.send(method)?;
        self.answer(&call_id)
    }

    /// Sends a request without waiting; gives its Call-ID, for [`Sip::answer`].
    pub fn send(&mut self, method: &str) -> io::Result<String> {
        let call_id = unique();
        let text = self.text(method, &call_id);
        self.send_bytes(text.as_bytes())?;
        Ok(call_id)
    }

    /// Sends a request again, or one of the caller's own making, without waiting.
    pub fn send_again(&mut self, text: &str) -> io::Result<()> {
        self.send_bytes(text.as_bytes())
    }

    /// Waits for the final answer to the request with this Call-ID.
    pub fn answer(&mut self, call_id: &str) -> io::Result<Answer> {
        self.answer_within(call_id, self.deadline)
    }

    /// Like [`Sip::answer`]; a limit of zero only looks at what has already arrived.
    pub fn answer_within(&mut self, call_id: &str, limit: Duration) -> io::Result<Answer> {
        let end = Instant::now() + limit;
        loop {
            // A timeout of zero means "for ever" to the kernel.
            let left = end.saturating_duration_since(Instant::now());
            let Some(message) = self.receive(left.max(Duration::from_micros(1)))? else {
                return Ok(Answer::Nothing);
            };
            if let Some(status) = status_of(&message, call_id) {
                return Ok(Answer::Status(status));
            }
            if left.is_zero() {
                return Ok(Answer::Nothing);
            }
        }
    }

    /// The text of a request as [`Sip::send`] sends it.
    pub fn text(&self, method: &str, call_id: &str) -> String {
        let (to, local, transport) = (self.to, self.local, self.transport);
        let body = if method == "INVITE" {
            let ip = local.ip();
            let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
            format!("v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n")
        } else {
            String::new()
        };
        let param = match transport {
            "UDP" => String::new(),
            other => format!(";transport={}", other.to_lowercase()),
        };
        // An OPTIONS to the server itself is the usual keepalive.
        let user = if method == "OPTIONS" { "" } else { "test@" };
        let mut text = format!(
            "{method} sip:{user}{to}{param} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {local};rport;branch=z9hG4bK-{call_id}\r\n\
             From: <sip:sender@{local}>;tag={call_id}\r\n\
             To: <sip:test@{to}>\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: 1 {method}\r\n\
             Contact: <sip:sender@{local}{param}>\r\n\
             Max-Forwards: 70\r\n\
             User-Agent: apiban-test\r\n"
        );
        if !body.is_empty() {
            text.push_str("Content-Type: application/sdp\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
        text
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.link {
            Link::Udp(socket) => socket.send_to(bytes, self.to).map(|_| ()),
            Link::Stream { bytes: stream, .. } => {
                // Kamailio may have closed the connection: that is an answer of its own kind.
                match stream.write_all(bytes).and_then(|()| stream.flush()) {
                    Err(error) if is_closed(&error) => Ok(()),
                    other => other,
                }
            }
        }
    }

    /// The next whole message, or none if it does not come in time or the connection ends.
    fn receive(&mut self, within: Duration) -> io::Result<Option<String>> {
        let end = Instant::now() + within;
        match &mut self.link {
            Link::Udp(socket) => {
                let mut datagram = vec![0; 65_536];
                loop {
                    // A timeout of zero means "for ever" to the kernel.
                    let left = end.saturating_duration_since(Instant::now());
                    socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
                    match socket.recv_from(&mut datagram) {
                        Ok((length, _)) => return Ok(Some(text_of(&datagram[..length]))),
                        Err(error) if is_timeout(&error) => return Ok(None),
                        // With a timeout the kernel does not go on by itself after a signal.
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Link::Stream {
                bytes,
                tcp,
                pending,
            } => loop {
                if let Some(length) = whole_message(pending) {
                    let message = text_of(&pending[..length]);
                    pending.drain(..length);
                    return Ok(Some(message));
                }
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(None);
                }
                tcp.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
                let mut chunk = [0; 4096];
                match bytes.read(&mut chunk) {
                    Ok(0) => return Ok(None),
                    Ok(length) => pending.extend_from_slice(&chunk[..length]),
                    Err(error) if is_timeout(&error) || is_closed(&error) => return Ok(None),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            },
        }
    }
}

/// Whether an OPTIONS of `probe` is dropped. Its silence counts once `rounds` later requests of
/// `control` have been answered, so there is no deadline to wait for; take several rounds for each
/// worker of the server. No answer to `control` is an error.
pub fn drops(probe: &mut Sip, control: &mut Sip, rounds: u32) -> io::Result<bool> {
    let sent = probe.send("OPTIONS")?;
    for _ in 0..rounds {
        if control.request("OPTIONS")? == Answer::Nothing {
            let text = format!("the control request of {} is not answered", control.local);
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
        if probe.answer_within(&sent, Duration::ZERO)? != Answer::Nothing {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An address, or its text.
pub trait ToIp {
    /// The address.
    fn to_ip(&self) -> io::Result<IpAddr>;
}

impl ToIp for IpAddr {
    fn to_ip(&self) -> io::Result<IpAddr> {
        Ok(*self)
    }
}

impl ToIp for &str {
    fn to_ip(&self) -> io::Result<IpAddr> {
        self.parse()
            .map_err(|_| io::Error::new(ErrorKind::InvalidInput, format!("no address: {self}")))
    }
}

/// A TCP connection whose own end is `from`.
pub fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(
        fd.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(from, 0)),
    )?;
    // Loopback connects or refuses at once: no deadline needed.
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(fd);
    stream.set_write_timeout(Some(deadline()))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The status of a final answer to `call_id` (any, if empty); none for anything else.
fn status_of(message: &str, call_id: &str) -> Option<u16> {
    let status = message.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()?;
    let ours = call_id.is_empty() || header(message, "Call-ID") == Some(call_id);
    (ours && status >= 200).then_some(status)
}

/// The value of the first header of this name.
fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().take_while(|l| !l.is_empty()).find_map(|l| {
        let (key, value) = l.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Length of the first message in `bytes` if all of it is there.
fn whole_message(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let body = header(&text_of(&bytes[..head]), "Content-Length")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    (bytes.len() >= head + body).then_some(head + body)
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn is_closed(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

/// A name that no other request of this or a parallel run has.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}-{count}-{:x}", std::process::id(), now.as_nanos())
}
