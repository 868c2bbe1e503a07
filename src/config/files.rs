//! Reads the key file and the trust list.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use super::reading;
use crate::clock::UnixSeconds;
use crate::cluster::keys::{MOST_SECRETS, SHORTEST_SECRET};
use crate::config::{Config, ConfigError};
use crate::feed::{ApiKey, Key};
use crate::quote::plain;
use crate::trust::{self, Given};

/// Longest key file in bytes; only its first line counts.
const MAX_KEY_FILE: u64 = 64 << 10;
/// Longest trust file in bytes: far more lines than can be trusted.
const MAX_TRUST_FILE: u64 = 4 << 20;
/// Permission bits of users who are neither owner nor in the group.
const OTHERS: u32 = 0o007;

/// A file that cannot be used. The text names the file, and never quotes a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct FileError {
    path: String,
    problem: String,
}

impl FileError {
    /// An error of the file `path`.
    pub(super) fn new(path: &str, problem: impl Into<String>) -> Self {
        FileError {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

/// What a key file holds.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// The key in its first line.
    pub key: Key,
    /// A text for the log if users who have no part in it can read the file.
    pub warning: Option<String>,
}

/// Reads the key from the first line of a file.
///
/// # Errors
/// The file cannot be read, is no regular file, has more than 64 KiB, or its first line is no key.
pub fn read_key_file(path: &str) -> Result<KeyFile, FileError> {
    let (content, mode) = read(path, MAX_KEY_FILE)?;
    // What stands there may be a key with a typing error, so no error quotes it.
    let key = Key::new(content.lines().next().unwrap_or_default())
        .map_err(|error| FileError::new(path, error.to_string()))?;
    let warning = (mode & OTHERS != 0).then(|| {
        format!(
            "api_key_file {path} can be read by everybody (mode {:03o}): chmod o= {path}",
            mode & 0o777
        )
    });
    Ok(KeyFile { key, warning })
}

/// Reads a trust list: see [`Given::parse_file`].
///
/// # Errors
/// The file cannot be read, is no regular file, has more than 4 MiB, or a line is wrong.
pub fn read_trust_file(path: &str) -> Result<Given, FileError> {
    let (content, _) = read(path, MAX_TRUST_FILE)?;
    Given::parse_file(&content).map_err(|error| FileError::new(path, error.to_string()))
}

/// The secrets of the cluster.
pub struct SecretFile {
    /// One a line; the first signs.
    pub secrets: Vec<zeroize::Zeroizing<String>>,
    /// A text for the log if users who have no part in it can read the file.
    pub warning: Option<String>,
}

/// Reads the secrets of the cluster: one a line, empty lines and lines that begin with `#` are skipped.
///
/// # Errors
/// The file cannot be read, holds no secret or too many, or one is too short. No error quotes a secret.
pub fn read_secret_file(path: &str) -> Result<SecretFile, FileError> {
    let (content, mode) = read(path, MAX_KEY_FILE)?;
    let content = zeroize::Zeroizing::new(content);
    let secrets: Vec<zeroize::Zeroizing<String>> = content
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| zeroize::Zeroizing::new(line.to_owned()))
        .collect();
    if secrets.is_empty() {
        return Err(FileError::new(path, "it holds no secret"));
    }
    if secrets.len() > MOST_SECRETS {
        return Err(FileError::new(
            path,
            format!("it holds more than {MOST_SECRETS} secrets"),
        ));
    }
    if secrets.iter().any(|secret| secret.len() < SHORTEST_SECRET) {
        let text = format!("a secret has fewer than {SHORTEST_SECRET} characters");
        return Err(FileError::new(path, text));
    }
    let warning = (mode & OTHERS != 0).then(|| {
        format!(
            "cluster_secret_file {path} can be read by everybody (mode {:03o}): chmod o= {path}",
            mode & 0o777
        )
    });
    Ok(SecretFile { secrets, warning })
}

/// The key that the parameters name, and a warning for the log.
pub fn read_key(config: &Config) -> (ApiKey, Option<String>) {
    let path = &config.api_key_file;
    if path.is_empty() {
        return (ApiKey::from(config.api_key.clone()), None);
    }
    match read_key_file(path) {
        Ok(file) => (ApiKey::Usable(file.key), file.warning),
        Err(error) => (ApiKey::Unusable(format!("api_key_file {error}")), None),
    }
}

/// Everything that the parameters trust: `trust`, `trust_file`, and loopback if `trust_self` is 1.
///
/// # Errors
/// The trust file cannot be used.
pub fn read_trust(config: &Config) -> Result<Given, ConfigError> {
    let mut trusted = config.trust.clone();
    if !config.trust_file.is_empty() {
        let listed = read_trust_file(&config.trust_file).map_err(|error| {
            ConfigError::new(
                "trust_file",
                error.to_string(),
                "a file with one IP address or prefix a line",
            )
        })?;
        trusted.add(listed);
    }
    if config.trust_self {
        trusted.add(trust::loopback().into());
    }
    trust::check_length(&trusted.at(UnixSeconds::ZERO)).map_err(|error| {
        let longest = if config.trust_file.is_empty() {
            "trust"
        } else {
            "trust_file"
        };
        ConfigError::new(longest, error.to_string(), "a shorter list")
    })?;
    Ok(trusted)
}

/// Content and mode of a regular file, if its file system answers in time.
fn read(path: &str, limit: u64) -> reading::Outcome {
    reading::read(path, move |path| read_now(path, limit))
}

/// Content and mode of a regular file. Nothing else is read: a pipe would stop the caller until
/// somebody writes into it, a device may never end.
fn read_now(path: &str, limit: u64) -> reading::Outcome {
    let problem = |error: io::Error| FileError::new(path, plain(&error));
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(problem)?;
    let metadata = file.metadata().map_err(problem)?;
    if !metadata.is_file() {
        return Err(FileError::new(path, "it is not a regular file"));
    }
    let mut content = String::new();
    file.take(limit + 1)
        .read_to_string(&mut content)
        .map_err(problem)?;
    if content.len() as u64 > limit {
        return Err(FileError::new(path, format!("longer than {limit} bytes")));
    }
    Ok((content, metadata.mode()))
}
