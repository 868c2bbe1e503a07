//! Where an entry is stored, and what became of an attempt to change one.

/// The place of an entry: the index of its details. Among the hosts it is the number of the word, which is
/// never that of a control word. 32 bits: the result of a lookup is then returned in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    /// The slot with this index.
    #[inline]
    pub fn new(index: usize) -> Self {
        Slot(index as u32)
    }

    /// The index.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What became of an entry that existed already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raise {
    /// It now has the higher value.
    Raised(Slot),
    /// Its value was at least as high.
    Kept(Slot),
}

/// What became of an entry that was to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is stored here.
    At(Slot),
    /// Another writer was faster: it has to be raised instead.
    Known,
    /// There is no room.
    Full,
}
