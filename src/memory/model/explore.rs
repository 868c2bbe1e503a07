//! Runs a model in all orders and says how many those were. Orders that differ only in accesses that do
//! not touch each other count as one; of a load all values are tried that the memory model allows.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

use loom::model::Builder;
use loom::thread;

use super::super::{Arena, Line, OutOfMemory};
use super::{still, AtomicU32, AtomicU64, ME, THREADS};

thread_local! {
    /// How many orders came to their end.
    static ENDED: Cell<usize> = const { Cell::new(0) };
    /// See [`Memory`].
    static LINES: RefCell<Vec<&'static [Line]>> = const { RefCell::new(Vec::new()) };
    static WORDS: RefCell<Vec<&'static [AtomicU32]>> = const { RefCell::new(Vec::new()) };
}

/// A thread of a model.
pub type Thread = Box<dyn FnOnce()>;

/// Runs a model in all orders.
pub fn all(name: &str, model: impl Fn() + Sync + Send + 'static) {
    explore(name, None, model);
}

/// Runs a model in all orders in which threads are interrupted at most `bound` times against their will.
pub fn bounded(name: &str, bound: usize, model: impl Fn() + Sync + Send + 'static) {
    explore(name, Some(bound), model);
}

/// `LOOM_MAX_PREEMPTIONS` sets a bound for all models that have no lower one.
fn explore(name: &str, bound: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.max_branches = 10_000;
    // What would end it early, without a word.
    (builder.max_permutations, builder.max_duration) = (None, None);
    // Of two bounds the lower one.
    builder.preemption_bound = [builder.preemption_bound, bound]
        .into_iter()
        .flatten()
        .min();
    let (orders, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let counter = orders.clone();
    ENDED.set(0);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let orders = orders.load(Ordering::Relaxed);
    assert_eq!(ENDED.get(), orders, "{name}: an order without its end");
    let bound = builder.preemption_bound.map_or(String::new(), |bound| {
        format!(" with at most {bound} interruptions")
    });
    println!(
        "{name}: all {orders} orders{bound}, {:.1} s",
        started.elapsed().as_secs_f64()
    );
}

/// Runs `threads` beside each other, and `end` when the last one is through. Nobody waits for that:
/// joining a thread is an access like any other, and would multiply the orders. So is what `end` looks at,
/// therefore it looks while everything is still.
pub fn beside<const N: usize>(threads: [Thread; N], end: impl FnOnce() + 'static) {
    let left = Arc::new(AtomicUsize::new(N));
    let end = Arc::new(Cell::new(Some(end)));
    const { assert!(N <= THREADS) };
    let mut number = 0;
    let mut threads = threads
        .map(|thread| {
            let me = number;
            number += 1;
            let (left, end) = (left.clone(), end.clone());
            move || {
                ME.with(|number| number.set(me));
                thread();
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    if let Some(end) = end.take() {
                        still(end);
                        ENDED.set(ENDED.get() + 1);
                    }
                }
            }
        })
        .into_iter();
    let here = threads.next();
    threads.for_each(|thread| drop(thread::spawn(thread)));
    here.into_iter().for_each(|here| here());
}

/// Memory for the structures of a model. Every order of the model gets the same memory again: what the
/// structures hold is `'static`, and a million orders would leak gigabytes.
#[derive(Default)]
pub struct Memory {
    lines: usize,
    words: usize,
}

impl Arena for Memory {
    fn lines(&mut self, _: &'static str, count: usize) -> Result<&'static [Line], OutOfMemory> {
        let lines = again(&LINES, &mut self.lines, count, Line::default);
        lines
            .iter()
            .flat_map(|line| &line.0)
            .for_each(AtomicU64::renew);
        Ok(lines)
    }

    fn words(
        &mut self,
        _: &'static str,
        count: usize,
    ) -> Result<&'static [AtomicU32], OutOfMemory> {
        let words = again(&WORDS, &mut self.words, count, || AtomicU32::new(0));
        words.iter().for_each(AtomicU32::renew);
        Ok(words)
    }
}

/// The slice number `next` of this thread, made if there is none of that length.
fn again<T>(
    pool: &'static std::thread::LocalKey<RefCell<Vec<&'static [T]>>>,
    next: &mut usize,
    count: usize,
    new: impl Fn() -> T,
) -> &'static [T] {
    pool.with_borrow_mut(|pool| {
        if pool.get(*next).is_none_or(|old| old.len() != count) {
            pool.truncate(*next);
            pool.push(Box::leak((0..count).map(|_| new()).collect()));
        }
        *next += 1;
        pool[*next - 1]
    })
}

/// What plain loom does not find: that the load comes after the swap, where the swapping thread has
/// loaded, too.
#[test]
fn no_load_hides_another() {
    let seen = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let count = seen.clone();
    all("a load and a swap", move || {
        let word = &Memory::default().lines("a model", 1).unwrap()[0][0];
        let count = count.clone();
        beside(
            [
                Box::new(move || {
                    let value = word.load(Ordering::Acquire);
                    count[value as usize].fetch_add(1, Ordering::Relaxed);
                }),
                Box::new(move || {
                    word.load(Ordering::Acquire);
                    word.swap(1, Ordering::AcqRel);
                }),
            ],
            || (),
        );
    });
    assert!(seen.iter().all(|times| times.load(Ordering::Relaxed) > 0));
}
