//! A short text in shared memory: one process writes it, any number read it.
//!
//! The text is guarded by a sequence number that is odd while it is written; a reader that never meets a quiet
//! moment gets an empty text.

use crate::memory::{fence, Line, Ordering, LINE_WORDS};

/// How often a reader tries. The model checker sees in one try what there is to see.
const READ_TRIES: usize = if cfg!(loom) { 1 } else { 1000 };

/// A text in some lines: one word of sequence, one of length, the rest is text.
#[derive(Clone, Copy)]
pub struct SharedText(pub &'static [Line]);

impl SharedText {
    /// The longest text of this many lines, in bytes.
    pub const fn longest(lines: usize) -> usize {
        (lines * LINE_WORDS - 2) * 8
    }

    /// The text.
    pub fn get(self) -> String {
        let lines = self.0;
        let sequence = &lines[0][0];
        for _ in 0..READ_TRIES {
            let before = sequence.load(Ordering::Acquire);
            let mut words = lines
                .iter()
                .flat_map(|line| &line.0)
                .skip(1)
                .map(|word| word.load(Ordering::Relaxed));
            let length =
                (words.next().unwrap_or_default() as usize).min(Self::longest(lines.len()));
            let bytes: Vec<u8> = words
                .take(length.div_ceil(8))
                .flat_map(u64::to_ne_bytes)
                .take(length)
                .collect();
            fence(Ordering::Acquire);
            if before % 2 == 0 && sequence.load(Ordering::Relaxed) == before {
                return String::from_utf8_lossy(&bytes).into_owned();
            }
            std::hint::spin_loop();
        }
        String::new()
    }

    /// Sets the text; what does not fit is cut at a character.
    pub fn set(self, value: &str) {
        let lines = self.0;
        let mut length = value.len().min(Self::longest(lines.len()));
        while !value.is_char_boundary(length) {
            length -= 1;
        }
        let sequence = &lines[0][0];
        let odd = sequence.load(Ordering::Relaxed) | 1;
        sequence.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        let mut words = lines.iter().flat_map(|line| &line.0).skip(1);
        if let Some(word) = words.next() {
            word.store(length as u64, Ordering::Relaxed);
        }
        for (word, chunk) in words.zip(value.as_bytes()[..length].chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        sequence.store(odd.wrapping_add(1), Ordering::Release);
    }
}
