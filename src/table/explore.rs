//! Runs a model in all orders and says how many those were.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

use loom::model::Builder;
use loom::thread;

use super::{still, ME, THREADS};

thread_local! {
    /// How many orders came to their end.
    static ENDED: Cell<usize> = const { Cell::new(0) };
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

/// `LOOM_MAX_PREEMPTIONS` sets a bound for all models.
fn explore(name: &str, bound: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.max_branches = 10_000;
    builder.preemption_bound = builder.preemption_bound.or(bound);
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

/// What plain loom does not find: that the load comes after the swap, where the swapping thread has
/// loaded, too.
#[test]
fn no_load_hides_another() {
    use super::super::{Arena, Memory};
    let seen = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let count = seen.clone();
    all("a load and a swap", move || {
        let word = &Memory::default().lines("a model", 1).unwrap()[0].0[0];
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
