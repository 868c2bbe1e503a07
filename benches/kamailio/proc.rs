//! What `/proc` tells of a process: its time on the CPU, its memory, a socket's queue.

use std::fs;
use std::time::{Duration, Instant};

/// Nanoseconds that all threads of a process have spent on a CPU. Exact while they sleep.
pub fn cpu_ns(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// The same once the process sleeps: between two looks it used nothing.
pub fn settled_cpu_ns(pid: i32) -> u64 {
    let mut last = cpu_ns(pid);
    loop {
        std::thread::sleep(Duration::from_millis(5));
        match cpu_ns(pid) {
            now if now == last => return now,
            now => last = now,
        }
    }
}

/// Bytes of a process's shared anonymous mappings that are its share (Pss), but for mappings of
/// `except` bytes, which is Kamailio's own pool.
pub fn shared_pss(pid: i32, except: u64) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut counts, mut sum) = (false, 0);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or("");
        if let Some((from, to)) = first.split_once('-') {
            let bounds = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16));
            if let (Ok(from), Ok(to)) = bounds {
                counts = line.contains("/dev/zero") && line.contains("rw-s") && to - from != except;
            }
        } else if counts && first == "Pss:" {
            sum += words
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024;
        }
    }
    sum
}

/// Bytes waiting at the UDP socket on this port, and packets that it has dropped. Reads the file of
/// the calling thread, which may be in another network namespace than the process.
pub fn udp_queue(port: u16) -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
    let end = format!(":{port:04X}");
    for line in text.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.len() > 12 && words[1].ends_with(&end) {
            let waiting = words[4].split_once(':').map_or("", |pair| pair.1);
            return (
                u64::from_str_radix(waiting, 16).unwrap_or(0),
                words[12].parse().unwrap_or(0),
            );
        }
    }
    panic!("no UDP socket on port {port}");
}

/// Waits until nothing waits at the UDP socket.
pub fn wait_for_empty_queue(port: u16) {
    let end = Instant::now() + Duration::from_secs(60);
    while udp_queue(port).0 > 0 {
        assert!(
            Instant::now() < end,
            "the queue of port {port} does not empty"
        );
    }
}
