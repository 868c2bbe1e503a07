//! The commands through kamcli, which speaks JSON-RPC over a socket.

use std::path::Path;
use std::process::Command;

use apiban_testing::kamailio::{Kamailio, Release};

/// Runs `kamcli jsonrpc ARGUMENTS` against this Kamailio; returns what it prints.
fn kamcli(kamailio: &Kamailio, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["20", "kamcli", "--no-default-configs", "-c"]);
    command.arg(configuration(kamailio)).arg("jsonrpc");
    printed(command.args(arguments))
}

/// Writes a configuration of kamcli for this Kamailio; returns its name as the release sees it.
fn configuration(kamailio: &Kamailio) -> std::path::PathBuf {
    let dir = kamailio.inner_dir();
    let text = format!(
        "[main]\n[apiparams]\n[ctl]\ntype=jsonrpc\n[jsonrpc]\ntransport=socket\nsrvaddr={0}/rpc\n\
         rcvaddr={0}/kamcli-reply\npath=none\nrplnamebase=none\nrpldir=none\noutformat=json\n",
        dir.display()
    );
    std::fs::write(kamailio.dir().join("kamcli.ini"), text).expect("kamcli.ini");
    dir.join("kamcli.ini")
}

fn printed(command: &mut Command) -> String {
    let output = command.output().expect("kamcli (apt-get install kamcli)");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn commands_answer_through_kamcli() {
    let kamailio = Kamailio::builder().start();
    let status = kamcli(&kamailio, &["apiban.status"]);
    assert!(status.contains("\"state\": \"disabled\""), "{status}");
    let blocked = kamcli(&kamailio, &["apiban.block", "192.0.2.7", "60", "scan"]);
    assert!(
        blocked.contains("192.0.2.7 is banned for 60 seconds"),
        "{blocked}"
    );
    let list = kamcli(&kamailio, &["apiban.list", "local"]);
    assert!(
        list.contains("\"ip\": \"192.0.2.7\"") && list.contains("\"reason\": \"scan\""),
        "{list}"
    );
    let fault = kamcli(&kamailio, &["apiban.check", "nonsense"]);
    assert!(fault.contains("is not an IP address"), "{fault}");
}

/// Where Debian puts kamcli's own files.
const PACKAGE: &str = "usr/lib/python3/dist-packages/kamcli";

/// The command file of the examples, in a copy of the release's kamcli: that of bookworm and that of sid.
#[test]
fn the_command_file_works_in_kamcli_2_and_3() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kamcli/cmd_apibanso.py");
    let mut tried = 0;
    for release in Release::all() {
        let root = match &release {
            Release::Host => Path::new("/"),
            Release::Root { path, .. } => path,
        };
        // tests/run installs it on this machine and in the root of sid; that of trixie does not start.
        if !root.join(PACKAGE).exists() {
            continue;
        }
        tried += 1;
        let kamailio = Kamailio::builder().release(&release).start();
        let copy = kamailio.dir().join("python");
        std::fs::create_dir(&copy).expect("a directory");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(root.join(PACKAGE))
            .arg(&copy)
            .status();
        assert!(copied.expect("cp").success());
        std::fs::copy(&file, copy.join("kamcli/commands/cmd_apibanso.py")).expect("the example");
        let config = configuration(&kamailio);
        let apibanso = |arguments: &[&str]| {
            let mut command = release.command("env");
            command
                .arg(format!(
                    "PYTHONPATH={}",
                    kamailio.inner_dir().join("python").display()
                ))
                .args([
                    "PYTHONDONTWRITEBYTECODE=1",
                    "LC_ALL=C.UTF-8",
                    "timeout",
                    "20",
                    "kamcli",
                    "--no-default-configs",
                    "-c",
                ])
                .arg(&config)
                .arg("apibanso")
                .args(arguments);
            printed(&mut command)
        };
        let has = |arguments: &[&str], wanted: &str| {
            let said = apibanso(arguments);
            assert!(
                said.contains(wanted),
                "{} {arguments:?}: {said}",
                release.name()
            );
        };
        has(&["--help"], "kamcli apibanso check 192.0.2.7");
        has(&["status"], "\"state\": \"disabled\"");
        has(
            &["block", "192.0.2.7", "60", "scans a lot"],
            "192.0.2.7 is banned for 60 seconds",
        );
        has(&["check", "192.0.2.7"], "\"reason\": \"scans a lot\"");
        has(&["list", "local", "--limit", "1"], "\"ip\": \"192.0.2.7\"");
        has(&["list", "--offset", "1"], "\"result\"");
        has(&["top", "3"], "192.0.2.0/24");
        has(
            &["trust", "add", "192.0.2.8", "60", "ticket 4711"],
            "192.0.2.8",
        );
        has(&["trust", "list"], "ticket 4711");
        has(&["trust", "del", "192.0.2.8"], "has ended");
        has(&["unblock", "192.0.2.7"], "\"result\"");
        has(&["unblock", "192.0.2.7"], "\"error\"");
        has(&["check", "nonsense"], "is not an IP address");
        has(&["reload"], "\"jsonrpc\"");
        has(&["flush", "local"], "\"result\"");
        has(&["flush", "everything"], "is not one of");
        has(&["block", "192.0.2.7", "soon"], "soon");
        has(&["nodes"], "\"jsonrpc\"");
    }
    assert!(tried > 0, "kamcli is not installed: apt-get install kamcli");
}
