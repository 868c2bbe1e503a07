//! Module parameters: collected one by one while Kamailio reads its configuration, checked as they
//! come, and turned into one immutable [`Config`].

pub mod files;
mod parameters;
pub mod reading;

use std::fmt;

use crate::base_url::BaseUrl;
use crate::feed::{ApiVersion, Dataset, Key, Source};
use crate::firewall::nft::{self, Hook, TableName};
use crate::firewall::ports::{PortChoice, Ports};
use crate::firewall::{iptables_api, Facts, Scope};
use crate::quote::foreign;

pub use parameters::{parameter, Kind, Parameter, PARAMETERS};

/// Longest value that an error quotes, in characters.
const MAX_QUOTE: usize = 80;

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

impl FirewallKind {
    /// What the backend can do; `None` if there is none.
    pub fn facts(self) -> Option<&'static Facts> {
        match self {
            FirewallKind::None => None,
            FirewallKind::Nft => Some(&nft::FACTS),
            FirewallKind::IptablesApi => Some(&iptables_api::FACTS),
        }
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
    pub api_url: BaseUrl,
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
    pub trust: crate::trust::Given,
    pub trust_file: String,
    pub trust_self: bool,
    pub trust_dmq: bool,
    pub trust_dispatcher: bool,
    pub firewall: FirewallKind,
    pub firewall_url: BaseUrl,
    /// As given; without it each backend has its own default.
    pub firewall_scope: Option<Scope>,
    pub firewall_ports: PortChoice,
    pub firewall_flush: bool,
    pub nft_table: TableName,
    pub nft_hook: Hook,
    /// True if nft counts for each source what it drops.
    pub firewall_counters: bool,
    pub socket_filter: bool,
    pub mode: Mode,
    pub block_budget: u32,
    pub feed_shrink_limit: u8,
    pub enable_dmq: bool,
    pub cluster_secret_file: String,
    /// True for `one`, false for `each`.
    pub cluster_fetch_one: bool,
    pub peer_budget: u32,
    pub max_peer_entries: usize,
}

impl Default for Config {
    /// Every parameter at its default, as [`PARAMETERS`] has it.
    fn default() -> Self {
        let mut config = Config {
            api_key: None,
            api_key_file: String::new(),
            api_url: BaseUrl::default(),
            api_version: ApiVersion::V2,
            dataset: Dataset::Sip,
            poll_interval: 0,
            resync_interval: 0,
            feed_ttl: 0,
            rate_limit_requests: 0,
            rate_limit_window: 0,
            http_timeout: 0,
            state_file: String::new(),
            block_ttl: 0,
            block_v6_prefix: 0,
            max_feed_entries: 0,
            max_local_entries: 0,
            trust: crate::trust::Given::default(),
            trust_file: String::new(),
            trust_self: false,
            trust_dmq: false,
            trust_dispatcher: false,
            firewall: FirewallKind::None,
            firewall_url: BaseUrl::default(),
            firewall_scope: None,
            firewall_ports: PortChoice::All,
            firewall_flush: false,
            nft_table: TableName::default(),
            nft_hook: Hook::PREROUTING,
            firewall_counters: false,
            socket_filter: false,
            mode: Mode::Enforce,
            block_budget: 0,
            feed_shrink_limit: 0,
            enable_dmq: false,
            cluster_secret_file: String::new(),
            cluster_fetch_one: true,
            peer_budget: 0,
            max_peer_entries: 0,
        };
        for parameter in PARAMETERS {
            if let Some(default) = parameter.default {
                // A default that is refused would leave a zero: a test takes each of them.
                let _ = config.set(parameter, default);
            }
        }
        config
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
            RawValue::Text(text) => write!(f, "\"{}\"", foreign(text, MAX_QUOTE)),
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
    /// Identifies the firewall: two programs must not keep the same one.
    pub fn firewall_identity(&self) -> String {
        match self.firewall {
            _ if self.mode == Mode::Observe => "none".to_owned(),
            FirewallKind::None => "none".to_owned(),
            FirewallKind::Nft => format!("nft {}", self.nft_table),
            FirewallKind::IptablesApi => format!("iptables-api {}", self.firewall_url),
        }
    }

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
            (Kind::Int { min, max, set, .. }, given) => {
                let number = match given {
                    RawValue::Int(number) => number,
                    // A number in quotes is meant as a number.
                    RawValue::Text(text) => text
                        .trim()
                        .parse()
                        .map_err(|_| problem("is not a whole number".into()))?,
                };
                if min == max && number != *min {
                    return Err(problem("is not possible in this release".into()));
                }
                if !(*min..=*max).contains(&number) {
                    return Err(problem("is out of range".into()));
                }
                set(self, number);
                Ok(())
            }
            (Kind::Text { set, .. }, RawValue::Text(text)) => set(self, text).map_err(problem),
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
        if let Some(facts) = self.firewall.facts() {
            if self.firewall_ports != PortChoice::All && !facts.scopes_by_port {
                return Err(ConfigError::new(
                    "firewall_ports",
                    format!(
                        "given together with firewall \"{}\", which knows no ports",
                        facts.name
                    ),
                    "all, or firewall \"nft\"",
                ));
            }
        }
        self.source()?;
        Ok(())
    }

    /// A text for the log for each parameter that is given and does nothing, because another one is not.
    pub fn without_effect(&self) -> Vec<String> {
        let default = Config::default();
        let nft = "firewall \"nft\"";
        let is_nft = self.firewall == FirewallKind::Nft;
        let is_api = self.firewall == FirewallKind::IptablesApi;
        let all = [
            (
                "firewall_ports",
                nft,
                is_nft,
                self.firewall_ports != default.firewall_ports,
            ),
            ("firewall_counters", nft, is_nft, self.firewall_counters),
            (
                "nft_table",
                nft,
                is_nft,
                self.nft_table != default.nft_table,
            ),
            ("nft_hook", nft, is_nft, self.nft_hook != default.nft_hook),
            (
                "firewall_url",
                "firewall \"iptables-api\"",
                is_api,
                self.firewall_url != default.firewall_url,
            ),
            (
                "cluster_secret_file",
                "enable_dmq 1",
                self.enable_dmq,
                !self.cluster_secret_file.is_empty(),
            ),
        ];
        all.into_iter()
            .filter(|(_, _, in_use, given)| *given && !in_use)
            .map(|(name, needed, ..)| format!("parameter \"{name}\" does nothing without {needed}"))
            .collect()
    }

    /// The list to fetch.
    pub fn source(&self) -> Result<Source, ConfigError> {
        let source = Source::of(self.api_url.clone(), self.api_version, self.dataset);
        source.map_err(|error| {
            ConfigError::new(
                "dataset",
                format!("value \"{}\": {error}", self.dataset.as_str()),
                "sip, or api_version 2",
            )
        })
    }

    /// Which bans go to the firewall: as given, or the default of the backend.
    pub fn scope(&self) -> Scope {
        let default = self.firewall.facts().map(|facts| facts.default_scope);
        self.firewall_scope.or(default).unwrap_or(Scope::All)
    }

    /// How our nft table should be, on a server that listens on these ports.
    pub fn nft_settings(&self, sip: &[u16]) -> nft::Settings {
        let ports = match &self.firewall_ports {
            PortChoice::All => None,
            PortChoice::List(ports) => Some(ports.clone()),
            PortChoice::Sip => Ports::of(sip.iter().map(|port| (*port, *port)).collect()),
        };
        nft::Settings {
            table: self.nft_table.clone(),
            hook: self.nft_hook,
            ports,
            counts: self.firewall_counters,
            instance: self.instance(),
        }
    }

    /// Tells this installation from others on the same host. It stays the same over restarts as long as
    /// `state_file` does.
    pub fn instance(&self) -> u32 {
        crc32fast::hash(self.state_file.as_bytes())
    }
}

#[cfg(test)]
mod tests;
