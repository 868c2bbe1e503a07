//! The Kamailio releases that this machine can run: its own, and those in root directories made by
//! `tests/run` (one per Debian release, entered with chroot).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether qemu-user runs the Kamailio of this machine: `tests/arm64` says so.
pub fn is_emulated() -> bool {
    std::env::var_os("APIBAN_TEST_EMULATED").is_some()
}

/// Whether the Kamailio under test is built for aarch64.
pub fn is_aarch64() -> bool {
    is_emulated() || cfg!(target_arch = "aarch64")
}

/// Where a Kamailio is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// On the machine itself.
    Host,
    /// In a root directory of its own.
    Root {
        /// The Debian release, such as `trixie`.
        name: String,
        /// The directory.
        path: PathBuf,
    },
}

impl Release {
    /// The host's and every root's.
    pub fn all() -> Vec<Release> {
        let mut all = vec![Release::Host];
        all.extend(Release::roots());
        all
    }

    /// The roots. `APIBAN_TEST_RELEASES` (set by `tests/run`) names those that must be there; without
    /// it, those that happen to be there.
    pub fn roots() -> Vec<Release> {
        let dir = roots_dir();
        if let Ok(names) = std::env::var("APIBAN_TEST_RELEASES") {
            return names
                .split_whitespace()
                .map(|name| {
                    Release::in_root(&dir, name)
                        .unwrap_or_else(|| panic!("no Kamailio in {}/{name}", dir.display()))
                })
                .collect();
        }
        let mut names: Vec<String> = fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        let found: Vec<Release> = names
            .iter()
            .filter_map(|name| Release::in_root(&dir, name))
            .collect();
        if found.is_empty() {
            eprintln!("no other Kamailio release to test: tests/run makes them");
        }
        found
    }

    fn in_root(dir: &Path, name: &str) -> Option<Release> {
        let path = dir.join(name).canonicalize().ok()?;
        path.join("usr/sbin/kamailio")
            .exists()
            .then(|| Release::Root {
                name: name.into(),
                path,
            })
    }

    /// A word for messages.
    pub fn name(&self) -> &str {
        match self {
            Release::Host => "host",
            Release::Root { name, .. } => name,
        }
    }

    /// A command that runs `program` of this release.
    pub fn command(&self, program: &str) -> Command {
        self.command_after(&[], program)
    }

    /// The same behind a wrapper that ends in an exec, such as `setpriv`.
    pub fn command_after(&self, wrapper: &[&str], program: &str) -> Command {
        let mut words: Vec<String> = wrapper.iter().map(ToString::to_string).collect();
        if let Release::Root { path, .. } = self {
            let path = path.display().to_string();
            if is_root() {
                words.extend(["chroot".into(), path]);
            } else {
                // An ordinary user may change the root in a user namespace of their own.
                words.extend(["unshare", "--map-root-user", "--root"].map(String::from));
                words.push(path);
            }
        }
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// What the host calls the directory that this release calls `/tmp`.
    pub fn temp_dir(&self) -> PathBuf {
        match self {
            Release::Host => std::env::temp_dir(),
            Release::Root { path, .. } => path.join("tmp"),
        }
    }

    /// What this release calls a path of the host.
    pub fn inside(&self, path: &Path) -> PathBuf {
        match self {
            Release::Host => path.into(),
            Release::Root { path: root, .. } => match path.strip_prefix(root) {
                Ok(rest) => Path::new("/").join(rest),
                Err(_) => panic!("{} is not in {}", path.display(), root.display()),
            },
        }
    }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

fn roots_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("APIBAN_TEST_ROOTS") {
        return dir.into();
    }
    crate::cache_dir().join("roots")
}
