//! Addresses and prefixes as scripts, operators and lists write them, and bans of them.
//!
//! Input: lines, each `ADDRESS [TTL [REASON]]`.

use apiban::address::{parse_address, Subnet};
use apiban::bans::{Bans, By, Order, Policy, Refusal, MAX_TTL};

use super::oracle::{self, Range};
use super::{assert_presentable, with_shared};

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    with_shared(true, |shared, config| {
        let bans = Bans {
            shared,
            policy: Policy::from(config),
            counters: shared.counters.of_process(1),
            wake: &|| {},
        };
        for line in text.lines().take(200) {
            let mut words = line.splitn(3, ' ');
            let word = words.next().unwrap_or_default();
            check_parsers(word);
            let Ok(subnet) = word.parse::<Subnet>() else {
                continue;
            };
            let ttl = words.next().and_then(|ttl| ttl.parse().ok()).unwrap_or(60);
            let order = Order {
                subnet,
                ttl: 1 + ttl % MAX_TTL,
                reason: words.next().unwrap_or_default(),
                by: if ttl % 2 == 0 {
                    By::Script
                } else {
                    By::Operator
                },
            };
            let (before, known) = (shared.local.len(), shared.local.find(subnet));
            let placed = bans.block(order);
            let refused = oracle::unbannable(&Range::of(subnet));
            let trusted = shared.trust.spares(subnet).is_some();
            match placed {
                Ok(_) => {
                    assert!(!refused && !trusted, "{subnet} was banned");
                    let found = shared.local.find(subnet).expect("a ban that was placed");
                    assert!(found.value() >= shared.now().shifted(order.ttl.into()));
                    assert!(shared
                        .local
                        .lookup(subnet.address(), shared.now())
                        .is_some());
                    let entry = shared.local.entry(found).expect("its entry");
                    assert_presentable(&entry.reason, 56);
                    assert_eq!(entry.subnet, subnet);
                }
                Err(Refusal::Trusted(_)) => assert!(trusted),
                Err(Refusal::Unbannable(_)) => assert!(refused && !trusted, "{subnet} was refused"),
                Err(Refusal::Full) => {
                    assert!(known.is_none() && before >= config.max_local_entries)
                }
                Err(Refusal::OverBudget) => assert!(known.is_none() && order.by == By::Script),
            }
            assert!(shared.local.len() <= config.max_local_entries);
            if ttl % 5 == 0 && known.is_some() {
                assert!(bans.unblock(subnet));
                assert!(shared.local.find(subnet).is_none());
            }
        }
    });
}

fn check_parsers(word: &str) {
    let expected = oracle::parse(word);
    let subnet = word.parse::<Subnet>();
    assert_eq!(
        expected,
        subnet.as_ref().ok().map(|s| Range::of(*s)),
        "{word:?}"
    );
    match parse_address(word) {
        Ok(ip) => assert_eq!(expected, Some(Range::host(ip))),
        Err(error) => {
            assert!(expected.is_none() || word.contains('/'), "{word:?}");
            assert_presentable(&error.to_string(), 120);
        }
    }
    let Ok(subnet) = subnet else {
        return;
    };
    let again: Subnet = subnet
        .to_string()
        .parse()
        .expect("what is printed can be read");
    assert_eq!(again, subnet);
    assert_eq!(
        Subnet::new(subnet.address(), subnet.prefix_len()),
        Some(subnet)
    );
    assert!(subnet.contains(subnet.address()) && subnet.overlaps(&subnet));
    let range = Range::of(subnet);
    assert_eq!(
        subnet.never_bannable().is_some(),
        oracle::unbannable(&range),
        "{subnet}"
    );
}
