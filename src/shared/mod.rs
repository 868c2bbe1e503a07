//! What all Kamailio processes share: ban tables, trust, counters, status, requests to the updater.
//!
//! Made once in the main process before any fork, and at the same address in every process.

pub mod budget;
pub mod changes;
pub mod cluster;
pub mod counters;
pub mod events;
pub mod origin;
pub mod published;
pub mod requests;
pub mod ring;
pub mod text;

use crate::clock::{UnixSeconds, WallOffset};
use crate::config::Config;
use crate::memory::{Arena, Line, Ordering, OutOfMemory};
use crate::table::{Table, TableLayout};
use crate::trust::Trust;
use budget::Budget;
use changes::BanChanges;
use cluster::Cluster;
use counters::Counters;
use events::Events;
use origin::Origin;
use published::Published;
use requests::Requests;

// Words of the clock's line.
const NOW: usize = 0;
const WALL_OFFSET: usize = 1;

/// The shared memory of the module.
pub struct Shared {
    clock: &'static Line,
    /// What the service lists.
    pub feed: Table,
    /// What was banned here, by script or RPC.
    pub local: Table,
    /// What a node of the cluster banned.
    pub peer: Table,
    /// Who is never banned.
    pub trust: Trust,
    /// Counters of all processes.
    pub counters: Counters,
    /// What the updater tells.
    pub published: Published,
    /// What the updater is asked to do.
    pub requests: Requests,
    /// What event routes are told.
    pub events: Events,
    /// What changed in the tables of bans that were placed here.
    pub ban_changes: BanChanges,
    /// What the script may still ban in this minute.
    pub budget: Budget,
    /// What the process of the cluster shares; `None` without a cluster.
    pub cluster: Option<Cluster>,
}

impl Shared {
    /// Maps everything that `config` asks for. `seed` keys the hashes and must be random.
    pub fn new(arena: &mut dyn Arena, config: &Config, seed: u64) -> Result<Self, OutOfMemory> {
        Ok(Shared {
            clock: &arena.lines("the clock", 1)?[0],
            feed: Table::new(
                arena,
                TableLayout {
                    purpose: "the feed table (max_feed_entries)",
                    capacity: config.max_feed_entries,
                    reasons: false,
                },
                seed,
            )?,
            local: Table::new(
                arena,
                TableLayout {
                    purpose: "the local table (max_local_entries)",
                    capacity: config.max_local_entries,
                    reasons: true,
                },
                seed,
            )?,
            peer: Table::new(
                arena,
                TableLayout {
                    purpose: "the peer table (max_peer_entries)",
                    capacity: config.max_peer_entries,
                    reasons: true,
                },
                seed,
            )?,
            trust: Trust::new(arena, seed, config.block_v6_prefix)?,
            counters: Counters::new(arena)?,
            published: Published::new(arena)?,
            requests: Requests::new(arena)?,
            events: Events::new(arena)?,
            ban_changes: BanChanges::new(arena)?,
            budget: Budget::new(arena)?,
            cluster: match config.enable_dmq {
                true => Some(Cluster::new(arena)?),
                false => None,
            },
        })
    }

    /// The table of the bans of this origin.
    #[inline(always)]
    pub fn table(&self, origin: Origin) -> &Table {
        match origin {
            Origin::Feed => &self.feed,
            Origin::Local => &self.local,
            Origin::Peer => &self.peer,
        }
    }

    /// The table of each origin, in the order of [`Origin::ALL`].
    pub fn tables(&self) -> [(Origin, &Table); 3] {
        Origin::ALL.map(|origin| (origin, self.table(origin)))
    }

    /// The current second in internal time (see [`crate::clock`]), as one of the processes wrote it within the
    /// last second: reading it is no system call.
    #[inline]
    pub fn now(&self) -> UnixSeconds {
        // `set_now` stores nothing that is longer.
        UnixSeconds::new(self.clock[NOW].load(Ordering::Relaxed) as u32)
    }

    /// Publishes the start of the server, in internal time.
    pub fn started(&self, now: UnixSeconds) {
        self.published
            .set_time(published::Number::Started, Some(now));
    }

    /// How far the wall clock is ahead of internal time.
    pub fn wall_offset(&self) -> WallOffset {
        WallOffset::new(self.clock[WALL_OFFSET].load(Ordering::Relaxed) as i64)
    }

    /// Sets how far the wall clock is ahead. Only the updater calls this.
    pub fn set_wall_offset(&self, offset: WallOffset) {
        self.clock[WALL_OFFSET].store(offset.get() as u64, Ordering::Relaxed);
    }

    /// Sets the current second in internal time. Never goes back: two processes keep this clock.
    pub fn set_now(&self, now: UnixSeconds) {
        self.clock[NOW].fetch_max(u64::from(now.get()), Ordering::Relaxed);
    }
}
