//! `apiban_check()` in every route that Kamailio has: the right source address, the right return code.

use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::ports::has_ipv6;
use apiban_testing::script::show;
use apiban_testing::sip::Answer;
use apiban_testing::wait::SOON;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread::JoinHandle;
use std::time::Duration;

const BANNED: &str = "127.0.0.66";
const CLEAR: &str = "127.0.0.5";
/// The address of the server that requests are relayed to.
const CALLEE: &str = "127.0.0.77";

/// Loopback is all that tests have, so it is not trusted.
fn untrusting() -> Builder {
    Kamailio::builder().param("trust_self", 0)
}

fn ban(kamailio: &Kamailio, ip: &str) {
    kamailio.ask("apiban.block", &[ip, "60"]);
}

/// A SIP server that answers its first request with 486.
fn busy_callee(socket: UdpSocket) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut datagram = [0; 65_536];
        socket.set_read_timeout(Some(SOON)).expect("timeout");
        let (length, from) = loop {
            match socket.recv_from(&mut datagram) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.expect("a request"),
            }
        };
        let request = String::from_utf8_lossy(&datagram[..length]).into_owned();
        let mut reply = String::from("SIP/2.0 486 Busy Here\r\n");
        for line in request.lines() {
            let copied = ["Via:", "From:", "Call-ID:", "CSeq:"];
            if copied.iter().any(|name| line.starts_with(name)) {
                reply.push_str(&format!("{line}\r\n"));
            } else if line.starts_with("To:") {
                reply.push_str(&format!("{line};tag=callee\r\n"));
            }
        }
        reply.push_str("Content-Length: 0\r\n\r\n");
        socket.send_to(reply.as_bytes(), from).expect("reply");
    })
}

/// A proxy for one callee that shows what the check says in each route.
fn proxy(release: &Release, callee: &UdpSocket) -> Kamailio {
    let to = callee.local_addr().expect("address");
    let request = format!(
        "{} t_on_branch(\"OUT\"); t_on_reply(\"IN\"); t_on_failure(\"FAILED\");\n\
         $du = \"sip:{to}\"; t_relay(); exit;",
        show("request_route", "apiban_check()")
    );
    let routes = [
        ("branch_route[OUT]", "branch_route", ""),
        ("onreply_route[IN]", "onreply_route", ""),
        (
            "failure_route[FAILED]",
            "failure_route",
            "t_reply(\"480\", \"Gone\");",
        ),
        ("reply_route", "reply_route", ""),
        ("onsend_route", "onsend_route", ""),
        ("event_route[core:pre-routing]", "pre-routing", ""),
    ];
    let routes: String = routes
        .iter()
        .map(|(head, name, then)| {
            format!("{head} {{\n{}{then}\n}}\n", show(name, "apiban_check()"))
        })
        .collect();
    untrusting()
        .release(release)
        .request_route(&request)
        .routes(&routes)
        .start()
}

#[test]
fn the_routes_of_a_relayed_request_see_the_source_of_their_own_message() {
    for release in Release::all() {
        for banned in [BANNED, CALLEE] {
            let socket = UdpSocket::bind((CALLEE, 0)).expect("callee");
            let kamailio = proxy(&release, &socket);
            ban(&kamailio, banned);
            let callee = busy_callee(socket);
            let answer = kamailio.udp(BANNED).request("MESSAGE").expect("an answer");
            callee.join().expect("callee");
            assert_eq!(answer, Answer::Status(480), "{}", kamailio.log());

            let (of_request, of_reply) = if banned == BANNED { (2, -1) } else { (-1, 2) };
            // The first run of onsend_route and of pre-routing belongs to the request.
            for name in [
                "request_route",
                "branch_route",
                "failure_route",
                "onsend_route",
                "pre-routing",
            ] {
                assert_eq!(
                    kamailio.codes(name)[0],
                    of_request,
                    "{name}: {}",
                    kamailio.log()
                );
            }
            for name in ["reply_route", "onreply_route"] {
                assert_eq!(kamailio.code(name), of_reply, "{name}: {}", kamailio.log());
            }
            assert_eq!(kamailio.codes("pre-routing"), [of_request, of_reply]);
        }
    }
}

#[test]
fn before_parsing_a_banned_source_is_dropped_on_every_transport() {
    for release in Release::all() {
        let before = "event_route[core:msg-received] { if (apiban_check()) { drop; } }";
        let kamailio = untrusting()
            .release(&release)
            .tls()
            .global("received_route_mode=1")
            .routes(before)
            .start();
        ban(&kamailio, BANNED);
        kamailio.assert_dropped(BANNED);
        assert!(
            kamailio.drops_on(&mut kamailio.tcp(BANNED)),
            "{}",
            release.name()
        );
        assert!(
            kamailio.drops_on(&mut kamailio.tls(BANNED)),
            "{}",
            release.name()
        );
        for mut sip in [
            kamailio.udp(CLEAR),
            kamailio.tcp(CLEAR),
            kamailio.tls(CLEAR),
        ] {
            assert_eq!(sip.options(), Answer::Status(200), "{}", release.name());
        }
        // Three packets were dropped, and every packet was checked: those of the control, too.
        assert_eq!(kamailio.statistic("apiban", "blocked_local"), 3);
        assert!(kamailio.statistic("apiban", "checks") >= 9);
        let hits = kamailio.verdict(BANNED)["hits"].clone();
        assert_eq!(hits, 3, "{}", release.name());
    }
}

#[test]
fn before_parsing_raw_data_is_checked_as_well() {
    // From 6.1 on the route runs for what was read, too; before, any mode but 0 is the same.
    for release in Release::all() {
        let before = "event_route[core:msg-received] { if (apiban_check()) { drop; } }";
        let kamailio = untrusting()
            .release(&release)
            .tls()
            .global("received_route_mode=3")
            .routes(before)
            .start();
        ban(&kamailio, BANNED);
        kamailio.assert_dropped(BANNED);
        assert!(kamailio.drops_on(&mut kamailio.tcp(BANNED)));
        assert!(kamailio.drops_on(&mut kamailio.tls(BANNED)));
        for mut sip in [
            kamailio.udp(CLEAR),
            kamailio.tcp(CLEAR),
            kamailio.tls(CLEAR),
        ] {
            assert_eq!(sip.options(), Answer::Status(200), "{}", release.name());
        }
    }
}

#[test]
fn in_request_route_a_banned_source_is_dropped_on_every_transport() {
    let kamailio = untrusting()
        .tls()
        .request_route("if (apiban_check()) { exit; }")
        .start();
    ban(&kamailio, BANNED);
    kamailio.assert_dropped(BANNED);
    assert!(kamailio.drops_on(&mut kamailio.tcp(BANNED)));
    assert!(kamailio.drops_on(&mut kamailio.tls(BANNED)));
    for mut sip in [
        kamailio.udp(CLEAR),
        kamailio.tcp(CLEAR),
        kamailio.tls(CLEAR),
    ] {
        assert_eq!(sip.options(), Answer::Status(200));
    }
}

#[test]
fn ipv6_sources_are_seen_in_every_route() {
    if !has_ipv6() {
        return eprintln!("this machine has no ::1");
    }
    for release in Release::all() {
        let before = show("msg-received", "apiban_check()");
        let kamailio = untrusting()
            .release(&release)
            .ipv6()
            .param("block_v6_prefix", 128)
            .global("received_route_mode=1")
            .request_route("if (apiban_check() > 0) { exit; }")
            .routes(&format!("event_route[core:msg-received] {{ {before} }}"))
            .start();
        kamailio.assert_answered("::1");
        ban(&kamailio, "::1");
        kamailio.assert_dropped("::1");
        assert!(kamailio.drops_on(&mut kamailio.tcp("::1")));
        kamailio.assert_answered(CLEAR);
        assert!(kamailio.codes("msg-received").contains(&2));
    }
}

#[test]
fn a_message_that_cannot_be_parsed_has_a_source_all_the_same() {
    for release in Release::all() {
        let after = show("parse-error", "apiban_check()");
        let kamailio = untrusting()
            .release(&release)
            .routes(&format!(
                "event_route[core:receive-parse-error] {{ {after} }}"
            ))
            .start();
        ban(&kamailio, BANNED);
        // Longer than the 32 bytes below which Kamailio does not look at a datagram.
        let noise = "GARBAGE ".repeat(20);
        for from in [BANNED, CLEAR] {
            let mut sip = kamailio.udp(from).with_deadline(Duration::from_millis(1));
            assert_eq!(sip.raw(noise.as_bytes()), Answer::Nothing);
        }
        kamailio.wait_for_log("code parse-error 2", SOON);
        kamailio.wait_for_log("code parse-error -1", SOON);
    }
}

#[test]
fn where_there_is_no_packet_there_is_no_address() {
    for release in Release::all() {
        let kamailio = untrusting()
            .release(&release)
            .load("rtimer")
            .modparam("rtimer", "timer", "name=often;interval=50000u;mode=1;")
            .modparam("rtimer", "exec", "timer=often;route=TIMER")
            .routes(&format!(
                "route[TIMER] {{ {} {} {} {} }}",
                show("timer", "apiban_check()"),
                show("timer-address", "apiban_check(\"127.0.0.66\")"),
                show("timer-block", "apiban_block()"),
                show("timer-unblock", "apiban_unblock()"),
            ))
            .start();
        ban(&kamailio, BANNED);
        kamailio.wait_for_log("code timer-address 2", SOON);
        kamailio.wait_for_log("code timer-unblock -3", SOON);
        assert_eq!(kamailio.codes("timer")[0], -3);
        kamailio.wait_for_log(
            "there is no packet here, so the address must be named",
            SOON,
        );
        assert_eq!(kamailio.codes("timer-block")[0], -3);
        assert_eq!(kamailio.ask("apiban.status", &[])["local"]["entries"], 1);
        kamailio.assert_answered(CLEAR);
    }
}

#[test]
fn a_request_of_our_own_is_not_banned() {
    for release in Release::all() {
        let socket = UdpSocket::bind((CALLEE, 0)).expect("callee");
        let to = socket.local_addr().expect("address");
        let kamailio = untrusting()
            .release(&release)
            .routes(&format!(
                "event_route[tm:local-request] {{ {} }}",
                show("local-request", "apiban_check()")
            ))
            .start();
        let callee = busy_callee(socket);
        let headers = "From: <sip:a@127.0.0.1>;tag=1\r\nTo: <sip:b@127.0.0.1>\r\n";
        kamailio.ask(
            "tm.t_uac_start",
            &["OPTIONS", &format!("sip:b@{to}"), ".", ".", headers],
        );
        callee.join().expect("callee");
        kamailio.wait_for_log("code local-request", SOON);
        assert!(kamailio.code("local-request") < 0, "{}", kamailio.log());
        kamailio.assert_answered(CLEAR);
    }
}

/// What `apiban_check(PARAMETER)` returns where BANNED is banned; the request comes from CLEAR.
fn codes_of(parameters: &[&str], before: &str) -> Vec<i64> {
    let calls: String = parameters
        .iter()
        .enumerate()
        .map(|(index, parameter)| show(&format!("#{index}"), &format!("apiban_check({parameter})")))
        .collect();
    let kamailio = untrusting()
        .request_route(&format!("$var(banned) = \"{BANNED}\"; {before}\n{calls}"))
        .start();
    ban(&kamailio, BANNED);
    ban(&kamailio, "2001:db8::7");
    kamailio.assert_answered(CLEAR);
    assert_eq!(
        kamailio
            .module_log()
            .iter()
            .filter(|line| line.contains("ERROR"))
            .count(),
        0
    );
    (0..parameters.len())
        .map(|index| kamailio.code(&format!("#{index}")))
        .collect()
}

#[test]
fn the_address_may_be_text_or_pseudo_variables() {
    let good = [
        r#""127.0.0.66""#,
        r#""$var(banned)""#,
        "$var(banned)",
        r#""127.0.0.$var(last)""#,
        r#""$var(first).0.0.$var(last)""#,
        r#""$var(first).0.0.66""#,
        r#""$var(first)$var(rest)""#,
        r#""$(var(padded){s.trim})""#,
        r#""$avp(banned)""#,
        r#"" 127.0.0.66 ""#,
        r#""::ffff:127.0.0.66""#,
        r#""[::ffff:127.0.0.66]""#,
        r#""2001:db8::7""#,
        r#""[2001:DB8:0::7]""#,
        // The whole /64 is banned.
        r#""2001:db8::9999""#,
    ];
    let before = r#"$var(first) = 127; $var(last) = 66; $var(rest) = ".0.0.66"; $var(padded) = " 127.0.0.66 ";
        $avp(banned) = "127.0.0.66";"#;
    assert_eq!(codes_of(&good, before), vec![2; good.len()]);
    let clear = [r#""$si""#, "$si", r#""192.0.2.1""#, r#""2001:db8:1::7""#];
    assert_eq!(codes_of(&clear, ""), vec![-1; clear.len()]);
}

#[test]
fn what_is_no_address_is_said_to_be_none() {
    let bad = [
        r#""""#,
        r#"" ""#,
        r#""$var(unset)""#,
        r#""$null""#,
        r#""$avp(unset)""#,
        r#""$fU@$fd""#,
        r#""127.0.0.66:5060""#,
        r#""$var(banned):5060""#,
        r#""$var(banned)$var(banned)""#,
        r#""$Ts""#,
        r#""127.0.0.066""#,
        r#""127.0.0""#,
        r#""2130706498""#,
        r#""127.0.0.66/32""#,
        r#""127.0.0.256""#,
        r#""carrier.example""#,
        r#""2001:db8::7%eth0""#,
        r#""%s%n""#,
        r#""$var(long)""#,
        r#""127.0.0.66, 127.0.0.5""#,
    ];
    // A constant that is no address ends the start: here each one is known at run time only.
    let bad = bad.map(|text| match text.contains('$') {
        true => text.to_owned(),
        false => text.replacen('"', "\"$var(empty)", 1),
    });
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    let long = "127.0.0.66".repeat(2000);
    let set = format!("$var(empty) = \"\"; $var(long) = \"{long}\";");
    assert_eq!(codes_of(&bad, &set), vec![-3; bad.len()]);
}

#[test]
fn observing_bans_nobody_and_counts_everything() {
    let kamailio = untrusting()
        .param("mode", "observe")
        .request_route(&format!(
            "{} {} if (apiban_check()) {{ exit; }}",
            show("source", "apiban_check()"),
            show("address", "apiban_check(\"127.0.0.66\")")
        ))
        .start();
    ban(&kamailio, BANNED);
    assert_eq!(kamailio.udp(BANNED).options(), Answer::Status(200));
    assert_eq!(
        [kamailio.code("source"), kamailio.code("address")],
        [-1, -1]
    );
    assert_eq!(kamailio.statistic("apiban", "blocked_local"), 3);
    let verdict = kamailio.verdict(BANNED);
    assert_eq!(verdict["banned"], 1, "{verdict}");
    assert_eq!(verdict["hits"], 3, "{verdict}");
    assert_eq!(kamailio.ask("apiban.status", &[])["mode"], "observe");
}

#[test]
fn the_trusted_are_told_from_the_merely_unbanned() {
    let calls = [
        show("trusted", "apiban_check()"),
        show("prefix", "apiban_check(\"192.0.2.200\")"),
        show("clear", "apiban_check(\"192.0.3.1\")"),
    ];
    let kamailio = Kamailio::builder()
        .param("trust", "192.0.2.0/24")
        .request_route(&calls.concat())
        .start();
    kamailio.assert_answered(CLEAR);
    let codes = ["trusted", "prefix", "clear"].map(|name| kamailio.code(name));
    assert_eq!(codes, [-2, -2, -1]);
    assert_eq!(kamailio.statistic("apiban", "trusted_skips"), 2);
}
