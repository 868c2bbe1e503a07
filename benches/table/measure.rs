//! Timing, a source of numbers, and the memory that was touched.

use std::fs;
use std::time::Instant;

/// Bytes of the pages of shared mappings that this process has touched.
pub fn shared_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssShmem:")?.strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kib.expect("RssShmem, Linux 4.5 and newer") * 1024
}

/// Well mixed numbers that are the same on every run; a bijection, so that different `n` never collide.
pub fn scatter(n: u32) -> u32 {
    let mut x = n.wrapping_mul(0x9e37_79b1);
    x ^= x >> 15;
    x = x.wrapping_mul(0x85eb_ca77);
    x ^= x >> 13;
    x
}

/// Runs of which the median counts: many short ones, so that a busy machine does not interrupt most of them.
pub const RUNS: usize = 41;

/// Median nanoseconds of one of `count` operations that `work` does.
pub fn median_ns(count: usize, mut work: impl FnMut()) -> f64 {
    median(|| {
        let start = Instant::now();
        work();
        start.elapsed().as_nanos() as f64 / count as f64
    })
}

/// Median of what [`RUNS`] runs of `one` measure themselves.
pub fn median(one: impl FnMut() -> f64) -> f64 {
    let mut runs: Vec<f64> = std::iter::repeat_with(one).take(RUNS).collect();
    runs.sort_by(f64::total_cmp);
    runs[RUNS / 2]
}
