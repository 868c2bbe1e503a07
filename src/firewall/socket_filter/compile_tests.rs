//! Programs against the interpreter: which packets they drop, and how long they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::compile::{compile, is_ours, Kind, Leaves};
use super::interpret::{run, Packet};
use super::ranges::Ranges;
use super::sample::OFTEN;
use crate::address::Subnet;
use crate::sys::socket_filter::{Instruction, LONGEST};

const V4: Kind = Kind {
    v4: true,
    v6: false,
    tcp: false,
};
const V6: Kind = Kind {
    v4: false,
    v6: true,
    tcp: false,
};
const BOTH: Kind = Kind {
    v4: true,
    v6: true,
    tcp: false,
};
/// A random number with which a packet of a banned source is dropped, and one with which it is the sample.
const DROP: u32 = 0x1234_5601;
const SAMPLED: u32 = 0x1234_5600;

/// A sequence that looks random and is the same in every run.
fn scattered(number: u32) -> u32 {
    let mut x = number.wrapping_mul(0x9e37_79b1) ^ 0x85eb_ca6b;
    x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d);
    x = (x ^ (x >> 12)).wrapping_mul(0x297a_2d39);
    x ^ (x >> 15)
}

fn v4(bits: u32) -> Subnet {
    Subnet::host(IpAddr::V4(Ipv4Addr::from_bits(bits)))
}

fn v6(bits: u128, length: u8) -> Subnet {
    Subnet::new(IpAddr::V6(Ipv6Addr::from_bits(bits)), length).unwrap()
}

fn drops(program: &[Instruction], from: IpAddr) -> bool {
    let packet = Packet::udp(from);
    assert_eq!(run(program, &packet, SAMPLED), u32::MAX, "{from}");
    run(program, &packet, DROP) == 0
}

/// Addresses at which a mistake would show: ends and neighbours of every ban, each with one bit flipped.
fn telling(subnets: &[Subnet], every: usize) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for (number, subnet) in subnets.iter().enumerate() {
        match subnet.address() {
            IpAddr::V4(ip) => {
                let first = ip.to_bits();
                let last = first
                    | u32::MAX
                        .checked_shr(subnet.prefix_len().into())
                        .unwrap_or(0);
                let mut bits = vec![first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                if number % every == 0 {
                    bits.extend((0..32).map(|bit| first ^ 1 << bit));
                }
                found.extend(
                    bits.iter()
                        .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(*bits))),
                );
            }
            IpAddr::V6(ip) => {
                let first = ip.to_bits();
                let host = u128::MAX
                    .checked_shr(subnet.prefix_len().into())
                    .unwrap_or(0);
                let last = first | host;
                let mut bits = vec![first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                if number % every == 0 {
                    bits.extend((0..128).map(|bit| first ^ 1 << bit));
                }
                found.extend(
                    bits.iter()
                        .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(*bits))),
                );
            }
        }
    }
    found
}

fn is_in<T: Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= address);
    after > 0 && address <= ranges[after - 1].1
}

/// The program drops exactly what is banned and can come to a socket of this kind.
#[track_caller]
fn assert_exact(kind: Kind, subnets: &[Subnet], leaves: Leaves, asked: &[IpAddr]) -> usize {
    let ranges = Ranges::of(subnets);
    let program = compile(kind, &ranges, leaves, OFTEN);
    assert!(is_ours(&program));
    for ip in asked {
        let (of_kind, banned) = match ip {
            IpAddr::V4(ip) => (kind.v4, is_in(&ranges.v4, ip.to_bits())),
            IpAddr::V6(ip) => (kind.v6, is_in(&ranges.v6, ip.to_bits())),
        };
        if !of_kind {
            continue;
        }
        assert_eq!(drops(&program, *ip), banned, "{ip} {kind:?} {leaves:?}");
    }
    program.len()
}

fn random_addresses() -> Vec<IpAddr> {
    let v4 = (0..2_000).map(|n| IpAddr::V4(Ipv4Addr::from_bits(scattered(n ^ 0x5555_0000))));
    let v6 = (0..2_000u32).map(|n| {
        let words = [0x2001_0db8, scattered(n), scattered(n ^ 0xff00_0000), n];
        let bits = words
            .iter()
            .fold(0u128, |bits, word| bits << 32 | u128::from(*word));
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    });
    v4.chain(v6).collect()
}

/// The contract's figure: as many random addresses fit the longest program that the kernel takes.
#[test]
fn three_thousand_nine_hundred_random_addresses_fit() {
    let subnets: Vec<Subnet> = (0..3_900).map(|n| v4(scattered(n))).collect();
    let mut asked = telling(&subnets, 40);
    asked.extend(random_addresses());
    let length = assert_exact(V4, &subnets, Leaves::Short, &asked);
    println!("3,900 random addresses: {length} instructions");
    assert!(length <= LONGEST, "{length}");
    let most = (3_900..4_096)
        .take_while(|count| {
            let subnets: Vec<Subnet> = (0..*count).map(|n| v4(scattered(n))).collect();
            compile(V4, &Ranges::of(&subnets), Leaves::Short, OFTEN).len() <= LONGEST
        })
        .last();
    println!("most random addresses in {LONGEST} instructions: {most:?}");
    assert_exact(V4, &subnets[..1_300], Leaves::Fast, &asked);
    assert_exact(BOTH, &subnets[..1_300], Leaves::Fast, &asked);
}

#[test]
fn ipv6_networks_and_hosts() {
    // Per /32: so many /64, in as many /32 as there are.
    for (per_provider, count) in [(50, 3_600), (3, 2_000), (1, 1_300)] {
        let subnets: Vec<Subnet> = (0..count)
            .map(|n| {
                let provider = 0x2400_0000 + scattered(n / per_provider) % 0x0100_0000;
                let network = scattered(n ^ 0x0f0f_0f0f);
                v6(u128::from(provider) << 96 | u128::from(network) << 64, 64)
            })
            .collect();
        let mut asked = telling(&subnets, 100);
        asked.extend(random_addresses());
        let length = assert_exact(V6, &subnets, Leaves::Short, &asked);
        println!("{count} /64, {per_provider} per /32: {length} instructions");
        assert!(length <= LONGEST, "{length}");
        assert_exact(BOTH, &subnets, Leaves::Fast, &asked);
    }
    let hosts: Vec<Subnet> = (0..550)
        .map(|n| {
            let words = [
                0x2400_0000 + n * 77,
                scattered(n),
                scattered(!n),
                scattered(n ^ 0x77),
            ];
            v6(
                words
                    .iter()
                    .fold(0, |bits, word| bits << 32 | u128::from(*word)),
                128,
            )
        })
        .collect();
    let length = assert_exact(V6, &hosts, Leaves::Short, &telling(&hosts, 50));
    println!("550 hosts, one per /32: {length} instructions");
    assert!(length <= LONGEST, "{length}");
}

/// Both families and every length of a prefix, on a socket that receives both.
#[test]
fn all_lengths_in_one_program() {
    let mut subnets: Vec<Subnet> = (0..400).map(|n| v4(scattered(n))).collect();
    for length in 16..=32 {
        let ip = IpAddr::V4(Ipv4Addr::from_bits(scattered(1_000 + u32::from(length))));
        subnets.push(Subnet::new(ip, length).unwrap());
    }
    for length in 32..=128u8 {
        let words = [
            0x2001_0000 + u32::from(length),
            scattered(7),
            scattered(8),
            scattered(9),
        ];
        let bits = words
            .iter()
            .fold(0, |bits, word| bits << 32 | u128::from(*word));
        subnets.push(v6(bits, length));
    }
    // Both halves of the IPv4 space and their seam; both ends of each.
    for text in [
        "127.255.255.255",
        "128.0.0.0/16",
        "255.255.255.255",
        "0.0.0.0",
    ] {
        subnets.push(text.parse().unwrap());
    }
    let mut asked = telling(&subnets, 1);
    asked.extend(random_addresses());
    for leaves in [Leaves::Fast, Leaves::Short] {
        for kind in [V4, V6, BOTH] {
            assert_exact(kind, &subnets, leaves, &asked);
        }
    }
}

#[test]
fn runs_are_short_and_nothing_is_dropped_by_an_empty_program() {
    let consecutive: Vec<Subnet> = (0..4_000u32)
        .map(|n| v4((scattered(n / 16) & !15) | (n % 16)))
        .collect();
    let length = assert_exact(V4, &consecutive, Leaves::Short, &telling(&consecutive, 50));
    println!("4,000 addresses in runs of 16: {length} instructions");
    assert!(length < 1_000, "{length}");
    for kind in [V4, V6, BOTH] {
        assert_exact(kind, &[], Leaves::Fast, &random_addresses());
    }
}

/// Of TCP only the first packet of a connection is dropped: an accepted connection keeps the program.
#[test]
fn tcp_connections_that_exist_go_on() {
    let ranges = Ranges::of(&[
        "192.0.2.7".parse().unwrap(),
        "2001:db8::/64".parse().unwrap(),
    ]);
    for (kind, ip) in [
        (V4, "192.0.2.7"),
        (V6, "2001:db8::1"),
        (BOTH, "192.0.2.7"),
        (BOTH, "2001:db8::1"),
    ] {
        let kind = Kind { tcp: true, ..kind };
        let program = compile(kind, &ranges, Leaves::Fast, OFTEN);
        let ip: IpAddr = ip.parse().unwrap();
        for (flags, dropped) in [
            (0x02, true),  // SYN
            (0xc2, true),  // SYN with the bits of ECN
            (0x12, false), // SYN, ACK
            (0x10, false), // ACK
            (0x18, false), // PSH, ACK
            (0x11, false), // FIN, ACK
            (0x04, false), // RST
        ] {
            let packet = Packet::tcp(ip, flags);
            assert_eq!(
                run(&program, &packet, DROP) == 0,
                dropped,
                "{ip} {flags:#x}"
            );
            assert_ne!(run(&program, &packet, SAMPLED), 0);
        }
        let other = Packet::tcp("192.0.2.8".parse().unwrap(), 0x02);
        if kind.v4 {
            assert_ne!(run(&program, &other, DROP), 0);
        }
    }
}

fn any_subnet() -> impl Strategy<Value = Subnet> {
    // Narrow ranges, so that bans lie beside, in and across each other.
    let v4 = (0u32..600, 20u8..=32, prop::bool::ANY).prop_map(|(low, length, high)| {
        let base = if high { 0x7fff_ff00u32 } else { 0x0a00_0000 };
        Subnet::new(
            IpAddr::V4(Ipv4Addr::from_bits(base.wrapping_add(low))),
            length,
        )
        .unwrap()
    });
    let v6 = (0u128..4, 0u128..600, 28u8..=128, 0u32..4).prop_map(|(high, low, length, word)| {
        let bits = 0x2001_0db8 << 96 | high << 96 | low << (32 * word);
        v6(bits, length)
    });
    prop_oneof![v4, v6]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_program_drops_exactly_what_is_banned(subnets in prop::collection::vec(any_subnet(), 0..120)) {
        let asked = telling(&subnets, 3);
        for kind in [V4, V6, BOTH] {
            for leaves in [Leaves::Fast, Leaves::Short] {
                assert_exact(kind, &subnets, leaves, &asked);
            }
        }
    }
}
