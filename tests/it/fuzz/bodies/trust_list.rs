//! Trust lists: file and parameter against a naive reading, and the set against a list of ranges.
//!
//! Input: a trust file; what stands after a line `--`, or else its text too, is asked for.

use std::net::{IpAddr, Ipv6Addr};

use apiban::address::{nat64, Subnet};
use apiban::clock::UnixSeconds;
use apiban::trust::{self, Given, ListError, Rule};

use super::oracle::{self, Range};
use super::{assert_presentable, with_shared};

/// The naive search looks at everything for everything.
const MOST: usize = 64;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (list, asked) = text.split_once("\n--\n").unwrap_or((&text, &text));
    check_file(list);
    check_parameter(list);
    let Ok(given) = Given::parse_file(list) else {
        return;
    };
    let trusted = given.at(UnixSeconds::ZERO);
    let trusted = &trusted[..trusted.len().min(MOST)];
    let ranges: Vec<Range> = trusted.iter().map(|(s, _)| Range::of(*s)).collect();
    let words = asked.split([' ', ',', '\n']).take(MOST);
    let asked: Vec<Subnet> = words.filter_map(|word| word.parse().ok()).collect();
    with_shared(false, |shared, _| {
        shared.trust.replace(trusted);
        let all = trusted.iter().map(|(subnet, _)| *subnet).chain(asked);
        for subnet in all {
            let range = Range::of(subnet);
            let naive = nat64::networks(subnet)
                .chain([subnet])
                .map(Range::of)
                .any(|asked| ranges.iter().any(|trusted| trusted.overlaps(&asked)));
            assert_eq!(
                shared.trust.spares(subnet).is_some(),
                naive,
                "{subnet} of {trusted:?}"
            );
            for bits in [range.first, range.last, range.last.wrapping_add(1)] {
                let ip = IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical();
                let naive = nat64::networks(Subnet::host(ip))
                    .map(|host| host.address())
                    .chain([ip])
                    .any(|ip| ranges.iter().any(|trusted| trusted.covers(ip)));
                assert_eq!(
                    shared.trust.rule(ip).is_some(),
                    naive,
                    "{ip} of {trusted:?}"
                );
            }
        }
        shared.trust.replace(&[]);
        assert_eq!(shared.trust.count(), (0, 0));
    });
}

fn check_file(text: &str) {
    let found = Given::parse_file(text).map(|given| given.at(UnixSeconds::ZERO));
    let words = |line: &str| {
        line.split('#')
            .next()
            .map_or(0, |line| line.split_whitespace().count())
    };
    if text.lines().any(|line| words(line) > 1) {
        // Whatever follows an address has tests of its own.
        if let Err(ListError::Line { reason, .. }) = found {
            assert_presentable(&reason, 120);
        }
        return;
    }
    let mut wanted = Vec::new();
    let mut bad = None;
    for (number, line) in text.lines().enumerate() {
        let word = line.split('#').next().unwrap_or_default().trim();
        match oracle::parse(word) {
            _ if word.is_empty() => {}
            Some(range) => wanted.push((range, number as u32 + 1)),
            None => {
                bad = Some(number as u32 + 1);
                break;
            }
        }
    }
    match (found, bad) {
        (Ok(found), None) => {
            for (range, line) in wanted {
                let of_line = found.iter().filter(|(_, rule)| *rule == Rule::File(line));
                check_cover(range, &of_line.map(|(s, _)| *s).collect::<Vec<_>>());
            }
        }
        (Err(ListError::Line { line, reason }), Some(bad)) => {
            assert_eq!(line, bad);
            assert_presentable(&reason, 120);
        }
        other => panic!("{other:?}"),
    }
}

fn check_parameter(text: &str) {
    let words = text
        .split([',', ' ', '\t', '\n', ';'])
        .filter(|word| !word.is_empty());
    let wanted: Option<Vec<Range>> = words.map(oracle::parse).collect();
    match (trust::parse_parameter(text), wanted) {
        (Ok(found), Some(wanted)) => {
            for range in wanted {
                let all: Vec<Subnet> = found.iter().map(|(subnet, _)| *subnet).collect();
                check_cover(range, &all);
            }
        }
        (Err(error), None) => assert_presentable(&error.to_string(), 120),
        other => panic!("{other:?}"),
    }
}

/// Both ends of what is wanted are covered.
fn check_cover(wanted: Range, found: &[Subnet]) {
    let found: Vec<Range> = found.iter().map(|subnet| Range::of(*subnet)).collect();
    let covers = |bits| {
        found
            .iter()
            .any(|r| r.v4 == wanted.v4 && (r.first..=r.last).contains(&bits))
    };
    assert!(
        covers(wanted.first) && covers(wanted.last),
        "{wanted:?} in {found:?}"
    );
}
