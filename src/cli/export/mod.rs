//! `apiban export`: the list in the form that a device or another program reads.
//!
//! Each format is a pure function from a sorted list to text ([`Format::render`]); every address in it is
//! printed from a parsed value. [`mod@file`] writes the text to its file, and refuses to replace a good list by an
//! empty or suspiciously short one.

mod devices;
pub mod file;
mod kernel;
mod members;
mod servers;
mod shape;
mod tools;

use std::fs;
use std::io::Write;
use std::path::Path;

use clap::ValueEnum;

use super::args::ExportOptions;
use super::config::Settings;
use super::exit::{Exit, Failure};
use super::lines;
use super::listing::{self, Item, Listing};
use crate::clock::UnixSeconds;
use crate::quote::plain;
use members::Previous;

/// A list shorter than this may shrink as it likes.
const SHRINK_MIN: usize = 100;
/// Longest name that any format takes.
const MAX_NAME: usize = 63;

/// For what the list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Format {
    /// One address or prefix a line: pfSense, OPNsense, Firepower, SRX, PAN-OS, FortiOS, and most others
    Plain,
    /// An array of objects with ip, source, since, until
    Json,
    /// The same as comma separated values
    Csv,
    /// nft -f: a table with sets and timeouts, replaced in one transaction
    Nft,
    /// ipset restore: two sets, filled aside and swapped
    Ipset,
    /// iptables-restore -n: one chain
    Iptables,
    /// ip6tables-restore -n: one chain
    Ip6tables,
    /// Table file of pf: pfctl -t NAME -T replace -f FILE
    Pf,
    /// Object groups of Cisco IOS and IOS XE
    CiscoIos,
    /// Object group of Cisco ASA
    CiscoAsa,
    /// Prefix list of Junos, as set commands
    Junos,
    /// Address lists of MikroTik RouterOS, as a script
    Routeros,
    /// Pattern file for the ACL "src -f FILE" of HAProxy
    Haproxy,
    /// geo block of nginx: $NAME is 1 for a listed client
    Nginx,
    /// Named ACL for acl.conf of Asterisk
    Asterisk,
    /// Network list for acl.conf.xml of FreeSWITCH
    Freeswitch,
    /// Address file of Kamailio's module permissions
    Kamailio,
    /// SQL for the table of OpenSIPS' module permissions
    Opensips,
    /// cscli decisions import -i FILE
    Crowdsec,
    /// Shell script of fail2ban-client commands; NAME is the jail
    Fail2ban,
}

/// What a format is made from.
pub struct Job<'a> {
    /// The list's name on the device.
    pub name: &'a str,
    /// Sorted by address, each once.
    pub items: &'a [Item],
    /// What the device has now.
    pub previous: Option<&'a Previous>,
    /// The moment from which times are counted.
    pub now: UnixSeconds,
}

impl Format {
    /// The word on the command line and in the path of the mirror.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// The list's name if none is given.
    pub fn default_name(self) -> &'static str {
        match self {
            // The chain of APIBAN's own client: rules that jump there stay as they are.
            Format::Iptables | Format::Ip6tables => "APIBAN",
            // Not the module's own table.
            Format::Nft => "apiban_list",
            // The table's name in OpenSIPS.
            Format::Opensips => "address",
            _ => "apiban",
        }
    }

    /// True if `--previous` changes what is written.
    pub fn knows_previous(self) -> bool {
        matches!(self, Format::CiscoIos | Format::CiscoAsa | Format::Routeros)
    }

    /// Why this name cannot be used, if it cannot: names go into the text as they are.
    fn refuses(self, name: &str) -> Option<String> {
        let longest = match self {
            // The kernel allows 31 characters; the family and "-new" are appended.
            Format::Ipset => 24,
            Format::Iptables | Format::Ip6tables => 28,
            _ => MAX_NAME,
        };
        // In names of variables and tables a hyphen is an operator.
        let extra = match self {
            Format::Nginx | Format::Opensips => "_",
            _ => "_-",
        };
        let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || extra.contains(c));
        (!plain || name.len() > longest).then(|| {
            format!(
                "--name {}: expected a letter, then letters, digits and {}, at most {longest} characters",
                crate::quote::printable(name),
                extra.chars().map(String::from).collect::<Vec<_>>().join(" ")
            )
        })
    }

    /// The text of the list.
    pub fn render(self, job: &Job<'_>) -> String {
        match self {
            Format::Plain => listing::plain_text(job.items),
            Format::Json => listing::json_text(job.items),
            Format::Csv => listing::csv_text(job.items),
            Format::Nft => kernel::nft(job),
            Format::Ipset => kernel::ipset(job),
            Format::Iptables => kernel::iptables(job, true),
            Format::Ip6tables => kernel::iptables(job, false),
            Format::Pf | Format::Haproxy => servers::prefixes(job),
            Format::CiscoIos => devices::cisco_ios(job),
            Format::CiscoAsa => devices::cisco_asa(job),
            Format::Junos => devices::junos(job),
            Format::Routeros => devices::routeros(job),
            Format::Nginx => servers::nginx(job),
            Format::Asterisk => servers::asterisk(job),
            Format::Freeswitch => servers::freeswitch(job),
            Format::Kamailio => servers::kamailio(job),
            Format::Opensips => servers::opensips(job),
            Format::Crowdsec => tools::crowdsec(job),
            Format::Fail2ban => tools::fail2ban(job),
        }
    }

    /// True if the text holds the time that each ban has left.
    pub fn is_timed(self) -> bool {
        matches!(
            self,
            Format::Nft | Format::Ipset | Format::Routeros | Format::Crowdsec
        )
    }

    /// The items that this format can hold.
    pub fn holds(self, item: &Item) -> bool {
        match self {
            Format::Iptables => item.subnet.is_v4(),
            Format::Ip6tables => !item.subnet.is_v4(),
            _ => true,
        }
    }
}

/// Writes the list for a device.
pub fn run(settings: &Settings, options: &ExportOptions) -> Result<Exit, Failure> {
    let format = options.format;
    let name = options.name.as_deref().unwrap_or(format.default_name());
    if let Some(problem) = format.refuses(name) {
        return Err(Failure::trouble(problem));
    }
    let previous = previous(options)?;
    let listing = Listing::read(settings, options.selection)?;
    let items: Vec<Item> = listing
        .items
        .into_iter()
        .filter(|item| format.holds(item))
        .collect();
    if !options.force {
        let before = match (&previous, &options.output) {
            (Some(previous), _) => previous.len(),
            (None, Some(path)) => file::entries_in(path),
            (None, None) => 0,
        };
        let limit = settings.config.feed_shrink_limit;
        refuse_short(&format.name(), items.len(), before, limit)?;
    }
    let text = format.render(&Job {
        name,
        items: &items,
        previous: previous.as_ref(),
        now: listing.now,
    });
    match &options.output {
        Some(path) => file::replace(path, text.as_bytes())?,
        None => {
            let mut out = lines::stdout();
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
    }
    Ok(Exit::Ok)
}

/// What the device has, if a format asks for it.
fn previous(options: &ExportOptions) -> Result<Option<Previous>, Failure> {
    let Some(path) = &options.previous else {
        return Ok(None);
    };
    if !options.format.knows_previous() {
        return Err(Failure::trouble(format!(
            "--previous: {} replaces the list as a whole; leave --previous out",
            options.format.name()
        )));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &plain(&error)))?;
    Ok(Some(members::read(options.format, &text)))
}

fn unreadable(path: &Path, problem: &str) -> Failure {
    Failure::trouble(format!(
        "{}: {problem}; for a device without a list leave --previous out",
        path.display()
    ))
}

/// Refuses an empty list, and one that lost more than `limit` percent of what was there, unless the user forces it.
fn refuse_short(format: &str, now: usize, before: usize, limit: u8) -> Result<(), Failure> {
    let too_short = |text: String| Err(Failure::new(Exit::TooShort, text));
    if now == 0 {
        return too_short(format!(
            "the list for {format} is empty: nothing is written; \"apiban sync\" fetches it, --force writes it"
        ));
    }
    let lost = before.saturating_sub(now);
    if before >= SHRINK_MIN && lost * 100 > before * usize::from(limit) {
        return too_short(format!(
            "the list for {format} would shrink from {before} to {now} entries, more than feed_shrink_limit \
             ({limit} %) allows: nothing is written; --force writes it"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
