//! Whole inserts, removals and lookups, one after the other: more orders than can be tried, so all with
//! a few interruptions.

use super::*;

/// Two lookups: what the first one finds the second one finds, too.
fn stays<P: Part>(part: P, key: u8) {
    let before = part.has(key, 5);
    assert!(part.has(key, 5) || !before);
}

/// Two writers of one key: one entry, the higher value.
fn same_key<P: Part>() {
    let part = P::with_buckets(2);
    beside(
        [
            Box::new(move || stays(part, 1)),
            Box::new(move || part.insert(1, 5)),
            Box::new(move || part.insert(1, 9)),
        ],
        move || {
            assert!(part.has(1, 9));
            part.sweep(0);
            assert!(!part.has(1, 0) && part.is_settled());
        },
    );
}

/// Two writers of two keys that share a bucket with a third one, which is never missed.
fn colliding_keys<P: Part>() {
    let part = P::with_buckets(3);
    part.insert(1, 5);
    beside(
        [
            Box::new(move || assert!(part.has(1, 5))),
            Box::new(move || part.insert(2, 5)),
            Box::new(move || part.insert(3, 5)),
        ],
        move || {
            let mut keys = part.sweep(0);
            keys.sort_unstable();
            assert_eq!(keys, [1, 2, 3]);
            assert!(part.is_settled());
        },
    );
}

/// A slot becomes free before the place of two equal inserts, and the key may stand twice: a reader that saw it
/// continues to see it, and one removal takes both away.
fn copies<P: Part>() {
    let part = P::with_buckets(3);
    part.insert(2, 5);
    beside(
        [
            Box::new(move || {
                part.remove(2);
                stays(part, 1);
            }),
            Box::new(move || part.insert(1, 5)),
            Box::new(move || part.insert(1, 5)),
        ],
        move || {
            assert!(part.has(1, 5) && part.remove(1) > 0 && !part.has(1, 0));
            assert!(part.is_settled());
        },
    );
}

/// A ban placed after its removal stays, whatever other writers of the same key were about to do. Merging
/// copies lost it: the merge saw two, the removal cleared the later, the merge the earlier.
fn removed_and_banned_anew<P: Part>() {
    let part = P::with_buckets(3);
    beside(
        [
            Box::new(move || {
                part.remove(1);
                part.insert(1, 5);
                assert!(part.has(1, 5));
            }),
            Box::new(move || part.insert(1, 5)),
            Box::new(move || part.insert(1, 5)),
        ],
        move || {
            assert!(part.has(1, 5));
            part.sweep(0);
            assert!(part.is_settled());
        },
    );
}

/// A lasting entry beyond a full bucket, while the entries before it go and others come.
fn lasting<P: Part>() {
    let part = P::with_buckets(3);
    part.insert(1, 5);
    part.insert(2, 5);
    part.insert(3, 5);
    beside(
        [
            Box::new(move || assert!(part.has(3, 5) && !part.has(7, 0))),
            Box::new(move || {
                part.remove(1);
                part.insert(4, 5);
            }),
            Box::new(move || part.insert(3, 9)),
        ],
        move || {
            assert!(part.has(3, 9) && part.has(4, 5) && !part.has(1, 0));
            part.sweep(0);
            assert!(part.is_settled());
        },
    );
}

#[test]
fn hosts() {
    bounded("hosts: same key", 3, same_key::<Hosts>);
    bounded("hosts: colliding keys", 5, colliding_keys::<Hosts>);
    bounded("hosts: copies", 2, copies::<Hosts>);
    bounded(
        "hosts: removed and banned anew",
        2,
        removed_and_banned_anew::<Hosts>,
    );
    bounded("hosts: lasting", 3, lasting::<Hosts>);
}

#[test]
fn nets() {
    bounded("nets: same key", 4, same_key::<Nets>);
    bounded("nets: colliding keys", 5, colliding_keys::<Nets>);
    bounded("nets: copies", 1, copies::<Nets>);
    bounded(
        "nets: removed and banned anew",
        2,
        removed_and_banned_anew::<Nets>,
    );
    bounded("nets: lasting", 1, lasting::<Nets>);
}
