//! The updater's process: what it is called, what it costs, how it ends, and that nothing else of
//! Kamailio waits for it.

use apiban_testing::fed::{fed, service};
use apiban_testing::feed_server::Fault;
use apiban_testing::kamailio::{is_alive, is_emulated, Kamailio, Release};
use apiban_testing::wait::{patience, wait_for, wait_until, SOON};
use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};

const NAME: &str = "APIBAN updater";

fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// What the descriptors of a process point to, sorted.
fn descriptors(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let mut targets: Vec<String> = entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.display().to_string())
        .collect();
    targets.sort();
    targets
}

/// The children of a process that have ended and that nobody has waited for.
fn zombies(parent: i32) -> usize {
    let entries = fs::read_dir("/proc").expect("processes").flatten();
    entries
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            fields.starts_with(&format!("Z {parent} "))
        })
        .count()
}

fn fetched(kamailio: &Kamailio) -> u64 {
    kamailio.statistic("apiban", "fetch_ok")
}

/// Threads that are not Kamailio's: qemu-user has one of its own in each process (tests/arm64).
fn emulator_threads() -> usize {
    usize::from(is_emulated())
}

#[test]
fn it_is_one_process_with_a_name_and_only_it_has_threads() {
    let service = service();
    for release in Release::all() {
        let kamailio = fed(&service).release(&release).start();
        let list = kamailio.kamcmd(&["core.psx"]).expect("core.psx");
        assert_eq!(list.matches(NAME).count(), 1, "{list}");
        let updater = kamailio.pid_of(NAME);
        let one = 1 + emulator_threads();
        wait_until("the updater's threads", SOON, || threads(updater) > one);
        for process in kamailio.processes() {
            if process.pid != updater {
                assert_eq!(
                    threads(process.pid),
                    one,
                    "{process:?} in {}",
                    release.name()
                );
            }
        }
    }
}

#[test]
fn kamailio_ends_at_once_while_the_service_hangs() {
    for release in Release::all() {
        let service = service();
        service.set_fault(Fault::Hang, None);
        let kamailio = fed(&service)
            .release(&release)
            .param("http_timeout", 300)
            .start();
        wait_until("a request", SOON, || !service.requests().is_empty());
        kamailio.assert_answered("127.0.0.5");
        let stopped = kamailio.stop();
        assert!(
            stopped.status.success(),
            "{}: {}",
            release.name(),
            stopped.log
        );
        // The request was still under way: what ended Kamailio was not its end.
        assert_eq!(service.requests().len(), 1, "{}", release.name());
    }
}

#[test]
fn twenty_reloads_leave_no_descriptor_and_no_child_behind() {
    let service = service();
    service.list(&["192.0.2.1"]);
    let kamailio = fed(&service).start();
    let updater = kamailio.pid_of(NAME);
    wait_until("the list", SOON, || fetched(&kamailio) > 0);
    let reload = || {
        let before = fetched(&kamailio);
        kamailio.ask("apiban.reload", &[]);
        wait_until("a full fetch", SOON, || fetched(&kamailio) > before);
    };
    reload();
    let before = descriptors(updater);
    let threads_before = threads(updater);
    (0..20).for_each(|_| reload());
    wait_until("no descriptor more than before", SOON, || {
        descriptors(updater).len() <= before.len()
    });
    assert!(threads(updater) <= threads_before);
    // What the fork brought along, an eventfd, at most one connection to the service.
    assert!(before.len() <= 12, "{before:#?}");
    // The lock on the state file is held all the time, the file itself is not.
    assert!(
        !before
            .iter()
            .any(|target| target.contains("apiban.state") && !target.ends_with(".lock")),
        "{before:#?}"
    );
    for pid in [updater, kamailio.pid()] {
        assert_eq!(zombies(pid), 0);
    }
}

#[test]
fn it_ends_with_a_main_process_that_was_killed() {
    let kamailio = Kamailio::builder().param("trust_self", 0).start();
    kamailio.ask("apiban.block", &["192.0.2.1"]);
    let updater = kamailio.pid_of(NAME);
    kamailio.signal(kamailio.pid(), Signal::SIGKILL);
    wait_until("the updater to end", SOON, || !is_alive(updater));
    // Its last act: what must survive.
    let state = fs::read_to_string(kamailio.dir().join("apiban.state")).expect("state file");
    assert!(state.contains("192.0.2.1"), "{state}");
}

#[test]
fn its_end_is_the_end_of_kamailio_so_that_somebody_starts_it_again() {
    let kamailio = Kamailio::builder().start();
    let updater = kamailio.pid_of(NAME);
    kamailio.signal(updater, Signal::SIGKILL);
    let stopped = kamailio.wait_for_end(Duration::from_secs(20));
    assert!(!stopped.status.success(), "{}", stopped.log);
}

#[test]
fn signals_that_mean_nothing_to_it_do_nothing() {
    let kamailio = Kamailio::builder().param("trust_self", 0).start();
    let updater = kamailio.pid_of(NAME);
    for signal in [
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
        Signal::SIGCHLD,
    ] {
        kamailio.signal(updater, signal);
    }
    kamailio.ask("apiban.block", &["192.0.2.1", "1"]);
    wait_until("the ban to be swept", SOON, || {
        kamailio.statistic("apiban", "local_entries") == 0
    });
    assert!(is_alive(updater));
}

#[test]
fn while_it_stands_still_bans_begin_and_end_in_time() {
    let service = service();
    service.list(&["127.0.0.99"]);
    let kamailio = fed(&service).start();
    kamailio.wait_dropped("127.0.0.99", SOON);
    let updater = kamailio.pid_of(NAME);
    kamailio.signal(updater, Signal::SIGSTOP);

    let seconds = 2 * patience();
    let begin = Instant::now();
    kamailio.ask("apiban.block", &["127.0.0.66", &seconds.to_string()]);
    kamailio.assert_dropped("127.0.0.66");
    kamailio.wait_answered("127.0.0.66", SOON);
    let took = begin.elapsed();
    let least = Duration::from_secs((seconds - 1).into()) - Duration::from_millis(50);
    assert!(took > least, "{took:?}");
    kamailio.assert_dropped("127.0.0.99");
    kamailio.assert_answered("127.0.0.5");
    kamailio.ask("apiban.reload", &[]);
    // Nobody waits for it: thousands of notes change nothing but who is banned.
    for host in 0..100 {
        kamailio.ask("apiban.block", &[&format!("192.0.2.{host}"), "60"]);
    }
    assert_eq!(kamailio.verdict("192.0.2.99")["banned"], 1);

    service.list(&["127.0.0.98"]);
    kamailio.signal(updater, Signal::SIGCONT);
    kamailio.wait_dropped("127.0.0.98", SOON);
    wait_for("the sweep", SOON, || {
        (kamailio.statistic("apiban", "local_entries") == 100).then_some(())
    });
}
