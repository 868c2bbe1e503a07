//! A flood of forged sources against a script that bans whoever calls: the local table fills up and that
//! is all. What the feed lists stays banned, who is not banned is served, and nothing grows.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::forge::{source, Forger};
use apiban_testing::kamailio::{Builder, Kamailio};
use apiban_testing::netns::{elements, held, in_namespace, objects};
use apiban_testing::sip::{Answer, Sip};
use apiban_testing::veth::{server, Host, SERVER_V4};
use apiban_testing::wait::{wait_until, SOON};
use serde_json::json;

/// As many as a forger sends in a second or two.
const SOURCES: u32 = 100_000;
/// Packets on their way at once: what the receive buffers of Kamailio's socket surely hold.
const IN_FLIGHT: u32 = 200;

/// Who is banned gets 403; an INVITE is banned without an answer, which would go to the wrong host.
fn banning() -> Builder {
    server().param("firewall", "nft").request_route(
        r#"if (apiban_check()) { sl_send_reply("403", "Banned"); exit; }
if (is_method("INVITE")) { apiban_block(); exit; }"#,
    )
}

/// The memory that its processes have each for themselves, in KiB.
fn own_memory(kamailio: &Kamailio) -> u64 {
    let of = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    kamailio.processes().iter().map(|p| of(p.pid)).sum()
}

/// Median round trip of somebody who is neither banned nor trusted.
fn round_trip(client: &mut Sip) -> Duration {
    let mut times: Vec<_> = (0..500)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(client.options(), Answer::Status(200));
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// A state that lasts is told in one line, however many packets meet it, and little else is.
#[track_caller]
fn assert_told_once(kamailio: &Kamailio, text: &str) {
    kamailio.wait_for_log(text, SOON);
    let log = kamailio.log();
    let lines: Vec<_> = log.lines().filter(|l| l.contains(": apiban [")).collect();
    assert_eq!(log.matches(text).count(), 1, "{lines:#?}");
    assert!(lines.len() < 20, "{lines:#?}");
}

#[test]
fn forged_packets_fill_the_local_table_and_nft_and_nothing_else() {
    in_namespace(|| {
        let host = Host::connect();
        let feed = FeedServer::start(Options::new("key")).unwrap();
        let listed: Vec<String> = (0..1000)
            .map(|n| format!("198.51.{}.{}", n / 200, n % 200))
            .chain(["10.9.0.5".to_owned()])
            .collect();
        feed.list(&listed);
        let capacity = 20_000;
        let kamailio = banning()
            .param("api_key", "key")
            .param("api_url", feed.url())
            .param("max_local_entries", capacity)
            .param("block_budget", 0)
            // In the kernel the feed is enough for this: who is banned here shall reach the check.
            .param("firewall_scope", "feed")
            .start();
        wait_until("the feed", SOON, || {
            held("hosts4", "10.9.0.5").is_some()
                && kamailio.statistic("apiban", "feed_entries") == 1001
        });
        let mut client = host.udp("10.9.0.3", &kamailio);
        round_trip(&mut client);
        let before = (round_trip(&mut client), own_memory(&kamailio));

        let to = SocketAddrV4::new(SERVER_V4.parse().unwrap(), kamailio.port());
        let text = client.text("INVITE", "forged");
        let forger = host.run(move || Forger::new(to));
        let received = || kamailio.statistic("core", "rcv_requests");
        let start = received();
        let flood = |numbers: std::ops::Range<u32>| {
            let begin = Instant::now();
            for number in numbers.clone() {
                forger.send(source(number), &text);
                let sent = u64::from(number) + 1;
                if sent % u64::from(IN_FLIGHT) == 0 {
                    wait_until("the packets to arrive", SOON, || received() >= start + sent);
                }
            }
            println!("{} packets in {:?}", numbers.len(), begin.elapsed());
        };
        flood(0..2 * capacity as u32);
        let full = own_memory(&kamailio);
        assert_eq!(
            kamailio.statistic("apiban", "local_entries"),
            capacity as u64
        );
        flood(2 * capacity as u32..SOURCES);

        assert_eq!(
            kamailio.statistic("apiban", "local_entries"),
            capacity as u64
        );
        let refused = u64::from(SOURCES) - capacity as u64;
        assert_eq!(kamailio.statistic("apiban", "block_refused"), refused);
        let after = (round_trip(&mut client), own_memory(&kamailio));
        println!("round trip: {:?} before, {:?} after", before.0, after.0);
        println!(
            "own memory of all processes: {} KiB before, {full} full, {} after",
            before.1, after.1
        );
        assert!(after.0 < before.0 * 5, "{before:?} {after:?}");
        assert!(after.1 < full + 8192, "{before:?} {full} {after:?}");
        assert_told_once(&kamailio, "the local table is full");

        // The feed is what it was, in the table and in the kernel.
        assert_eq!(kamailio.statistic("apiban", "feed_entries"), 1001);
        assert_eq!(elements("hosts4").len(), 1001);
        let verdict = kamailio.verdict("198.51.3.7");
        assert_eq!(verdict["source"], "feed");
        // First come, first banned: nobody was pushed out.
        let verdict = kamailio.verdict("11.0.0.0");
        assert_eq!(verdict["source"], "local");
        let fault = kamailio.jsonrpc("apiban.block", json!(["192.0.2.7"]));
        assert_eq!(fault.unwrap_err().code, 507);
        // Room for one is used by one, and the updater is still at work.
        kamailio.ask("apiban.unblock", &["11.0.0.0"]);
        kamailio.ask("apiban.block", &["192.0.2.7", "2"]);
        wait_until("the end of a ban", SOON, || {
            kamailio.statistic("apiban", "local_entries") == capacity as u64 - 1
        });
        assert!(kamailio.stop().status.success());
    });
}

/// A MESSAGE makes its worker ban this many addresses of both families, and count what came of it.
fn loops(times: u32) -> String {
    format!(
        r#"if (is_method("MESSAGE")) {{
    $var(i) = 0; $var(done) = 0; $var(full) = 0; $var(budget) = 0; $var(other) = 0;
    while ($var(i) < {times}) {{
        $var(a) = $var(i) / 1000; $var(b) = $var(i) mod 1000 / 4; $var(c) = $var(i) mod 4;
        if ($var(c) == 0) {{
            $var(ip) = "2001:db8:" + $var(a) + ":" + $var(b) + "::1";
        }} else {{
            $var(ip) = "10." + $var(a) + "." + $var(b) + "." + $var(c);
        }}
        apiban_block("$var(ip)", "$ua", "one of many");
        switch ($rc) {{
            case 1: $var(done) = $var(done) + 1; break;
            case -4: $var(full) = $var(full) + 1; break;
            case -5: $var(budget) = $var(budget) + 1; break;
            default: $var(other) = $var(other) + 1;
        }}
        $var(i) = $var(i) + 1;
    }}
    xlog("L_INFO", "came of it: $var(done) $var(full) $var(budget) $var(other)\n");
}}"#
    )
}

/// Bans in a loop for `ttl` seconds each: banned, full, over budget, other.
fn ban_in_a_loop(kamailio: &Kamailio, ttl: u32) -> [u32; 4] {
    let mark = "came of it: ";
    let before = kamailio.log().matches(mark).count();
    let mut sip = kamailio.udp("127.0.0.9").with_deadline(SOON);
    let text = sip.text("MESSAGE", &format!("loop-{before}"));
    let begin = Instant::now();
    let answer = sip.raw(text.replace("apiban-test", &ttl.to_string()).as_bytes());
    let took = begin.elapsed();
    assert_eq!(answer, Answer::Status(200));
    let log = kamailio.log();
    let line = log
        .lines()
        .filter_map(|line| line.split_once(mark))
        .next_back();
    let counts: Vec<u32> = line
        .expect("the counts")
        .1
        .split_whitespace()
        .map(|count| count.parse().unwrap())
        .collect();
    println!("loop in {took:?}: {counts:?}");
    counts.try_into().unwrap()
}

#[test]
fn a_script_that_bans_without_end_fills_table_and_nft_and_they_empty_again() {
    in_namespace(|| {
        let kamailio = Kamailio::builder()
            .global("max_while_loops=1000000")
            .param("firewall", "nft")
            .param("block_budget", 0)
            .request_route(&loops(SOURCES))
            .start();
        wait_until("the table", SOON, || !objects("rule").is_empty());
        let [done, full, ..] = ban_in_a_loop(&kamailio, 600);
        let began = Instant::now();
        // The default of max_local_entries.
        assert_eq!((done, full), (65_536, SOURCES - 65_536));
        // Asked first, as nft takes seconds to list them.
        wait_until("an empty queue", SOON, || {
            let firewall = &kamailio.ask("apiban.status", &[])["firewall"];
            firewall["queued"] == 0 && firewall["state"] == "ok"
        });
        println!("65,536 bans in the kernel after {:?}", began.elapsed());
        let count = || elements("hosts4").len() + held_networks();
        wait_until("all of them in the kernel", SOON, || count() == 65_536);
        assert_told_once(&kamailio, "the local table is full");
        let begin = Instant::now();
        kamailio.ask("apiban.flush", &["local"]);
        wait_until("an empty kernel", SOON, || count() == 0);
        println!("flushed after {:?}", begin.elapsed());
        // Bans that end all at once, in the table as in the kernel; some do while others still come.
        let [done, full, ..] = ban_in_a_loop(&kamailio, 5);
        assert!(done >= 65_536 && done + full == SOURCES, "{done} {full}");
        wait_until("the end of all bans", SOON, || {
            kamailio.statistic("apiban", "local_entries") == 0
        });
        wait_until("the end of all bans in the kernel", SOON, || count() == 0);
        let stopped = kamailio.stop();
        println!("stop: {:?}", stopped.took);
        assert!(stopped.status.success(), "{}", stopped.log);
    });
}

/// How many IPv6 networks the kernel holds.
fn held_networks() -> usize {
    let known = objects("set").iter().any(|set| set["name"] == "nets6_64");
    if known {
        elements("nets6_64").len()
    } else {
        0
    }
}

#[test]
fn the_budget_bounds_what_a_script_bans() {
    let kamailio = Kamailio::builder()
        .global("max_while_loops=1000000")
        .param("block_budget", 250)
        .request_route(&loops(10_000))
        .start();
    let [done, full, over, other] = ban_in_a_loop(&kamailio, 600);
    assert_eq!((full, other), (0, 0));
    assert_eq!(done + over, 10_000);
    // A minute may end in the middle.
    assert!([250, 500].contains(&done), "{done}");
    assert_eq!(
        kamailio.statistic("apiban", "block_refused"),
        u64::from(over)
    );
    // The same addresses again are no new ones; an operator has no budget.
    let [again, ..] = ban_in_a_loop(&kamailio, 900);
    assert!(again >= done, "{again}");
    kamailio.ask("apiban.block", &["192.0.2.7"]);
    assert_told_once(&kamailio, "as many as block_budget allows");
}
