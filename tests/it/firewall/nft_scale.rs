//! Many elements at once in the nft backend, with figures (`--nocapture`). Needs root, `nft` and `ip`.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use apiban::address::Subnet;
use apiban::firewall::nft::{Nft, Settings};
use apiban::firewall::{Change, Element, Error, Firewall};

use apiban_testing::netns::{addresses, in_namespace, run};
use apiban_testing::rerun::{alone, passes};

fn ready() -> Nft {
    let mut nft = Nft::new(Settings::default());
    nft.reset().unwrap();
    nft
}

/// `count` addresses from 10.0.0.0 on.
fn list(count: u32, seconds_left: u32) -> Vec<Element> {
    (0..count)
        .map(|n| Element {
            subnet: Subnet::host(IpAddr::V4((0x0a00_0000 + n).into())),
            seconds_left,
            hits: 0,
        })
        .collect()
}

fn adds(elements: &[Element]) -> Vec<Change> {
    elements.iter().copied().map(Change::Add).collect()
}

#[test]
fn many_elements() {
    in_namespace(|| {
        for (old_kernel, count) in [(false, 5_000), (false, 100_000), (true, 100_000)] {
            let mut nft = ready();
            if old_kernel {
                nft = nft.assume_old_kernel();
                nft.reset().unwrap();
            }
            let start = Instant::now();
            nft.apply(&adds(&list(count, 3600))).unwrap();
            let added = start.elapsed();
            let start = Instant::now();
            nft.apply(&adds(&list(count, 7200))).unwrap();
            let again = start.elapsed();
            let start = Instant::now();
            assert!(nft.intact().unwrap());
            let intact = start.elapsed();
            let wanted = list(count, 7200);
            let start = Instant::now();
            assert!(nft.reconcile(&wanted).unwrap().is_empty());
            let replaced = start.elapsed();
            assert_eq!(addresses("hosts4").len(), count as usize);
            let start = Instant::now();
            let lift: Vec<_> = wanted
                .iter()
                .map(|element| Change::Remove(element.subnet))
                .collect();
            nft.apply(&lift[1..]).unwrap();
            let lifted = start.elapsed();
            assert_eq!(addresses("hosts4"), ["10.0.0.0"]);
            println!(
                "{count} elements (old kernel's way: {old_kernel}): added {added:?}, again \
                 {again:?}, intact {intact:?}, replaced {replaced:?}, lifted {lifted:?}"
            );
        }
    });
}

#[test]
fn many_ipv6_prefixes() {
    in_namespace(|| {
        let mut nft = ready();
        let changes: Vec<_> = (0..65_536u128)
            .map(|n| {
                let ip = Ipv6Addr::from(0x2001_0db8 << 96 | n << 64);
                Change::Add(Element {
                    subnet: Subnet::new(IpAddr::V6(ip), 64).unwrap(),
                    seconds_left: 600,
                    hits: 0,
                })
            })
            .collect();
        let start = Instant::now();
        nft.apply(&changes).unwrap();
        println!("65536 prefixes of /64: {:?}", start.elapsed());
        assert_eq!(addresses("nets6_64").len(), 65_536);
    });
}

/// The part of the next test that runs in a user namespace of its own.
const UNPRIVILEGED: &str = "APIBAN_TEST_USER_NAMESPACE";

/// There the send buffer cannot be enlarged: transactions must shrink until they fit.
#[test]
fn small_socket_buffers() {
    if std::env::var_os(UNPRIVILEGED).is_none() {
        let launcher = ["unshare", "--user", "--map-root-user", "--net"];
        passes(alone(&launcher, module_path!(), "small_socket_buffers").env(UNPRIVILEGED, "1"));
        return;
    }
    let mut nft = ready().assume_old_kernel();
    nft.apply(&adds(&list(20_000, 600))).unwrap();
    assert_eq!(addresses("hosts4").len(), 20_000);
    let wanted = list(30_000, 600);
    nft.reconcile(&wanted[10_000..]).unwrap();
    assert_eq!(addresses("hosts4").len(), 20_000);
    // The errors of a table that is gone come through as well.
    run("nft", &["flush ruleset"]);
    let error = nft.apply(&adds(&list(20_000, 600))).unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error:?}");
}

/// Far beyond 65,536, where sets and lists of other tools end.
#[test]
fn three_hundred_thousand_elements() {
    in_namespace(|| {
        let mut nft = ready();
        let wanted = list(300_000, 3600);
        for round in ["empty", "full"] {
            let start = Instant::now();
            nft.reconcile(&wanted).unwrap();
            println!(
                "300,000 elements into a set that is {round}: {:?}",
                start.elapsed()
            );
        }
        // nft would take minutes to list them: the backend asks the kernel for the longest-lived.
        assert!(nft.intact().unwrap());
    });
}
