//! The ban table against hash sets in private memory: `cargo bench --bench table`.
//!
//! Medians of 41 runs, in nanoseconds, and ratios to `hashbrown::HashSet` with the same hash function in
//! the same run: ratios hold where the machine does not. The set of `IpAddr` takes what the table takes,
//! addresses of either family; the set of `u32` is the least that a set of IPv4 addresses alone can cost.
//! Neither knows ends, prefixes or other processes. With `--instructions N` it runs N checks and prints
//! nothing: `tests/tools/instructions` counts what they cost.

mod measure;

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use apiban::address::Subnet;
use apiban::bans::check::{check, check_and_keep, check_fast, Verdict};
use apiban::clock::UnixSeconds;
use apiban::config::Config;
use apiban::memory::Ordering;
use apiban::shared::counters::ProcessCounters;
use apiban::shared::origin::Origin;
use apiban::shared::Shared;
use apiban::sys::mmap::Mapped;
use apiban::table::{Table, TableLayout};
use apiban::trust::{self, Recent};
use measure::{median, median_ns, scatter, shared_bytes};

const SIZES: [u32; 4] = [1_300, 5_000, 100_000, 1_000_000];
/// Lookups per run, over different addresses in an order that no cache guesses.
const LOOKUPS: usize = 50_000;
const NOW: UnixSeconds = UnixSeconds::new(1_000);
const END: UnixSeconds = UnixSeconds::new(2_000);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|word| word == "--instructions") {
        return instructions(&arguments[at + 1], arguments[at + 2].parse().unwrap());
    }
    println!("random lookup, ns      ours   IpAddr      u32   std   line   ours/IpAddr ours/u32");
    SIZES.into_iter().for_each(lookups);
    println!("insert, ns             ours   IpAddr      u32   std          ours/IpAddr ours/u32");
    SIZES.into_iter().for_each(inserts);
    memory();
    subnets();
    checks();
}

fn v4(bits: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(bits))
}

/// Entry `n` of a table; no loopback address, and nothing in 10.0.0.0/8, where the own address is.
fn address(n: u32) -> u32 {
    let bits = scatter(n);
    if matches!(bits >> 24, 0 | 10 | 127) {
        bits | 0x8000_0000
    } else {
        bits
    }
}

fn layout(capacity: usize) -> TableLayout {
    TableLayout {
        purpose: "benchmark",
        capacity,
        reasons: false,
    }
}

fn filled(size: u32) -> Table {
    let table = Table::new(&mut Mapped::shared(), layout(size as usize), 42);
    let table = table.unwrap();
    for n in 0..size {
        table.insert(Subnet::host(v4(address(n))), END, NOW, "");
    }
    table
}

/// What is looked up: entries of a table of `size`, or addresses beyond them.
fn wanted(size: u32, hit: bool) -> Vec<u32> {
    (0..LOOKUPS as u32)
        .map(|n| address(scatter(n) % size + if hit { 0 } else { 1 << 24 }))
        .collect()
}

type Keyed<K> = hashbrown::HashSet<K, foldhash::fast::RandomState>;

/// Nanoseconds of a lookup in `set` of each of `wanted`.
fn time_set<K: Hash + Eq>(set: Keyed<K>, wanted: impl Iterator<Item = K>) -> f64 {
    let wanted: Vec<K> = wanted.collect();
    median_ns(wanted.len(), || {
        black_box(wanted.iter().filter(|one| set.contains(*one)).count());
    })
}

fn lookups(size: u32) {
    let table = filled(size);
    for hit in [true, false] {
        let wanted = wanted(size, hit);
        let ips: Vec<IpAddr> = wanted.iter().copied().map(v4).collect();
        let ours = median_ns(LOOKUPS, || {
            let found = |one: &&IpAddr| table.lookup(**one, NOW).is_some();
            black_box(ips.iter().filter(found).count());
        });
        let ip_set = time_set((0..size).map(address).map(v4).collect(), ips.into_iter());
        let u32_set = time_set((0..size).map(address).collect(), wanted.iter().copied());
        let set: HashSet<u32> = (0..size).map(address).collect();
        let std = median_ns(LOOKUPS, || {
            black_box(wanted.iter().filter(|one| set.contains(*one)).count());
        });
        let line = one_line(size, &wanted);
        println!(
            "{size:>9} {:<9} {ours:>7.2} {ip_set:>8.2} {u32_set:>8.2} {std:>5.1} {line:>6.2} {:>13.2} {:>8.2}",
            if hit { "hit" } else { "miss" },
            ours / ip_set,
            ours / u32_set
        );
    }
}

/// The least that any table of this size costs: one random line of as much memory as ours has.
fn one_line(size: u32, wanted: &[u32]) -> f64 {
    use apiban::memory::Arena;
    // Seven slots a line, six of ten taken.
    let count = (size as usize * 10).div_ceil(42);
    let lines = Mapped::shared().lines("benchmark", count).unwrap();
    lines
        .iter()
        .for_each(|line| line.0[0].store(1, Ordering::Relaxed));
    median_ns(wanted.len(), || {
        let at = |one: &u32| ((u64::from(*one) * count as u64) >> 32) as usize;
        let sum: u64 = wanted
            .iter()
            .map(|one| lines[at(one)].0[0].load(Ordering::Relaxed))
            .sum();
        black_box(sum);
    })
}

fn inserts(size: u32) {
    let fill = move |set: &mut dyn FnMut(u32)| {
        let start = Instant::now();
        (0..size).for_each(|n| set(address(n)));
        start.elapsed().as_nanos() as f64 / f64::from(size)
    };
    // Pages that were touched before, as in the sets: the table is filled once and emptied.
    let table = filled(size);
    let ours = median(|| {
        table.retain(|_, _| false);
        fill(&mut |one| {
            table.insert(Subnet::host(v4(one)), END, NOW, "");
        })
    });
    fn peer<K: Hash + Eq, S: BuildHasher + Default>(
        size: u32,
        fill: impl Fn(&mut dyn FnMut(u32)) -> f64,
        key: fn(u32) -> K,
    ) -> f64 {
        let mut set =
            hashbrown::HashSet::<K, S>::with_capacity_and_hasher(size as usize, S::default());
        median(|| {
            set.clear();
            fill(&mut |one| {
                set.insert(key(one));
            })
        })
    }
    let ip_set = peer::<_, foldhash::fast::RandomState>(size, fill, v4);
    let u32_set = peer::<u32, foldhash::fast::RandomState>(size, fill, |one| one);
    let std = peer::<u32, std::hash::RandomState>(size, fill, |one| one);
    println!(
        "{size:>9}           {ours:>7.2} {ip_set:>8.2} {u32_set:>8.2} {std:>5.1} {:>20.2} {:>8.2}",
        ours / ip_set,
        ours / u32_set
    );
}

fn memory() {
    let size = 100_000;
    let before = shared_bytes();
    let table = Table::new(&mut Mapped::shared(), layout(size as usize), 42).unwrap();
    for n in 0..size {
        table.insert(Subnet::host(v4(address(n))), END, NOW, "");
    }
    println!(
        "memory: {:.1} touched bytes an entry at {size} of {size}",
        (shared_bytes() - before) as f64 / f64::from(size)
    );
}

fn subnets() {
    let table = filled(1_300);
    let page: Vec<Subnet> = (0..250u32)
        .map(|n| Subnet::host(v4(address(n + 5_000))))
        .collect();
    let ns = median(|| {
        let start = Instant::now();
        for &one in &page {
            table.insert(one, END, NOW, "");
        }
        let ns = start.elapsed().as_nanos() as f64;
        table.retain(|subnet, _| !page.contains(&subnet));
        ns
    });
    println!("one page of 250 into a table of 1,300: {:.1} us", ns / 1e3);
}

/// Memory as the module has it, 100,000 addresses in the feed table, loopback and one own address trusted.
fn shared() -> Shared {
    let shared = Shared::new(&mut Mapped::shared(), &Config::default(), 42).unwrap();
    shared.set_now(NOW);
    shared.trust.replace(&trust::loopback());
    let own = "10.1.2.3".parse().unwrap();
    assert!(shared.trust.add((own, trust::Rule::Own)));
    for n in 0..100_000 {
        shared
            .feed
            .insert(Subnet::host(v4(address(n))), END, NOW, "");
    }
    shared
}

fn checks() {
    let shared = shared();
    let lane = shared.counters.of_process(3);
    println!("whole check, ns        one address   1,000 addresses   random addresses");
    for (name, wanted, verdict) in [
        ("hit", wanted(100_000, true), Verdict::Banned(Origin::Feed)),
        ("miss", wanted(100_000, false), Verdict::Clear),
        ("trusted", vec![0x7f00_0001; LOOKUPS], Verdict::Trusted),
    ] {
        let wanted: Vec<IpAddr> = wanted.into_iter().map(v4).collect();
        let time = |different: usize| {
            median_ns(LOOKUPS, || {
                for n in 0..LOOKUPS {
                    assert!(
                        whole_check(&shared, lane, black_box(wanted[n % different])) == verdict
                    );
                }
            })
        };
        println!(
            "{name:<20} {:>13.2} {:>17.2} {:>18.2}",
            time(1),
            time(1_000),
            time(LOOKUPS)
        );
    }
}

/// As in a SIP worker.
static RECENT: Recent = Recent::new();

/// As `apiban_check()` does it.
#[inline(always)]
fn whole_check(shared: &Shared, lane: ProcessCounters, ip: IpAddr) -> Verdict {
    let IpAddr::V4(v4) = ip else {
        return check(shared, lane, ip);
    };
    check_fast(shared, || lane, &RECENT, v4)
        .unwrap_or_else(|| check_and_keep(shared, lane, &RECENT, v4))
}

/// `count` checks of one kind and nothing else worth counting.
fn instructions(kind: &str, count: u32) {
    let shared = shared();
    let lane = shared.counters.of_process(3);
    let ip = v4(match kind {
        "hit" => address(7),
        "miss" => address(1 << 24),
        "trusted" => 0x7f00_0001,
        _ => panic!("hit, miss or trusted"),
    });
    for _ in 0..count {
        black_box(whole_check(black_box(&shared), lane, black_box(ip)));
    }
}
