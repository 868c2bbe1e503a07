//! The commands of operators, over kamcmd and JSON-RPC alike: bans and prefixes, faults that name the
//! argument, odd reasons.

use std::io::{Read, Write};
use std::net::TcpStream;

use apiban_testing::fed::{fed, service, LISTED};
use apiban_testing::kamailio::{is_aarch64, Builder, Fault, Kamailio, Release};
use apiban_testing::wait::SOON;
use serde_json::{json, Value};

/// Loopback is all that tests have, so it is not trusted.
fn untrusting() -> Builder {
    Kamailio::builder()
        .param("trust_self", 0)
        .request_route("if (apiban_check()) { exit; }")
}

/// The same fault over both transports.
#[track_caller]
fn fault(kamailio: &Kamailio, words: &[&str]) -> Fault {
    let binary = kamailio.kamcmd(words).expect_err("a fault over kamcmd");
    let json = kamailio
        .jsonrpc(words[0], json!(words[1..]))
        .expect_err("a fault over JSON-RPC");
    assert_eq!(binary, json, "{words:?}");
    json
}

#[test]
fn blocking_and_unblocking_over_both_transports() {
    for release in Release::all() {
        let kamailio = untrusting().release(&release).start();
        let say = |words: &[&str]| {
            kamailio
                .kamcmd(words)
                .unwrap_or_else(|f| panic!("{words:?}: {f}"))
        };
        assert_eq!(
            say(&["apiban.block", "127.0.0.66"]),
            "Ok. 127.0.0.66 is banned for 600 seconds.\n"
        );
        kamailio.assert_dropped("127.0.0.66");
        assert_eq!(
            say(&["apiban.block", "127.0.0.66", "700"]),
            "Ok. The ban of 127.0.0.66 now ends in 700 seconds.\n"
        );
        assert_eq!(
            say(&["apiban.block", "127.0.0.66", "30"]),
            "Ok. 127.0.0.66 was banned for longer already.\n"
        );
        let check = say(&["apiban.check", "127.0.0.66"]);
        for line in [
            "ip: 127.0.0.66",
            "banned: 1",
            "source: local",
            "hits: 1",
            "reason: rpc",
        ] {
            assert!(
                check.contains(line),
                "{line} in {}: {check}",
                release.name()
            );
        }
        assert_eq!(
            say(&["apiban.unblock", "127.0.0.66"]),
            "Ok. 127.0.0.66 is no longer banned.\n"
        );
        kamailio.assert_answered("127.0.0.66");

        // Over JSON-RPC numbers may be numbers or text.
        for arguments in [
            json!(["127.0.0.66", 60, "typed"]),
            json!(["127.0.0.66", "60", "text"]),
        ] {
            kamailio.jsonrpc("apiban.block", arguments).expect("a ban");
            kamailio.assert_dropped("127.0.0.66");
            kamailio.ask("apiban.unblock", &["127.0.0.66"]);
        }
        let unbanned = kamailio.verdict("127.0.0.66");
        assert_eq!(
            unbanned,
            json!({"ip": "127.0.0.66", "banned": 0, "source": "none", "expires": 0, "since": 0, "hits": 0, "reason": ""})
        );
    }
}

#[test]
fn prefixes_are_banned_and_lifted_as_a_whole() {
    let kamailio = untrusting().start();
    kamailio.ask("apiban.block", &["127.0.66.0/24", "60", "noisy"]);
    kamailio.ask("apiban.block", &["2001:db8::/48", "60"]);
    kamailio.assert_dropped("127.0.66.1");
    kamailio.assert_dropped("127.0.66.255");
    kamailio.assert_answered("127.0.67.1");
    let verdict = kamailio.verdict("127.0.66.9");
    assert_eq!(verdict["ip"], "127.0.66.9");
    assert_eq!(verdict["reason"], "127.0.66.0/24 noisy");
    assert_eq!(kamailio.verdict("2001:db8:0:ffff::1")["banned"], 1);
    let one = fault(&kamailio, &["apiban.unblock", "127.0.66.9"]);
    assert_eq!(one.code, 404, "{one}");
    // Host bits do not matter.
    kamailio.ask("apiban.unblock", &["127.0.66.77/24"]);
    kamailio.assert_answered("127.0.66.1");
    kamailio.ask("apiban.unblock", &["2001:db8::/48"]);
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 0);
}

#[test]
fn a_bad_argument_is_a_fault_that_names_it() {
    let kamailio = untrusting().param("trust", "192.0.2.0/24").start();
    for (words, name) in [
        (&["apiban.block"][..], "ip: missing"),
        (
            &["apiban.block", "carrier.example"],
            "ip: \"carrier.example\"",
        ),
        (
            &["apiban.block", "198.51.100.0/33"],
            "ip: \"198.51.100.0/33\"",
        ),
        (
            &["apiban.block", "198.0.0.0/8"],
            "ip: 198.0.0.0/8: prefix too wide",
        ),
        (&["apiban.block", "::/0"], "ip: ::/0: prefix too wide"),
        (&["apiban.block", "224.0.0.1"], "ip: 224.0.0.1: multicast"),
        (&["apiban.block", "198.51.100.1", "soon"], "ttl: \"soon\""),
        (
            &["apiban.block", "198.51.100.1", "0"],
            "ttl: \"0\" is not a number from 1 to 315360000",
        ),
        (
            &["apiban.block", "198.51.100.1", "315360001"],
            "ttl: \"315360001\"",
        ),
        (
            &["apiban.block", "198.51.100.1", "60", "a", "b"],
            "too many arguments: apiban.block takes 3",
        ),
        (&["apiban.unblock"], "ip: missing"),
        (&["apiban.unblock", "x"], "ip: \"x\""),
        (&["apiban.check"], "ip: missing"),
        (&["apiban.check", "198.51.100.0/33"], "ip: "),
        (
            &["apiban.list", "everything"],
            "source: \"everything\" is not feed, local, peer or all",
        ),
        (&["apiban.list", "all", "many"], "limit: \"many\""),
        (
            &["apiban.top", "101"],
            "n: \"101\" is not a number from 0 to 100",
        ),
        (&["apiban.flush"], "table: missing"),
        (
            &["apiban.flush", "all"],
            "table: \"all\" is not feed, local or peer",
        ),
        (
            &["apiban.reload", "please"],
            "force: \"please\" is not \"force\"",
        ),
        (
            &["apiban.status", "x"],
            "too many arguments: apiban.status takes 0",
        ),
    ] {
        let fault = fault(&kamailio, words);
        assert_eq!(fault.code, 400, "{words:?}: {fault}");
        assert!(fault.text.contains(name), "{words:?}: {fault}");
    }
    // kamcmd takes these for options of its own.
    for (method, arguments, name) in [
        ("apiban.block", json!(["198.51.100.1", -5]), "ttl: "),
        ("apiban.block", json!(["198.51.100.1", "-5"]), "ttl: \"-5\""),
        ("apiban.list", json!(["all", "1", "-1"]), "offset: \"-1\""),
    ] {
        let fault = kamailio.jsonrpc(method, arguments).expect_err(name);
        assert!(fault.code == 400 && fault.text.contains(name), "{fault}");
    }
    let trusted = fault(&kamailio, &["apiban.block", "192.0.2.7"]);
    assert_eq!(
        trusted,
        Fault {
            code: 403,
            text: "192.0.2.7 is trusted: trust 192.0.2.0/24".into()
        }
    );
    let wider = fault(&kamailio, &["apiban.block", "192.0.0.0/16"]);
    assert_eq!(
        wider,
        Fault {
            code: 403,
            text: "192.0.0.0/16 is trusted: trust 192.0.2.0/24".into()
        }
    );
    let unknown = fault(&kamailio, &["apiban.unblock", "198.51.100.1"]);
    assert_eq!(
        unknown,
        Fault {
            code: 404,
            text: "198.51.100.1 is not banned locally".into()
        }
    );
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 0);
}

/// JSON over HTTP: the result, or the fault's code and text.
fn post(kamailio: &Kamailio, method: &str, params: &Value) -> Result<Value, (i64, String)> {
    let body = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).to_string();
    let mut link = TcpStream::connect(kamailio.address()).expect("HTTP");
    let length = body.len();
    write!(
        link,
        "POST /RPC HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("a request");
    let mut text = String::new();
    let answer = loop {
        let mut bytes = [0; 8192];
        let count = link.read(&mut bytes).expect("an answer");
        assert!(count > 0, "the connection ended after {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        if let Some(answer) = text.split_once("\r\n\r\n").map(|(_, body)| body.trim()) {
            if let Ok(answer) = serde_json::from_str::<Value>(answer) {
                break answer;
            }
        }
    };
    match answer.get("error") {
        Some(error) => Err((
            error["code"].as_i64().unwrap_or(0),
            error["message"].as_str().unwrap_or_default().into(),
        )),
        None => Ok(answer["result"].clone()),
    }
}

/// What is neither text nor a number is refused by name wherever it stands; nothing is done then.
#[test]
fn an_argument_of_a_wrong_type_is_a_fault_that_names_it() {
    for release in Release::all() {
        let kamailio = untrusting()
            .release(&release)
            .load("xhttp")
            .routes("event_route[xhttp:request] { jsonrpc_dispatch(); }")
            .modparam("jsonrpcs", "transport", 5)
            .global("tcp_accept_no_cl=yes")
            .start();
        for (method, params, wrong) in [
            ("apiban.list", json!(["local", null, 2]), "limit:"),
            ("apiban.list", json!(["local", {"a": 1}]), "limit:"),
            ("apiban.list", json!(["local", [1]]), "limit:"),
            ("apiban.list", json!([true]), "source:"),
            ("apiban.block", json!(["192.0.2.1", "60", null]), "reason:"),
            ("apiban.block", json!(["192.0.2.1", true]), "ttl:"),
            ("apiban.block", json!([null, 60]), "ip:"),
            ("apiban.reload", json!([true]), "force:"),
            ("apiban.top", json!([5, false]), "too many arguments"),
        ] {
            let fault = kamailio.jsonrpc(method, params.clone()).unwrap_err();
            assert_eq!(fault.code, 400, "{method} {params}: {fault}");
            assert!(fault.text.starts_with(wrong), "{method} {params}: {fault}");
            let over_http = post(&kamailio, method, &params).unwrap_err();
            assert_eq!(over_http, (fault.code, fault.text), "{method} {params}");
        }
        // The number is quoted as it was given.
        for (params, quoted) in [
            (json!(["local", -5]), "\"-5\""),
            (json!(["local", 1, -1]), "\"-1\""),
        ] {
            let answer = kamailio.jsonrpc("apiban.list", params.clone());
            if is_aarch64() {
                // Kamailio converts it to an unsigned number there, which makes 0 of it.
                assert_eq!(answer, Ok(json!([])), "{params}");
                continue;
            }
            let fault = answer.unwrap_err();
            assert!(fault.text.contains(quoted), "{params}: {fault}");
        }
        // kamcmd makes a fraction of what looks like one.
        for (words, wrong) in [
            (&["apiban.block", "192.0.2.1", "60.5"][..], "ttl:"),
            (&["apiban.list", "local", "1.5", "2"], "limit:"),
            (&["apiban.list", "1.5", "2"], "source:"),
            (&["apiban.block", "10.1"], "ip:"),
        ] {
            let fault = kamailio.kamcmd(words).unwrap_err();
            assert_eq!(fault.code, 400, "{words:?}: {fault}");
            assert!(fault.text.starts_with(wrong), "{words:?}: {fault}");
        }
        assert_eq!(kamailio.statistic("apiban", "local_entries"), 0);
        // Two numbers after one another are two numbers.
        for ip in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            kamailio.ask("apiban.block", &[ip, "60"]);
        }
        let params = json!(["local", 2, 1]);
        let listed = kamailio.jsonrpc("apiban.list", params.clone()).unwrap();
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
        let all = kamailio.ask("apiban.list", &["local", "3"]);
        let over_http = post(&kamailio, "apiban.list", &params).unwrap();
        for n in 0..2 {
            assert_eq!(listed[n]["ip"], all[n + 1]["ip"]);
            assert_eq!(over_http[n]["ip"], all[n + 1]["ip"]);
        }
    }
}

#[test]
fn arguments_of_any_text_do_no_harm() {
    let kamailio = untrusting().start();
    for odd in [
        "%s%n%s%n",
        "\u{fc}\u{4e2d}\u{1f980}",
        "a\nb",
        "\\",
        "\"'`",
        &"9".repeat(300),
        "1e9",
        "-",
        "::1%lo",
    ] {
        for method in [
            "apiban.block",
            "apiban.check",
            "apiban.unblock",
            "apiban.list",
            "apiban.flush",
            "apiban.top",
            "apiban.reload",
        ] {
            let fault = kamailio.jsonrpc(method, json!([odd])).expect_err(odd);
            assert_eq!(fault.code, 400, "{method} {odd}: {fault}");
            assert!(fault.text.len() < 200, "{fault}");
        }
        let fault = kamailio
            .kamcmd(&["apiban.check", &format!("s:{odd}")])
            .expect_err(odd);
        assert_eq!(fault.code, 400, "{odd}: {fault}");
    }
    for typed in [
        json!([7]),
        json!([1.5]),
        json!([null]),
        json!([true]),
        json!([["x"]]),
        json!({"ip": 7}),
    ] {
        // Whatever the transport makes of it: no ban and no crash.
        let _ = kamailio.jsonrpc("apiban.block", typed);
    }
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 0);
    kamailio.assert_answered("127.0.0.5");
}

#[test]
fn reasons_come_back_as_they_were_given() {
    let kamailio = untrusting().start();
    let reasons = [
        "100% %s %n %d",
        "Gr\u{fc}\u{df}e \u{4e2d}\u{6587} \u{1f980}",
        "\"quoted\" \\ 'single' {json}",
        "a,b;c=<d>",
    ];
    for (host, reason) in reasons.iter().enumerate() {
        let ip = format!("192.0.2.{host}");
        kamailio.ask("apiban.block", &[&ip, "60", reason]);
        assert_eq!(kamailio.verdict(&ip)["reason"], **reason);
        let shown = kamailio.kamcmd(&["apiban.check", &ip]).expect("check");
        assert!(shown.contains(&format!("reason: {reason}")), "{shown}");
    }
    // A long one is cut at a character.
    kamailio.ask("apiban.block", &["192.0.2.99", "60", &"\u{fc}".repeat(400)]);
    let kept = kamailio.verdict("192.0.2.99")["reason"]
        .as_str()
        .expect("text")
        .to_owned();
    assert!(kept.len() <= 64 && kept.len() >= 40, "{kept}");
    assert!(kept.chars().all(|c| c == '\u{fc}'), "{kept}");
    assert!(!kamailio.log().contains("ERROR"), "{}", kamailio.log());
}

#[test]
fn flushing_empties_one_table() {
    let kamailio = untrusting().start();
    kamailio.ask("apiban.block", &["127.0.0.66"]);
    kamailio.ask("apiban.block", &["198.51.100.0/24"]);
    kamailio.assert_dropped("127.0.0.66");
    for (table, reply) in [("feed", 0), ("peer", 0), ("local", 2)] {
        let said = kamailio.ask("apiban.flush", &[table]);
        assert_eq!(said, format!("Ok. {reply} entries removed."), "{table}");
    }
    kamailio.assert_answered("127.0.0.66");
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 0);
}

#[test]
fn every_command_explains_itself() {
    let kamailio = untrusting().start();
    for name in [
        "reload", "status", "check", "block", "unblock", "list", "top", "flush",
    ] {
        let help = kamailio
            .kamcmd(&["help", &format!("apiban.{name}")])
            .expect("help");
        assert!(help.trim().ends_with('.'), "{name}: {help}");
    }
}

#[test]
fn a_prefix_can_be_asked_about() {
    let kamailio = untrusting().param("trust", "192.0.2.128/28").start();
    kamailio.ask("apiban.block", &["198.51.100.0/24", "600", "a network"]);
    kamailio.ask("apiban.block", &["203.0.113.7"]);
    kamailio.ask("apiban.block", &["203.0.113.9"]);
    let told = |ip: &str| {
        let verdict = kamailio.verdict(ip);
        let text = |name: &str| verdict[name].as_str().unwrap_or_default().to_owned();
        (text("ip"), text("source"), text("reason"))
    };
    let expected = |ip: &str, source: &str, reason: &str| {
        (ip.to_owned(), source.to_owned(), reason.to_owned())
    };
    for (ip, source, reason) in [
        ("198.51.100.0/24", "local", "a network"),
        ("198.51.100.64/26", "local", "198.51.100.0/24 a network"),
        ("198.51.0.0/16", "none", "1 ban inside"),
        ("203.0.113.0/24", "none", "2 bans inside"),
        ("203.0.112.0/24", "none", ""),
        ("192.0.2.128/28", "trusted", "trust 192.0.2.128/28"),
        ("192.0.2.0/24", "trusted", "trust 192.0.2.128/28"),
    ] {
        assert_eq!(told(ip), expected(ip, source, reason));
    }
}

/// An operator who lifts a ban learns what else bans the address, and the log says who did what.
#[test]
fn a_lift_names_what_is_left_and_the_log_has_each_step() {
    let service = service();
    service.list(&[LISTED]);
    let trust_file = tempfile::NamedTempFile::new().expect("a file");
    let path = trust_file.path().display().to_string();
    let kamailio = fed(&service).param("trust_file", path.as_str()).start();
    kamailio.wait_dropped(LISTED, SOON);
    let listed = fault(&kamailio, &["apiban.unblock", LISTED]);
    let cure = format!("add it to trust_file ({path}) and run apiban.reload");
    assert_eq!(
        listed.text,
        format!("{LISTED} is not banned locally; it is on APIBAN's list: {cure}")
    );
    kamailio.ask("apiban.block", &[LISTED, "3600", "ticket 4711"]);
    let lifted = kamailio.ask("apiban.unblock", &[LISTED]);
    assert_eq!(
        lifted,
        format!("Ok. The local ban of {LISTED} is lifted; it is on APIBAN's list: {cure}")
    );
    kamailio.ask("apiban.block", &["203.0.113.0/24"]);
    let covered = fault(&kamailio, &["apiban.unblock", "203.0.113.9"]);
    assert_eq!(
        covered.text,
        "203.0.113.9 is not banned locally; it is covered by the local ban 203.0.113.0/24: apiban.unblock 203.0.113.0/24"
    );
    kamailio.ask("apiban.flush", &["local"]);
    let log = kamailio.stop().log;
    for line in [
        "127.0.0.66 banned for 3600 s by RPC: ticket 4711",
        "127.0.0.66 unbanned by RPC",
        "203.0.113.0/24 banned for 600 s by RPC: rpc",
        "flush local: 1 bans removed by RPC",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

/// A reload that cannot read its files says so to whoever asked, and changes nothing.
#[test]
fn a_reload_with_a_bad_file_is_a_fault() {
    let folder = tempfile::TempDir::new().expect("directory");
    let path = folder.path().join("trust");
    std::fs::write(&path, "192.0.2.7\n").expect("a file");
    let kamailio = untrusting()
        .param("trust_file", path.display().to_string())
        .start();
    assert_eq!(kamailio.ask("apiban.reload", &[]), "Ok. Reload has begun.");
    std::fs::write(&path, "192.0.2.8\nno address\n").expect("a file");
    let bad = fault(&kamailio, &["apiban.reload"]);
    assert_eq!(bad.code, 500);
    for part in ["trust_file", "line 2", "nothing was changed"] {
        assert!(bad.text.contains(part), "{bad}");
    }
    std::fs::remove_file(&path).expect("removal");
    let missing = fault(&kamailio, &["apiban.reload", "force"]);
    assert!(
        missing.code == 500 && missing.text.contains("trust_file"),
        "{missing}"
    );
    assert_eq!(kamailio.verdict("192.0.2.7")["source"], "trusted");
    assert_eq!(kamailio.verdict("192.0.2.8")["source"], "none");
}

#[test]
fn the_status_says_how_long_ago_and_what_is_wrong() {
    let service = service();
    service.list(&[LISTED]);
    let kamailio = fed(&service).param("state_file", "").start();
    kamailio.wait_dropped(LISTED, SOON);
    assert_eq!(
        kamailio.ask("apiban.reload", &[]),
        "Ok. Reload has begun. (no trust_file is set)"
    );
    let status = kamailio.ask("apiban.status", &[]);
    let ago = status["feed"]["last_success_ago"].as_u64();
    assert!(ago.is_some_and(|ago| ago < 120), "{status}");
    assert!(status["feed"]["next_poll_in"].is_u64(), "{status}");
    assert_eq!(status["feed"]["control_id"], status["feed"]["id"]);
    assert_eq!(status["trust"]["last_error"], "");
    assert_eq!(status["state"]["last_error"], "");
}
