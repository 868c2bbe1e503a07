//! Which pages of an array were ever written to.
//!
//! Even a read makes a page of a shared mapping real, so a walk through a large and almost empty array would
//! use all its memory. Writers mark the page of what they have written, and walks visit marked pages only. A
//! mark is never cleared: a page once written stays real anyway.

use std::ops::Range;

use super::{Arena, AtomicU32, Line, Ordering, OutOfMemory, PAGE_BYTES};

/// Cache lines in a page.
const PAGE_LINES: usize = PAGE_BYTES / size_of::<[u64; 8]>();
/// Marks in a word.
const WORD_BITS: usize = u32::BITS as usize;

/// One mark for each page of an array of lines.
#[derive(Clone, Copy)]
pub struct WrittenPages {
    marks: &'static [AtomicU32],
    lines: usize,
}

impl WrittenPages {
    /// No page of `array` is marked. `purpose` names it if memory cannot be had.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(
        arena: &mut dyn Arena,
        purpose: &'static str,
        array: &[Line],
    ) -> Result<Self, OutOfMemory> {
        let words = array.len().div_ceil(PAGE_LINES).div_ceil(WORD_BITS);
        Ok(WrittenPages {
            marks: arena.words(purpose, words)?,
            lines: array.len(),
        })
    }

    /// Marks the page of this line. Call it after the write and before another process relies on it: a walk that
    /// begins afterwards visits the page.
    pub fn mark(&self, line: usize) {
        let page = line / PAGE_LINES;
        let (word, bit) = (&self.marks[page / WORD_BITS], 1 << (page % WORD_BITS));
        // Almost always it is marked, and a read leaves the cache line with every reader.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// The lines of all marked pages.
    pub fn lines(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.marks.iter().enumerate();
        words.flat_map(move |(index, word)| {
            let marked = word.load(Ordering::Acquire);
            (0..WORD_BITS)
                .filter(move |bit| marked >> bit & 1 != 0)
                .flat_map(move |bit| self.of_page(index * WORD_BITS + bit))
        })
    }

    fn of_page(&self, page: usize) -> Range<usize> {
        let first = page * PAGE_LINES;
        first..(first + PAGE_LINES).min(self.lines)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    #[test]
    fn a_walk_visits_whole_pages_that_were_marked_and_no_others() {
        let array = HeapArena.lines("a test", 64 * 40 + 10).unwrap();
        let pages = WrittenPages::new(&mut HeapArena, "a test", array).unwrap();
        assert_eq!(pages.lines().count(), 0);
        for line in [64 * 33 + 5, 0, 64 * 40 + 9, 63] {
            pages.mark(line);
        }
        let visited: Vec<usize> = pages.lines().collect();
        let expected: Vec<usize> = (0..64)
            .chain(64 * 33..64 * 34)
            .chain(64 * 40..64 * 40 + 10)
            .collect();
        assert_eq!(visited, expected);
    }
}
