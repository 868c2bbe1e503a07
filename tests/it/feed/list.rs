//! The list, from the service to the dropped packet: both API versions, news, delisting, refused keys,
//! rate limits, and entries that no list should hold.

use apiban_testing::fed::{fed, keyless, service, wait_state, KEY, LISTED};
use apiban_testing::feed_server::Fault;
use apiban_testing::kamailio::{Kamailio, Release};
use apiban_testing::script::show;
use apiban_testing::wait::{wait_until, SOON};
use std::fs;
use std::time::Duration;

fn entries(kamailio: &Kamailio) -> u64 {
    kamailio.statistic("apiban", "feed_entries")
}

/// `count` addresses of 10.0.0.0/16.
fn many(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("10.0.{}.{}", n / 200, n % 200))
        .collect()
}

/// The key must stand nowhere that anybody reads.
fn assert_secret(kamailio: Kamailio) {
    let mut seen = String::new();
    for words in [
        &["apiban.status"][..],
        &["apiban.list"],
        &["apiban.check", LISTED],
        &["core.psx"],
    ] {
        seen.push_str(&kamailio.kamcmd(words).expect("a reply"));
    }
    for process in kamailio.processes() {
        let arguments = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        seen.push_str(&String::from_utf8_lossy(&arguments));
    }
    seen.push_str(&kamailio.log());
    let state = kamailio.dir().join("apiban.state");
    wait_until("the state file", SOON, || state.exists());
    seen.push_str(&String::from_utf8_lossy(
        &fs::read(state).expect("state file"),
    ));
    assert!(!seen.contains(KEY), "the key is shown:\n{seen}");
    let stopped = kamailio.stop();
    assert!(stopped.status.success());
    assert!(!stopped.log.contains(KEY), "{}", stopped.log);
}

#[test]
fn the_listed_are_dropped_and_everybody_else_is_answered() {
    for release in Release::all() {
        for version in [1, 2] {
            let service = service();
            service.list(&[LISTED, "2001:db8::7"]);
            let kamailio = fed(&service)
                .release(&release)
                .debug(3)
                .param("api_version", version)
                .request_route(&format!(
                    "{} if (apiban_check()) {{ exit; }}",
                    show("check", "apiban_check()")
                ))
                .start();
            kamailio.wait_dropped(LISTED, SOON);
            kamailio.assert_answered("127.0.0.5");
            // A slow worker may still be at the packet that nobody answered.
            wait_until("the return code of a listed source", SOON, || {
                kamailio.codes("check").contains(&1)
            });
            let verdict = kamailio.verdict(LISTED);
            assert_eq!(verdict["source"], "feed", "{verdict}");
            let left = verdict["expires"].as_u64().expect("seconds");
            assert!((604_700..=604_800).contains(&left), "{verdict}");
            // The list names addresses, so the network around one is not banned.
            assert_eq!(kamailio.verdict("2001:db8::7")["banned"], 1);
            assert_eq!(kamailio.verdict("2001:db8::8")["banned"], 0);
            wait_state(&kamailio, "ok");
            let status = kamailio.ask("apiban.status", &[]);
            assert_eq!(status["feed"]["entries"], 2, "{status}");
            assert_eq!(status["feed"]["dataset"], "sip", "{status}");
            assert_eq!(status["feed"]["last_error"], "", "{status}");
            assert!(
                status["feed"]["id"]
                    .as_str()
                    .is_some_and(|id| id.len() == 10),
                "{status}"
            );
            assert!(kamailio.statistic("apiban", "fetch_ok") >= 1);
            assert!(kamailio.statistic("apiban", "feed_age") <= 5);
            assert_secret(kamailio);
        }
    }
}

#[test]
fn a_poll_brings_what_is_new() {
    let service = service();
    service.list(&[LISTED]);
    let kamailio = fed(&service).param("poll_interval", 1).start();
    kamailio.wait_dropped(LISTED, SOON);
    kamailio.assert_answered("127.0.0.67");
    service.list(&["127.0.0.67"]);
    kamailio.wait_dropped("127.0.0.67", SOON);
    kamailio.assert_dropped(LISTED);
}

#[test]
fn a_reload_brings_what_is_new_and_drops_what_is_gone() {
    let service = service();
    service.list(&[LISTED, "127.0.0.67"]);
    let kamailio = fed(&service).start();
    kamailio.wait_dropped("127.0.0.67", SOON);
    service.delist(&[LISTED]);
    service.list(&["127.0.0.68"]);
    kamailio.assert_dropped(LISTED);
    kamailio.ask("apiban.reload", &[]);
    kamailio.wait_dropped("127.0.0.68", SOON);
    kamailio.wait_answered(LISTED, SOON);
    kamailio.assert_dropped("127.0.0.67");
}

#[test]
fn long_lists_come_page_by_page() {
    let service = service();
    service.list(&many(620));
    let kamailio = fed(&service).start();
    wait_until("all pages", SOON, || entries(&kamailio) == 620);
    wait_state(&kamailio, "ok");
    assert_eq!(kamailio.ask("apiban.status", &[])["feed"]["pages"], 3);
}

#[test]
fn a_shrunk_list_is_held_until_an_operator_forces_it() {
    let service = service();
    let listed = many(150);
    service.list(&listed);
    service.list(&[LISTED]);
    let kamailio = fed(&service).start();
    wait_state(&kamailio, "ok");
    service.delist(&listed);
    service.delist(&[LISTED]);
    service.list(&["127.0.0.67"]);
    kamailio.ask("apiban.reload", &[]);
    kamailio.wait_dropped("127.0.0.67", SOON);
    wait_state(&kamailio, "held");
    kamailio.assert_dropped(LISTED);
    kamailio.wait_for_log("would drop 151 of 152 addresses", SOON);
    assert_eq!(entries(&kamailio), 152);
    kamailio.ask("apiban.reload", &["force"]);
    kamailio.wait_answered(LISTED, SOON);
    wait_until("the sweep", SOON, || entries(&kamailio) == 1);
    wait_state(&kamailio, "ok");
}

#[test]
fn a_shrunk_list_is_believed_when_a_second_one_agrees() {
    let service = service();
    let listed = many(150);
    service.list(&listed);
    service.list(&[LISTED]);
    let kamailio = fed(&service).param("poll_interval", 1).start();
    wait_state(&kamailio, "ok");
    service.delist(&listed);
    kamailio.ask("apiban.reload", &[]);
    kamailio.wait_for_log("would drop 150 of 151 addresses", SOON);
    wait_until("the second opinion", SOON, || entries(&kamailio) == 1);
    kamailio.assert_dropped(LISTED);
    wait_state(&kamailio, "ok");
}

#[test]
fn a_refused_key_is_not_tried_again_until_there_is_another() {
    for version in [1, 2] {
        let service = service();
        service.list(&[LISTED]);
        let kamailio = keyless(&service)
            .param("api_version", version)
            .param("poll_interval", 1)
            .param("api_key_file", "@DIR@/key")
            .file("key", "wRoNgKeY98765432\n")
            .start();
        wait_state(&kamailio, "unauthorized");
        let status = kamailio.ask("apiban.status", &[]);
        assert_ne!(status["feed"]["last_error"], "", "{status}");
        kamailio.assert_answered(LISTED);
        let asked = service.requests().len();
        assert_eq!(asked, 1, "version {version}");
        fs::write(kamailio.dir().join("key"), format!("{KEY}\n")).expect("key file");
        kamailio.ask("apiban.reload", &[]);
        kamailio.wait_dropped(LISTED, SOON);
        wait_state(&kamailio, "ok");
        assert!(
            !kamailio.log().contains("wRoNgKeY98765432"),
            "{}",
            kamailio.log()
        );
        assert_secret(kamailio);
    }
}

#[test]
fn a_rate_limit_is_waited_for() {
    let service = service();
    service.list(&[LISTED]);
    service.set_fault(Fault::RateLimited(Some(1)), Some(1));
    let kamailio = fed(&service).start();
    wait_state(&kamailio, "rate_limited");
    assert_eq!(kamailio.statistic("apiban", "rate_limited"), 1);
    // A reload does not make it ask sooner.
    kamailio.ask("apiban.reload", &[]);
    kamailio.wait_dropped(LISTED, SOON);
    wait_state(&kamailio, "ok");
    let log = service.requests();
    let pause = log[1].at.saturating_sub(log[0].at);
    assert!(pause >= Duration::from_millis(990), "{pause:?}");
}

#[test]
fn what_no_list_should_hold_is_refused_and_named_once() {
    let poison = [
        "127.0.0.66",
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.7",
        "10.0.0.0/8",
        "169.254.1.1",
        "::1",
        "ff02::1",
        "::/0",
    ];
    let service = service();
    service.list(&poison);
    service.list(&["198.51.100.0/24", "192.0.2.1"]);
    // As in service: loopback and the server's own addresses are trusted.
    let kamailio = fed(&service).param("trust_self", 1).start();
    for _ in 0..3 {
        wait_state(&kamailio, "ok");
        let before = kamailio.statistic("apiban", "fetch_ok");
        kamailio.ask("apiban.reload", &[]);
        wait_until("a full fetch", SOON, || {
            kamailio.statistic("apiban", "fetch_ok") > before
        });
    }
    kamailio.assert_answered("127.0.0.66");
    assert_eq!(entries(&kamailio), 2);
    let log = kamailio.log();
    for bad in poison {
        let line = format!("the list holds {bad}, which is not banned: ");
        assert_eq!(log.matches(&line).count(), 1, "{bad}: {log}");
    }
    let refused = kamailio.ask("apiban.status", &[])["feed"]["refused"].as_u64();
    assert!(refused >= Some(poison.len() as u64), "{refused:?}");
    let list = kamailio.ask("apiban.list", &["feed"]);
    assert_eq!(
        (list[0]["ip"].clone(), list[1]["ip"].clone()),
        ("192.0.2.1".into(), "198.51.100.0/24".into())
    );
}

#[test]
fn flushing_the_feed_opens_the_door_until_it_is_fetched_again() {
    let service = service();
    service.list(&[LISTED]);
    let kamailio = fed(&service).start();
    kamailio.wait_dropped(LISTED, SOON);
    wait_state(&kamailio, "ok");
    assert_eq!(
        kamailio.ask("apiban.flush", &["feed"]),
        "Ok. 1 entries removed."
    );
    kamailio.assert_answered(LISTED);
    kamailio.ask("apiban.reload", &[]);
    kamailio.wait_dropped(LISTED, SOON);
}

#[test]
fn a_local_ban_and_the_list_do_not_lift_each_other() {
    let service = service();
    service.list(&[LISTED]);
    let kamailio = fed(&service).start();
    kamailio.wait_dropped(LISTED, SOON);
    kamailio.ask("apiban.block", &[LISTED]);
    kamailio.ask("apiban.unblock", &[LISTED]);
    kamailio.assert_dropped(LISTED);
    let fault = kamailio
        .jsonrpc("apiban.unblock", serde_json::json!([LISTED]))
        .expect_err("listed only");
    assert_eq!(fault.code, 404, "{fault}");
    kamailio.ask("apiban.block", &[LISTED]);
    service.delist(&[LISTED]);
    kamailio.ask("apiban.reload", &[]);
    wait_until("the sweep", SOON, || entries(&kamailio) == 0);
    kamailio.assert_dropped(LISTED);
    assert_eq!(kamailio.verdict(LISTED)["source"], "local");
}
