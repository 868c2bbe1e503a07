//! Sends SIP OPTIONS from a source address of your choice and says what became of them.
//!
//! ```text
//! sip_ping [--from ADDRESS] [--tcp] [--count N] [--until answered|dropped] [--within SECONDS]
//!          [--control ADDRESS] [--flood RATE] HOST:PORT
//! ```
//!
//! A request counts as dropped when later requests from the control address (127.0.0.5) have been
//! answered and it has not. With `--until` it goes on until the first request that is answered or
//! dropped, and says how long that took. With `--flood` it sends `--count` INVITEs over UDP, RATE a second, and waits
//! for no answer. Exit status: 0 as asked, 1 not, 2 wrong arguments.

use apiban_testing::sip::{drops, Sip};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Requests of the control address that prove a drop: several for each worker of a usual server.
const ROUNDS: u32 = 16;
/// Pause between two requests under `--until`: precise enough for people.
const PAUSE: Duration = Duration::from_millis(10);

struct Options {
    to: SocketAddr,
    from: IpAddr,
    control: IpAddr,
    tcp: bool,
    count: u32,
    until_dropped: Option<bool>,
    within: Duration,
    /// INVITEs a second.
    flood: Option<u32>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("sip_ping: {error}");
            return ExitCode::from(2);
        }
    };
    let done = match (options.flood, options.until_dropped) {
        (Some(rate), _) => flood(&options, rate).map(|()| true),
        (None, Some(dropped)) => wait(&options, dropped),
        (None, None) => count(&options).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sip_ping: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Sends `count` requests; prints `from ADDRESS: sent N, answered N, dropped N`.
fn count(options: &Options) -> io::Result<()> {
    let mut dropped = 0;
    for _ in 0..options.count {
        dropped += u32::from(is_dropped(options)?);
    }
    let (from, sent) = (options.from, options.count);
    let answered = sent - dropped;
    println!("from {from}: sent {sent}, answered {answered}, dropped {dropped}");
    Ok(())
}

/// Sends requests until one is dropped, or answered; prints the milliseconds that took.
fn wait(options: &Options, dropped: bool) -> io::Result<bool> {
    let begin = Instant::now();
    loop {
        if is_dropped(options)? == dropped {
            println!("{}", begin.elapsed().as_millis());
            return Ok(true);
        }
        if begin.elapsed() >= options.within {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Sends `count` INVITEs at a steady rate; prints `from ADDRESS: sent N in T s`.
fn flood(options: &Options, rate: u32) -> io::Result<()> {
    let text = Sip::udp(options.from, options.to)?.text("INVITE", "flood");
    let socket = UdpSocket::bind((options.from, 0))?;
    let begin = Instant::now();
    for sent in 0..options.count {
        let due = Duration::from_secs(1) * sent / rate.max(1);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        socket.send_to(text.as_bytes(), options.to)?;
    }
    let (from, sent) = (options.from, options.count);
    let took = begin.elapsed().as_secs_f64();
    println!("from {from}: sent {sent} in {took:.1} s");
    Ok(())
}

fn is_dropped(options: &Options) -> io::Result<bool> {
    let mut probe = if options.tcp {
        Sip::tcp(options.from, options.to)?
    } else {
        Sip::udp(options.from, options.to)?
    };
    drops(
        &mut probe,
        &mut Sip::udp(options.control, options.to)?,
        ROUNDS,
    )
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut to = None;
    let mut options = Options {
        to: (Ipv4Addr::LOCALHOST, 5060).into(),
        from: Ipv4Addr::LOCALHOST.into(),
        control: Ipv4Addr::new(127, 0, 0, 5).into(),
        tcp: false,
        count: 1,
        until_dropped: None,
        within: Duration::from_secs(30),
        flood: None,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--from" => options.from = number(&value()?)?,
            "--control" => options.control = number(&value()?)?,
            "--count" => options.count = number(&value()?)?,
            "--within" => options.within = Duration::from_secs(number(&value()?)?),
            "--flood" => options.flood = Some(number(&value()?)?),
            "--tcp" => options.tcp = true,
            "--until" => {
                options.until_dropped = Some(match value()?.as_str() {
                    "dropped" => true,
                    "answered" => false,
                    other => return Err(format!("--until answered or dropped, not {other}")),
                });
            }
            other => to = Some(number(other)?),
        }
    }
    options.to = to.ok_or("where to? HOST:PORT is missing")?;
    if !options.to.ip().is_loopback() {
        return Err("only loopback: it is made to try things out on one machine".into());
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not understood: {text}"))
}
