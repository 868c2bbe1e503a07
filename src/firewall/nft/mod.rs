//! The `nft` backend: our own `inet` table, spoken to over netlink without any program or library.
//!
//! ```text
//! table inet apiban {                       # name: parameter nft_table; comment "apiban.so"
//!   set local4    { type ipv4_addr; flags timeout; counter }      # and local6, feed4, feed6
//!   set local6_64 { type ipv6_addr; flags timeout; counter }      # made with the first /64
//!   chain input   { type filter hook input priority raw; policy accept;
//!     icmpv6 type 135-136 accept                                  # IPv6 cannot do without
//!     ip saddr @local4 counter drop
//!     ip6 saddr & ffff:ffff:ffff:ffff:: @local6_64 counter drop   # and so on, one rule per set
//!   }
//! }
//! ```
//! Nothing outside this table is read or changed, and a table of that name without our mark is refused.
//! Elements carry the ban's own timeout, so the kernel ends bans even when nobody is left to lift them.

use std::collections::BTreeSet;
use std::io;

use nix::errno::Errno;

use self::elements::Rearm;
use self::found::Found;
use self::names::SetId;
use self::ruleset::MARK;
use self::samples::Witnesses;
use self::socket::Socket;
use self::wire::Writer;
use super::{Change, Counters, Element, Error, Firewall, Set};
use crate::address::Subnet;
use crate::quote::foreign;

mod elements;
mod found;
mod names;
mod ruleset;
mod samples;
mod socket;
mod uapi;
mod wire;

/// Changes per transaction at first; halved where the socket cannot take so many (200 kB at 52 bytes
/// each fits the default limit of an unprivileged socket).
const CHUNK: usize = 4096;
/// Attempts at a transaction that a passing condition fails, such as an element that ends between the
/// messages that replace it, or another program's change at the same moment.
const ATTEMPTS: u32 = 3;

/// Our table in the kernel. The socket belongs to the network namespace of the thread that first uses it.
#[derive(Debug)]
pub struct Nft {
    table: String,
    rearm: Rearm,
    chunk: usize,
    socket: Option<Socket>,
    /// The sets that the kernel has of us, as far as we know.
    sets: BTreeSet<SetId>,
    /// The generation of the ruleset at which all was last known to be well.
    seen: Option<u32>,
    sampleses: Witnesses,
}

impl Nft {
    /// A backend for the table `table`; nothing is done yet.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the name is not a letter followed by letters, digits, `_`, `-` or
    /// `.`, at most 64 in all.
    pub fn new(table: &str) -> Result<Self, Error> {
        if !names::is_table_name(table) {
            return Err(Error::Unsupported(format!(
                "\"{}\" is no table name: a letter, then letters, digits, _, - or ., at most 64",
                foreign(table, 80)
            )));
        }
        Ok(Nft {
            table: table.to_owned(),
            rearm: Rearm::of_this_kernel(),
            chunk: CHUNK,
            socket: None,
            sets: BTreeSet::new(),
            seen: None,
            sampleses: Witnesses::default(),
        })
    }

    /// Treats the kernel as one from before Linux 6.12, which does not change the timeout of an element
    /// that exists. Slower, and right on every kernel.
    pub fn assume_old_kernel(mut self) -> Self {
        self.rearm = Rearm::Replace;
        self
    }

    fn socket(&mut self) -> Result<&mut Socket, Errno> {
        if self.socket.is_none() {
            self.socket = Some(Socket::open()?);
        }
        self.socket.as_mut().ok_or(Errno::ENOTCONN)
    }

    /// Asks something that changes nothing, once more where the answer changed meanwhile.
    fn ask<T>(
        &mut self,
        mut question: impl FnMut(&mut Socket, &str) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let table = self.table.clone();
        let socket = self.socket()?;
        let mut attempt = 1;
        loop {
            match question(socket, &table) {
                Err(Errno::EINTR | Errno::EAGAIN) if attempt < ATTEMPTS => attempt += 1,
                answer => return answer,
            }
        }
    }

    /// Runs one transaction and keeps track of the ruleset's generation: where it goes up by exactly our
    /// own change, nobody else can have changed anything.
    fn transact(&mut self, write: impl Fn(&mut Writer, &str)) -> Result<(), Errno> {
        let seen = self.seen.take();
        let table = self.table.clone();
        let socket = self.socket()?;
        let mut attempt = 1;
        loop {
            let mut writer = socket.writer();
            writer.begin();
            write(&mut writer, &table);
            match socket.commit(writer) {
                Ok(()) => break,
                Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) if attempt < ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
        let now = found::generation(socket)?;
        self.seen = seen
            .filter(|seen| now == *seen || now == seen.wrapping_add(1))
            .map(|_| now);
        Ok(())
    }

    fn error(&mut self, doing: &str, errno: Errno) -> Error {
        self.seen = None;
        let table = &self.table;
        match errno {
            Errno::EPERM | Errno::EACCES => Error::Permission("nft"),
            Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP => {
                let text = io::Error::from(errno);
                Error::Unsupported(format!("nft: this kernel cannot do it: {doing}: {text}"))
            }
            Errno::ENOENT => Error::Lost(format!("nft: table inet {table} was taken away")),
            _ => {
                let text = io::Error::from(errno);
                // A socket in an unknown state is not kept.
                self.socket = None;
                Error::Transient(format!("nft: {doing}: {text}"))
            }
        }
    }

    fn foreign(&self) -> Error {
        Error::Unsupported(format!(
            "nft: table inet {} exists and is not ours (no comment \"{MARK}\"); set nft_table to another name",
            self.table
        ))
    }

    /// Makes table, chain, base sets and rules anew, in one transaction, empty.
    fn rebuild(&mut self) -> Result<(), Errno> {
        self.sampleses.clear_all();
        self.transact(|writer, table| {
            ruleset::delete_table(writer, table);
            ruleset::make_table(writer, table);
            ruleset::make_neighbours_rule(writer, table);
            for (number, id) in (1..).zip(SetId::base()) {
                ruleset::make_set(writer, table, id, number);
                ruleset::make_rule(writer, table, id);
            }
        })?;
        self.sets = SetId::base().collect();
        Ok(())
    }

    /// Puts table, chain and rules in order round the sets that are there, in one transaction: what
    /// they hold stays in force.
    fn repair(&mut self, found: &[SetId]) -> Result<(), Errno> {
        let sets: BTreeSet<_> = SetId::base().chain(found.iter().copied()).collect();
        self.transact(|writer, table| {
            ruleset::make_table(writer, table);
            ruleset::delete_rules(writer, table);
            ruleset::make_neighbours_rule(writer, table);
            for (number, id) in (1..).zip(&sets) {
                if !found.contains(id) {
                    ruleset::make_set(writer, table, *id, number);
                }
                ruleset::make_rule(writer, table, *id);
            }
        })?;
        self.sets = sets;
        Ok(())
    }

    /// Makes the sets for prefix lengths that come for the first time.
    fn make_sets_for(&mut self, changes: &[Change]) -> Result<(), Errno> {
        let missing: BTreeSet<_> = changes
            .iter()
            .filter(|change| matches!(change, Change::Add(_)))
            .map(|change| SetId::of(change.set(), &change.subnet()))
            .filter(|id| !self.sets.contains(id))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.transact(|writer, table| {
            for (number, id) in (1..).zip(&missing) {
                ruleset::make_set(writer, table, *id, number);
                ruleset::make_rule(writer, table, *id);
            }
        })?;
        self.sets.extend(missing);
        Ok(())
    }

    /// Applies changes in transactions that the socket can take.
    fn apply_chunks(&mut self, changes: &[Change]) -> Result<(), Errno> {
        let mut rest = changes;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(rest.len().min(self.chunk));
            let rearm = self.rearm;
            match self.transact(|writer, table| elements::write(writer, table, chunk, rearm)) {
                Ok(()) => rest = later,
                Err(error) if too_much(error) && self.chunk > 1 => {
                    self.chunk = chunk.len().div_ceil(2);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Replaces all that our sets hold in one transaction, so that what stays banned is never let
    /// through. Where the socket cannot take it all at once (no CAP_NET_ADMIN in the first user namespace),
    /// the rest follows in further transactions.
    fn replace_all(&mut self, wanted: &[Change]) -> Result<(), Errno> {
        let mut now = wanted;
        loop {
            let sets = self.sets.clone();
            let done = self.transact(|writer, table| {
                for id in &sets {
                    elements::flush(writer, table, *id);
                }
                // Emptied sets have nothing to re-arm, whatever the kernel.
                elements::write(writer, table, now, Rearm::Update);
            });
            match done {
                Err(error) if too_much(error) && now.len() > self.chunk => {
                    now = &wanted[..self.chunk];
                }
                Err(error) if too_much(error) && self.chunk > 1 => {
                    self.chunk = self.chunk.div_ceil(2);
                    now = &wanted[..now.len().min(self.chunk)];
                }
                Err(error) => return Err(error),
                Ok(()) => return self.apply_chunks(&wanted[now.len()..]),
            }
        }
    }

    /// True where nothing of ours is missing; looks closely, whatever the generation says.
    fn verify(&mut self) -> Result<bool, Errno> {
        let before = self.ask(|socket, _| found::generation(socket))?;
        let Found::Sound(found) = self.ask(found::inspect)? else {
            return Ok(false);
        };
        if !self.sets.iter().eq(BTreeSet::from_iter(found).iter()) {
            return Ok(false);
        }
        for (id, subnet) in self.sampleses.lasting() {
            if !self.ask(|socket, table| elements::contains(socket, table, id, &subnet))? {
                return Ok(false);
            }
        }
        self.seen = Some(before);
        Ok(true)
    }

    fn note(&mut self, change: &Change) {
        let subnet: Subnet = change.subnet();
        let id = SetId::of(change.set(), &subnet);
        match change {
            Change::Add(element) => self.sampleses.add(id, subnet, element.seconds_left),
            Change::Remove { .. } => self.sampleses.remove(id, &subnet),
        }
    }
}

/// Too much at once: for the socket, for its answers, or for a hash that is just growing.
fn too_much(error: Errno) -> bool {
    matches!(
        error,
        Errno::EMSGSIZE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EBUSY
    )
}

impl Firewall for Nft {
    fn name(&self) -> &'static str {
        "nft"
    }

    fn reset(&mut self) -> Result<(), Error> {
        let doing = "making the table";
        match self.ask(found::inspect) {
            Ok(Found::Foreign) => return Err(self.foreign()),
            Ok(_) => {}
            Err(error) => return Err(self.error(doing, error)),
        }
        self.rebuild().map_err(|error| self.error(doing, error))
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        // A prefix of a length that never came has no set and needs no removal.
        let known: Vec<_> = changes
            .iter()
            .filter(|change| match change {
                Change::Add(_) => true,
                Change::Remove { subnet, set } => self.sets.contains(&SetId::of(*set, subnet)),
            })
            .copied()
            .collect();
        self.make_sets_for(&known)
            .and_then(|()| self.apply_chunks(&known))
            .map_err(|error| self.error("changing elements", error))?;
        known.iter().for_each(|change| self.note(change));
        Ok(())
    }

    fn reconcile(&mut self, wanted: &[Element]) -> Result<Vec<Change>, Error> {
        let doing = "bringing the table up to date";
        self.sampleses.clear_all();
        let found = self.ask(found::inspect);
        let ready = match found {
            Ok(Found::Foreign) => return Err(self.foreign()),
            Ok(Found::Sound(sets)) => {
                self.sets = sets.into_iter().collect();
                Ok(())
            }
            Ok(Found::RulesDamaged(sets)) => self.repair(&sets),
            Ok(Found::Nothing | Found::Unusable) => self.rebuild(),
            Err(error) => Err(error),
        };
        let adds: Vec<_> = wanted
            .iter()
            .filter(|element| element.seconds_left > 0)
            .copied()
            .map(Change::Add)
            .collect();
        ready
            .and_then(|()| self.make_sets_for(&adds))
            .and_then(|()| self.replace_all(&adds))
            .map_err(|error| self.error(doing, error))?;
        adds.iter().for_each(|change| self.note(change));
        Ok(Vec::new())
    }

    fn probe(&mut self) -> Result<(), Error> {
        match self.ask(found::inspect) {
            Ok(Found::Foreign) => Err(self.foreign()),
            Ok(_) => Ok(()),
            Err(error) => Err(self.error("looking at the table", error)),
        }
    }

    fn intact(&mut self) -> Result<bool, Error> {
        let answer = self.ask(|socket, _| found::generation(socket));
        match answer {
            Ok(now) if self.seen == Some(now) => Ok(true),
            Ok(_) => self.verify(),
            Err(error) => Err(error),
        }
        .map_err(|error| self.error("looking at the table", error))
    }

    fn clear(&mut self, set: Set) -> Result<bool, Error> {
        let sets: Vec<_> = self
            .sets
            .iter()
            .copied()
            .filter(|id| id.set == set)
            .collect();
        self.transact(|writer, table| {
            for id in &sets {
                elements::flush(writer, table, *id);
            }
        })
        .map_err(|error| self.error("emptying a set", error))?;
        self.sampleses.clear(set);
        Ok(true)
    }

    fn remove(&mut self) -> Result<(), Error> {
        let doing = "deleting the table";
        match self.ask(found::inspect) {
            // Never what is not ours.
            Ok(Found::Foreign | Found::Nothing) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(self.error(doing, error)),
        }
        self.sets.clear();
        self.sampleses.clear_all();
        self.transact(ruleset::delete_table)
            .map_err(|error| self.error(doing, error))
    }

    fn counters(&mut self) -> Result<Option<Counters>, Error> {
        self.ask(found::counters)
            .map(Some)
            .map_err(|error| self.error("reading counters", error))
    }

    fn batch_size(&self) -> usize {
        CHUNK
    }
}
