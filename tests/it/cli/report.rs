//! `apiban report`: the figures in words, as JSON, and as a page.

use std::fs;

use apiban_testing::netns::run;
use serde_json::Value;

use super::program::Program;

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
