//! A stand-in for iptables-api with its real interface, answers word for word, and faults on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// What goes wrong with every call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// No answer until the fault changes.
    Hang,
    /// The process is stopped: the kernel takes connections in its name, and that is all.
    Stop,
    /// An answer that is no HTTP.
    Garbage,
    /// 200 with something that is no JSON.
    NoJson,
    /// 500 as a proxy gives it.
    Status500,
    /// The daemon's own way to say that iptables failed, for IPv6 only.
    RefuseV6,
}

/// What the daemon did and has.
#[derive(Debug, Default)]
pub struct State {
    /// The chain, in order.
    pub chain: Vec<String>,
    /// Paths asked for.
    pub requests: Vec<String>,
    /// The most calls that were under way at once.
    pub most_at_once: usize,
    /// How long each answer takes.
    pub delay: Duration,
    at_once: usize,
    /// How long a call takes at the least.
    pace: Duration,
    fault: Fault,
    stopped: bool,
}

/// State, and a bell for those who hang.
type Shared = Arc<(Mutex<State>, Condvar)>;

/// A running daemon; it stops when dropped.
pub struct Daemon {
    shared: Shared,
    address: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let mut daemon = Daemon {
            shared: Shared::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            listener: None,
        };
        daemon.revive();
        daemon
    }

    /// The URL of the daemon.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The state, to look at or to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    /// A sorted copy of the chain.
    pub fn chain(&self) -> Vec<String> {
        let mut chain = self.state().chain.clone();
        chain.sort();
        chain
    }

    /// How often a path that begins like this was asked for.
    pub fn count(&self, path: &str) -> usize {
        let state = self.state();
        state
            .requests
            .iter()
            .filter(|asked| asked.starts_with(path))
            .count()
    }

    /// From now on this goes wrong.
    pub fn fail(&self, fault: Fault) {
        self.state().fault = fault;
        self.shared.1.notify_all();
    }

    /// From now on each call takes this long; the real daemon's take some 23 ms.
    pub fn pace(&self, pace: Duration) {
        self.state().pace = pace;
    }

    /// The daemon dies; the chain is the kernel's and stays.
    pub fn die(&mut self) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        self.state().stopped = true;
        self.shared.1.notify_all();
        // Wakes the listener, which may have gone already.
        drop(TcpStream::connect(self.address));
        listener.join().unwrap();
    }

    /// It is started again on the same port.
    pub fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.address = listener.local_addr().unwrap();
        self.state().stopped = false;
        let shared = Arc::clone(&self.shared);
        self.listener = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut state = shared.0.lock().unwrap();
                while state.fault == Fault::Stop && !state.stopped {
                    state = shared.1.wait(state).unwrap();
                }
                if state.stopped {
                    break;
                }
                drop(state);
                let shared = Arc::clone(&shared);
                // An error is a client that went away.
                std::thread::spawn(move || stream.map(|stream| serve(&shared, stream)));
            }
        }));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.die();
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut state = shared.0.lock().unwrap();
    state.at_once += 1;
    state.most_at_once = state.most_at_once.max(state.at_once);
    state.requests.push(path.to_owned());
    while matches!(state.fault, Fault::Hang | Fault::Stop) && !state.stopped {
        state = shared.1.wait(state).unwrap();
    }
    let pace = state.pace;
    drop(state);
    std::thread::sleep(pace);
    state = shared.0.lock().unwrap();
    let answer = match state.fault {
        _ if state.stopped => String::new(),
        Fault::Garbage => "\u{1}\u{2}not HTTP at all\r\n\r\n".to_owned(),
        Fault::NoJson => http(200, "<html>Welcome</html>"),
        Fault::Status500 => http(500, "{\"error\":\"upstream\"}"),
        fault => {
            let (status, body) = handle(&mut state.chain, method, path, fault);
            http(status, &body)
        }
    };
    state.at_once -= 1;
    let delay = state.delay;
    drop(state);
    std::thread::sleep(delay);
    stream.write_all(answer.as_bytes())
}

fn http(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// `addIPAddress`, `removeIPAddress` and `flushChain` of go/iptables-api.go.
fn handle(chain: &mut Vec<String>, method: &str, path: &str, fault: Fault) -> (u16, String) {
    let success = |text: &str| (200, format!("{{\"success\":\"{text}\"}}\n"));
    let error = |text: &str| (400, format!("{{\"error\":\"{text}\"}}\n"));
    let parts: Vec<_> = path.split('/').skip(1).collect();
    match (method, parts.as_slice()) {
        ("GET", ["flushchain"]) => {
            chain.clear();
            (
                200,
                "{\"result\":\"ipv4 flushed. ipv6 flushed. \"}\n".to_owned(),
            )
        }
        ("GET", [verb @ ("addip" | "blockip" | "removeip" | "unblockip"), ip]) => {
            match ip.parse::<IpAddr>() {
                Err(_) => error("only valid ip addresses supported"),
                Ok(IpAddr::V6(_)) if fault == Fault::RefuseV6 => {
                    error("running [/usr/sbin/ip6tables ..]: exit status 3")
                }
                Ok(_) if verb.ends_with("addip") || *verb == "blockip" => {
                    if !chain.iter().any(|known| known == ip) {
                        chain.push((*ip).to_owned());
                    }
                    success("added")
                }
                Ok(_) => {
                    chain.retain(|known| known != ip);
                    success("deleted")
                }
            }
        }
        ("GET", ["puship", ip]) if ip.parse::<IpAddr>().is_ok() => {
            if chain.iter().any(|known| known == ip) {
                return error("ip already exists");
            }
            chain.insert(0, (*ip).to_owned());
            success("pushed")
        }
        ("GET", [""]) => (405, String::new()),
        _ => (404, "404 page not found\n".to_owned()),
    }
}
