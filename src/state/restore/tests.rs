//! What comes back from a state file.

use super::*;
use crate::clock::simulated::at;
use crate::memory::HeapArena;

#[test]
fn no_saved_ban_is_longer_than_a_new_one() {
    let config = Config::default();
    let shared = Shared::new(&mut HeapArena, &config, 1).unwrap();
    shared.set_now(at(1_000));
    let ban = |ip: &str| Ban {
        ip: ip.into(),
        end: UnixSeconds::MAX,
        since: at(900),
        reason: "a clock that was wrong".into(),
        hits: 7,
    };
    let state = State {
        feed: Some(Saved {
            source: config.source().unwrap().fingerprint(),
            ..Saved::default()
        }),
        written: at(950),
        listed: vec![ban("192.0.2.1")],
        local: vec![ban("192.0.2.2")],
        trusted: Vec::new(),
    };
    assert!(resume(&config, &shared, state).0.is_some());
    let end =
        |table: &crate::table::Table, ip: &str| table.find(ip.parse().unwrap()).unwrap().value();
    assert_eq!(
        end(&shared.feed, "192.0.2.1"),
        at(1_000 + 604_800) + MAX_SKEW
    );
    assert_eq!(end(&shared.local, "192.0.2.2"), at(1_000 + MAX_TTL));
    for table in [&shared.feed, &shared.local] {
        let mut hits = Vec::new();
        table.for_each(|entry| hits.push(entry.hits));
        assert_eq!(hits, [7], "what was counted goes on");
    }
}
