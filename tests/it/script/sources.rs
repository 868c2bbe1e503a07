//! Whose packets are in hand, and which addresses are our own: with no other module, on sockets of every
//! kind, in every release.

use std::net::SocketAddr;
use std::time::Duration;

use apiban_testing::kamailio::{Builder, Kamailio, Release};
use apiban_testing::netns::{in_namespace, run};
use apiban_testing::ports::{has_ipv6, Port};
use apiban_testing::sip::{Answer, Sip};
use apiban_testing::wait::{wait_until, SOON};

/// The lines of a log that tell of trouble, whoever wrote them.
fn trouble(log: &str) -> Vec<&str> {
    let levels = ["ERROR:", "CRITICAL:", "BUG:", "ALERT:"];
    // A root without /etc/protocols has one such line at each start.
    let told = |line: &&str| {
        levels.iter().any(|level| line.contains(level)) && !line.contains("TCP protocol number")
    };
    log.lines().filter(told).collect()
}

/// A Kamailio with nothing but the module and the one through which it is asked.
const ALONE: &str = r#"#!KAMAILIO
debug=2
log_stderror=yes
children=2
auto_aliases=no
listen=udp:127.0.0.1:@PORT@
loadmodule "ctl.so"
loadmodule APIBAN_MODULE
modparam("ctl", "binrpc", APIBAN_CTL)
modparam("apiban", "state_file", "")
modparam("apiban", "trust_self", 0)
request_route {
    if (apiban_check()) { log(1, "refused\n"); exit; }
    if (method == "INVITE") { apiban_block(); }
    log(1, "passed\n");
}
"#;

#[test]
fn as_the_only_module_it_checks_and_bans() {
    for release in Release::all() {
        let kamailio = Kamailio::builder()
            .release(&release)
            .without_tcp()
            .config(ALONE)
            .start();
        let count = |word: &str| kamailio.log().matches(word).count();
        let says = |word: &str, times: usize| {
            let what = format!("{times} times {word} in:\n{}", kamailio.log());
            wait_until(&what, SOON, || count(word) == times);
        };
        kamailio
            .kamcmd(&["apiban.block", "127.0.0.7", "600"])
            .unwrap();
        let mut banned = kamailio.udp("127.0.0.7");
        let mut attacker = kamailio.udp("127.0.0.8");
        // Enough for every worker to meet its first message.
        for sent in 1..=10 {
            banned.send("OPTIONS").unwrap();
            says("refused", sent);
        }
        attacker.send("INVITE").unwrap();
        says("passed", 1);
        for sent in 11..=20 {
            attacker.send("OPTIONS").unwrap();
            says("refused", sent);
        }
        let status = kamailio.kamcmd(&["apiban.check", "127.0.0.8"]).unwrap();
        assert!(status.contains("banned: 1"), "{status}");
        assert_eq!(trouble(&kamailio.log()), [""; 0]);
        assert!(kamailio.stop().status.success());
    }
}

/// A socket for both families shows IPv4 sources in their IPv6 form.
#[test]
fn an_ipv4_packet_on_a_socket_for_both_families_is_no_error() {
    assert!(has_ipv6(), "this machine has no ::1");
    for release in Release::all() {
        let both = Port::reserve();
        let listen = format!("listen=udp:[::]:{}", both.number());
        let kamailio = Kamailio::builder()
            .release(&release)
            .global(&listen)
            .param("trust_self", 0)
            .request_route("if (apiban_check()) { drop; }")
            .start();
        let to = SocketAddr::from(([127, 0, 0, 1], both.number()));
        let from = |ip: &str| Sip::udp(ip, to).unwrap();
        let mut client = from("127.0.0.5");
        for _ in 0..10 {
            assert_eq!(client.options(), Answer::Status(200));
        }
        kamailio.ask("apiban.block", &["127.0.0.5", "60"]);
        let mut client = client.with_deadline(Duration::from_millis(300));
        assert_eq!(client.options(), Answer::Nothing);
        assert_eq!(from("127.0.0.6").options(), Answer::Status(200));
        assert_eq!(trouble(&kamailio.log()), [""; 0]);
    }
}

/// The fault of a ban of this address, which must be one of our own.
#[track_caller]
fn assert_own(kamailio: &Kamailio, ip: &str) {
    let verdict = kamailio.verdict(ip);
    assert_eq!(verdict["source"], "trusted", "{ip}: {verdict}");
    let params = serde_json::json!([ip, "60"]);
    let fault = kamailio.jsonrpc("apiban.block", params).unwrap_err();
    assert_eq!(fault.code, 403, "{ip}: {fault}");
    assert!(fault.text.contains("own address"), "{ip}: {fault}");
}

fn listening(release: &Release, globals: &[&str]) -> Builder {
    let builder = Kamailio::builder().release(release);
    globals
        .iter()
        .fold(builder, |builder, line| builder.global(line))
}

#[test]
fn own_addresses_are_trusted_whatever_the_socket() {
    in_namespace(|| {
        run("ip", &["address", "add", "192.0.2.1/24", "dev", "lo"]);
        run(
            "ip",
            &["address", "add", "2001:db8:5::1/64", "dev", "lo", "nodad"],
        );
        for release in Release::all() {
            // Each with what is ours, and what is not.
            let cases: [(&[&str], &[&str], &[&str]); 8] = [
                (
                    &["listen=udp:0.0.0.0:5070"],
                    &["192.0.2.1", "2001:db8:5::1"],
                    &["192.0.2.2", "0.0.0.1", "203.0.113.9"],
                ),
                (
                    &["listen=tcp:[::]:5070"],
                    &["192.0.2.1", "2001:db8:5::1"],
                    &["2001:db8:6::1"],
                ),
                (
                    &["ip_free_bind=yes", "listen=udp:192.0.2.77:5070"],
                    &["192.0.2.77"],
                    &["192.0.2.1", "192.0.2.78"],
                ),
                (
                    &["ip_free_bind=yes", "listen=tcp:192.0.2.78:5070"],
                    &["192.0.2.78"],
                    &["192.0.2.77"],
                ),
                (
                    &["ip_free_bind=yes", "listen=tls:192.0.2.79:5071"],
                    &["192.0.2.79"],
                    &["192.0.2.77"],
                ),
                (
                    &["listen=udp:192.0.2.1:5070 advertise 203.0.113.9:5060"],
                    &["192.0.2.1", "203.0.113.9"],
                    &["203.0.113.10"],
                ),
                (
                    &["listen=udp:[2001:db8:5::1]:5070 advertise [2001:db8:9::9]:5060"],
                    &["2001:db8:5::1", "2001:db8:9::9"],
                    &["2001:db8:a::1"],
                ),
                (
                    &["advertised_address=203.0.113.11"],
                    &["203.0.113.11", "127.0.0.1"],
                    &["203.0.113.9"],
                ),
            ];
            for (globals, own, strangers) in cases {
                let kamailio = listening(&release, globals).tls().start();
                for ip in own {
                    assert_own(&kamailio, ip);
                }
                for ip in strangers {
                    let banned = kamailio.jsonrpc("apiban.block", serde_json::json!([ip, "60"]));
                    let unbannable = ip.starts_with("0.");
                    assert_eq!(banned.is_ok(), !unbannable, "{globals:?} {ip}: {banned:?}");
                }
                assert!(kamailio.stop().status.success());
            }
        }
    });
}

/// An address that comes to an interface later is ours if Kamailio listens everywhere.
#[test]
fn own_addresses_follow_the_interfaces() {
    in_namespace(|| {
        let kamailio = listening(&Release::Host, &["listen=udp:0.0.0.0:5070"]).start();
        assert_eq!(kamailio.verdict("192.0.2.9")["source"], "none");
        run("ip", &["address", "add", "192.0.2.9/24", "dev", "lo"]);
        wait_until("the new address to be trusted", SOON, || {
            kamailio.verdict("192.0.2.9")["source"] == "trusted"
        });
    });
}

/// What a program on the loopback interface sends to `evapi`.
fn netstring(to: SocketAddr, text: &str) {
    use std::io::Write;
    let mut link = std::net::TcpStream::connect(to).expect("evapi listens");
    let message = format!("{}:{text},", text.len());
    link.write_all(message.as_bytes()).expect("a message");
}

/// evapi runs its routes with a copy of the message that Kamailio makes up.
#[test]
fn a_made_up_message_and_its_copies_have_no_source() {
    for release in Release::all() {
        let port = Port::reserve();
        let bind = format!("127.0.0.1:{}", port.number());
        let kamailio = Kamailio::builder()
            .release(&release)
            .load("evapi")
            .modparam("evapi", "bind_addr", bind.as_str())
            .param("trust_self", 0)
            .routes(
                "event_route[evapi:message-received] {\n\
                 apiban_block(); xlog(\"L_INFO\", \"code block $rc\\n\");\n\
                 apiban_check(); xlog(\"L_INFO\", \"code check $rc\\n\");\n}",
            )
            .start();
        netstring(bind.parse().unwrap(), "hello");
        wait_until("the route", SOON, || !kamailio.codes("check").is_empty());
        assert_eq!(kamailio.code("block"), -3);
        assert_eq!(kamailio.code("check"), -3);
        assert_eq!(kamailio.statistic("apiban", "local_entries"), 0);
    }
}

/// The core leaves the address of a closed connection in the message that it makes up, where the next timer
/// route would find it: it must not be taken for a source.
#[test]
fn a_closed_connection_is_no_source_for_later_routes() {
    for release in Release::all() {
        let kamailio = Kamailio::builder()
            .release(&release)
            .load("tcpops")
            .modparam("tcpops", "closed_event", 1)
            .param("trust_self", 0)
            .routes(
                "event_route[tcp:closed] {\n\
                 apiban_check(); xlog(\"L_INFO\", \"code bare $rc\\n\");\n\
                 apiban_check(\"$si\"); xlog(\"L_INFO\", \"code named $rc\\n\");\n}",
            )
            .start();
        kamailio.ask("apiban.block", &["127.0.0.9", "60"]);
        drop(kamailio.tcp("127.0.0.9"));
        wait_until("the route", SOON, || !kamailio.codes("named").is_empty());
        assert_eq!(kamailio.code("bare"), -3);
        assert_eq!(kamailio.code("named"), 2);
    }
}
