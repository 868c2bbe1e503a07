//! Names of discovered: resolved in a thread, because a name server may let it wait.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, Sender};
use std::{io, thread};

/// How long addresses of a name count, in milliseconds.
const LIFETIME: u64 = 60_000;

/// The addresses of the names that were asked for so far.
pub struct Resolver {
    names: Sender<BTreeSet<String>>,
    answers: Receiver<BTreeMap<String, Vec<IpAddr>>>,
    known: BTreeMap<String, Vec<IpAddr>>,
    asked: BTreeSet<String>,
    next: u64,
}

impl Resolver {
    /// Starts the thread; `waker` ends the sleep of whoever takes the answers.
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
            asked: BTreeSet::new(),
            next: 0,
        })
    }

    /// The addresses known of these names; asks anew where names changed or answers grew old. A name
    /// that no longer resolves keeps the addresses it had: a name server's trouble makes no enemies.
    pub fn addresses(&mut self, names: &BTreeSet<String>, now: u64) -> Vec<(String, IpAddr)> {
        while let Ok(answer) = self.answers.try_recv() {
            for (name, found) in answer {
                if !found.is_empty() {
                    self.known.insert(name, found);
                }
            }
        }
        if !names.is_empty() && (now >= self.next || *names != self.asked) {
            self.next = now + LIFETIME;
            self.asked.clone_from(names);
            let _ = self.names.send(names.clone());
        }
        self.known.retain(|name, _| names.contains(name));
        let pairs = self
            .known
            .iter()
            .flat_map(|(name, found)| found.iter().map(move |ip| (name.clone(), *ip)));
        pairs.collect()
    }
}

fn resolve(name: &str) -> Vec<IpAddr> {
    // A port is only there because the interface wants one.
    let found = (name, 5060).to_socket_addrs();
    found
        .map(|addresses| addresses.map(|address| address.ip()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gets_its_addresses_and_keeps_them_when_the_server_fails() {
        let (tell, told) = mpsc::channel();
        let mut resolver = Resolver::spawn(Box::new(move || tell.send(()).unwrap())).unwrap();
        let names = BTreeSet::from(["localhost".to_owned(), "nonexistent.invalid".to_owned()]);
        assert!(resolver.addresses(&names, 1000).is_empty());
        told.recv().unwrap();
        let found = resolver.addresses(&names, 1001);
        assert!(
            found
                .iter()
                .all(|(name, ip)| name == "localhost" && ip.is_loopback())
                && !found.is_empty()
        );
        assert!(resolver.addresses(&BTreeSet::new(), 1002).is_empty());
    }
}
