//! Models that are small enough for all their orders, one excepted: two writers and a reader, one
//! operation each.
//! Writers begin at the point at which an insert has not found its key.

use super::*;

/// Goes beyond what fills the home bucket, and is there throughout: no reader may miss it.
const LASTING: u8 = 99;

/// The second half of an insert, with no room for surprises.
fn place<P: Part>(part: P, key: u8, value: u32) {
    match part.place(key, value) {
        Placed::At(_) => {}
        Placed::Known => {
            part.raise(key, value);
        }
        Placed::Full => panic!("no room"),
    }
}

/// Fills the home bucket with keys from 1 on.
fn fill<P: Part>(part: P) {
    (1..=P::SLOTS as u8).for_each(|key| place(part, key, 5));
}

/// After this nothing is left, and no count of entries that went past.
fn empties<P: Part>(part: P, expected: &[u8]) {
    let mut keys = part.sweep(0);
    keys.sort_unstable();
    assert_eq!(keys, expected);
    assert!(part.is_settled(), "passed by nobody");
}

/// Insert and insert of one key: the higher value can be found, in one copy or two.
fn same_key<P: Part>() {
    let part = P::with_buckets(2);
    beside(
        [
            Box::new(move || {
                part.has(1, 5);
            }),
            Box::new(move || place(part, 1, 5)),
            Box::new(move || place(part, 1, 9)),
        ],
        move || {
            assert!(part.has(1, 9));
            let keys = part.sweep(0);
            assert!(keys == [1] || keys == [1, 1]);
            empties(part, &[]);
        },
    );
}

/// Insert and insert of keys that share a bucket with a third one.
fn colliding_keys<P: Part>() {
    let part = P::with_buckets(3);
    place(part, LASTING, 5);
    beside(
        [
            Box::new(move || assert!(part.has(LASTING, 5))),
            Box::new(move || place(part, 1, 5)),
            Box::new(move || place(part, 2, 9)),
        ],
        move || empties(part, &[1, 2, LASTING]),
    );
}

/// Insert and removal of one key: who comes first decides.
fn insert_remove<P: Part>() {
    let part = P::with_buckets(1);
    let removed = Arc::new(AtomicUsize::new(0));
    let count = removed.clone();
    beside(
        [
            Box::new(move || {
                part.has(1, 5);
            }),
            Box::new(move || place(part, 1, 5)),
            Box::new(move || count.store(part.remove(1), Relaxed)),
        ],
        move || match removed.load(Relaxed) {
            0 => empties(part, &[1]),
            removed => {
                assert_eq!(removed, 1);
                empties(part, &[]);
            }
        },
    );
}

/// A writer that sees a key gone and places it again keeps it.
fn place_if_gone<P: Part>(part: P, placed: &AtomicUsize) {
    if !part.has(1, 5) {
        place(part, 1, 5);
        assert!(part.has(1, 5), "placed after the removal, and gone");
        placed.store(1, Relaxed);
    }
}

/// A removal is seen, and the key placed again, before the removal is complete. A third key makes the bucket
/// overflow: the new entry can stand in a bucket that the removal has not reached yet.
fn seen_gone<P: Part>(copies: usize) {
    let part = P::with_buckets(4);
    let first = if copies == 2 { 7 } else { 1 };
    place(part, first, 5);
    place(part, LASTING, 5);
    if copies == 2 {
        place(part, 1, 5);
        part.remove(first);
        place(part, 1, 5);
    }
    let placed = Arc::new(AtomicUsize::new(0));
    let noted = placed.clone();
    beside(
        [
            Box::new(move || assert_eq!(part.remove(1), copies)),
            Box::new(move || place_if_gone(part, &noted)),
            Box::new(move || place(part, 8, 5)),
        ],
        move || {
            let mut keys = vec![8, LASTING];
            if placed.load(Relaxed) == 1 {
                keys.insert(0, 1);
            }
            empties(part, &keys);
        },
    );
}

/// A slot is cleared and used for another key while it is read.
fn used_again<P: Part>() {
    let part = P::with_buckets(1);
    fill(part);
    let placed = Arc::new(AtomicUsize::new(0));
    let count = placed.clone();
    beside(
        [
            Box::new(move || part.look()),
            Box::new(move || {
                part.remove(1);
            }),
            Box::new(move || match part.place(8, 5) {
                Placed::At(_) => count.store(1, Relaxed),
                full => assert_eq!(full, Placed::Full),
            }),
        ],
        move || {
            assert!(!part.has(1, 0));
            let mut keys: Vec<u8> = (2..=P::SLOTS as u8).collect();
            keys.extend([8].iter().take(placed.load(Relaxed)));
            empties(part, &keys);
        },
    );
}

/// Lookup while the bucket overflows: an insert goes past it, or takes the slot that a removal frees.
/// Who inserts looks, too, and finds it at once. With nets these are too many orders; [`beyond`] has all of its
/// own.
fn overflow<P: Part>() {
    let part = P::with_buckets(2);
    fill(part);
    beside(
        [
            Box::new(move || {
                part.has(8, 5);
            }),
            Box::new(move || {
                place(part, 8, 5);
                assert!(part.has(8, 5));
            }),
            Box::new(move || assert_eq!(part.remove(1), 1)),
        ],
        move || {
            assert!(part.has(8, 5) && !part.has(1, 0));
            let keys: Vec<u8> = (2..=P::SLOTS as u8).chain([8]).collect();
            empties(part, &keys);
        },
    );
}

/// Lookup beyond a full bucket, while one writer goes past it and another changes the value.
fn beyond<P: Part>() {
    let part = P::with_buckets(3);
    fill(part);
    place(part, LASTING, 5);
    beside(
        [
            Box::new(move || assert!(part.has(LASTING, 5))),
            Box::new(move || place(part, 8, 5)),
            Box::new(move || assert!(part.raise(LASTING, 9))),
        ],
        move || {
            assert!(part.has(LASTING, 9));
            let keys: Vec<u8> = (1..=P::SLOTS as u8).chain([8, LASTING]).collect();
            empties(part, &keys);
        },
    );
}

/// Sweep during insert: what was there goes and is shown once, what comes stays or goes and is shown, what is
/// to stay is found.
fn sweep<P: Part>() {
    let part = P::with_buckets(3);
    place(part, 1, 5);
    place(part, LASTING, 5);
    let swept = Arc::new(Mutex::new(Vec::new()));
    let shown = swept.clone();
    beside(
        [
            Box::new(move || assert!(part.has(LASTING, 5))),
            Box::new(move || place(part, 8, 5)),
            Box::new(move || *shown.lock().unwrap() = part.sweep(LASTING)),
        ],
        move || {
            let mut keys = swept.lock().unwrap().clone();
            keys.extend(part.sweep(0));
            keys.sort_unstable();
            assert_eq!(keys, [1, 8, LASTING]);
            empties(part, &[]);
        },
    );
}

/// True if the hot path finds `key` in its one line, or goes on to the whole lookup.
fn is_not_missed(part: Hosts, key: u8) -> bool {
    let (found, further) = part.lookup_fast(key.into(), 0, || 4);
    found.is_some() || further
}

/// A fast lookup of an entry that is there throughout, while another one goes and a third comes. `first` is there
/// at the beginning, in this order.
fn fast_lookup(first: &[u8]) {
    let part = Hosts::with_buckets(3);
    first.iter().for_each(|&key| place(part, key, 5));
    let mut left: Vec<u8> = first.iter().copied().filter(|&key| key != 1).collect();
    left.push(8);
    left.sort_unstable();
    beside(
        [
            Box::new(move || assert!(is_not_missed(part, LASTING))),
            Box::new(move || place(part, 8, 5)),
            Box::new(move || assert_eq!(Part::remove(part, 1), 1)),
        ],
        move || empties(part, &left),
    );
}

#[test]
fn hosts() {
    all("hosts: insert/insert, same key", same_key::<Hosts>);
    all("hosts: insert/insert, colliding", colliding_keys::<Hosts>);
    all("hosts: insert/remove, same key", insert_remove::<Hosts>);
    all("hosts: insert/remove, same slot", used_again::<Hosts>);
    bounded("hosts: seen gone", 2, || seen_gone::<Hosts>(1));
    bounded("hosts: seen gone, two copies", 1, || seen_gone::<Hosts>(2));
    all("hosts: lookup during overflow", overflow::<Hosts>);
    all("hosts: lookup beyond overflow", beyond::<Hosts>);
    all("hosts: sweep during insert", sweep::<Hosts>);
    all("hosts: fast lookup", || fast_lookup(&[LASTING, 1]));
    all("hosts: fast lookup beyond overflow", || {
        fast_lookup(&[1, 2, LASTING])
    });
}

#[test]
fn nets() {
    all("nets: insert/insert, same key", same_key::<Nets>);
    all("nets: insert/insert, colliding", colliding_keys::<Nets>);
    all("nets: insert/remove, same key", insert_remove::<Nets>);
    all("nets: insert/remove, same slot", used_again::<Nets>);
    bounded("nets: seen gone", 2, || seen_gone::<Nets>(1));
    bounded("nets: seen gone, two copies", 1, || seen_gone::<Nets>(2));
    bounded("nets: lookup during overflow", 3, overflow::<Nets>);
    all("nets: lookup beyond overflow", beyond::<Nets>);
    all("nets: sweep during insert", sweep::<Nets>);
}
