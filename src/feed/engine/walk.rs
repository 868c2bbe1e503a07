//! One way through the list, page by page.

use std::collections::HashSet;

use crate::address::Subnet;
use crate::feed::control_id::ControlId;
use crate::feed::parse::{Page, FULL_PAGE};

/// More pages than any list has (a million addresses): the service invents them.
const MAX_PAGES: u32 = 4_000;
/// More addresses than any list has: a service that sends huge pages must not fill the memory.
pub(super) const MAX_LISTED: usize = 1_000_000;

/// From a control ID to the end of the list.
#[derive(Debug)]
pub(super) struct Walk {
    cursor: Option<ControlId>,
    /// Everything listed, where the walk began at the beginning.
    seen: Option<HashSet<Subnet>>,
    advances_id: bool,
    pages: u32,
}

/// What a page means for the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more.
    More,
    /// The end of the list.
    Last,
    /// The control ID does not grow: asking again would bring the same page.
    Stuck,
    /// Too many pages or addresses.
    Endless,
}

impl Walk {
    /// What came after `id`.
    pub fn poll(id: ControlId) -> Self {
        Walk {
            cursor: Some(id),
            seen: None,
            advances_id: true,
            pages: 0,
        }
    }

    /// The whole list. `first`: there is none yet, so each page moves the place where polls begin.
    pub fn full(first: bool) -> Self {
        Walk {
            cursor: None,
            seen: Some(HashSet::new()),
            advances_id: first,
            pages: 0,
        }
    }

    /// Where the next page begins; `None`: at the beginning.
    pub fn cursor(&self) -> Option<&ControlId> {
        self.cursor.as_ref()
    }

    /// True where the whole list is fetched.
    pub fn is_full(&self) -> bool {
        self.seen.is_some()
    }

    /// True where each page's control ID is also where the next poll begins.
    pub fn advances_id(&self) -> bool {
        self.advances_id
    }

    /// True once a page has come.
    pub fn has_pages(&self) -> bool {
        self.pages > 0
    }

    /// Takes note of a page.
    pub fn take(&mut self, page: &Page) -> Progress {
        self.pages += 1;
        if let Some(seen) = &mut self.seen {
            seen.extend(&page.addresses);
        }
        let grows = self.cursor.as_ref().is_none_or(|id| page.id.is_after(id));
        if !grows {
            return Progress::Stuck;
        }
        self.cursor = Some(page.id.clone());
        if page.items() < FULL_PAGE {
            Progress::Last
        } else if self.pages >= MAX_PAGES
            || self.seen.as_ref().is_some_and(|s| s.len() > MAX_LISTED)
        {
            Progress::Endless
        } else {
            Progress::More
        }
    }

    /// The end of the list and everything in it, where the whole list was fetched.
    pub fn into_full(self) -> Option<(Option<ControlId>, HashSet<Subnet>)> {
        self.seen.map(|seen| (self.cursor, seen))
    }
}
