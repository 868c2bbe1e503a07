//! The sweep of a whole table, with its mark of the earliest end: beside two inserts, or an insert and a
//! lookup.

use super::*;
use crate::clock::simulated::at;
use crate::clock::UnixSeconds;

fn table() -> (Table, [Subnet; 3]) {
    let table = Table::new(
        &mut Memory::default(),
        TableLayout {
            purpose: "a model",
            capacity: 3,
            reasons: false,
        },
        42,
    )
    .unwrap();
    let subnet = |text: &str| text.parse().unwrap();
    (table, ["192.0.2.7", "192.0.2.8", "192.0.2.9"].map(subnet))
}

/// Sweeps what ended by `now`; adds it to what ended before.
fn expire(table: &Table, now: UnixSeconds, ended: &Mutex<Vec<Subnet>>) {
    table.expire(now, |entry| ended.lock().unwrap().push(entry.subnet));
}

/// Bans placed during the sweep are not forgotten by the next one.
fn inserts() {
    let (table, [one, two, three]) = table();
    table.insert(one, at(5), at(1), "");
    let ended = Arc::new(Mutex::new(Vec::new()));
    let [a, b, c, end] = std::array::from_fn(|_| table.clone());
    let told = ended.clone();
    beside(
        [
            Box::new(move || expire(&a, at(5), &told)),
            Box::new(move || assert_eq!(b.insert(two, at(5), at(1), ""), Inserted::New)),
            Box::new(move || assert_eq!(c.insert(three, at(5), at(1), ""), Inserted::New)),
        ],
        move || {
            expire(&end, at(5), &ended);
            let mut ended = ended.lock().unwrap();
            ended.sort_unstable_by_key(|subnet| subnet.address());
            assert_eq!((&ended[..], end.len()), (&[one, two, three][..], 0));
        },
    );
}

/// A ban extended during the sweep stays, is not told as ended, and is swept at its new end. One that had
/// not ended is found throughout.
fn longer_end() {
    let (table, [one, two, _]) = table();
    table.insert(one, at(5), at(1), "");
    table.insert(two, at(7), at(1), "");
    let (ended, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
    let [a, b, c, end] = std::array::from_fn(|_| table.clone());
    let (told, answer) = (ended.clone(), done.clone());
    beside(
        [
            Box::new(move || assert!(c.lookup(two.address(), at(5)).is_some())),
            Box::new(move || expire(&a, at(5), &told)),
            Box::new(move || *answer.lock().unwrap() = Some(b.insert(one, at(9), at(1), ""))),
        ],
        move || {
            match *done.lock().unwrap() {
                Some(Inserted::Extended) => assert!(ended.lock().unwrap().is_empty()),
                done => assert_eq!(done, Some(Inserted::New)),
            }
            assert_eq!(end.find(one).map(|found| found.value()), Some(at(9)));
            end.expire(at(9), |_| ());
            assert_eq!(end.len(), 0);
        },
    );
}

/// A prefix is there throughout while the only other one of its length goes, by removal or sweep, and comes
/// again: every lookup probes for it. Afterwards no length is counted.
fn lengths() {
    let table = Table::new(
        &mut Memory::default(),
        TableLayout {
            purpose: "a model",
            capacity: 3,
            reasons: false,
        },
        42,
    )
    .unwrap();
    let subnet = |text: &str| text.parse::<Subnet>().unwrap();
    let (lasting, other) = (subnet("192.0.2.0/24"), subnet("198.51.100.0/24"));
    table.insert(lasting, at(9), at(1), "");
    table.insert(other, at(9), at(1), "");
    let [a, b, c, end] = std::array::from_fn(|_| table.clone());
    beside(
        [
            Box::new(move || assert!(a.lookup(lasting.address(), at(5)).is_some())),
            Box::new(move || {
                b.remove(other);
            }),
            Box::new(move || {
                c.insert(other, at(9), at(1), "");
            }),
        ],
        move || {
            end.retain(|_, _| false);
            assert_eq!(end.len(), 0);
            assert!(matches!(end.lookup_fast(1, || at(5)), Ok(None)));
            let probed = end.lengths.find(true, |length| Some(length));
            assert_eq!(probed, None, "a length that no entry has");
        },
    );
}

#[test]
fn a_prefix_is_found_while_others_of_its_length_come_and_go() {
    bounded("lengths: remove, insert and lookup", 2, lengths);
}

#[test]
fn a_sweep_meets_inserts() {
    bounded("sweep and two inserts", 3, inserts);
}

#[test]
fn a_sweep_meets_a_longer_end() {
    all("sweep, raise and lookup", longer_end);
}
