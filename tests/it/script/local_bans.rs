//! Local bans from the script: every form of `apiban_block()` and `apiban_unblock()`, their ends, limits
//! and refusals.

use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::script::show;
use apiban_testing::sip::Answer;
use apiban_testing::wait::{patience, wait_until, SOON};
use serde_json::json;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CLEAR: &str = "127.0.0.5";

/// Loopback is all that tests have, so it is not trusted.
fn untrusting() -> Builder {
    Kamailio::builder().param("trust_self", 0)
}

/// Makes each call in `request_route`, once, in this order; gives the return codes and the Kamailio.
fn codes_of(builder: Builder, calls: &[&str]) -> (Vec<i64>, Kamailio) {
    let shown: String = calls
        .iter()
        .enumerate()
        .map(|(index, call)| show(&format!("#{index}"), call))
        .collect();
    // Only the request that asks for it, not those that look whether somebody is banned.
    let route = format!(
        "if (is_method(\"REGISTER\")) {{\n{shown}\n}} else if (apiban_check()) {{ exit; }}"
    );
    let kamailio = builder.request_route(&route).start();
    assert_eq!(kamailio.udp(CLEAR).register(), Answer::Status(200));
    let codes = (0..calls.len())
        .map(|index| kamailio.code(&format!("#{index}")))
        .collect();
    (codes, kamailio)
}

fn expires(kamailio: &Kamailio, ip: &str) -> i64 {
    kamailio.verdict(ip)["expires"].as_i64().expect("seconds")
}

#[test]
fn every_form_of_the_call_bans_for_the_time_given() {
    for release in Release::all() {
        let calls = [
            "apiban_block()",
            r#"apiban_block("192.0.2.1")"#,
            r#"apiban_block("192.0.2.2", "60")"#,
            r#"apiban_block("192.0.2.3", 60)"#,
            r#"apiban_block("192.0.2.$var(n)", "$var(ttl)")"#,
            r#"apiban_block("192.0.2.5", "$var(ttl)", "from $si")"#,
            r#"apiban_block("192.0.2.6", " 60 ", "blanks")"#,
            "apiban_block($var(ip), $var(ttl), $rm)",
            r#"apiban_block("192.0.2.8", "$var(ttl)", "$var(ttl)")"#,
            r#"apiban_block("192.0.2.9", "$var(ttl)", "$avp(unset)")"#,
            r#"apiban_block("[2001:db8::7]", "60", "")"#,
        ];
        let (codes, kamailio) = codes_of(
            untrusting().release(&release).param("block_ttl", 500),
            &[
                &["$var(n) = 4; $var(ttl) = 60; $var(ip) = \"192.0.2.7\"; is_method(\"REGISTER\")"],
                &calls[..],
            ]
            .concat(),
        );
        assert_eq!(codes, vec![1; codes.len()], "{}", release.name());
        for ip in [CLEAR, "192.0.2.1"] {
            assert!(
                (490..=500).contains(&expires(&kamailio, ip)),
                "{ip} in {}",
                release.name()
            );
        }
        for host in 2..=9 {
            let ip = format!("192.0.2.{host}");
            assert!(
                (50..=60).contains(&expires(&kamailio, &ip)),
                "{ip} in {}",
                release.name()
            );
        }
        assert_eq!(kamailio.verdict("192.0.2.5")["reason"], "from 127.0.0.5");
        assert_eq!(kamailio.verdict("192.0.2.6")["reason"], "blanks");
        assert_eq!(kamailio.verdict("192.0.2.7")["reason"], "REGISTER");
        assert_eq!(kamailio.verdict("192.0.2.8")["reason"], "60");
        assert_eq!(kamailio.verdict("192.0.2.9")["reason"], "");
        assert_eq!(kamailio.verdict("2001:db8::7")["reason"], "2001:db8::/64");
        kamailio.assert_dropped(CLEAR);
    }
}

#[test]
fn a_time_that_is_none_bans_nobody() {
    let calls = [
        r#"apiban_block("192.0.2.1", "0$var(no)")"#,
        r#"apiban_block("192.0.2.1", "-60$var(no)")"#,
        r#"apiban_block("192.0.2.1", "$var(negative)")"#,
        r#"apiban_block("192.0.2.1", "315360001$var(no)")"#,
        r#"apiban_block("192.0.2.1", "99999999999999999999999$var(no)")"#,
        r#"apiban_block("192.0.2.1", "soon$var(no)")"#,
        r#"apiban_block("192.0.2.1", "60s$var(no)")"#,
        r#"apiban_block("192.0.2.1", "6e1$var(no)")"#,
        r#"apiban_block("192.0.2.1", "$var(no)")"#,
        r#"apiban_block("192.0.2.1", "$avp(unset)", "why")"#,
        r#"apiban_block("192.0.2.1", "1.5$var(no)")"#,
    ];
    let first = "$var(negative) = -1; $var(no) = \"\"; is_method(\"REGISTER\")";
    let (codes, kamailio) = codes_of(untrusting(), &[&[first], &calls[..]].concat());
    assert_eq!(codes[1..], vec![-3; calls.len()]);
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 0);
}

#[test]
fn what_is_no_address_is_not_banned() {
    let calls = [
        r#"apiban_block("$var(no)")"#,
        r#"apiban_block("192.0.2$var(no)")"#,
        r#"apiban_block("192.0.2.0/24$var(no)")"#,
        r#"apiban_block("carrier.example$var(no)", "60")"#,
        r#"apiban_block("$avp(unset)", "60", "why")"#,
        r#"apiban_block("0.0.0.0")"#,
        r#"apiban_block("224.0.0.1", "60")"#,
        r#"apiban_block("255.255.255.255")"#,
        r#"apiban_block("::")"#,
        r#"apiban_block("fe80::1")"#,
        r#"apiban_unblock("$var(no)")"#,
        r#"apiban_unblock("x$var(no)")"#,
        r#"apiban_unblock("$avp(unset)")"#,
    ];
    let first = "$var(no) = \"\"; is_method(\"REGISTER\")";
    let (codes, kamailio) = codes_of(untrusting(), &[&[first], &calls[..]].concat());
    assert_eq!(codes[1..], vec![-3; calls.len()]);
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 0);
    // One line for all of them, not one for each packet.
    let told: Vec<String> = kamailio.module_log();
    let told: Vec<&String> = told
        .iter()
        .filter(|line| line.contains("WARNING"))
        .collect();
    let wanted = "apiban_block(): ip \"\" is not an IP address";
    let told: Vec<&&String> = told
        .iter()
        .filter(|line| line.contains("it returned -3"))
        .collect();
    assert!(told.len() == 1 && told[0].contains(wanted), "{told:?}");
}

/// A constant that can never work ends the start, with the function, the value and what is accepted.
#[test]
fn a_constant_that_can_never_work_ends_the_start() {
    for release in Release::all() {
        let start = |route: &str, routes: &str| {
            untrusting()
                .release(&release)
                .request_route(route)
                .routes(routes)
                .expect_start_failure()
        };
        let ip = "accepted: an address, or a pseudo-variable such as \"$si\"";
        let ttl = "accepted: a number of seconds from 1 to 315360000";
        for (call, wrong, accepted) in [
            (
                "apiban_check(\"si\");",
                "apiban_check(): ip \"si\" is not",
                ip,
            ),
            (
                "apiban_unblock(\"192.0.2.0/24\");",
                "apiban_unblock(): ip \"192.0.2.0/24\"",
                ip,
            ),
            ("apiban_block(\"\");", "apiban_block(): ip \"\" is not", ip),
            (
                "apiban_block(\"$si\", \"1h\");",
                "apiban_block(): ttl \"1h\" is wrong",
                ttl,
            ),
            (
                "apiban_block(\"$si\", 0);",
                "apiban_block(): ttl \"0\" is wrong",
                ttl,
            ),
            (
                "apiban_block(\"$si\", \"-1\", \"scan\");",
                "apiban_block(): ttl \"-1\"",
                ttl,
            ),
        ] {
            let log = start(call, "");
            let line = log.lines().find(|line| line.contains(wrong));
            let line = line.unwrap_or_else(|| panic!("{call}: {log}"));
            assert!(line.contains("ERROR") && line.contains(accepted), "{line}");
        }
        let log = start("", "event_route[apiban:blocked] { drop; }");
        let wanted = "event_route[apiban:blocked] never runs; accepted: apiban:block, \
                      apiban:expired, apiban:sync";
        assert!(log.contains(wanted), "{log}");
    }
}

/// An expression is not constant: its value is fixed at each call, by the process that runs it, and a bad one is
/// answered by the call.
#[test]
fn an_expression_is_checked_when_it_is_called() {
    for release in Release::all() {
        let calls = [
            r#"$var(a) = "192.0.2."; $var(t) = "6"; is_method("REGISTER")"#,
            r#"apiban_block($var(a) + "1", $var(t) + "0", "sum")"#,
            r#"apiban_block($var(a) + "x", "60")"#,
            r#"apiban_check($var(a) + "1")"#,
            r#"apiban_block($var(a) + "2", $var(t) + "h")"#,
        ];
        let (codes, kamailio) = codes_of(untrusting().release(&release), &calls);
        assert_eq!(codes[1..], [1, -3, 2, -3]);
        let log = kamailio.log();
        assert!(!log.contains("ERROR: apiban"), "{log}");
        assert!(
            log.contains("ip \"192.0.2.x\" is not an IP address"),
            "{log}"
        );
    }
}

#[test]
fn the_longer_end_wins_and_unblocking_ends_it() {
    let calls = [
        r#"apiban_block("192.0.2.1", "100", "first")"#,
        r#"apiban_block("192.0.2.1", "50", "shorter")"#,
        r#"apiban_block("192.0.2.2", "50", "first")"#,
        r#"apiban_block("192.0.2.2", "100", "longer")"#,
        r#"apiban_block("192.0.2.3", "100")"#,
        r#"apiban_unblock("192.0.2.3")"#,
        r#"apiban_unblock("192.0.2.3")"#,
        "apiban_unblock()",
        "apiban_block()",
        "apiban_unblock()",
        r#"apiban_block("::ffff:192.0.2.4")"#,
        r#"apiban_unblock("192.0.2.4")"#,
    ];
    let (codes, kamailio) = codes_of(untrusting(), &calls);
    assert_eq!(codes, [1, 1, 1, 1, 1, 1, -1, -1, 1, 1, 1, 1]);
    for ip in ["192.0.2.1", "192.0.2.2"] {
        assert!((90..=100).contains(&expires(&kamailio, ip)), "{ip}");
    }
    assert_eq!(kamailio.verdict("192.0.2.3")["banned"], 0);
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 2);
    kamailio.assert_answered(CLEAR);
}

#[test]
fn an_ipv6_source_is_banned_with_its_network() {
    let calls = [r#"apiban_block("2001:db8:1:2:3:4:5:6")"#];
    for (length, net, inside, outside) in [
        (
            64,
            "2001:db8:1:2::/64",
            "2001:db8:1:2::9",
            "2001:db8:1:3::9",
        ),
        (
            56,
            "2001:db8:1::/56",
            "2001:db8:1:ff::9",
            "2001:db8:1:100::9",
        ),
        (
            128,
            "2001:db8:1:2:3:4:5:6",
            "2001:db8:1:2:3:4:5:6",
            "2001:db8:1:2:3:4:5:7",
        ),
    ] {
        let (codes, kamailio) = codes_of(untrusting().param("block_v6_prefix", length), &calls);
        assert_eq!(codes, [1]);
        assert_eq!(kamailio.verdict(inside)["source"], "local", "/{length}");
        assert_eq!(kamailio.verdict(outside)["source"], "none", "/{length}");
        let list = kamailio.ask("apiban.list", &["local"]);
        assert_eq!(list[0]["ip"], net, "{list}");
        // Whoever is inside may be lifted by the address alone.
        kamailio.ask("apiban.unblock", &[inside]);
        assert_eq!(kamailio.verdict("2001:db8:1:2:3:4:5:6")["banned"], 0);
    }
}

#[test]
fn a_network_with_a_friend_in_it_is_spared() {
    let calls = [
        r#"apiban_block("2001:db8::1")"#,
        r#"apiban_block("2001:db8::7")"#,
        r#"apiban_check("2001:db8::1")"#,
        r#"apiban_check("2001:db8::7")"#,
        r#"apiban_check("2001:db8::8")"#,
    ];
    let (codes, _kamailio) = codes_of(untrusting().param("trust", "2001:db8::1"), &calls);
    assert_eq!(codes, [-1, 1, -2, 2, -1]);
}

#[test]
fn the_trusted_are_refused_and_counted() {
    let calls = [
        r#"apiban_block("192.0.2.200")"#,
        r#"apiban_block("::ffff:192.0.2.200", "60")"#,
        "apiban_block()",
        r#"apiban_check("192.0.2.200")"#,
    ];
    let builder = untrusting().param("trust", "192.0.2.128/25, 127.0.0.5");
    let (codes, kamailio) = codes_of(builder, &calls);
    assert_eq!(codes, [-1, -1, -1, -2]);
    assert_eq!(kamailio.statistic("apiban", "block_refused"), 3);
    assert_eq!(kamailio.statistic("apiban", "trusted_skips"), 4);
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 0);
}

#[test]
fn a_full_table_refuses_and_evicts_nobody() {
    let calls = [
        r#"apiban_block("192.0.2.2")"#,
        r#"apiban_block("10.0.0.1", "1000")"#,
        r#"apiban_check("10.0.0.1")"#,
        r#"apiban_block("192.0.2.2")"#,
    ];
    let route = format!(
        "if (is_method(\"REGISTER\")) {{\n{}\n}}",
        calls
            .iter()
            .enumerate()
            .map(|(n, call)| show(&format!("#{n}"), call))
            .collect::<String>()
    );
    let kamailio = untrusting()
        .param("max_local_entries", 100)
        .request_route(&route)
        .start();
    let ban = |ip: &str| kamailio.jsonrpc("apiban.block", json!([ip]));
    let banned = (1..=250)
        .take_while(|host| ban(&format!("10.0.0.{host}")).is_ok())
        .count();
    assert_eq!(banned, 100);

    let fault = ban("192.0.2.1").expect_err("full");
    assert_eq!(fault.code, 507, "{fault}");
    assert!(fault.text.contains("max_local_entries is 100"), "{fault}");
    let fault = kamailio
        .kamcmd(&["apiban.block", "192.0.2.1"])
        .expect_err("full");
    assert_eq!(fault.code, 507, "{fault}");
    assert_eq!(kamailio.udp(CLEAR).register(), Answer::Status(200));
    let codes: Vec<i64> = (0..calls.len())
        .map(|n| kamailio.code(&format!("#{n}")))
        .collect();
    assert_eq!(codes, [-4, 1, 2, -4]);
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 100);
    // One more that the filling met, two by RPC, two by the script.
    assert_eq!(kamailio.statistic("apiban", "block_refused"), 5);
    // Who goes makes room.
    kamailio.ask("apiban.unblock", &["10.0.0.50"]);
    assert!(ban("192.0.2.1").is_ok());
    assert!(ban("192.0.2.2").is_err());
}

#[test]
fn forged_sources_have_a_budget_and_old_acquaintances_have_none() {
    let calls = [
        r#"apiban_block("192.0.2.1", "60")"#,
        r#"apiban_block("192.0.2.2", "60")"#,
        r#"apiban_block("192.0.2.3", "60")"#,
        r#"apiban_block("192.0.2.4", "60")"#,
        // Longer for somebody who is banned already.
        r#"apiban_block("192.0.2.1", "600")"#,
    ];
    // At the turn of a minute the budget begins anew: whoever meets it tries once more.
    let same_minute = || {
        let minute = || {
            std::time::SystemTime::UNIX_EPOCH
                .elapsed()
                .expect("clock")
                .as_secs()
                / 60
        };
        let before = minute();
        let run = codes_of(untrusting().param("block_budget", 3), &calls);
        (minute() == before).then_some(run)
    };
    let (codes, kamailio) = same_minute().or_else(same_minute).expect("a minute");
    assert_eq!(codes, [1, 1, 1, -5, 1]);
    assert_eq!(kamailio.statistic("apiban", "block_refused"), 1);
    assert!(expires(&kamailio, "192.0.2.1") > 500);
    // An operator has no budget.
    kamailio.ask("apiban.block", &["192.0.2.4"]);
    let (codes, _kamailio) = codes_of(untrusting().param("block_budget", 0), &calls);
    assert_eq!(codes, [1; 5]);
}

#[test]
fn a_ban_ends_when_its_time_is_over() {
    let kamailio = untrusting()
        .request_route("if (apiban_check()) { exit; }")
        .start();
    let seconds = 2 * patience();
    let begin = Instant::now();
    kamailio.ask("apiban.block", &["127.0.0.66", &seconds.to_string()]);
    kamailio.ask("apiban.block", &["127.0.0.0/28", "1"]);
    kamailio.assert_dropped("127.0.0.66");
    kamailio.wait_answered("127.0.0.66", SOON);
    let took = begin.elapsed();
    // Whole seconds: up to one less for the second in which it began.
    let least = Duration::from_secs((seconds - 1).into()) - Duration::from_millis(50);
    assert!(took > least, "{took:?}");
    kamailio.assert_answered(CLEAR);
    wait_until("the table to be swept", SOON, || {
        kamailio.statistic("apiban", "local_entries") == 0
    });
}

#[test]
fn bans_survive_a_restart_with_the_time_they_have_left() {
    let folder = TempDir::new().expect("directory");
    let file = folder.path().join("apiban.state");
    let start = || {
        untrusting()
            .param("state_file", file.display().to_string())
            .request_route("if (apiban_check()) { exit; }")
            .start()
    };
    let kamailio = start();
    kamailio.ask("apiban.block", &["127.0.0.66", "100", "scanner \"100%\""]);
    kamailio.ask("apiban.block", &["198.51.100.0/24", "200"]);
    kamailio.ask("apiban.block", &["2001:db8::1", "300"]);
    kamailio.ask("apiban.block", &["192.0.2.1", "1"]);
    let since = kamailio.verdict("127.0.0.66")["since"].clone();
    let stopped = kamailio.stop();
    assert!(stopped.status.success(), "{}", stopped.log);
    wait_until("the short ban to end", SOON, || {
        std::fs::metadata(&file)
            .unwrap()
            .modified()
            .unwrap()
            .elapsed()
            .unwrap()
            > Duration::from_millis(1100)
    });

    let kamailio = start();
    kamailio.assert_dropped("127.0.0.66");
    kamailio.assert_answered(CLEAR);
    let verdict = kamailio.verdict("127.0.0.66");
    assert_eq!(verdict["source"], "local", "{verdict}");
    assert_eq!(verdict["since"], since);
    assert_eq!(verdict["reason"], "scanner \"100%\"");
    assert!(
        (90..=99).contains(&expires(&kamailio, "127.0.0.66")),
        "{verdict}"
    );
    assert!((190..=199).contains(&expires(&kamailio, "198.51.100.7")));
    assert!((290..=299).contains(&expires(&kamailio, "2001:db8::2")));
    assert_eq!(kamailio.verdict("192.0.2.1")["banned"], 0);

    // What is lifted stays lifted.
    kamailio.ask("apiban.unblock", &["127.0.0.66"]);
    kamailio.stop();
    let kamailio = start();
    kamailio.assert_answered("127.0.0.66");
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 2);
    // Even a crash of the machine loses no more than the last seconds.
    kamailio.kill9();
    let kamailio = start();
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 2);
}

/// Behind a NAT64 translator each address of the network is another IPv4 host.
#[test]
fn one_client_behind_a_translator_does_not_ban_the_others() {
    let calls = [
        r#"apiban_block("64:ff9b::198.51.100.7")"#,
        r#"apiban_check("64:ff9b::198.51.100.7")"#,
        r#"apiban_check("64:ff9b::198.51.100.8")"#,
        r#"apiban_unblock("64:ff9b::198.51.100.7")"#,
    ];
    let (codes, _kamailio) = codes_of(untrusting(), &calls);
    assert_eq!(codes, [1, 2, -1, 1]);
}
