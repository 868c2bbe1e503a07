//! `apiban check` and `apiban list`: answers, exit codes, and what bad input is told.

use super::program::{bare, ran, Program};
use apiban_testing::feed_server::{Fault, FeedServer, Options};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const KEY: &str = "sEcRet0123456789";

fn service() -> FeedServer {
    FeedServer::start(Options::new(KEY)).expect("the stand-in for the service")
}

/// A program that may ask this service.
fn asking(service: &FeedServer, version: u8) -> Program {
    let program = Program::new(&format!(
        "api_url = \"{}\"\napi_version = {version}\ntrust_self = false\n",
        service.url()
    ));
    program.hold(&["192.0.2.1", "198.51.100.0/24", "2001:db8::7"]);
    program
}

#[test]
fn check_ends_like_grep() {
    let program = Program::new("trust_self = false\n");
    program.hold(&["192.0.2.1", "198.51.100.0/24", "2001:db8::7"]);
    let listed = program.run(&[
        "check",
        "203.0.113.1",
        "::ffff:192.0.2.1",
        "198.51.100.9",
        "[2001:db8::7]",
    ]);
    assert_eq!(listed.code, 0, "{listed:?}");
    assert_eq!(
        listed.out.matches("listed by APIBAN").count(),
        3,
        "{listed:?}"
    );
    let unknown = program.run(&["check", "203.0.113.1", "2001:db8::8"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert_eq!(
        unknown.out,
        "203.0.113.1: not listed\n2001:db8::8: not listed\n"
    );
    for bad in ["x", "192.0.2.1/33", "010.0.0.1"] {
        let refused = program.run(&["check", bad]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.err.contains(bad), "{refused:?}");
    }
    let json = program
        .run(&["check", "--json", "198.51.100.0/25", "198.51.0.0/16"])
        .ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["entry"], "198.51.100.0/24");
    assert_eq!(
        (&json[1]["listed"], &json[1]["inside"]),
        (&Value::from(false), &Value::from(1))
    );
}

#[test]
fn live_asks_both_versions_for_what_is_not_in_the_state_file() {
    for version in [1, 2] {
        let service = service();
        service.list(&["203.0.113.5"]);
        let program = asking(&service, version);
        let check = |ip: &str| {
            let mut command = program.command(&["check", "--live", ip]);
            ran(command.env("APIBAN_KEY", KEY))
        };
        assert_eq!(check("192.0.2.1").code, 0);
        assert_eq!(service.requests().len(), 0, "the state file knew it");
        let listed = check("203.0.113.5");
        assert_eq!(
            (listed.code, service.requests().len()),
            (0, 1),
            "{listed:?}"
        );
        assert!(listed.out.contains("listed by the service"), "{listed:?}");
        assert_eq!(check("203.0.113.6").code, 1);
        // Both requests are counted where the next program looks, and the list is still there.
        let state = apiban::state::load(&program.state_file()).unwrap().unwrap();
        assert_eq!(state.feed.unwrap().budget.len(), 2);
        assert_eq!(state.listed.len(), 3);
    }
}

#[test]
fn live_tells_every_trouble_without_the_key() {
    let service = service();
    let program = asking(&service, 1);
    let refused = program.run(&["check", "--live", "203.0.113.5"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("APIBAN_KEY"), "{refused:?}");
    for (fault, said) in [
        (Fault::RateLimited(None), "too many requests"),
        (Fault::Unauthorized(403), "refuses the API key"),
        (Fault::Status(503, None), "HTTP status 503"),
        (Fault::Html, "not JSON"),
        (Fault::Drop, "apiban: "),
        (Fault::Hang, "timeout after 1 s"),
        (Fault::EchoKey, "another shape"),
    ] {
        service.set_fault(fault.clone(), Some(1));
        let path = program.file("apiban.key", KEY);
        let text = format!(
            "api_url = \"{}\"\napi_version = 1\nhttp_timeout = 1\nrate_limit_requests = 100\n\
             api_key_file = \"{}\"\nstate_file = \"\"\n",
            service.url(),
            path.display()
        );
        let config = program.file("faulty.toml", &text);
        let config = config.to_str().unwrap();
        let ran = ran(&mut bare(&[
            "check",
            "--live",
            "203.0.113.5",
            "--config",
            config,
        ]));
        assert_eq!(ran.code, 2, "{fault:?}: {ran:?}");
        assert!(ran.err.contains(said), "{fault:?}: {ran:?}");
        assert!(!ran.err.contains(KEY) && !ran.out.contains(KEY), "{ran:?}");
    }
}

#[test]
fn the_list_in_every_form_without_the_trusted() {
    let program = Program::new("trust = [\"192.0.2.9\", \"203.0.113.0/24\"]\ntrust_self = false\n");
    program.hold(&[
        "198.51.100.7",
        "192.0.2.9",
        "2001:db8::1",
        "192.0.2.10",
        "203.0.113.77",
        "192.0.2.1",
    ]);
    let sorted = "192.0.2.1\n192.0.2.10\n198.51.100.7\n2001:db8::1\n";
    assert_eq!(program.run(&["list"]).ok(), sorted);
    assert_eq!(program.run(&["list", "-6"]).ok(), "2001:db8::1\n");
    assert_eq!(program.run(&["list", "--source", "local"]).ok(), "");
    let json: Value = serde_json::from_str(&program.run(&["list", "--json"]).ok()).unwrap();
    let ips: Vec<&str> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| ban["ip"].as_str().unwrap())
        .collect();
    assert_eq!(ips.join("\n") + "\n", sorted);
    let csv = program.run(&["list", "--format", "csv"]).ok();
    assert_eq!(csv.lines().next(), Some("ip,source,since,until"));
    assert_eq!(csv.lines().count(), 5);
    // Loopback and the host's own addresses are trusted unless the configuration says otherwise.
    let own = Program::new("");
    own.hold(&["127.0.0.5", "192.0.2.1"]);
    assert!(!own.run(&["list"]).ok().contains("127.0.0.5"));
}

#[test]
fn bad_input_gets_one_line_that_names_the_file_and_the_remedy() {
    let program = Program::new("");
    let said = |arguments: &[&str], text: &[&str]| {
        let ran = ran(&mut bare(arguments));
        assert_eq!(ran.code, 2, "{ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
        assert!(text.iter().all(|text| ran.err.contains(text)), "{ran:?}");
        assert!(
            !ran.err.contains("os error") && ran.out.is_empty(),
            "{ran:?}"
        );
    };
    let path = |name: &str| program.dir().join(name).display().to_string();
    said(
        &["list", "--config", "/nonexistent.toml"],
        &["/nonexistent.toml: No such file", "--config"],
    );
    program.file("bad.toml", "poll_interval = 300\nfirewall = \"pf\"\n");
    said(
        &["list", "--config", &path("bad.toml")],
        &["bad.toml:2: parameter \"firewall\"", "accepted:"],
    );
    program.file("config.json", "{\"APIKEY\":\"a\",\n");
    said(
        &["list", "--config", &path("config.json")],
        &["config.json:2: "],
    );
    said(
        &["list", "--state-file", &path("none")],
        &["none: there is no state file yet", "apiban sync"],
    );
    program.file("other", "apiban-state 9 crc32=00000000\n{}");
    said(
        &["list", "--state-file", &path("other")],
        &["other: not a state file of this version", "move it away"],
    );
    program.hold(&["192.0.2.1"]);
    let mut broken = fs::read(program.state_file()).unwrap();
    broken.truncate(broken.len() - 3);
    fs::write(path("broken"), broken).unwrap();
    said(
        &["list", "--state-file", &path("broken")],
        &["broken: the checksum is wrong"],
    );
    said(&["list", "--state-file", &path("")], &["it is not a file"]);
    // What cannot be read is left alone.
    assert!(fs::metadata(path("broken")).is_ok() && fs::metadata(path("other")).is_ok());
}

#[test]
fn a_file_that_only_root_may_read_is_named() {
    let program = Program::new("");
    program.hold(&["192.0.2.1"]);
    fs::set_permissions(program.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(env!("CARGO_BIN_EXE_apiban"));
    command
        .arg("list")
        .arg("--state-file")
        .arg(program.state_file());
    let ran = ran(command.env_remove("APIBAN_KEY").env("HOME", "/nonexistent"));
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.err
            .contains("apiban.state: Permission denied; run this as root"),
        "{ran:?}"
    );
}

#[test]
fn help_man_pages_and_completions_come_from_one_definition() {
    let help = ran(&mut bare(&["--help"])).ok();
    let page = ran(&mut bare(&["man"])).ok();
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    ran(&mut bare(&["man", "--directory", directory])).ok();
    for command in ["check", "list", "export"] {
        assert!(
            help.contains(command) && page.contains(command),
            "{command}"
        );
        let of_command = ran(&mut bare(&[command, "--help"])).ok();
        assert!(of_command.contains("Examples:"), "{of_command}");
        let page = fs::read_to_string(folder.path().join(format!("apiban-{command}.1"))).unwrap();
        assert!(page.contains("Examples:"), "{page}");
        for shell in ["bash", "zsh", "fish"] {
            assert!(
                ran(&mut bare(&["completions", shell]))
                    .ok()
                    .contains(command),
                "{shell}"
            );
        }
    }
    let bash = folder.path().join("bash");
    fs::write(&bash, ran(&mut bare(&["completions", "bash"])).ok()).unwrap();
    let checked = std::process::Command::new("bash")
        .arg("-n")
        .arg(&bash)
        .status()
        .unwrap();
    assert!(checked.success());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_trouble() {
    let program = Program::new("trust_self = false\n");
    let many: Vec<String> = (0..20_000)
        .map(|n| format!("20.0.{}.{}", n / 250, n % 250))
        .collect();
    program.hold(&many);
    let mut child = program
        .command(&["list"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}
