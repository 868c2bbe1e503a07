//! `event_route[apiban:...]` in a real Kamailio of every release: what the routes are told, what they can
//! do, and that nobody waits for them.

use std::io::Read;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::sip::Answer;
use apiban_testing::wait::{wait_until, SOON};

/// All four variables, in brackets that show where each begins and ends.
const SHOWN: &str = "<$apiban(ip)> <$apiban(source)> <$apiban(reason)> <$apiban(count)>";

/// The event routes with these names, each of which shows what it was told and then does more.
fn routes(names: &[&str], more: &str) -> String {
    let route = |name: &&str| {
        let show = format!("xlog(\"L_INFO\", \"told {name} {SHOWN}\\n\");");
        format!("event_route[apiban:{name}] {{\n{show}\n{more}\n}}\n")
    };
    names.iter().map(route).collect()
}

/// What the routes of this name were told so far, in order.
fn told(kamailio: &Kamailio, name: &str) -> Vec<String> {
    let mark = format!("told {name} ");
    let log = kamailio.log();
    log.lines()
        .filter_map(|line| Some(line.split_once(&mark)?.1.to_owned()))
        .collect()
}

#[track_caller]
fn wait_told(kamailio: &Kamailio, name: &str, what: &str) {
    wait_until(
        &format!("{name} {what} in:\n{}", kamailio.log()),
        SOON,
        || told(kamailio, name).iter().any(|told| told == what),
    );
}

fn events_process(kamailio: &Kamailio) -> Option<i32> {
    let found = kamailio.processes();
    let found = found.iter().find(|p| p.name == "APIBAN events");
    found.map(|p| p.pid)
}

/// Attackers come from loopback, an INVITE bans its source, and who is banned is told so.
fn server(release: &Release) -> Builder {
    Kamailio::builder()
        .release(release)
        .param("trust_self", 0)
        .request_route(
            r#"if (apiban_check()) { sl_send_reply("403", "Banned"); exit; }
if (is_method("INVITE")) { apiban_block("$si", "2", "an \"INVITE\" by $fU <$si>"); }
if (is_method("REGISTER")) { apiban_block(); }"#,
        )
}

#[test]
fn every_occasion_is_told_with_all_its_variables() {
    for release in Release::all() {
        let feed = FeedServer::start(Options::new("key")).unwrap();
        feed.list(&["198.51.100.7", "198.51.100.8", "127.0.0.66", "10.0.0.0/8"]);
        let kamailio = server(&release)
            .param("api_key", "key")
            .param("api_url", feed.url())
            .routes(&routes(&["block", "expired", "sync"], ""))
            .start();
        // Of the four listed, one is too wide to be banned.
        wait_told(&kamailio, "sync", "<> <feed> <> <3>");
        assert!(events_process(&kamailio).is_some());

        let mut attacker = kamailio.udp("127.1.0.1");
        assert_eq!(attacker.invite(), Answer::Status(200));
        let reason = "<an \"INVITE\" by sender <127.1.0.1>>";
        wait_told(
            &kamailio,
            "block",
            &format!("<127.1.0.1> <local> {reason} <0>"),
        );
        for _ in 0..3 {
            assert_eq!(attacker.options(), Answer::Status(403));
        }
        // The count is of the packets that met the ban.
        wait_told(
            &kamailio,
            "expired",
            &format!("<127.1.0.1> <local> {reason} <3>"),
        );

        let long = "y".repeat(200);
        let many = "ä".repeat(100);
        for (ip, reason, shown) in [
            (
                "2001:db8:1:2:3:4:5:6/64",
                "v6",
                "<2001:db8:1:2::/64> <local> <v6>".to_owned(),
            ),
            (
                "192.0.2.0/24",
                "50% \"off\"; $var(x) \\n 'q'",
                "<192.0.2.0/24> <local> <50% \"off\"; $var(x) \\n 'q'>".to_owned(),
            ),
            ("192.0.3.1", "", "<192.0.3.1> <local> <rpc>".to_owned()),
            (
                "192.0.3.2",
                &long,
                format!("<192.0.3.2> <local> <{}>", &long[..56]),
            ),
            (
                "192.0.3.3",
                &many,
                format!("<192.0.3.3> <local> <{}>", &many[..56]),
            ),
            (
                "2001:db8:1111:2222:3333:4444:5555:6666/127",
                &long,
                format!(
                    "<2001:db8:1111:2222:3333:4444:5555:6666/127> <local> <{}>",
                    &long[..56]
                ),
            ),
        ] {
            let words: &[&str] = if reason.is_empty() {
                &[ip, "600"]
            } else {
                &[ip, "600", reason]
            };
            kamailio.ask("apiban.block", words);
            wait_told(&kamailio, "block", &format!("{shown} <0>"));
        }
        assert_eq!(kamailio.udp("127.1.0.2").register(), Answer::Status(200));
        wait_told(&kamailio, "block", "<127.1.0.2> <local> <> <0>");
        // Lifting is no end by itself.
        kamailio.ask("apiban.unblock", &["192.0.3.1"]);
        assert_eq!(told(&kamailio, "block").len(), 8);
        feed.delist(&["198.51.100.8"]);
        kamailio.ask("apiban.reload", &["force"]);
        wait_told(&kamailio, "sync", "<> <feed> <> <2>");
        assert_eq!(told(&kamailio, "expired").len(), 1, "{}", kamailio.log());
        let stopped = kamailio.stop();
        assert!(stopped.status.success(), "{}", stopped.log);
    }
}

#[test]
fn functions_of_other_modules_work_in_the_routes() {
    for release in Release::all() {
        let kamailio = server(&release)
            .load("htable")
            .load("tmx")
            .load("rr")
            .load("uac")
            .modparam("uac", "restore_mode", "none")
            .modparam("htable", "htable", "bans=>size=8;autoexpire=60;")
            .routes(&routes(
                &["block"],
                r#"$sht(bans=>$apiban(ip)) = $apiban(reason);
xlog("L_INFO", "kept $(sht(bans=>$apiban(ip))) as $proto $rm, $(apiban(ip){s.len}) long\n");
if ($apiban(ip) =~ "^192\.0\.2\." && apiban_check("$apiban(ip)")) {
    xlog("L_INFO", "the ban is there: $rc\n");
    apiban_unblock("$apiban(ip)");
}
$uac_req(method) = "OPTIONS";
$uac_req(ruri) = "sip:127.0.0.1:@PORT@";
$uac_req(furi) = "sip:event@127.0.0.1";
$uac_req(turi) = "sip:event@127.0.0.1";
uac_req_send();"#,
            ))
            .start();
        kamailio.ask("apiban.block", &["192.0.2.1", "600", "scan"]);
        kamailio.wait_for_log("kept scan as", SOON);
        kamailio.wait_for_log("the ban is there: 2", SOON);
        wait_until("the lift by the route", SOON, || {
            kamailio.verdict("192.0.2.1")["banned"] == 0
        });
        let table = kamailio.kamcmd(&["htable.dump", "bans"]).unwrap();
        assert!(
            table.contains("192.0.2.1") && table.contains("scan"),
            "{table}"
        );
        // tm in that process sends a request of its own, which comes back to us and is answered.
        wait_until("the route's own request", SOON, || {
            kamailio.statistic("tmx", "UAC_transactions") >= 1
        });
        // Variables of one event are not those of the next.
        kamailio.ask("apiban.block", &["192.0.3.1", "600", "other"]);
        kamailio.wait_for_log("kept other as", SOON);
        let stopped = kamailio.stop();
        assert!(stopped.status.success(), "{}", stopped.log);
    }
}

#[test]
fn without_such_a_route_there_is_no_process_for_them() {
    for release in Release::all() {
        let kamailio = server(&release).start();
        let before = kamailio.processes().len();
        assert_eq!(events_process(&kamailio), None);
        kamailio.ask("apiban.block", &["192.0.2.1"]);
        drop(kamailio);
        let kamailio = server(&release).routes(&routes(&["expired"], "")).start();
        assert_eq!(kamailio.processes().len(), before + 1);
        // A route for one occasion is not called for another.
        kamailio.ask("apiban.block", &["192.0.2.1", "1"]);
        wait_told(&kamailio, "expired", "<192.0.2.1> <local> <rpc> <0>");
        assert_eq!(kamailio.log().matches("told ").count(), 1);
    }
}

#[test]
fn a_name_that_does_not_exist_is_an_error_at_the_start() {
    for release in Release::all() {
        for name in ["bogus", "", "IP"] {
            let more = format!("xlog(\"L_INFO\", \"$apiban({name})\\n\");");
            let log = server(&release)
                .routes(&routes(&["block"], &more))
                .expect_start_failure();
            let wanted = format!("$apiban({name}): unknown; there are ip, source, reason, count");
            assert!(name.is_empty() || log.contains(&wanted), "{log}");
        }
    }
}

#[test]
fn outside_of_such_a_route_the_variables_are_null() {
    let kamailio = Kamailio::builder()
        .request_route(&format!("xlog(\"L_INFO\", \"outside {SHOWN}\\n\");"))
        .start();
    kamailio.assert_answered("127.0.0.5");
    let null = "<<null>>";
    kamailio.wait_for_log(&format!("outside {null} {null} {null} {null}"), SOON);
}

#[test]
fn nobody_waits_for_a_slow_route() {
    let release = &Release::Host;
    let kamailio = server(release)
        .load("cfgutils")
        .routes(&routes(&["block"], "usleep(\"3000000\");"))
        .start();
    let banned = Instant::now();
    for n in 1..=50 {
        let mut attacker = kamailio.udp(format!("127.1.0.{n}").as_str());
        assert_eq!(attacker.invite(), Answer::Status(200));
        assert_eq!(attacker.options(), Answer::Status(403));
    }
    // The bans of two seconds end while the first route still sleeps: the updater goes on.
    wait_until("the end of the bans", SOON, || {
        kamailio.statistic("apiban", "local_entries") == 0
    });
    let took = banned.elapsed();
    println!(
        "50 bans came and ended in {took:?}, {} routes run",
        told(&kamailio, "block").len()
    );
    assert!(told(&kamailio, "block").len() < 25, "the routes were slow");
    // It ends in the middle of a route, too.
    let stopped = kamailio.stop();
    println!("stop with a route under way: {:?}", stopped.took);
    assert!(stopped.status.success(), "{}", stopped.log);
}

#[test]
fn events_that_nobody_takes_are_lost_and_one_line_says_so() {
    let kamailio = server(&Release::Host)
        .global("max_while_loops=100000")
        .param("block_budget", 0)
        .load("cfgutils")
        .request_route(
            r#"if (is_method("MESSAGE")) {
    $var(i) = 0;
    while ($var(i) < 20000) {
        $var(a) = $var(i) / 250; $var(b) = $var(i) mod 250;
        apiban_block("10.1.$var(a).$var(b)", "600", "flood");
        $var(i) = $var(i) + 1;
    }
}"#,
        )
        .routes(&routes(&["block"], "usleep(\"100000\");"))
        .start();
    let answer = kamailio.udp("127.0.0.5").request("MESSAGE").unwrap();
    assert_eq!(answer, Answer::Status(200));
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 20_000);
    kamailio.wait_for_log("event routes are too slow", SOON);
    let log = kamailio.log();
    assert_eq!(log.matches("event routes are too slow").count(), 1);
    // What came first was told first.
    let first = told(&kamailio, "block");
    assert_eq!(first[0], "<10.1.0.0> <local> <flood> <0>");
    kamailio.ask("apiban.unblock", &["10.1.0.0"]);
    assert!(kamailio.stop().status.success());
}

/// An event route has what a SIP worker has: what it sends over TCP arrives, with a connection and without.
#[test]
fn a_route_sends_over_tcp() {
    for release in Release::all() {
        let target = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = target.local_addr().unwrap().port();
        let kamailio = server(&release)
            .load("uac")
            .modparam("uac", "restore_mode", "none")
            .routes(&routes(
                &["block"],
                &format!(
                    r#"$uac_req(method) = "OPTIONS";
$uac_req(ruri) = "sip:127.0.0.1:{port};transport=tcp";
$uac_req(furi) = "sip:event@127.0.0.1";
$uac_req(turi) = "sip:" + $apiban(reason) + "@127.0.0.1";
uac_req_send();"#
                ),
            ))
            .start();
        let received = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&received);
        // Reads every connection to its end, which comes with Kamailio's.
        let reader = std::thread::spawn(move || {
            let (mut link, _) = target.accept().unwrap();
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = link.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                sink.lock().unwrap().push_str(&text);
            }
        });
        for n in 1..=5 {
            let (ip, reason) = (format!("192.0.2.{n}"), format!("ban{n}"));
            kamailio.ask("apiban.block", &[&ip, "600", &reason]);
            wait_until(&format!("{reason} over TCP"), SOON, || {
                received.lock().unwrap().contains(&format!("sip:{reason}@"))
            });
        }
        let log = kamailio.log();
        assert!(!log.contains("CRITICAL"), "{log}");
        assert!(kamailio.stop().status.success());
        reader.join().unwrap();
    }
}

/// What a route keeps in shared memory for its message is freed as after a SIP message.
#[test]
fn routes_leave_no_shared_memory_behind() {
    for release in Release::all() {
        let kamailio = server(&release)
            .param("block_budget", 0)
            .routes(&routes(
                &["block"],
                "$xavp(leak=>a) = \"0123456789012345678901234567890123456789\";\n\
                 $xavu(leak=>b) = \"0123456789\"; $xavi(leak=>c) = \"0123456789\";\n\
                 $avp(leak) = \"0123456789\";",
            ))
            .start();
        let mut banned = 0;
        // Fewer than wait for the process at most, so that none is lost on a busy machine.
        let mut ban_some = || {
            for _ in 0..100 {
                banned += 1;
                let ip = format!("10.1.{}.{}", banned / 250, banned % 250);
                kamailio.ask("apiban.block", &[&ip, "600"]);
                // No faster than the routes run: events that wait too long are lost.
                if banned % 50 == 0 {
                    let what = format!("{banned} routes");
                    wait_until(&what, SOON, || told(&kamailio, "block").len() == banned);
                }
            }
            kamailio.statistic("shmem", "used_size")
        };
        // What is made once is made by the first.
        let before = ban_some();
        let after = (0..10).map(|_| ban_some()).max().unwrap_or(0);
        let grown = after.saturating_sub(before);
        println!("{}: 1,000 routes, {grown} bytes", release.name());
        assert!(grown < 20_000, "{before} bytes, then {after}");
    }
}
