//! The table of the nft backend: its structure, what was there before, what others do to it, and whom it belongs to.

use apiban::firewall::nft::{remove_leftovers, Hook, Nft, Settings, TableName};
use apiban::firewall::{Error, Firewall};

use apiban_testing::netns::{addresses, elements, in_namespace, objects, run};

use super::nft::{
    add, arrives, element, handle_of_the_ipv6_rule, many_and, ready, sent_while, server, set_names,
};

fn name(table: &str) -> TableName {
    table.parse().unwrap()
}

fn named(table: &str) -> Nft {
    Nft::new(Settings {
        table: name(table),
        ..Settings::default()
    })
}

/// The rules of the last version's table, which hooked into input and had four sets.
const LAST_VERSION: &str = "table inet apiban { comment \"apiban.so\";
    set local4 { type ipv4_addr; flags timeout; counter; comment \"apiban.so\"; }
    set local6 { type ipv6_addr; flags timeout; counter; comment \"apiban.so\"; }
    set feed4 { type ipv4_addr; flags timeout; counter; comment \"apiban.so\"; }
    set feed6 { type ipv6_addr; flags timeout; counter; comment \"apiban.so\"; }
    chain input { type filter hook input priority -300; policy accept;
        ip saddr @local4 counter drop comment \"apiban.so local4\"
        ip saddr @feed4 counter drop comment \"apiban.so feed4\"
    }
}";

#[test]
fn the_table_is_as_documented() {
    in_namespace(|| {
        let mut nft = ready();
        assert_eq!(set_names(), ["hosts4", "hosts6"]);
        let chains = objects("chain");
        let names: Vec<_> = chains.iter().map(|chain| &chain["name"]).collect();
        assert_eq!(names, ["prerouting", "ipv6"]);
        assert_eq!(chains[0]["hook"], "prerouting");
        assert_eq!(chains[0]["prio"], -300);
        assert_eq!(chains[0]["policy"], "accept");
        let text = run("nft", &["list", "ruleset"]);
        for line in [
            "table inet apiban {",
            "comment \"apiban.so\"",
            "type ipv4_addr",
            "flags timeout",
            "icmpv6 type 135-136 accept comment \"apiban.so neighbours owner=",
            "ip saddr @hosts4 counter packets 0 bytes 0 drop comment \"apiban.so hosts4\"",
            "ip6 saddr @hosts6 counter packets 0 bytes 0 drop comment \"apiban.so hosts6\"",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        assert!(nft.intact().unwrap());
        // A second start makes nothing twice.
        drop(nft);
        let mut nft = ready();
        assert_eq!(objects("rule").len(), 3);
        // What nft prints it also reads.
        nft.apply(&[add("2001:db8::1", 60), add("10.0.0.0/8", 60)])
            .unwrap();
        let text = run("nft", &["list", "ruleset"]);
        assert_eq!(objects("rule").len(), 5);
        nft.remove().unwrap();
        run("nft", &[&text]);
        assert_eq!(objects("rule").len(), 5);
        nft.remove().unwrap();
        nft.remove().unwrap();
        assert!(objects("table").is_empty());
    });
}

#[test]
fn what_others_did_to_the_table_is_seen_and_mended() {
    in_namespace(|| {
        let mut nft = ready();
        let wanted = [
            element("192.0.2.1", 600),
            element("198.51.100.0/24", 600),
            element("2001:db8::1", 600),
        ];
        let mend = |nft: &mut Nft| {
            assert!(nft.reconcile(&wanted).unwrap().is_empty());
            assert!(nft.intact().unwrap());
            assert_eq!(addresses("hosts4"), ["192.0.2.1"]);
            assert_eq!(addresses("hosts6"), ["2001:db8::1"]);
            assert_eq!(addresses("nets4_24"), ["198.51.100.0"]);
            assert_eq!(objects("rule").len(), 5);
            assert_eq!(objects("chain").len(), 2);
            handle_of_the_ipv6_rule().expect("a rule that leads to chain ipv6")
        };
        let handle = mend(&mut nft);
        for damage in [
            &format!("delete rule inet apiban prerouting handle {handle}"),
            "flush ruleset",
            "delete table inet apiban",
            "flush chain inet apiban prerouting",
            "flush chain inet apiban ipv6",
            "flush chain inet apiban prerouting; flush chain inet apiban ipv6; delete chain inet apiban ipv6",
            // As version 0.2.0 made it.
            "flush chain inet apiban prerouting; flush chain inet apiban ipv6; delete chain inet apiban ipv6; \
             add rule inet apiban prerouting icmpv6 type 135-136 accept comment \"apiban.so neighbours\"; \
             add rule inet apiban prerouting ip saddr @hosts4 counter drop comment \"apiban.so hosts4\"; \
             add rule inet apiban prerouting ip6 saddr @hosts6 counter drop comment \"apiban.so hosts6\"",
            "add rule inet apiban prerouting meta nfproto ipv6 goto ipv6 comment \"apiban.so ipv6\"",
            "flush table inet apiban",
            "flush set inet apiban hosts4",
            "delete element inet apiban nets4_24 { 198.51.100.0 }",
            "add table inet apiban { flags dormant; }",
            "chain inet apiban prerouting { policy drop; }",
            "insert rule inet apiban prerouting accept",
            "flush chain inet apiban prerouting; delete chain inet apiban prerouting",
            "flush chain inet apiban ipv6; delete set inet apiban hosts6",
            "add set inet apiban mine { type ipv4_addr; }",
        ] {
            run("nft", &[damage]);
            assert!(!nft.intact().unwrap(), "{damage}");
            mend(&mut nft);
        }
        // What others do elsewhere does not matter.
        run("nft", &["add table inet other"]);
        assert!(nft.intact().unwrap());
        run("nft", &["add chain inet apiban aside"]);
        assert!(nft.intact().unwrap());
        // A change to a table that is gone says so.
        run("nft", &["flush ruleset"]);
        let error = nft.apply(&[add("192.0.2.2", 9)]).unwrap_err();
        assert!(matches!(error, Error::Lost(_)), "{error:?}");
    });
}

#[test]
fn a_restart_adopts_what_is_there() {
    in_namespace(|| {
        let mut first = ready();
        first
            .apply(&[
                add("127.0.0.9", 600),
                add("192.0.2.2", 600),
                add("192.0.2.3", 600),
                add("2001:db8::/64", 600),
            ])
            .unwrap();
        let v4 = server("127.0.0.1");
        assert!(!arrives(&v4, "127.0.0.9", "127.0.0.1"));
        drop(first);

        let mut second = Nft::new(Settings::default());
        let rest = second
            .reconcile(&[
                element("127.0.0.9", 600),
                element("192.0.2.2", 60),
                element("192.0.2.4", 600),
                element("2001:db8::/64", 600),
            ])
            .unwrap();
        assert!(rest.is_empty());
        assert!(!arrives(&v4, "127.0.0.9", "127.0.0.1"));
        assert_eq!(addresses("hosts4"), ["127.0.0.9", "192.0.2.2", "192.0.2.4"]);
        assert!(elements("hosts4")[1].1 <= 60);
        assert_eq!(addresses("nets6_64"), ["2001:db8::"]);
        assert_eq!(objects("rule").len(), 5);
        assert!(second.intact().unwrap());
        // The rules' counters lived on.
        assert_eq!(second.report().unwrap().dropped, Some(2));
    });
}

#[test]
fn the_operators_tables_are_never_touched() {
    in_namespace(|| {
        let own = "table inet mine { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; \
                   chain input { type filter hook input priority 0; policy accept; \
                   ip saddr @s drop; }; }; table inet apiban { chain x { accept; }; }";
        run("nft", &[own]);
        let before = run("nft", &["list", "ruleset"]);
        let mut nft = Nft::new(Settings::default());
        for error in [
            nft.reset().unwrap_err(),
            nft.reconcile(&[]).unwrap_err(),
            nft.probe().unwrap_err(),
        ] {
            assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
            assert!(error.to_string().contains("nft_table"), "{error}");
        }
        nft.remove().unwrap();
        assert_eq!(run("nft", &["list", "ruleset"]), before);
        let mut other = named("sip_bans");
        other.reset().unwrap();
        other.apply(&[add("192.0.2.7", 60)]).unwrap();
        other.remove().unwrap();
        assert_eq!(run("nft", &["list", "ruleset"]), before);
    });
}

/// While a table of the last version is replaced, every packet of a banned source is dropped.
#[test]
fn a_table_of_the_last_version_is_replaced_without_a_gap() {
    for hook in [Hook::PREROUTING, Hook::INPUT] {
        in_namespace(move || {
            run("nft", &[LAST_VERSION]);
            run(
                "nft",
                &["add element inet apiban local4 { 127.0.0.9 timeout 1h }"],
            );
            let v4 = server("127.0.0.1");
            assert!(!arrives(&v4, "127.0.0.9", "127.0.0.77"));
            let wanted = many_and("127.0.0.9");
            let settings = Settings {
                hook,
                ..Settings::default()
            };
            let mut nft = Nft::new(settings);
            let sent = sent_while("127.0.0.9", &v4, || {
                nft.reconcile(&wanted).map(drop).unwrap()
            });
            assert!(!arrives(&v4, "127.0.0.9", "127.0.0.77"));
            println!("{sent} packets while the table was replaced, none arrived");
            assert!(sent > 10);
            assert_eq!(set_names(), ["hosts4", "hosts6"]);
            assert_eq!(objects("chain").len(), 2);
            assert_eq!(objects("chain")[0]["hook"], hook.chain);
            assert!(nft.intact().unwrap());
        });
    }
}

/// Kernels before 5.9 keep no comment on a table: those on its sets say whose it is.
#[test]
fn a_table_is_ours_by_the_comments_of_its_sets() {
    in_namespace(|| {
        run(
            "nft",
            &[&LAST_VERSION.replacen("comment \"apiban.so\";", "", 1)],
        );
        let mut nft = Nft::new(Settings::default());
        nft.reconcile(&[element("192.0.2.1", 600)]).unwrap();
        assert_eq!(set_names(), ["hosts4", "hosts6"]);
        assert!(nft.intact().unwrap());
        // And one without any is somebody else's.
        drop(nft);
        run("nft", &["delete", "table", "inet", "apiban"]);
        run(
            "nft",
            &[&LAST_VERSION.replace("comment \"apiban.so\";", "")],
        );
        let mut nft = Nft::new(Settings::default());
        let refused = nft.reconcile(&[]).unwrap_err();
        assert!(refused.to_string().contains("is not ours"), "{refused}");
        nft.remove().unwrap();
        assert_eq!(set_names(), ["feed4", "feed6", "local4", "local6"]);
    });
}

#[test]
fn a_table_has_one_living_owner() {
    in_namespace(|| {
        let mut first = ready();
        first.reconcile(&[element("192.0.2.1", 600)]).unwrap();
        let before = run("nft", &["list", "ruleset"]);
        let mut second = Nft::new(Settings::default());
        for refused in [
            second.reset().unwrap_err(),
            second.reconcile(&[element("192.0.2.2", 600)]).unwrap_err(),
            second.probe().unwrap_err(),
        ] {
            assert!(matches!(refused, Error::Unsupported(_)), "{refused:?}");
            assert!(refused.to_string().contains("set nft_table"), "{refused}");
        }
        second.remove().unwrap();
        assert_eq!(remove_leftovers(None, &name("apiban"), 0).unwrap(), []);
        let same = |now: String| now.split("expires").next() == before.split("expires").next();
        assert!(same(run("nft", &["list", "ruleset"])));
        assert!(first.intact().unwrap());
        // Its owner gone, the table is adopted with what it holds.
        drop(first);
        second.reconcile(&[element("192.0.2.2", 600)]).unwrap();
        assert_eq!(addresses("hosts4"), ["192.0.2.2"]);
        assert!(second.intact().unwrap());
    });
}

#[test]
fn tables_of_earlier_runs_are_removed_and_no_others() {
    in_namespace(|| {
        let make = |table: &str, instance: u32| {
            let settings = Settings {
                table: name(table),
                instance,
                ..Settings::default()
            };
            let mut nft = Nft::new(settings);
            nft.reset().unwrap();
            nft
        };
        let names = || -> Vec<String> {
            let tables = objects("table");
            let mut names: Vec<_> = tables
                .iter()
                .map(|table| table["name"].as_str().unwrap().to_owned())
                .collect();
            names.sort();
            names
        };
        run("nft", &[LAST_VERSION]);
        run("nft", &["add table inet mine"]);
        let _lives = make("lives", 1);
        drop((make("old_name", 1), make("neighbour", 2), make("kept", 1)));
        let removed = remove_leftovers(Some(&name("kept")), &name("apiban"), 1).unwrap();
        assert_eq!(removed, ["apiban", "old_name"].map(name));
        assert_eq!(names(), ["kept", "lives", "mine", "neighbour"]);
    });
}
