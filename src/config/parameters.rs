//! The table of module parameters: name, default, bounds, help, and where the value goes.

use super::{Config, FirewallKind, Mode, RawValue};
use crate::base_url::BaseUrl;
use crate::feed::{ApiVersion, Key};
use crate::firewall::nft::{Hook, NoTableName};
use crate::firewall::ports::PortChoice;
use crate::firewall::Scope;
use crate::table::MAX_TTL;
use crate::trust::{Given, ListError};

/// Longest time in seconds that a parameter takes.
const LONGEST: i64 = MAX_TTL as i64;
/// Most entries of a table: one IPv4 table of this size takes 400 MB of address space.
const MOST_ENTRIES: i64 = 16_777_216;

/// One module parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in `modparam("apiban", NAME, VALUE)`.
    pub name: &'static str,
    /// Number or string, and what is accepted.
    pub kind: Kind,
    /// Its value if the configuration gives none; `None`: nothing, or it depends on other parameters.
    pub default: Option<RawValue<'static>>,
    /// The unit of a number; empty: none.
    pub unit: &'static str,
    /// What it is for, in one line.
    pub help: &'static str,
    /// True if the value must never be shown.
    pub secret: bool,
    /// The name that this one is another name of.
    pub alias_of: Option<&'static str>,
}

/// What a parameter takes.
#[derive(Debug)]
pub enum Kind {
    /// A whole number.
    Int {
        /// Lowest.
        min: i64,
        /// Highest.
        max: i64,
        /// Stores a number within the bounds.
        set: fn(&mut Config, i64),
    },
    /// A string.
    Text {
        /// What is accepted, for the error.
        accepted: &'static str,
        /// Stores it, or says what is wrong with it.
        set: fn(&mut Config, &str) -> Result<(), String>,
    },
}

impl Parameter {
    /// What would be right, for the error text.
    pub fn accepted(&self) -> String {
        match self.kind {
            Kind::Int { min, max, .. } if min == max => min.to_string(),
            Kind::Int { min, max, .. } => format!("{min} to {max}"),
            Kind::Text { accepted, .. } => accepted.to_owned(),
        }
    }

    /// The same row for a second name.
    const fn named(self, alias: &'static str) -> Parameter {
        Parameter {
            alias_of: Some(self.name),
            name: alias,
            ..self
        }
    }
}

/// The parameter of this name.
pub fn parameter(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}

/// A parameter that takes a number of `unit` in `range`.
const fn int(
    name: &'static str,
    default: i64,
    range: (i64, i64),
    unit: &'static str,
    help: &'static str,
    set: fn(&mut Config, i64),
) -> Parameter {
    Parameter {
        name,
        kind: Kind::Int {
            min: range.0,
            max: range.1,
            set,
        },
        default: Some(RawValue::Int(default)),
        unit,
        help,
        secret: false,
        alias_of: None,
    }
}

/// A parameter that takes a string; an empty `default` means that there is none.
const fn text(
    name: &'static str,
    default: &'static str,
    accepted: &'static str,
    help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
) -> Parameter {
    Parameter {
        name,
        kind: Kind::Text { accepted, set },
        default: if default.is_empty() {
            None
        } else {
            Some(RawValue::Text(default))
        },
        unit: "",
        help,
        secret: false,
        alias_of: None,
    }
}

const SWITCH: (i64, i64) = (0, 1);
const ENTRIES: (i64, i64) = (1, MOST_ENTRIES);
const URL: &str = "a URL of the form http://HOST[:PORT][/PATH], or with https";
const PATH: &str = "an absolute path";

const RESYNC_INTERVAL: Parameter = int(
    "resync_interval",
    86_400,
    (0, LONGEST),
    "seconds",
    "pause between full fetches, which also drop what the service no longer lists; 0: only by RPC",
    |config, value| config.resync_interval = value as u32,
);

/// Every parameter, in the order of the documentation.
#[rustfmt::skip]
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        secret: true,
        ..text("api_key", "", "2 to 256 printable ASCII characters without blanks",
            "the APIBAN key",
            |config, value| store_key(&mut config.api_key, value))
    },
    text("api_key_file", "", PATH,
        "file whose first line is the key",
        |config, value| store_path(&mut config.api_key_file, value)),
    text("api_url", "https://apiban.org/api", URL,
        "where the service is",
        |config, value| store_url(&mut config.api_url, value)),
    int("api_version", 2, (1, 2), "",
        "version of the service's interface",
        |config, value| config.api_version = if value == 1 { ApiVersion::V1 } else { ApiVersion::V2 }),
    text("dataset", "sip", "sip, http or all",
        "which of the service's lists",
        |config, value| {
            config.dataset = value.parse().map_err(|_| "is unknown".to_owned())?;
            Ok(())
        }),
    int("poll_interval", 300, (1, 86_400), "seconds",
        "pause between two fetches of what is new",
        |config, value| config.poll_interval = value as u32),
    RESYNC_INTERVAL,
    RESYNC_INTERVAL.named("full_fetch_interval"),
    int("feed_ttl", 604_800, (1, LONGEST), "seconds",
        "how long the service keeps an address active",
        |config, value| config.feed_ttl = value as u32),
    int("rate_limit_requests", 11, (1, 100_000), "requests",
        "how many requests the service allows per window",
        |config, value| config.rate_limit_requests = value as u32),
    int("rate_limit_window", 120, (1, 86_400), "seconds",
        "the length of that window",
        |config, value| config.rate_limit_window = value as u32),
    int("http_timeout", 10, (1, 300), "seconds",
        "limit for one whole exchange with the service",
        |config, value| config.http_timeout = value as u32),
    text("state_file", "/var/lib/kamailio/apiban.state", "an absolute path, or an empty string for none",
        "where list, local bans, control ID and spent requests are kept",
        |config, value| {
            if value.is_empty() {
                config.state_file.clear();
                return Ok(());
            }
            store_path(&mut config.state_file, value)
        }),
    int("block_ttl", 600, (1, LONGEST), "seconds",
        "how long apiban_block() bans if no ttl is given",
        |config, value| config.block_ttl = value as u32),
    int("block_v6_prefix", 64, (32, 128), "bits",
        "prefix length with which an IPv6 source is banned",
        |config, value| config.block_v6_prefix = value as u8),
    int("max_feed_entries", 262_144, ENTRIES, "entries",
        "capacity of the table of listed addresses",
        |config, value| config.max_feed_entries = value as usize),
    int("max_local_entries", 65_536, ENTRIES, "entries",
        "capacity of the table of local bans",
        |config, value| config.max_local_entries = value as usize),
    text("trust", "", "IP addresses and prefixes, separated by comma, semicolon or space; names are not resolved",
        "addresses and prefixes that are never banned; repeatable",
        |config, value| {
            let list = Given::parse_parameter(value).map_err(|error| wrong_list(value, &error))?;
            config.trust.add(list);
            Ok(())
        }),
    text("trust_file", "", PATH,
        "the same in a file, one a line",
        |config, value| store_path(&mut config.trust_file, value)),
    int("trust_self", 1, SWITCH, "",
        "trust loopback and every own address",
        |config, value| config.trust_self = value == 1),
    int("trust_dmq", 1, SWITCH, "",
        "trust the nodes of the dmq module",
        |config, value| config.trust_dmq = value == 1),
    int("trust_dispatcher", 1, SWITCH, "",
        "trust the destinations of the dispatcher module",
        |config, value| config.trust_dispatcher = value == 1),
    text("firewall", "none", "none, nft or iptables-api",
        "the firewall that takes the bans",
        |config, value| {
            config.firewall = match one_of(value, &["none", "nft", "iptables-api"])? {
                "nft" => FirewallKind::Nft,
                "iptables-api" => FirewallKind::IptablesApi,
                _ => FirewallKind::None,
            };
            Ok(())
        }),
    text("firewall_url", "http://127.0.0.1:8082", URL,
        "where iptables-api listens",
        |config, value| store_url(&mut config.firewall_url, value)),
    text("firewall_scope", "", "feed, local or all",
        "which bans go to the firewall",
        |config, value| {
            config.firewall_scope = Some(match one_of(value, &["feed", "local", "all"])? {
                "feed" => Scope::Feed,
                "local" => Scope::Local,
                _ => Scope::All,
            });
            Ok(())
        }),
    text("firewall_ports", "all", "all, sip, or ports and ranges such as 5060,5061,10000-20000",
        "which traffic of a banned source the firewall drops",
        |config, value| {
            config.firewall_ports = PortChoice::parse(value)?;
            Ok(())
        }),
    int("firewall_flush", 1, SWITCH, "",
        "empty our own firewall state at start and shutdown",
        |config, value| config.firewall_flush = value == 1),
    int("firewall_counters", 0, SWITCH, "",
        "nft counts for each source what it drops, for hits and apiban.top",
        |config, value| config.firewall_counters = value == 1),
    text("nft_table", "apiban", "1 to 64 letters, digits, _ . - beginning with a letter",
        "name of our own table of family inet",
        |config, value| {
            config.nft_table = value
                .parse()
                .map_err(|error: NoTableName| format!("{error}: write the name alone, the family is always inet"))?;
            Ok(())
        }),
    text("nft_hook", "prerouting", "prerouting or input",
        "where in the kernel our chain hooks",
        |config, value| {
            config.nft_hook = match one_of(value, &["prerouting", "input"])? {
                "input" => Hook::INPUT,
                _ => Hook::PREROUTING,
            };
            Ok(())
        }),
    int("socket_filter", 0, SWITCH, "",
        "drop banned sources in the kernel on Kamailio's own sockets",
        |config, value| config.socket_filter = value == 1),
    int("enable_dmq", 0, SWITCH, "",
        "share bans and the list with the other nodes over the dmq module",
        |config, value| config.enable_dmq = value == 1),
    text("cluster_secret_file", "", PATH,
        "file whose lines are the secrets of the cluster: the first signs, all verify",
        |config, value| store_path(&mut config.cluster_secret_file, value)),
    text("cluster_fetch", "one", "one or each",
        "one: one node fetches the list for all that share URL, dataset and key; each: every node for itself",
        |config, value| {
            config.cluster_fetch_one = one_of(value, &["one", "each"])? == "one";
            Ok(())
        }),
    int("peer_budget", 1000, (1, 1_000_000), "addresses per minute",
        "how many new addresses one other node may ban here",
        |config, value| config.peer_budget = value as u32),
    int("max_peer_entries", 65_536, ENTRIES, "entries",
        "capacity of the table of other nodes' bans",
        |config, value| config.max_peer_entries = value as usize),
    text("mode", "enforce", "enforce or observe",
        "observe: everything runs and is counted, but nobody is turned away",
        |config, value| {
            config.mode = match one_of(value, &["enforce", "observe"])? {
                "observe" => Mode::Observe,
                _ => Mode::Enforce,
            };
            Ok(())
        }),
    int("block_budget", 1000, (0, 1_000_000_000), "addresses per minute",
        "how many new addresses apiban_block() may ban; 0: no limit",
        |config, value| config.block_budget = value as u32),
    int("feed_shrink_limit", 50, (0, 100), "percent",
        "a full fetch that would drop more than this share of the list is held back",
        |config, value| config.feed_shrink_limit = value as u8),
];

fn store_key(field: &mut Option<Key>, value: &str) -> Result<(), String> {
    // An empty key is the default: none.
    *field = match value {
        "" => None,
        _ => Some(Key::new(value).map_err(|error| format!("is not a key: {error}"))?),
    };
    Ok(())
}

/// What is wrong with a trust list; a list of one word is not repeated.
fn wrong_list(value: &str, error: &ListError) -> String {
    let text = error.to_string();
    match text.strip_prefix(&format!("\"{value}\" ")) {
        Some(rest) => rest.to_owned(),
        None => format!("is wrong: {text}"),
    }
}

fn store_path(field: &mut String, value: &str) -> Result<(), String> {
    if !value.starts_with('/') || value.contains('\0') {
        return Err("is not an absolute path".into());
    }
    *field = value.to_owned();
    Ok(())
}

fn store_url(field: &mut BaseUrl, value: &str) -> Result<(), String> {
    *field = value
        .parse()
        .map_err(|error: crate::base_url::BaseUrlError| error.to_string())?;
    Ok(())
}

fn one_of<'a>(value: &str, words: &[&'a str]) -> Result<&'a str, String> {
    words
        .iter()
        .copied()
        .find(|word| *word == value)
        .ok_or_else(|| "is unknown".to_owned())
}
