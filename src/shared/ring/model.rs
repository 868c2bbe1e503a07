//! The queue in every order of its accesses: run by `tests/tools/loom`. Two producers and the consumer.

use std::sync::{Arc, Mutex};

use super::*;
use crate::memory::explore::{all, beside, Memory};

/// The results of the producers, and what the consumer got.
#[derive(Default)]
struct Seen {
    accepted: Vec<u64>,
    refused: usize,
    taken: Vec<u64>,
    told_of_loss: bool,
    wakes: usize,
}

#[derive(Clone)]
struct Queue {
    ring: Ring<1>,
    seen: Arc<Mutex<Seen>>,
}

impl Queue {
    fn new() -> Self {
        Queue {
            ring: Ring::new(&mut Memory::default(), "a model", 2).unwrap(),
            seen: Arc::default(),
        }
    }

    /// Two words: a torn item is recognised.
    fn push(&self, item: u64) {
        let accepted = self.ring.push([item, item * 3]);
        let mut seen = self.seen.lock().unwrap();
        if accepted {
            seen.accepted.push(item);
        } else {
            seen.refused += 1;
        }
    }

    fn pop(&self) -> bool {
        let item = self
            .ring
            .pop(|words| [words.next(), words.next()].map(Option::unwrap));
        item.inspect(|[item, triple]| {
            assert_eq!(item * 3, *triple, "torn");
            self.seen.lock().unwrap().taken.push(*item);
        })
        .is_some()
    }

    fn take_dropped(&self) {
        let dropped = self.ring.take_dropped();
        self.seen.lock().unwrap().told_of_loss |= dropped;
    }

    /// What was accepted is taken once each, that of one producer in its order, and nothing else is;
    /// a loss is reported if there was one.
    fn check(&self) {
        while self.pop() {}
        self.take_dropped();
        let mut seen = self.seen.lock().unwrap();
        for producer in [1, 2] {
            let of = |items: &[u64]| -> Vec<u64> {
                let mut items = items.to_vec();
                items.retain(|item| item / 10 == producer);
                items
            };
            assert_eq!(of(&seen.accepted), of(&seen.taken));
        }
        seen.accepted.sort_unstable();
        seen.taken.sort_unstable();
        assert_eq!(seen.accepted, seen.taken);
        assert_eq!(seen.told_of_loss, seen.refused > 0);
    }
}

/// There is room for one, or for both if the consumer is fast enough. Either uses the first slot again, after the
/// end of the memory.
#[test]
fn it_fills_and_wraps() {
    all("queue: full", || {
        let queue = Queue::new();
        queue.push(10);
        let [a, b, end] = std::array::from_fn(|_| queue.clone());
        beside(
            [
                Box::new(move || {
                    queue.take_dropped();
                    assert!(queue.pop());
                    queue.pop();
                }),
                Box::new(move || a.push(11)),
                Box::new(move || b.push(21)),
            ],
            move || end.check(),
        );
    });
}

/// The consumer meets slots that are claimed and not yet written, and takes nothing over them.
#[test]
fn it_keeps_the_order_of_a_producer() {
    all("queue: order", || {
        let queue = Queue::new();
        let [a, b, end] = std::array::from_fn(|_| queue.clone());
        beside(
            [
                Box::new(move || {
                    queue.pop();
                }),
                Box::new(move || {
                    a.push(11);
                    a.push(12);
                }),
                Box::new(move || b.push(21)),
            ],
            move || end.check(),
        );
    });
}

/// Who puts in while the consumer falls asleep wakes it, or the consumer has seen the item.
#[test]
fn it_wakes() {
    fn put(queue: &Queue, item: u64) {
        queue.push(item);
        if queue.ring.announce() {
            queue.seen.lock().unwrap().wakes += 1;
        }
    }
    all("queue: wake", || {
        let queue = Queue::new();
        // The consumer is about to run for what somebody announced.
        assert!(queue.ring.announce());
        let [a, b, end] = std::array::from_fn(|_| queue.clone());
        beside(
            [
                Box::new(move || {
                    queue.ring.awake();
                    while queue.pop() {}
                }),
                Box::new(move || put(&a, 11)),
                Box::new(move || put(&b, 21)),
            ],
            move || {
                let asleep_over_items = end.pop();
                assert!(!asleep_over_items || end.seen.lock().unwrap().wakes > 0);
                end.check();
            },
        );
    });
}
