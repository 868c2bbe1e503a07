//! A stand-in for the APIBAN service, for development and tests:
//!
//! `cargo run -p apiban-testing --bin feed_server -- --listen 127.0.0.1:0 --key KEY [--list FILE] [--rate N/SECONDS] [--stdin]`
//!
//! The first line on stdout is the address it listens on. On the same port `POST /control/list`,
//! `POST /control/delist` (addresses in the body), `POST /control/fault` (`NAME[:ARGUMENT] [TIMES]` or
//! `none` in the body, or in the path as `/control/fault/NAME[/TIMES]`), `GET /control/requests` and
//! `GET /control/refused` steer it. With `--stdin` it ends at the end of its standard input.

use std::io::{self, Read, Write};
use std::time::Duration;

use apiban_testing::feed_server::{FeedServer, Options, Window};

const USAGE: &str =
    "--listen ADDRESS:PORT --key KEY [--list FILE] [--rate N/SECONDS] [--fixed-window] [--stdin]";

fn main() {
    if let Err(problem) = run() {
        eprintln!("feed_server: {problem}\nusage: feed_server {USAGE}");
        std::process::exit(2);
    }
}

fn run() -> Result<(), String> {
    let mut options = Options::new("");
    let (mut list, mut stdin) = (None, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--listen" => {
                let value = value()?;
                options.listen = value.parse().map_err(|_| format!("bad address {value}"))?;
            }
            "--key" => options.key = value()?,
            "--list" => list = Some(value()?),
            "--rate" => {
                let value = value()?;
                let rate = value
                    .split_once('/')
                    .and_then(|(n, s)| Some((n.parse().ok()?, s.parse().ok()?)));
                let (n, seconds) = rate.ok_or(format!("bad rate {value}"))?;
                options.rate = Some((n, Duration::from_secs(seconds)));
            }
            "--fixed-window" => options.window = Window::Fixed,
            "--stdin" => stdin = true,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    let addresses = match &list {
        Some(file) => std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?,
        None => String::new(),
    };
    let server = FeedServer::start(options).map_err(|error| error.to_string())?;
    server.list(&addresses.split_whitespace().collect::<Vec<_>>());
    println!("{}", server.address());
    io::stdout().flush().map_err(|error| error.to_string())?;
    if stdin {
        // Ends with whoever holds the other end.
        drop(io::stdin().read_to_end(&mut Vec::new()));
        return Ok(());
    }
    loop {
        std::thread::park();
    }
}
