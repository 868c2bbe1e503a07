//! The memory of the module follows what its tables hold, not what they could hold.

use std::time::Duration;

use apiban_testing::kamailio::Kamailio;
use apiban_testing::wait::wait_until;

/// For a busy machine; what is waited for comes much sooner.
const SOON: Duration = Duration::from_secs(15);
/// Above what everything else in shared memory needs, and far below the tables, in kB: those for 16,777,216
/// entries are gigabytes.
const MOST: u64 = 40_000;

/// Shared memory that this process has touched and that is real, in kB.
fn shared_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssShmem:"))
        .expect("RssShmem");
    let number = line.split_whitespace().next().expect("a number");
    number.parse().expect("a number")
}

#[test]
fn a_table_for_millions_with_one_ban_stays_small() {
    let kamailio = Kamailio::builder()
        .param("max_local_entries", 16_777_216)
        .param("trust_self", 0)
        .request_route("if (apiban_check() > 0) { exit; }")
        .start();
    let updater = kamailio.pid_of("APIBAN updater");
    let main = kamailio.pid();
    assert!(shared_memory(main) < MOST, "{}", shared_memory(main));
    for banned in ["2001:db8::7", "127.0.0.66", "198.51.100.0/24"] {
        kamailio.ask("apiban.block", &[banned, "600"]);
    }
    kamailio.assert_dropped("127.0.0.66");
    let state = kamailio.dir().join("apiban.state");
    wait_until("the state to be saved", SOON, || {
        std::fs::read_to_string(&state).is_ok_and(|text| text.contains("198.51.100.0/24"))
    });
    assert_eq!(
        kamailio.ask("apiban.list", &[]).as_array().map(Vec::len),
        Some(3)
    );
    // One that ends, so that the sweep walks through the table.
    kamailio.ask("apiban.block", &["192.0.2.1", "1"]);
    wait_until("the short ban to end", SOON, || {
        kamailio.statistic("apiban", "local_entries") == 3
    });
    let used = shared_memory(updater);
    assert!(used < MOST, "{used} kB of shared memory are real");
}
