//! `examples/clients`: each script with what of its other side can be had.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::kamailio::{Kamailio, Release};
use apiban_testing::netns::run;
use serde_json::{json, Value};

use super::mirror::Mirror;
use super::program::{ran, Program, Ran};

const KEY: &str = "sEcRet0123456789";
const SOON: Duration = Duration::from_secs(30);
pub const LISTED: [&str; 4] = ["192.0.2.7", "198.51.100.0/24", "203.0.113.5", "2001:db8::7"];

/// The examples, and commands in place of those that they call.
pub struct Examples {
    pub program: Program,
}

impl Examples {
    /// `apiban` is the real one, with a state file that holds this list.
    pub fn with(listed: &[&str]) -> Examples {
        let program = Program::new("trust_self = false\n");
        program.hold(listed);
        Examples::of(program)
    }

    /// `apiban` is the real one, with the configuration of this program.
    pub fn of(program: Program) -> Examples {
        fs::create_dir(program.dir().join("bin")).unwrap();
        let examples = Examples { program };
        let config = examples.file("apiban.toml");
        let real = env!("CARGO_BIN_EXE_apiban");
        examples.command(
            "apiban",
            &format!("exec {real} \"$@\" --config {}", config.display()),
        );
        examples
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.program.dir().join(name)
    }

    /// A command that the examples find before any other.
    pub fn command(&self, name: &str, script: &str) {
        let path = self
            .program
            .file(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A command that does nothing but note its arguments.
    fn noted(&self, name: &str) {
        let calls = self.file("calls").display().to_string();
        self.command(name, &format!("echo \"{name} $*\" >>{calls}"));
    }

    /// What was noted since the last look.
    fn calls(&self) -> String {
        let calls = fs::read_to_string(self.file("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.file("calls"));
        calls
    }

    pub fn run(&self, example: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new(path(example));
        command.args(arguments).stdin(Stdio::null()).env(
            "PATH",
            format!(
                "{}:/usr/sbin:/usr/bin:/sbin:/bin",
                self.file("bin").display()
            ),
        );
        ran(&mut command)
    }
}

fn path(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/clients")
        .join(example)
}

/// The file itself, once more with nothing new, and a list that is suspiciously short.
fn keeps_a_file(example: &str, file: &str, reloads: &str) -> String {
    let examples = Examples::with(&LISTED);
    let commands = ["asterisk", "fs_cli", "scp", "ssh"];
    commands.iter().for_each(|command| examples.noted(command));
    let output = examples.file(file);
    let argument = match example {
        "junos" => vec!["admin@router", examples.program.dir().to_str().unwrap()],
        _ => vec![output.to_str().unwrap()],
    };
    examples.run(example, &argument).ok();
    let calls_of = |examples: &Examples| {
        let calls = examples.calls();
        calls.replace(examples.program.dir().to_str().unwrap(), "DIR")
    };
    assert_eq!(calls_of(&examples), reloads, "{example}");
    let first = fs::read_to_string(&output).unwrap();
    examples.run(example, &argument).ok();
    assert_eq!(examples.calls(), "", "{example}: nothing new");
    // What failed is tried again, though the list is no longer new.
    examples.program.hold(&LISTED[1..]);
    commands
        .iter()
        .for_each(|command| examples.command(command, "exit 1"));
    assert_ne!(examples.run(example, &argument).code, 0, "{example}");
    commands.iter().for_each(|command| examples.noted(command));
    for listed in [&LISTED[1..], &LISTED] {
        examples.program.hold(listed);
        examples.run(example, &argument).ok();
        assert_eq!(calls_of(&examples), reloads, "{example}");
    }
    examples.program.hold::<&str>(&[]);
    let short = examples.run(example, &argument);
    assert_eq!(
        (short.code, examples.calls().as_str()),
        (3, ""),
        "{example}: {short:?}"
    );
    assert_eq!(fs::read_to_string(&output).unwrap(), first, "{example}");
    first
}

#[test]
fn asterisk_freeswitch_and_junos_are_reloaded_only_for_a_new_list() {
    let acl = keeps_a_file(
        "asterisk",
        "apiban.conf",
        "asterisk -rx module reload acl\n",
    );
    assert!(
        acl.contains("[apiban]") && acl.contains("deny=192.0.2.7/32"),
        "{acl}"
    );
    let list = keeps_a_file(
        "freeswitch",
        "apiban.xml",
        "fs_cli -x reloadxml\nfs_cli -x reloadacl\n",
    );
    // As FreeSWITCH sees it after its preprocessor.
    let examples = Examples::with(&LISTED);
    let whole = examples.program.file(
        "acl.conf.xml",
        &format!("<configuration><network-lists>{list}</network-lists></configuration>"),
    );
    run("xmllint", &["--noout", whole.to_str().unwrap()]);
    // Its documented rule: the node with the longest prefix decides, and the default where none fits.
    let rule = "import sys, ipaddress, xml.etree.ElementTree as xml\n\
        nets = xml.parse(sys.argv[1]).find('.//list[@name=\"apiban\"]')\n\
        ip = ipaddress.ip_address(sys.argv[2])\n\
        nodes = [(ipaddress.ip_network(node.get('cidr')), node.get('type')) for node in nets]\n\
        fit = [(net.prefixlen, kind) for net, kind in nodes if ip in net]\n\
        print(max(fit)[1] if fit else nets.get('default'))";
    for (ip, decision) in [
        ("192.0.2.7", "deny"),
        ("198.51.100.77", "deny"),
        ("2001:db8::7", "deny"),
        ("192.0.2.8", "allow"),
        ("198.51.101.1", "allow"),
        ("2001:db8::8", "allow"),
    ] {
        let decided = run("python3", &["-c", rule, whole.to_str().unwrap(), ip]);
        assert_eq!(decided.trim(), decision, "{ip}");
    }
    let set = keeps_a_file(
        "junos",
        "apiban.set",
        "scp -q DIR/apiban.set admin@router:/var/tmp/apiban.set\n\
         ssh -T admin@router configure private; load set /var/tmp/apiban.set; commit and-quit\n",
    );
    assert!(set.contains("set policy-options prefix-list"), "{set}");
}

#[test]
fn a_kamailio_without_the_module_follows_the_list() {
    for release in Release::all() {
        let examples = Examples::with(&["127.0.0.77"]);
        let kamailio = Kamailio::plain()
            .release(&release)
            .load("permissions")
            .modparam("permissions", "address_file", "@DIR@/apiban.list")
            .modparam("permissions", "reload_delta", 0)
            .file("apiban.list", "1 192.0.2.1\n")
            .request_route("if (allow_source_address(\"1\")) { exit; }")
            .start();
        // kamcmd of the release, with the socket of this Kamailio.
        let mut kamcmd = release.command("kamcmd");
        kamcmd.args([
            "-s",
            &format!("unix:{}/ctl", kamailio.inner_dir().display()),
        ]);
        let words: Vec<String> = std::iter::once(kamcmd.get_program())
            .chain(kamcmd.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        examples.command(
            "kamcmd",
            &format!(
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin exec {} \"$@\"",
                words.join(" ")
            ),
        );
        kamailio.assert_answered("127.0.0.77");
        let list = kamailio.dir().join("apiban.list");
        examples
            .run("kamailio-permissions", &[list.to_str().unwrap()])
            .ok();
        kamailio.wait_dropped("127.0.0.77", SOON);
        kamailio.assert_answered("127.0.0.78");
    }
}

#[test]
fn opensips_gets_the_list_in_one_transaction() {
    let examples = Examples::with(&LISTED);
    let database = examples.file("opensips.sqlite");
    // Debian's Python has SQLite; its command line is a package of its own.
    examples.command(
        "sqlite3",
        "exec python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).executescript(sys.stdin.read())' \"$@\"",
    );
    let sql = |text: &str| {
        let script = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1], isolation_level=None).execute(sys.argv[2]), sep='\\n')";
        run("python3", &["-c", script, database.to_str().unwrap(), text])
    };
    sql("CREATE TABLE address (id INTEGER PRIMARY KEY, grp INTEGER DEFAULT 0 NOT NULL, ip CHAR(50) NOT NULL, mask INTEGER DEFAULT 32 NOT NULL, port INTEGER DEFAULT 0 NOT NULL, proto CHAR(4) DEFAULT 'any' NOT NULL, pattern CHAR(64), context_info CHAR(32))");
    examples.noted("opensips-cli");
    examples.run("opensips", &[database.to_str().unwrap()]).ok();
    assert_eq!(examples.calls(), "opensips-cli -x mi address_reload\n");
    examples.program.hold(&LISTED[1..]);
    examples.run("opensips", &[database.to_str().unwrap()]).ok();
    assert_eq!(
        sql("SELECT count(*) FROM address WHERE grp = 1").trim(),
        "(3,)"
    );
}

/// A program in the background; it ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Body of the next request; answers it with `{}`.
fn take_request(listener: &TcpListener) -> (String, Value) {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    stream
        .get_mut()
        .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        .unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

fn post(port: u16, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: agent\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn homer_gets_its_answers_from_the_mirror() {
    let service = FeedServer::start(Options::new(KEY)).unwrap();
    service.list(&["192.0.2.7"]);
    let program = Program::new(&format!(
        "api_key = \"{KEY}\"\napi_url = \"{}\"\ntrust_self = false\nfeed_rate_limit = 0\n",
        service.url()
    ));
    let mirror = Mirror::start(&program, "feed");
    mirror.wait_ready_for(KEY);
    let homer = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", homer.local_addr().unwrap());
    let _agent = Running(
        Command::new(path("homer-agent"))
            .args([&url, "t0ken", &mirror.url(&format!("/api/{KEY}"))])
            .spawn()
            .expect("python3"),
    );
    let (head, agent) = take_request(&homer);
    assert!(
        head.starts_with("POST /api/v3/agent/subscribe HTTP/1"),
        "{head}"
    );
    assert!(head.contains("t0ken"), "{head}");
    assert_eq!(
        (&agent["type"], &agent["path"]),
        (&json!("apiban"), &json!("/lookup"))
    );
    let port = agent["port"]
        .as_str()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    let lookup = format!("/lookup/{}", agent["uuid"].as_str().unwrap());
    let requests = service.requests().len();
    let asked = json!({"data": {"source_ip": ["192.0.2.7", "192.0.2.8"]}}).to_string();
    let (status, found) = post(port, &lookup, &asked);
    assert_eq!(status, 200, "{found}");
    assert_eq!(found["192.0.2.7"]["ipaddress"], json!(["192.0.2.7"]));
    assert_eq!(found["192.0.2.8"]["ipaddress"], json!(["not blocked"]));
    assert_eq!(
        service.requests().len(),
        requests,
        "the service is not asked"
    );
    assert_eq!(post(port, &lookup, "nonsense").0, 400);
    drop(mirror);
    assert_eq!(post(port, &lookup, &asked).0, 502);
}

#[test]
fn every_example_is_in_the_table() {
    let folder = path("");
    let table = fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert!(
            name == "README.md" || table.contains(&format!("`{name}`")),
            "{name}"
        );
    }
}
