//! Key and trust list, from parameters and from the files they name.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use crate::config::{Config, ConfigError};
use crate::feed::Key;
use crate::trust::{self, Trusted};

/// Longest key file; only its first line counts.
const MAX_KEY_FILE: u64 = 64 << 10;
/// Longest trust file: far more lines than can be trusted.
const MAX_TRUST_FILE: u64 = 4 << 20;
/// Permission bits of everybody.
const OTHERS: u32 = 0o007;

/// The key, and a warning where its file is open to everybody.
pub fn read_key(config: &Config) -> Result<(Option<Key>, Option<String>), ConfigError> {
    if config.api_key_file.is_empty() {
        return Ok((config.api_key.clone(), None));
    }
    let path = &config.api_key_file;
    let problem = |text: String| {
        ConfigError::new(
            "api_key_file",
            format!("{path}: {text}"),
            "a readable file whose first line is the key",
        )
    };
    let (content, mode) = read(path, MAX_KEY_FILE).map_err(|error| problem(error.to_string()))?;
    // What stands there may be a key with a typing error: the error does not quote it.
    let key = Key::new(content.lines().next().unwrap_or_default())
        .map_err(|error| problem(error.to_string()))?;
    let warning = (mode & OTHERS != 0).then(|| {
        format!(
            "api_key_file {path} can be read by everybody (mode {:03o}): chmod o= {path}",
            mode & 0o777
        )
    });
    Ok((Some(key), warning))
}

/// Everything that the parameters trust: `trust`, `trust_file`, and loopback by `trust_self`.
pub fn read_trust(config: &Config) -> Result<Vec<Trusted>, ConfigError> {
    let mut trusted = config.trust.clone();
    if !config.trust_file.is_empty() {
        let path = &config.trust_file;
        let problem = |text: String| {
            ConfigError::new(
                "trust_file",
                format!("{path}: {text}"),
                "one IP address or prefix a line",
            )
        };
        let (content, _) =
            read(path, MAX_TRUST_FILE).map_err(|error| problem(error.to_string()))?;
        trusted.extend(trust::parse_file(&content).map_err(|error| problem(error.to_string()))?);
    }
    if config.trust_self {
        trusted.extend(trust::loopback());
    }
    Ok(trusted)
}

fn read(path: &str, limit: u64) -> io::Result<(String, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode();
    let mut content = String::new();
    file.take(limit + 1).read_to_string(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("longer than {limit} bytes"),
        ));
    }
    Ok((content, mode))
}
