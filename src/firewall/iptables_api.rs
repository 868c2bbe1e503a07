//! The `iptables-api` backend: the HTTP daemon of that name, which keeps an iptables chain.
//!
//! Its interface, read in its source: `GET /addip/{ip}` and `/removeip/{ip}` answer 200
//! `{"success":"added"}`, adding and removing twice is no error; whatever goes wrong is 400
//! `{"error":".."}`. `GET /flushchain` empties the chain for both families and always answers 200
//! `{"result":"ipv4 flushed. ipv6 flushed. "}`, with the error in place of `flushed` where one failed.
//! There is no list, no expiry and no way to name a prefix: the address must be a plain one, in the path
//! and in the body of the `POST` form alike. So prefixes are left out and counted, and whoever owns this
//! backend removes bans when they end. A call runs iptables several times and takes some 23 ms.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;

use super::{Change, Error, Firewall, LogLine, Set};
use crate::log::Level;
use crate::quote::{foreign, plain};

/// Limit for one whole call. The daemon needs some 23 ms; it may wait for the lock of iptables.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Calls per [`Firewall::apply`]: about 0.4 s of work, so that new changes and the end are noticed.
const BATCH: usize = 16;
/// Largest answer that is read, bytes; a real one has less than 100, an error message perhaps 1,000.
const LONGEST_ANSWER: u64 = 16 << 10;
/// So many refusals in a row are an outage, not a matter of single addresses.
const REFUSALS: u32 = 16;

/// A chain kept through iptables-api.
#[derive(Debug)]
pub struct IptablesApi {
    base: String,
    agent: Agent,
    /// What is in the chain for us, and for which sets: the chain has one entry for both.
    present: HashMap<IpAddr, Members>,
    refused_in_a_row: u32,
    skipped: u64,
    told_of_prefixes: bool,
    told_of_refusal: bool,
    notes: Vec<LogLine>,
}

/// The sets that want an address in the chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Members {
    feed: bool,
    local: bool,
}

impl Members {
    fn of(&mut self, set: Set) -> &mut bool {
        match set {
            Set::Feed => &mut self.feed,
            Set::Local => &mut self.local,
        }
    }
}

/// What the daemon says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    success: Option<String>,
    result: Option<String>,
    error: Option<String>,
}

/// Why a call did not do what it should.
enum Failure {
    /// The daemon is there and will not: about this address.
    Refused(String),
    /// No daemon, or not one that can be understood.
    Down(String),
}

impl IptablesApi {
    /// A backend for the daemon at `url` (`http://127.0.0.1:8082`); nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the URL does not begin with `http://` or `https://`.
    pub fn new(url: &str) -> Result<Self, Error> {
        let base = url.trim_end_matches('/').to_owned();
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(Error::Unsupported(format!(
                "iptables-api: \"{}\" is no http:// or https:// URL",
                foreign(url, 80)
            )));
        }
        let agent = Agent::config_builder()
            .timeout_global(Some(CALL_TIMEOUT))
            // A connection kept open would be found dead after the daemon's restart.
            .max_idle_connections(0)
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        Ok(IptablesApi {
            base,
            agent,
            present: HashMap::new(),
            refused_in_a_row: 0,
            skipped: 0,
            told_of_prefixes: false,
            told_of_refusal: false,
            notes: Vec::new(),
        })
    }

    /// One call: status and body.
    fn get(&self, path: &str) -> Result<(u16, String), Failure> {
        let down = |error: ureq::Error| Failure::Down(error.to_string());
        let url = format!("{}{path}", self.base);
        let mut response = self.agent.get(&url).call().map_err(down)?;
        let body = response
            .body_mut()
            .with_config()
            .limit(LONGEST_ANSWER)
            .read_to_string()
            .map_err(down)?;
        Ok((response.status().as_u16(), body))
    }

    /// One call that must do something.
    fn call(&self, path: &str) -> Result<Answer, Failure> {
        let (status, body) = self.get(path)?;
        let answer: Answer = serde_json::from_str(&body).unwrap_or_default();
        match (status, answer) {
            (200, answer) if answer.success.is_some() || answer.result.is_some() => Ok(answer),
            (
                400,
                Answer {
                    error: Some(text), ..
                },
            ) => Err(Failure::Refused(brief(&text))),
            (status, Answer { error, .. }) => {
                let text = error.map_or(String::new(), |text| format!(": {}", brief(&text)));
                Err(Failure::Down(format!("answer {status}{text}")))
            }
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.present.clear();
        let result = match self.call("/flushchain") {
            Ok(answer) => answer.result.unwrap_or_default(),
            Err(Failure::Refused(text) | Failure::Down(text)) => return Err(transient(&text)),
        };
        if result.contains("ipv4") && !result.contains("ipv4 flushed") {
            return Err(transient(&brief(&result)));
        }
        if result.contains("ipv6") && !result.contains("ipv6 flushed") {
            self.refused(&result);
        }
        Ok(())
    }

    /// Tells of a refusal once, until a call succeeds again.
    fn refused(&mut self, text: &str) {
        if !std::mem::replace(&mut self.told_of_refusal, true) {
            let text = format!("firewall iptables-api refuses calls: {}", brief(text));
            self.notes.push((Level::Warn, text));
        }
    }

    /// Leaves a prefix out.
    fn skip(&mut self, change: &Change) {
        if matches!(change, Change::Add(_)) {
            self.skipped += 1;
            if !std::mem::replace(&mut self.told_of_prefixes, true) {
                let text = format!(
                    "firewall iptables-api takes addresses only: prefixes such as {} are enforced by \
                     apiban_check() alone (block_v6_prefix=128 makes IPv6 bans addresses)",
                    change.subnet()
                );
                self.notes.push((Level::Warn, text));
            }
        }
    }

    fn change(&mut self, change: &Change) -> Result<(), Failure> {
        let set = change.set();
        let ip = change.subnet().address();
        let before = self.present.get(&ip).copied().unwrap_or_default();
        let mut after = before;
        *after.of(set) = matches!(change, Change::Add(element) if element.seconds_left > 0);
        let none = Members::default();
        if before == none && after != none {
            self.call(&format!("/addip/{ip}"))?;
        } else if before != none && after == none {
            self.call(&format!("/removeip/{ip}"))?;
        } else {
            // Nothing for the chain: it has no times and one entry for both sets.
            self.store(ip, after);
            return Ok(());
        }
        self.refused_in_a_row = 0;
        self.told_of_refusal = false;
        self.store(ip, after);
        Ok(())
    }

    fn store(&mut self, ip: IpAddr, members: Members) {
        if members == Members::default() {
            self.present.remove(&ip);
        } else {
            self.present.insert(ip, members);
        }
    }
}

impl Firewall for IptablesApi {
    fn name(&self) -> &'static str {
        "iptables-api"
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.flush()
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        let mut again = Vec::new();
        for change in changes {
            if !change.subnet().is_host() {
                self.skip(change);
                continue;
            }
            match self.change(change) {
                Ok(()) => {}
                Err(Failure::Refused(_)) => again.push(change),
                Err(Failure::Down(text)) => return Err(transient(&text)),
            }
        }
        // Another program may have held the lock of iptables: each gets a second chance.
        for change in again {
            match self.change(change) {
                Ok(()) => {}
                Err(Failure::Refused(text)) => {
                    self.skipped += 1;
                    self.refused_in_a_row += 1;
                    self.refused(&text);
                    if self.refused_in_a_row >= REFUSALS {
                        self.refused_in_a_row = 0;
                        return Err(transient(&text));
                    }
                }
                Err(Failure::Down(text)) => return Err(transient(&text)),
            }
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<(), Error> {
        // The daemon serves nothing here and says so: any answer shows that it lives.
        match self.get("/") {
            Ok((500.., _)) => Err(transient("answer 5xx")),
            Ok(_) => Ok(()),
            Err(Failure::Refused(text) | Failure::Down(text)) => Err(transient(&text)),
        }
    }

    fn clear(&mut self, set: Set) -> Result<bool, Error> {
        let mut only = Members::default();
        *only.of(set) = true;
        if self.present.values().any(|members| *members != only) {
            return Ok(false);
        }
        self.flush().map(|()| true)
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.flush()
    }

    fn batch_size(&self) -> usize {
        BATCH
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }

    fn drain_notes(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.notes)
    }
}

fn transient(text: &str) -> Error {
    Error::Transient(format!("iptables-api: {text}"))
}

/// Foreign text on one short line.
fn brief(text: &str) -> String {
    foreign(&plain(&text.trim()), 200).to_string()
}
