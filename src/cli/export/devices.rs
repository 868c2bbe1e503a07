//! Formats for routers and firewalls: Cisco, Juniper, MikroTik.

use std::collections::BTreeSet;
use std::fmt::Write;

use ipnet::IpNet;

use super::shape::{aggregated, is_host, is_v4, nets, seconds_left};
use super::Job;

/// What has to be added to a list on a device, and what has to go.
struct Difference {
    added: Vec<IpNet>,
    gone: Vec<IpNet>,
}

/// A member that no packet can come from (RFC 5737, RFC 3849), for a group that must not become empty.
const NOBODY: [&str; 2] = ["192.0.2.0/32", "2001:db8::/128"];

/// From what the device has to `wanted`; all of it is added if nothing is known of the device.
fn difference(job: &Job<'_>, wanted: Vec<IpNet>) -> Difference {
    let Some(previous) = job.previous else {
        return Difference {
            added: wanted,
            gone: Vec::new(),
        };
    };
    let now: BTreeSet<IpNet> = wanted.iter().copied().collect();
    let before = previous.members();
    Difference {
        gone: before.difference(&now).copied().collect(),
        added: wanted
            .into_iter()
            .filter(|net| !before.contains(net))
            .collect(),
    }
}

/// One group for both families. A group in use can be neither removed nor emptied, so what is new comes first.
pub fn cisco_asa(job: &Job<'_>) -> String {
    let difference = difference(job, aggregated(job.items));
    let mut text = String::new();
    if difference.added.is_empty() && difference.gone.is_empty() {
        return text;
    }
    let _ = writeln!(text, "object-group network {}", job.name);
    for net in &difference.added {
        let _ = writeln!(text, " network-object {}", asa_member(net));
    }
    for net in &difference.gone {
        let _ = writeln!(text, " no network-object {}", asa_member(net));
    }
    text
}

fn asa_member(net: &IpNet) -> String {
    match net {
        _ if is_host(net) => format!("host {}", net.addr()),
        IpNet::V4(net) => format!("{} {}", net.network(), net.netmask()),
        IpNet::V6(net) => net.to_string(),
    }
}

/// One group a family, the second named NAME-v6 and left out if there is no IPv6.
pub fn cisco_ios(job: &Job<'_>) -> String {
    let mut wanted = aggregated(job.items);
    // Both groups may be in use, and then the last member of neither can go.
    let before = job.previous.map(|previous| previous.members());
    for nobody in NOBODY.iter().filter_map(|text| text.parse::<IpNet>().ok()) {
        let of_family = |net: &&IpNet| is_v4(net) == is_v4(&nobody);
        let used = before.is_some_and(|before| before.iter().any(|net| of_family(&net)));
        if used && !wanted.iter().any(|net| of_family(&net)) {
            wanted.push(nobody);
        }
    }
    let difference = difference(job, wanted);
    let mut text = String::new();
    for (v4, head) in [
        (true, format!("object-group network {}", job.name)),
        (false, format!("object-group v6-network {}-v6", job.name)),
    ] {
        let of_family = |net: &&IpNet| is_v4(net) == v4;
        let added: Vec<_> = difference.added.iter().filter(of_family).collect();
        let gone: Vec<_> = difference.gone.iter().filter(of_family).collect();
        if added.is_empty() && gone.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{head}");
        for net in added {
            let _ = writeln!(text, " {}", ios_member(net));
        }
        for net in gone {
            let _ = writeln!(text, " no {}", ios_member(net));
        }
    }
    text
}

fn ios_member(net: &IpNet) -> String {
    match net {
        _ if is_host(net) => format!("host {}", net.addr()),
        // A network mask, not a wildcard.
        IpNet::V4(net) => format!("{} {}", net.network(), net.netmask()),
        IpNet::V6(net) => net.to_string(),
    }
}

/// To be loaded with "load set" and committed once: the commit replaces the list in one step.
pub fn junos(job: &Job<'_>) -> String {
    let list = format!("policy-options prefix-list {}", job.name);
    let mut text = format!("delete {list}\n");
    for net in aggregated(job.items) {
        let _ = writeln!(text, "set {list} {net}");
    }
    text
}

/// Every line is protected: an import ends at the first error, and an address that is there already is one.
/// Entries have timeouts, so they stay out of the flash and end by themselves; all of them are added each
/// time, since some may have ended on the device.
pub fn routeros(job: &Job<'_>) -> String {
    let list = job.name;
    let gone = difference(job, nets(job.items)).gone;
    let mut text = String::new();
    for (v4, path) in [(true, "/ip"), (false, "/ipv6")] {
        let gone: Vec<_> = gone.iter().filter(|net| is_v4(net) == v4).collect();
        let items: Vec<_> = job
            .items
            .iter()
            .filter(|item| item.subnet.is_v4() == v4)
            .collect();
        if gone.is_empty() && items.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{path} firewall address-list");
        for item in items {
            let timeout = routeros_time(seconds_left(job, item, u32::MAX));
            let address = routeros_address(item.subnet.address(), item.subnet.prefix_len());
            let _ = writeln!(
                text,
                ":do {{ add list={list} address={address} timeout={timeout} comment=apiban }} on-error={{}}"
            );
        }
        for net in gone {
            let address = routeros_address(net.addr(), net.prefix_len());
            let _ = writeln!(
                text,
                ":do {{ remove [find list={list} address={address}] }} on-error={{}}"
            );
        }
    }
    text
}

/// As RouterOS itself shows it, which is what "find" compares with: IPv6 always with its length.
fn routeros_address(ip: std::net::IpAddr, length: u8) -> String {
    if ip.is_ipv4() && length == 32 {
        ip.to_string()
    } else {
        format!("{ip}/{length}")
    }
}

fn routeros_time(seconds: u32) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    format!("{days}d{hours:02}:{minutes:02}:{seconds:02}")
}
