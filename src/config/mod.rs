//! Module parameters: collected one by one while Kamailio reads its configuration, checked as they
//! come, and turned into one immutable [`Config`].

pub mod files;
mod parameters;

use std::fmt;

use crate::feed::source::SourceError;
use crate::feed::{ApiVersion, Dataset, Key, Source};

pub use parameters::{parameter, Kind, Parameter, PARAMETERS};

/// Whether bans are enforced or only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Banned is banned.
    Enforce,
    /// Everything runs and is counted, but nobody is turned away.
    Observe,
}

/// The firewall that takes the bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirewallKind {
    /// None.
    None,
    /// nf_tables, over netlink.
    Nft,
    /// The iptables-api daemon, over HTTP.
    IptablesApi,
}

/// Which bans go to the firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What the service lists.
    Feed,
    /// What was banned here or by a peer.
    Local,
    /// Both.
    All,
}

impl Scope {
    /// True where feed entries go to the firewall.
    pub fn has_feed(self) -> bool {
        self != Scope::Local
    }

    /// True where local bans go to the firewall.
    pub fn has_local(self) -> bool {
        self != Scope::Feed
    }
}

/// Every module parameter; the meaning of each is in the README.
#[derive(Clone)]
#[allow(
    missing_docs,
    reason = "named and documented as the parameters of the same name in the README"
)]
pub struct Config {
    pub api_key: Option<Key>,
    pub api_key_file: String,
    pub api_url: String,
    pub api_version: ApiVersion,
    pub dataset: Dataset,
    pub poll_interval: u32,
    pub resync_interval: u32,
    pub feed_ttl: u32,
    pub rate_limit_requests: u32,
    pub rate_limit_window: u32,
    pub http_timeout: u32,
    pub state_file: String,
    pub block_ttl: u32,
    pub block_v6_prefix: u8,
    pub max_feed_entries: usize,
    pub max_local_entries: usize,
    /// Every `trust` line, already parsed.
    pub trust: Vec<crate::trust::Trusted>,
    pub trust_file: String,
    pub trust_self: bool,
    pub trust_dmq: bool,
    pub trust_dispatcher: bool,
    pub firewall: FirewallKind,
    pub firewall_url: String,
    /// As given; see [`Config::scope`].
    pub firewall_scope: Option<Scope>,
    pub firewall_flush: bool,
    pub nft_table: String,
    pub mode: Mode,
    pub block_budget: u32,
    pub feed_shrink_limit: u8,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            api_key: None,
            api_key_file: String::new(),
            api_url: "https://apiban.org/api".into(),
            api_version: ApiVersion::V2,
            dataset: Dataset::Sip,
            poll_interval: 300,
            resync_interval: 86_400,
            feed_ttl: 604_800,
            rate_limit_requests: 11,
            rate_limit_window: 120,
            http_timeout: 10,
            state_file: "/var/lib/kamailio/apiban.state".into(),
            block_ttl: 600,
            block_v6_prefix: 64,
            max_feed_entries: 262_144,
            max_local_entries: 65_536,
            trust: Vec::new(),
            trust_file: String::new(),
            trust_self: true,
            trust_dmq: true,
            trust_dispatcher: true,
            firewall: FirewallKind::None,
            firewall_url: "http://127.0.0.1:8082".into(),
            firewall_scope: None,
            firewall_flush: true,
            nft_table: "apiban".into(),
            mode: Mode::Enforce,
            block_budget: 1000,
            feed_shrink_limit: 50,
        }
    }
}

/// The value of a parameter, as the configuration file gives it.
#[derive(Clone, Copy, Debug)]
pub enum RawValue<'a> {
    /// A number.
    Int(i64),
    /// A quoted string.
    Text(&'a str),
}

impl fmt::Display for RawValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RawValue::Int(number) => number.fmt(f),
            // Foreign text in a log line: one line, bounded.
            RawValue::Text(text) => write!(
                f,
                "\"{}\"",
                text.chars()
                    .take(80)
                    .map(|c| if c.is_control() { '?' } else { c })
                    .collect::<String>()
            ),
        }
    }
}

/// A parameter that cannot be used; start-up ends with this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter \"{parameter}\": {problem}; accepted: {accepted}")]
pub struct ConfigError {
    parameter: &'static str,
    problem: String,
    accepted: String,
}

impl ConfigError {
    /// An error of `parameter`; `accepted` says what would be right.
    pub fn new(
        parameter: &'static str,
        problem: impl Into<String>,
        accepted: impl Into<String>,
    ) -> Self {
        ConfigError {
            parameter,
            problem: problem.into(),
            accepted: accepted.into(),
        }
    }
}

impl Config {
    /// Takes one parameter in.
    pub fn set(&mut self, parameter: &Parameter, given: RawValue<'_>) -> Result<(), ConfigError> {
        let problem = |text: String| {
            // A secret is never repeated, not even a wrong one.
            let shown = if parameter.secret {
                "value".to_owned()
            } else {
                format!("value {given}")
            };
            ConfigError::new(
                parameter.name,
                format!("{shown} {text}"),
                parameter.accepted(),
            )
        };
        match (&parameter.kind, given) {
            (Kind::Int { min, max, set, .. }, RawValue::Int(number)) => {
                if !(*min..=*max).contains(&number) {
                    return Err(problem("is out of range".into()));
                }
                set(self, number);
                Ok(())
            }
            (Kind::Text { set, .. }, RawValue::Text(text)) => set(self, text).map_err(problem),
            (Kind::Int { .. }, RawValue::Text(_)) => Err(problem("is not a number".into())),
            (Kind::Text { .. }, RawValue::Int(_)) => Err(problem("is not a string".into())),
        }
    }

    /// The checks that need more than one parameter; call after the last [`Config::set`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.api_key.is_some() && !self.api_key_file.is_empty() {
            return Err(ConfigError::new(
                "api_key_file",
                "given together with api_key",
                "one of the two",
            ));
        }
        self.source()?;
        Ok(())
    }

    /// The list to fetch.
    pub fn source(&self) -> Result<Source, ConfigError> {
        Source::new(&self.api_url, self.api_version, self.dataset).map_err(|error| match error {
            SourceError::DatasetNeedsV2 => ConfigError::new(
                "dataset",
                format!("value \"{}\": {error}", self.dataset.as_str()),
                "sip, or api_version 2",
            ),
            _ => ConfigError::new("api_url", error.to_string(), "a base URL"),
        })
    }

    /// Which bans go to the firewall: where it is not given, all of them to nft, which takes thousands
    /// at once, and only local ones to iptables-api, which takes 23 ms for each.
    pub fn scope(&self) -> Scope {
        self.firewall_scope.unwrap_or(match self.firewall {
            FirewallKind::IptablesApi => Scope::Local,
            _ => Scope::All,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, given: RawValue<'_>) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        config.set(parameter(name).unwrap(), given)?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn numbers_are_bounded_and_the_error_says_all() {
        assert_eq!(
            set("poll_interval", RawValue::Int(1))
                .unwrap()
                .poll_interval,
            1
        );
        let error = set("poll_interval", RawValue::Int(0))
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "parameter \"poll_interval\": value 0 is out of range; accepted: 1 to 86400"
        );
        let error = set("block_ttl", RawValue::Text("ten"))
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"block_ttl\": value \"ten\" is not a number"),
            "{error}"
        );
    }

    #[test]
    fn every_number_refuses_what_is_beyond_its_ends() {
        for parameter in PARAMETERS {
            if let Kind::Int { min, max, .. } = parameter.kind {
                let mut config = Config::default();
                assert!(
                    config.set(parameter, RawValue::Int(min)).is_ok(),
                    "{}",
                    parameter.name
                );
                assert!(
                    config.set(parameter, RawValue::Int(max)).is_ok(),
                    "{}",
                    parameter.name
                );
                assert!(
                    config.set(parameter, RawValue::Int(min - 1)).is_err(),
                    "{}",
                    parameter.name
                );
                assert!(
                    config.set(parameter, RawValue::Int(max + 1)).is_err(),
                    "{}",
                    parameter.name
                );
            }
        }
    }

    #[test]
    fn words_are_checked() {
        assert_eq!(
            set("mode", RawValue::Text("observe")).unwrap().mode,
            Mode::Observe
        );
        assert_eq!(
            set("firewall", RawValue::Text("iptables-api"))
                .unwrap()
                .scope(),
            Scope::Local
        );
        assert_eq!(
            set("firewall", RawValue::Text("nft")).unwrap().scope(),
            Scope::All
        );
        for (name, bad) in [
            ("mode", "enforced"),
            ("dataset", "SIP"),
            ("firewall", "pf"),
            ("firewall_scope", ""),
            ("api_url", "apiban.org"),
            ("api_url", "ftp://apiban.org"),
            ("firewall_url", "https//x"),
            ("nft_table", "a b"),
            ("nft_table", ""),
            ("trust", "192.0.2.0/40"),
            ("api_key", "a b"),
            ("state_file", "relative/path"),
            ("trust_file", "relative"),
        ] {
            let error = set(name, RawValue::Text(bad))
                .map(|_| ())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(name) && error.contains("accepted: "),
                "{error}"
            );
        }
    }

    #[test]
    fn trust_is_repeatable() {
        let mut config = Config::default();
        for text in ["192.0.2.1, 192.0.2.2", "2001:db8::/32"] {
            config
                .set(parameter("trust").unwrap(), RawValue::Text(text))
                .unwrap();
        }
        assert_eq!(config.trust.len(), 3);
    }

    #[test]
    fn a_key_is_never_repeated() {
        let error = set("api_key", RawValue::Text("se cret"))
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(!error.contains("cret"), "{error}");
    }

    #[test]
    fn contradictions_are_refused() {
        let mut config = Config {
            api_version: ApiVersion::V1,
            dataset: Dataset::Http,
            ..Config::default()
        };
        assert!(config
            .check()
            .unwrap_err()
            .to_string()
            .contains("\"dataset\""));
        config = Config {
            api_key: Key::new("a").ok(),
            api_key_file: "/b".into(),
            ..Config::default()
        };
        assert!(config
            .check()
            .unwrap_err()
            .to_string()
            .contains("\"api_key_file\""));
    }
}
