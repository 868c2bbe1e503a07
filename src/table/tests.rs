//! The table against a plain map, at its limits, and with threads hammering it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Barrier;

use proptest::prelude::*;

use super::{Further, Inserted, Table, TableLayout};
use crate::address::Subnet;
use crate::clock::simulated::at;
use crate::memory::HeapArena;

fn table(capacity: usize) -> Table {
    Table::new(
        &mut HeapArena,
        TableLayout {
            purpose: "test table",
            capacity,
            reasons: true,
        },
        42,
    )
    .unwrap()
}

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One ban of a prefix sends each check of an address that is not listed beyond its one line, but only while
/// it is there.
#[test]
fn a_prefix_that_is_gone_costs_nothing() {
    let table = table(10);
    let fast = || table.lookup_fast(0x0a00_0001, || at(50));
    table.insert(subnet("192.0.2.7"), at(200), at(50), "");
    assert!(matches!(fast(), Ok(None)));
    for remove in [
        |table: &Table| assert!(table.remove(subnet("198.51.100.0/24"))),
        |table: &Table| table.expire(at(100), |_| ()),
        |table: &Table| {
            table.retain(|subnet, _| subnet.is_host());
        },
    ] {
        table.insert(subnet("198.51.100.0/24"), at(100), at(50), "");
        assert!(matches!(fast(), Err(Further::Prefixes)));
        assert!(table.lookup(ip("198.51.100.9"), at(50)).is_some());
        remove(&table);
        assert!(matches!(fast(), Ok(None)));
        assert!(table.lookup(ip("198.51.100.9"), at(50)).is_none());
    }
    assert_eq!(
        table.insert(subnet("0.0.0.0/0"), at(100), at(50), ""),
        Inserted::Full
    );
    assert_eq!(
        table.insert(subnet("::/0"), at(100), at(50), ""),
        Inserted::Full
    );
    assert_eq!(table.len(), 1);
}

#[test]
fn a_reason_cannot_forge_lines() {
    let table = table(10);
    table.insert(
        subnet("192.0.2.7"),
        at(100),
        at(50),
        "x\nip: 192.0.2.8\u{1b}[1m",
    );
    let entry = table.entry(table.find(subnet("192.0.2.7")).unwrap());
    assert_eq!(entry.unwrap().reason, "x?ip: 192.0.2.8?[1m");
}

#[test]
fn an_entry_lives_until_its_end() {
    let table = table(10);
    for text in [
        "192.0.2.7",
        "2001:db8::7",
        "198.51.100.0/24",
        "2001:db8:1::/64",
    ] {
        assert_eq!(
            table.insert(subnet(text), at(100), at(50), "scan"),
            Inserted::New,
            "{text}"
        );
        assert_eq!(
            table.insert(subnet(text), at(90), at(60), ""),
            Inserted::Kept,
            "{text}"
        );
        assert_eq!(
            table.insert(subnet(text), at(110), at(60), ""),
            Inserted::Extended,
            "{text}"
        );
        let entry = table.entry(table.find(subnet(text)).unwrap()).unwrap();
        assert_eq!(
            (entry.subnet, entry.value, entry.since),
            (subnet(text), at(110), at(50))
        );
        assert_eq!(entry.reason, "scan");
    }
    for address in [
        "192.0.2.7",
        "::ffff:192.0.2.7",
        "2001:db8::7",
        "198.51.100.255",
        "2001:db8:1::ffff",
    ] {
        assert_eq!(
            table
                .lookup(ip(address), at(109))
                .map(|found| found.value()),
            Some(at(110)),
            "{address}"
        );
        assert!(table.lookup(ip(address), at(110)).is_none(), "{address}");
    }
    for address in [
        "192.0.2.8",
        "2001:db8::8",
        "198.51.101.0",
        "2001:db8:1:1::1",
    ] {
        assert!(table.lookup(ip(address), at(1)).is_none(), "{address}");
    }
}

#[test]
fn the_sweep_removes_what_ended_and_tells() {
    let table = table(10);
    table.insert(subnet("192.0.2.1"), at(100), at(1), "one");
    table.insert(subnet("192.0.2.2"), at(200), at(1), "");
    table.insert(subnet("2001:db8::/64"), at(100), at(1), "");
    let mut ended = Vec::new();
    table.expire(at(99), |entry| ended.push(entry.subnet.to_string()));
    assert!(ended.is_empty());
    table.expire(at(100), |entry| ended.push(entry.subnet.to_string()));
    assert_eq!(ended, ["192.0.2.1", "2001:db8::/64"]);
    assert_eq!(table.len(), 1);
    // The mark was lowered again for the one that is left.
    table.expire(at(200), |entry| ended.push(entry.subnet.to_string()));
    assert_eq!((table.len(), ended.len()), (0, 3));
}

#[test]
fn a_full_table_says_so_and_keeps_what_it_has() {
    let table = table(1000);
    let address = |n: u32| Subnet::host(IpAddr::V4((0x0a00_0000 + n).into()));
    for n in 0..1000 {
        assert_eq!(table.insert(address(n), at(9), at(1), ""), Inserted::New);
    }
    assert_eq!(
        table.insert(address(1000), at(9), at(1), ""),
        Inserted::Full
    );
    assert_eq!(
        table.insert(address(7), at(10), at(1), ""),
        Inserted::Extended
    );
    assert_eq!(table.len(), 1000);
    assert!(table.remove(address(3)));
    assert!(!table.remove(address(3)));
    assert_eq!(table.insert(address(1000), at(9), at(1), ""), Inserted::New);
    assert_eq!(table.retain(|_, _| false), 1000);
    assert_eq!(table.len(), 0);
}

/// No table holds everybody, so nothing is there to be removed.
#[test]
fn a_prefix_of_length_zero_is_never_there() {
    let table = table(10);
    for everybody in ["0.0.0.0/0", "::/0"] {
        let everybody = subnet(everybody);
        assert_eq!(table.insert(everybody, at(9), at(1), ""), Inserted::Full);
        assert!(!table.remove(everybody) && !table.replace(everybody, at(9)));
        assert!(table.find(everybody).is_none());
    }
}

/// What went past a full bucket is counted there, and the count goes with the entry.
#[test]
fn removed_entries_leave_nothing_behind() {
    let table = table(5_000);
    let hosts = || (0..5_000u32).map(|n| Subnet::host(IpAddr::V4((0x0a00_0000 + n).into())));
    for host in hosts() {
        assert_eq!(table.insert(host, at(100), at(50), ""), Inserted::New);
    }
    assert!(!table.hosts.is_settled(), "no bucket was ever full");
    for host in hosts() {
        assert!(table.remove(host));
    }
    assert!(table.hosts.is_settled());
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let table = table(2);
    let long = "é".repeat(100);
    table.insert(subnet("192.0.2.1"), at(9), at(1), &long);
    let entry = table
        .entry(table.find(subnet("192.0.2.1")).unwrap())
        .unwrap();
    assert_eq!(entry.reason, "é".repeat(super::REASON_MAX / 2));
}

#[test]
fn a_million_entries() {
    let table = table(1_000_000);
    let address = |n: u32| Subnet::host(IpAddr::V4(n.wrapping_mul(2_654_435_761).max(1).into()));
    for n in 1..=1_000_000 {
        assert_eq!(table.insert(address(n), at(9), at(1), ""), Inserted::New);
    }
    assert!((1..=1_000_000).all(|n| table.lookup(address(n).address(), at(1)).is_some()));
    assert_eq!(table.retain(|_, _| false), 1_000_000);
    assert!((1..=1_000_000).all(|n| table.lookup(address(n).address(), at(1)).is_none()));
}

/// Two threads place the same addresses at the same moment, one removes others, one looks: what is
/// banned throughout is never missed, and nothing is shown twice.
#[test]
fn threads_agree() {
    let table = table(4096);
    let lasting: Vec<Subnet> = (0..64)
        .map(|n| Subnet::host(IpAddr::V4((0x0b00_0000 + n).into())))
        .collect();
    for &address in &lasting {
        table.insert(address, at(9), at(1), "");
    }
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                start.wait();
                for round in 0..200u32 {
                    for n in 0..64u32 {
                        let v4 = Subnet::host(IpAddr::V4((0x0a00_0000 + n).into()));
                        let v6 = subnet(&format!("2001:db8::{n:x}"));
                        table.insert(v4, at(10 + round), at(1), "");
                        table.insert(v6, at(10 + round), at(1), "");
                    }
                }
            });
        }
        scope.spawn(|| {
            start.wait();
            for _ in 0..200 {
                for n in 0..64u32 {
                    table.remove(Subnet::host(IpAddr::V4((0x0a00_0000 + n).into())));
                    table.remove(subnet(&format!("2001:db8::{n:x}")));
                }
            }
        });
        scope.spawn(|| {
            start.wait();
            for _ in 0..500 {
                assert!(lasting
                    .iter()
                    .all(|one| table.lookup(one.address(), at(1)).is_some()));
            }
        });
    });
    let mut seen = HashMap::new();
    table.for_each(|entry| *seen.entry(entry.subnet).or_insert(0) += 1);
    assert!(seen.values().all(|&copies| copies == 1), "{seen:?}");
    // Copies (see `hosts`) take room of their own.
    assert!(seen.len() <= table.len());
    table.retain(|_, _| false);
    assert_eq!(table.len(), 0);
    // Every announcement was taken back: a search ends in its home bucket again.
    assert!(table.hosts.is_settled() && table.nets.is_settled());
}

#[derive(Debug, Clone)]
enum Step {
    Inserted(Subnet, u32),
    Replace(Subnet, u32),
    Remove(Subnet),
    Expire(u32),
}

fn any_subnet() -> impl Strategy<Value = Subnet> {
    prop_oneof![
        (0u32..40).prop_map(|n| Subnet::host(IpAddr::V4((0xc000_0200 + n).into()))),
        (0u128..10).prop_map(|n| Subnet::host(IpAddr::V6((0x2001_0db8_u128 << 96 | n).into()))),
        (0u32..6, 24u8..32).prop_map(|(n, length)| {
            Subnet::new(IpAddr::V4((0xc000_0200 + n * 37).into()), length).unwrap()
        }),
        (0u128..4, 48u8..128).prop_map(|(n, length)| {
            Subnet::new(
                IpAddr::V6((0x2001_0db8_u128 << 96 | n << 60).into()),
                length,
            )
            .unwrap()
        }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any_subnet(), 1u32..50).prop_map(|(subnet, end)| Step::Inserted(subnet, end)),
        1 => (any_subnet(), 1u32..50).prop_map(|(subnet, end)| Step::Replace(subnet, end)),
        2 => any_subnet().prop_map(Step::Remove),
        1 => (1u32..50).prop_map(Step::Expire),
    ]
}

proptest! {
    /// Against a plain map, in a table so small that most buckets overflow.
    #[test]
    fn same_as_a_map(steps in proptest::collection::vec(any_step(), 1..120), now in 0u32..50) {
        let table = table(60);
        let mut map: HashMap<Subnet, u32> = HashMap::new();
        for step in steps {
            match step {
                Step::Inserted(subnet, end) => {
                    if table.insert(subnet, at(end), at(1), "") != Inserted::Full {
                        map.entry(subnet).and_modify(|old| *old = end.max(*old)).or_insert(end);
                    } else {
                        prop_assert!(map.len() >= 60);
                    }
                }
                Step::Replace(subnet, end) => {
                    prop_assert_eq!(table.replace(subnet, at(end)), map.contains_key(&subnet));
                    map.entry(subnet).and_modify(|old| *old = end);
                }
                Step::Remove(subnet) => prop_assert_eq!(table.remove(subnet), map.remove(&subnet).is_some()),
                Step::Expire(now) => {
                    table.expire(at(now), |_| ());
                    // A lowered end may be swept late, never early.
                    let mut left = HashMap::new();
                    table.for_each(|entry| { left.insert(entry.subnet, entry.value.get()); });
                    map.retain(|subnet, end| *end > now || left.contains_key(subnet));
                    prop_assert_eq!(&left, &map);
                }
            }
            prop_assert_eq!(table.len(), map.len());
        }
        for n in 0..256u32 {
            let ip = IpAddr::V4((0xc000_0200 + n).into());
            let covered = map.iter().any(|(subnet, end)| subnet.contains(ip) && *end > now);
            prop_assert_eq!(table.lookup(ip, at(now)).is_some(), covered);
        }
        for n in 0..12u128 {
            let ip = IpAddr::V6((0x2001_0db8_u128 << 96 | n).into());
            let covered = map.iter().any(|(subnet, end)| subnet.contains(ip) && *end > now);
            prop_assert_eq!(table.lookup(ip, at(now)).is_some(), covered);
        }
    }
}
