//! The atomics of the model checker.
//!
//! loom remembers only the last access to an atomic when it looks for orders still to be tried. A thread
//! that loads a word before it changes it hides, by its own load, that another one had read the word: that
//! order is never tried (loom issues 166 and 392), and load-then-swap is all this table does. So each
//! word has a companion that is stored to before every access. Stores conflict with each other, so
//! loom tries both orders of any two accesses; and as nobody reads the companion, it synchronises nothing
//! and hides no missing fence.

use loom::sync::atomic::AtomicU32 as Turn;

use super::Ordering;

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        /// As the type of the same name in the standard library.
        pub struct $name {
            turn: Turn,
            word: loom::sync::atomic::$name,
        }

        #[allow(missing_docs, dead_code, reason = "as in the standard library")]
        impl $name {
            pub fn new(value: $value) -> Self {
                $name {
                    turn: Turn::new(0),
                    word: loom::sync::atomic::$name::new(value),
                }
            }

            fn word(&self) -> &loom::sync::atomic::$name {
                self.turn.store(0, Ordering::Relaxed);
                &self.word
            }

            pub fn load(&self, order: Ordering) -> $value {
                self.word().load(order)
            }

            pub fn store(&self, value: $value, order: Ordering) {
                self.word().store(value, order)
            }

            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.word().swap(value, order)
            }

            pub fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.word().compare_exchange(from, to, success, failure)
            }

            pub fn compare_exchange_weak(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(from, to, success, failure)
            }

            /// As in the standard library: a loop of exchanges, each of which the model checker sees.
            pub fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                mut change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let mut seen = self.load(failure);
                while let Some(next) = change(seen) {
                    match self.compare_exchange(seen, next, success, failure) {
                        Ok(before) => return Ok(before),
                        Err(now) => seen = now,
                    }
                }
                Err(seen)
            }

            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_and(value, order)
            }

            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_add(value, order)
            }

            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_sub(value, order)
            }

            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_or(value, order)
            }

            pub fn fetch_min(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_min(value, order)
            }

            pub fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_max(value, order)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
