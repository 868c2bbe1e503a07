//! The state file: what must survive a restart, so that the first packet meets the whole list.
//!
//! One line that names format, version and checksum, then JSON. It is written to a temporary file
//! beside it, synchronised, and renamed; a reader sees the old or the new file, never a part.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{UnixSeconds, WallOffset};
use crate::feed::Saved;
use crate::table::Entry;

/// First words of every state file of this version.
const MAGIC: &str = "apiban-state 1 crc32=";
/// A larger file is not ours: 16 million entries of this format stay below it.
const MAX_BYTES: u64 = 1 << 30;

/// The name of a temporary file ends with this and the process's ID.
const TEMPORARY: &str = "new-";

/// One ban, as it stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Address or prefix.
    pub ip: String,
    /// Wall-clock second at which it ends.
    pub end: UnixSeconds,
    /// Wall-clock second at which it was placed.
    pub since: UnixSeconds,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Packets that met it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hits: u32,
}

/// Most bans are met by nobody: they take no room for that in the file.
fn is_zero(hits: &u32) -> bool {
    *hits == 0
}

impl Ban {
    /// The ban of a table, its times by the wall clock.
    pub fn new(entry: Entry, offset: WallOffset) -> Self {
        Ban {
            ip: entry.subnet.to_string(),
            end: offset.wall(entry.value),
            since: offset.wall(entry.since),
            reason: entry.reason,
            hits: entry.hits,
        }
    }
}

/// Everything that survives a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Wall-clock second at which the file was written; 0 if it does not say.
    #[serde(default)]
    pub written: UnixSeconds,
    /// Where the walk through the list stands, and the requests already spent.
    pub feed: Option<Saved>,
    /// The list.
    #[serde(default)]
    pub listed: Vec<Ban>,
    /// Local bans.
    #[serde(default)]
    pub local: Vec<Ban>,
    /// Trust that an operator has lent by a command: `end` is 4294967295 if it has none, `reason` the comment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted: Vec<Ban>,
}

/// Why a state file was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It is not a whole state file of this version.
    #[error("{0}")]
    Damaged(String),
}

/// Reads the state file; `None` if there is none.
pub fn load(path: &Path) -> Result<Option<State>, LoadError> {
    let file = match fs::metadata(path) {
        // A pipe would stop the start until somebody writes into it.
        Ok(found) if !found.is_file() => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file").into())
        }
        Ok(_) => File::open(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(LoadError::Damaged("it is too large".into()));
    }
    decode(&bytes).map(Some)
}

/// Reads the bytes of a state file.
pub fn decode(bytes: &[u8]) -> Result<State, LoadError> {
    let damaged = |text: &str| LoadError::Damaged(text.to_owned());
    let end = bytes
        .iter()
        .take(64)
        .position(|&byte| byte == b'\n')
        .ok_or_else(|| damaged("no header line"))?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| damaged("no header line"))?;
    let checksum = header
        .strip_prefix(MAGIC)
        .and_then(|text| u32::from_str_radix(text, 16).ok())
        .ok_or_else(|| damaged("not a state file of this version"))?;
    let body = &bytes[end + 1..];
    if crc32fast::hash(body) != checksum {
        return Err(damaged("the checksum is wrong"));
    }
    serde_json::from_slice(body).map_err(|error| LoadError::Damaged(error.to_string()))
}

/// The bytes of a state file.
pub fn encode(state: &State) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(state)?;
    let mut bytes = format!("{MAGIC}{:08x}\n", crc32fast::hash(&body)).into_bytes();
    bytes.extend(body);
    Ok(bytes)
}

/// Writes the state file as a whole, readable by its owner only; returns its size in bytes.
///
/// # Errors
/// The file or its directory cannot be written; the old file is still there.
pub fn store(path: &Path, state: &State) -> io::Result<u64> {
    let bytes = encode(state)?;
    // The name is this process's own: two that write at once must not mix.
    let temporary = beside(path, &format!("{TEMPORARY}{}", std::process::id()));
    // Left over from a crash, or made by somebody else: never written through.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_new(&temporary, &bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The rename itself must survive a power cut too.
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
    Ok(bytes.len() as u64)
}

/// Removes temporary files beside `path` that a crash has left, older than an hour.
pub fn remove_leftovers(path: &Path) {
    remove_old(path, TEMPORARY, Duration::from_secs(3_600));
}

/// Removes files named `PATH.PREFIX...` that were not written for `age`. Failures do not matter.
pub(super) fn remove_old(path: &Path, prefix: &str, age: Duration) {
    let start = beside(path, prefix);
    let (Some(folder), Some(start)) = (path.parent(), start.file_name()) else {
        return;
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(start.as_encoded_bytes());
        let is_old = || {
            let written = entry.metadata().and_then(|found| found.modified());
            written.is_ok_and(|time| time.elapsed().is_ok_and(|passed| passed > age))
        };
        if ours && is_old() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Why a file is put aside, which is the end of its new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Its content is damaged.
    Damaged,
    /// It cannot be read.
    Unreadable,
}

/// Puts a file aside as `FILE.damaged` or `FILE.unreadable` for an operator to look at; returns its new
/// name.
///
/// # Errors
/// It cannot be renamed. An unreadable file never replaces one that was put aside before: its content is
/// not known to be worthless.
pub fn put_aside(path: &Path, why: Aside) -> io::Result<PathBuf> {
    let aside = match why {
        Aside::Damaged => beside(path, "damaged"),
        Aside::Unreadable => beside(path, "unreadable"),
    };
    if why == Aside::Unreadable && fs::symlink_metadata(&aside).is_ok() {
        let text = format!("{} exists already", aside.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    fs::rename(path, &aside)?;
    Ok(aside)
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}
