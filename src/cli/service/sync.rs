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
use crate::cli::times;
use crate::clock::UnixSeconds;
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
    /// Since when a list that is suspiciously short is held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_since: Option<UnixSeconds>,
    firewall: &'static str,
}

/// How the service did.
enum Outcome {
    Complete,
    Unavailable(String),
    Refused,
    /// A list that is suspiciously short, which this run or an earlier one held back at this time.
    Held(UnixSeconds),
    Interrupted,
}

/// Fetches what is new, keeps the state, brings the firewall up to date.
pub fn run(
    settings: &Settings,
    options: &SyncOptions,
    common: &crate::cli::args::Common,
) -> Result<Exit, Failure> {
    let signals = signals::take()?;
    let prepared = Work::prepare(settings, false)?;
    let state = Path::new(&settings.config.state_file).display();
    if let Prepared::InUse {
        same_firewall: true,
    } = prepared
    {
        messages::note(&format!(
            "{state}: another program keeps this state file and the firewall; there is nothing to do"
        ));
        return Ok(Exit::Ok);
    }
    // Before anything reads the notes. A run that began beside a program that has ended since may still have them.
    let Ok(_notes) = backend::lock_notes(settings) else {
        messages::note("another run brings the firewall up to date; there is nothing to do");
        return Ok(Exit::Ok);
    };
    let work = match prepared {
        Prepared::Ready(work) => work,
        Prepared::InUse { .. } => {
            messages::note(&format!(
                "{state}: another program keeps this state file and fetches the list; it is only read"
            ));
            return from_state_of_another(settings);
        }
    };
    let has_firewall = backend::make(settings)?.is_some();
    let host = ThisHost::new(settings.config.trust_self);
    let mut updater = work.updater(&host)?;
    if options.full() || options.force {
        work.shared.requests.ask(Request::Reload);
    }
    if options.force {
        work.shared.requests.ask(Request::Force);
    }
    let full = options.full() || options.force || work.shared.feed.is_empty();
    // The three programs that are asked take longer than all the rest of a sync that finds nothing new.
    if has_firewall && full {
        leftovers::report();
    }
    let outcome = fetch(&work, &mut updater, &host, &signals, full, !common.quiet);
    updater.end();
    let mut report = Report {
        listed: work.shared.feed.len(),
        requests: work.shared.published.number(Number::FeedRequests),
        state: state_of(work.shared).as_str(),
        held_since: updater.feed().held_since,
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
        let feed = updater.feed();
        // Nothing is under way, and nothing more is due for a while.
        let is_idle = feed.next_poll.is_some() && feed.waiting_for.is_empty();
        match (feed.state, feed.held_since) {
            (FeedState::Unauthorized, _) => return Outcome::Refused,
            // If an earlier run held a list back, the full fetch that has to agree may be due now.
            (_, Some(since)) if is_idle => return Outcome::Held(since),
            (FeedState::Ok, None) if complete => return Outcome::Complete,
            (FeedState::Ok, None) if is_idle && good > 0 => {
                return Outcome::Unavailable("its list did not come to an end".to_owned())
            }
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
    if !backend.facts().knows_what_it_holds && settings.config.state_file.is_empty() {
        messages::warning(&format!(
            "firewall {}: without state_file nobody remembers what earlier runs put there: what is no longer \
             listed stays",
            backend.facts().name
        ));
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
        Outcome::Held(since) => Err(Failure::new(
            Exit::Unavailable,
            format!(
                "{url}: the service's list is suspiciously short since {}; the list is kept. A full fetch that \
                 still says so {} later is believed, and \"apiban sync --force\" believes the service at once",
                times::point(since),
                times::span(settings.config.poll_interval)
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
fn from_state_of_another(settings: &Settings) -> Result<Exit, Failure> {
    let listing = Listing::read(settings, Selection::default())?;
    let wanted: Vec<Element> = listing
        .items
        .iter()
        .map(|item| Element {
            subnet: item.subnet,
            hits: 0,
            seconds_left: item.until.seconds_since(listing.now),
        })
        .collect();
    install(settings, &wanted)?;
    Ok(Exit::Ok)
}
