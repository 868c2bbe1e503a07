//! What several formats do with the list before they print it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Item, Job};

/// The whole list as the fewest prefixes that cover exactly the same addresses, IPv4 first, sorted.
pub fn aggregated(items: &[Item]) -> Vec<IpNet> {
    let nets: Vec<IpNet> = items.iter().filter_map(net).collect();
    IpNet::aggregate(&nets)
}

/// The entries of a list as they are, sorted.
pub fn nets(items: &[Item]) -> Vec<IpNet> {
    items.iter().filter_map(net).collect()
}

fn net(item: &Item) -> Option<IpNet> {
    IpNet::new(item.subnet.address(), item.subnet.prefix_len()).ok()
}

/// Addresses and prefixes of one family, the prefixes without those that lie in another one.
pub struct Family<'a> {
    /// Single addresses.
    pub hosts: Vec<&'a Item>,
    /// Prefixes.
    pub nets: Vec<&'a Item>,
}

/// The list by family.
pub fn family(items: &[Item], v4: bool) -> Family<'_> {
    let mut family = Family {
        hosts: Vec::new(),
        nets: Vec::new(),
    };
    for item in items.iter().filter(|item| item.subnet.is_v4() == v4) {
        if item.subnet.is_host() {
            family.hosts.push(item);
            continue;
        }
        // Sorted by address, the wider one first.
        let covered = |outer: &&Item| outer.subnet.contains(item.subnet.address());
        if !family.nets.last().is_some_and(covered) {
            family.nets.push(item);
        }
    }
    family
}

/// Seconds that a ban has left, at least one, at most `longest`.
pub fn seconds_left(job: &Job<'_>, item: &Item, longest: u32) -> u32 {
    item.until.seconds_since(job.now).clamp(1, longest)
}

/// True if the prefix is one address.
pub fn is_host(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// An address alone, or a prefix with its length.
pub fn short(net: &IpNet) -> String {
    if is_host(net) {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// True for IPv4.
pub fn is_v4(net: &IpNet) -> bool {
    matches!(net.addr(), IpAddr::V4(_))
}
