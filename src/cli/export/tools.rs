//! Formats for CrowdSec and fail2ban.

use std::fmt::Write;

use super::shape::{nets, seconds_left, short};
use super::Job;

/// Addresses in one call of fail2ban-client: well below any limit of a command line.
const PER_CALL: usize = 200;

/// Decisions with the time that each ban has left.
pub fn crowdsec(job: &Job<'_>) -> String {
    let mut text = String::from("duration,scope,value,reason,type\n");
    for item in job.items {
        let left = seconds_left(job, item, u32::MAX);
        let scope = if item.subnet.is_host() { "ip" } else { "range" };
        let _ = writeln!(text, "{left}s,{scope},{},{},ban", item.subnet, job.name);
    }
    text
}

/// A script: the jail's own ban time ends the bans.
pub fn fail2ban(job: &Job<'_>) -> String {
    let mut text = String::from("#!/bin/sh\nset -e\n");
    for chunk in nets(job.items).chunks(PER_CALL) {
        let addresses: Vec<String> = chunk.iter().map(short).collect();
        let _ = writeln!(
            text,
            "fail2ban-client set {} banip {} >/dev/null",
            job.name,
            addresses.join(" ")
        );
    }
    text
}
