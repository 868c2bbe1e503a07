//! One way through the list, page by page.

use std::collections::HashSet;

use crate::address::Subnet;
use crate::feed::control_id::ControlId;
use crate::feed::parse::{Page, FULL_PAGE};

/// Fewer items are never taken for a full page.
const MIN_FULL_PAGE: usize = 10;

/// More pages than any list has (a million addresses): the service invents them.
const MAX_PAGES: u32 = 4_000;
/// More addresses than any list has: a service that sends huge pages must not fill the memory.
pub(super) const MAX_LISTED: usize = 1_000_000;

/// Tells a full page, behind which there is more, from the last one.
///
/// A page of 250 is full. Should the service begin to send smaller pages, two short ones of the same
/// size in a row give that away; a coincidence costs one request.
#[derive(Debug, Default)]
pub(super) struct PageSize {
    last_short: usize,
}

impl PageSize {
    /// True if a page with so many items is taken for a full one. `is_first`: it is the beginning of
    /// the list, so it follows no other.
    pub fn is_full(&mut self, items: usize, is_first: bool) -> bool {
        if is_first {
            self.last_short = 0;
        }
        if items >= FULL_PAGE || (items >= MIN_FULL_PAGE && items == self.last_short) {
            return true;
        }
        self.last_short = items;
        false
    }
}

/// From a control ID to the end of the list.
#[derive(Debug)]
pub(super) struct Walk {
    cursor: Option<ControlId>,
    /// Everything listed, if the walk began at the beginning.
    seen: Option<HashSet<Subnet>>,
    advances_id: bool,
    pages: u32,
    /// A short page has come, and the service is asked whether it was the last one.
    waits_for_proof: bool,
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
            waits_for_proof: false,
        }
    }

    /// The whole list. `first`: there is none yet, so each page moves the place where polls begin.
    pub fn full(first: bool) -> Self {
        Walk {
            cursor: None,
            seen: Some(HashSet::new()),
            advances_id: first,
            pages: 0,
            waits_for_proof: false,
        }
    }

    /// Where the next page begins; `None`: at the beginning.
    pub fn cursor(&self) -> Option<&ControlId> {
        self.cursor.as_ref()
    }

    /// True if the whole list is fetched.
    pub fn is_full(&self) -> bool {
        self.seen.is_some()
    }

    /// True if each page's control ID is also where the next poll begins.
    pub fn advances_id(&self) -> bool {
        self.advances_id
    }

    /// True once a page has come.
    pub fn has_pages(&self) -> bool {
        self.pages > 0
    }

    /// Everything listed so far, if the whole list is fetched.
    pub fn seen(&self) -> Option<&HashSet<Subnet>> {
        self.seen.as_ref()
    }

    /// Goes on behind a short page until the service says that nothing follows; always true.
    pub fn wait_for_proof(&mut self) -> bool {
        self.waits_for_proof = true;
        true
    }

    /// True if a short page has come: the same page once more is the end of the list too.
    pub fn waits_for_proof(&self) -> bool {
        self.waits_for_proof
    }

    /// Takes note of a page, which `is_full` or not.
    pub fn take(&mut self, page: &Page, is_full: bool) -> Progress {
        self.pages += 1;
        if let Some(seen) = &mut self.seen {
            seen.extend(&page.addresses);
        }
        let grows = self.cursor.as_ref().is_none_or(|id| page.id.is_after(id));
        if !grows {
            return Progress::Stuck;
        }
        self.cursor = Some(page.id.clone());
        let listed = self.seen.as_ref().map_or(0, HashSet::len);
        if self.pages >= MAX_PAGES || listed > MAX_LISTED {
            Progress::Endless
        } else if is_full {
            Progress::More
        } else {
            Progress::Last
        }
    }

    /// The end of the list and everything in it, if the whole list was fetched.
    pub fn into_full(self) -> Option<(Option<ControlId>, HashSet<Subnet>)> {
        self.seen.map(|seen| (self.cursor, seen))
    }
}
