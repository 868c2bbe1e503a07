use super::*;
use crate::memory::HeapArena;

fn trust(list: &str) -> Trust {
    let trust = Trust::new(&mut HeapArena, 7, 64).unwrap();
    trust.replace(&parse_parameter(list).unwrap());
    trust
}

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

#[test]
fn covers_addresses_and_whatever_overlaps() {
    let trust = trust("192.0.2.7, 198.51.100.0/24 2001:db8::5");
    for spared in [
        "192.0.2.7",
        "192.0.2.0/24",
        "198.51.100.9",
        "198.51.100.128/25",
        "198.51.0.0/16",
        "2001:db8::5",
        "2001:db8::/64",
        "2001:db8::/48",
    ] {
        assert_eq!(
            trust.spares(subnet(spared)),
            Some(Rule::Parameter),
            "{spared}"
        );
    }
    for stranger in [
        "192.0.2.8",
        "192.0.3.0/24",
        "2001:db8::6",
        "2001:db8:1::/64",
    ] {
        assert_eq!(trust.spares(subnet(stranger)), None, "{stranger}");
    }
}

/// An IPv4 host that comes through a NAT64 translator is the same host.
#[test]
fn a_trusted_ipv4_address_is_trusted_behind_a_translator() {
    let trust = trust("192.0.2.7, 198.51.100.0/24");
    trust.add((subnet("127.0.0.0/8"), Rule::Loopback));
    for spared in [
        "64:ff9b::192.0.2.7",
        "64:ff9b::198.51.100.200",
        "64:ff9b:1::192.0.2.7",
        "64:ff9b:1:c000:2:700::",
        "64:ff9b::192.0.2.0/120",
        "64:ff9b::198.51.100.128/121",
        "64:ff9b::/96",
        "64:ff9b::/64",
        "64:ff9b:1::/64",
        "64:ff9b::/32",
    ] {
        let by = trust.spares(subnet(spared));
        assert_eq!(by, Some(Rule::Parameter), "{spared}");
    }
    let why = trust.explain(subnet("64:ff9b::192.0.2.7"));
    assert_eq!(why.as_deref(), Some("trust 192.0.2.7"));
    for stranger in [
        "64:ff9b::192.0.2.8",
        "64:ff9b::192.0.3.0/120",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::192.0.2.8",
        "64:ff9b:2::192.0.2.7",
        "2001:db8::192.0.2.7",
    ] {
        assert_eq!(trust.spares(subnet(stranger)), None, "{stranger}");
        assert_eq!(trust.explain(subnet(stranger)), None, "{stranger}");
    }
    let none = self::trust("2001:db8::5");
    none.add((subnet("127.0.0.0/8"), Rule::Loopback));
    assert_eq!(none.spares(subnet("64:ff9b::/96")), None);
}

#[test]
fn a_whole_family_can_be_trusted() {
    let v4 = trust("0.0.0.0/0");
    let v6 = trust("::/0");
    for (text, is_v4) in [
        ("192.0.2.7", true),
        ("8.8.8.0/24", true),
        ("2001:db8::1", false),
    ] {
        assert_eq!(v4.spares(subnet(text)).is_some(), is_v4, "{text}");
        assert_eq!(v6.spares(subnet(text)).is_some(), !is_v4, "{text}");
    }
}

#[test]
fn is_swapped_whole_and_names_the_rule() {
    let trust = trust("192.0.2.7 192.0.2.8");
    let text = "# carriers\n\n192.0.2.8  # east\n203.0.113.0/24\n";
    let file = Given::parse_file(text).unwrap().at(UnixSeconds::ZERO);
    trust.replace(&[file, loopback()].concat());
    assert_eq!(trust.rule("192.0.2.7".parse().unwrap()), None);
    assert_eq!(
        trust.rule("192.0.2.8".parse().unwrap()),
        Some(Rule::File(3))
    );
    assert_eq!(
        trust
            .rule("203.0.113.77".parse().unwrap())
            .unwrap()
            .to_string(),
        "trust_file line 4"
    );
    assert_eq!(
        trust.rule("127.0.0.9".parse().unwrap()),
        Some(Rule::Loopback)
    );
    assert_eq!(trust.count(), (4, 2));
    assert!(trust.add((subnet("192.0.2.9"), Rule::Own)));
    assert_eq!(trust.rule("192.0.2.9".parse().unwrap()), Some(Rule::Own));
    assert_eq!(trust.of(Rule::Own), [subnet("192.0.2.9")]);
    assert_eq!(trust.of(Rule::File(4)), [subnet("203.0.113.0/24")]);
    assert_eq!(trust.of(Rule::File(9)), []);
}

#[test]
fn wide_prefixes_cover_all_their_regions() {
    let trust = trust("10.0.0.0/6 2001:e00::/24 2001:db8:1::/48");
    for text in [
        "8.0.0.1",
        "11.255.255.255",
        "::ffff:9.1.1.1",
        "2001:eff::1",
        "2001:db8:1::1",
    ] {
        assert!(trust.rule(text.parse().unwrap()).is_some(), "{text}");
    }
    for text in ["7.255.255.255", "12.0.0.0", "2001:f00::1", "2001:db8:2::1"] {
        assert_eq!(trust.rule(text.parse().unwrap()), None, "{text}");
    }
    let all = Trust::new(&mut HeapArena, 7, 64).unwrap();
    all.add((subnet("::/1"), Rule::Parameter));
    assert!((0..256u128).all(|n| all.rule(IpAddr::V6((n << 100 | 1).into())).is_some()));
}

/// Who shares a carrier's first octet only is not searched for among the trusted.
#[test]
fn an_ipv4_region_is_a_network_of_thirteen_bits() {
    let trust = trust("192.0.2.7 100.64.0.0/10 203.32.0.0/11");
    let may = |text: &str| trust.may_have(text.parse().unwrap());
    for inside in [
        "192.0.0.0",
        "192.7.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "203.32.0.0",
        "203.63.255.255",
        "64:ff9b::1",
    ] {
        assert!(may(inside), "{inside}");
    }
    for outside in [
        "191.255.255.255",
        "192.8.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "203.31.255.255",
        "203.64.0.0",
        "0.0.0.0",
        "255.255.255.255",
    ] {
        assert!(!may(outside), "{outside}");
    }
    trust.add((subnet("0.0.0.0/0"), Rule::Parameter));
    assert!((0..=255).all(|n| may(&format!("{n}.{n}.0.0"))));
    assert!(may("255.255.255.255"));
}

/// The most important rules come first in the list, and only what comes last can be left out.
#[test]
fn what_exceeds_the_room_is_left_out_from_the_end() {
    let host = |n: u32| Subnet::host(IpAddr::V4((0x0a00_0000 + n).into()));
    let mut wanted: Vec<Trusted> = parse_parameter("192.0.2.7").unwrap();
    wanted.extend((0..(CAPACITY / 2) as u32).map(|n| (host(n), Rule::Dispatcher)));
    let trust = trust("192.0.2.8");
    trust.replace(&wanted);
    assert_eq!(trust.count().0, CAPACITY / 2);
    assert_eq!(trust.spares(subnet("192.0.2.7")), Some(Rule::Parameter));
    assert_eq!(trust.spares(wanted.last().unwrap().0), None);
    assert_eq!(trust.spares(subnet("192.0.2.8")), None);
}
