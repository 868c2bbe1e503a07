//! Formats for SIP servers and proxies.

use std::fmt::Write;

use super::shape::{aggregated, nets, short};
use super::Job;

/// Group of the entries in the address tables of Kamailio and OpenSIPS.
const GROUP: u32 = 1;

/// One address or prefix a line, as few lines as possible.
pub fn prefixes(job: &Job<'_>) -> String {
    let mut text = String::new();
    for net in aggregated(job.items) {
        let _ = writeln!(text, "{}", short(&net));
    }
    text
}

/// To be included in the `http` or `stream` block.
pub fn nginx(job: &Job<'_>) -> String {
    let mut text = format!("geo ${} {{\n    default 0;\n", job.name);
    for net in aggregated(job.items) {
        let _ = writeln!(text, "    {} 1;", short(&net));
    }
    text.push_str("}\n");
    text
}

/// A named ACL that denies the list and nothing else.
pub fn asterisk(job: &Job<'_>) -> String {
    let mut text = format!("[{}]\n", job.name);
    for net in aggregated(job.items) {
        let _ = writeln!(text, "deny={net}");
    }
    text
}

/// A network list that denies the list and nothing else.
pub fn freeswitch(job: &Job<'_>) -> String {
    let mut text = format!(
        "<include>\n  <list name=\"{}\" default=\"allow\">\n",
        job.name
    );
    for net in aggregated(job.items) {
        let _ = writeln!(text, "    <node type=\"deny\" cidr=\"{net}\"/>");
    }
    text.push_str("  </list>\n</include>\n");
    text
}

/// Group, address, prefix length, any port, tag. Not aggregated: single addresses are found in a hash table,
/// prefixes by going through all of them.
pub fn kamailio(job: &Job<'_>) -> String {
    let mut text = String::new();
    for net in nets(job.items) {
        let (ip, length, tag) = (net.addr(), net.prefix_len(), job.name);
        let _ = writeln!(text, "{GROUP} {ip} {length} 0 {tag}");
    }
    text
}

/// One transaction that replaces the entries of the group. Not aggregated, for the same reason.
pub fn opensips(job: &Job<'_>) -> String {
    let table = job.name;
    let mut text = format!("BEGIN;\nDELETE FROM {table} WHERE grp = {GROUP};\n");
    for net in nets(job.items) {
        let (ip, length) = (net.addr(), net.prefix_len());
        let _ = writeln!(
            text,
            "INSERT INTO {table} (grp, ip, mask, port, proto, context_info) \
             VALUES ({GROUP}, '{ip}', {length}, 0, 'any', 'apiban');"
        );
    }
    text.push_str("COMMIT;\n");
    text
}
