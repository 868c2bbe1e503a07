//! Trust: whoever is trusted is never banned, whoever asks for it, and an operator can see why.

use apiban_testing::fed::{fed, service, KEY};
use apiban_testing::feed_server::now;
use apiban_testing::kamailio::{Builder, Kamailio};
use apiban_testing::script::show;
use apiban_testing::wait::{wait_until, SOON};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// Loopback is all that tests have, so it is not trusted unless a test says so.
fn untrusting() -> Builder {
    Kamailio::builder()
        .param("trust_self", 0)
        .request_route("if (apiban_check() > 0) { exit; }")
}

/// A trust file that a test rewrites while Kamailio runs.
struct TrustFile {
    _folder: TempDir,
    path: PathBuf,
}

impl TrustFile {
    fn new(text: &str) -> TrustFile {
        let folder = TempDir::new().expect("directory");
        let path = folder.path().join("trust");
        fs::write(&path, text).expect("trust file");
        TrustFile {
            _folder: folder,
            path,
        }
    }

    fn text(&self) -> String {
        self.path.display().to_string()
    }

    fn write(&self, text: &str) {
        fs::write(&self.path, text).expect("trust file");
    }
}

/// Why `apiban.check` says that an address is spared.
fn rule(kamailio: &Kamailio, ip: &str) -> String {
    let verdict = kamailio.verdict(ip);
    assert_eq!(verdict["source"], "trusted", "{verdict}");
    assert_eq!(verdict["banned"], 0, "{verdict}");
    verdict["reason"].as_str().expect("a rule").to_owned()
}

fn refused(kamailio: &Kamailio, ip: &str) -> String {
    let fault = kamailio
        .jsonrpc("apiban.block", serde_json::json!([ip]))
        .expect_err("a trusted address");
    assert_eq!(fault.code, 403, "{fault}");
    fault.text
}

#[test]
fn check_says_which_rule_spares_an_address() {
    let file = TrustFile::new("# carriers\n198.51.100.0/24\n\n2001:db8::/32 # east\n");
    let kamailio = Kamailio::builder()
        .param("trust", "192.0.2.1, 192.0.2.64/26")
        .param("trust", "203.0.113.9 203.0.113.10")
        .param("trust_file", file.text())
        .start();
    for (ip, why) in [
        ("192.0.2.1", "trust 192.0.2.1"),
        ("192.0.2.100", "trust 192.0.2.64/26"),
        ("::ffff:192.0.2.100", "trust 192.0.2.64/26"),
        ("203.0.113.10", "trust 203.0.113.10"),
        ("198.51.100.77", "trust_file line 2"),
        ("2001:db8:ffff::1", "trust_file line 4"),
        ("127.0.0.77", "trust_self: loopback"),
        ("::1", "trust_self: loopback"),
        ("127.0.0.1", "trust_self: own address"),
    ] {
        assert_eq!(rule(&kamailio, ip), why, "{ip}");
        assert!(
            refused(&kamailio, ip).ends_with(&format!("is trusted: {why}")),
            "{ip}"
        );
    }
    for stranger in ["192.0.2.2", "192.0.2.128", "2001:db9::1"] {
        assert_eq!(kamailio.verdict(stranger)["source"], "none", "{stranger}");
    }
    let status = kamailio.ask("apiban.status", &[]);
    let prefixes = status["trust"]["prefixes"].as_u64().expect("a number");
    let automatic = status["trust"]["automatic"].as_u64().expect("a number");
    assert_eq!((prefixes, automatic), (9, 3), "{status}");
}

/// A carrier that comes through a NAT64 translator: neither script nor operator nor list bans it.
#[test]
fn a_trusted_ipv4_address_is_trusted_behind_a_translator() {
    let service = service();
    let (carrier, stranger) = ("64:ff9b::198.51.100.7", "64:ff9b::198.51.100.8");
    service.list(&[carrier, stranger]);
    let kamailio = fed(&service)
        .param("trust", "198.51.100.7")
        .request_route(&format!(
            "{} {} {}",
            show("check", &format!("apiban_check(\"{carrier}\")")),
            show("stranger", &format!("apiban_check(\"{stranger}\")")),
            show("block", &format!("apiban_block(\"{carrier}\")")),
        ))
        .start();
    wait_until("the list is there", SOON, || {
        kamailio.statistic("apiban", "feed_entries") == 1
    });
    kamailio.assert_answered("127.0.0.9");
    assert_eq!(kamailio.code("check"), -2);
    assert_eq!(kamailio.code("stranger"), 1);
    assert_eq!(kamailio.code("block"), -1);
    assert_eq!(rule(&kamailio, carrier), "trust 198.51.100.7");
    let why = "is trusted: trust 198.51.100.7";
    for refused_by in [
        carrier,
        "64:ff9b:1::198.51.100.7",
        "64:ff9b::198.51.100.0/120",
    ] {
        assert!(
            refused(&kamailio, refused_by).ends_with(why),
            "{refused_by}"
        );
    }
}

#[test]
fn without_trust_self_not_even_loopback_is_trusted() {
    let kamailio = untrusting().start();
    for ip in ["127.0.0.66", "127.0.0.1", "::1"] {
        kamailio.ask("apiban.block", &[ip, "60"]);
        assert_eq!(kamailio.verdict(ip)["banned"], 1, "{ip}");
    }
    kamailio.assert_dropped("127.0.0.66");
    assert_eq!(kamailio.ask("apiban.status", &[])["trust"]["prefixes"], 0);
}

#[test]
fn neither_script_nor_operator_nor_feed_bans_the_trusted() {
    let service = service();
    let listed = ["127.0.0.66", "127.0.7.1", "127.0.0.67"];
    service.list(&listed);
    let kamailio = fed(&service)
        .param("trust", "127.0.0.66 127.0.7.0/24")
        .request_route(&format!(
            "{} if (apiban_check() > 0) {{ exit; }}",
            show("block", "apiban_block(\"127.0.0.66\")")
        ))
        .start();
    // The list is there once its one stranger is dropped.
    kamailio.wait_dropped("127.0.0.67", SOON);
    assert_eq!(kamailio.code("block"), -1);
    assert!(refused(&kamailio, "127.0.7.9").ends_with("is trusted: trust 127.0.7.0/24"));
    assert!(refused(&kamailio, "127.0.0.0/16").contains("is trusted: trust 127.0."));
    for friend in ["127.0.0.66", "127.0.7.1"] {
        kamailio.assert_answered(friend);
        let log = kamailio.log();
        let line = format!("the list holds {friend}, which is not banned: trust");
        assert_eq!(log.matches(&line).count(), 1, "{log}");
    }
    assert_eq!(kamailio.statistic("apiban", "feed_entries"), 1);
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 0);
}

#[test]
fn a_name_of_this_server_is_trusted_once_the_list_holds_it() {
    let service = service();
    service.list(&["203.0.113.9", "203.0.113.10"]);
    let kamailio = Kamailio::builder()
        .global("alias=\"203.0.113.9\"")
        .param("api_key", KEY)
        .param("api_url", service.url())
        .start();
    wait_until("the list", SOON, || {
        kamailio.statistic("apiban", "feed_entries") == 1
    });
    assert_eq!(rule(&kamailio, "203.0.113.9"), "trust_self: own address");
    assert_eq!(kamailio.verdict("203.0.113.10")["source"], "feed");
}

/// A rule with `until=` spares a listed source until then; a line that is over is told once and trusts nobody.
#[test]
fn a_rule_with_an_end_ends_by_itself() {
    let service = service();
    service.list(&["127.0.0.66", "127.0.0.67"]);
    let end = now() + 8;
    let file = TrustFile::new(&format!(
        "127.0.0.66 until={end} # ticket 4711\n203.0.113.9 until=2020-02-29\n192.0.2.10/24\n198.51.100.9 until=2999-12-31\n"
    ));
    let kamailio = fed(&service)
        .param("trust", "198.51.100.7/25")
        .param("trust_file", file.text())
        .start();
    kamailio.wait_dropped("127.0.0.67", SOON);
    assert_eq!(rule(&kamailio, "127.0.0.66"), "trust_file line 1");
    kamailio.assert_answered("127.0.0.66");
    assert_eq!(kamailio.verdict("203.0.113.9")["source"], "none");
    let rows = kamailio.ask("apiban.trust_list", &[]);
    let expires = |ip: &str| {
        let mut rows = rows.as_array().expect("rows").iter();
        let row = rows.find(|row| row["rule"] == ip).expect("the rule");
        row["expires"].as_u64().expect("seconds")
    };
    assert!((1..=8).contains(&expires("127.0.0.66")), "{rows}");
    assert_eq!(expires("198.51.100.9"), 2_147_483_647);
    assert_eq!(expires("192.0.2.0/24"), 0);

    kamailio.wait_dropped("127.0.0.66", SOON);
    assert!(now() >= end);
    let log = kamailio.log();
    for line in [
        "these rules trust nobody any more, their until= is over: trust_file line 2",
        "127.0.0.66 is no longer trusted: until= of trust_file line 1 is over",
        "trust: 198.51.100.7/25 means the whole network 198.51.100.0/25: write 198.51.100.7",
        "trust_file line 3: 192.0.2.10/24 means the whole network 192.0.2.0/24",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line} in {log}");
    }
}

#[test]
fn whoever_becomes_trusted_is_no_longer_banned() {
    let file = TrustFile::new("");
    let service = service();
    service.list(&["127.0.0.66"]);
    let kamailio = fed(&service).param("trust_file", file.text()).start();
    kamailio.wait_dropped("127.0.0.66", SOON);
    kamailio.ask("apiban.block", &["127.0.0.67"]);
    kamailio.ask("apiban.block", &["127.0.8.0/24"]);
    for banned in ["127.0.0.67", "127.0.8.1"] {
        kamailio.assert_dropped(banned);
    }
    file.write("127.0.0.66\n127.0.0.67\n# one of the network is enough\n127.0.8.1\n");
    kamailio.ask("apiban.reload", &[]);
    for friend in ["127.0.0.66", "127.0.0.67", "127.0.8.1"] {
        kamailio.wait_answered(friend, SOON);
    }
    wait_until("empty tables", SOON, || {
        kamailio.statistic("apiban", "feed_entries") + kamailio.statistic("apiban", "local_entries")
            == 0
    });
    assert_eq!(rule(&kamailio, "127.0.8.1"), "trust_file line 4");
    kamailio.wait_for_log("127.0.0.66 is no longer banned: trust_file line 1", SOON);

    // Who leaves the file may be banned again; the list does so by itself.
    file.write("");
    kamailio.ask("apiban.reload", &[]);
    kamailio.wait_dropped("127.0.0.66", SOON);
    kamailio.assert_answered("127.0.0.67");
    kamailio.ask("apiban.block", &["127.0.0.67"]);
}

#[test]
fn a_bad_trust_file_changes_nothing_and_is_named() {
    let file = TrustFile::new("127.0.0.66\n");
    let kamailio = untrusting().param("trust_file", file.text()).start();
    for (text, problem) in [
        (Some("127.0.0.67\n127.0.0.300\n"), "line 2: \"127.0.0.300\""),
        (Some("carrier.example\n"), "line 1: \"carrier.example\""),
        (None, "No such file"),
    ] {
        match text {
            Some(text) => file.write(text),
            None => fs::remove_file(&file.path).expect("trust file"),
        }
        let fault = kamailio
            .jsonrpc("apiban.reload", serde_json::json!([]))
            .expect_err(problem);
        assert!(fault.code == 500 && fault.text.contains(problem), "{fault}");
        assert_eq!(rule(&kamailio, "127.0.0.66"), "trust_file line 1");
        assert_eq!(kamailio.verdict("127.0.0.67")["source"], "none");
    }
    file.write("127.0.0.67\n");
    kamailio.ask("apiban.reload", &[]);
    wait_until("the new file", SOON, || {
        kamailio.verdict("127.0.0.67")["source"] == "trusted"
    });
    assert_eq!(kamailio.verdict("127.0.0.66")["source"], "none");
}

#[test]
fn a_ban_from_the_last_run_yields_to_trust() {
    let folder = TempDir::new().expect("directory");
    let state = folder.path().join("apiban.state").display().to_string();
    let kamailio = untrusting().param("state_file", state.as_str()).start();
    kamailio.ask("apiban.block", &["127.0.0.66"]);
    kamailio.ask("apiban.block", &["127.0.8.0/24"]);
    kamailio.ask("apiban.block", &["127.0.0.67"]);
    kamailio.stop();

    let kamailio = untrusting()
        .param("state_file", state.as_str())
        .param("trust", "127.0.0.66, 127.0.8.200")
        .start();
    kamailio.assert_answered("127.0.0.66");
    kamailio.assert_answered("127.0.8.1");
    kamailio.assert_dropped("127.0.0.67");
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 1);
}

/// A dispatcher list with the destinations 203.0.`n / 250`.`n % 250` for all n below `count`.
fn destinations(count: usize) -> String {
    (0..count)
        .map(|n| format!("1 sip:203.0.{}.{}:5060\n", n / 250, n % 250))
        .collect()
}

fn with_dispatcher(count: usize) -> Builder {
    untrusting()
        .memory(128, 32)
        .load("dispatcher")
        .modparam("dispatcher", "list_file", "@DIR@/dispatcher")
        .file("dispatcher", destinations(count))
}

#[test]
fn a_trust_file_that_is_too_long_stops_nothing_else() {
    let long: String = (0..9_000)
        .map(|n| format!("10.0.{}.{}\n", n / 250, n % 250))
        .collect();
    let file = TrustFile::new(&long);
    // Without a trust_file in use the start has nothing to fall back to.
    let log = untrusting()
        .param("trust_file", file.text())
        .expect_start_failure();
    let why = "9000 trusted addresses and prefixes, at most 8192 are possible";
    assert!(log.contains(why), "{log}");

    file.write("192.0.2.1\n");
    let kamailio = with_dispatcher(1).param("trust_file", file.text()).start();
    wait_until("the first destination to be trusted", SOON, || {
        kamailio.verdict("203.0.0.0")["source"] == "trusted"
    });
    file.write(&long);
    for _ in 0..2 {
        // Each reload that fails says so.
        let fault = kamailio
            .jsonrpc("apiban.reload", serde_json::json!([]))
            .expect_err("a reload with too long a list");
        assert!(fault.code == 500 && fault.text.contains(why), "{fault}");
    }
    assert_eq!(rule(&kamailio, "192.0.2.1"), "trust_file line 1");
    // What Kamailio knows by itself goes on being followed.
    fs::write(kamailio.dir().join("dispatcher"), destinations(2)).expect("dispatcher list");
    kamailio.ask("dispatcher.reload", &[]);
    wait_until("the new destination to be trusted", SOON, || {
        kamailio.verdict("203.0.0.1")["source"] == "trusted"
    });
}

#[test]
fn of_too_many_destinations_as_many_are_trusted_as_fit() {
    let kamailio = with_dispatcher(8_300)
        .param("trust", "192.0.2.1, 203.0.33.40")
        .start();
    // 8,192 fit.
    let line = kamailio.wait_for_log("108 addresses found", SOON);
    assert!(line.contains("WARNING"), "{line}");
    wait_until("the destinations to be trusted", SOON, || {
        kamailio.ask("apiban.status", &[])["trust"]["automatic"]
            .as_u64()
            .is_some_and(|automatic| automatic >= 8_191)
    });
    for given in ["192.0.2.1", "203.0.33.40"] {
        assert_eq!(rule(&kamailio, given), format!("trust {given}"));
    }
    let log = kamailio.log();
    assert_eq!(log.matches("addresses found").count(), 1, "{log}");
    assert!(log.contains("more addresses are trusted from now on"));
}

#[test]
fn a_destination_without_an_address_is_named_once() {
    let kamailio = untrusting()
        .load("dispatcher")
        .modparam("dispatcher", "list_file", "@DIR@/dispatcher")
        .file(
            "dispatcher",
            // 16: dispatcher itself looks for no A record.
            "1 sip:only-srv.invalid 16\n1 sip:only-srv.invalid;transport=tcp 16\n",
        )
        .start();
    let line = kamailio.wait_for_log("only-srv.invalid has no A or AAAA record", SOON);
    assert!(line.contains("WARNING"), "{line}");
    let looked = |text: &str| kamailio.log().matches(text).count();
    kamailio.ask("apiban.block", &["192.0.2.1", "1"]);
    wait_until("the updater to go on", SOON, || {
        kamailio.statistic("apiban", "local_entries") == 0
    });
    assert_eq!(looked("only-srv.invalid has no A"), 1);
}
