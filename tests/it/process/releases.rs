//! One file for every supported release: it loads wherever it stands in the load order, serves script
//! and RPC, and refuses a release whose layout nobody has verified.

use apiban_testing::kamailio::{module_path, Builder, Kamailio, Release};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// Drops what is banned; loopback is all that tests have, so it is not trusted.
fn guarded(builder: Builder, release: &Release) -> Kamailio {
    builder
        .release(release)
        .param("trust_self", 0)
        .request_route("if (apiban_check()) { exit; }")
        .start()
}

fn serves(kamailio: Kamailio) {
    let name = kamailio.release().name().to_owned();
    kamailio.assert_answered("127.0.0.66");
    let reply = kamailio.kamcmd(&["apiban.block", "127.0.0.66", "60"]);
    assert!(reply.is_ok(), "{name}: {reply:?}");
    kamailio.assert_dropped("127.0.0.66");
    assert!(kamailio.drops_on(&mut kamailio.tcp("127.0.0.66")), "{name}");
    kamailio.assert_answered("127.0.0.5");

    let status = kamailio.ask("apiban.status", &[]);
    let version = kamailio.ask("core.version", &[]);
    let running = status["kamailio"].as_str().expect("a release");
    assert!(version.as_str().unwrap().contains(running), "{version}");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"), "{status}");
    assert_eq!(status["local"]["entries"], 1, "{name}: {status}");
    let shown = kamailio.kamcmd(&["apiban.status"]).expect("status");
    assert!(shown.contains(&format!("kamailio: {running}")), "{shown}");
    assert_eq!(kamailio.statistic("apiban", "local_entries"), 1);

    assert_eq!(
        kamailio.ask("apiban.unblock", &["127.0.0.66"]),
        "Ok. 127.0.0.66 is no longer banned."
    );
    kamailio.assert_answered("127.0.0.66");
    let stopped = kamailio.stop();
    assert!(stopped.status.success(), "{name}: {}", stopped.log);
    let errors = stopped.log.lines().filter(|line| line.contains("ERROR"));
    assert_eq!(errors.count(), 0, "{name}: {}", stopped.log);
}

#[test]
fn serves_as_the_last_module_in_every_release() {
    for release in Release::all() {
        serves(guarded(Kamailio::builder(), &release));
    }
}

#[test]
fn serves_as_the_first_module_in_every_release() {
    let module = fs::read(module_path()).expect("module");
    for release in Release::all() {
        // Under the name that it is installed with.
        let builder = Kamailio::plain()
            .file("apiban.so", &module)
            .global("loadmodule \"@DIR@/apiban.so\"")
            .param("state_file", "");
        serves(guarded(builder, &release));
    }
}

#[test]
fn a_module_whose_symbols_everybody_sees_does_no_harm() {
    for release in Release::all() {
        // Kamailio loads app_lua with RTLD_GLOBAL, so its `exports` stands before ours everywhere.
        let builder = Kamailio::builder()
            .load("app_lua")
            .modparam("app_lua", "load", "@DIR@/empty.lua")
            .file("empty.lua", "");
        serves(guarded(builder, &release));
    }
}

/// A copy of a release's Kamailio that calls itself another version of the same length.
struct Disguised {
    release: Release,
    dir: TempDir,
    real: String,
}

impl Disguised {
    fn new(release: Release) -> Disguised {
        let dir = tempfile::Builder::new()
            .prefix("apiban-")
            .tempdir_in(release.temp_dir())
            .expect("directory");
        let output = release.command("kamailio").arg("-v").output();
        let text = String::from_utf8(output.expect("kamailio -v").stdout).expect("text");
        // version: kamailio 5.6.3 (x86_64/linux)
        let real = text
            .split_whitespace()
            .nth(2)
            .expect("a version")
            .to_owned();
        fs::copy(module_path(), dir.path().join("apiban.so")).expect("copy of the module");
        let inner = release.inside(dir.path());
        let config = format!(
            "listen=udp:127.0.0.1:5060\nloadmodule \"{}/apiban.so\"\nrequest_route {{ exit; }}\n",
            inner.display()
        );
        fs::write(dir.path().join("kamailio.cfg"), config).expect("configuration");
        Disguised { release, dir, real }
    }

    /// What `kamailio -c` says where it is this version.
    fn check(&self, version: &str) -> Result<String, String> {
        assert_eq!(version.len(), self.real.len());
        let program = self.host_path("usr/sbin/kamailio");
        let mut bytes = fs::read(&program).expect("the program");
        let places: Vec<usize> = bytes
            .windows(version.len())
            .enumerate()
            .filter_map(|(at, text)| (text == self.real.as_bytes()).then_some(at))
            .collect();
        assert!(
            !places.is_empty(),
            "no {} in {}",
            self.real,
            program.display()
        );
        for at in places {
            bytes[at..at + version.len()].copy_from_slice(version.as_bytes());
        }
        let (written, copy) = (
            self.dir.path().join("bytes"),
            self.dir.path().join("kamailio"),
        );
        fs::write(&written, bytes).expect("copy of the program");
        // By a process of its own: what this one has open for writing, a child that another test starts
        // just now has too, and the kernel does not run a file that anybody writes.
        let installed = Command::new("install")
            .args(["-m", "755"])
            .args([&written, &copy])
            .status();
        assert!(installed.expect("install").success());
        let inner = self.release.inside(self.dir.path());
        let output = self
            .release
            .command(&format!("{}/kamailio", inner.display()))
            .args([
                "-c",
                "-E",
                "-f",
                &format!("{}/kamailio.cfg", inner.display()),
            ])
            .output()
            .expect("the copy runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(text)
        }
    }

    fn host_path(&self, path: &str) -> PathBuf {
        match &self.release {
            Release::Host => PathBuf::from("/").join(path),
            Release::Root { path: root, .. } => root.join(path),
        }
    }
}

/// `version` with another number at `index`.
fn with_part(version: &str, index: usize, number: &str) -> String {
    let mut parts: Vec<&str> = version.split('.').collect();
    parts[index] = number;
    parts.join(".")
}

#[test]
fn a_release_that_nobody_has_verified_is_refused_by_name() {
    for release in Release::all() {
        let disguised = Disguised::new(release);
        for (index, number) in [(0, "4"), (0, "7"), (1, "9")] {
            let version = with_part(&disguised.real, index, number);
            let log = disguised.check(&version).expect_err("a refusal");
            assert!(
                log.contains("supports Kamailio 5.6, 6.0 and 6.1 only") && log.contains(&version),
                "{version}: {log}"
            );
        }
    }
}

#[test]
fn another_patch_release_of_a_supported_one_is_accepted() {
    for release in Release::all() {
        let disguised = Disguised::new(release);
        for number in ["0", "9"] {
            let version = with_part(&disguised.real, 2, number);
            let log = disguised
                .check(&version)
                .unwrap_or_else(|log| panic!("{version}: {log}"));
            assert!(log.contains("config file ok"), "{version}: {log}");
        }
    }
}
