//! Everything that can go wrong at once: a real Kamailio in namespaces of its own under mixed load, while
//! feed, firewall, disk, clock and the updater process fail in a random order.
//!
//! Legitimate calls must all be answered, banned sources never; no process may end, and memory,
//! descriptors and log must stay flat. A cluster has a run of its own (`cluster.rs`). As an ordinary test it takes some
//! 20 seconds, always with the same seed; `tests/tools/chaos` runs it for as long as wanted, with a seed of its own. Needs root, `nft` and `ip`; with `libfaketime` the clock jumps too.

mod cluster;
mod events;
mod load;
mod random;
mod vitals;
mod world;

use std::time::{Duration, Instant};

use apiban_testing::netns::in_namespace;
use random::Random;
use world::{Wall, World};

/// How long each of the two firewalls is used where nothing else is asked for.
const SMOKE: u64 = 8;

/// The order of events of an ordinary test run, the same each time.
const SEED: u64 = 1;

/// Seconds and seed: of the environment, or `smoke` and [`SEED`].
fn asked(smoke: u64) -> (u64, u64) {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds = variable("APIBAN_CHAOS_SECONDS").unwrap_or(smoke);
    (seconds, variable("APIBAN_CHAOS_SEED").unwrap_or(SEED))
}

#[test]
fn a_cluster_is_equal_in_the_end_whatever_fails() {
    let (seconds, seed) = asked(SMOKE * 3);
    println!("seed {seed}, {} s for each transport", seconds / 3);
    cluster::run(seed, u64::max(seconds / 3, 5));
}

#[test]
fn calls_go_through_and_bans_hold_whatever_fails() {
    let (seconds, seed) = asked(SMOKE * 2);
    let seconds = u64::max(seconds / 2, 5);
    println!("seed {seed}, {seconds} s for each firewall");
    for wall in [Wall::Nft, Wall::IptablesApi] {
        in_namespace(move || one_run(wall, seed, Duration::from_secs(seconds)));
    }
}

fn one_run(wall: Wall, seed: u64, length: Duration) {
    let world = World::start(wall);
    let before = vitals::Vitals::of(&world);
    let end = Instant::now() + length;
    let mut random = Random::seeded(seed);
    let mut conductor = events::Conductor::new(&world, random.fork());
    std::thread::scope(|scope| {
        let loads: [fn(&World, Random); 5] = [
            load::legitimate_calls,
            load::banned_sources,
            load::attacks,
            load::commands,
            load::kamcmd,
        ];
        for run in loads {
            let (world, random) = (&world, random.fork());
            scope.spawn(move || run(world, random));
        }
        // A panic here must not leave the others running for ever.
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while Instant::now() < end && !world.has_failed() {
                conductor.next_event();
            }
            conductor.recover(length > Duration::from_secs(60));
        }));
        world.stop_load();
        if let Err(panic) = played {
            world.fail(format!("the events stopped: {}", random::text_of(&*panic)));
        }
    });
    println!("\n== firewall {}", wall.name());
    println!("events: {}", conductor.summary());
    println!("{}", world.summary());
    world.last_look();
    let after = before.compare(&world, length);
    println!("{after}");
    world.finish();
}
