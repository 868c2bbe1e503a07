//! RPC commands with whatever arguments.
//!
//! Input: lines, each `NAME|ARGUMENT|ARGUMENT...` without the `apiban.`; `tick|N` lets N seconds pass.

use apiban::bans::check::{check, Verdict};
use apiban::bans::{Bans, Policy};
use apiban::rpc::{Arguments, Fault, Fields, Reply, Service, Value, COMMANDS};
use apiban::shared::Shared;

use super::{assert_presentable, with_shared};

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    with_shared(true, |shared, config| {
        let now = shared.now();
        shared.feed.insert(
            "192.0.2.1".parse().expect("an address"),
            now.shifted(600),
            now,
            "",
        );
        let service = Service {
            bans: Bans {
                shared,
                policy: Policy::from(config),
                counters: shared.counters.of_process(1),
                wake: &|| {},
            },
            config,
            kamailio: "0.0.0",
        };
        for line in text.split('\n').take(100) {
            let mut words = line.split('|').map(str::to_owned);
            let name = words.next().unwrap_or_default();
            let arguments = Arguments(words.collect());
            if name == "tick" {
                let seconds = arguments
                    .get(0)
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(1u32);
                shared.set_now(shared.now().shifted(i64::from(seconds % 1_000)));
            }
            let command = COMMANDS
                .iter()
                .find(|c| c.name.strip_prefix("apiban.") == Some(&name));
            let Some(command) = command else {
                continue;
            };
            match (command.run)(&service, &arguments) {
                Ok(reply) => check_reply(&reply),
                Err(fault) => check_fault(&fault, command.arguments),
            }
            check_trust(shared);
        }
        check_tables(shared);
    });
}

fn check_reply(reply: &Reply) {
    match reply {
        Reply::Text(text) => assert_presentable(text, 200),
        Reply::Struct(fields) => check_fields(fields),
        Reply::List(all) => {
            // The most that fits a datagram, and the line that says so.
            assert!(all.len() <= 251);
            all.iter().for_each(check_fields);
        }
    }
}

fn check_fields(fields: &Fields) {
    for (name, value) in fields {
        match value {
            Value::Text(text) => {
                assert_presentable(text, 320);
                assert!(*name != "reason" || text.len() <= 110, "{text}");
            }
            Value::Number(_) => {}
            Value::Struct(fields) => check_fields(fields),
        }
    }
}

fn check_fault(fault: &Fault, names: &[&str]) {
    assert_presentable(&fault.text, 240);
    assert!([400, 403, 404, 500, 507].contains(&fault.code), "{fault:?}");
    let named = names
        .iter()
        .any(|name| fault.text.starts_with(&format!("{name}: ")));
    assert!(
        fault.code != 400 || named,
        "no argument is named: {fault:?}"
    );
}

fn check_trust(shared: &Shared) {
    assert!(shared.local.len() <= shared.local.capacity());
    for ip in [
        "198.51.100.0",
        "198.51.100.77",
        "127.0.0.9",
        "::1",
        "2001:db8:5::7",
    ] {
        let verdict = check(
            shared,
            shared.counters.of_process(1),
            ip.parse().expect("an address"),
        );
        assert_eq!(verdict, Verdict::Trusted, "{ip}");
    }
}

/// What no table may hold; a look at all of them, so it is taken once.
fn check_tables(shared: &Shared) {
    for (_, table) in shared.tables() {
        table.for_each(|entry| {
            assert!(
                shared.trust.spares(entry.subnet).is_none(),
                "{} is banned",
                entry.subnet
            );
        });
    }
}
