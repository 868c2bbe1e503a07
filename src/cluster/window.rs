//! Which messages of a sender have been seen: none counts twice.

/// How far behind the newest a message may come, in messages. DMQ's workers do not keep the order.
const WIDTH: u64 = 1024;

/// The sequence numbers seen of one run of one sender.
#[derive(Clone, Debug)]
pub struct Window {
    newest: u64,
    seen: [u64; (WIDTH / 64) as usize],
}

impl Default for Window {
    fn default() -> Self {
        Window {
            newest: 0,
            seen: [0; (WIDTH / 64) as usize],
        }
    }
}

impl Window {
    /// Takes note of a number (1 or more); false if it was seen before or is too old to tell.
    pub fn take(&mut self, sequence: u64) -> bool {
        if sequence == 0 || sequence.saturating_add(WIDTH) <= self.newest {
            return false;
        }
        if sequence > self.newest {
            let skipped = (sequence - self.newest).min(WIDTH);
            for n in 1..=skipped {
                let (word, bit) = Self::place(sequence - skipped + n);
                self.seen[word] &= !bit;
            }
            self.newest = sequence;
        }
        let (word, bit) = Self::place(sequence);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }

    fn place(sequence: u64) -> (usize, u64) {
        let index = sequence % WIDTH;
        ((index / 64) as usize, 1 << (index % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the order: no number is taken twice, and every new one within the width is.
        #[test]
        fn every_number_once(steps in prop::collection::vec(1u64..4000, 1..400)) {
            let mut window = Window::default();
            let mut taken = HashSet::new();
            let mut newest = 0;
            for sequence in steps {
                let expected = sequence + WIDTH > newest && !taken.contains(&sequence);
                prop_assert_eq!(window.take(sequence), expected);
                newest = newest.max(sequence);
                if expected {
                    taken.insert(sequence);
                }
            }
            prop_assert!(!window.take(0));
            prop_assert!(window.take(u64::MAX - WIDTH - 1));
        }
    }
}
