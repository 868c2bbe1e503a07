//! What the updater needs of the program it runs in.

use std::cell::Cell;
use std::net::IpAddr;

use crate::cli::listing::own_addresses;
use crate::shared::events::{Event, EventKind};
use crate::updater::{Discovered, Discovery, EventSink};

/// This program on this host.
pub struct ThisHost {
    trust_self: bool,
    /// Complete lists since the start.
    completed: Cell<u32>,
}

impl ThisHost {
    /// `trust_self`: the addresses of this host's interfaces are trusted.
    pub fn new(trust_self: bool) -> Self {
        ThisHost {
            trust_self,
            completed: Cell::new(0),
        }
    }

    /// How many full fetches have succeeded since the start.
    pub fn completed(&self) -> u32 {
        self.completed.get()
    }
}

impl Discovery for ThisHost {
    fn is_own(&self, ip: IpAddr) -> bool {
        self.trust_self && own_addresses().contains(&ip)
    }

    fn discovered(&self) -> Discovered {
        Discovered {
            own: if self.trust_self {
                own_addresses()
            } else {
                Vec::new()
            },
            ..Discovered::default()
        }
    }
}

impl EventSink for ThisHost {
    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::Sync
    }

    fn raise(&self, event: &Event) {
        if event.kind == EventKind::Sync {
            self.completed.set(self.completed.get() + 1);
        }
    }
}
