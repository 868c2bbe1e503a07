//! A stand-in for the APIBAN service on loopback: both API versions, paging, the rate limit, and
//! every fault that the client must survive. For tests and development only.

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod fault;
mod wire;

pub use fault::Fault;
use wire::{Received, Reply, Stream};

/// Addresses in a full page.
pub const PAGE: usize = 250;

/// How the server counts requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Any stretch of the window's length.
    Sliding,
    /// Stretches that follow one another from the server's start.
    Fixed,
}

/// How the server is set up.
pub struct Options {
    pub listen: SocketAddr,
    pub key: String,
    /// Requests allowed per window.
    pub rate: Option<(usize, Duration)>,
    pub window: Window,
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Options {
    /// A port chosen by the system, no rate limit, plain HTTP.
    pub fn new(key: &str) -> Self {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            key: key.to_owned(),
            rate: None,
            window: Window::Sliding,
            tls: None,
        }
    }
}

/// A request as the server's log keeps it.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Since the server's start.
    pub at: Duration,
    pub request: Received,
    /// 0: none was sent.
    pub status: u16,
}

struct State {
    /// Control ID, address, dataset; oldest first.
    entries: Vec<(u64, String, String)>,
    faults: VecDeque<(Fault, Option<u32>)>,
    /// Addresses in a full page.
    page: usize,
    log: Vec<Logged>,
    /// Requests that count for the rate limit.
    counted: Vec<Instant>,
    refused: usize,
    /// Connections that never get an answer.
    hung: Vec<Box<dyn Stream>>,
}

struct Shared {
    options: Options,
    started: Instant,
    stopping: AtomicBool,
    state: Mutex<State>,
}

/// The running server; it ends when this is dropped.
pub struct FeedServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// Unix time in seconds.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |t| t.as_secs())
}

impl FeedServer {
    /// Listens and serves each connection on a thread of its own.
    pub fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            options,
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            state: Mutex::new(State {
                entries: Vec::new(),
                faults: VecDeque::new(),
                page: PAGE,
                log: Vec::new(),
                counted: Vec::new(),
                refused: 0,
                hung: Vec::new(),
            }),
        });
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&for_thread);
                if let Ok(stream) = stream {
                    // A client that goes away in the middle is no error here.
                    thread::spawn(move || drop(serve(&shared, stream)));
                }
            }
        });
        Ok(FeedServer { address, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for `api_url`.
    pub fn url(&self) -> String {
        let tls = self.shared.options.tls.is_some();
        let (scheme, host) = if tls {
            ("https", "localhost".to_owned())
        } else {
            ("http", self.address.ip().to_string())
        };
        format!("{scheme}://{host}:{}/api", self.address.port())
    }

    /// Lists addresses in the dataset `sip`, as if the last of them had come in just now.
    pub fn list<A: ToString>(&self, addresses: &[A]) {
        self.shared.list(addresses);
    }

    /// The same with a control ID for each, counted up from `first` (but never below what is there).
    pub fn list_at<A: ToString>(&self, dataset: &str, first: u64, addresses: &[A]) {
        self.shared.list_at(dataset, first, addresses);
    }

    /// Takes addresses off the list.
    pub fn delist<A: ToString>(&self, addresses: &[A]) {
        self.shared.delist(addresses);
    }

    /// Answers the next `times` requests (`None`: all from now on) with this fault. Faults queue up.
    pub fn set_fault(&self, fault: Fault, times: Option<u32>) {
        self.shared.state().faults.push_back((fault, times));
    }

    /// Sends at most so many addresses in a page from now on.
    pub fn set_page(&self, addresses: usize) {
        self.shared.state().page = addresses;
    }

    /// Behaves from now on.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// Every request so far, control requests apart.
    pub fn requests(&self) -> Vec<Logged> {
        self.shared.state().log.clone()
    }

    /// Requests refused for the rate limit, faults apart.
    pub fn refused(&self) -> usize {
        self.shared.state().refused
    }
}

impl Drop for FeedServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.state().hung.clear();
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list<A: ToString>(&self, addresses: &[A]) {
        let first = (now() + 1).saturating_sub(addresses.len() as u64);
        self.list_at("sip", first, addresses);
    }

    fn list_at<A: ToString>(&self, dataset: &str, first: u64, addresses: &[A]) {
        self.delist(addresses);
        let mut state = self.state();
        let last = state.entries.last().map_or(0, |entry| entry.0);
        let first = first.max(last + 1);
        for (id, address) in (first..).zip(addresses) {
            let entry = (id, address.to_string(), dataset.to_owned());
            state.entries.push(entry);
        }
    }

    fn delist<A: ToString>(&self, addresses: &[A]) {
        let gone: std::collections::HashSet<String> =
            addresses.iter().map(ToString::to_string).collect();
        self.state()
            .entries
            .retain(|entry| !gone.contains(&entry.1));
    }

    /// The answer; `None`: there is none, and the connection hangs where the second is true.
    fn answer(&self, request: &Received) -> (Option<Reply>, bool) {
        let fault = self.next_fault();
        if fault.is_none() && self.over_the_limit() {
            return (Some(rate_limited(429)), false);
        }
        let reply = self.proper_answer(request);
        let key = &self.options.key;
        let path = request.path.as_str();
        let page =
            |ips: &str| Reply::new(200, format!("{{\"ipaddress\":{ips},\"ID\":\"{}\"}}", now()));
        let reply = match fault {
            None => reply,
            Some(Fault::Hang) => return (None, true),
            Some(Fault::Drop) => return (None, false),
            Some(Fault::RateLimited(None)) => rate_limited(429),
            Some(Fault::RateLimited(Some(seconds))) => {
                rate_limited(429).with("Retry-After", seconds)
            }
            Some(Fault::RateLimitedDate(seconds)) => {
                let date = |t: SystemTime| httpdate::fmt_http_date(t);
                let now = SystemTime::now();
                rate_limited(429)
                    .with("Date", date(now))
                    .with("Retry-After", date(now + Duration::from_secs(seconds)))
            }
            Some(Fault::RateLimited403) => rate_limited(403),
            Some(Fault::Unauthorized(status)) => unauthorized(status),
            Some(Fault::Status(status, wait)) => {
                let reply = Reply::new(status, "<html>trouble</html>");
                wait.map_or(reply.clone(), |s| reply.with("Retry-After", s))
            }
            Some(Fault::Truncated) => Reply {
                cut_at: Some(reply.body.len() / 2),
                ..reply
            },
            Some(Fault::HalfJson) => Reply::new(200, &reply.body[..reply.body.len() / 2]),
            Some(Fault::Html) => Reply::new(200, "<html><body>Please sign in</body></html>"),
            Some(Fault::Empty) => Reply::new(200, ""),
            Some(Fault::Giant) => Reply::new(200, vec![b' '; 2 << 20]),
            Some(Fault::SlowDrip) => Reply {
                slowly: true,
                ..reply
            },
            Some(Fault::SamePage) => self.page("sip", 0),
            Some(Fault::StringShape) => page("\"192.0.2.250\""),
            Some(Fault::NoNewBans(status)) => nothing_newer(status),
            Some(Fault::NoNewBansString(status)) => {
                Reply::new(status, r#"{"ipaddress":"no new bans","ID":"none"}"#)
            }
            Some(Fault::BareNone(status)) => Reply::new(status, r#"{"ID":"none"}"#),
            Some(Fault::Junk) => {
                page(r#"["192.0.2.251","<script>","1.2.3",null,["x"],7,"300.1.1.1"]"#)
            }
            Some(Fault::Poison) => page(
                r#"["127.0.0.1","0.0.0.0","224.0.0.1","::1","::","10.0.0.0/8","198.51.100.0/24","192.0.2.252"]"#,
            ),
            Some(Fault::Redirect(status, to)) => {
                Reply::new(status, "").with("Location", to.replace("{path}", path))
            }
            Some(Fault::Endless) => {
                let asked = serde_json::from_str::<serde_json::Value>(&request.body);
                let asked = asked
                    .ok()
                    .and_then(|body| body["id"].as_str()?.parse().ok());
                Reply::new(200, fault::endless_page(asked.unwrap_or(0), now()))
            }
            Some(Fault::EchoKey) => page(&format!("[\"key {key}\",\"192.0.2.253\"]")),
        };
        (Some(reply), false)
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut state = self.state();
        let (fault, times) = state.faults.front_mut()?;
        let fault = fault.clone();
        if let Some(times) = times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                state.faults.pop_front();
            }
        }
        Some(fault)
    }

    fn over_the_limit(&self) -> bool {
        let Some((limit, window)) = self.options.rate else {
            return false;
        };
        let now = Instant::now();
        let mut state = self.state();
        let (started, kind) = (self.started, self.options.window);
        state.counted.retain(|&at| match kind {
            Window::Sliding => now - at < window,
            Window::Fixed => {
                let number = |t: Instant| (t - started).as_nanos() / window.as_nanos();
                number(at) == number(now)
            }
        });
        if state.counted.len() >= limit {
            state.refused += 1;
            return true;
        }
        state.counted.push(now);
        false
    }

    fn proper_answer(&self, request: &Received) -> Reply {
        let key = self.options.key.as_str();
        let path = request.path.strip_prefix("/api").unwrap_or(&request.path);
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let bearer = request
            .header("authorization")
            .and_then(|v| v.strip_prefix("Bearer "));
        let json = || serde_json::from_str::<serde_json::Value>(&request.body).unwrap_or_default();
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["get" | "check"]) if bearer != Some(key) => unauthorized(403),
            ("POST", ["get"]) => {
                let body = json();
                let id = body["id"].as_str().and_then(|id| id.parse().ok());
                match (body["set"].as_str(), id) {
                    (Some(set @ ("sip" | "http" | "all")), Some(id)) => self.page(set, id),
                    _ => Reply::new(400, "{}"),
                }
            }
            ("POST", ["check"]) => self.check(json()["ipaddress"].as_str().unwrap_or_default()),
            ("GET", [given, "banned" | "check", ..]) if percent_decoded(given) != key => {
                unauthorized(403)
            }
            ("GET", [_, "banned"]) => self.page("sip", 0),
            ("GET", [_, "banned", id]) => id
                .parse()
                .map_or(Reply::new(400, "{}"), |id| self.page("sip", id)),
            ("GET", [_, "check", ip]) => self.check(ip),
            _ => Reply::new(404, "not found"),
        }
    }

    fn page(&self, set: &str, after: u64) -> Reply {
        let after = if after == 100 { 0 } else { after };
        let state = self.state();
        let entries = state.entries.iter();
        let newer =
            entries.filter(|(id, _, dataset)| *id > after && (set == "all" || set == dataset));
        let page: Vec<_> = newer.take(state.page).collect();
        match page.last() {
            None => nothing_newer(400),
            Some((id, ..)) => {
                let ips: Vec<&str> = page.iter().map(|(_, ip, _)| ip.as_str()).collect();
                let body = serde_json::json!({"ipaddress": ips, "ID": id.to_string()});
                Reply::new(200, body.to_string())
            }
        }
    }

    fn check(&self, ip: &str) -> Reply {
        if ip.parse::<std::net::IpAddr>().is_err() {
            return Reply::new(400, "{}");
        }
        let state = self.state();
        let found = state.entries.iter().find(|entry| entry.1 == ip);
        match found {
            Some((id, ..)) => Reply::new(200, format!(r#"{{"ipaddress":["{ip}"],"ID":"{id}"}}"#)),
            None => Reply::new(400, r#"{"ipaddress":["not blocked"],"ID":"none"}"#),
        }
    }

    /// What the development program's control port can do.
    fn control(&self, request: &Received) -> Option<Reply> {
        let words: Vec<&str> = request.path.strip_prefix("/control/")?.split('/').collect();
        let mut lines: Vec<&str> = request.body.split_whitespace().collect();
        let words = match words.as_slice() {
            // Also in the path: /control/fault/NAME/TIMES
            ["fault", rest @ ..] if !rest.is_empty() => {
                lines = rest.to_vec();
                vec!["fault"]
            }
            words => words.to_vec(),
        };
        Some(match (request.method.as_str(), words.as_slice()) {
            ("POST", ["list"]) => {
                self.list(&lines);
                Reply::new(200, "listed\n")
            }
            ("POST", ["delist"]) => {
                self.delist(&lines);
                Reply::new(200, "delisted\n")
            }
            ("POST", ["fault"]) if lines == ["none"] => {
                self.state().faults.clear();
                Reply::new(200, "behaving\n")
            }
            ("POST", ["fault"]) => match lines.first().map(|name| name.parse()) {
                Some(Ok(fault)) => {
                    let times = lines.get(1).and_then(|n| n.parse().ok());
                    self.state().faults.push_back((fault, times));
                    Reply::new(200, "set\n")
                }
                _ => Reply::new(400, "NAME[:ARGUMENT] [TIMES], or none\n"),
            },
            ("GET", ["requests"]) => {
                let state = self.state();
                let line = |r: &Logged| {
                    let Received {
                        method, path, body, ..
                    } = &r.request;
                    format!("{} {} {method} {path} {body}\n", r.at.as_millis(), r.status)
                };
                Reply::new(200, state.log.iter().map(line).collect::<String>())
            }
            ("GET", ["refused"]) => Reply::new(200, format!("{}\n", self.state().refused)),
            _ => Reply::new(404, "list, delist, fault, requests, refused\n"),
        })
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match &shared.options.tls {
        None => Box::new(stream),
        Some(config) => {
            let session =
                rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            Box::new(rustls::StreamOwned::new(session, stream))
        }
    };
    let mut stream = BufReader::new(stream);
    while let Some(request) = wire::read_request(&mut stream)? {
        if let Some(reply) = shared.control(&request) {
            wire::send(stream.get_mut().as_mut(), &reply)?;
            continue;
        }
        let at = shared.started.elapsed();
        let (reply, hang) = shared.answer(&request);
        let status = reply.as_ref().map_or(0, |reply| reply.status);
        let logged = Logged {
            at,
            request,
            status,
        };
        shared.state().log.push(logged);
        let Some(reply) = reply else {
            if hang {
                shared.state().hung.push(stream.into_inner());
            }
            return Ok(());
        };
        if !wire::send(stream.get_mut().as_mut(), &reply)? {
            return Ok(());
        }
    }
    Ok(())
}

fn nothing_newer(status: u16) -> Reply {
    Reply::new(status, r#"{"ipaddress":["no new bans"],"ID":"none"}"#)
}

fn rate_limited(status: u16) -> Reply {
    Reply::new(
        status,
        r#"{"ipaddress":"rate limit exceeded","ID":"unauthorized"}"#,
    )
}

fn unauthorized(status: u16) -> Reply {
    Reply::new(status, r#"{"ipaddress":"none","ID":"unauthorized"}"#)
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        out.push(match byte {
            b'%' => (digit().unwrap_or(0) * 16 + digit().unwrap_or(0)) as u8,
            _ => byte,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}
