//! The table of module parameters: name, bounds, and where the value goes.

use super::{Config, FirewallKind, Mode, Scope};
use crate::feed::{ApiVersion, Dataset, Key, Source};
use crate::trust;

/// Longest time in seconds that any parameter takes: ten years, far from the limits of the clock.
const TEN_YEARS: i64 = 315_360_000;
/// Most entries of a table: one IPv4 table of this size takes 400 MB of address space.
const MOST_ENTRIES: i64 = 16_777_216;

/// One module parameter.
pub struct Parameter {
    /// Its name in `modparam("apiban", NAME, VALUE)`.
    pub name: &'static str,
    /// Number or string, and what is accepted.
    pub kind: Kind,
    /// True where the value must never be shown.
    pub secret: bool,
}

/// What a parameter takes.
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
            Kind::Int { min, max, .. } => format!("{min} to {max}"),
            Kind::Text { accepted, .. } => accepted.to_owned(),
        }
    }
}

/// The parameter of this name.
pub fn parameter(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}

const fn int(name: &'static str, min: i64, max: i64, set: fn(&mut Config, i64)) -> Parameter {
    Parameter {
        name,
        kind: Kind::Int { min, max, set },
        secret: false,
    }
}

const fn text(
    name: &'static str,
    accepted: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
) -> Parameter {
    Parameter {
        name,
        kind: Kind::Text { accepted, set },
        secret: false,
    }
}

/// Every parameter, in the order of the documentation.
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "api_key",
        kind: Kind::Text {
            accepted: "1 to 256 printable ASCII characters without blanks",
            set: |config, value| store_key(&mut config.api_key, value),
        },
        secret: true,
    },
    text("api_key_file", "an absolute path", |config, value| {
        store_path(&mut config.api_key_file, value)
    }),
    text(
        "api_url",
        "a URL that begins with http:// or https://",
        |config, value| store_url(&mut config.api_url, value),
    ),
    int("api_version", 1, 2, |config, value| {
        config.api_version = if value == 1 {
            ApiVersion::V1
        } else {
            ApiVersion::V2
        }
    }),
    text("dataset", "sip, http or all", |config, value| {
        config.dataset = value.parse().map_err(|_| "is unknown".to_owned())?;
        Ok(())
    }),
    int("poll_interval", 1, 86_400, |config, value| {
        config.poll_interval = value as u32
    }),
    int("resync_interval", 0, TEN_YEARS, |config, value| {
        config.resync_interval = value as u32
    }),
    int("feed_ttl", 1, TEN_YEARS, |config, value| {
        config.feed_ttl = value as u32
    }),
    int("rate_limit_requests", 1, 100_000, |config, value| {
        config.rate_limit_requests = value as u32
    }),
    int("rate_limit_window", 1, 86_400, |config, value| {
        config.rate_limit_window = value as u32
    }),
    int("http_timeout", 1, 300, |config, value| {
        config.http_timeout = value as u32
    }),
    text(
        "state_file",
        "an absolute path, or an empty string for none",
        |config, value| {
            if value.is_empty() {
                config.state_file.clear();
                return Ok(());
            }
            store_path(&mut config.state_file, value)
        },
    ),
    int("block_ttl", 1, TEN_YEARS, |config, value| {
        config.block_ttl = value as u32
    }),
    int("block_v6_prefix", 32, 128, |config, value| {
        config.block_v6_prefix = value as u8
    }),
    int("max_feed_entries", 1, MOST_ENTRIES, |config, value| {
        config.max_feed_entries = value as usize
    }),
    int("max_local_entries", 1, MOST_ENTRIES, |config, value| {
        config.max_local_entries = value as usize
    }),
    text(
        "trust",
        "IP addresses and prefixes, separated by comma or space",
        |config, value| {
            config.trust.extend(
                trust::parse_parameter(value).map_err(|error| format!("is wrong: {error}"))?,
            );
            Ok(())
        },
    ),
    text("trust_file", "an absolute path", |config, value| {
        store_path(&mut config.trust_file, value)
    }),
    int("trust_self", 0, 1, |config, value| {
        config.trust_self = value == 1
    }),
    int("trust_dmq", 0, 1, |config, value| {
        config.trust_dmq = value == 1
    }),
    int("trust_dispatcher", 0, 1, |config, value| {
        config.trust_dispatcher = value == 1
    }),
    text("firewall", "none, nft or iptables-api", |config, value| {
        config.firewall = match one_of(value, &["none", "nft", "iptables-api"])? {
            "nft" => FirewallKind::Nft,
            "iptables-api" => FirewallKind::IptablesApi,
            _ => FirewallKind::None,
        };
        Ok(())
    }),
    text(
        "firewall_url",
        "a URL that begins with http:// or https://",
        |config, value| store_url(&mut config.firewall_url, value),
    ),
    text("firewall_scope", "feed, local or all", |config, value| {
        config.firewall_scope = Some(match one_of(value, &["feed", "local", "all"])? {
            "feed" => Scope::Feed,
            "local" => Scope::Local,
            _ => Scope::All,
        });
        Ok(())
    }),
    int("firewall_flush", 0, 1, |config, value| {
        config.firewall_flush = value == 1
    }),
    text(
        "nft_table",
        "1 to 64 letters, digits, _ . - beginning with a letter",
        |config, value| {
            let plain = value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
            if !plain
                || value.len() > 64
                || !value.starts_with(|first: char| first.is_ascii_alphabetic())
            {
                return Err("is no table name".into());
            }
            config.nft_table = value.to_owned();
            Ok(())
        },
    ),
    // Named in the contract, for releases to come: only the value that means "off" is taken, so that
    // nobody believes to have what is not there.
    int("socket_filter", 0, 0, |_, _| ()),
    int("enable_dmq", 0, 0, |_, _| ()),
    text("mode", "enforce or observe", |config, value| {
        config.mode = match one_of(value, &["enforce", "observe"])? {
            "observe" => Mode::Observe,
            _ => Mode::Enforce,
        };
        Ok(())
    }),
    int("block_budget", 0, 1_000_000_000, |config, value| {
        config.block_budget = value as u32
    }),
    int("feed_shrink_limit", 0, 100, |config, value| {
        config.feed_shrink_limit = value as u8
    }),
];

fn store_key(field: &mut Option<Key>, value: &str) -> Result<(), String> {
    // An empty key is the default: none.
    *field = match value {
        "" => None,
        _ => Some(Key::new(value).map_err(|error| format!("is not a key: {error}"))?),
    };
    Ok(())
}

fn store_path(field: &mut String, value: &str) -> Result<(), String> {
    if !value.starts_with('/') || value.contains('\0') {
        return Err("is not an absolute path".into());
    }
    *field = value.to_owned();
    Ok(())
}

fn store_url(field: &mut String, value: &str) -> Result<(), String> {
    // The same rules for every base URL: no user, no query, no trailing slash.
    let source = Source::new(value, ApiVersion::V2, Dataset::Sip)
        .map_err(|error| format!("is no base URL: {error}"))?;
    *field = source.base().to_owned();
    Ok(())
}

fn one_of<'a>(value: &str, words: &[&'a str]) -> Result<&'a str, String> {
    words
        .iter()
        .copied()
        .find(|word| *word == value)
        .ok_or_else(|| "is unknown".to_owned())
}
