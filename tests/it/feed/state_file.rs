//! The state file: after a restart the first packet meets the whole list, whatever has become of the
//! service; and a file that is damaged, foreign or cannot be written never stops Kamailio.

use apiban::clock::UnixSeconds;
use apiban_testing::fed::{fed, service, KEY, LISTED};
use apiban_testing::feed_server::{Fault, FeedServer};
use apiban_testing::kamailio::{is_root, Builder, Kamailio, Release};
use apiban_testing::wait::{wait_until, SOON};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
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
fn the_start_line_says_what_is_in_force() {
    let service = service();
    service.list(&[LISTED]);
    let kept = Kept::filled(&service);
    let kamailio = kept.builder(&service).start();
    let line = kamailio.wait_for_log("NOTICE: apiban", SOON);
    for part in [
        "enforce; 1 listed (from the state file, ",
        ", 0 local bans, ",
        "firewall none, socket filter off, polls every ",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert!(kamailio.stop().status.success());
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
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name != "apiban.state.lock")
        .collect();
    assert_eq!(names, ["apiban.state"]);
    assert!(
        stopped.log.contains("it is left as it is"),
        "{}",
        stopped.log
    );
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
    kamailio.wait_for_log(
        "it holds the list of another api_url or dataset (sip http://",
        SOON,
    );
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

#[test]
fn the_list_comes_back_after_a_typing_error_was_corrected() {
    let service = service();
    service.list(&[LISTED]);
    let kept = Kept::filled(&service);
    service.set_fault(Fault::Hang, None);
    for wrong in [("dataset", "http"), ("api_url", "http://127.0.0.1:1/api")] {
        // Twice: the second start finds what the first one wrote.
        for _ in 0..2 {
            let kamailio = kept.builder(&service).param(wrong.0, wrong.1).start();
            kamailio.assert_answered(LISTED);
            kamailio.ask("apiban.block", &["127.0.0.68"]);
            assert!(kamailio.stop().status.success());
        }
        let kamailio = kept.builder(&service).start();
        kamailio.assert_dropped(LISTED);
        kamailio.assert_dropped("127.0.0.68");
        assert!(kamailio.stop().status.success());
    }
}

#[test]
fn two_kamailios_do_not_share_a_state_file() {
    let service = service();
    let kept = Kept::new();
    let first = kept.builder(&service).start();
    first.ask("apiban.block", &["127.0.0.70"]);
    wait_until("the state file", SOON, || {
        fs::read_to_string(kept.path()).is_ok_and(|text| text.contains("127.0.0.70"))
    });
    let second = kept.builder(&service).start();
    let line = second.wait_for_log("so this one keeps no state", SOON);
    assert!(line.contains("WARNING: apiban"), "{line}");
    assert!(
        line.contains(&format!("process {} uses it", first.pid())),
        "{line}"
    );
    second.assert_answered("127.0.0.70");
    second.ask("apiban.block", &["127.0.0.71"]);
    assert!(second.stop().status.success());
    // What belongs to a process ends with it: no leftover of the first keeps the third from it.
    first.kill9();
    let third = kept.builder(&service).start();
    third.assert_dropped("127.0.0.70");
    third.assert_answered("127.0.0.71");
    assert!(third.stop().status.success());
    let text = fs::read_to_string(kept.path()).expect("state file");
    assert!(
        text.contains("127.0.0.70") && !text.contains("127.0.0.71"),
        "{text}"
    );
}

/// As the user `kamailio` from the beginning, like a service of systemd.
fn never_root(builder: Builder) -> Builder {
    builder.setpriv(&["--reuid=kamailio", "--regid=kamailio", "--init-groups"])
}

#[test]
fn a_file_that_cannot_be_read_is_kept() {
    if !is_root() {
        return eprintln!("only root can start Kamailio as another user");
    }
    let service = service();
    service.list(&[LISTED]);
    let kept = Kept::filled(&service);
    let before = fs::read(kept.path()).expect("state file");
    let anybody = Permissions::from_mode(0o777);
    fs::set_permissions(kept.folder.path(), anybody).expect("mode");
    let aside = kept.folder.path().join("apiban.state.unreadable");
    let kamailio = never_root(kept.builder(&service)).start();
    let line = kamailio.wait_for_log(
        "Permission denied; starting without it; it is kept as",
        SOON,
    );
    assert!(line.contains("ERROR: apiban"), "{line}");
    kamailio.wait_dropped(LISTED, SOON);
    assert!(kamailio.stop().status.success());
    assert_eq!(fs::read(&aside).expect("the file put aside"), before);
    assert!(fs::read_to_string(kept.path())
        .expect("a new file")
        .contains(LISTED));

    // A second one is not put aside over the first.
    fs::write(kept.path(), &before).expect("state file");
    fs::set_permissions(kept.path(), Permissions::from_mode(0o600)).expect("mode");
    std::os::unix::fs::chown(kept.path(), Some(0), Some(0)).expect("owner");
    let kamailio = never_root(kept.builder(&service)).start();
    kamailio.wait_for_log("it is left as it is", SOON);
    kamailio.wait_dropped(LISTED, SOON);
    assert!(kamailio.stop().status.success());
    assert_eq!(fs::read(kept.path()).expect("state file"), before);
}

/// A local ban as the state file holds it.
fn ban(ip: &str, since: u64, end: u64) -> apiban::state::Ban {
    apiban::state::Ban {
        ip: ip.to_owned(),
        end: UnixSeconds::saturating(end),
        since: UnixSeconds::saturating(since),
        reason: String::new(),
        hits: 0,
    }
}

#[test]
fn a_ban_of_a_clock_that_was_ahead_keeps_its_length() {
    let service = service();
    let kept = Kept::new();
    let ahead = apiban_testing::feed_server::now() + 30 * 86_400;
    let state = apiban::state::State {
        local: vec![ban(LISTED, ahead, ahead + 60)],
        ..Default::default()
    };
    apiban::state::store(&kept.path(), &state).expect("state file");
    let kamailio = kept.builder(&service).start();
    kamailio.assert_dropped(LISTED);
    let left = kamailio.verdict(LISTED)["expires"]
        .as_u64()
        .expect("seconds");
    assert!(left <= 60, "{left}");
}

#[test]
fn a_large_file_is_written_less_often_but_always_at_the_end() {
    let service = service();
    let kept = Kept::new();
    let now = apiban_testing::feed_server::now();
    let local = (0..60_000u32)
        .map(|n| {
            ban(
                &format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255),
                now,
                now + 86_400,
            )
        })
        .collect();
    let state = apiban::state::State {
        local,
        ..Default::default()
    };
    let size = apiban::state::store(&kept.path(), &state).expect("state file");
    let kamailio = kept.builder(&service).start();
    let number = || {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(kept.path()).expect("state file").ino()
    };
    let first = number();
    kamailio.ask("apiban.block", &["127.0.0.70"]);
    wait_until("the first write", SOON, || number() != first);
    let second = number();
    kamailio.ask("apiban.block", &["127.0.0.71"]);
    // At 250 kB/s the next one is more than ten seconds away; a small file is written again after five.
    assert!(size > 2_500_000, "{size}");
    let again = apiban_testing::wait::watch(Duration::from_secs(8), || {
        (number() != second).then_some(())
    });
    assert_eq!(again, None, "written again too soon");
    assert!(kamailio.stop().status.success());
    let text = fs::read_to_string(kept.path()).expect("state file");
    assert!(text.contains("127.0.0.71"), "the last ban is missing");
}

/// A file system of its own that can be made to hang.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn run(command: &str, arguments: &[&str]) -> bool {
        let status = std::process::Command::new(command).args(arguments).status();
        status.is_ok_and(|status| status.success())
    }

    /// `None` if this machine cannot mount one.
    fn new() -> Option<Disk> {
        let folder = TempDir::new().expect("directory");
        let image = folder.path().join("image").display().to_string();
        fs::create_dir(folder.path().join("mnt")).expect("directory");
        let disk = Disk { folder };
        let ready = is_root()
            && Disk::run("truncate", &["-s", "16M", &image])
            && Disk::run("mkfs.ext4", &["-q", &image])
            && Disk::run("mount", &["-o", "loop", &image, &disk.mount_point()]);
        ready.then_some(disk)
    }

    fn mount_point(&self) -> String {
        self.folder.path().join("mnt").display().to_string()
    }

    fn freeze(&self) -> Frozen<'_> {
        assert!(Disk::run("fsfreeze", &["-f", &self.mount_point()]));
        Frozen(self)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Disk::run("umount", &["-l", &self.mount_point()]);
    }
}

/// Every write waits until this is dropped.
struct Frozen<'a>(&'a Disk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        Disk::run("fsfreeze", &["-u", &self.0.mount_point()]);
    }
}

#[test]
fn a_disk_that_hangs_stops_nothing_else() {
    let Some(disk) = Disk::new() else {
        return eprintln!("only root can mount a file system");
    };
    let path = format!("{}/apiban.state", disk.mount_point());
    let service = service();
    let kamailio = fed(&service).param("state_file", path.as_str()).start();
    kamailio.ask("apiban.block", &["127.0.0.70"]);
    wait_until("the first write", SOON, || fs::metadata(&path).is_ok());
    let frozen = disk.freeze();
    // The updater goes on: it ends bans.
    for _ in 0..2 {
        kamailio.ask("apiban.block", &[LISTED, "1"]);
        wait_until("the end of the ban", SOON, || {
            kamailio.statistic("apiban", "local_entries") == 1
        });
    }
    kamailio.ask("apiban.block", &["127.0.0.71"]);
    kamailio.signal(kamailio.pid(), nix::sys::signal::Signal::SIGTERM);
    kamailio.wait_for_log(
        "the disk does not answer; what changed last is not saved",
        SOON,
    );
    drop(frozen);
    let stopped = kamailio.wait_for_end(SOON);
    assert!(stopped.status.success(), "{}", stopped.log);
}
