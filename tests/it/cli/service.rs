//! `apiban sync`, `run` and `flush`: the service, the state file and real firewalls.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use apiban_testing::feed_server::{Fault, FeedServer, Options};
use apiban_testing::iptables_api::Daemon;
use apiban_testing::netns::{in_namespace, objects, run};
use apiban_testing::wait::{wait_for, wait_until};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::program::{bare, ran, Program};

const KEY: &str = "sEcRet0123456789";
const SOON: Duration = Duration::from_secs(30);

fn service() -> FeedServer {
    FeedServer::start(Options::new(KEY)).expect("the stand-in for the service")
}

/// A program that fetches from this service as fast as it likes.
fn fetching(service: &FeedServer, config: &str) -> Program {
    Program::new(&format!(
        "api_key = \"{KEY}\"\napi_url = \"{}\"\nrate_limit_requests = 1000\nrate_limit_window = 1\n\
         trust_self = false\nhttp_timeout = 2\n{config}",
        service.url()
    ))
}

fn many(count: u32) -> Vec<String> {
    (0..count)
        .map(|n| format!("20.{}.{}.{}", n / 62_500, n / 250 % 250, n % 250))
        .collect()
}

/// What all sets of the nft table hold.
fn banned() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for set in objects("set").iter().filter(|set| set["table"] == "apiban") {
        let name = set["name"].as_str().unwrap();
        found.extend(apiban_testing::netns::addresses(name));
    }
    found
}

fn set_of<A: ToString>(addresses: &[A]) -> BTreeSet<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// A program in the background; it ends with the test.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Running {
        Running(command.spawn().expect("the program starts"))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        kill(pid, signal).expect("it is there");
    }

    fn end(mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.0.wait().expect("it ends").code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sync_fetches_all_then_only_what_is_new() {
    in_namespace(|| {
        let service = service();
        let listed = many(600);
        service.list(&listed);
        let program = fetching(&service, "firewall = \"nft\"\n");
        program.run(&["sync"]).ok();
        assert_eq!(service.requests().len(), 3, "three pages");
        assert_eq!(banned(), set_of(&listed));
        service.list(&["203.0.113.7"]);
        program.run(&["sync"]).ok();
        assert_eq!(service.requests().len(), 4, "one request");
        assert!(banned().contains("203.0.113.7") && banned().len() == 601);
        // Nothing new: one request, and the same list.
        program.run(&["sync"]).ok();
        assert_eq!((service.requests().len(), banned().len()), (5, 601));
        assert_eq!(program.run(&["list"]).ok().lines().count(), 601);
        // Only a full fetch tells what is gone.
        service.delist(&listed[..100]);
        let json = program.run(&["sync", "FULL", "--json"]).ok();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["listed"], &json["firewall"]),
            (&501.into(), &"nft".into())
        );
        assert_eq!(banned().len(), 501);
        program.run(&["flush"]).ok();
        assert!(objects("table").is_empty());
        program.run(&["flush"]).ok();
    });
}

#[test]
fn a_service_in_trouble_leaves_everything_in_force() {
    in_namespace(|| {
        let service = service();
        let listed = many(300);
        service.list(&listed);
        let program = fetching(&service, "firewall = \"nft\"\n");
        program.run(&["sync"]).ok();
        for (fault, code) in [
            (Fault::Status(503, None), 4),
            (Fault::Hang, 4),
            (Fault::Drop, 4),
            (Fault::Html, 4),
            (Fault::RateLimited(Some(1)), 4),
            (Fault::Unauthorized(403), 2),
        ] {
            service.clear_faults();
            service.set_fault(fault.clone(), None);
            let ran = program.run(&["sync"]);
            assert_eq!(ran.code, code, "{fault:?}: {ran:?}");
            assert!(ran.err.contains("list is kept"), "{fault:?}: {ran:?}");
            assert!(!ran.err.contains(KEY), "{ran:?}");
            assert_eq!(banned(), set_of(&listed), "{fault:?}");
            assert_eq!(program.run(&["list"]).ok().lines().count(), 300);
        }
        // A service that suddenly lists almost nobody is not believed, unless somebody says so.
        service.clear_faults();
        service.delist(&listed[10..]);
        let held = program.run(&["sync", "--full"]);
        assert_eq!((held.code, banned().len()), (4, 300), "{held:?}");
        assert!(held.err.contains("--force"), "{held:?}");
        program.run(&["sync", "--force"]).ok();
        assert_eq!(banned(), set_of(&listed[..10]));
    });
}

#[test]
fn what_nobody_may_ban_is_not_banned() {
    in_namespace(|| {
        let service = service();
        service.list(&["192.0.2.66", "198.51.100.1"]);
        service.set_fault(Fault::Poison, Some(1));
        let program = fetching(
            &service,
            "firewall = \"nft\"\ntrust = \"127.0.0.0/8 ::1 198.51.100.0/24\"\n",
        );
        program.run(&["sync"]);
        program.run(&["sync", "--full"]).ok();
        let banned = banned();
        assert!(
            banned.iter().all(|ip| ip.starts_with("192.0.2.")),
            "{banned:?}"
        );
    });
}

#[test]
fn without_the_right_to_change_the_firewall_it_says_so_and_keeps_the_list() {
    in_namespace(|| {
        let service = service();
        service.list(&["192.0.2.1"]);
        let program = fetching(&service, "firewall = \"nft\"\n");
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
        let inner = program.command(&["sync"]);
        command.arg(inner.get_program()).args(inner.get_args());
        let ran = ran(&mut command);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ran.err
                .contains("CAP_NET_ADMIN is missing; run this as root"),
            "{ran:?}"
        );
        assert_eq!(program.run(&["list"]).ok(), "192.0.2.1\n");
    });
}

#[test]
fn ipsets_are_filled_aside_and_swapped() {
    in_namespace(|| {
        let service = service();
        let listed = ["192.0.2.1", "198.51.100.0/24", "2001:db8::7"];
        service.list(&listed);
        let program = fetching(&service, "firewall = \"ipset\"\nipset_name = \"sip\"\n");
        program.run(&["sync"]).ok();
        run(
            "iptables",
            &[
                "-A",
                "INPUT",
                "-m",
                "set",
                "--match-set",
                "sip-v4",
                "src",
                "-j",
                "DROP",
            ],
        );
        for (set, ip) in [
            ("sip-v4", "192.0.2.1"),
            ("sip-v4", "198.51.100.9"),
            ("sip-v6", "2001:db8::7"),
        ] {
            run("ipset", &["test", set, ip]);
        }
        service.delist(&["192.0.2.1"]);
        program.run(&["sync", "--full"]).ok();
        let list = run("ipset", &["list", "sip-v4"]);
        assert!(
            list.contains("198.51.100.0/24 timeout 604") && !list.contains("192.0.2.1"),
            "{list}"
        );
        // A set that a rule names stays, empty.
        program.run(&["flush"]).ok();
        assert_eq!(run("ipset", &["-n", "list"]), "sip-v4\n");
        assert!(!run("ipset", &["list", "sip-v4"]).contains("198.51.100.0"));
    });
}

#[test]
fn iptables_api_gets_the_list_and_gives_it_back() {
    let service = service();
    service.list(&["192.0.2.1", "192.0.2.2"]);
    let api = Daemon::start();
    let program = fetching(
        &service,
        &format!(
            "firewall = \"iptables-api\"\nfirewall_url = \"{}\"\n",
            api.url()
        ),
    );
    program.run(&["sync"]).ok();
    assert_eq!(set_of(&api.chain()), set_of(&["192.0.2.1", "192.0.2.2"]));
    service.delist(&["192.0.2.2"]);
    program.run(&["sync", "--full"]).ok();
    assert_eq!(api.chain(), ["192.0.2.1"]);
    program.run(&["flush"]).ok();
    assert!(api.chain().is_empty());
}

#[test]
fn a_go_clients_configuration_is_enough_and_its_chain_is_found() {
    in_namespace(|| {
        let service = service();
        service.list(&["192.0.2.1"]);
        let program = fetching(&service, "");
        let json = format!("{{\"APIKEY\":\"{KEY}\",\"LKID\":\"100\",\"VERSION\":\"1.0\",\"SET\":\"sip\",\"FLUSH\":\"200\"}}");
        let config = program.file("config.json", &json);
        run("iptables", &["-N", "APIBAN"]);
        run("nft", &["add", "table", "ip", "old"]);
        run(
            "nft",
            &["add", "set", "ip", "old", "APIBAN", "{ type ipv4_addr; }"],
        );
        let state = program.state_file();
        let mut command = bare(&["sync", "FULL", "--config", config.to_str().unwrap()]);
        command.arg("--state-file").arg(&state);
        // The address of the service is not in that file: it is APIBAN's own, and no test asks that one.
        let refused = ran(command.env("HTTPS_PROXY", "http://127.0.0.1:9"));
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.err.contains("iptables -X APIBAN"), "{refused:?}");
        assert!(
            refused.err.contains("nft delete set ip old APIBAN"),
            "{refused:?}"
        );
        run("sh", &["-c", "iptables -F APIBAN; iptables -X APIBAN"]);
        run("nft", &["delete", "set", "ip", "old", "APIBAN"]);
        let again = ran(command.env("HTTPS_PROXY", "http://127.0.0.1:9"));
        assert!(!again.err.contains("APIBAN of another"), "{again:?}");
        let untouched = fs::read_to_string(&config).unwrap();
        assert_eq!(untouched, json);
    });
}

#[test]
fn run_is_a_service_from_ready_to_the_end() {
    for (firewall, holds) in [
        (
            "nft",
            (|ip: &str| banned().contains(ip)) as fn(&str) -> bool,
        ),
        ("ipset", |ip: &str| {
            let sets = Command::new("ipset")
                .args(["list", "apiban-v4"])
                .output()
                .unwrap();
            String::from_utf8_lossy(&sets.stdout).contains(&format!("{ip} timeout"))
        }),
    ] {
        in_namespace(move || {
            let service = service();
            service.list(&["192.0.2.1"]);
            let program = fetching(
                &service,
                &format!("firewall = \"{firewall}\"\npoll_interval = 1\n"),
            );
            let notify = program.dir().join("notify");
            let systemd = UnixDatagram::bind(&notify).unwrap();
            systemd.set_read_timeout(Some(SOON)).unwrap();
            let mut command = program.command(&["run"]);
            command.env("NOTIFY_SOCKET", &notify);
            let running = Running::start(command);
            let mut said = [0; 256];
            let length = systemd.recv(&mut said).unwrap();
            assert_eq!(&said[..length], b"READY=1\n");
            wait_until("the list in the firewall", SOON, || holds("192.0.2.1"));
            service.list(&["192.0.2.2"]);
            wait_until("what is new", SOON, || holds("192.0.2.2"));
            service.delist(&["192.0.2.1"]);
            running.signal(Signal::SIGHUP);
            wait_until("what is gone", SOON, || !holds("192.0.2.1"));
            // A second program with the same state file only reads it.
            let requests = |service: &FeedServer| service.requests().len();
            let second = program.run(&["sync", "-v"]);
            assert_eq!(second.code, 0, "{second:?}");
            assert!(
                second
                    .err
                    .contains("another program keeps this state file and the firewall"),
                "{second:?}"
            );
            // With a firewall of its own it fills that one.
            let config = fs::read_to_string(program.dir().join("apiban.toml")).unwrap();
            let config = config.replace(
                &format!("firewall = \"{firewall}\"\n"),
                "firewall = \"ipset\"\nipset_name = \"other\"\n",
            );
            let other = program.file("other.toml", &config);
            wait_until("the state file", SOON, || {
                program.run(&["list"]).out == "192.0.2.2\n"
            });
            ran(&mut bare(&["sync", "--config", other.to_str().unwrap()])).ok();
            run("ipset", &["test", "other-v4", "192.0.2.2"]);
            let refused = program.run(&["run"]);
            assert_eq!(refused.code, 2, "{refused:?}");
            assert_eq!(running.end(), 0);
            let after = requests(&service);
            assert!(holds("192.0.2.2"), "bans stay until their own end");
            // The next program goes on where this one was.
            program.run(&["sync"]).ok();
            assert_eq!(requests(&service), after + 1);
            program.run(&["flush"]).ok();
            assert!(!holds("192.0.2.2"));
        });
    }
}

#[test]
fn the_request_limit_holds_over_restarts() {
    let options = Options {
        rate: Some((5, Duration::from_secs(4))),
        ..Options::new(KEY)
    };
    let service = FeedServer::start(options).unwrap();
    service.list(&many(2_200));
    let program = fetching(&service, "");
    let config = fs::read_to_string(program.dir().join("apiban.toml")).unwrap();
    let config = config
        .replace("requests = 1000", "requests = 5")
        .replace("window = 1\n", "window = 4\n");
    program.file("apiban.toml", &config);
    for _ in 0..2 {
        // Killed in the middle, and started again.
        let running = Running::start(program.command(&["sync"]));
        let before = service.requests().len();
        wait_until("some requests", SOON, || service.requests().len() > before);
        running.end();
    }
    program.run(&["sync"]).ok();
    assert_eq!(service.refused(), 0);
    assert_eq!(program.run(&["list"]).ok().lines().count(), 2_200);
}

#[test]
fn a_disk_that_is_full_and_a_directory_that_cannot_be_written() {
    let thread = std::thread::spawn(|| {
        use nix::sched::{unshare, CloneFlags};
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
            .expect("root makes a mount namespace");
        let service = service();
        service.list(&many(5_000));
        let program = fetching(&service, "");
        let mount = program.dir().join("small");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        fs::create_dir(&mount).unwrap();
        run("mount", &["--make-rprivate", "/"]);
        run(
            "mount",
            &["-t", "tmpfs", "-o", "size=64k", "tmpfs", &text(&mount)],
        );
        let state = text(&mount.join("state"));
        let full = program.run(&["sync", "--state-file", &state]);
        assert_eq!(full.code, 2, "{full:?}");
        assert!(full.err.contains("No space left on device"), "{full:?}");
        run("mount", &["-o", "remount,ro", &text(&mount)]);
        let read_only = program.run(&["sync", "--state-file", &text(&mount.join("other"))]);
        assert_eq!(read_only.code, 2, "{read_only:?}");
        assert!(
            read_only.err.contains("Read-only file system; run this as"),
            "{read_only:?}"
        );
        run("umount", &[&text(&mount)]);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_state_file_of_another_kind_is_put_aside() {
    let service = service();
    service.list(&["192.0.2.1"]);
    let program = fetching(&service, "");
    fs::write(program.state_file(), "apiban-state 99 crc32=00000000\n{}").unwrap();
    let ran = program.run(&["sync"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("put aside"), "{ran:?}");
    assert_eq!(program.run(&["list"]).ok(), "192.0.2.1\n");
    assert!(program.dir().join("apiban.state.damaged").exists());
}

#[test]
fn without_a_key_it_says_where_to_put_one() {
    let program = Program::new("");
    for command in ["sync", "run"] {
        let ran = program.run(&[command]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ran.err.contains("no API key: set api_key_file in"),
            "{ran:?}"
        );
    }
    // systemd's credentials are found.
    let service = service();
    service.list(&["192.0.2.1"]);
    let config = format!("api_url = \"{}\"\n", service.url());
    let program = Program::new(&config);
    program.file("api_key", KEY);
    let mut command = program.command(&["sync"]);
    ran(command.env("CREDENTIALS_DIRECTORY", program.dir())).ok();
}

#[test]
fn systemd_accepts_the_units_and_finds_them_hardened() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let folder = tempfile::tempdir().unwrap();
    // The units name the program where a package puts it.
    for name in ["apiban.service", "apiban-sync.service", "apiban-sync.timer"] {
        let text = fs::read_to_string(examples.join(name)).expect(name);
        let text = text.replace("/usr/bin/apiban", env!("CARGO_BIN_EXE_apiban"));
        fs::write(folder.path().join(name), text).unwrap();
    }
    for name in ["apiban.service", "apiban-sync.service", "apiban-sync.timer"] {
        let path = folder.path().join(name).display().to_string();
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no", &path])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&verified.stderr);
        let about_ours: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("apiban"))
            .collect();
        assert!(verified.status.success() && about_ours.is_empty(), "{said}");
    }
    for name in ["apiban.service", "apiban-sync.service"] {
        let path = folder.path().join(name).display().to_string();
        let rated = wait_for("systemd's opinion", SOON, || {
            let output = Command::new("systemd-analyze")
                .args([
                    "security",
                    "--offline=true",
                    "--threshold=20",
                    "--no-pager",
                    &path,
                ])
                .output()
                .ok()?;
            Some(output)
        });
        // 20 stands for an exposure of 2.0 of 10.
        assert!(
            rated.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&rated.stdout)
        );
    }
}

#[test]
fn the_example_configuration_is_read() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/apiban.toml");
    let program = Program::new("");
    program.hold(&["192.0.2.1"]);
    let mut command = bare(&["list", "--config", example.to_str().unwrap()]);
    let ran = ran(command.arg("--state-file").arg(program.state_file()));
    assert_eq!(ran.code, 0, "{ran:?}");
}
