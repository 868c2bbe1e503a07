//! The functions of `KSR.apiban` from a Lua script: the same return codes as in the native script.

use apiban_testing::kamailio::{Kamailio, Release};
use apiban_testing::sip::Answer;

const SCRIPT: &str = r#"
local function show(name, code)
    KSR.info("code " .. name .. " " .. code .. "\n")
end

function ksr_request_route()
    if KSR.is_method("REGISTER") then
        everything()
    elseif KSR.is_method("INVITE") then
        show("block", KSR.apiban.block())
    elseif KSR.is_method("MESSAGE") then
        show("unblock", KSR.apiban.unblock())
    elseif KSR.apiban.check() > 0 then
        return 1
    end
    KSR.sl.sl_send_reply(200, "OK")
    return 1
end

function everything()
    local a = KSR.apiban
    show("check", a.check())
    show("check_ip-clear", a.check_ip("192.0.2.1"))
    show("check_ip-bad", a.check_ip("carrier.example"))
    show("check_ip-empty", a.check_ip(""))
    show("block_ip", a.block_ip("192.0.2.1"))
    show("check_ip-banned", a.check_ip("192.0.2.1"))
    show("block_ip-bad", a.block_ip("192.0.2"))
    show("block_ip-trusted", a.block_ip("198.51.100.7"))
    show("check_ip-trusted", a.check_ip("198.51.100.7"))
    show("block_ip_ttl", a.block_ip_ttl("192.0.2.2", 90))
    show("block_ip_ttl-zero", a.block_ip_ttl("192.0.2.9", 0))
    show("block_ip_ttl-negative", a.block_ip_ttl("192.0.2.9", -1))
    show("block_ip_ttl-huge", a.block_ip_ttl("192.0.2.9", 2147483647))
    show("block_ip_reason", a.block_ip_reason("2001:db8::1", 120, "scanner 100% %s"))
    show("check_ip-net", a.check_ip("[2001:db8::2]"))
    show("unblock_ip", a.unblock_ip("192.0.2.1"))
    show("unblock_ip-again", a.unblock_ip("192.0.2.1"))
    show("unblock_ip-bad", a.unblock_ip("x"))
end

function ksr_reply_route()
    return 1
end

function ksr_received()
    show("received", KSR.apiban.check())
    if KSR.apiban.check_ip("127.0.0.66") > 0 and KSR.apiban.check() == 2 then
        KSR.set_drop()
    end
    return 1
end
"#;

fn start(release: &Release, received: bool) -> Kamailio {
    let mut builder = Kamailio::builder()
        .release(release)
        .param("trust_self", 0)
        .param("trust", "198.51.100.0/24")
        .load("app_lua")
        .file("apiban.lua", SCRIPT)
        .modparam("app_lua", "load", "@DIR@/apiban.lua")
        .engine("lua");
    if received {
        builder = builder
            .global("received_route_mode=1")
            .global("kemi.received_route_callback=\"ksr_received\"");
    }
    builder.start()
}

#[test]
fn every_function_returns_what_its_native_twin_does() {
    for release in Release::all() {
        let kamailio = start(&release, false);
        assert_eq!(kamailio.udp("127.0.0.5").register(), Answer::Status(200));
        let expected = [
            ("check", -1),
            ("check_ip-clear", -1),
            ("check_ip-bad", -3),
            ("check_ip-empty", -3),
            ("block_ip", 1),
            ("check_ip-banned", 2),
            ("block_ip-bad", -3),
            ("block_ip-trusted", -1),
            ("check_ip-trusted", -2),
            ("block_ip_ttl", 1),
            ("block_ip_ttl-zero", -3),
            ("block_ip_ttl-negative", -3),
            ("block_ip_ttl-huge", -3),
            ("block_ip_reason", 1),
            ("check_ip-net", 2),
            ("unblock_ip", 1),
            ("unblock_ip-again", -1),
            ("unblock_ip-bad", -3),
        ];
        for (name, code) in expected {
            assert_eq!(kamailio.code(name), code, "{name} in {}", release.name());
        }
        let ttl = kamailio.verdict("192.0.2.2")["expires"]
            .as_i64()
            .expect("a number");
        assert!((80..=90).contains(&ttl), "{ttl}");
        let net = kamailio.verdict("2001:db8::3");
        assert_eq!(net["reason"], "2001:db8::/64 scanner 100% %s", "{net}");
    }
}

#[test]
fn the_source_of_the_packet_is_banned_and_freed() {
    for release in Release::all() {
        let kamailio = start(&release, false);
        kamailio.assert_answered("127.0.0.66");
        assert_eq!(kamailio.udp("127.0.0.66").invite(), Answer::Status(200));
        assert_eq!(kamailio.code("block"), 1);
        kamailio.assert_dropped("127.0.0.66");
        kamailio.assert_answered("127.0.0.5");
        let source = kamailio.udp("127.0.0.66").request("MESSAGE");
        assert_eq!(source.expect("an answer"), Answer::Status(200));
        assert_eq!(kamailio.code("unblock"), 1);
        kamailio.assert_answered("127.0.0.66");
    }
}

#[test]
fn the_received_callback_sees_the_source_before_parsing() {
    for release in Release::all() {
        let kamailio = start(&release, true);
        kamailio.assert_answered("127.0.0.66");
        kamailio.ask("apiban.block", &["127.0.0.66"]);
        kamailio.assert_dropped("127.0.0.66");
        assert!(kamailio.drops_on(&mut kamailio.tcp("127.0.0.66")));
        kamailio.assert_answered("127.0.0.5");
        assert_eq!(kamailio.codes("received")[0], -1);
        assert!(kamailio.codes("received").contains(&2));
    }
}
