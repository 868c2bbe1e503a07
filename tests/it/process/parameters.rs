//! Module parameters: whatever is wrong with one stops the start with one clear error, and `kamailio -c`
//! finds it too; the key is never shown.

use apiban_testing::fed::KEY;
use apiban_testing::kamailio::{Builder, Kamailio, Release, Value};
use apiban_testing::script::module_lines;
use apiban_testing::wait::{wait_until, SOON};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// The one error of the module in this log.
#[track_caller]
fn only_error(log: &str) -> String {
    let errors: Vec<String> = module_lines(log)
        .into_iter()
        .filter(|line| line.contains("ERROR: ") || line.contains("CRITICAL: "))
        .collect();
    assert_eq!(errors.len(), 1, "{errors:#?}\n{log}");
    errors[0].clone()
}

/// A value that is refused, and what the error says besides the parameter's name.
struct Bad {
    name: &'static str,
    value: Value,
    shown: String,
    accepted: &'static str,
}

fn bad(name: &'static str, value: impl Into<Value>, accepted: &'static str) -> Bad {
    let value = value.into();
    let shown = match &value {
        Value::Int(number) => format!("value {number} "),
        Value::Text(text) => format!("value \"{text}\" "),
    };
    Bad {
        name,
        value,
        shown,
        accepted,
    }
}

/// Each must stop a start as well as a check of the syntax.
fn all_refused(values: Vec<Bad>) {
    for Bad {
        name,
        value,
        shown,
        accepted,
    } in values
    {
        let builder = Kamailio::builder().param(name, value);
        let checked = builder.clone().check().expect_err(name);
        let started = builder.expect_start_failure();
        for log in [checked, started] {
            let error = only_error(&log);
            let named = format!("parameter \"{name}\": ");
            let right = format!("accepted: {accepted}");
            for part in [named.as_str(), shown.as_str(), right.as_str()] {
                assert!(error.contains(part), "no {part:?} in {error}");
            }
        }
    }
}

#[test]
fn numbers_out_of_range() {
    all_refused(vec![
        bad("api_version", 0, "1 to 2"),
        bad("api_version", 3, "1 to 2"),
        bad("poll_interval", 0, "1 to 86400"),
        bad("poll_interval", -1, "1 to 86400"),
        bad("resync_interval", -1, "0 to 315360000"),
        bad("feed_ttl", 0, "1 to 315360000"),
        bad("rate_limit_requests", 0, "1 to 100000"),
        bad("rate_limit_window", 0, "1 to 86400"),
        bad("http_timeout", 301, "1 to 300"),
        bad("block_ttl", 0, "1 to 315360000"),
        bad("block_ttl", 315_360_001, "1 to 315360000"),
        bad("block_v6_prefix", 129, "32 to 128"),
        bad("block_v6_prefix", 31, "32 to 128"),
    ]);
}

#[test]
fn sizes_and_switches_out_of_range() {
    all_refused(vec![
        bad("max_feed_entries", 0, "1 to 16777216"),
        bad("max_local_entries", -5, "1 to 16777216"),
        bad("max_local_entries", 16_777_217, "1 to 16777216"),
        bad("trust_self", 2, "0 to 1"),
        bad("trust_dmq", -1, "0 to 1"),
        bad("trust_dispatcher", 7, "0 to 1"),
        bad("firewall_flush", 2, "0 to 1"),
        bad("block_budget", -1, "0 to 1000000000"),
        bad("feed_shrink_limit", 101, "0 to 100"),
    ]);
}

#[test]
fn unknown_words() {
    all_refused(vec![
        bad("dataset", "sips", "sip, http or all"),
        bad("dataset", "", "sip, http or all"),
        bad("mode", "on", "enforce or observe"),
        bad("firewall", "pf", "none, nft or iptables-api"),
        bad("firewall_scope", "both", "feed, local or all"),
        bad("nft_table", "a b", "1 to 64 letters"),
        bad(
            "api_url",
            "apiban.org/api",
            "a URL of the form http://HOST[:PORT][/PATH], or with https",
        ),
        bad(
            "api_url",
            "https://user@apiban.org",
            "a URL of the form http://HOST[:PORT][/PATH], or with https",
        ),
        bad(
            "firewall_url",
            "ftp://127.0.0.1",
            "a URL of the form http://HOST[:PORT][/PATH], or with https",
        ),
        bad("api_url", "https://h:99999/api", "a URL of the form"),
        bad("api_url", "https://h:/", "a URL of the form"),
        bad("firewall_url", "http://127.0.0.1:0", "a URL of the form"),
        bad(
            "state_file",
            "apiban.state",
            "an absolute path, or an empty string for none",
        ),
        bad("trust_file", "trust", "an absolute path"),
        bad("api_key_file", "key", "an absolute path"),
        bad(
            "trust",
            "192.0.2.0/33",
            "IP addresses and prefixes, separated by comma, semicolon or space",
        ),
        bad(
            "trust",
            "192.0.2.1,carrier.example",
            "IP addresses and prefixes",
        ),
    ]);
}

#[test]
fn values_of_the_wrong_type() {
    all_refused(vec![
        bad("poll_interval", "often", "1 to 86400"),
        bad("poll_interval", "", "1 to 86400"),
        bad("trust_self", "yes", "0 to 1"),
        bad("max_feed_entries", "1k", "1 to 16777216"),
        bad("dataset", 1, "sip, http or all"),
        bad("mode", 0, "enforce or observe"),
        bad("state_file", 0, "an absolute path"),
        bad("trust", 127, "IP addresses and prefixes"),
        bad("api_url", 443, "a URL"),
        bad("poll_interval", "86401", "1 to 86400"),
    ]);
}

#[test]
fn a_number_in_quotes_is_taken_and_so_is_a_dataset_in_capitals() {
    let kamailio = Kamailio::builder()
        .param("trust_self", 0)
        .param("block_ttl", "60")
        .param("dataset", "SIP")
        .request_route("apiban_block();")
        .start();
    kamailio.assert_answered("127.0.0.66");
    let left = kamailio.verdict("127.0.0.66")["expires"].as_u64();
    assert!(
        left.is_some_and(|left| (1..=60).contains(&left)),
        "{left:?}"
    );
    assert_eq!(kamailio.ask("apiban.status", &[])["feed"]["dataset"], "sip");
}

#[test]
fn an_unknown_name_stops_the_start() {
    let builder = Kamailio::builder().param("poll_intervall", 300);
    assert!(builder
        .clone()
        .check()
        .expect_err("a typing error")
        .contains("poll_intervall"));
    assert!(builder.expect_start_failure().contains("poll_intervall"));
}

#[test]
fn a_key_that_cannot_be_one_is_never_shown() {
    for wrong in [
        format!("{KEY} {KEY}"),
        KEY.repeat(17),
        format!("{KEY}\u{fc}"),
    ] {
        let builder = Kamailio::builder().param("api_key", wrong.as_str());
        let logs = [
            builder.clone().check().expect_err("a wrong key"),
            builder.expect_start_failure(),
        ];
        for log in logs {
            let error = only_error(&log);
            assert!(
                error.contains("parameter \"api_key\": value is not a key"),
                "{error}"
            );
            assert!(error.contains("accepted: 2 to 256 printable"), "{error}");
            assert!(!error.contains(KEY), "{error}");
        }
    }
    let log = Kamailio::builder()
        .param("api_key", 42)
        .expect_start_failure();
    assert!(
        only_error(&log).contains("parameter \"api_key\": value is not a string"),
        "{log}"
    );
}

/// Starts, which must fail, with files in a directory; the one error must hold all `parts`.
fn refused_at_start(builder: Builder, parts: &[&str]) {
    // Files are read when Kamailio starts, not when it looks at its syntax.
    let error = only_error(&builder.expect_start_failure());
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    assert!(!error.contains(KEY), "{error}");
}

#[test]
fn a_key_file_that_holds_no_key_costs_the_feed_and_nothing_else() {
    let with = |file: &str| Kamailio::builder().param("api_key_file", format!("@DIR@/{file}"));
    let long = KEY.repeat(5000);
    let binary = [KEY.as_bytes(), &[0xff, 0xfe, b'\n']].concat();
    let cases: Vec<(Builder, &[&str])> = vec![
        (
            with("missing"),
            &["/missing: ", "No such file or directory"],
        ),
        (with("empty").file("empty", ""), &["/empty: ", "is empty"]),
        (
            with("two").file("two", format!("{KEY} {KEY}\n")),
            &["/two: ", "holds a blank"],
        ),
        (
            with("quoted").file("quoted", format!("\"{KEY}\"\n")),
            &["/quoted: ", "is in quotes"],
        ),
        (with("binary").file("binary", binary), &["/binary: "]),
        (with("long").file("long", long), &["/long: ", "longer than"]),
        (with(""), &["/: it is not a regular file"]),
    ];
    for (builder, parts) in cases {
        let kamailio = builder
            .param("trust_self", 0)
            .request_route("if (apiban_check()) { exit; }")
            .start();
        kamailio.ask("apiban.block", &["127.0.0.66"]);
        kamailio.assert_dropped("127.0.0.66");
        let status = kamailio.ask("apiban.status", &[]);
        assert_eq!(status["feed"]["state"], "unauthorized", "{status}");
        let shown = status["feed"]["last_error"].as_str().expect("a text");
        let stopped = kamailio.stop();
        assert!(stopped.status.success(), "{}", stopped.log);
        let error = only_error(&stopped.log);
        for part in parts {
            assert!(error.contains(part), "no {part:?} in {error}");
            assert!(shown.contains(part), "no {part:?} in {shown}");
        }
        for part in ["api_key_file /", "the feed is off", "apiban.reload"] {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
        assert!(
            !stopped.log.contains(KEY) && !shown.contains(KEY),
            "{error}"
        );
        assert!(!stopped.log.contains("os error"), "{error}");
    }
}

#[test]
fn a_key_file_that_comes_later_switches_the_feed_on() {
    let dir = tempfile::tempdir().expect("directory");
    let kamailio = start_with_key_file(dir.path());
    fs::write(dir.path().join("key"), KEY).expect("key file");
    kamailio.ask("apiban.reload", &[]);
    // Nobody answers at that URL, so the request that needs a key fails.
    wait_until("a request", Duration::from_secs(15), || {
        kamailio.statistic("apiban", "fetch_errors") > 0
    });
    let status = kamailio.ask("apiban.status", &[]);
    assert_eq!(status["feed"]["state"], "starting", "{status}");
}

/// A pipe that nobody writes into.
fn pipe(dir: &Path, name: &str) -> String {
    let path = dir.join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    path.display().to_string()
}

#[test]
fn a_pipe_as_file_is_an_error_and_stops_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let trust = dir.path().join("trust");
    fs::write(&trust, "192.0.2.1\n").expect("trust file");
    let kamailio = Kamailio::builder()
        .param("trust_self", 0)
        .param("api_key_file", pipe(dir.path(), "key"))
        .param("trust_file", trust.display().to_string())
        .request_route("if (apiban_check()) { exit; }")
        .start();
    let status = kamailio.ask("apiban.status", &[]);
    assert_eq!(status["feed"]["state"], "unauthorized", "{status}");
    fs::remove_file(&trust).expect("trust file");
    pipe(dir.path(), "trust");
    let reload = || {
        let fault = kamailio
            .jsonrpc("apiban.reload", serde_json::json!([]))
            .expect_err("a reload with a pipe");
        assert_eq!(fault.code, 500, "{fault}");
        fault.text
    };
    assert!(reload().contains("key: it is not a regular file"));
    fs::remove_file(dir.path().join("key")).expect("the pipe");
    fs::write(dir.path().join("key"), "a-key-of-the-service\n").expect("key file");
    assert!(reload().contains("trust: it is not a regular file"));
    // The updater goes on: it ends a ban, and it ends with Kamailio.
    kamailio.ask("apiban.block", &["127.0.0.66", "1"]);
    wait_until("the end of the ban", Duration::from_secs(15), || {
        kamailio.statistic("apiban", "local_entries") == 0
    });
    assert_eq!(kamailio.verdict("192.0.2.1")["source"], "trusted");
    assert!(kamailio.stop().status.success());
}

/// Stops whoever opens a file until this is dropped, as the file system of a server that is gone does: the kernel asks
/// us for a permission that we do not give. Needs root.
struct Hanging(#[allow(dead_code, reason = "its end is what counts")] Fanotify);

impl Hanging {
    fn new(path: &Path) -> Hanging {
        let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC;
        let group = Fanotify::init(flags, EventFFlags::O_RDONLY).expect("fanotify, as root");
        group
            .mark(
                MarkFlags::FAN_MARK_ADD,
                MaskFlags::FAN_OPEN_PERM,
                nix::fcntl::AT_FDCWD,
                Some(path),
            )
            .expect("a mark");
        Hanging(group)
    }
}

#[test]
fn a_file_system_that_hangs_stops_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let (trust, key) = (dir.path().join("trust"), dir.path().join("key"));
    fs::write(&trust, "192.0.2.1\n").expect("trust file");
    fs::write(&key, "a-key-of-the-service\n").expect("key file");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("mode");
    let kamailio = Kamailio::builder()
        .param("trust_self", 0)
        .param("api_key_file", key.display().to_string())
        .param("api_url", "http://127.0.0.1:9/api")
        .param("trust_file", trust.display().to_string())
        .request_route("if (apiban_check()) { exit; }")
        .start();
    fs::write(&trust, "192.0.2.2\n").expect("trust file");
    for (path, name) in [(&trust, "trust_file"), (&key, "api_key_file")] {
        let hanging = Hanging::new(path);
        for _ in 0..2 {
            let fault = kamailio
                .jsonrpc("apiban.reload", serde_json::json!([]))
                .expect_err("a reload while the file system hangs");
            assert_eq!(fault.code, 500, "{fault}");
            assert!(fault.text.contains("does not answer"), "{fault}");
            assert!(fault.text.contains(&path.display().to_string()), "{fault}");
        }
        // The updater goes on: it ends a ban.
        kamailio.ask("apiban.block", &["127.0.0.66", "1"]);
        wait_until("the end of the ban", Duration::from_secs(15), || {
            kamailio.statistic("apiban", "local_entries") == 0
        });
        let line = format!("{name} {}: its file system does not answer", path.display());
        let log = kamailio.wait_for_log(&line, Duration::from_secs(15));
        assert_eq!(log.matches(&line).count(), 1, "{log}");
        let again = format!("{} can be read again", path.display());
        assert!(!log.contains(&again), "{log}");
        drop(hanging);
        kamailio.wait_for_log(&again, Duration::from_secs(15));
        if name == "trust_file" {
            wait_until("the new trust list", Duration::from_secs(15), || {
                kamailio.verdict("192.0.2.2")["source"] == "trusted"
            });
            assert_eq!(kamailio.verdict("192.0.2.1")["source"], "none");
        }
    }
    // At the end nobody waits for it either.
    let hanging = Hanging::new(&trust);
    kamailio
        .jsonrpc("apiban.reload", serde_json::json!([]))
        .expect_err("a reload while the file system hangs");
    let stopped = kamailio.stop();
    assert!(stopped.status.success(), "{}", stopped.log);
    drop(hanging);
}

#[test]
fn a_key_file_whose_file_system_hangs_costs_the_feed_and_nothing_else() {
    let dir = tempfile::tempdir().expect("directory");
    let key = dir.path().join("key");
    fs::write(&key, "a-key-of-the-service\n").expect("key file");
    let hanging = Hanging::new(&key);
    let kamailio = start_with_key_file(dir.path());
    drop(hanging);
    let status = kamailio.ask("apiban.status", &[]);
    assert_eq!(status["feed"]["state"], "unauthorized", "{status}");
    let error = only_error(&kamailio.log());
    assert!(
        error.contains("key: its file system does not answer"),
        "{error}"
    );
}

/// `kamailio -c` does not start anything, but says what the start would say.
#[test]
fn a_check_of_the_configuration_looks_into_the_files() {
    for release in Release::all() {
        let builder = || Kamailio::builder().release(&release);
        let bad = builder()
            .param("trust_file", "@DIR@/bad")
            .file("bad", "192.0.2.1\n192.0.2.300\n");
        let text = bad.check().expect_err("a bad trust file");
        let error = only_error(&text);
        assert!(error.contains("\"trust_file\""), "{error}");
        assert!(error.contains("/bad: line 2: \"192.0.2.300\""), "{error}");

        let missing = builder().param("api_key_file", "@DIR@/missing");
        let text = missing.check().expect("a missing key file ends no start");
        let error = only_error(&text);
        for part in ["api_key_file", "/missing: No such file", "the feed off"] {
            assert!(error.contains(part), "no {part:?} in {error}");
        }

        let good = builder()
            .param("trust", "192.0.2.10/24")
            .param("trust_file", "@DIR@/good")
            .param("api_key_file", "@DIR@/key")
            .file("good", "198.51.100.7 until=2999-12-31\n")
            .file("key", format!("{KEY}\n"));
        let text = good.check().expect("good files");
        assert!(
            text.contains("192.0.2.10/24 means the whole network 192.0.2.0/24"),
            "{text}"
        );
        assert!(!text.contains(KEY), "{text}");
    }
}

#[test]
fn trust_files_that_hold_no_list() {
    let with = |file: &str| Kamailio::builder().param("trust_file", format!("@DIR@/{file}"));
    refused_at_start(
        with("missing"),
        &["\"trust_file\"", "/missing: ", "No such file"],
    );
    refused_at_start(
        with("bad").file("bad", "# carriers\n192.0.2.1 # east\n\n192.0.2.300\n"),
        &[
            "\"trust_file\"",
            "/bad: line 4: \"192.0.2.300\"",
            "accepted: a file with one IP address or prefix a line",
        ],
    );
    refused_at_start(
        with("two").file("two", "192.0.2.1 192.0.2.2\n"),
        &["\"trust_file\"", "/two: line 1: ", "\"192.0.2.2\""],
    );
    refused_at_start(
        with("end").file("end", "\n192.0.2.1 until=2026-02-30\n"),
        &[
            "\"trust_file\"",
            "/end: line 2: \"until=2026-02-30\"",
            "until=YYYY-MM-DD",
        ],
    );
}

#[test]
fn parameters_that_contradict_each_other() {
    refused_at_start(
        Kamailio::builder()
            .param("api_key", KEY)
            .param("api_key_file", "@DIR@/key")
            .file("key", KEY),
        &[
            "\"api_key_file\"",
            "given together with api_key",
            "accepted: one of the two",
        ],
    );
    refused_at_start(
        Kamailio::builder()
            .param("api_version", 1)
            .param("dataset", "all"),
        &[
            "\"dataset\"",
            "value \"all\"",
            "accepted: sip, or api_version 2",
        ],
    );
}

#[test]
fn the_ends_of_every_range_serve() {
    let lowest = Kamailio::builder()
        .param("poll_interval", 1)
        .param("resync_interval", 0)
        .param("feed_ttl", 1)
        .param("rate_limit_requests", 1)
        .param("rate_limit_window", 1)
        .param("http_timeout", 1)
        .param("block_ttl", 1)
        .param("block_v6_prefix", 32)
        .param("max_feed_entries", 1)
        .param("max_local_entries", 1)
        .param("block_budget", 0)
        .param("feed_shrink_limit", 0)
        .param("socket_filter", 0)
        .param("enable_dmq", 0)
        .param("state_file", "")
        .param("trust", "")
        .param("api_key", "");
    let highest = Kamailio::builder()
        .param("poll_interval", 86_400)
        .param("resync_interval", 315_360_000)
        .param("feed_ttl", 315_360_000)
        .param("rate_limit_requests", 100_000)
        .param("rate_limit_window", 86_400)
        .param("http_timeout", 300)
        .param("block_ttl", 315_360_000)
        .param("block_v6_prefix", 128)
        .param("max_feed_entries", 16_777_216)
        .param("max_local_entries", 16_777_216)
        .param("block_budget", 1_000_000_000)
        .param("feed_shrink_limit", 100)
        .param("socket_filter", 1);
    for builder in [lowest, highest] {
        assert!(builder.clone().check().is_ok());
        let kamailio = builder.start();
        kamailio.assert_answered("127.0.0.5");
        assert!(kamailio.stop().status.success());
    }
}

#[test]
fn a_missing_state_directory_is_one_line_and_no_more() {
    let kamailio = Kamailio::builder()
        .param("state_file", "@DIR@/missing/apiban.state")
        .param("trust_self", 0)
        .request_route("if (apiban_check()) { exit; }")
        .start();
    kamailio.ask("apiban.block", &["127.0.0.66"]);
    kamailio.assert_dropped("127.0.0.66");
    let missing = kamailio.dir().join("missing");
    let stopped = kamailio.stop();
    assert!(stopped.status.success(), "{}", stopped.log);
    assert!(!missing.exists());
    let lines = module_lines(&stopped.log);
    let about: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("state_file"))
        .collect();
    assert_eq!(about.len(), 1, "{lines:#?}");
    assert!(about[0].contains("INFO: apiban"), "{about:?}");
    assert!(
        about[0].contains("/missing/apiban.state: the directory does not exist"),
        "{about:?}"
    );
}

/// A directory with a key file of this mode.
fn key_file(mode: u32) -> TempDir {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("key");
    fs::write(&path, format!("{KEY}\nsecond line\n")).expect("key file");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
    dir
}

fn start_with_key_file(dir: &Path) -> Kamailio {
    Kamailio::builder()
        .param("api_key_file", dir.join("key").display().to_string())
        // Nothing listens there: the tests never ask the real service.
        .param("api_url", "http://127.0.0.1:1/api")
        .start()
}

#[test]
fn a_key_file_that_everybody_can_read_is_worth_a_warning() {
    let dir = key_file(0o644);
    let kamailio = start_with_key_file(dir.path());
    let log = kamailio.module_log().join("\n");
    let warning = log.lines().find(|line| line.contains("WARNING: apiban"));
    let warning = warning.unwrap_or_else(|| panic!("no warning in {log}"));
    assert!(
        warning.contains("api_key_file") && warning.contains("(mode 644)"),
        "{warning}"
    );
    assert!(warning.contains("chmod o="), "{warning}");
    drop(kamailio);

    let dir = key_file(0o640);
    let kamailio = start_with_key_file(dir.path());
    let log = kamailio.module_log().join("\n");
    assert!(!log.contains("can be read by everybody"), "{log}");
    assert!(!kamailio.log().contains(KEY));
}

#[test]
fn without_a_key_the_feed_is_off_and_says_so() {
    let kamailio = Kamailio::builder().start();
    let status = kamailio.ask("apiban.status", &[]);
    assert_eq!(status["feed"]["state"], "disabled", "{status}");
    let log = kamailio.module_log().join("\n");
    assert!(log.contains("no api_key and no api_key_file"), "{log}");
}

#[test]
fn a_parameter_that_does_nothing_and_a_firewall_that_does_not_answer_are_named() {
    // Nobody listens there.
    let url = "http://127.0.0.1:1";
    let kamailio = Kamailio::builder()
        .param("firewall", "iptables-api")
        .param("firewall_url", url)
        .param("nft_hook", "input")
        .start();
    let missed = format!(
        "firewall iptables-api: {url}: Connection refused; tried again, at the latest every "
    );
    wait_until("the firewall is missed", SOON, || {
        kamailio.log().contains(&missed)
    });
    let status = kamailio.ask("apiban.status", &[]);
    assert_eq!(status["firewall"]["state"], "degraded", "{status}");
    let shown = status["firewall"]["last_error"].to_string();
    assert!(shown.contains(url), "{shown}");
    let log = kamailio.stop().log;
    let named = "parameter \"nft_hook\" does nothing without firewall \"nft\"";
    assert!(log.contains(named), "{log}");
    assert!(!log.contains("os error") && !shown.contains("os error"));
}
