//! The program `apiban` with files of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use apiban::clock::UnixSeconds;
use apiban::state::{self, Ban, State};

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The answer of a run that ended as it should.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

/// A directory with a configuration and a state file.
pub struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    /// `config` is the text of apiban.toml; the state file is in the same directory.
    pub fn new(config: &str) -> Program {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("apiban.state");
        let text = format!("state_file = \"{}\"\n{config}", state.display());
        fs::write(dir.path().join("apiban.toml"), text).expect("a configuration");
        Program { dir }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn state_file(&self) -> PathBuf {
        self.dir().join("apiban.state")
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// Puts a list into the state file, with a week to go.
    pub fn hold<A: ToString>(&self, listed: &[A]) {
        self.hold_with_hits(listed, |_| 0);
    }

    /// The same, with the packets that each sent.
    pub fn hold_with_hits<A: ToString>(&self, listed: &[A], hits: impl Fn(&str) -> u32) {
        let now = UnixSeconds::saturating(apiban_testing::feed_server::now());
        let bans = listed
            .iter()
            .map(|ip| Ban {
                hits: hits(&ip.to_string()),
                ip: ip.to_string(),
                end: now.shifted(604_000),
                since: now.shifted(-60),
                reason: String::new(),
            })
            .collect();
        let state = State {
            listed: bans,
            ..State::default()
        };
        state::store(&self.state_file(), &state).expect("a state file");
    }

    /// The program with this configuration, and nothing of the environment of the tests.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(arguments);
        command
            .arg("--config")
            .arg(self.dir().join("apiban.toml"))
            .env("HOME", self.dir())
            .current_dir(self.dir());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.command(arguments))
    }
}

/// The program without a configuration.
pub fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apiban"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8");
    command
}

/// Runs it to its end.
pub fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the program starts");
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Drops packets of the members of an ipset, by a rule of the operator.
pub fn drop_members_of(set: &str) {
    let rule = format!("-A INPUT -m set --match-set {set} src -j DROP");
    let words: Vec<&str> = rule.split_whitespace().collect();
    apiban_testing::netns::run("iptables", &words);
}
