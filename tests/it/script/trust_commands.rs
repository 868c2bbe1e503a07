//! Trust that an operator lends by `apiban.trust_add`, in every release.

use apiban_testing::kamailio::{Builder, Fault, Kamailio, Release};
use apiban_testing::wait::{wait_until, SOON};
use serde_json::{json, Value};
use tempfile::TempDir;

fn server(release: &Release) -> Builder {
    Kamailio::builder()
        .release(release)
        // Loopback is all that tests have, so it is not trusted as such.
        .param("trust_self", 0)
        .request_route("if (apiban_check() > 0) { exit; }")
}

fn rows(kamailio: &Kamailio) -> Vec<Value> {
    let rows = kamailio.ask("apiban.trust_list", &[]);
    rows.as_array().expect("rows").clone()
}

fn fault(kamailio: &Kamailio, method: &str, arguments: Value) -> Fault {
    kamailio
        .jsonrpc(method, arguments)
        .expect_err("a command that cannot be done")
}

#[test]
fn lent_trust_lifts_bans_and_is_listed() {
    for release in Release::all() {
        let kamailio = server(&release)
            .param("trust", "192.0.2.0/28")
            .param("trust_file", "@DIR@/trust")
            .file("trust", "# carriers\n203.0.113.9\n")
            .start();
        for banned in ["127.0.0.66", "127.0.8.0/24", "127.0.0.67"] {
            kamailio.ask("apiban.block", &[banned, "600"]);
            kamailio.ask("apiban.check", &[banned.split('/').next().unwrap()]);
        }
        kamailio.assert_dropped("127.0.0.66");
        kamailio.assert_dropped("127.0.8.7");
        let done = kamailio.ask("apiban.trust_add", &["127.0.0.66", "600", "ticket 12 %s"]);
        assert_eq!(done, "Ok. 127.0.0.66 is trusted for 600 seconds.");
        // In force with the answer.
        kamailio.assert_answered("127.0.0.66");
        let done = kamailio.ask("apiban.trust_add", &["127.0.8.7"]);
        assert_eq!(done, "Ok. 127.0.8.7 is trusted until apiban.trust_del.");
        kamailio.assert_answered("127.0.8.7");
        // The ban of its network goes with it.
        kamailio.wait_answered("127.0.8.8", SOON);
        kamailio.assert_dropped("127.0.0.67");
        let verdict = kamailio.verdict("127.0.0.66");
        assert_eq!(verdict["reason"], "trust_add: ticket 12 %s", "{verdict}");
        assert_eq!(kamailio.verdict("127.0.8.7")["reason"], "trust_add");
        let refused = fault(&kamailio, "apiban.block", json!(["127.0.0.66"]));
        assert_eq!(refused.code, 403, "{refused}");

        let rows = rows(&kamailio);
        let column =
            |name: &str| -> Vec<Value> { rows.iter().map(|row| row[name].clone()).collect() };
        assert_eq!(
            column("rule"),
            ["127.0.0.66", "127.0.8.7", "192.0.2.0/28", "203.0.113.9"]
        );
        assert_eq!(
            column("origin"),
            ["trust_add", "trust_add", "trust", "trust_file line 2"]
        );
        assert_eq!(column("comment"), ["ticket 12 %s", "", "", ""]);
        let left = rows[0]["expires"].as_u64().expect("seconds");
        assert!((500..=600).contains(&left), "{left}");
        assert!(rows[1..].iter().all(|row| row["expires"] == 0));
        let text = kamailio
            .kamcmd(&["apiban.trust_list", "1", "1"])
            .expect("kamcmd");
        assert!(
            text.contains("127.0.8.7") && !text.contains("127.0.0.66"),
            "{text}"
        );
        let status = kamailio.ask("apiban.status", &[]);
        assert_eq!(status["trust"]["prefixes"], 4, "{status}");
        assert_eq!(status["trust"]["automatic"], 0, "{status}");

        // A local ban does not come back, but a new one is possible.
        kamailio.ask("apiban.trust_del", &["127.0.0.66"]);
        wait_until("the trust to end", SOON, || {
            kamailio.verdict("127.0.0.66")["source"] == "none"
        });
        kamailio.ask("apiban.block", &["127.0.0.66"]);
        kamailio.assert_dropped("127.0.0.66");
    }
}

#[test]
fn lent_trust_survives_a_restart_and_ends_at_its_time() {
    for release in Release::all() {
        let folder = TempDir::new_in(release.temp_dir()).expect("directory");
        let state = release.inside(&folder.path().join("apiban.state"));
        let state = state.display().to_string();
        let start = || server(&release).param("state_file", state.as_str()).start();
        let kamailio = start();
        kamailio.ask("apiban.trust_add", &["127.0.0.66", "86400", "for a day"]);
        kamailio.ask("apiban.trust_add", &["2001:db8::/48"]);
        kamailio.stop();

        let kamailio = start();
        assert_eq!(
            kamailio.verdict("127.0.0.66")["reason"],
            "trust_add: for a day"
        );
        assert_eq!(kamailio.verdict("2001:db8::7")["reason"], "trust_add");
        // Renewed with an earlier end and another comment.
        kamailio.ask("apiban.trust_add", &["127.0.0.66", "2", "for a moment"]);
        assert_eq!(
            kamailio.verdict("127.0.0.66")["reason"],
            "trust_add: for a moment"
        );
        let line =
            "127.0.0.66 is no longer trusted, the time of apiban.trust_add is over: for a moment";
        let line = kamailio.wait_for_log(line, SOON);
        assert!(line.contains("NOTICE"), "{line}");
        wait_until("the trust to end", SOON, || rows(&kamailio).len() == 1);
        assert_eq!(kamailio.verdict("127.0.0.66")["source"], "none");
    }
}

#[test]
fn what_cannot_be_lent_is_a_fault_that_says_why() {
    let kamailio = server(&Release::Host).start();
    for (arguments, code, why) in [
        (json!([]), 400, "ip: missing"),
        (json!(["carrier.example"]), 400, "ip: \"carrier.example\""),
        (
            json!(["10.0.0.0/7"]),
            400,
            "ip: 10.0.0.0/7: a prefix shorter than /8",
        ),
        (json!(["2000::/15"]), 400, "a prefix shorter than /16"),
        (json!(["192.0.2.1", "soon"]), 400, "ttl: \"soon\""),
        (json!(["192.0.2.1", "315360001"]), 400, "ttl:"),
    ] {
        let fault = fault(&kamailio, "apiban.trust_add", arguments);
        assert_eq!(fault.code, code, "{fault}");
        assert!(fault.text.contains(why), "{fault}");
    }
    assert_eq!(
        kamailio
            .jsonrpc("apiban.trust_list", json!([]))
            .expect("rows"),
        json!([])
    );
    let missing = fault(&kamailio, "apiban.trust_del", json!(["192.0.2.1"]));
    assert_eq!(missing.code, 404, "{missing}");

    for n in 0..1_024u32 {
        let ip = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
        kamailio.ask("apiban.trust_add", &[&ip]);
    }
    let full = fault(&kamailio, "apiban.trust_add", json!(["192.0.2.1"]));
    assert_eq!(full.code, 507, "{full}");
    assert_eq!(kamailio.verdict("192.0.2.1")["source"], "none");
    // Taken back at once, before the updater has looked: nothing of it is left.
    kamailio.ask("apiban.trust_del", &["10.0.0.0"]);
    kamailio.ask("apiban.trust_add", &["192.0.2.1"]);
    kamailio.ask("apiban.trust_del", &["192.0.2.1"]);
    wait_until("the trust to end", SOON, || {
        kamailio.verdict("192.0.2.1")["source"] == "none"
    });
}
