//! The `nft` backend: our own `inet` table, spoken to over netlink without any program or library.
//!
//! ```text
//! table inet apiban {                       # name: parameter nft_table; comment "apiban.so"
//!   set hosts4   { type ipv4_addr; flags timeout; }             # and hosts6
//!   set nets6_64 { type ipv6_addr; flags timeout; }             # made with the first /64
//!   set ranges4  { type ipv4_addr; flags interval,timeout; }    # prefixes of a fifth length and more
//!   chain prerouting { type filter hook prerouting priority raw; policy accept;
//!     ip saddr @hosts4 counter drop                             # with ports: goto banned
//!     ip saddr & 255.255.255.0 @nets4_24 counter drop           # and so on, one rule per set
//!     meta nfproto ipv6 goto ipv6                               # made with the first IPv6 ban
//!   }
//!   chain ipv6 {
//!     icmpv6 type 135-136 accept                                # comment: "apiban.so neighbours", the owner
//!     ip6 saddr @hosts6 counter drop
//!     ip6 saddr & ffff:ffff:ffff:ffff:: @nets6_64 counter drop
//!   }
//!   chain banned { udp dport @ports counter drop; tcp ... }     # only if firewall_ports says so, or if
//!                                                               # firewall_counters counts each source:
//!   set counted4 { type ipv4_addr; flags dynamic,timeout; }     # update @counted4 { ip saddr counter }
//! }
//! ```
//! Nothing outside this table is read or changed, and a table of that name without our mark is refused,
//! as is one whose owner lives (`owner.rs`). Elements carry the ban's own timeout, so the kernel ends bans
//! even when nobody is left to lift them.

use std::io;
use std::net::IpAddr;

use nix::errno::Errno;

use self::counted::Counted;
use self::elements::Rearm;
use self::fill::Structure;
use self::found::{Found, Ours, State};
pub use self::hook::Hook;
pub use self::leftovers::remove_leftovers;
use self::names::SetId;
use self::owner::{Claim, Owner};
use self::ranges::Ranges;
use self::ruleset::{Made, Shape, MARK};
use self::samples::Samples;
use self::socket::Socket;
pub use self::table_name::{NoTableName, TableName};
use self::wire::Writer;
use super::ports::Ports;
use super::{Change, Element, Error, Facts, Firewall, Report, Scope};

mod counted;
mod elements;
mod expressions;
mod fill;
mod found;
mod hook;
mod leftovers;
mod names;
mod owner;
mod ranges;
mod ruleset;
mod samples;
mod sets;
mod socket;
mod table_name;
mod uapi;
mod wire;

/// Changes per transaction at first; halved if the socket cannot take so many (200 kB at 52 bytes
/// each fits the default limit of an unprivileged socket).
const CHUNK: usize = 4096;
/// Attempts at a transaction that a passing condition fails, such as an element that ends between the
/// messages that replace it, or another program's change at the same moment.
const ATTEMPTS: u32 = 3;

/// What this backend can do. It takes thousands of bans at once.
pub const FACTS: Facts = Facts {
    name: "nft",
    ends_bans_itself: true,
    is_limited: false,
    scopes_by_port: true,
    knows_what_it_holds: true,
    default_scope: Scope::All,
};

/// How our table should be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the table.
    pub table: TableName,
    /// The place of its chain.
    pub hook: Hook,
    /// The ports that are dropped; `None` for all traffic.
    pub ports: Option<Ports>,
    /// True if the kernel counts what it drops of each source, for [`Firewall::drain_hits`].
    pub counts: bool,
    /// Tells one installation from another; the same after a restart.
    pub instance: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            table: TableName::default(),
            hook: Hook::PREROUTING,
            ports: None,
            counts: false,
            instance: 0,
        }
    }
}

/// Our table in the kernel. The socket belongs to the network namespace of the thread that first uses it.
#[derive(Debug)]
pub struct Nft {
    table: TableName,
    shape: Shape,
    instance: u32,
    claim: Option<Claim>,
    rearm: Rearm,
    chunk: usize,
    socket: Option<Socket>,
    /// What the kernel has of us, as far as we know.
    made: Made,
    /// What the interval sets hold.
    ranges: Ranges,
    /// The generation of the ruleset at which all was last known to be well.
    seen: Option<u32>,
    samples: Samples,
    /// Packets that earlier rules of this table dropped.
    dropped_before: u64,
    counted: Counted,
    /// What the kernel counted and nobody took yet.
    hits: Vec<(IpAddr, u64)>,
    /// Packets that the present rules had dropped when they were last read.
    dropped_now: u64,
}

impl Nft {
    /// A backend for a table; nothing is done yet.
    pub fn new(settings: Settings) -> Self {
        Nft {
            table: settings.table,
            shape: Shape {
                hook: settings.hook,
                ports: settings.ports,
                counts: settings.counts,
            },
            instance: settings.instance,
            claim: None,
            rearm: Rearm::of_this_kernel(),
            chunk: CHUNK,
            socket: None,
            made: Made::default(),
            ranges: Ranges::default(),
            seen: None,
            samples: Samples::default(),
            dropped_before: 0,
            counted: Counted::default(),
            hits: Vec::new(),
            dropped_now: 0,
        }
    }

    /// Treats the kernel as one from before Linux 6.12, which does not change the timeout of an element
    /// that exists. Slower, and right on every kernel.
    pub fn assume_old_kernel(mut self) -> Self {
        self.rearm = Rearm::Replace;
        self
    }

    fn socket(&mut self) -> Result<&mut Socket, Errno> {
        if self.socket.is_none() {
            self.socket = Some(Socket::open(self.shape.hook.family)?);
        }
        self.socket.as_mut().ok_or(Errno::ENOTCONN)
    }

    /// Asks something that changes nothing, once more if the answer changed meanwhile.
    fn ask<T>(
        &mut self,
        mut question: impl FnMut(&mut Socket, &str) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let table = self.table.clone();
        let socket = self.socket()?;
        let mut attempt = 1;
        loop {
            match question(socket, table.as_str()) {
                Err(Errno::EINTR | Errno::EAGAIN) if attempt < ATTEMPTS => attempt += 1,
                answer => return answer,
            }
        }
    }

    /// Runs one transaction and keeps track of the ruleset's generation: if it goes up by exactly our
    /// own change, nobody else can have changed anything.
    fn transact(&mut self, write: impl Fn(&mut Writer, &str)) -> Result<(), Errno> {
        let seen = self.seen.take();
        let table = self.table.clone();
        let socket = self.socket()?;
        let mut attempt = 1;
        loop {
            let mut writer = socket.writer();
            writer.begin();
            write(&mut writer, table.as_str());
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
            Errno::EPERM | Errno::EACCES => Error::Permission(FACTS.name),
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

    /// What there is under our table's name.
    fn inspect(&mut self) -> Result<Found, Errno> {
        let shape = self.shape.clone();
        self.ask(|socket, table| found::inspect(socket, table, &shape))
    }

    /// The same, or the error that the table is somebody else's.
    fn inspect_ours(&mut self, doing: &str) -> Result<Found, Error> {
        let found = self.inspect().map_err(|error| self.error(doing, error))?;
        match &found {
            Found::Foreign => Err(Error::Unsupported(format!(
                "nft: table inet {} exists and is not ours (no comment \"{MARK}\"); set nft_table to \
                 another name",
                self.table
            ))),
            Found::Ours(ours) if self.has_other_owner(ours) => Err(Error::Unsupported(format!(
                "nft: table inet {} belongs to another running process with this module; set nft_table to \
                 a name of its own for each of them",
                self.table
            ))),
            _ => Ok(found),
        }
    }

    /// This process as an owner. Without a socket for that the table names none.
    fn me(&mut self) -> Option<Owner> {
        if self.claim.is_none() {
            self.claim = Claim::new(self.instance).ok();
        }
        self.claim.as_ref().map(Claim::owner)
    }

    fn has_other_owner(&self, ours: &Ours) -> bool {
        let me = self.claim.as_ref().map(Claim::owner);
        ours.owner
            .is_some_and(|(owner, _)| Some(owner) != me && owner.lives())
    }

    /// True if nothing of ours is missing; looks closely, whatever the generation says.
    fn verify(&mut self) -> Result<bool, Errno> {
        let before = self.ask(|socket, _| found::generation(socket))?;
        let Found::Ours(ours) = self.inspect()? else {
            return Ok(false);
        };
        let State::Sound(found) = &ours.state else {
            return Ok(false);
        };
        let me = self.me();
        if ours.owner.map(|(owner, _)| owner) != me || *found != self.made {
            return Ok(false);
        }
        for (id, subnet) in self.samples.lasting() {
            if !self.ask(|socket, table| elements::contains(socket, table, id, &subnet))? {
                return Ok(false);
            }
        }
        self.seen = Some(before);
        Ok(true)
    }

    /// Before rules are made again: what they counted is not lost.
    fn keep_count(&mut self) {
        // A table that is not there yet, or is of another kind, has nothing to read.
        let _ = self.read_hits();
        let counted = self.ask(found::dropped).unwrap_or(0);
        self.dropped_before += counted.max(self.dropped_now);
        self.dropped_now = 0;
    }

    /// Reads what the kernel counted of each source since the last time.
    fn read_hits(&mut self) -> Result<(), Errno> {
        if self.shape.counts {
            let now = self.ask(counted::read)?;
            self.hits.extend(self.counted.take(now));
        }
        Ok(())
    }

    fn note(&mut self, change: &Change) {
        let subnet = change.subnet();
        let id = SetId::hash_of(&subnet);
        match change {
            Change::Add(element) => self.samples.add(id, subnet, element.seconds_left),
            Change::Remove(_) => self.samples.remove(id, &subnet),
        }
    }

    fn delete(&mut self) -> Result<(), Errno> {
        self.made = Made::default();
        self.samples.clear();
        self.ranges.clear();
        self.transact(ruleset::delete_table)
    }
}

impl Firewall for Nft {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn reset(&mut self) -> Result<(), Error> {
        let doing = "making the table";
        self.inspect_ours(doing)?;
        self.fill(&Structure::Fresh, &[])
            .map_err(|error| self.error(doing, error))
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        let mut all = || {
            let (hashed, ranged) = self.sort(changes)?;
            self.apply_chunks(&hashed)?;
            for id in ranged {
                self.apply_ranges(id)?;
            }
            Ok(hashed)
        };
        let hashed = all().map_err(|error| self.error("changing elements", error))?;
        hashed.iter().for_each(|change| self.note(change));
        Ok(())
    }

    fn reconcile(&mut self, wanted: &[Element]) -> Result<Vec<Change>, Error> {
        let doing = "bringing the table up to date";
        let found = self.inspect_ours(doing)?;
        let me = self.me();
        let structure = match found {
            Found::Nothing | Found::Foreign => Structure::Fresh,
            Found::Ours(ours) => match (ours.state, ours.owner) {
                (State::Unusable, _) => Structure::Fresh,
                (State::RulesDamaged(sets), _) => Structure::Repair(sets),
                (State::Sound(made), owner) => {
                    self.made = made;
                    match owner {
                        Some((owner, _)) if Some(owner) == me => Structure::Keep,
                        Some((_, handle)) => Structure::Adopt(handle),
                        None if me.is_none() => Structure::Keep,
                        None => Structure::Repair(self.made.sets.clone()),
                    }
                }
            },
        };
        self.fill(&structure, wanted)
            .map_err(|error| self.error(doing, error))?;
        Ok(Vec::new())
    }

    fn probe(&mut self) -> Result<(), Error> {
        self.inspect_ours("looking at the table").map(|_| ())
    }

    fn intact(&mut self) -> Result<bool, Error> {
        if let Some(claim) = &self.claim {
            claim.greet();
        }
        let answer = self.ask(|socket, _| found::generation(socket));
        match answer {
            Ok(now) if self.seen == Some(now) => Ok(true),
            Ok(_) => self.verify(),
            Err(error) => Err(error),
        }
        .map_err(|error| self.error("looking at the table", error))
    }

    fn remove(&mut self) -> Result<(), Error> {
        let doing = "deleting the table";
        let found = self.inspect();
        match found.map_err(|error| self.error(doing, error))? {
            // Never what is not ours.
            Found::Ours(ours) if !self.has_other_owner(&ours) => {}
            _ => return Ok(()),
        }
        self.delete().map_err(|error| self.error(doing, error))
    }

    fn report(&mut self) -> Result<Report, Error> {
        let doing = "reading counters";
        self.read_hits().map_err(|error| self.error(doing, error))?;
        self.dropped_now = self
            .ask(found::dropped)
            .map_err(|error| self.error(doing, error))?;
        Ok(Report {
            dropped: Some(self.dropped_before + self.dropped_now),
            ..Report::default()
        })
    }

    fn batch_size(&self) -> usize {
        CHUNK
    }

    fn drain_hits(&mut self) -> Vec<(IpAddr, u64)> {
        std::mem::take(&mut self.hits)
    }
}
