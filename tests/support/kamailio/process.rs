//! Starting, watching and ending one Kamailio.
//!
//! It runs in a process group of its own, so that ending it reaches every child and nothing else. If
//! the test itself is killed, the kernel tells Kamailio to end (`setpriv --pdeathsig`, which goes by
//! the thread that started it: start it in the test's own thread).

use super::builder::{Builder, Place};
use super::group::{describe, is_waiting, members};
use super::release::{is_root, Release};
use crate::tls::Certificate;
use crate::wait::{poll, wait_for};
use nix::sys::signal::{kill, killpg, Signal};
use nix::unistd::Pid;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long an orderly end may take; a hang takes Kamailio itself 60 s to notice.
const STOP: Duration = Duration::from_secs(20);
/// Starts again on other ports after somebody else took ours.
const PORT_TRIES: u32 = 3;

/// A Kamailio that serves. Dropping it ends it.
pub struct Kamailio {
    main: Child,
    dir: TempDir,
    release: Release,
    place: Place,
    listens_on: Ipv4Addr,
    children: u32,
    ended: bool,
}

/// A start that failed.
#[derive(Debug)]
pub struct Failure {
    /// How Kamailio ended; none if it had to be killed because it did not serve in time.
    pub status: Option<ExitStatus>,
    /// All it printed.
    pub log: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "Kamailio ended at start ({status}):\n{}", self.log),
            None => write!(f, "Kamailio did not serve within {START:?}:\n{}", self.log),
        }
    }
}

/// An orderly end.
#[derive(Debug)]
pub struct Stopped {
    /// Exit status of the main process.
    pub status: ExitStatus,
    /// From the signal to the end.
    pub took: Duration,
    /// All it printed.
    pub log: String,
}

impl Kamailio {
    /// Kamailio with the module under test.
    #[track_caller]
    pub fn builder() -> Builder {
        Builder::new(Some(super::module_path()))
    }

    /// Kamailio without it.
    pub fn plain() -> Builder {
        Builder::new(None)
    }

    pub(super) fn launch(builder: &Builder) -> Result<Kamailio, Failure> {
        let mut tries = 1;
        loop {
            match Kamailio::launch_once(builder) {
                Err(failure)
                    if tries < PORT_TRIES && failure.log.contains("Address already in use") =>
                {
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    fn launch_once(builder: &Builder) -> Result<Kamailio, Failure> {
        let mut wrapper = vec!["setpriv", "--pdeathsig", "TERM"];
        wrapper.extend(builder.privileges.iter().map(String::as_str));
        let (dir, place, mut command) = prepare(builder, &wrapper);
        let log = File::create(dir.path().join("log")).expect("log file");
        let main = command
            .args([if builder.forks { "-DD" } else { "-D" }, "-E"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("kamailio is installed");
        let mut kamailio = Kamailio {
            main,
            dir,
            release: builder.release.clone(),
            place,
            listens_on: builder.address,
            children: builder.children,
            ended: false,
        };
        // The last process of a start; the sockets are open long before, so no packet is lost.
        let last = if builder.tcp || builder.tls {
            "tcp main process"
        } else {
            "ctl handler"
        };
        let outcome = poll(START, || {
            if let Some(status) = kamailio.main.try_wait().expect("wait") {
                return Some(Some(status));
            }
            let (pids, all) = if builder.has_control() {
                let exists = kamailio.dir().join("ctl").exists();
                let processes = if exists {
                    kamailio.processes()
                } else {
                    Vec::new()
                };
                let all = processes.iter().any(|p| p.name == last);
                (processes.iter().map(|p| p.pid).collect(), all)
            } else {
                // It can only be looked at: all wait, and its workers are not the only ones.
                let pids = members(kamailio.pid());
                let all = pids.len() > kamailio.children as usize + 1;
                (pids, all)
            };
            // Kamailio loses a SIGTERM that reaches a child between its fork and its first steps,
            // and then hangs at its end: each of them must have come to its first wait.
            (all && pids.iter().all(|pid| is_waiting(*pid))).then_some(None)
        });
        match outcome {
            Some(None) => Ok(kamailio),
            Some(Some(status)) => {
                kamailio.ended = true;
                let log = kamailio.log();
                kamailio.kill_group();
                Err(Failure {
                    status: Some(status),
                    log,
                })
            }
            None => {
                kamailio.kill_group();
                let log = kamailio.log();
                Err(Failure { status: None, log })
            }
        }
    }

    pub(super) fn check(builder: &Builder) -> Result<String, String> {
        let (_dir, _place, mut command) = prepare(builder, &[]);
        let output = command.arg("-c").output().expect("kamailio is installed");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            Ok(text)
        } else {
            Err(text)
        }
    }

    /// Process ID of the main process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.main.id()).expect("process ID")
    }

    /// Its directory, as the host sees it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its directory, as Kamailio sees it.
    pub fn inner_dir(&self) -> PathBuf {
        self.release.inside(self.dir.path())
    }

    /// The release that runs.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// The IPv4 address on which it listens.
    pub fn listens_on(&self) -> Ipv4Addr {
        self.listens_on
    }

    /// SIP port for UDP and TCP.
    pub fn port(&self) -> u16 {
        self.place.sip.number()
    }

    /// SIP port for TLS.
    pub fn tls_port(&self) -> u16 {
        self.place.tls.number()
    }

    pub(super) fn certificate(&self) -> Option<&Certificate> {
        self.place.certificate.as_ref()
    }

    pub(super) fn children(&self) -> u32 {
        self.children
    }

    /// All it has printed so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a line of the log that contains `text`; gives the line.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str, within: Duration) -> String {
        let found = poll(within, || {
            let log = self.log();
            log.lines().find(|l| l.contains(text)).map(String::from)
        });
        found
            .unwrap_or_else(|| panic!("waited {within:?} in vain for {text:?} in:\n{}", self.log()))
    }

    /// Whether the main process is there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.main.try_wait(), Ok(None))
    }

    /// Sends a signal to one of its processes.
    #[track_caller]
    pub fn signal(&self, pid: i32, signal: Signal) {
        assert!(
            members(self.pid()).contains(&pid),
            "{pid} is not a process of this Kamailio"
        );
        kill(Pid::from_raw(pid), signal).expect("kill");
    }

    /// Waits until it ends by itself, such as after one of its processes was killed.
    #[track_caller]
    pub fn wait_for_end(self, within: Duration) -> Stopped {
        self.finish(within)
    }

    /// Ends it with SIGTERM, as systemd does; no process may be left.
    #[track_caller]
    pub fn stop(self) -> Stopped {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).expect("SIGTERM");
        self.finish(STOP)
    }

    /// Kills all of it at once, as a crash of the machine would; gives what it left on disk.
    pub fn kill9(mut self) -> String {
        self.kill_group();
        self.log()
    }

    #[track_caller]
    fn finish(mut self, within: Duration) -> Stopped {
        let begin = Instant::now();
        let status = poll(within, || self.main.try_wait().expect("wait"));
        let took = begin.elapsed();
        let Some(status) = status else {
            let hung = describe(&members(self.pid()));
            self.kill_group();
            panic!(
                "Kamailio did not end in {within:?}; still there:\n{hung}\n{}",
                self.log()
            );
        };
        let left = members(self.pid());
        self.kill_group();
        let log = self.log();
        assert!(left.is_empty(), "processes {left:?} were left:\n{log}");
        Stopped { status, took, log }
    }

    /// Kills what is left of the group and waits for the end of all of it.
    fn kill_group(&mut self) {
        self.ended = true;
        let group = self.pid();
        if matches!(self.main.try_wait(), Ok(None)) || !members(group).is_empty() {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.main.wait();
        wait_for("killed processes to end", STOP, || {
            members(group).is_empty().then_some(())
        });
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if std::thread::panicking() {
            eprintln!("log of Kamailio ({}):\n{}", self.release.name(), self.log());
        }
        // Orderly if possible: what the module put into the kernel goes with it.
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let _ = poll(STOP, || self.main.try_wait().ok().flatten());
        self.kill_group();
    }
}

/// Directory with the configuration, ports, and the command for it.
fn prepare(builder: &Builder, wrapper: &[&str]) -> (TempDir, Place, Command) {
    let release = &builder.release;
    let dir = tempfile::Builder::new()
        .prefix("apiban-")
        .tempdir_in(release.temp_dir())
        .expect("directory for Kamailio");
    // The user that Kamailio drops to needs to write here.
    let never_root = !builder.privileges.is_empty();
    let mode = if builder.user.is_some() || never_root {
        0o777
    } else {
        0o755
    };
    fs::set_permissions(dir.path(), Permissions::from_mode(mode)).expect("permissions");
    let place = Place::new(builder);
    let inner = release.inside(dir.path());

    let write = |name: &str, contents: &[u8]| {
        fs::write(dir.path().join(name), contents).expect("file for Kamailio");
    };
    let module = builder.module.as_ref().map(|path| match release {
        Release::Host if !never_root => path.clone(),
        // From a place that it can reach.
        _ => {
            fs::copy(path, dir.path().join("libapiban.so")).expect("copy of the module");
            inner.join("libapiban.so")
        }
    });
    for (name, contents) in &builder.files {
        write(name, contents);
    }
    if let Some(certificate) = &place.certificate {
        write("tls.pem", certificate.certificate_pem.as_bytes());
        write("tls.key", certificate.key_pem.as_bytes());
    }
    let (port, tls) = (place.sip.number(), place.tls.number());
    let text = builder.text(&inner, module.as_deref(), port, tls);
    write("kamailio.cfg", text.as_bytes());

    let inner = inner.display();
    let mut command = release.command_after(wrapper, "kamailio");
    command.args(["-f", &format!("{inner}/kamailio.cfg")]);
    // A Kamailio that is installed here keeps its own run directory.
    command.args(["-Y", &inner.to_string()]);
    command.args(&builder.arguments);
    if let Some(user) = &builder.user {
        assert!(is_root(), "only root can start Kamailio as another user");
        command.args(["-u", user, "-g", user]);
    }
    let mut defines = vec![
        format!("APIBAN_LISTEN=127.0.0.1:{port}"),
        format!("APIBAN_CTL=\"unix:{inner}/ctl\""),
        format!("APIBAN_STATE=\"{inner}/apiban.state\""),
    ];
    if let Some(module) = module {
        defines.push(format!("APIBAN_MODULE=\"{}\"", module.display()));
    }
    for define in defines.iter().chain(&builder.defines) {
        command.args(["-A", &define.replace("@DIR@", &inner.to_string())]);
    }
    command.envs(builder.environment.iter().cloned());
    (dir, place, command)
}
