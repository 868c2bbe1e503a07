//! What operators can read: long lists in pages, those who come most, and the statistics in every way.

use apiban_testing::kamailio::{Builder, Kamailio, Release};
use serde_json::{json, Value};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// Loopback is all that tests have, so it is not trusted.
fn untrusting() -> Builder {
    Kamailio::builder()
        .param("trust_self", 0)
        .request_route("if (apiban_check()) { exit; }")
}

/// Bans `count` addresses of 10.0.0.0/16 with one transaction each.
fn fill(kamailio: &Kamailio, count: usize) {
    for number in 0..count {
        let ip = format!("10.0.{}.{}", number / 200, number % 200);
        kamailio.ask(
            "apiban.block",
            &[&ip, "600", "filled by a test with a reason of some length"],
        );
    }
}

fn ips(list: &Value) -> Vec<String> {
    let rows = list.as_array().expect("a list");
    rows.iter()
        .filter_map(|row| Some(row["ip"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn a_long_list_comes_in_pages_and_says_where_it_was_cut() {
    let kamailio = untrusting().start();
    fill(&kamailio, 600);
    assert_eq!(ips(&kamailio.ask("apiban.list", &[])).len(), 100);
    assert_eq!(ips(&kamailio.ask("apiban.list", &["local", "7"])).len(), 7);
    assert_eq!(ips(&kamailio.ask("apiban.list", &["feed"])).len(), 0);
    assert_eq!(ips(&kamailio.ask("apiban.list", &["all", "0"])).len(), 0);

    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let page = kamailio.ask("apiban.list", &["all", "1000", &offset.to_string()]);
        all.extend(ips(&page));
        let last = page.as_array().and_then(|rows| rows.last()).expect("rows");
        let Some(next) = last["next_offset"].as_u64() else {
            break;
        };
        assert_eq!(last["total"], 600, "{last}");
        assert!(
            last["cut"].as_str().expect("a note").contains("at most"),
            "{last}"
        );
        assert_eq!(next, all.len() as u64);
        offset = next;
    }
    assert_eq!(all.len(), 600);
    all.dedup();
    assert_eq!(all.len(), 600);
    assert_eq!(all.first().map(String::as_str), Some("10.0.0.0"));

    // The old way carries as much.
    let text = kamailio
        .kamcmd(&["apiban.list", "all", "1000"])
        .expect("a list");
    assert_eq!(
        text.matches("ip: 10.0.").count() + text.matches("next_offset: ").count(),
        251,
        "{text}"
    );
    assert_eq!(
        ips(&kamailio.ask("apiban.list", &["all", "1000", "590"])).len(),
        10
    );
    assert_eq!(
        ips(&kamailio.ask("apiban.list", &["all", "1000", "4000000000"])).len(),
        0
    );
}

#[test]
fn top_shows_who_comes_most() {
    let kamailio = untrusting().start();
    for ip in ["127.0.0.66", "127.0.0.67", "127.0.9.1", "2001:db8::1"] {
        kamailio.ask("apiban.block", &[ip, "60"]);
    }
    for (ip, times) in [("127.0.0.67", 3), ("127.0.0.66", 1)] {
        for _ in 0..times {
            kamailio.assert_dropped(ip);
        }
    }
    let top = kamailio.ask("apiban.top", &[]);
    let rows = top.as_array().expect("rows");
    assert_eq!(
        (rows[0]["ip"].clone(), rows[0]["hits"].clone()),
        (json!("127.0.0.67"), json!(3)),
        "{top}"
    );
    assert_eq!(
        (rows[1]["ip"].clone(), rows[1]["hits"].clone()),
        (json!("127.0.0.66"), json!(1)),
        "{top}"
    );
    let networks: Vec<(String, u64)> = rows
        .iter()
        .filter_map(|row| Some((row["network"].as_str()?.to_owned(), row["banned"].as_u64()?)))
        .collect();
    let expected = [
        ("127.0.0.0/24", 2),
        ("127.0.9.0/24", 1),
        ("2001:db8::/64", 1),
    ];
    assert_eq!(
        networks,
        expected.map(|(net, count)| (net.to_owned(), count)),
        "{top}"
    );
    assert_eq!(
        kamailio
            .ask("apiban.top", &["1"])
            .as_array()
            .expect("rows")
            .len(),
        2
    );
    assert!(kamailio
        .kamcmd(&["apiban.top", "1"])
        .expect("top")
        .contains("127.0.0.67"));
}

const STATISTICS: [&str; 15] = [
    "checks",
    "blocked_feed",
    "blocked_local",
    "blocked_peer",
    "feed_entries",
    "local_entries",
    "peer_entries",
    "feed_age",
    "fetch_ok",
    "fetch_errors",
    "rate_limited",
    "trusted_skips",
    "block_refused",
    "firewall_errors",
    "filter_drops",
];

#[test]
fn statistics_can_be_read_in_every_way() {
    for release in Release::all() {
        let kamailio = untrusting()
            .release(&release)
            .load("xhttp")
            .load("xhttp_prom")
            .modparam("xhttp_prom", "xhttp_prom_stats", "apiban:")
            .global("tcp_accept_no_cl=yes")
            .routes("event_route[xhttp:request] { prom_dispatch(); }")
            .start();
        kamailio.ask("apiban.block", &["127.0.0.66"]);
        kamailio.assert_dropped("127.0.0.66");
        let fetched = kamailio.ask("stats.fetch", &["apiban:"]);
        let listed = kamailio.ask("stats.get_statistics", &["apiban:"]);
        let listed: Vec<&str> = listed
            .as_array()
            .expect("lines")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let shown = kamailio
            .kamcmd(&["stats.get_statistics", "apiban:"])
            .expect("statistics");
        let scraped = scrape(&kamailio);
        for name in STATISTICS {
            assert!(
                !fetched[format!("apiban.{name}")].is_null(),
                "{name}: {fetched}"
            );
            let line = format!("apiban:{name} = ");
            assert!(
                listed.iter().any(|l| l.starts_with(&line)),
                "{name}: {listed:?}"
            );
            assert!(shown.contains(&line), "{name}: {shown}");
            assert!(
                scraped.contains(&format!("kamailio_apiban_{name} ")),
                "{name}: {scraped}"
            );
        }
        assert_eq!(
            kamailio.statistic("apiban", "blocked_local"),
            1,
            "{}",
            release.name()
        );
        assert!(
            scraped.contains("kamailio_apiban_local_entries 1 "),
            "{scraped}"
        );
        assert!(
            scraped.contains("kamailio_apiban_blocked_local 1 "),
            "{scraped}"
        );
        let one = kamailio
            .kamcmd(&["stats.get_statistics", "blocked_local"])
            .expect("one");
        assert!(one.contains("apiban:blocked_local = 1"), "{one}");
    }
}

/// What Prometheus would see.
fn scrape(kamailio: &Kamailio) -> String {
    let mut http = TcpStream::connect(kamailio.address()).expect("connection");
    http.set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .expect("timeout");
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nVia: HTTP/1.1 127.0.0.1\r\nConnection: close\r\n\r\n")
        .expect("request");
    let mut text = String::new();
    let mut chunk = [0; 4096];
    // Kamailio may leave the connection open: the last statistic's line is the end.
    while !text.contains("_filter_drops ") || !text.ends_with('\n') {
        match http.read(&mut chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(length) => text.push_str(&String::from_utf8_lossy(&chunk[..length])),
        }
    }
    text
}
