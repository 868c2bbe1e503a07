//! What other processes ask of the updater: a set of flags, taken all at once.

use crate::memory::{Arena, Line, Ordering, OutOfMemory};

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Request {
    /// Read key and trust files again and start a full fetch.
    Reload = 1,
    /// With it: apply what the shrink limit holds back.
    Force = 2,
    /// The feed table was emptied: fetch it anew when the time comes, and empty the firewall's part.
    FeedFlushed = 4,
    /// The local table was emptied.
    LocalFlushed = 8,
    /// The peer table was emptied.
    PeerFlushed = 16,
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
        self.line.0[0].fetch_or(request as u64, Ordering::AcqRel);
    }

    /// Takes all that wait.
    pub fn take(&self) -> Taken {
        Taken(self.line.0[0].swap(0, Ordering::AcqRel))
    }
}

/// Requests taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken(u64);

impl Taken {
    /// True where this was asked for.
    pub fn has(self, request: Request) -> bool {
        self.0 & request as u64 != 0
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
        requests.ask(Request::FeedFlushed);
        let taken = requests.take();
        assert!(
            taken.has(Request::Reload)
                && taken.has(Request::FeedFlushed)
                && !taken.has(Request::Force)
        );
        assert!(!requests.take().has(Request::Reload));
    }
}
