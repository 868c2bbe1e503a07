//! `apiban sync` and `run`: the service in every mood, the state file, the host around it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use apiban_testing::feed_server::{Fault, FeedServer, Options};
use apiban_testing::netns::{in_namespace, objects, run};
use apiban_testing::wait::{wait_for, wait_until};

use super::fetching::{banned, fetching, many, service, set_of, Running, KEY, SOON};
use super::program::{bare, ran, Program};

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
fn a_list_that_shrank_is_believed_when_a_later_run_sees_the_same() {
    let service = service();
    let listed = many(300);
    service.list(&listed);
    let program = fetching(&service, "");
    let entries = || program.run(&["list"]).ok().lines().count();
    program.run(&["sync"]).ok();
    service.delist(&listed[10..]);
    let held = program.run(&["sync", "--full", "--json"]);
    assert_eq!((held.code, entries()), (4, 300), "{held:?}");
    let since = |ran: &super::program::Ran| {
        let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        json["held_since"].as_u64().expect("a time")
    };
    // Too soon for a second opinion: one poll, and what is held back is still known.
    let before = service.requests().len();
    let again = program.run(&["sync", "--json"]);
    assert_eq!((again.code, entries()), (4, 300), "{again:?}");
    assert!(again.err.contains("suspiciously short since"), "{again:?}");
    assert_eq!(since(&again), since(&held));
    assert_eq!(service.requests().len(), before + 1);
    // A poll interval later the next run asks for the whole list by itself, and it says the same.
    let config = fs::read_to_string(program.dir().join("apiban.toml")).unwrap();
    program.file("apiban.toml", &format!("{config}poll_interval = 1\n"));
    wait_until("a run that agrees", SOON, || {
        program.run(&["sync"]).code == 0
    });
    assert_eq!(entries(), 10);
    // It shrank and recovered: nothing is lost, and nothing is held back any more.
    let listed: Vec<String> = many(600).split_off(300);
    service.list(&listed);
    program.run(&["sync"]).ok();
    service.delist(&listed[10..]);
    assert_eq!(program.run(&["sync", "--full"]).code, 4);
    service.list(&listed[10..]);
    wait_until("a run that sees it whole", SOON, || {
        program.run(&["sync"]).code == 0
    });
    assert_eq!(entries(), 310);
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

#[test]
fn on_a_terminal_it_says_what_it_waits_for() {
    let options = Options {
        rate: Some((4, Duration::from_secs(3))),
        ..Options::new(KEY)
    };
    let service = FeedServer::start(options).unwrap();
    service.list(&many(1_300));
    let program = fetching(&service, "");
    let config = fs::read_to_string(program.dir().join("apiban.toml")).unwrap();
    let config = config
        .replace("requests = 1000", "requests = 4")
        .replace("window = 1\n", "window = 3\n");
    program.file("apiban.toml", &config);
    let inner = program.command(&["sync"]);
    let words: Vec<_> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    // A terminal of its own, as script(1) makes one.
    let on_terminal = |more: &str| {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{}{more}", words.join(" ")), "/dev/null"]);
        command.env("TERM", "xterm").env("NO_COLOR", "1");
        ran(&mut command).ok()
    };
    let shown = on_terminal("");
    assert!(
        shown.contains("the service allows 4 requests in 3 s")
            && shown.contains(" pages; waiting "),
        "{shown:?}"
    );
    assert!(!shown.contains("\u{1b}[3"), "no colour: {shown:?}");
    assert!(shown.contains("1300 addresses listed"), "{shown:?}");
    // Elsewhere, and if nobody wants to see it, there is none.
    fs::remove_file(program.state_file()).unwrap();
    let quiet = on_terminal(" --quiet");
    assert!(!quiet.contains("waiting"), "{quiet:?}");
    let piped = program.run(&["sync", "--full"]);
    assert!(
        piped.out.is_empty() && !piped.err.contains("waiting"),
        "{piped:?}"
    );
}
