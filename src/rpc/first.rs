//! The first of many, in order, without sorting them all: the process that asks may be a SIP worker.

use std::collections::BTreeMap;

/// What has the smallest keys of all that was offered.
pub struct First<K, V> {
    kept: BTreeMap<K, V>,
    most: usize,
}

impl<K: Ord, V> First<K, V> {
    /// Keeps `most` values.
    pub fn new(most: usize) -> Self {
        First {
            kept: BTreeMap::new(),
            most,
        }
    }

    /// Keeps the value if its key is among the smallest so far; one for a key.
    pub fn offer(&mut self, key: K, value: V) {
        let full = self.kept.len() >= self.most;
        if full
            && self
                .kept
                .last_key_value()
                .is_none_or(|(last, _)| key >= *last)
        {
            return;
        }
        self.kept.insert(key, value);
        if self.kept.len() > self.most {
            self.kept.pop_last();
        }
    }

    /// What was kept, the smallest key first.
    pub fn in_order(self) -> impl Iterator<Item = (K, V)> {
        self.kept.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(most: usize, keys: &[u32]) -> Vec<u32> {
        let mut first = First::new(most);
        for &key in keys {
            first.offer(key, ());
        }
        first.in_order().map(|(key, ())| key).collect()
    }

    #[test]
    fn the_smallest_in_order_whatever_comes_first() {
        for keys in [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 5, 1, 4, 2]] {
            assert!(first(0, &keys).is_empty());
            assert_eq!(first(1, &keys), [1]);
            assert_eq!(first(3, &keys), [1, 2, 3]);
            assert_eq!(first(9, &keys), [1, 2, 3, 4, 5]);
        }
        assert_eq!(
            first(2, &[3, 1, 1, 2]),
            [1, 2],
            "a key seen twice counts once"
        );
    }
}
