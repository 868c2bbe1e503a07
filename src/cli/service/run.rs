//! `apiban run`: the same without end, as a service.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use sd_notify::NotifyState;

use super::backend;
use super::host::ThisHost;
use super::leftovers;
use super::signals::{self, Asked};
use super::work::{Prepared, Work};
use crate::cli::config::Settings;
use crate::cli::exit::{Exit, Failure};
use crate::cli::messages;
use crate::cli::mirror::Mirror;
use crate::config::FirewallKind;
use crate::feed::FeedState;
use crate::firewall::runner::{Options, Runner};
use crate::log;
use crate::shared::published::Number;
use crate::shared::requests::Request;
use crate::updater::Updater;

/// The longest sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How often systemd gets the state of the list.
const STATUS_PAUSE: Duration = Duration::from_secs(10);
/// How long the end may wait for the firewall.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It keeps the firewall that the configuration names.
    Service,
    /// It serves the list and touches no firewall.
    Mirror,
}

/// Works until a signal ends it; with `listen` the list is served there.
pub fn run(settings: &Settings, role: Role, listen: Option<SocketAddr>) -> Result<Exit, Failure> {
    let signals = signals::take()?;
    let mut settings = settings.clone();
    if role == Role::Mirror {
        settings.own.ipset = false;
        settings.config.firewall = FirewallKind::None;
    }
    let settings = &settings;
    let work = match Work::prepare(settings, true)? {
        Prepared::Ready(work) => work,
        Prepared::InUse { .. } => {
            return Err(Failure::trouble(format!(
            "{}: another program keeps this state file; end it, or set state_file to another file",
            settings.config.state_file
        )))
        }
    };
    if backend::make(settings)?.is_some() {
        leftovers::report();
    }
    let host = ThisHost::new(settings.config.trust_self);
    let mut updater = work.updater(&host)?;
    let mut sets = settings
        .own
        .ipset
        .then(|| Sets::new(settings, &work))
        .transpose()?;
    let mut mirror = listen
        .map(|listen| Mirror::start(settings, listen))
        .transpose()?;
    tell_systemd(&[NotifyState::Ready]);
    let mut told = None;
    loop {
        let pause = updater.turn();
        if let Some(sets) = &mut sets {
            sets.follow(&work);
        }
        if let Some(mirror) = &mut mirror {
            let complete = work.was_complete() || host.completed() > 0;
            mirror.follow(work.shared, complete);
        }
        if told.is_none_or(|told: Instant| told.elapsed() >= STATUS_PAUSE) {
            told = Some(Instant::now());
            tell_systemd(&[NotifyState::Status(&status(&work))]);
        }
        work.sleep(pause.min(LONGEST_SLEEP), &[&signals]);
        if !serve(&signals, &work, mirror.as_ref()) {
            end(&mut updater, sets, settings.config.firewall_flush);
            return Ok(Exit::Ok);
        }
    }
}

fn end(updater: &mut Updater<'_, &ThisHost>, sets: Option<Sets>, flush: bool) {
    tell_systemd(&[NotifyState::Stopping]);
    updater.end();
    if let Some(sets) = sets {
        if !sets.runner.shutdown(flush, LAST_WORDS) {
            messages::warning("ipset did not answer in time at the end");
        }
    }
}

/// Does what a signal asks for; false if it asks for the end.
fn serve(signals: &SignalFd, work: &Work, mirror: Option<&Mirror>) -> bool {
    while let Some(asked) = signals::next(signals) {
        if asked == Asked::End {
            return false;
        }
        messages::note("reading key and trust files again, and the whole list");
        work.shared.requests.ask(Request::Reload);
        if let Some(mirror) = mirror {
            mirror.reload();
        }
    }
    true
}

/// Does nothing if systemd does not wait for it.
fn tell_systemd(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}

fn status(work: &Work) -> String {
    let number = |number| work.shared.published.number(number);
    let state = FeedState::from_number(number(Number::FeedState)).as_str();
    format!("{} addresses listed; feed: {state}", work.shared.feed.len())
}

/// The ipsets, filled again whenever the list has changed. Their entries end by themselves.
struct Sets {
    runner: Runner,
    /// Pages, addresses and trusted prefixes when the sets were filled.
    seen: Option<(u64, usize, usize)>,
}

impl Sets {
    fn new(settings: &Settings, work: &Work) -> Result<Sets, Failure> {
        let backend = backend::make(settings)?
            .ok_or_else(|| Failure::trouble("firewall: there is no ipset to fill"))?;
        let options = Options {
            flush_at_start: settings.config.firewall_flush,
            ..Options::default()
        };
        let waker = std::sync::Arc::clone(&work.waker);
        let wake = Box::new(move || {
            let _ = waker.write(1);
        });
        let runner = Runner::spawn(backend, options, wake)
            .map_err(|error| Failure::trouble(format!("no thread for ipset: {error}")))?;
        Ok(Sets { runner, seen: None })
    }

    fn follow(&mut self, work: &Work) {
        for (level, text) in self.runner.drain_logs() {
            log!(level, "{text}");
        }
        let shared = work.shared;
        let pages = shared.published.number(Number::FeedPages);
        let now = Some((pages, shared.feed.len(), shared.trust.count().0));
        if self.seen != now || self.runner.needs_refill() {
            self.seen = now;
            self.runner
                .refill(backend::wanted(shared, work.config.scope()));
        }
    }
}
