//! The `iptables-api` backend: the HTTP daemon of that name, which keeps an iptables chain.
//!
//! Its interface, read in its source: `GET /addip/{ip}` and `/removeip/{ip}` answer 200
//! `{"success":"added"}`, adding and removing twice is no error; whatever goes wrong is 400
//! `{"error":".."}`. `GET /flushchain` empties the chain for both families and always answers 200
//! `{"result":"ipv4 flushed. ipv6 flushed. "}`, with the error in place of `flushed` for a family that failed.
//! There is no list, no expiry and no way to name a prefix: the address must be a plain one, in the path
//! and in the body of the `POST` form alike. So prefixes are left out and counted, and the owner of this
//! backend removes bans when they end. A call runs iptables several times and takes some 23 ms.
//!
//! The chain may hold entries of others. The backend remembers which addresses it put there itself, with
//! [`IptablesApi::remembering`] also over restarts, and removes no other one. It empties the chain as a whole only in [`Firewall::reset`] and
//! [`Firewall::remove`], which the operator asks for with `firewall_flush`, and after a reset if nothing
//! is to be left in the chain.

mod memory;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;

use super::{Change, Element, Error, Facts, Firewall, LogLine, Report, Scope};
use crate::address::Subnet;
use crate::base_url::BaseUrl;
use crate::log::Level;
use crate::quote::{foreign, plain};
use memory::Memory;

/// Limit for one whole call. The daemon needs some 23 ms; it may wait for the lock of iptables.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Calls per [`Firewall::apply`]: about 0.4 s of work, so that new changes and the end are noticed.
const BATCH: usize = 16;
/// Largest answer that is read, bytes; a real one has less than 100, an error message perhaps 1,000.
const LONGEST_ANSWER: u64 = 16 << 10;
/// So many refusals in a row are an outage, not a matter of single addresses.
const REFUSALS: u32 = 16;

/// What this backend can do. Each address takes it 23 ms, so by default it gets local bans only.
pub const FACTS: Facts = Facts {
    name: "iptables-api",
    ends_bans_itself: false,
    is_limited: false,
    scopes_by_port: false,
    knows_what_it_holds: false,
    default_scope: Scope::Local,
};

/// A chain kept through iptables-api.
#[derive(Debug)]
pub struct IptablesApi {
    base: BaseUrl,
    agent: Agent,
    /// The addresses that we put into the chain, or tried to, and whether they are certainly there.
    ours: HashMap<IpAddr, bool>,
    /// The operator wanted the chain emptied at the start: it holds nothing of others.
    owns_chain: bool,
    /// Where `ours` is kept over restarts.
    memory: Option<Memory>,
    /// What the memory says has not yet been compared with the chain.
    unproven: bool,
    told_of_memory: bool,
    refused_in_a_row: u32,
    skipped: u64,
    told_of_prefixes: bool,
    told_of_refusal: bool,
    notes: Vec<LogLine>,
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
    /// A backend for the daemon at `base` (`http://127.0.0.1:8082`); nothing is sent yet.
    pub fn new(base: &BaseUrl) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(CALL_TIMEOUT))
            // A connection kept open would be found dead after the daemon's restart.
            .max_idle_connections(0)
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        IptablesApi {
            base: base.clone(),
            agent,
            ours: HashMap::new(),
            owns_chain: false,
            memory: None,
            unproven: false,
            told_of_memory: false,
            refused_in_a_row: 0,
            skipped: 0,
            told_of_prefixes: false,
            told_of_refusal: false,
            notes: Vec::new(),
        }
    }

    /// Remembers in the file `path` what is in the chain, and goes on from what an earlier process noted
    /// there. For a chain that is not emptied at the start.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the file is there and cannot be used; it is left as it is.
    pub fn remembering(mut self, path: &Path) -> Result<Self, Error> {
        let (memory, held) = Memory::open(path, self.base.as_str()).map_err(|error| {
            Error::Unsupported(format!(
                "iptables-api: {}: {}; it tells what is in the chain. Move it away if that is known to be empty",
                path.display(),
                plain(&error)
            ))
        })?;
        self.unproven = !held.is_empty();
        self.ours = held.into_iter().map(|ip| (ip, true)).collect();
        self.memory = Some(memory);
        Ok(self)
    }

    /// True if an earlier process noted what it put into the chain.
    pub fn remembers(&self) -> bool {
        !self.ours.is_empty()
    }

    /// Asks for one of the addresses that the memory says are in the chain. The chain lives in the kernel: a
    /// restart of the host empties it as a whole.
    fn prove(&mut self, wanted: &HashSet<IpAddr>) -> Result<(), Error> {
        let Some(ip) = self.ours.keys().find(|ip| wanted.contains(ip)).copied() else {
            // Nothing of it is needed, and removing what is not there is no error.
            return Ok(());
        };
        // It adds what is not there, and says so of what is. A daemon that is too old for it says 404.
        match self.get(&format!("/puship/{ip}")) {
            Ok((400, body)) if body.contains("already exists") => {}
            Ok((..=499, _)) => self.ours.values_mut().for_each(|certain| *certain = false),
            Ok((status, _)) => return Err(self.down(&format!("answer {status}"))),
            Err(Failure::Refused(text) | Failure::Down(text)) => return Err(self.down(&text)),
        }
        self.unproven = false;
        Ok(())
    }

    /// Carries out a note for the next process. A full disk is reported once, and the firewall goes on.
    fn note(&mut self, write: impl FnOnce(&mut Memory) -> io::Result<()>) {
        let Some(Err(error)) = self.memory.as_mut().map(write) else {
            return;
        };
        if !std::mem::replace(&mut self.told_of_memory, true) {
            let text = format!(
                "firewall iptables-api: what is in the chain cannot be noted for the next start: {}",
                plain(&error)
            );
            self.notes.push((Level::Warn, text));
        }
    }

    /// One call: status and body.
    fn get(&self, path: &str) -> Result<(u16, String), Failure> {
        let down = |error: ureq::Error| {
            let text = match error {
                ureq::Error::Io(error) => error.to_string(),
                other => other.to_string(),
            };
            Failure::Down(format!("{}: {}", self.base, brief(&text)))
        };
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
        let result = match self.call("/flushchain") {
            Ok(answer) => answer.result.unwrap_or_default(),
            Err(Failure::Refused(text) | Failure::Down(text)) => return Err(self.down(&text)),
        };
        if result.contains("ipv4") && !result.contains("ipv4 flushed") {
            return Err(self.down(&brief(&result)));
        }
        self.ours.clear();
        self.note(Memory::clear);
        if result.contains("ipv6") && !result.contains("ipv6 flushed") {
            self.refused(&result);
        }
        Ok(())
    }

    /// Reports a refusal once, until a call succeeds again.
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

    /// Makes the chain follow one change of an address.
    fn change(&mut self, change: &Change) -> Result<(), Failure> {
        let ip = change.subnet().address();
        if matches!(change, Change::Add(element) if element.seconds_left > 0) {
            // The chain has no times: what is certainly there needs no call.
            if self.ours.get(&ip) == Some(&true) {
                return Ok(());
            }
            // Noted first: a call whose answer is lost may have added the address all the same.
            self.ours.insert(ip, false);
            self.call(&format!("/addip/{ip}"))?;
            self.ours.insert(ip, true);
        } else {
            if !self.ours.contains_key(&ip) {
                return Ok(());
            }
            self.call(&format!("/removeip/{ip}"))?;
            self.ours.remove(&ip);
            self.note(|memory| memory.removed(&[ip]));
        }
        self.refused_in_a_row = 0;
        self.told_of_refusal = false;
        Ok(())
    }

    /// The daemon is out of reach. If it comes back it may have lost the chain: nothing in it is certain.
    fn down(&mut self, text: &str) -> Error {
        self.ours.values_mut().for_each(|certain| *certain = false);
        transient(text)
    }
}

impl Firewall for IptablesApi {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.owns_chain = true;
        Ok(())
    }

    fn reconcile(&mut self, wanted: &[Element]) -> Result<Vec<Change>, Error> {
        let hosts: HashSet<IpAddr> = wanted
            .iter()
            .filter(|element| element.subnet.is_host())
            .map(|element| element.subnet.address())
            .collect();
        if hosts.is_empty() && self.owns_chain {
            // One call instead of one for each address.
            self.flush()?;
        }
        if self.unproven {
            self.prove(&hosts)?;
        }
        let gone = self
            .ours
            .keys()
            .filter(|ip| !hosts.contains(ip))
            .map(|ip| Change::Remove(Subnet::host(*ip)));
        let missing = wanted
            .iter()
            .filter(|element| self.ours.get(&element.subnet.address()) != Some(&true))
            .map(|element| Change::Add(*element));
        Ok(gone.chain(missing).collect())
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        // Noted first: a process that ends in the middle may have added them all the same.
        let is_new = |ip: &IpAddr| !self.ours.contains_key(ip);
        let added: Vec<IpAddr> = changes
            .iter()
            .filter(|change| matches!(change, Change::Add(element) if element.seconds_left > 0))
            .filter(|change| change.subnet().is_host())
            .map(|change| change.subnet().address())
            .filter(is_new)
            .collect();
        // Before that, while all that is in the chain is among ours.
        let ours = std::mem::take(&mut self.ours);
        self.note(|memory| match memory.is_long(ours.len()) {
            true => memory.rewrite(ours.keys()),
            false => Ok(()),
        });
        self.ours = ours;
        self.note(|memory| memory.adding(&added));
        let mut again = Vec::new();
        for change in changes {
            if !change.subnet().is_host() {
                self.skip(change);
                continue;
            }
            match self.change(change) {
                Ok(()) => {}
                Err(Failure::Refused(_)) => again.push(change),
                Err(Failure::Down(text)) => return Err(self.down(&text)),
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
                Err(Failure::Down(text)) => return Err(self.down(&text)),
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

    fn intact(&mut self) -> Result<bool, Error> {
        // The daemon lists nothing.
        Ok(true)
    }

    fn report(&mut self) -> Result<Report, Error> {
        let certain = self.ours.values().filter(|certain| **certain).count();
        Ok(Report {
            elements: Some(certain as u64),
            ..Report::default()
        })
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
