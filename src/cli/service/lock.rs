//! One writer for a state file: an advisory lock on `STATE_FILE.lock`, which ends with the process.
//!
//! The file names the firewall that its holder keeps, so that no other program writes into that one either.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::cli::exit::Failure;
use crate::quote::plain;
use crate::state::{self, lock::LockError};

/// The right to write a state file, held until it is dropped.
pub struct StateLock {
    _held: Flock<File>,
}

/// What came of the attempt to take it.
pub enum Taken {
    /// It is ours.
    Ours(StateLock),
    /// Another program has it; the firewall that it keeps, as it wrote it.
    Other(String),
}

impl StateLock {
    /// Takes the lock for a program that keeps this firewall.
    pub fn take(state: &Path, firewall: &str) -> Result<Taken, Failure> {
        let path = beside(state);
        let problem = |error: &io::Error| {
            Failure::trouble(format!(
                "{}: {}; run this as the user that may write there, or name another state file",
                path.display(),
                plain(error)
            ))
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| problem(&error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) if matches!(state::lock::claim(&held), Err(LockError::Held(_))) => {
                // A Kamailio has it: its lock is of the kind that its workers do not inherit.
                Ok(Taken::Other("kamailio".to_owned()))
            }
            Ok(mut held) => {
                // A disk that is full is told when the state cannot be written.
                let _ = held
                    .set_len(0)
                    .and_then(|()| held.write_all(firewall.as_bytes()));
                Ok(Taken::Ours(StateLock { _held: held }))
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                let mut firewall = String::new();
                let _ = file.take(256).read_to_string(&mut firewall);
                Ok(Taken::Other(firewall))
            }
            Err((_, errno)) => Err(problem(&errno.into())),
        }
    }
}

fn beside(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}
