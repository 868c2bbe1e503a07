//! What a command works with: configuration file, environment, systemd's credentials.

mod go_client;
mod toml_file;

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::args::Common;
use super::exit::Failure;
use super::messages;
use super::times;
use crate::config::{files, Config};
use crate::feed::{ApiKey, Key};
use crate::firewall::Scope;
use crate::quote::plain;
use crate::trust::{Given, Trusted};

/// The configuration if none is named.
const DEFAULT: &str = "/etc/apiban/apiban.toml";
/// Where the Go clients keep theirs, in their order.
const GO_CLIENT: [&str; 2] = [
    "/etc/apiban/config.json",
    "/usr/local/bin/apiban/config.json",
];
/// The program's state file, and the module's on a host that has only that one.
const STATE_FILE: &str = "/var/lib/apiban/apiban.state";
const MODULE_STATE_FILE: &str = "/var/lib/kamailio/apiban.state";
/// Name of the key among systemd's credentials: `LoadCredential=api_key:/etc/apiban/apiban.key`.
const CREDENTIAL: &str = "api_key";
/// The environment variable with the key.
const KEY_VARIABLE: &str = "APIBAN_KEY";
/// Longest configuration in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Permission bits of everybody.
const OTHERS: u32 = 0o007;

/// Where the configuration came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// There is no file: defaults and environment.
    #[default]
    Defaults,
    /// A file of ours.
    Toml(PathBuf),
    /// A Go client's file.
    GoClient(PathBuf),
}

/// The configuration of one run.
#[derive(Clone, Default)]
pub struct Settings {
    /// What the module's parameters of the same names say.
    pub config: Config,
    /// What only the program knows.
    pub own: Own,
    /// Where it came from.
    pub origin: Origin,
}

/// Parameters that only the program has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// `firewall` is `ipset`.
    pub ipset: bool,
    /// Beginning of the names of our sets.
    pub ipset_name: String,
    /// File with the keys of the mirror's clients; empty: any key, on loopback only.
    pub feed_keys_file: String,
    /// Requests that each client of the mirror may send in `rate_limit_window`; 0: any number.
    pub feed_rate_limit: u32,
}

impl Default for Own {
    fn default() -> Self {
        Own {
            ipset: false,
            ipset_name: "apiban".into(),
            feed_keys_file: String::new(),
            feed_rate_limit: 600,
        }
    }
}

impl Settings {
    /// Reads the configuration that the arguments name, or the one at its usual place.
    pub fn read(common: &Common) -> Result<Settings, Failure> {
        let mut settings = match &common.config {
            Some(path) => from_file(path)?,
            None => match usual_file() {
                Some(path) => from_file(&path)?,
                None => Settings {
                    config: defaults(),
                    ..Settings::default()
                },
            },
        };
        if let Some(path) = &common.state_file {
            let path = std::path::absolute(path).map_err(|error| about(path, &plain(&error)))?;
            let Some(text) = path.to_str() else {
                return Err(about(&path, "the name is not UTF-8"));
            };
            settings.config.state_file = text.to_owned();
        } else if settings.config.state_file.is_empty() && settings.origin == Origin::Defaults {
            settings.config.state_file = usual_state_file();
        }
        settings.find_key();
        Ok(settings)
    }

    /// The key, if there is one; a warning tells if its file is open to everybody.
    pub fn key(&self) -> Result<Option<Key>, Failure> {
        let (key, open) = files::read_key(&self.config);
        if let Some(text) = open {
            messages::warning(&text);
        }
        match key {
            ApiKey::NotSet => Ok(None),
            ApiKey::Usable(key) => Ok(Some(key)),
            ApiKey::Unusable(problem) => Err(Failure::trouble(problem)),
        }
    }

    /// The key, or a failure that says how to give one.
    pub fn need_key(&self) -> Result<Key, Failure> {
        self.key()?.ok_or_else(|| {
            Failure::trouble(format!(
                "no API key: set api_key_file in {}, or {KEY_VARIABLE} in the environment",
                self.name()
            ))
        })
    }

    /// Everything that parameters and files trust.
    pub fn given_trust(&self) -> Result<Given, Failure> {
        let given = files::read_trust(&self.config);
        let given = given.map_err(|error| Failure::trouble(error.to_string()))?;
        given
            .warnings
            .iter()
            .for_each(|text| messages::warning(text));
        Ok(given)
    }

    /// What of it is in force now.
    pub fn trusted(&self) -> Result<Vec<Trusted>, Failure> {
        self.given_trust().map(|given| given.at(times::now()))
    }

    /// The file of the configuration, for messages.
    pub fn name(&self) -> String {
        match &self.origin {
            Origin::Defaults => DEFAULT.to_owned(),
            Origin::Toml(path) | Origin::GoClient(path) => path.display().to_string(),
        }
    }

    /// Without a key in the configuration: systemd's credentials, then the environment.
    fn find_key(&mut self) {
        let config = &mut self.config;
        if config.api_key.is_some() || !config.api_key_file.is_empty() {
            return;
        }
        let credential = env::var_os("CREDENTIALS_DIRECTORY")
            .map(|directory| Path::new(&directory).join(CREDENTIAL))
            .filter(|path| path.is_file());
        if let Some(path) = credential.as_deref().and_then(Path::to_str) {
            config.api_key_file = path.to_owned();
        } else if let Ok(text) = env::var(KEY_VARIABLE) {
            match Key::new(&text) {
                Ok(key) => config.api_key = Some(key),
                Err(error) => messages::warning(&format!("{KEY_VARIABLE} is ignored: {error}")),
            }
        }
    }
}

/// The module's defaults, but for what differs on a host without Kamailio.
fn defaults() -> Config {
    Config {
        state_file: String::new(),
        trust_dmq: false,
        trust_dispatcher: false,
        // A service that is restarted must not leave the host open: bans end at their own time.
        firewall_flush: false,
        // With any firewall: there is no script here that bans.
        firewall_scope: Some(Scope::All),
        ..Config::default()
    }
}

fn usual_file() -> Option<PathBuf> {
    let of_user = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")))
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("apiban/config.json"));
    [PathBuf::from(DEFAULT)]
        .into_iter()
        .chain(of_user)
        .chain(GO_CLIENT.map(PathBuf::from))
        .find(|path| path.exists())
}

/// systemd's `StateDirectory=`, or the first file that exists, or the program's own place.
fn usual_state_file() -> String {
    if let Ok(directory) = env::var("STATE_DIRECTORY") {
        // Several directories are separated by colons; the first is ours.
        if let Some(first) = directory.split(':').next().filter(|d| d.starts_with('/')) {
            return format!("{first}/apiban.state");
        }
    }
    let only_module = !Path::new(STATE_FILE).exists() && Path::new(MODULE_STATE_FILE).exists();
    if only_module {
        MODULE_STATE_FILE
    } else {
        STATE_FILE
    }
    .to_owned()
}

fn from_file(path: &Path) -> Result<Settings, Failure> {
    let (text, mode) = read(path)?;
    let settings = Settings {
        config: Config {
            state_file: usual_state_file(),
            ..defaults()
        },
        ..Settings::default()
    };
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json")
        || text.trim_start().starts_with('{');
    let settings = if is_json {
        go_client::parse(settings, path, &text)?
    } else {
        toml_file::parse(settings, path, &text)?
    };
    if settings.config.api_key.is_some() && mode & OTHERS != 0 {
        let path = path.display();
        messages::warning(&format!(
            "{path} holds the API key and can be read by everybody: chmod o= {path}"
        ));
    }
    Ok(settings)
}

/// The text of a configuration and the permissions of its file.
fn read(path: &Path) -> Result<(String, u32), Failure> {
    let remedy = "name a readable file with --config";
    let problem = |text: &str| about(path, &format!("{text}; {remedy}"));
    let found = fs::metadata(path).map_err(|error| problem(&plain(&error)))?;
    // A pipe there would hold up the program for ever.
    if !found.is_file() {
        return Err(problem("it is not a file"));
    }
    let file = File::open(path).map_err(|error| problem(&plain(&error)))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| problem(&plain(&error)))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(problem("it is longer than 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| problem("it is not UTF-8 text"))?;
    Ok((text, found.mode()))
}

/// `FILE: what is wrong`.
fn about(path: &Path, text: &str) -> Failure {
    Failure::trouble(format!("{}: {text}", path.display()))
}

/// `FILE:LINE: what is wrong`.
fn at_line(path: &Path, line: usize, text: &str) -> Failure {
    Failure::trouble(format!("{}:{line}: {text}", path.display()))
}
