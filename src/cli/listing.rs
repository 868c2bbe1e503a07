//! The list as the state file holds it: who is listed now, without anybody who is trusted.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{ListFormat, ListOptions, Part, Selection};
use super::config::Settings;
use super::exit::{Exit, Failure};
use super::lines;
use super::messages;
use super::times;
use crate::address::{nat64, Subnet};
use crate::clock::UnixSeconds;
use crate::feed::Saved;
use crate::quote::plain;
use crate::state::{self, Ban, LoadError};
use crate::trust::{Rule, Trusted};

/// One ban of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Address or prefix.
    pub subnet: Subnet,
    /// Who banned it: never [`Part::All`].
    pub source: Part,
    /// When it came.
    pub since: UnixSeconds,
    /// When it ends.
    pub until: UnixSeconds,
    /// Packets of it that met the ban, as far as the state file says.
    pub hits: u32,
}

/// What a state file said at one moment.
#[derive(Debug, Default)]
pub struct Listing {
    /// Sorted by address, each once, none of them ended or trusted.
    pub items: Vec<Item>,
    /// Where the walk through the service's list stood.
    pub saved: Option<Saved>,
    /// The moment.
    pub now: UnixSeconds,
}

/// One ban as `--json` and `--format json` show it.
#[derive(Serialize)]
struct Shown {
    ip: String,
    source: &'static str,
    since: UnixSeconds,
    until: UnixSeconds,
}

impl Part {
    /// The word in answers.
    pub fn name(self) -> &'static str {
        match self {
            Part::Feed => "feed",
            Part::Local => "local",
            Part::All => "all",
        }
    }
}

/// Prints the list.
pub fn run(settings: &Settings, options: &ListOptions, json: bool) -> Result<Exit, Failure> {
    let listing = Listing::read(settings, options.selection)?;
    let format = if json {
        ListFormat::Json
    } else {
        options.format
    };
    let mut out = lines::stdout();
    let text = match format {
        ListFormat::Plain => plain_text(&listing.items),
        ListFormat::Json => json_text(&listing.items),
        ListFormat::Csv => csv_text(&listing.items),
    };
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(Exit::Ok)
}

/// One address a line.
pub fn plain_text(items: &[Item]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(items.len() * 16);
    for item in items {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", item.subnet);
    }
    text
}

/// An array, one object a line.
pub fn json_text(items: &[Item]) -> String {
    let mut text = String::from("[");
    for (index, item) in items.iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        let shown = Shown {
            ip: item.subnet.to_string(),
            source: item.source.name(),
            since: item.since,
            until: item.until,
        };
        // Plain words and numbers always have a JSON form.
        text.push_str(&serde_json::to_string(&shown).unwrap_or_default());
    }
    text.push_str("\n]\n");
    text
}

/// Comma separated values with a header; no value needs quotes.
pub fn csv_text(items: &[Item]) -> String {
    use std::fmt::Write;
    let mut text = String::from("ip,source,since,until\n");
    for item in items {
        let (source, since, until) = (item.source.name(), item.since, item.until);
        let _ = writeln!(text, "{},{source},{since},{until}", item.subnet);
    }
    text
}

impl Listing {
    /// Reads the configured state file.
    pub fn read(settings: &Settings, selection: Selection) -> Result<Listing, Failure> {
        let path = state_path(settings)?;
        let state = load(&path)?.ok_or_else(|| {
            Failure::trouble(format!(
                "{}: there is no state file yet; \"apiban sync\" makes it, --state-file names another",
                path.display()
            ))
        })?;
        let now = times::now();
        let trust = TrustList::new(&settings.trusted()?, settings.config.trust_self);
        let wanted =
            |source: Part| matches!(selection.source, Part::All) || selection.source == source;
        let mut found = BTreeMap::new();
        for (source, bans) in [(Part::Feed, &state.listed), (Part::Local, &state.local)] {
            if wanted(source) {
                collect(&mut found, source, bans, now, &trust);
            }
        }
        let family = |subnet: &Subnet| match (selection.ipv4, selection.ipv6) {
            (true, _) => subnet.is_v4(),
            (_, true) => !subnet.is_v4(),
            _ => true,
        };
        Ok(Listing {
            items: found
                .into_values()
                .filter(|item: &Item| family(&item.subnet))
                .collect(),
            saved: state.feed,
            now,
        })
    }
}

/// Adds what is live and may be banned; of an address that is there twice the later end counts.
fn collect(
    found: &mut BTreeMap<Subnet, Item>,
    source: Part,
    bans: &[Ban],
    now: UnixSeconds,
    trust: &TrustList,
) {
    let mut unreadable = 0;
    for ban in bans.iter().filter(|ban| ban.end > now) {
        let Ok(subnet) = ban.ip.parse::<Subnet>() else {
            unreadable += 1;
            continue;
        };
        if subnet.never_bannable().is_some() || trust.spares(subnet).is_some() {
            continue;
        }
        let item = Item {
            subnet,
            source,
            since: ban.since,
            until: ban.end,
            hits: ban.hits,
        };
        let known = found.entry(subnet).or_insert(item);
        if known.until < item.until {
            *known = item;
        }
    }
    if unreadable > 0 {
        messages::warning(&format!(
            "the state file holds {unreadable} entries that are no address: they are left out"
        ));
    }
}

/// The configured state file.
pub fn state_path(settings: &Settings) -> Result<PathBuf, Failure> {
    if settings.config.state_file.is_empty() {
        return Err(Failure::trouble(format!(
            "{}: state_file is empty, so there is no list to read; name one with --state-file",
            settings.name()
        )));
    }
    Ok(PathBuf::from(&settings.config.state_file))
}

/// Reads a state file; `None` if there is none.
pub fn load(path: &Path) -> Result<Option<state::State>, Failure> {
    state::load(path).map_err(|error| {
        let (problem, remedy) = match &error {
            LoadError::Unreadable(error) => (
                plain(error),
                "run this as root or as the user that keeps the file",
            ),
            LoadError::Damaged(problem) => (
                problem.clone(),
                "move it away and run \"apiban sync\", or use the release that wrote it",
            ),
        };
        Failure::trouble(format!("{}: {problem}; {remedy}", path.display()))
    })
}

/// Who is trusted, for questions about thousands of addresses.
pub struct TrustList {
    /// By prefix length of IPv4 and IPv6.
    by_length: BTreeMap<(bool, u8), HashMap<Subnet, Rule>>,
}

impl TrustList {
    /// These rules, and this host's own addresses if `own` says so.
    pub fn new(trusted: &[Trusted], own: bool) -> Self {
        let mut by_length: BTreeMap<_, HashMap<_, _>> = BTreeMap::new();
        let of_host = own.then(own_addresses).into_iter().flatten();
        let of_host = of_host.map(|ip| (Subnet::host(ip), Rule::Own));
        for (subnet, rule) in trusted.iter().copied().chain(of_host) {
            by_length
                .entry((subnet.is_v4(), subnet.prefix_len()))
                .or_default()
                .entry(subnet)
                .or_insert(rule);
        }
        TrustList { by_length }
    }

    /// The rule that covers this subnet or a part of it, or an IPv4 host for which it stands behind a NAT64
    /// translator.
    pub fn spares(&self, subnet: Subnet) -> Option<Rule> {
        let behind = |net| self.overlap(net, Rule::counts_behind_translator);
        self.overlap(subnet, |_| true)
            .or_else(|| nat64::networks(subnet).find_map(behind))
    }

    /// A rule that counts and covers this subnet or a part of it.
    fn overlap(&self, subnet: Subnet, counts: impl Fn(Rule) -> bool) -> Option<Rule> {
        for ((v4, length), rules) in &self.by_length {
            if *v4 != subnet.is_v4() {
                continue;
            }
            let found = if *length <= subnet.prefix_len() {
                let around = Subnet::new(subnet.address(), *length);
                around.and_then(|around| rules.get(&around).copied())
            } else {
                let mut overlapping = rules
                    .iter()
                    .filter(|(rule, _)| rule.overlaps(&subnet))
                    .map(|(_, rule)| *rule);
                overlapping.find(|rule| counts(*rule))
            };
            if let Some(rule) = found.filter(|rule| counts(*rule)) {
                return Some(rule);
            }
        }
        None
    }
}

/// The addresses of this host's interfaces.
pub fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::at;
    use crate::trust;

    #[test]
    fn trust_covers_addresses_and_whatever_overlaps() {
        let rules = trust::parse_parameter("192.0.2.7 198.51.100.0/24 2001:db8::5").unwrap();
        let list = TrustList::new(&rules, false);
        for (text, spared) in [
            ("192.0.2.7", true),
            ("192.0.2.0/24", true),
            ("198.51.100.9", true),
            ("198.51.0.0/16", true),
            ("2001:db8::/64", true),
            ("192.0.2.8", false),
            ("192.0.3.0/24", false),
            ("2001:db8::6", false),
        ] {
            assert_eq!(
                list.spares(text.parse().unwrap()).is_some(),
                spared,
                "{text}"
            );
        }
    }

    #[test]
    fn the_later_end_counts_and_each_address_stands_once() {
        let ban = |ip: &str, end| Ban {
            ip: ip.into(),
            end: at(end),
            since: at(1),
            reason: String::new(),
            hits: 0,
        };
        let mut found = BTreeMap::new();
        let trust = TrustList::new(&[], false);
        let feed = [
            ban("192.0.2.2", 90),
            ban("192.0.2.1", 5),
            ban("224.0.0.1", 90),
        ];
        collect(&mut found, Part::Feed, &feed, at(10), &trust);
        collect(
            &mut found,
            Part::Local,
            &[ban("::ffff:192.0.2.2", 95)],
            at(10),
            &trust,
        );
        let items: Vec<Item> = found.into_values().collect();
        assert_eq!(
            csv_text(&items),
            "ip,source,since,until\n192.0.2.2,local,1,95\n"
        );
        assert_eq!(plain_text(&items), "192.0.2.2\n");
        let back: serde_json::Value = serde_json::from_str(&json_text(&items)).unwrap();
        assert_eq!(back[0]["until"], 95);
        assert_eq!(json_text(&[]), "[\n]\n");
    }
}
