//! The firewalls that `apiban sync`, `run` and `flush` keep, and who else keeps them.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use apiban::state::lock::StateLock;
use apiban_testing::feed_server::FeedServer;
use apiban_testing::iptables_api::Daemon;
use apiban_testing::kamailio::{Kamailio, Release};
use apiban_testing::netns::{in_namespace, run};
use apiban_testing::wait::wait_until;
use nix::sys::signal::Signal;

use super::fetching::{banned, fetching, many, service, set_of, Running, KEY, SOON};
use super::program::{bare, drop_members_of, ran, Program};

#[test]
fn ipsets_are_filled_aside_and_swapped() {
    in_namespace(|| {
        let service = service();
        let listed = ["192.0.2.1", "198.51.100.0/24", "2001:db8::7"];
        service.list(&listed);
        let program = fetching(&service, "firewall = \"ipset\"\nipset_name = \"sip\"\n");
        program.run(&["sync"]).ok();
        drop_members_of("sip-v4");
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
fn iptables_api_gets_only_what_changed_and_is_never_emptied() {
    let service = service();
    let listed = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::7"];
    service.list(&listed);
    let api = Daemon::start();
    // Another program's entry in the same chain.
    api.state().chain.push("203.0.113.9".into());
    let with = |addresses: &[&str]| {
        let mut all = set_of(addresses);
        all.insert("203.0.113.9".into());
        all
    };
    let program = fetching(
        &service,
        &format!(
            "firewall = \"iptables-api\"\nfirewall_url = \"{}\"\n",
            api.url()
        ),
    );
    program.run(&["sync"]).ok();
    assert_eq!(set_of(&api.chain()), with(&listed));
    service.delist(&["192.0.2.2"]);
    service.list(&["192.0.2.4"]);
    api.state().requests.clear();
    program.run(&["sync", "--full"]).ok();
    let now = ["192.0.2.1", "192.0.2.3", "192.0.2.4", "2001:db8::7"];
    assert_eq!(set_of(&api.chain()), with(&now));
    let asked = api.state().requests.clone();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(asked[1..], ["/removeip/192.0.2.2", "/addip/192.0.2.4"]);
    // The host was started again: the chain is empty, and the whole list comes back.
    api.state().chain.clear();
    program.run(&["sync"]).ok();
    assert_eq!(set_of(&api.chain()), set_of(&now));
    // Killed in the middle, and one that is no longer listed meanwhile: it goes all the same.
    service.list(&many(40));
    api.pace(Duration::from_millis(50));
    let running = Running::start(program.command(&["sync"]));
    wait_until("some of them", SOON, || api.chain().len() > 10);
    running.signal(Signal::SIGKILL);
    drop(running);
    // The daemon still works on the last request of the killed program.
    wait_until("the end of that request", SOON, || {
        let state = api.state();
        let added = |request: &String| Some(request.strip_prefix("/addip/")?.to_owned());
        let last = state.requests.iter().rev().find_map(added);
        last.is_some_and(|last| state.chain.contains(&last))
    });
    api.pace(Duration::ZERO);
    service.delist(&many(40));
    program.run(&["sync", "--force"]).ok();
    assert_eq!(set_of(&api.chain()), set_of(&now));
    // As a service: what went while it was down goes from the chain.
    service.delist(&["192.0.2.3"]);
    api.state().chain.push("203.0.113.9".into());
    let before = service.requests().len();
    let running = Running::start(program.command(&["run"]));
    wait_until("its first request", SOON, || {
        service.requests().len() > before
    });
    running.signal(Signal::SIGHUP);
    let rest = ["192.0.2.1", "192.0.2.4", "2001:db8::7"];
    wait_until("what is gone", SOON, || set_of(&api.chain()) == with(&rest));
    assert_eq!(running.end(), 0);
    assert_eq!(api.count("/flushchain"), 0);
    // What is ours goes, and nothing else.
    program.run(&["flush"]).ok();
    assert_eq!(api.chain(), ["203.0.113.9"]);
    // Without any knowledge the operator's word empties it.
    program.run(&["flush"]).ok();
    assert!(api.chain().is_empty());
}

#[test]
fn flush_takes_nothing_from_a_service_that_notes_what_is_in_its_chain() {
    let service = service();
    let listed = ["192.0.2.1", "192.0.2.2"];
    service.list(&listed);
    let api = Daemon::start();
    let program = fetching(
        &service,
        &format!(
            "firewall = \"iptables-api\"\nfirewall_url = \"{}\"\npoll_interval = 1\n",
            api.url()
        ),
    );
    let running = Running::start(program.command(&["run"]));
    wait_until("the list in the chain", SOON, || {
        set_of(&api.chain()) == set_of(&listed)
    });
    let refused = program.run(&["flush"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.err.contains("end it first. Nothing was removed"),
        "{refused:?}"
    );
    assert_eq!(set_of(&api.chain()), set_of(&listed));
    // It goes on, and its notes are whole: what came after that is removed, too.
    service.list(&["192.0.2.3"]);
    wait_until("what is new", SOON, || api.chain().len() == 3);
    api.state().chain.push("203.0.113.9".into());
    assert_eq!(running.end(), 0);
    program.run(&["flush"]).ok();
    assert_eq!(api.chain(), ["203.0.113.9"]);
}

/// If another program keeps the state file and another firewall, the lock on that file is not ours: what is in our chain
/// is noted under a lock of its own.
#[test]
fn two_runs_beside_another_program_never_write_the_same_notes() {
    let service = service();
    let listed = ["192.0.2.1", "192.0.2.2"];
    service.list(&listed);
    let api = Daemon::start();
    let keeper = fetching(&service, "firewall = \"none\"\npoll_interval = 1\n");
    let state = keeper.state_file();
    let running = Running::start(keeper.command(&["run"]));
    wait_until("its state file", SOON, || state.exists());
    let config = keeper.file(
        "chain.toml",
        &format!(
            "state_file = \"{}\"\napi_key = \"{KEY}\"\nfirewall = \"iptables-api\"\nfirewall_url = \"{}\"\n\
             trust_self = false\n",
            state.display(),
            api.url()
        ),
    );
    let beside = |word: &str| {
        ran(&mut bare(&[
            word,
            "-v",
            "--config",
            config.to_str().unwrap(),
        ]))
    };
    let notes = PathBuf::from(format!("{}.iptables-api", state.display()));
    let other = StateLock::take(&notes, "another run").expect("nobody else has it");
    let second = beside("sync");
    assert_eq!(second.code, 0, "{second:?}");
    assert!(
        second
            .err
            .contains("another run brings the firewall up to date"),
        "{second:?}"
    );
    let refused = beside("flush");
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(api.chain().is_empty());

    drop(other);
    beside("sync").ok();
    assert_eq!(api.chain(), listed);
    beside("flush").ok();
    assert!(api.chain().is_empty());

    // The keeper has ended, and a run that began beside it still has the notes.
    assert_eq!(running.end(), 0);
    let other = StateLock::take(&notes, "another run").expect("nobody else has it");
    let second = beside("sync");
    assert_eq!(second.code, 0, "{second:?}");
    assert!(second.err.contains("another run"), "{second:?}");
    assert_eq!(beside("flush").code, 2);
    assert!(api.chain().is_empty());
    drop(other);

    // If no lock file can be made the firewall goes on. The lock file of the state names the firewall of its holder.
    let holder = || fs::read_to_string(format!("{}.lock", state.display())).unwrap();
    let before = holder();
    let running = Running::start(keeper.command(&["run"]));
    wait_until("the keeper", SOON, || holder() != before);
    let lock = PathBuf::from(format!("{}.lock", notes.display()));
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let only_read = beside("sync");
    assert!(only_read.err.contains("it is only read"), "{only_read:?}");
    assert_eq!(api.chain(), listed);
    assert_eq!(running.end(), 0);
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
fn a_kamailio_on_the_same_host_keeps_its_state_file_and_its_firewall() {
    in_namespace(|| {
        let service = service();
        service.list(&["192.0.2.1", "192.0.2.2"]);
        for release in Release::all() {
            let folder = tempfile::tempdir_in(release.temp_dir()).unwrap();
            let state = folder.path().join("apiban.state");
            let kamailio = Kamailio::builder()
                .release(&release)
                .param("api_key", KEY)
                .param("api_url", service.url())
                .param("firewall", "nft")
                .param("state_file", release.inside(&state).display().to_string())
                .start();
            wait_until("its state file", SOON, || state.exists());
            let config = |own: &str| {
                format!("state_file = \"{}\"\napi_key = \"{KEY}\"\napi_url = \"http://127.0.0.1:9\"\ntrust_self = false\n{own}",
                    state.display())
            };
            let program = Program::new("");
            let sync = |name: &str, own: &str| {
                let config = program.file(name, &config(own));
                ran(&mut bare(&[
                    "sync",
                    "-v",
                    "--config",
                    config.to_str().unwrap(),
                ]))
            };
            let same = sync("same.toml", "firewall = \"nft\"\n");
            assert_eq!(same.code, 0, "{same:?}");
            assert!(
                same.err
                    .contains("and the firewall; there is nothing to do"),
                "{same:?}"
            );
            let other = sync("other.toml", "firewall = \"ipset\"\n");
            assert_eq!(other.code, 0, "{other:?}");
            assert!(other.err.contains("it is only read"), "{other:?}");
            run("ipset", &["test", "apiban-v4", "192.0.2.2"]);
            // When Kamailio is gone the file is the program's.
            kamailio.stop();
            let after = sync("after.toml", "firewall = \"none\"\nhttp_timeout = 1\n");
            assert_eq!(after.code, 4, "{after:?}");
        }
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
