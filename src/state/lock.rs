//! One program per state file: a record lock on `STATE_FILE.lock`.
//!
//! A record lock (`fcntl(2)`) belongs to the process that took it. It is not inherited by forked
//! processes and ends with its owner, however that ends: SIP workers that outlive a killed main process
//! do not keep it. It ends too if its owner closes any descriptor of that file, so nothing else may open
//! the file.
//!
//! The file names the firewall that its holder keeps: no other program may write into that one either.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg};

/// The right to write a state file. It belongs to the process that took it.
#[derive(Debug)]
pub struct StateLock {
    file: File,
    owner: u32,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    Held(Holder),
    /// The lock file cannot be made, opened or locked.
    Unusable(io::Error),
}

/// The process that has a lock.
#[derive(Debug, Default)]
pub struct Holder {
    /// Its ID, or 0 if it cannot be seen from here.
    pub pid: u32,
    /// The firewall that it keeps, as [`Config::firewall_identity`](crate::config::Config::firewall_identity) names it.
    pub firewall: String,
}

/// Longest name of a firewall that is read from the file, in bytes.
const LONGEST_NAME: u64 = 256;

impl StateLock {
    /// Takes the lock for the state file `state`, for a process that keeps this firewall.
    ///
    /// # Errors
    /// Another process has it, or the lock file cannot be used.
    pub fn take(state: &Path, firewall: &str) -> Result<Self, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NONBLOCK)
            .open(path_of(state))
            .map_err(LockError::Unusable)?;
        give_to_owner_of_folder(&file, state);
        claim(&file)?;
        // A full disk is reported when the state cannot be written.
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(firewall.as_bytes()));
        Ok(StateLock {
            file,
            owner: std::process::id(),
        })
    }

    /// True if the process that took the lock still has it, or nobody has it: it may have ended while a
    /// child of it still writes. Callable in the owner and its children.
    pub fn is_undisputed(&self) -> bool {
        match holder(&self.file) {
            Ok(None) => true,
            Ok(Some(pid)) => pid == self.owner,
            Err(_) => false,
        }
    }
}

/// Makes the lock file that root made in another user's directory that user's: the next start may be
/// without root. Failures do not matter.
fn give_to_owner_of_folder(file: &File, state: &Path) {
    let folder = state.parent().and_then(|folder| folder.metadata().ok());
    let (Some(folder), Ok(found)) = (folder, file.metadata()) else {
        return;
    };
    if found.uid() == 0 && folder.uid() != 0 {
        let _ = fchown(file, Some(folder.uid()), Some(folder.gid()));
    }
}

/// The file that is locked for a state file.
pub fn path_of(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Takes the lock on an open lock file for this process.
fn claim(file: &File) -> Result<(), LockError> {
    match fcntl(file.as_fd(), FcntlArg::F_SETLK(&whole(libc::F_WRLCK))) {
        Ok(_) => Ok(()),
        Err(Errno::EACCES | Errno::EAGAIN) => {
            let pid = holder(file).ok().flatten().unwrap_or(0);
            let mut firewall = String::new();
            let _ = file.take(LONGEST_NAME).read_to_string(&mut firewall);
            Err(LockError::Held(Holder { pid, firewall }))
        }
        Err(errno) => Err(LockError::Unusable(errno.into())),
    }
}

/// The other process that has the lock.
fn holder(file: &File) -> io::Result<Option<u32>> {
    let mut found = whole(libc::F_WRLCK);
    fcntl(file.as_fd(), FcntlArg::F_GETLK(&mut found))?;
    let is_free = c_int::from(found.l_type) == libc::F_UNLCK;
    Ok((!is_free).then(|| u32::try_from(found.l_pid).unwrap_or(0)))
}

/// A lock of this kind on the whole file.
fn whole(kind: c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
