//! The addresses of host names. A thread asks, because a name server may let the caller wait.
//!
//! The system's resolver is asked, which knows A and AAAA records (and `/etc/hosts`) and neither SRV nor
//! NAPTR (RFC 3263 section 4): a name that has only those has no address here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use std::{io, thread};

use crate::clock::UnixMillis;
use crate::warning;

/// How long the addresses of a name are used before it is asked again.
const LIFETIME: Duration = Duration::from_secs(60);

/// The addresses of the names that were asked for so far.
pub struct Resolver {
    names: Sender<BTreeSet<String>>,
    answers: Receiver<BTreeMap<String, Vec<IpAddr>>>,
    known: BTreeMap<String, Vec<IpAddr>>,
    /// The names of this round.
    wanted: BTreeSet<String>,
    /// The names that were asked last.
    asked: BTreeSet<String>,
    /// The names about which a warning has been written.
    reported: BTreeSet<String>,
    next: UnixMillis,
}

impl Resolver {
    /// Starts the thread; `waker` ends the sleep of the process that takes the answers.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn spawn(waker: Box<dyn Fn() + Send>) -> io::Result<Self> {
        let (names, inbox) = mpsc::channel::<BTreeSet<String>>();
        let (outbox, answers) = mpsc::channel();
        thread::Builder::new()
            .name("apiban names".to_owned())
            .spawn(move || {
                while let Ok(names) = inbox.recv() {
                    let answer = names.into_iter().map(|name| {
                        let found = resolve(&name);
                        (name, found)
                    });
                    if outbox.send(answer.collect()).is_err() {
                        return;
                    }
                    waker();
                }
            })?;
        Ok(Resolver {
            names,
            answers,
            known: BTreeMap::new(),
            wanted: BTreeSet::new(),
            asked: BTreeSet::new(),
            reported: BTreeSet::new(),
            next: UnixMillis::ZERO,
        })
    }

    /// The addresses known of this name, none at first. A name that no longer resolves keeps the
    /// addresses it had: trouble of a name server must not get a carrier banned.
    pub fn addresses(&mut self, name: &str) -> &[IpAddr] {
        self.take_answers();
        self.wanted.insert(name.to_owned());
        self.known.get(name).map_or(&[], Vec::as_slice)
    }

    /// Ends a round: asks for the names of this round if they changed or the answers are old, and
    /// forgets all others.
    pub fn ask(&mut self, now: UnixMillis) {
        self.take_answers();
        let wanted = std::mem::take(&mut self.wanted);
        self.known.retain(|name, _| wanted.contains(name));
        self.reported.retain(|name| wanted.contains(name));
        if !wanted.is_empty() && (now >= self.next || wanted != self.asked) {
            self.next = now + LIFETIME;
            // An error means that the thread is gone: the addresses known stay in use.
            let _ = self.names.send(wanted.clone());
        }
        self.asked = wanted;
    }

    fn take_answers(&mut self) {
        while let Ok(answer) = self.answers.try_recv() {
            for (name, found) in answer {
                if !found.is_empty() {
                    self.reported.remove(&name);
                    self.known.insert(name, found);
                } else if !self.known.contains_key(&name) && self.reported.insert(name.clone()) {
                    warning!(
                        "trust: {name} has no A or AAAA record, so its addresses are not trusted; SRV and NAPTR records are not followed: name the addresses in trust or trust_file"
                    );
                }
            }
        }
    }
}

fn resolve(name: &str) -> Vec<IpAddr> {
    // The interface wants a port; which one does not matter.
    let found = (name, 5060).to_socket_addrs();
    found
        .map(|addresses| addresses.map(|address| address.ip()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::at_ms;

    #[test]
    fn a_name_gets_its_addresses_and_one_without_any_is_reported_once() {
        let (tell, told) = mpsc::channel();
        let mut resolver = Resolver::spawn(Box::new(move || tell.send(()).unwrap())).unwrap();
        let missing = "nonexistent.invalid";
        let mut round = |now| {
            let found = resolver.addresses("localhost").to_vec();
            assert!(resolver.addresses(missing).is_empty());
            resolver.ask(now);
            (found, resolver.reported.len())
        };
        assert_eq!(round(at_ms(1000)), (Vec::new(), 0));
        told.recv().unwrap();
        let (found, reported) = round(at_ms(1001));
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback));
        assert_eq!(reported, 1);
        assert_eq!(round(at_ms(1001) + LIFETIME).1, 1);
        told.recv().unwrap();
        assert_eq!(round(at_ms(1002) + LIFETIME), (found, 1));
        resolver.ask(at_ms(1003) + LIFETIME);
        assert!(resolver.known.is_empty() && resolver.reported.is_empty());
    }
}
