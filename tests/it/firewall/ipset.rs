//! The ipset backend against the running kernel, in a network namespace of its own. Needs root and `ipset`.

use std::process::Command;

use apiban::address::Subnet;
use apiban::firewall::ipset::Ipset;
use apiban::firewall::{Change, Element, Firewall};

use apiban_testing::netns::in_namespace;

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn add(text: &str) -> Change {
    Change::Add(Element {
        subnet: subnet(text),
        seconds_left: 600,
        hits: 0,
    })
}

fn holds(set: &str, ip: &str) -> bool {
    let tested = Command::new("ipset").args(["test", set, ip]).output();
    tested.expect("ipset").status.success()
}

/// One change at a time, as a service makes them: no refill mends what goes wrong here.
#[test]
fn single_changes_go_to_the_set_of_their_family() {
    in_namespace(|| {
        let mut ipset = Ipset::new("sip");
        ipset.reset().unwrap();
        ipset
            .apply(&[
                add("192.0.2.1"),
                add("198.51.100.0/24"),
                add("2001:db8::/64"),
            ])
            .unwrap();
        assert!(holds("sip-v4", "192.0.2.1") && holds("sip-v4", "198.51.100.9"));
        assert!(holds("sip-v6", "2001:db8::7") && !holds("sip-v6", "2001:db8:0:1::7"));
        ipset
            .apply(&[
                Change::Remove(subnet("192.0.2.1")),
                Change::Remove(subnet("2001:db8::/64")),
            ])
            .unwrap();
        assert!(!holds("sip-v4", "192.0.2.1") && !holds("sip-v6", "2001:db8::7"));
        assert!(holds("sip-v4", "198.51.100.9"));
        ipset.remove().unwrap();
        assert!(!holds("sip-v4", "198.51.100.9"));
    });
}
