//! Formats that load a Linux kernel: nft, ipset, iptables.

use std::fmt::Write;

use super::shape::{family, nets, seconds_left};
use super::{Item, Job};
use crate::firewall::ipset;

/// One transaction: the table and its sets exist afterwards, and hold exactly this list.
pub fn nft(job: &Job<'_>) -> String {
    let table = job.name;
    let mut text = format!(
        "# Rules for these sets, once, in a table of your own choice or in this one:\n\
         #   nft add chain inet {table} incoming '{{ type filter hook prerouting priority raw; }}'\n\
         #   nft add rule inet {table} incoming ip saddr @v4 counter drop\n\
         #   nft add rule inet {table} incoming ip saddr @v4_nets counter drop\n\
         #   nft add rule inet {table} incoming ip6 saddr @v6 counter drop\n\
         #   nft add rule inet {table} incoming ip6 saddr @v6_nets counter drop\n\
         add table inet {table}\n"
    );
    for (v4, prefix, kind) in [(true, "v4", "ipv4_addr"), (false, "v6", "ipv6_addr")] {
        let family = family(job.items, v4);
        for (set, flags, items) in [
            (prefix.to_owned(), "timeout", &family.hosts),
            (format!("{prefix}_nets"), "interval,timeout", &family.nets),
        ] {
            let _ = writeln!(
                text,
                "add set inet {table} {set} {{ type {kind}; flags {flags}; }}"
            );
            let _ = writeln!(text, "flush set inet {table} {set}");
            nft_elements(&mut text, job, &set, items);
        }
    }
    text
}

/// No line at all for an empty set: nft takes an empty list for an error.
fn nft_elements(text: &mut String, job: &Job<'_>, set: &str, items: &[&Item]) {
    if items.is_empty() {
        return;
    }
    let _ = writeln!(text, "add element inet {} {set} {{", job.name);
    for item in items {
        let left = seconds_left(job, item, u32::MAX);
        let _ = writeln!(text, " {} timeout {left}s,", item.subnet);
    }
    text.push_str("}\n");
}

/// Both sets filled aside and swapped: rules that name them never meet an empty one.
pub fn ipset(job: &Job<'_>) -> String {
    let left = |item| seconds_left(job, item, ipset::LONGEST);
    let entries = job.items.iter().map(|item| (&item.subnet, left(item)));
    ipset::replace(job.name, entries)
}

/// One chain, emptied and filled in one step; the operator's jump to it stays as it is.
pub fn iptables(job: &Job<'_>, v4: bool) -> String {
    let chain = job.name;
    let mut text = format!("*filter\n:{chain} - [0:0]\n");
    let nets = nets(job.items);
    for net in nets.iter().filter(|net| super::shape::is_v4(net) == v4) {
        let _ = writeln!(text, "-A {chain} -s {net} -j DROP");
    }
    text.push_str("COMMIT\n");
    text
}
