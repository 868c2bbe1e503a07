//! A fresh network namespace per test, and nft's own view of what is in it.

use std::process::Command;

use nix::sched::{unshare, CloneFlags};
use serde_json::Value;

/// Runs `test` on a thread of its own in an empty network namespace with loopback up. Programs and
/// threads that it starts live there too; it all ends with the thread. Needs root.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root to make a namespace");
        run("ip", &["link", "set", "lo", "up"]);
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program to its end and returns what it prints.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of one kind (`table`, `set`, `chain`, `rule`) in the whole ruleset of the namespace.
pub fn objects(kind: &str) -> Vec<Value> {
    let text = run("nft", &["-j", "list", "ruleset"]);
    let all: Value = serde_json::from_str(&text).unwrap();
    let list = all["nftables"].as_array().unwrap();
    list.iter()
        .map(|object| object[kind].clone())
        .filter(|object| !object.is_null())
        .collect()
}

/// The elements of a set of table `inet apiban` with the seconds that nft says each has left, sorted.
pub fn elements(set: &str) -> Vec<(String, u64)> {
    let text = run("nft", &["-j", "list", "set", "inet", "apiban", set]);
    let all: Value = serde_json::from_str(&text).unwrap();
    let list = all["nftables"].as_array().unwrap();
    let set = list
        .iter()
        .find(|object| object["set"].is_object())
        .unwrap();
    let mut found: Vec<_> = set["set"]["elem"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|element| {
            let element = &element["elem"];
            let address = element["val"].as_str().unwrap().to_owned();
            (address, element["expires"].as_u64().unwrap_or(0))
        })
        .collect();
    found.sort();
    found
}

/// The addresses of a set, sorted.
pub fn addresses(set: &str) -> Vec<String> {
    elements(set)
        .into_iter()
        .map(|(address, _)| address)
        .collect()
}

/// The seconds that an element of a set of table `inet apiban` has left; `None` where it, its set or the
/// whole table is not there.
pub fn held(set: &str, address: &str) -> Option<u64> {
    let known = objects("set")
        .iter()
        .any(|known| known["table"] == "apiban" && known["name"] == set);
    let found = || elements(set).into_iter().find(|(held, _)| held == address);
    known.then(found).flatten().map(|(_, left)| left)
}

/// The packets that the rule for a set of table `inet apiban` has dropped.
pub fn dropped(set: &str) -> u64 {
    let comment = format!("apiban.so {set}");
    let rules = objects("rule");
    let rule = rules
        .iter()
        .find(|rule| rule["comment"] == comment.as_str())
        .unwrap_or_else(|| panic!("no rule for {set} in {rules:?}"));
    rule["expr"]
        .as_array()
        .and_then(|parts| {
            parts
                .iter()
                .find_map(|part| part["counter"]["packets"].as_u64())
        })
        .unwrap_or_else(|| panic!("no counter in {rule}"))
}
