//! `apiban report`: the figures in words, as JSON, and as a page.

use std::fs;
use std::time::Duration;

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::kamailio::{Kamailio, Release};
use apiban_testing::netns::run;
use serde_json::{json, Value};

use super::mmdb;
use super::program::Program;

const KEY: &str = "sEcRet0123456789";

fn program() -> Program {
    let program = Program::new("trust_self = false\n");
    let mut listed: Vec<String> = (0..30).map(|n| format!("20.0.1.{n}")).collect();
    listed.extend((0..20).map(|n| format!("20.0.2.{n}")));
    listed.extend((0..50).map(|n| format!("20.{n}.9.1")));
    listed.push("2001:db8::7".into());
    program.hold(&listed);
    program
}

#[test]
fn the_figures_are_those_of_the_list() {
    let program = program();
    let json = program.run(&["report", "--json"]).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["listed"], 101);
    assert_eq!(json["new_since_yesterday"], 101);
    assert_eq!(
        json["networks_24"][0],
        serde_json::json!({"network": "20.0.1.0/24", "addresses": 30})
    );
    assert_eq!(
        json["networks_16"][0],
        serde_json::json!({"network": "20.0.0.0/16", "addresses": 51})
    );
    // 30, 20 and eight networks of one address, of 101.
    let share = json["top_ten_share"].as_f64().unwrap();
    assert!((share - 5800.0 / 101.0).abs() < 0.001, "{share}");
    let days = json["days"].as_array().unwrap();
    assert_eq!(days.len(), 7);
    let listed: u64 = days.iter().map(|day| day["listed"].as_u64().unwrap()).sum();
    assert_eq!(listed, 101);
    // The history remembers what the list no longer holds, and counts nothing twice.
    program.hold(&["192.0.2.1"]);
    let again = program.run(&["report"]).ok();
    assert!(again.starts_with("1 addresses listed at "), "{again}");
    let (now, ever) = again
        .split_once("Most active /16 networks ever")
        .expect("both");
    assert!(
        !now.contains("20.0.0.0/16") && ever.contains("20.0.0.0/16"),
        "{again}"
    );
    assert_eq!(program.run(&["report"]).ok(), again);
}

#[test]
fn the_page_stands_alone() {
    let program = program();
    let page = program.dir().join("report.html");
    let page_text = page.to_str().unwrap();
    assert_eq!(
        program
            .run(&["report", "--days", "30", "--html", page_text])
            .ok(),
        ""
    );
    let html = fs::read_to_string(&page).unwrap();
    for outside in ["<script", "http:", "https:", "url(", "@import", "src="] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("prefers-color-scheme:dark") && html.contains("20.0.1.0/24"));
    // 30 days, a bar each.
    let plot = html
        .split_once("<svg")
        .unwrap()
        .1
        .split_once("</svg>")
        .unwrap()
        .0;
    assert_eq!(plot.matches("<rect").count(), 30);
    let file = program.file(
        "plot.svg",
        &format!("<svg xmlns=\"http://www.w3.org/2000/svg\"{plot}</svg>"),
    );
    run("xmllint", &["--noout", file.to_str().unwrap()]);
}

#[test]
fn a_history_that_cannot_be_read_is_named() {
    let program = program();
    program.file("apiban.state.history", "{\"version\":7}");
    let refused = program.run(&["report"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused
            .err
            .contains("apiban.state.history: it is no history"),
        "{refused:?}"
    );
}

#[test]
fn who_of_the_list_hit_us_comes_from_the_state_file() {
    let program = Program::new("trust_self = false\n");
    let listed: Vec<String> = (0..30).map(|n| format!("20.0.1.{n}")).collect();
    program.hold_with_hits(&listed, |ip| match ip {
        "20.0.1.3" => 70_000,
        "20.0.1.9" => 12,
        _ => 0,
    });
    let json: Value = serde_json::from_str(&program.run(&["report", "--json"]).ok()).unwrap();
    assert_eq!(
        json["hit_us"],
        serde_json::json!({"addresses": 2, "packets": 70_012, "top": [
            {"ip": "20.0.1.3", "packets": 70_000}, {"ip": "20.0.1.9", "packets": 12}]})
    );
    let words = program.run(&["report"]).ok();
    assert!(
        words.contains("2 of them sent 70012 packets to this host:\n  20.0.1.3"),
        "{words}"
    );
    let page = program.dir().join("report.html");
    program
        .run(&["report", "--html", page.to_str().unwrap()])
        .ok();
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("<td>20.0.1.3</td><td>70000</td>"), "{html}");
}

#[test]
fn a_module_notes_who_hit_it() {
    for release in Release::all() {
        let folder = tempfile::tempdir_in(release.temp_dir()).unwrap();
        let state = folder.path().join("apiban.state");
        let service = FeedServer::start(Options::new(KEY)).unwrap();
        service.list(&["127.0.0.66", "127.0.0.67"]);
        let kamailio = Kamailio::builder()
            .release(&release)
            .param("api_key", KEY)
            .param("api_url", service.url())
            .param("trust_self", 0)
            .param("state_file", release.inside(&state).display().to_string())
            .request_route("if (apiban_check()) { exit; }")
            .start();
        kamailio.wait_dropped("127.0.0.66", Duration::from_secs(30));
        kamailio.stop();
        let program = Program::new("trust_self = false\n");
        let report = ["report", "--json", "--state-file", state.to_str().unwrap()];
        let json: Value = serde_json::from_str(&program.run(&report).ok()).unwrap();
        assert_eq!(
            (&json["listed"], &json["hit_us"]["addresses"]),
            (&2.into(), &1.into()),
            "{json}"
        );
        assert_eq!(json["hit_us"]["top"][0]["ip"], "127.0.0.66");
    }
}

#[test]
fn countries_and_operators_come_from_the_users_databases() {
    let program = program();
    let write = |name: &str, networks: &[(&str, u8, Value)]| {
        let path = program.dir().join(name);
        fs::write(&path, mmdb::database(networks)).unwrap();
        path.display().to_string()
    };
    let country =
        |code: &str, name: &str| json!({"country": {"iso_code": code, "names": {"en": name}}});
    let countries = write(
        "country.mmdb",
        &[
            ("20.0.1.0", 24, country("XA", "First & <b>Foremost</b>")),
            ("20.0.2.0", 24, country("XB", "Second")),
            ("2001:db8::", 32, country("XB", "Second")),
        ],
    );
    let operators = write(
        "asn.mmdb",
        &[(
            "20.0.0.0",
            14,
            json!({"autonomous_system_number": 64_500, "autonomous_system_organization": "Example Net"}),
        )],
    );
    let page = program.dir().join("report.html");
    let json = program
        .run(&[
            "report",
            "--json",
            "--geo",
            &countries,
            "--geo",
            &operators,
            "--html",
            page.to_str().unwrap(),
        ])
        .ok();
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        found["countries"],
        json!([
            {"name": "unknown", "addresses": 50},
            {"name": "XA First & <b>Foremost</b>", "addresses": 30},
            {"name": "XB Second", "addresses": 21},
        ])
    );
    // 20.0 to 20.3: 30, 20, and four of one address each.
    assert_eq!(
        found["operators"][0],
        json!({"name": "AS64500 Example Net", "addresses": 54})
    );
    let html = fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("XA First &amp; &lt;b&gt;Foremost&lt;/b&gt;"),
        "{html}"
    );
    let words = program.run(&["report", "--geo", &countries]).ok();
    assert!(
        words.contains("Countries:") && !words.contains("Operators:"),
        "{words}"
    );
    // One clear line for whatever is no such database.
    let good = fs::read(&countries).unwrap();
    let cut = program.dir().join("cut.mmdb");
    fs::write(&cut, &good[..good.len() / 2]).unwrap();
    let other = write("other.mmdb", &[("20.0.0.0", 8, json!({"city": "x"}))]);
    let mut damaged = good.clone();
    // The records of the first nodes lead out of the file.
    damaged[..600].fill(0x7f);
    let hurt = program.dir().join("hurt.mmdb");
    fs::write(&hurt, damaged).unwrap();
    for (path, says) in [
        ("/nonexistent.mmdb", "No such file or directory"),
        ("/etc/passwd", "it must be an MMDB file"),
        (cut.to_str().unwrap(), "it must be an MMDB file"),
        (&other, "no country and no operator"),
        (hurt.to_str().unwrap(), "hurt.mmdb"),
    ] {
        let refused = program.run(&["report", "--geo", path]);
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{refused:?}");
        let lines = refused.err.lines().count();
        assert!(refused.err.contains(says) && lines == 1, "{refused:?}");
    }
}
