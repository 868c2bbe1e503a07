//! A wall clock that is wrong at the start and set right later, in a real Kamailio under libfaketime.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apiban_testing::fed::{fed, service, LISTED};
use apiban_testing::feed_server::{now, FeedServer};
use apiban_testing::kamailio::{Builder, Kamailio};
use apiban_testing::wait::{wait_until, SOON};
use tempfile::TempDir;

/// Where Debian's package libfaketime puts it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const BANNED: &str = "127.0.0.77";
/// Trusted for two days, by an operator.
const LENT: &str = "192.0.2.79";
const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;

/// A host with a wall clock that can be set. Monotonic clocks go on as they are.
struct Host {
    folder: TempDir,
}

impl Host {
    fn new() -> Host {
        assert!(
            Path::new(FAKETIME).exists(),
            "libfaketime is missing: apt-get install libfaketime"
        );
        Host {
            folder: TempDir::new().expect("directory"),
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("apiban.state")
    }

    /// Sets the wall clock to the true time and this offset, such as `+8d`.
    fn set_clock(&self, offset: &str) {
        let new = self.folder.path().join("clock.new");
        fs::write(&new, format!("{offset}\n")).expect("a file");
        fs::rename(new, self.folder.path().join("clock")).expect("the file in its place");
    }

    fn builder(&self, service: &FeedServer) -> Builder {
        let clock = self.folder.path().join("clock");
        fed(service)
            .param("state_file", self.state().display().to_string())
            .environment("LD_PRELOAD", FAKETIME)
            .environment("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string())
            .environment("FAKETIME_CACHE_DURATION", "1")
            .environment("DONT_FAKE_MONOTONIC", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    /// Runs once with a right clock, and leaves a list, and a local ban and trust of two days.
    fn with_state(service: &FeedServer) -> Host {
        let host = Host::new();
        host.set_clock("+0");
        let kamailio = host.builder(service).start();
        kamailio.wait_dropped(LISTED, SOON);
        wait_until("the end of the fetch", SOON, || {
            feed_state(&kamailio) == "ok"
        });
        kamailio.ask("apiban.block", &[BANNED, &(2 * DAY).to_string()]);
        kamailio.ask("apiban.trust_add", &[LENT, &(2 * DAY).to_string()]);
        assert!(kamailio.stop().status.success());
        host
    }
}

fn feed_state(kamailio: &Kamailio) -> String {
    let status = kamailio.ask("apiban.status", &[]);
    status["feed"]["state"]
        .as_str()
        .expect("a state")
        .to_owned()
}

fn number(kamailio: &Kamailio, ip: &str, field: &str) -> u64 {
    kamailio.verdict(ip)[field].as_u64().expect("a number")
}

/// How long the one rule of trust lasts; `None` if there is none.
fn lent(kamailio: &Kamailio) -> Option<u64> {
    let rows = kamailio.ask("apiban.trust_list", &[]);
    let row = rows.as_array()?.first()?;
    assert_eq!(row["rule"], LENT, "{rows}");
    row["expires"].as_u64()
}

fn near(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= 60
}

/// The list and the ban seem to be over, and come back when the clock is set, although the service is gone.
#[test]
fn a_start_with_a_clock_that_is_ahead() {
    let service = service();
    service.list(&[LISTED]);
    let host = Host::with_state(&service);
    host.set_clock("+8d");
    let builder = host.builder(&service);
    drop(service);
    let kamailio = builder.start();
    kamailio.assert_answered(LISTED);
    kamailio.assert_answered(BANNED);
    assert_eq!(lent(&kamailio), None);
    host.set_clock("+0");
    kamailio.wait_dropped(LISTED, SOON);
    kamailio.wait_dropped(BANNED, SOON);
    assert!(near(number(&kamailio, BANNED, "expires"), 2 * DAY));
    assert!(near(number(&kamailio, BANNED, "since"), now()));
    assert!(near(lent(&kamailio).expect("trust"), 2 * DAY));
    let log = kamailio.stop().log;
    assert!(
        log.contains("the system clock was set back by 691200 seconds"),
        "{log}"
    );
}

/// A host without a clock of its own boots in the past. It was off for an hour, which it learns with the right time: what
/// was saved then ends by that time, and the list is fetched again.
#[test]
fn a_start_with_a_clock_that_is_behind() {
    let service = service();
    service.list(&[LISTED]);
    let host = Host::with_state(&service);
    host.set_clock("-400d");
    let kamailio = host.builder(&service).start();
    kamailio.wait_dropped(LISTED, SOON);
    kamailio.assert_dropped(BANNED);
    let other = "127.0.0.78";
    kamailio.ask("apiban.block", &[other, "3600"]);
    let asked = service.requests().len();
    host.set_clock(&format!("+{HOUR}"));
    let right = || near(number(&kamailio, other, "since"), now() + HOUR);
    wait_until("the step is seen", SOON, right);
    let left = || number(&kamailio, BANNED, "expires");
    wait_until("the ban's new end", SOON, || near(left(), 2 * DAY - HOUR));
    let left = || lent(&kamailio).expect("trust");
    wait_until("the trust's new end", SOON, || near(left(), 2 * DAY - HOUR));
    assert!(near(number(&kamailio, other, "expires"), 3_600));
    kamailio.assert_dropped(LISTED);
    wait_until("a fetch after the step", Duration::from_secs(60), || {
        let status = kamailio.ask("apiban.status", &[]);
        let last = &status["feed"]["last_success"];
        let last = last.as_u64().unwrap_or_default();
        service.requests().len() > asked
            && near(last, now() + HOUR)
            && status["feed"]["state"] == "ok"
    });
    assert!(kamailio.stop().status.success());
    // With the right clock from the start all is as it was.
    let kamailio = host.builder(&service).start();
    kamailio.assert_dropped(LISTED);
    assert!(near(number(&kamailio, BANNED, "expires"), 2 * DAY - HOUR));
    assert!(near(number(&kamailio, other, "expires"), 3_600));
}
