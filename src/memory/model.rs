//! The atomics of the model checker.
//!
//! loom remembers only the last access to an atomic when it looks for orders still to be tried. A thread
//! that loads a word before it changes it hides, by its own load, that another one had read the word: that
//! order is never tried (loom issues 166 and 392), and load-then-swap is all these structures do. So each
//! thread has a copy of each word. It loads from its own, which no other load can hide, and writes to all
//! of them in one step: loom may change threads before the first copy is written and not again before the
//! last one is. All copies see the same writes in the same order with the same synchronisation, so that
//! each of them allows a load whatever the one word would. It may allow more: a thread that knows of a write
//! only from another one that had read it may still load what was there before. A model that passes so
//! passes without, too.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use super::Ordering;

#[cfg(test)]
pub mod explore;

/// Threads of a model, the main one included.
pub const THREADS: usize = 3;

loom::thread_local! {
    /// Which thread this is.
    pub static ME: Cell<usize> = Cell::new(0);
}

thread_local! {
    /// See [`still`].
    static STILL: Cell<bool> = const { Cell::new(false) };
}

/// Runs `look` when no other thread is left: on the memory as it is, unknown to loom, so that looking
/// at the end of a model multiplies no orders.
#[cfg(test)]
pub fn still<T>(look: impl FnOnce() -> T) -> T {
    STILL.set(true);
    let seen = look();
    STILL.set(false);
    seen
}

/// Operations that always change the word: what each makes of what was there and its argument.
macro_rules! changes {
    ($name:ident, $value:ty: $($operation:ident = $next:expr;)*) => {
        #[allow(missing_docs, dead_code, reason = "as in the standard library")]
        impl $name {
            $(pub fn $operation(&self, value: $value, order: Ordering) -> $value {
                let next: fn($value, $value) -> $value = $next;
                self.change(
                    order,
                    |word| word.$operation(value, order),
                    |before| next(before, value),
                )
            })*
        }
    };
}

macro_rules! atomic {
    ($name:ident, $cell:ident, $value:ty) => {
        /// A word of one order of a model: the copies.
        struct $cell {
            copies: [loom::sync::atomic::$name; THREADS],
            /// What was written last, for [`still`].
            last: std::sync::atomic::$name,
        }

        impl $cell {
            fn new(value: $value) -> Arc<Self> {
                Arc::new($cell {
                    copies: std::array::from_fn(|_| loom::sync::atomic::$name::new(value)),
                    last: std::sync::atomic::$name::new(value),
                })
            }

            fn mine(&self) -> &loom::sync::atomic::$name {
                &self.copies[ME.with(Cell::get)]
            }

            /// The rest of a write that was done to the copy of this thread.
            fn written(&self, value: $value, write: impl Fn(&loom::sync::atomic::$name)) {
                self.last.store(value, Ordering::Relaxed);
                let me = ME.with(Cell::get);
                loom::stop_exploring();
                for (_, copy) in self.copies.iter().enumerate().filter(|(of, _)| *of != me) {
                    write(copy);
                }
                loom::explore();
            }
        }

        /// As the type of the same name in the standard library.
        pub struct $name(Mutex<Arc<$cell>>);

        #[allow(missing_docs, dead_code, reason = "as in the standard library")]
        impl $name {
            pub fn new(value: $value) -> Self {
                $name(Mutex::new($cell::new(value)))
            }

            /// Zero, and unknown to loom so far.
            #[cfg(test)]
            fn renew(&self) {
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = $cell::new(0);
            }

            /// Not the lock itself: loom changes threads in the middle of an access.
            fn cell(&self) -> Arc<$cell> {
                self.0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            }

            pub fn load(&self, order: Ordering) -> $value {
                let cell = self.cell();
                if STILL.get() {
                    return cell.last.load(order);
                }
                cell.mine().load(order)
            }

            pub fn store(&self, value: $value, order: Ordering) {
                let cell = self.cell();
                if STILL.get() {
                    return cell.last.store(value, order);
                }
                cell.mine().store(value, order);
                cell.written(value, |copy| copy.store(value, order));
            }

            pub fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let cell = self.cell();
                if STILL.get() {
                    return cell.last.compare_exchange(from, to, success, failure);
                }
                let before = cell.mine().compare_exchange(from, to, success, failure);
                if before.is_ok() {
                    cell.written(to, |copy| {
                        copy.swap(to, success);
                    });
                }
                before
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

            /// An operation that always changes the word, and what it makes of what was there.
            fn change(
                &self,
                order: Ordering,
                operation: impl FnOnce(&loom::sync::atomic::$name) -> $value,
                next: impl FnOnce($value) -> $value,
            ) -> $value {
                let cell = self.cell();
                if STILL.get() {
                    let before = cell.last.load(Ordering::Relaxed);
                    cell.last.store(next(before), Ordering::Relaxed);
                    return before;
                }
                let before = operation(cell.mine());
                let value = next(before);
                cell.written(value, |copy| {
                    copy.swap(value, order);
                });
                before
            }
        }

        changes! { $name, $value:
            swap = |_, value| value;
            fetch_and = |before, value| before & value;
            fetch_or = |before, value| before | value;
            fetch_add = <$value>::wrapping_add;
            fetch_sub = <$value>::wrapping_sub;
            fetch_min = Ord::min;
            fetch_max = Ord::max;
        }
    };
}

atomic!(AtomicU32, Cell32, u32);
atomic!(AtomicU64, Cell64, u64);
