//! The state file: after a restart the first packet meets the whole list, whatever has become of the
//! service; and a file that is damaged, foreign or cannot be written never stops Kamailio.

use apiban_testing::fed::{fed, service, KEY, LISTED};
use apiban_testing::feed_server::{Fault, FeedServer};
use apiban_testing::kamailio::{is_root, Builder, Kamailio, Release};
use apiban_testing::wait::{wait_until, SOON};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// A state file that outlives a Kamailio.
struct Kept {
    folder: TempDir,
}

impl Kept {
    fn new() -> Kept {
        Kept {
            folder: TempDir::new().expect("directory"),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("apiban.state")
    }

    fn aside(&self) -> PathBuf {
        self.folder.path().join("apiban.state.damaged")
    }

    fn builder(&self, service: &FeedServer) -> Builder {
        fed(service).param("state_file", self.path().display().to_string())
    }

    /// Runs once with this list, then ends in good order.
    fn filled(service: &FeedServer) -> Kept {
        let kept = Kept::new();
        let kamailio = kept.builder(service).start();
        kamailio.wait_dropped(LISTED, SOON);
        wait_until("the end of the fetch", SOON, || {
            kamailio.ask("apiban.status", &[])["feed"]["state"] == "ok"
        });
        assert!(kamailio.stop().status.success());
        kept
    }
}

fn entries(kamailio: &Kamailio) -> u64 {
    kamailio.statistic("apiban", "feed_entries")
}

#[test]
fn the_first_packet_meets_the_list_although_the_service_is_gone() {
    let service = service();
    service.list(&[LISTED, "198.51.100.7"]);
    let kept = Kept::filled(&service);
    let mode = fs::metadata(kept.path())
        .expect("state file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let builder = kept.builder(&service);
    drop(service);
    let kamailio = builder.start();
    kamailio.assert_dropped(LISTED);
    kamailio.assert_answered("127.0.0.5");
    assert_eq!(entries(&kamailio), 2);
    let left = kamailio.verdict(LISTED)["expires"]
        .as_u64()
        .expect("seconds");
    assert!((604_700..=604_800).contains(&left), "{left}");
    let status = kamailio.ask("apiban.status", &[]);
    assert!(
        status["feed"]["last_success"]
            .as_u64()
            .is_some_and(|t| t > 0)
            || status["feed"]["last_success"].is_string(),
        "{status}"
    );
    // The end of this run keeps it, too.
    assert!(kamailio.stop().status.success());
    let text = fs::read_to_string(kept.path()).expect("state file");
    assert!(text.contains(LISTED) && !text.contains(KEY), "{text}");
}

#[test]
fn the_walk_goes_on_where_it_stood() {
    let service = service();
    service.list(&[LISTED]);
    let kept = Kept::filled(&service);
    let before = service.requests().len();
    let kamailio = kept.builder(&service).start();
    wait_until("the first poll", SOON, || service.requests().len() > before);
    let first = service.requests()[before].request.clone();
    let status = kamailio.ask("apiban.status", &[]);
    let id = status["feed"]["id"]
        .as_str()
        .expect("a control ID")
        .to_owned();
    assert!(
        id.len() == 10 && first.body.contains(&id),
        "{id}: {}",
        first.body
    );
    kamailio.assert_dropped(LISTED);
}

#[test]
fn it_is_written_within_seconds_so_a_crash_costs_little() {
    let service = service();
    service.list(&[LISTED]);
    let kept = Kept::new();
    let kamailio = kept.builder(&service).start();
    kamailio.wait_dropped(LISTED, SOON);
    wait_until("the state file", SOON, || {
        fs::read_to_string(kept.path()).is_ok_and(|text| text.contains(LISTED))
    });
    kamailio.kill9();
    service.set_fault(Fault::Hang, None);
    let kamailio = kept.builder(&service).start();
    kamailio.assert_dropped(LISTED);
}

#[test]
fn a_damaged_file_is_put_aside_and_the_list_fetched_anew() {
    let service = service();
    service.list(&[LISTED]);
    let kept = Kept::filled(&service);
    let good = fs::read(kept.path()).expect("state file");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let damaged = [
        flipped,
        good[..good.len() - 5].to_vec(),
        Vec::new(),
        b"127.0.0.66\n192.0.2.1\n".to_vec(),
        vec![0xff; 10_000],
        [b"apiban-state 9 crc32=00000000\n".as_slice(), b"{}"].concat(),
    ];
    for bytes in damaged {
        fs::write(kept.path(), &bytes).expect("state file");
        let kamailio = kept.builder(&service).start();
        kamailio.wait_dropped(LISTED, SOON);
        let log = kamailio.module_log().join("\n");
        let about: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("put aside as"))
            .collect();
        assert_eq!(about.len(), 1, "{log}");
        assert!(about[0].contains("WARNING: apiban"), "{about:?}");
        assert_eq!(fs::read(kept.aside()).expect("the damaged file"), bytes);
        assert!(kamailio.stop().status.success());
        assert!(fs::read_to_string(kept.path())
            .expect("a new file")
            .contains(LISTED));
        fs::remove_file(kept.aside()).expect("the damaged file");
    }
}

#[test]
fn something_else_in_its_place_is_left_alone() {
    let service = service();
    service.list(&[LISTED]);
    let kept = Kept::new();
    fs::create_dir(kept.path()).expect("a directory of that name");
    let kamailio = kept.builder(&service).start();
    kamailio.wait_dropped(LISTED, SOON);
    let stopped = kamailio.stop();
    assert!(stopped.status.success(), "{}", stopped.log);
    assert!(kept.path().is_dir());
    let names: Vec<_> = fs::read_dir(kept.folder.path())
        .expect("directory")
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_list_that_is_another_is_not_used() {
    let service = service();
    service.list(&[LISTED]);
    service.list_at("http", 0, &["127.0.0.67"]);
    let kept = Kept::filled(&service);
    // Local bans are the same whatever is fetched.
    let kamailio = kept.builder(&service).start();
    kamailio.ask("apiban.block", &["127.0.0.68"]);
    assert!(kamailio.stop().status.success());

    service.set_fault(Fault::Hang, None);
    let kamailio = kept
        .builder(&service)
        .param("dataset", "http")
        .param("http_timeout", 300)
        .start();
    kamailio.assert_answered(LISTED);
    kamailio.assert_dropped("127.0.0.68");
    kamailio.wait_for_log("it holds another list, which is not used", SOON);
    assert!(kamailio.stop().status.success());

    service.clear_faults();
    let kamailio = kept.builder(&service).param("dataset", "http").start();
    kamailio.wait_dropped("127.0.0.67", SOON);
    kamailio.assert_answered(LISTED);
    let body = service
        .requests()
        .last()
        .expect("a request")
        .request
        .body
        .clone();
    assert!(body.contains("http"), "{body}");
}

#[test]
fn where_it_cannot_be_written_one_line_says_so_and_service_goes_on() {
    let service = service();
    service.list(&[LISTED]);
    let kept = Kept::new();
    fs::set_permissions(kept.folder.path(), Permissions::from_mode(0o555)).expect("mode");
    let mut builder = kept.builder(&service);
    if is_root() {
        // Root may write everywhere.
        builder = builder.user("kamailio");
    }
    let kamailio = builder.start();
    kamailio.wait_dropped(LISTED, SOON);
    kamailio.wait_for_log("going on without, trying again", SOON);
    kamailio.ask("apiban.block", &["127.0.0.67"]);
    kamailio.assert_dropped("127.0.0.67");
    let stopped = kamailio.stop();
    assert!(stopped.status.success(), "{}", stopped.log);
    let about = stopped
        .log
        .lines()
        .filter(|line| line.contains("state_file"));
    assert_eq!(about.count(), 1, "{}", stopped.log);
    assert!(!kept.path().exists());
}

#[test]
fn it_is_kept_by_the_user_that_kamailio_runs_as() {
    if !is_root() {
        return eprintln!("only root can start Kamailio as another user");
    }
    for release in Release::all() {
        let kamailio = Kamailio::builder()
            .release(&release)
            .user("kamailio")
            .param("trust_self", 0)
            .start();
        kamailio.ask("apiban.block", &[LISTED]);
        let path = kamailio.dir().join("apiban.state");
        wait_until("the state file", SOON, || {
            fs::read_to_string(&path).is_ok_and(|text| text.contains(LISTED))
        });
    }
}

#[test]
fn an_empty_name_keeps_nothing() {
    let service = service();
    service.list(&[LISTED]);
    let kept = Kept::new();
    let kamailio = kept.builder(&service).param("state_file", "").start();
    kamailio.wait_dropped(LISTED, SOON);
    let names = fs::read_dir(kamailio.dir()).expect("directory").flatten();
    assert!(!names
        .into_iter()
        .any(|entry| entry.file_name().to_string_lossy().contains("state")));
    assert!(kamailio.stop().status.success());
    assert!(!kept.path().exists());
}

/// To open a pipe for reading would wait for somebody who writes.
#[test]
fn a_pipe_in_its_place_does_not_hold_up_the_start() {
    let service = service();
    service.list(&[LISTED]);
    let kept = Kept::new();
    nix::unistd::mkfifo(&kept.path(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let kamailio = kept.builder(&service).start();
    kamailio.wait_dropped(LISTED, SOON);
    assert!(
        kamailio.log().contains("it is not a file"),
        "{}",
        kamailio.log()
    );
    assert!(kamailio.stop().status.success());
}
