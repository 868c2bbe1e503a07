//! `apiban export`: every format is given to a real reader of it, if there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::{drop_members_of, ran, Program, Ran};
use apiban_testing::kamailio::{Kamailio, Release};
use apiban_testing::netns::{in_namespace, objects, run};
use apiban_testing::wait::{wait_until, SOON};

/// Neighbours, a stranger, a prefix with an address in it, IPv6, and one who is trusted.
const LIST: [&str; 8] = [
    "203.0.113.2",
    "203.0.113.3",
    "203.0.113.9",
    "198.51.100.0/24",
    "198.51.100.77",
    "2001:db8::7",
    "2001:db8:1::/64",
    "203.0.113.66",
];

fn program() -> Program {
    let program = Program::new("trust = \"203.0.113.66\"\ntrust_self = false\n");
    program.hold(&LIST);
    program
}

/// Exports to a file of the program's directory.
fn export(program: &Program, arguments: &[&str], file: &str) -> PathBuf {
    let path = program.dir().join(file);
    let mut all = vec!["export"];
    all.extend(arguments);
    let path_text = path.display().to_string();
    all.extend(["--output", &path_text]);
    let ran = program.run(&all);
    assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    let text = fs::read_to_string(&path).expect("an export");
    assert!(!text.contains("203.0.113.66"), "trusted: {text}");
    path
}

/// Feeds a file to a program's standard input.
fn fed(program: &str, arguments: &[&str], input: &Path) {
    let file = fs::File::open(input).expect("an export");
    let output = Command::new(program)
        .args(arguments)
        .stdin(file)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a name in UTF-8")
}

#[test]
fn nft_takes_it_in_one_transaction_and_again() {
    in_namespace(|| {
        let program = program();
        let file = export(&program, &["nft"], "list.nft");
        run("nft", &["-c", "-f", path(&file)]);
        run("nft", &["-f", path(&file)]);
        // The rules are those that the file itself gives.
        let text = fs::read_to_string(&file).unwrap();
        for command in text.lines().filter_map(|line| line.strip_prefix("#   ")) {
            run("sh", &["-c", command]);
        }
        let rules = objects("rule").len();
        program.hold(&["203.0.113.9", "203.0.113.10"]);
        run(
            "nft",
            &[
                "-f",
                path(&export(&program, &["nft", "--force"], "list.nft")),
            ],
        );
        let sets = objects("set");
        let members = |name: &str| {
            let set = sets.iter().find(|set| set["name"] == name).expect(name);
            set["elem"].as_array().map_or(Vec::new(), |all| {
                all.iter()
                    .map(|one| one["elem"]["val"].to_string())
                    .collect()
            })
        };
        let mut v4: Vec<String> = members("v4");
        v4.sort();
        assert_eq!(v4, ["\"203.0.113.10\"", "\"203.0.113.9\""]);
        assert!(members("v4_nets").is_empty() && members("v6").is_empty());
        assert_eq!((rules, objects("rule").len()), (4, 4), "the rules stay");
        let timeout = sets[0]["elem"][0]["elem"]["timeout"]
            .as_u64()
            .expect("a timeout");
        assert!((603_000..=604_000).contains(&timeout), "{timeout}");
    });
}

#[test]
fn ipset_swaps_what_rules_name() {
    in_namespace(|| {
        let program = program();
        let file = export(&program, &["ipset", "--name", "sip"], "list.ipset");
        fed("ipset", &["restore"], &file);
        drop_members_of("sip-v4");
        fed("ipset", &["restore"], &file);
        assert_eq!(run("ipset", &["-n", "list"]), "sip-v4\nsip-v6\n");
        for listed in ["203.0.113.2", "198.51.100.1"] {
            run("ipset", &["test", "sip-v4", listed]);
        }
        run("ipset", &["test", "sip-v6", "2001:db8:1::9"]);
        let stranger = Command::new("ipset")
            .args(["test", "sip-v4", "203.0.113.66"])
            .status()
            .unwrap();
        assert!(!stranger.success());
    });
}

#[test]
fn iptables_refills_one_chain_and_leaves_the_jump() {
    in_namespace(|| {
        let program = program();
        for (format, tool, members) in [("iptables", "iptables", 5), ("ip6tables", "ip6tables", 2)]
        {
            let restore = format!("{tool}-restore");
            let file = export(&program, &[format], format);
            fed(&restore, &["--test", "-n"], &file);
            fed(&restore, &["-n"], &file);
            run(tool, &["-A", "INPUT", "-j", "APIBAN"]);
            fed(&restore, &["-n"], &file);
            let rules = run(tool, &["-S"]);
            assert_eq!(rules.matches("-A APIBAN -s").count(), members, "{rules}");
            assert_eq!(rules.matches("-A INPUT -j APIBAN").count(), 1, "{rules}");
        }
    });
}

#[test]
fn haproxy_and_nginx_read_it() {
    let program = program();
    let list = export(&program, &["haproxy"], "apiban.lst");
    let haproxy = program.file(
        "haproxy.cfg",
        &format!(
            "defaults\n mode http\n timeout client 1s\n timeout server 1s\n timeout connect 1s\n\
             frontend f\n bind 127.0.0.1:1\n http-request deny if {{ src -f {} }}\n",
            list.display()
        ),
    );
    run("haproxy", &["-c", "-f", path(&haproxy)]);
    let geo = export(&program, &["nginx"], "apiban.geo");
    let nginx = program.file(
        "nginx.conf",
        &format!(
            "pid {0}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n access_log off;\n include {1};\n \
             server {{ listen 127.0.0.1:1; if ($apiban) {{ return 403; }} }}\n}}\n",
            program.dir().display(),
            geo.display()
        ),
    );
    let checked = Command::new("nginx")
        .args(["-t", "-c", path(&nginx)])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&checked.stderr);
    assert!(
        checked.status.success() && !text.contains("[warn]"),
        "{text}"
    );
    // The readers do complain about what is wrong.
    fs::write(&list, "203.0.113.999\n").unwrap();
    assert!(!Command::new("haproxy")
        .args(["-c", "-f", path(&haproxy)])
        .status()
        .unwrap()
        .success());
}

#[test]
fn freeswitch_is_well_formed_and_opensips_runs() {
    let program = program();
    let file = export(&program, &["freeswitch"], "acl.xml");
    run("xmllint", &["--noout", path(&file)]);
    let count = run(
        "xmllint",
        &[
            "--xpath",
            "count(//list[@name='apiban']/node[@type='deny'])",
            path(&file),
        ],
    );
    assert_eq!(count.trim(), "5");
    let sql = export(&program, &["opensips"], "address.sql");
    // The columns of the table as OpenSIPS creates it for SQLite.
    let script = "import sqlite3,sys\n\
        db=sqlite3.connect(':memory:',isolation_level=None)\n\
        db.execute('CREATE TABLE address (id INTEGER PRIMARY KEY, grp INTEGER DEFAULT 0 NOT NULL, ip CHAR(50) NOT NULL, mask INTEGER DEFAULT 32 NOT NULL, port INTEGER DEFAULT 0 NOT NULL, proto CHAR(4) DEFAULT \"any\" NOT NULL, pattern CHAR(64), context_info CHAR(32))')\n\
        db.execute('INSERT INTO address (grp, ip) VALUES (7, \"192.0.2.200\")')\n\
        [db.executescript(open(sys.argv[1]).read()) for _ in range(2)]\n\
        print(*[f'{g} {i}/{m}' for g,i,m in db.execute('SELECT grp, ip, mask FROM address ORDER BY grp, ip')],sep='\\n')\n";
    let rows = run("python3", &["-c", script, path(&sql)]);
    assert_eq!(
        rows,
        "1 198.51.100.0/24\n1 198.51.100.77/32\n1 2001:db8:1::/64\n1 2001:db8::7/128\n\
         1 203.0.113.2/32\n1 203.0.113.3/32\n1 203.0.113.9/32\n7 192.0.2.200/32\n"
    );
}

#[test]
fn kamailio_without_the_module_turns_a_listed_source_away() {
    let program = Program::new("trust_self = false\n");
    program.hold(&["127.0.0.77", "127.0.88.0/24"]);
    let file = export(&program, &["kamailio"], "address.list");
    let records = fs::read_to_string(&file).unwrap();
    for release in Release::all() {
        let kamailio = Kamailio::plain()
            .release(&release)
            .load("permissions")
            .modparam("permissions", "address_file", "@DIR@/address.list")
            .file("address.list", &records)
            .request_route("if (allow_source_address(\"1\")) { exit; }")
            .start();
        kamailio.assert_dropped("127.0.0.77");
        kamailio.assert_dropped("127.0.88.9");
        kamailio.assert_answered("127.0.0.78");
    }
}

#[test]
fn fail2ban_bans_them_all() {
    let program = program();
    let dir = program.dir().display().to_string();
    fs::create_dir_all(program.dir().join("conf/action.d")).unwrap();
    for folder in ["filter.d", "jail.d", "fail2ban.d"] {
        fs::create_dir_all(program.dir().join("conf").join(folder)).unwrap();
    }
    program.file(
        "conf/fail2ban.conf",
        &format!("[Definition]\nloglevel = INFO\nlogtarget = {dir}/log\nsyslogsocket = auto\nsocket = {dir}/sock\npidfile = {dir}/pid\ndbfile = None\ndbpurgeage = 1d\n"),
    );
    program.file(
        "conf/action.d/none.conf",
        "[Definition]\nactionban = true\n",
    );
    program.file(
        "conf/filter.d/none.conf",
        "[Definition]\nfailregex = ^none <HOST>$\n",
    );
    program.file("watched", "");
    program.file(
        "conf/jail.conf",
        &format!("[apiban]\nenabled = true\nfilter = none\naction = none\nbackend = polling\nlogpath = {dir}/watched\nbantime = 600\n"),
    );
    let conf = format!("{dir}/conf");
    let client = |arguments: &[&str]| {
        let mut all = vec!["-c", conf.as_str()];
        all.extend(arguments);
        run("fail2ban-client", &all)
    };
    client(&["-t"]);
    client(&["start"]);
    // The script finds the client of this server.
    let bin = program.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    let shim = program.file(
        "bin/fail2ban-client",
        &format!("#!/bin/sh\nexec /usr/bin/fail2ban-client -c {conf} \"$@\"\n"),
    );
    fs::set_permissions(&shim, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = export(&program, &["fail2ban"], "ban.sh");
    let done = Command::new("sh")
        .arg(&script)
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .output()
        .unwrap();
    let mut banned = String::new();
    wait_until("all of them banned", SOON, || {
        banned = client(&["get", "apiban", "banip", "\n"]);
        LIST[..7]
            .iter()
            .all(|ip| banned.lines().any(|line| line.trim() == *ip))
    });
    client(&["stop"]);
    assert!(done.status.success(), "{done:?}");
    assert!(!banned.contains("203.0.113.66"), "{banned}");
}

/// The members of a list as another program reads them back from a device's configuration.
fn members(program: &Program, dialect: &str, text: &str) -> Vec<String> {
    let cache = apiban_testing::cache_dir().display().to_string();
    let fwshift = format!("{cache}/fwshift/bin/fwshift");
    assert!(
        Path::new(&fwshift).exists(),
        "{fwshift} is missing: tests/run installs it"
    );
    let file = match dialect {
        // The reader wants something that looks like a router.
        "ios" => program.file(
            "device.cfg",
            &format!("{text}\nip access-list extended X\n permit ip any any\n"),
        ),
        _ => program.file("device.cfg", text),
    };
    let output = Command::new(fwshift)
        .args(["convert", "--from", dialect, "--to", "json", path(&file)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut found = Vec::new();
    collect(&json, &mut found);
    found.sort();
    found.dedup();
    found
}

/// Every text of a JSON value that is an address or a prefix.
fn collect(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => {
            if let Ok(subnet) = text.parse::<apiban::address::Subnet>() {
                found.push(subnet.to_string());
            }
        }
        serde_json::Value::Array(all) => all.iter().for_each(|one| collect(one, found)),
        serde_json::Value::Object(all) => all.values().for_each(|one| collect(one, found)),
        _ => {}
    }
}

/// What the devices must hold: the list without whom is trusted, aggregated where the format is.
const WHOLE: [&str; 7] = [
    "198.51.100.0/24",
    "198.51.100.77",
    "2001:db8:1::/64",
    "2001:db8::7",
    "203.0.113.2",
    "203.0.113.3",
    "203.0.113.9",
];
const AGGREGATED: [&str; 5] = [
    "198.51.100.0/24",
    "2001:db8:1::/64",
    "2001:db8::7",
    "203.0.113.2/31",
    "203.0.113.9",
];

#[test]
fn another_program_reads_the_members_of_device_lists_back() {
    let program = program();
    let text = |format: &str| fs::read_to_string(export(&program, &[format], format)).unwrap();
    assert_eq!(members(&program, "asa", &text("cisco-asa")), AGGREGATED);
    assert_eq!(members(&program, "ios", &text("cisco-ios")), AGGREGATED);
    // The reader passes over the protection of a line, and over lists that no rule names.
    let bare: String = text("routeros")
        .lines()
        .map(|line| {
            line.trim_start_matches(":do { ")
                .trim_end_matches(" } on-error={}")
                .to_owned()
                + "\n"
        })
        .collect();
    let rules = "/ip firewall filter\nadd chain=forward src-address-list=apiban action=drop\n\
                 /ipv6 firewall filter\nadd chain=forward src-address-list=apiban action=drop\n";
    assert_eq!(
        members(&program, "routeros", &format!("{bare}{rules}")),
        WHOLE
    );
}

#[test]
fn a_group_in_use_becomes_the_new_list_without_ever_being_empty() {
    let program = program();
    for (format, dialect, prefix) in [
        ("cisco-asa", "asa", "network-object "),
        ("cisco-ios", "ios", ""),
    ] {
        let old = format!(
            "object-group network apiban\n {prefix}host 192.0.2.200\n {prefix}host 203.0.113.9\n"
        );
        let previous = program.file("previous", &old);
        let file = export(
            &program,
            &[format, "--previous", path(&previous)],
            "difference",
        );
        let difference = fs::read_to_string(&file).unwrap();
        for group in difference.split("object-group ").skip(1) {
            let order: Vec<bool> = group
                .lines()
                .skip(1)
                .map(|line| line.starts_with(" no "))
                .collect();
            assert!(order.is_sorted(), "what is new comes first: {group}");
        }
        // What the device has after the difference, line by line.
        let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
        for line in difference.lines() {
            match line.strip_prefix(" no ") {
                Some(gone) => lines.retain(|line| line.trim() != gone),
                None if line.starts_with(' ') || line.contains("v6-network") => {
                    lines.push(line.to_owned());
                }
                None => {}
            }
            assert!(lines.len() > 1);
        }
        assert_eq!(
            members(&program, dialect, &lines.join("\n")),
            AGGREGATED,
            "{format}"
        );
    }
}

#[test]
fn a_good_file_is_never_replaced_by_a_short_one() {
    let program = Program::new("trust_self = false\n");
    let many: Vec<String> = (0..200).map(|n| format!("20.0.0.{n}")).collect();
    program.hold(&many);
    for format in [
        "plain",
        "json",
        "csv",
        "nft",
        "ipset",
        "iptables",
        "cisco-asa",
        "junos",
        "routeros",
        "nginx",
        "fail2ban",
    ] {
        let arguments = [format];
        let file = export(&program, &arguments, format);
        let before = fs::read(&file).unwrap();
        for short in [&many[..0], &many[..90]] {
            program.hold(short);
            let output = path(&file).to_owned();
            let refused: Ran = program.run(&["export", format, "--output", &output]);
            // Aggregation may make a list of 90 addresses much shorter than one of 200, or not.
            let aggregated = matches!(format, "cisco-asa" | "junos" | "nginx");
            if short.is_empty() || !aggregated {
                assert_eq!(refused.code, 3, "{format}: {refused:?}");
                assert!(refused.err.contains("--force"), "{refused:?}");
                assert_eq!(fs::read(&file).unwrap(), before, "{format}");
            }
        }
        program.hold(&many[..90]);
        let output = path(&file).to_owned();
        assert_eq!(
            program
                .run(&["export", format, "--output", &output, "--force"])
                .code,
            0
        );
        assert_ne!(fs::read(&file).unwrap(), before, "{format}");
        program.hold(&many);
    }
    // Nothing is left beside the files.
    let left = fs::read_dir(program.dir()).unwrap().flatten();
    assert!(!left
        .into_iter()
        .any(|entry| entry.file_name().to_string_lossy().ends_with(".new")));
}

#[test]
fn a_full_disk_and_a_read_only_directory_leave_the_file_as_it_was() {
    let thread = std::thread::spawn(|| {
        use nix::sched::{unshare, CloneFlags};
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
            .expect("root makes a mount namespace");
        let program = Program::new("trust_self = false\n");
        let many: Vec<String> = (0..40_000)
            .map(|n| format!("20.{}.{}.{}", n / 62_500, n / 250 % 250, n % 250))
            .collect();
        program.hold(&many[..100]);
        let mount = program.dir().join("small");
        fs::create_dir(&mount).unwrap();
        run("mount", &["--make-rprivate", "/"]);
        run(
            "mount",
            &["-t", "tmpfs", "-o", "size=64k", "tmpfs", path(&mount)],
        );
        let file = mount.join("list");
        let output = path(&file).to_owned();
        assert_eq!(
            program.run(&["export", "plain", "--output", &output]).code,
            0
        );
        let before = fs::read(&file).unwrap();
        program.hold(&many);
        let full = program.run(&["export", "plain", "--output", &output]);
        assert_eq!(full.code, 2, "{full:?}");
        assert!(
            full.err
                .contains("No space left on device; nothing was written"),
            "{full:?}"
        );
        assert_eq!(fs::read(&file).unwrap(), before);
        assert_eq!(fs::read_dir(&mount).unwrap().count(), 1);
        program.hold(&many[..100]);
        run("mount", &["-o", "remount,ro", path(&mount)]);
        let read_only = program.run(&["export", "plain", "--output", &output]);
        assert_eq!(read_only.code, 2, "{read_only:?}");
        assert!(
            read_only.err.contains("Read-only file system"),
            "{read_only:?}"
        );
        assert_eq!(fs::read(&file).unwrap(), before);
        run("umount", &[path(&mount)]);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn names_and_differences_are_checked() {
    let program = program();
    let bad = program.run(&["export", "nft", "--name", "a; flush ruleset"]);
    assert_eq!(bad.code, 2, "{bad:?}");
    assert!(bad.err.contains("--name"), "{bad:?}");
    let previous = program.file("previous", "");
    let bad = program.run(&["export", "junos", "--previous", path(&previous)]);
    assert_eq!(bad.code, 2, "{bad:?}");
    let bad = program.run(&["export", "cisco-asa", "--previous", "/nonexistent"]);
    assert_eq!(bad.code, 2, "{bad:?}");
    let help = ran(&mut program.command(&["export", "pf2"]));
    assert_eq!(help.code, 2, "{help:?}");
}
