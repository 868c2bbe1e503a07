//! What `feed.state` says while a list comes slowly, not at all, or with a key that comes and goes; and
//! that the service is never asked more often than it allows.

use apiban_testing::fed::{fed, keyless, service, state, wait_state, KEY, LISTED};
use apiban_testing::feed_server::{Fault, FeedServer, Options, Window};
use apiban_testing::kamailio::Kamailio;
use apiban_testing::wait::{wait_until, SOON};
use std::fs;
use std::time::Duration;

fn entries(kamailio: &Kamailio) -> u64 {
    kamailio.statistic("apiban", "feed_entries")
}

/// `count` addresses of 10.0.0.0/8.
fn many(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("10.{}.{}.{}", n / 40_000, n / 200 % 200, n % 200))
        .collect()
}

#[test]
fn a_page_protects_as_soon_as_it_is_there() {
    let service = service();
    service.list(&[LISTED]);
    service.list(&many(600));
    // Two requests a minute: the rest of the list has to wait.
    let kamailio = fed(&service)
        .param("rate_limit_requests", 2)
        .param("rate_limit_window", 60)
        .start();
    kamailio.wait_dropped(LISTED, SOON);
    wait_state(&kamailio, "syncing");
    let loaded = entries(&kamailio);
    assert!((250..601).contains(&loaded), "{loaded}");
    let status = kamailio.ask("apiban.status", &[]);
    assert_eq!(status["feed"]["last_error"], "", "{status}");
    assert_eq!(service.refused(), 0);
    let asked = service.requests().len();
    assert!(asked <= 2, "{asked}");
}

#[test]
fn a_service_that_falls_silent_makes_the_list_stale() {
    let service = service();
    service.list(&[LISTED]);
    let kamailio = fed(&service)
        .param("poll_interval", 1)
        .param("http_timeout", 2)
        .start();
    kamailio.wait_dropped(LISTED, SOON);
    service.set_fault(Fault::Hang, None);
    // More than three poll intervals without an answer.
    wait_state(&kamailio, "stale");
    kamailio.assert_dropped(LISTED);
    assert!(kamailio.statistic("apiban", "feed_age") >= 3);
    service.clear_faults();
    kamailio.ask("apiban.reload", &[]);
    wait_state(&kamailio, "ok");
}

#[test]
fn a_key_may_come_and_change_and_go_while_kamailio_runs() {
    let service = service();
    service.list(&[LISTED]);
    let folder = tempfile::TempDir::new().expect("directory");
    let path = folder.path().join("key");
    fs::write(&path, "wRoNgKeY98765432\n").expect("key file");
    let kamailio = keyless(&service)
        .param("api_key_file", path.display().to_string())
        .start();
    wait_state(&kamailio, "unauthorized");
    fs::write(&path, format!("  {KEY}  \r\nrubbish\n")).expect("key file");
    kamailio.ask("apiban.reload", &[]);
    wait_state(&kamailio, "ok");
    kamailio.assert_dropped(LISTED);

    // Without its file the key stays as it was, and whoever asks for a reload is told.
    fs::remove_file(&path).expect("key file");
    let fault = kamailio
        .jsonrpc("apiban.reload", serde_json::json!([]))
        .expect_err("a reload without the key file");
    assert!(
        fault.code == 500 && fault.text.contains("No such file"),
        "{fault}"
    );
    assert_eq!(state(&kamailio), "ok");
    kamailio.assert_dropped(LISTED);
    let log = kamailio.log();
    assert!(
        !log.contains(KEY) && !log.contains("wRoNgKeY98765432"),
        "{log}"
    );
}

#[test]
fn a_long_list_stays_below_the_services_limit() {
    for window in [Window::Sliding, Window::Fixed] {
        let service = FeedServer::start(Options {
            rate: Some((11, Duration::from_secs(1))),
            window,
            ..Options::new(KEY)
        });
        let service = service.expect("the stand-in for the service");
        service.list(&many(5000));
        let kamailio = fed(&service)
            .param("rate_limit_requests", 11)
            .param("rate_limit_window", 1)
            .start();
        wait_until("the whole list", SOON, || entries(&kamailio) == 5000);
        wait_state(&kamailio, "ok");
        assert_eq!(service.refused(), 0, "{window:?}");
        assert_eq!(
            kamailio.statistic("apiban", "rate_limited"),
            0,
            "{window:?}"
        );
        assert!(service.requests().len() <= 21, "{window:?}");
    }
}

/// Starts Kamailio five times within a minute in which the service allows four requests.
fn restarts_stay_below_the_limit(service: &FeedServer, list_comes: bool) {
    let folder = tempfile::TempDir::new().expect("directory");
    let path = folder.path().join("apiban.state").display().to_string();
    let builder = fed(service)
        .param("state_file", path.as_str())
        .param("rate_limit_requests", 4)
        .param("rate_limit_window", 60);
    for _ in 0..5 {
        let kamailio = builder.clone().start();
        if list_comes {
            kamailio.wait_dropped(LISTED, SOON);
            // Each of them wants the whole list, and most have to wait for it.
            kamailio.ask("apiban.reload", &[]);
        }
        kamailio.assert_answered("127.0.0.5");
        assert!(kamailio.stop().status.success());
    }
    let asked = service.requests().len();
    assert!(asked <= 4, "{asked} requests within a minute");
}

#[test]
fn restarts_do_not_make_it_ask_more_often() {
    let service = service();
    service.list(&[LISTED]);
    restarts_stay_below_the_limit(&service, true);
}

#[test]
fn restarts_while_nothing_comes_do_not_make_it_ask_more_often() {
    for fault in [
        Fault::Status(500, None),
        Fault::RateLimited(None),
        Fault::Hang,
    ] {
        let service = service();
        service.set_fault(fault, None);
        restarts_stay_below_the_limit(&service, false);
    }
}

#[test]
fn every_redirect_counts_even_if_no_answer_comes_of_it() {
    let service = service();
    service.set_fault(Fault::Redirect(302, "{path}".to_owned()), None);
    let kamailio = fed(&service)
        .param("rate_limit_requests", 4)
        .param("rate_limit_window", 60)
        .start();
    // One exchange makes four requests. The pause after an error is shorter than the window.
    kamailio.wait_for_log(
        "the request budget (rate_limit_requests 4 in 60 s) is used up",
        SOON,
    );
    assert_eq!(service.requests().len(), 4);
    let status = kamailio.ask("apiban.status", &[]);
    assert_eq!(status["feed"]["requests"], 4, "{status}");
    assert_eq!(status["feed"]["waiting_for"], "request budget", "{status}");
}

#[test]
fn a_list_that_seems_a_week_old_is_enforced_all_the_same() {
    let service = service();
    // As a host sees it whose clock is eight days ahead.
    let first = apiban_testing::feed_server::now() - 8 * 86_400;
    service.list_at("sip", first, &[LISTED]);
    let kamailio = fed(&service).start();
    kamailio.wait_dropped(LISTED, SOON);
    wait_state(&kamailio, "ok");
    let left = kamailio.verdict(LISTED)["expires"]
        .as_u64()
        .expect("seconds");
    assert!((604_700..=604_800).contains(&left), "{left}");
    let status = kamailio.ask("apiban.status", &[]);
    let shown = status["feed"]["last_error"].as_str().expect("a text");
    assert!(shown.contains("this host's clock is ahead"), "{status}");
    kamailio.ask("apiban.reload", &[]);
    wait_until("a second full fetch", SOON, || {
        kamailio.log().matches("full fetch complete").count() == 2
    });
    assert_eq!(kamailio.log().matches("clock is ahead").count(), 1);
}

#[test]
fn a_service_that_begins_to_send_smaller_pages_costs_no_ban() {
    let service = service();
    service.list(&[LISTED]);
    service.list(&many(600));
    // Whatever a full fetch drops is dropped at once.
    let kamailio = fed(&service).param("feed_shrink_limit", 100).start();
    wait_state(&kamailio, "ok");
    assert_eq!(entries(&kamailio), 601);
    service.set_page(100);
    service.delist(&["10.0.0.1"]);
    kamailio.ask("apiban.reload", &[]);
    wait_until("a second full fetch", SOON, || {
        kamailio.log().matches("full fetch complete").count() == 2
    });
    assert_eq!(entries(&kamailio), 600);
}

#[test]
fn a_socks_proxy_is_not_ignored_in_silence() {
    let kamailio = keyless(&service())
        .param("api_key", KEY)
        .param("api_url", "http://apiban.invalid/api")
        .environment("ALL_PROXY", "socks5://user:secret@127.0.0.1:1")
        .start();
    let line = kamailio.wait_for_log("SOCKS", SOON);
    assert!(
        line.contains("WARNING: apiban") && line.contains("ALL_PROXY"),
        "{line}"
    );
    assert!(!kamailio.log().contains("secret"), "{line}");
}
