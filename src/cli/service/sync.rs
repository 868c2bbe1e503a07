//! `apiban sync`: once, for cron and timers.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use nix::sys::signalfd::SignalFd;
use serde::Serialize;

use super::backend;
use super::host::ThisHost;
use super::leftovers;
use super::progress::Progress;
use super::signals;
use super::work::{Prepared, Work};
use crate::cli::args::{Selection, SyncOptions};
use crate::cli::config::Settings;
use crate::cli::exit::{Exit, Failure};
use crate::cli::lines;
use crate::cli::listing::Listing;
use crate::cli::messages;
use crate::feed::FeedState;
use crate::firewall::Element;
use crate::shared::published::{Number, Text};
use crate::shared::requests::Request;
use crate::shared::Shared;
use crate::updater::Updater;

/// The longest sleep between two looks.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);
/// The service has failed when this many requests in a row brought nothing.
const MOST_FAILURES: u64 = 2;

/// What was done, for `--json`.
#[derive(Debug, Default, Serialize)]
struct Report {
    listed: usize,
    requests: u64,
    state: &'static str,
    firewall: &'static str,
}

/// How the service did.
enum Outcome {
    Complete,
    Unavailable(String),
    Refused,
    Held,
    Interrupted,
}

/// Fetches what is new, keeps the state, brings the firewall up to date.
pub fn run(
    settings: &Settings,
    options: &SyncOptions,
    common: &crate::cli::args::Common,
) -> Result<Exit, Failure> {
    let has_firewall = backend::make(settings)?.is_some();
    if has_firewall {
        leftovers::report();
    }
    let signals = signals::take()?;
    let work = match Work::prepare(settings, false)? {
        Prepared::Ready(work) => work,
        Prepared::InUse { same_firewall } => return from_state_of_another(settings, same_firewall),
    };
    let host = ThisHost::new(settings.config.trust_self);
    let mut updater = work.updater(&host)?;
    if options.full() || options.force {
        work.shared.requests.ask(Request::Reload);
    }
    if options.force {
        work.shared.requests.ask(Request::Force);
    }
    let full = options.full() || options.force || work.shared.feed.is_empty();
    let outcome = fetch(&work, &mut updater, &host, &signals, full, !common.quiet);
    updater.end();
    let mut report = Report {
        listed: work.shared.feed.len(),
        requests: work.shared.published.number(Number::FeedRequests),
        state: state_of(work.shared).as_str(),
        firewall: "none",
    };
    // The list that is there goes to the firewall whatever the service did.
    let installed = install(settings, &backend::wanted(work.shared, work.config.scope()));
    if let Ok(Some(name)) = installed {
        report.firewall = name;
    }
    if common.json {
        lines::json(&report)?;
    } else if std::io::stderr().is_terminal() {
        messages::note(&format!(
            "{} addresses listed, {} requests, firewall: {}",
            report.listed, report.requests, report.firewall
        ));
    }
    verdict(settings, outcome)?;
    installed?;
    // What went wrong on the way (a full disk, for example) has been told.
    Ok(if messages::errors() > 0 {
        Exit::Trouble
    } else {
        Exit::Ok
    })
}

/// Turns the updater until the list is complete or the service has failed.
fn fetch(
    work: &Work,
    updater: &mut Updater<'_, &ThisHost>,
    host: &ThisHost,
    signals: &SignalFd,
    full: bool,
    show: bool,
) -> Outcome {
    let mut progress = Progress::new(show);
    let number = |number| work.shared.published.number(number);
    let mut last = (0, 0);
    let mut failures = 0;
    loop {
        let pause = updater.turn();
        let (good, bad) = (
            number(Number::FetchOk),
            number(Number::FetchErrors) + number(Number::RateLimited),
        );
        if good > last.0 {
            failures = 0;
        }
        failures += bad - last.1;
        last = (good, bad);
        let complete = if full { host.completed() > 0 } else { good > 0 };
        match state_of(work.shared) {
            FeedState::Unauthorized => return Outcome::Refused,
            FeedState::Held => return Outcome::Held,
            FeedState::Ok if complete => return Outcome::Complete,
            _ if failures >= MOST_FAILURES => {
                return Outcome::Unavailable(work.shared.published.text(Text::FeedLastError))
            }
            _ => {}
        }
        progress.show(work.shared, work.config);
        work.sleep(pause.min(LONGEST_SLEEP), &[signals]);
        if signals::next(signals).is_some() {
            return Outcome::Interrupted;
        }
    }
}

fn state_of(shared: &Shared) -> FeedState {
    FeedState::from_number(shared.published.number(Number::FeedState))
}

fn install(settings: &Settings, wanted: &[Element]) -> Result<Option<&'static str>, Failure> {
    let Some(mut backend) = backend::make(settings)? else {
        return Ok(None);
    };
    // Nobody remembers what the last run put there.
    if !backend.facts().knows_what_it_holds {
        backend.reset().map_err(|error| backend::failure(&error))?;
    }
    backend::bring_up_to_date(backend.as_mut(), wanted)
        .map_err(|error| backend::failure(&error))?;
    Ok(Some(backend.facts().name))
}

fn verdict(settings: &Settings, outcome: Outcome) -> Result<(), Failure> {
    let url = &settings.config.api_url;
    match outcome {
        Outcome::Complete => Ok(()),
        Outcome::Interrupted => Err(Failure::trouble(
            "interrupted; what was fetched is kept, and the next run goes on from there",
        )),
        Outcome::Unavailable(why) => Err(Failure::new(
            Exit::Unavailable,
            format!("{url}: the service is unavailable ({why}); the list is kept"),
        )),
        Outcome::Held => Err(Failure::new(
            Exit::Unavailable,
            format!(
                "{url}: the service's list is suspiciously short; the list is kept. \"apiban sync --force\" \
                 believes the service"
            ),
        )),
        Outcome::Refused => Err(Failure::trouble(format!(
            "{url}: the service refuses the API key; see api_key_file in {}. The list is kept",
            settings.name()
        ))),
    }
}

/// Another program fetches: its state file is read, and only a firewall that it does not keep itself is
/// brought up to date.
fn from_state_of_another(settings: &Settings, same_firewall: bool) -> Result<Exit, Failure> {
    let path = Path::new(&settings.config.state_file).display();
    if same_firewall {
        messages::note(&format!(
            "{path}: another program keeps this state file and the firewall; there is nothing to do"
        ));
        return Ok(Exit::Ok);
    }
    messages::note(&format!(
        "{path}: another program keeps this state file and fetches the list; it is only read"
    ));
    let listing = Listing::read(settings, Selection::default())?;
    let wanted: Vec<Element> = listing
        .items
        .iter()
        .map(|item| Element {
            subnet: item.subnet,
            hits: 0,
            seconds_left: item.until.saturating_sub(listing.now),
        })
        .collect();
    install(settings, &wanted)?;
    Ok(Exit::Ok)
}
