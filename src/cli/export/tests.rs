//! Golden texts of every format, from one small list.

use super::*;
use crate::cli::args::Part;

const NOW: UnixSeconds = UnixSeconds::new(1_795_300_000);

fn items(addresses: &[&str]) -> Vec<Item> {
    addresses
        .iter()
        .map(|text| Item {
            subnet: text.parse().unwrap(),
            source: Part::Feed,
            since: NOW.shifted(-60),
            until: NOW.shifted(604_799),
            hits: 0,
        })
        .collect()
}

/// Two neighbours, two strangers, a prefix; likewise of IPv6. Sorted.
fn sample() -> Vec<Item> {
    items(&[
        "192.0.2.2",
        "192.0.2.3",
        "192.0.2.9",
        "198.51.100.0/24",
        "2001:db8::7",
        "2001:db8:1::/64",
    ])
}

fn render(format: Format, previous: Option<&str>) -> String {
    let previous = previous.map(|text| members::read(format, text));
    format.render(&Job {
        name: format.default_name(),
        items: &sample(),
        previous: previous.as_ref(),
        now: NOW,
    })
}

#[test]
fn golden_plain_json_csv() {
    assert_eq!(
        render(Format::Plain, None),
        "192.0.2.2\n192.0.2.3\n192.0.2.9\n198.51.100.0/24\n2001:db8::7\n2001:db8:1::/64\n"
    );
    assert!(render(Format::Csv, None)
        .starts_with("ip,source,since,until\n192.0.2.2,feed,1795299940,1795904799\n"));
    assert!(render(Format::Json, None).starts_with(
        "[\n{\"ip\":\"192.0.2.2\",\"source\":\"feed\",\"since\":1795299940,\"until\":1795904799},\n"
    ));
}

#[test]
fn golden_nft() {
    let text = render(Format::Nft, None);
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        without_comments.join("\n"),
        "add table inet apiban_list\n\
         add set inet apiban_list v4 { type ipv4_addr; flags timeout; }\n\
         flush set inet apiban_list v4\n\
         add element inet apiban_list v4 {\n 192.0.2.2 timeout 604799s,\n 192.0.2.3 timeout 604799s,\n \
         192.0.2.9 timeout 604799s,\n}\n\
         add set inet apiban_list v4_nets { type ipv4_addr; flags interval,timeout; }\n\
         flush set inet apiban_list v4_nets\n\
         add element inet apiban_list v4_nets {\n 198.51.100.0/24 timeout 604799s,\n}\n\
         add set inet apiban_list v6 { type ipv6_addr; flags timeout; }\n\
         flush set inet apiban_list v6\n\
         add element inet apiban_list v6 {\n 2001:db8::7 timeout 604799s,\n}\n\
         add set inet apiban_list v6_nets { type ipv6_addr; flags interval,timeout; }\n\
         flush set inet apiban_list v6_nets\n\
         add element inet apiban_list v6_nets {\n 2001:db8:1::/64 timeout 604799s,\n}"
    );
}

#[test]
fn golden_ipset() {
    let text = render(Format::Ipset, None);
    assert!(text.contains(
        "create apiban-v4 hash:net family inet hashsize 4096 maxelem 1048576 timeout 604800 -exist\n\
         create apiban-v4-new hash:net family inet hashsize 4096 maxelem 1048576 timeout 604800 -exist\n\
         flush apiban-v4-new\n\
         add apiban-v4-new 192.0.2.2 timeout 604799 -exist\n"
    ));
    assert!(text.contains(
        "add apiban-v4-new 198.51.100.0/24 timeout 604799 -exist\n\
         swap apiban-v4-new apiban-v4\n\
         destroy apiban-v4-new\n"
    ));
    assert!(text.ends_with("swap apiban-v6-new apiban-v6\ndestroy apiban-v6-new\n"));
}

#[test]
fn golden_iptables() {
    assert_eq!(
        render(Format::Iptables, None),
        "*filter\n:APIBAN - [0:0]\n-A APIBAN -s 192.0.2.2/32 -j DROP\n-A APIBAN -s 192.0.2.3/32 -j DROP\n\
         -A APIBAN -s 192.0.2.9/32 -j DROP\n-A APIBAN -s 198.51.100.0/24 -j DROP\nCOMMIT\n"
    );
    assert_eq!(
        render(Format::Ip6tables, None),
        "*filter\n:APIBAN - [0:0]\n-A APIBAN -s 2001:db8::7/128 -j DROP\n\
         -A APIBAN -s 2001:db8:1::/64 -j DROP\nCOMMIT\n"
    );
}

#[test]
fn golden_cisco() {
    assert_eq!(
        render(Format::CiscoAsa, None),
        "object-group network apiban\n network-object 192.0.2.2 255.255.255.254\n \
         network-object host 192.0.2.9\n network-object 198.51.100.0 255.255.255.0\n \
         network-object host 2001:db8::7\n network-object 2001:db8:1::/64\n"
    );
    assert_eq!(
        render(Format::CiscoIos, None),
        "object-group network apiban\n 192.0.2.2 255.255.255.254\n host 192.0.2.9\n \
         198.51.100.0 255.255.255.0\nobject-group v6-network apiban-v6\n host 2001:db8::7\n \
         2001:db8:1::/64\n"
    );
}

#[test]
fn a_cisco_group_in_use_is_never_empty() {
    let asa = "object-group network apiban\n network-object host 192.0.2.9\n \
               network-object host 203.0.113.5\n network-object 203.0.113.0 255.255.255.252\n";
    assert_eq!(
        render(Format::CiscoAsa, Some(asa)),
        "object-group network apiban\n network-object 192.0.2.2 255.255.255.254\n \
         network-object 198.51.100.0 255.255.255.0\n network-object host 2001:db8::7\n \
         network-object 2001:db8:1::/64\n no network-object 203.0.113.0 255.255.255.252\n \
         no network-object host 203.0.113.5\n"
    );
    // What was loaded and then changed by a difference is what the next one starts from.
    let first = render(Format::CiscoAsa, None);
    let second = render(Format::CiscoAsa, Some(&first));
    assert_eq!(second, "");
    let ios = "object-group network apiban\n 10 host 203.0.113.5\n host 192.0.2.9\n no host 203.0.113.5\n";
    let text = render(Format::CiscoIos, Some(ios));
    assert!(
        !text.contains("203.0.113.5") && !text.contains("192.0.2.9"),
        "{text}"
    );
}

#[test]
fn a_family_that_ends_leaves_somebody_in_its_group_whom_nobody_is() {
    let v4 = items(&["203.0.113.9"]);
    let text = |previous: &str| {
        let previous = members::read(Format::CiscoIos, previous);
        Format::CiscoIos.render(&Job {
            name: "apiban",
            items: &v4,
            previous: Some(&previous),
            now: NOW,
        })
    };
    let before = "object-group network apiban\n host 203.0.113.9\n\
                  object-group v6-network apiban-v6\n host 2001:db8::7\n";
    let after = "object-group v6-network apiban-v6\n host 2001:db8::\n no host 2001:db8::7\n";
    assert_eq!(text(before), after);
    assert_eq!(text(&format!("{before}{after}")), "");
}

#[test]
fn golden_junos_and_routeros() {
    assert_eq!(
        render(Format::Junos, None),
        "delete policy-options prefix-list apiban\n\
         set policy-options prefix-list apiban 192.0.2.2/31\n\
         set policy-options prefix-list apiban 192.0.2.9/32\n\
         set policy-options prefix-list apiban 198.51.100.0/24\n\
         set policy-options prefix-list apiban 2001:db8::7/128\n\
         set policy-options prefix-list apiban 2001:db8:1::/64\n"
    );
    let text = render(
        Format::Routeros,
        Some("/ip firewall address-list\n:do { add list=apiban address=203.0.113.5 timeout=1d } on-error={}\n"),
    );
    assert!(text.starts_with(
        "/ip firewall address-list\n\
         :do { add list=apiban address=192.0.2.2 timeout=6d23:59:59 comment=apiban } on-error={}\n"
    ));
    assert!(text.contains(
        ":do { remove [find list=apiban address=203.0.113.5] } on-error={}\n\
         /ipv6 firewall address-list\n\
         :do { add list=apiban address=2001:db8::7/128 timeout=6d23:59:59 comment=apiban } on-error={}\n"
    ));
}

#[test]
fn golden_proxies_and_sip_servers() {
    let lines = "192.0.2.2/31\n192.0.2.9\n198.51.100.0/24\n2001:db8::7\n2001:db8:1::/64\n";
    assert_eq!(render(Format::Haproxy, None), lines);
    assert_eq!(render(Format::Pf, None), lines);
    assert!(render(Format::Nginx, None)
        .starts_with("geo $apiban {\n    default 0;\n    192.0.2.2/31 1;\n"));
    assert!(render(Format::Asterisk, None)
        .starts_with("[apiban]\ndeny=192.0.2.2/31\ndeny=192.0.2.9/32\n"));
    assert!(render(Format::Freeswitch, None).starts_with(
        "<include>\n  <list name=\"apiban\" default=\"allow\">\n    <node type=\"deny\" cidr=\"192.0.2.2/31\"/>\n"
    ));
    assert!(render(Format::Kamailio, None)
        .starts_with("1 192.0.2.2 32 0 apiban\n1 192.0.2.3 32 0 apiban\n"));
    assert!(render(Format::Opensips, None).starts_with(
        "BEGIN;\nDELETE FROM address WHERE grp = 1;\nINSERT INTO address (grp, ip, mask, port, proto, \
         context_info) VALUES (1, '192.0.2.2', 32, 0, 'any', 'apiban');\n"
    ));
}

#[test]
fn golden_tools() {
    assert!(render(Format::Crowdsec, None)
        .starts_with("duration,scope,value,reason,type\n604799s,ip,192.0.2.2,apiban,ban\n"));
    assert!(render(Format::Crowdsec, None).contains("604799s,range,198.51.100.0/24,apiban,ban\n"));
    assert_eq!(
        render(Format::Fail2ban, None),
        "#!/bin/sh\nset -e\nfail2ban-client set apiban banip 192.0.2.2 192.0.2.3 192.0.2.9 \
         198.51.100.0/24 2001:db8::7 2001:db8:1::/64 >/dev/null\n"
    );
}

#[test]
fn prefixes_that_lie_in_another_are_left_out_where_they_would_clash() {
    let items = items(&["198.51.100.0/24", "198.51.100.64/26", "203.0.113.0/24"]);
    let nets = shape::family(&items, true).nets;
    let texts: Vec<String> = nets.iter().map(|item| item.subnet.to_string()).collect();
    assert_eq!(texts, ["198.51.100.0/24", "203.0.113.0/24"]);
}

#[test]
fn names_go_into_commands_and_are_checked() {
    for format in Format::value_variants() {
        assert_eq!(format.refuses(format.default_name()), None, "{format:?}");
        for bad in [
            "",
            "a b",
            "a;b",
            "1a",
            "a'b",
            "a\nb",
            "../a",
            "$x",
            &"a".repeat(64),
        ] {
            assert!(format.refuses(bad).is_some(), "{format:?} {bad:?}");
        }
    }
    assert!(Format::Ipset.refuses(&"a".repeat(25)).is_some());
    assert!(Format::Nginx.refuses("a-b").is_some());
}

#[test]
fn an_empty_or_short_list_is_refused() {
    let code = |now, before| {
        refuse_short("plain", now, before, 50)
            .err()
            .map(|f| f.exit())
    };
    assert_eq!(code(0, 0), Some(Exit::TooShort));
    assert_eq!(code(49, 100), Some(Exit::TooShort));
    assert_eq!(code(50, 100), None);
    assert_eq!(code(1, 99), None);
    assert_eq!(code(100, 0), None);
}
