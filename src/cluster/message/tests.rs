//! Messages: what is written is read, and nothing else is.

use super::*;
use crate::clock::simulated::{at, at_ms};

fn keys() -> Keyring {
    Keyring::new([b"a secret of some length".as_slice()]).unwrap()
}

fn header(kind: Kind) -> Header {
    Header {
        version: VERSION,
        kind,
        run: 11,
        to: 22,
        sequence: 33,
        time: at_ms(1_795_300_000_123),
    }
}

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn every_item() -> Vec<Item> {
    vec![
        Item::Uri("sip:10.0.0.1:5060;transport=tls".into()),
        Item::Token(7),
        Item::About(5, "0.1.0".into()),
        Item::Digests(Set::List, Box::new(std::array::from_fn(|n| n as u64))),
        Item::Ban(Ban {
            subnet: subnet("2001:db8::/64"),
            end: at(1_795_300_600),
            stamp: at_ms(1_795_300_000_001),
            reason: "flood".into(),
        }),
        Item::Lift(subnet("192.0.2.0/24"), vec![(1, at_ms(2)), (3, at_ms(4))]),
        Item::Listed(vec![
            (subnet("192.0.2.1"), at(5)),
            (subnet("2001:db8::1"), at(6)),
        ]),
        Item::After(Set::Bans, 0x8000_0001, Some((31, subnet("192.0.2.9")))),
        Item::After(Set::Bans, 1, None),
        Item::UpTo(None),
        Item::UpTo(Some((0, subnet("192.0.2.9")))),
        Item::More,
        Item::Feed(Feed {
            fingerprint: 9,
            epoch: 8,
            holds: true,
            healthy: false,
            last_success: Some(at(7)),
            last_full: None,
            id: "1795300250".into(),
        }),
        Item::Requests(vec![(1, 2, 0), (3, 4, 120_000)]),
        Item::Intent(5),
        Item::Confirm(6),
    ]
}

#[test]
fn messages_come_back_as_they_were() {
    let keys = keys();
    let mut written = Items::new();
    let given = every_item();
    assert!(given.iter().all(|item| written.add(item)));
    let bytes = written.seal(&header(Kind::Bans), &keys);
    assert_eq!(addressed_to(&bytes), Some(22));
    let (read, rest) = open(&bytes, &keys).unwrap();
    assert_eq!(read, header(Kind::Bans));
    assert_eq!(items(rest).unwrap(), given);
}

#[test]
fn every_cut_and_every_flipped_bit_is_refused() {
    let keys = keys();
    let mut written = Items::new();
    written.add(&every_item()[4]);
    let bytes = written.seal(&header(Kind::Bans), &keys);
    for length in 0..bytes.len() {
        assert!(open(&bytes[..length], &keys).is_err());
    }
    for bit in 0..bytes.len() * 8 {
        let mut forged = bytes.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&forged, &keys).is_err(), "bit {bit}");
    }
    let other = Keyring::new([b"another secret of the kind".as_slice()]).unwrap();
    assert_eq!(open(&bytes, &other), Err(Refusal::Mac));
    let long = vec![0; LONGEST + 1];
    assert_eq!(open(&long, &keys), Err(Refusal::Malformed));
}

#[test]
fn a_message_never_outgrows_its_limit() {
    let mut written = Items::new();
    let ban = &every_item()[4];
    while written.add(ban) {}
    assert!(written.seal(&header(Kind::Bans), &keys()).len() <= LONGEST);
    assert!(written.add(&Item::More) || !written.add(ban));
}

#[test]
fn a_later_version_is_read_as_far_as_it_says() {
    let keys = keys();
    let mut written = Items::new();
    written.0.extend([200, 0, 3, 1, 2, 3]);
    written.add(&Item::Token(7));
    let mut next = header(Kind::Unknown(77));
    next.version = VERSION + 1;
    let bytes = written.seal(&next, &keys);
    let (read, rest) = open(&bytes, &keys).unwrap();
    assert_eq!((read.version, read.kind), (VERSION + 1, Kind::Unknown(77)));
    assert_eq!(items(rest).unwrap(), [Item::Unknown(200), Item::Token(7)]);
    // One that only the next version can read.
    let mut closed = bytes[..bytes.len() - MAC].to_vec();
    closed[5] = VERSION + 1;
    let mac = keys.sign(&closed);
    closed.extend(mac);
    assert_eq!(open(&closed, &keys), Err(Refusal::Version(VERSION + 1)));
}

#[test]
fn nonsense_in_an_item_is_refused() {
    for bad in [
        &[5, 0, 1, 4][..],
        &[5, 0, 200, 4],
        // A prefix with host bits, a length beyond the family, an unknown family.
        &[7, 0, 10, 4, 24, 192, 0, 2, 1, 0, 0, 0, 1],
        &[7, 0, 10, 4, 33, 192, 0, 2, 1, 0, 0, 0, 1],
        &[7, 0, 10, 5, 32, 192, 0, 2, 1, 0, 0, 0, 1],
        &[8, 0, 1, 9],
        &[9, 0, 7, 32, 4, 32, 192, 0, 2, 1],
    ] {
        assert_eq!(items(bad), None, "{bad:?}");
    }
    // An IPv4 address in IPv6 clothes is not the canonical form.
    let mut mapped = vec![7, 0, 22, 6, 128];
    mapped.extend(
        "::ffff:192.0.2.1"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    mapped.extend([0, 0, 0, 1]);
    assert_eq!(items(&mapped), None);
}
