//! The commands and options: help, man pages and completions are made from this one definition.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::export::Format;

const EXAMPLES: &str = "\
Examples:
  apiban check 192.0.2.7             is it listed, until when?
  apiban sync                        fetch what is new, update the firewall, end
  apiban run                         the same as a service, without end
  apiban export haproxy --output /etc/haproxy/apiban.lst
  apiban feed --listen 127.0.0.1:8088
  apiban report

Files:
  /etc/apiban/apiban.toml            configuration; parameters have the names of the Kamailio module's
  /var/lib/apiban/apiban.state       the list, and the requests that the service already counted

Exit codes:
  0  done; check: at least one address is listed
  1  check: none of the addresses is listed
  2  trouble: a message says what, where, and the remedy
  3  export: the list is empty or suspiciously short, the file is untouched
  4  sync: the service is unavailable, the list is kept";

/// Keeps what APIBAN lists away from this host, and answers questions about the list.
#[derive(Debug, Parser)]
#[command(name = "apiban", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
}

/// Options of every command.
#[derive(Debug, Default, Args)]
pub struct Common {
    /// Configuration: apiban.toml, or a Go client's config.json as it is
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// State file to use instead of the configured one
    #[arg(long, global = true, value_name = "FILE")]
    pub state_file: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Show errors only, and no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Show what is being done; twice for developers
    #[arg(long, short, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell whether addresses are listed, by whom and until when
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckOptions),
    /// Print the list, one address a line
    #[command(after_help = LIST_EXAMPLES)]
    List(ListOptions),
    /// Write the list for a device or another program
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportOptions),
    /// Fetch what is new, bring the firewall up to date, and end
    #[command(after_help = SYNC_EXAMPLES)]
    Sync(SyncOptions),
    /// Do the same as a service, without end
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunOptions),
    /// Serve the list to other hosts, devices and old recipes, from one key
    #[command(after_help = FEED_EXAMPLES)]
    Feed(FeedOptions),
    /// Show what the list says of itself: listed a day, largest networks, what is new
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportOptions),
    /// Remove from the firewall all that this program put there
    #[command(after_help = FLUSH_EXAMPLES)]
    Flush,
    /// Print the manual page of a command, or write all of them into a directory
    #[command(hide = true)]
    Man(ManOptions),
    /// Print the completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsOptions),
}

const CHECK_EXAMPLES: &str = "\
Examples:
  apiban check 192.0.2.7 2001:db8::7
  apiban check --live 192.0.2.7      ask the service too; counts as one of its requests
  apiban check --json 198.51.100.0/24 | jq -r '.[].source'
  apiban check -q \"$ip\" && echo listed

The exit code is that of grep: 0 one is listed, 1 none is, 2 trouble.";

/// Options of `apiban check`.
#[derive(Debug, Args)]
pub struct CheckOptions {
    /// Addresses or prefixes
    #[arg(required = true, value_name = "ADDRESS")]
    pub addresses: Vec<String>,
    /// Ask the service for what the state file does not list
    #[arg(long)]
    pub live: bool,
}

const LIST_EXAMPLES: &str = "\
Examples:
  apiban list
  apiban list -4 --format csv
  apiban list --source all --json | jq length";

/// Options of `apiban list`.
#[derive(Debug, Args)]
pub struct ListOptions {
    /// How to print it
    #[arg(long, value_enum, default_value_t = ListFormat::Plain)]
    pub format: ListFormat,
    /// Which part of the list
    #[command(flatten)]
    pub selection: Selection,
}

/// Which part of the list is meant.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Selection {
    /// What the service lists, what was banned locally, or both
    #[arg(long, value_enum, default_value_t = Part::Feed)]
    pub source: Part,
    /// IPv4 only
    #[arg(long, short = '4', conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// IPv6 only
    #[arg(long, short = '6')]
    pub ipv6: bool,
}

/// Who banned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The service
    #[default]
    Feed,
    /// A script or an operator of Kamailio's module on this host
    Local,
    /// Both
    All,
}

/// How `apiban list` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// One address or prefix a line
    Plain,
    /// An array of objects with ip, source, since, until
    Json,
    /// The same as comma separated values with a header
    Csv,
}

const EXPORT_EXAMPLES: &str = "\
Examples:
  apiban export plain --output /var/www/html/apiban.txt      pfSense, OPNsense, Firepower, SRX, PAN-OS, FortiOS
  apiban export nft | nft -f -
  apiban export ipset | ipset restore
  apiban export iptables | iptables-restore -n
  apiban export cisco-asa --previous last.txt --output new.txt
  apiban export junos --name SIP-ATTACKERS

A file is written aside and renamed. An empty or suspiciously short list never replaces a good file: the exit
code is 3 then. Trusted addresses are in no export.";

/// Options of `apiban export`.
#[derive(Debug, Args)]
pub struct ExportOptions {
    /// For what
    #[arg(value_enum)]
    pub format: Format,
    /// File to write; without it the standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name of the list on the device (table, set, chain, group, jail, tag); each format has its default
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What the device has now, as an earlier export or its own listing: write the difference only
    /// (cisco-ios, cisco-asa, routeros)
    #[arg(long, value_name = "FILE")]
    pub previous: Option<PathBuf>,
    /// Write it even if it is much shorter than the file it replaces
    #[arg(long)]
    pub force: bool,
    /// Which part of the list
    #[command(flatten)]
    pub selection: Selection,
}

const SYNC_EXAMPLES: &str = "\
Examples:
  apiban sync
  apiban sync --config /usr/local/bin/apiban/config.json      a Go client's configuration as it is
  apiban sync --full                 the whole list once more; drops what is no longer listed
  */5 * * * *  root  apiban sync     a line for /etc/cron.d

It keeps within the service's request limit, over restarts too: the first fetch of a long list takes minutes.
If the service is unavailable the list and the firewall stay as they are, and the exit code is 4.";

/// Options of `apiban sync`.
#[derive(Debug, Args)]
pub struct SyncOptions {
    /// Fetch the whole list, and drop what it no longer holds
    #[arg(long)]
    pub full: bool,
    /// Believe the service even if its list is suspiciously short; implies --full
    #[arg(long)]
    pub force: bool,
    /// The Go clients' word for --full
    #[arg(value_name = "FULL", value_parser = ["FULL"])]
    pub word: Option<String>,
}

impl SyncOptions {
    /// True if the whole list is wanted.
    pub fn full(&self) -> bool {
        self.full || self.force || self.word.is_some()
    }
}

const RUN_EXAMPLES: &str = "\
Examples:
  apiban run
  systemctl enable --now apiban      with examples/apiban.service
  kill -HUP $PID                     read key and trust files again, and the whole list

SIGTERM and SIGINT end it. Bans stay in the firewall and end at their own time, unless firewall_flush is 1.";

/// Options of `apiban run`.
#[derive(Debug, Default, Args)]
pub struct RunOptions {
    /// Serve the list, too, as "apiban feed" does
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
}

const FEED_EXAMPLES: &str = "\
Examples:
  apiban feed --listen 127.0.0.1:8088
  curl http://127.0.0.1:8088/export/plain
  modparam(\"apiban\", \"api_url\", \"http://192.0.2.10:8088/api\")     in kamailio.cfg of other hosts

Paths:
  /api/get, /api/check               version 2 of the service's interface: POST, Authorization: Bearer KEY
  /api/KEY/banned[/ID], /api/KEY/check/IP        version 1
  /ipset/KEY/list                    plain text
  /export/FORMAT                     every format of \"apiban export\"; the key as Bearer, or as password

Without feed_keys_file any key is accepted, and the mirror listens on loopback only.";

/// Options of `apiban feed`.
#[derive(Debug, Args)]
pub struct FeedOptions {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8088")]
    pub listen: SocketAddr,
}

const REPORT_EXAMPLES: &str = "\
Examples:
  apiban report
  apiban report --days 30 --html /var/www/html/apiban.html
  apiban report --json | jq .hit_us
  apiban report --geo GeoLite2-Country.mmdb --geo GeoLite2-ASN.mmdb

The databases are yours: none comes with this program, and none is fetched. What was listed is remembered in STATE_FILE.history. Run the report once a day, so that it misses nothing.";

/// Options of `apiban report`.
#[derive(Debug, Args)]
pub struct ReportOptions {
    /// How many days to show
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=400))]
    pub days: u32,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Database of countries or of operators, such as GeoLite2-Country.mmdb; may be given twice
    #[arg(long, value_name = "MMDB")]
    pub geo: Vec<PathBuf>,
}

const FLUSH_EXAMPLES: &str = "\
Examples:
  apiban flush                       removes the nft table, the ipsets or the chain of iptables-api";

/// Options of `apiban man`.
#[derive(Debug, Args)]
pub struct ManOptions {
    /// Directory for all pages; without it the main page goes to the standard output
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  apiban completions bash >/usr/share/bash-completion/completions/apiban
  apiban completions zsh >/usr/share/zsh/vendor-completions/_apiban
  apiban completions fish >/usr/share/fish/vendor_completions.d/apiban.fish";

/// Options of `apiban completions`.
#[derive(Debug, Args)]
pub struct CompletionsOptions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }
}
