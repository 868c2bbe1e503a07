//! Every way to start: alone, on sockets of every kind, as another user, twice, with and without workers;
//! in every release. Each time the check must work, the updater live, and the end be clean.

use std::net::SocketAddr;

use apiban_testing::kamailio::{is_alive, is_root, Builder, Kamailio, Release};
use apiban_testing::netns::{in_namespace, run};
use apiban_testing::ports::{has_ipv6, Port};
use apiban_testing::script::module_lines;
use apiban_testing::sip::{drops, Answer, Sip};
use apiban_testing::wait::{wait_until, SOON};

/// Requests of somebody else in between that prove a drop: some for each worker.
const ROUNDS: u32 = 16;

/// An INVITE bans its source. Loopback is all that most tests have, so it is not trusted.
fn builder(release: &Release) -> Builder {
    Kamailio::builder()
        .release(release)
        .param("trust_self", 0)
        .request_route(
            r#"if (apiban_check()) { drop; }
if (method == "INVITE") { apiban_block(); }"#,
        )
}

/// One attacker is banned and dropped, one caller is served, at `to`; what the operator is told agrees.
#[track_caller]
fn assert_protects(kamailio: &Kamailio, to: SocketAddr, attacker: &str, caller: &str) {
    let client = |from: &str| Sip::udp(from, to).expect("UDP socket");
    let name = kamailio.release().name();
    let (mut bad, mut good) = (client(attacker), client(caller));
    assert_eq!(bad.options(), Answer::Status(200), "{name}: {attacker}");
    assert_eq!(bad.invite(), Answer::Status(200), "{name}: {attacker}");
    assert!(
        drops(&mut bad, &mut good, ROUNDS).expect("SIP"),
        "{name}: {attacker} is served\n{}",
        kamailio.log()
    );
    assert_eq!(good.options(), Answer::Status(200), "{name}: {caller}");
    assert_eq!(kamailio.verdict(attacker)["source"], "local", "{name}");
    assert_eq!(kamailio.verdict(caller)["source"], "none", "{name}");
}

/// Nothing was wrong while it ran, the updater lives, and it ends well.
#[track_caller]
fn assert_ends(kamailio: Kamailio) {
    let name = kamailio.release().name().to_owned();
    assert!(is_alive(kamailio.pid_of("APIBAN updater")), "{name}");
    assert_ends_well(kamailio);
}

#[track_caller]
fn assert_ends_well(kamailio: Kamailio) {
    let name = kamailio.release().name().to_owned();
    let errors = |log: &str| -> Vec<String> {
        let words = ["ERROR:", "CRITICAL:", "BUG:", "ALERT:"];
        let wrong = |line: &&str| words.iter().any(|word| line.contains(word));
        // A root without /etc/protocols has one such line at each start.
        let known = |line: &&str| line.contains("TCP protocol number");
        let lines = log.lines().filter(|line| wrong(line) && !known(line));
        lines.map(String::from).collect()
    };
    // At its end the TCP main process complains of each process that is gone before it.
    assert_eq!(errors(&kamailio.log()), [""; 0], "{name}");
    let stopped = kamailio.stop();
    assert!(stopped.status.success(), "{name}: {}", stopped.log);
    let ours = errors(&module_lines(&stopped.log).join("\n"));
    assert_eq!(ours, [""; 0], "{name}");
}

/// No other module at all, not even one to ask it by: what it does shows in the log of the core.
#[test]
fn as_the_only_module() {
    const ALONE: &str = r#"#!KAMAILIO
debug=2
log_stderror=yes
children=2
auto_aliases=no
listen=udp:127.0.0.1:@PORT@
loadmodule APIBAN_MODULE
modparam("apiban", "state_file", "@DIR@/apiban.state")
modparam("apiban", "trust_self", 0)
request_route {
    if (apiban_check()) { log(1, "shut out\n"); exit; }
    if (method == "INVITE") { apiban_block(); }
    log(1, "let in\n");
}
"#;
    for release in Release::all() {
        let kamailio = builder(&release).without_tcp().config(ALONE).start();
        let wait = |word: &str, times: usize| {
            let name = release.name();
            wait_until(&format!("{name}: {times} times {word}"), SOON, || {
                kamailio.log().matches(word).count() == times
            });
        };
        let (mut attacker, mut caller) = (kamailio.udp("127.0.0.66"), kamailio.udp("127.0.0.5"));
        attacker.send("INVITE").expect("sent");
        wait("let in", 1);
        for sent in 1..=8 {
            attacker.send("OPTIONS").expect("sent");
            wait("shut out", sent);
            caller.send("OPTIONS").expect("sent");
            wait("let in", 1 + sent);
        }
        assert_ends_well(kamailio);
    }
}

#[test]
fn on_the_wildcard_address() {
    for release in Release::all() {
        let port = Port::reserve();
        let kamailio = builder(&release)
            .only_global_sockets()
            .global(&format!("listen=udp:0.0.0.0:{}", port.number()))
            .start();
        let to = SocketAddr::from(([127, 0, 0, 1], port.number()));
        assert_protects(&kamailio, to, "127.0.0.66", "127.0.0.5");
        assert_ends(kamailio);
    }
}

/// IPv6 sources are banned with their network, so the caller needs another one.
#[test]
fn with_ipv6_only_and_for_both_families() {
    assert!(has_ipv6(), "this machine has no ::1");
    in_namespace(|| {
        for address in ["2001:db8:1::66/64", "2001:db8:2::5/64", "2001:db8:3::1/64"] {
            run("ip", &["address", "add", address, "dev", "lo", "nodad"]);
        }
        for release in Release::all() {
            let only = builder(&release)
                .only_global_sockets()
                .global("listen=udp:[2001:db8:3::1]:5070")
                .start();
            let to: SocketAddr = "[2001:db8:3::1]:5070".parse().expect("address");
            assert_protects(&only, to, "2001:db8:1::66", "2001:db8:2::5");
            assert_ends(only);

            let both = builder(&release)
                .only_global_sockets()
                .global("listen=udp:[::]:5070")
                .start();
            assert_protects(&both, to, "2001:db8:1::66", "2001:db8:2::5");
            let to = SocketAddr::from(([127, 0, 0, 1], 5070));
            assert_protects(&both, to, "127.0.0.66", "127.0.0.5");
            assert_ends(both);
        }
    });
}

/// The address comes to the machine later, as that of a pair whose other half has failed does.
#[test]
fn on_an_address_that_is_not_there_yet() {
    in_namespace(|| {
        for release in Release::all() {
            let kamailio = builder(&release)
                .param("trust_self", 1)
                .only_global_sockets()
                .global("ip_free_bind=yes\nlisten=udp:192.0.2.77:5070")
                .start();
            let add = |verb: &str, address: &str| {
                run("ip", &["address", verb, address, "dev", "lo"]);
            };
            let addresses = ["192.0.2.77/32", "198.51.100.66/32", "198.51.100.5/32"];
            addresses.iter().for_each(|address| add("add", address));
            assert_eq!(kamailio.verdict("192.0.2.77")["source"], "trusted");
            let to = SocketAddr::from(([192, 0, 2, 77], 5070));
            assert_protects(&kamailio, to, "198.51.100.66", "198.51.100.5");
            assert_ends(kamailio);
            addresses.iter().for_each(|address| add("delete", address));
        }
    });
}

#[test]
fn as_another_user() {
    assert!(is_root(), "only root can become another user");
    for release in Release::all() {
        let kamailio = builder(&release).user("kamailio").start();
        assert_protects(&kamailio, kamailio.address(), "127.0.0.66", "127.0.0.5");
        assert_ends(kamailio);
    }
}

/// What one bans is nothing to the other, and the end of one is not the other's.
#[test]
fn two_at_once() {
    for release in Release::all() {
        let (one, other) = (builder(&release).start(), builder(&release).start());
        assert_protects(&one, one.address(), "127.0.0.66", "127.0.0.5");
        assert_eq!(other.verdict("127.0.0.66")["source"], "none");
        other.assert_answered("127.0.0.66");
        assert_protects(&other, other.address(), "127.0.0.67", "127.0.0.5");
        one.assert_answered("127.0.0.67");
        assert_ends(one);
        other.assert_dropped("127.0.0.67");
        assert_ends(other);
    }
}

/// With `-D` the main process is the only worker; with `-DD`, as all other tests have it, it only watches.
#[test]
fn without_workers() {
    for release in Release::all() {
        let kamailio = builder(&release).without_forks().start();
        let names: Vec<String> = kamailio.processes().into_iter().map(|p| p.name).collect();
        assert!(
            !names.iter().any(|name| name.starts_with("udp receiver")),
            "{names:?}"
        );
        assert_protects(&kamailio, kamailio.address(), "127.0.0.66", "127.0.0.5");
        assert_ends(kamailio);
    }
}
