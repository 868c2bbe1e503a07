//! What other processes ask of the updater: a set of flags, taken all at once.

use super::origin::Origin;
use crate::memory::{Arena, Line, Ordering, OutOfMemory};

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read key and trust files again and start a full fetch.
    Reload,
    /// Together with `Reload`: apply a list that the shrink limit holds back.
    Force,
    /// An operator lent trust or took it back.
    TrustChanged,
    /// The table of this origin was emptied. The firewall must follow; an emptied feed is fetched again.
    Flushed(Origin),
}

impl Request {
    fn bit(self) -> u64 {
        match self {
            Request::Reload => 1,
            Request::Force => 2,
            Request::TrustChanged => 4,
            Request::Flushed(origin) => 8 << origin as u8,
        }
    }
}

/// The requests that wait.
#[derive(Clone, Copy)]
pub struct Requests {
    line: &'static Line,
}

impl Requests {
    /// None.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        Ok(Requests {
            line: &arena.lines("the requests", 1)?[0],
        })
    }

    /// Adds one; asking twice is asking once. The caller wakes the updater.
    pub fn ask(&self, request: Request) {
        self.line[0].fetch_or(request.bit(), Ordering::AcqRel);
    }

    /// Takes all that wait.
    pub fn take(&self) -> Taken {
        Taken(self.line[0].swap(0, Ordering::AcqRel))
    }
}

/// Requests taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken(u64);

impl Taken {
    /// True if nothing was asked for.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True if this was asked for.
    pub fn has(self, request: Request) -> bool {
        self.0 & request.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    #[test]
    fn requests_are_taken_once() {
        let requests = Requests::new(&mut HeapArena).unwrap();
        requests.ask(Request::Reload);
        requests.ask(Request::Reload);
        requests.ask(Request::Flushed(Origin::Peer));
        let taken = requests.take();
        assert!(
            taken.has(Request::Reload)
                && taken.has(Request::Flushed(Origin::Peer))
                && !taken.has(Request::Flushed(Origin::Local))
                && !taken.has(Request::Force)
        );
        assert!(!requests.take().has(Request::Reload));
    }
}
