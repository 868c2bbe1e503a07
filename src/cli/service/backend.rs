//! The firewall that the configuration names, for use without a thread of its own.

use std::io::ErrorKind;
use std::path::Path;

use super::work::unusable_lock;
use crate::cli::config::Settings;
use crate::cli::exit::Failure;
use crate::config::{Config, FirewallKind};
use crate::firewall::ipset::Ipset;
use crate::firewall::iptables_api::IptablesApi;
use crate::firewall::nft::Nft;
use crate::firewall::{later_ends, Element, Error, Firewall, Scope};
use crate::log;
use crate::shared::Shared;
use crate::state::lock::{Holder, LockError, StateLock};
use crate::updater::firewalls::{iptables_api, notes_path};

/// The backend; `None` if there is none.
pub fn make(settings: &Settings) -> Result<Option<Box<dyn Firewall>>, Failure> {
    let config = &settings.config;
    let made: Result<Box<dyn Firewall>, Error> = match config.firewall {
        _ if settings.own.ipset => Ok(Box::new(Ipset::new(&settings.own.ipset_name))),
        FirewallKind::None => return Ok(None),
        FirewallKind::Nft => Ok(Box::new(Nft::new(config.nft_settings(&[])))),
        FirewallKind::IptablesApi => remembering(config).map(|api| Box::new(api) as _),
    };
    made.map(Some).map_err(|error| failure(&error))
}

/// The backend for iptables-api with what earlier runs put into the chain.
fn remembering(config: &Config) -> Result<IptablesApi, Error> {
    let state = Some(Path::new(&config.state_file)).filter(|path| !path.as_os_str().is_empty());
    iptables_api(config, state)
}

/// Takes away all that earlier runs put into the firewall.
pub fn remove(settings: &Settings) -> Result<bool, Failure> {
    let config = &settings.config;
    if config.firewall == FirewallKind::IptablesApi && !settings.own.ipset {
        let _locks = lock_for_removal(settings)?;
        // The chain may hold entries of others: it is emptied as a whole only if nothing is known.
        let mut api = remembering(config).map_err(|error| failure(&error))?;
        if api.remembers() {
            bring_up_to_date(&mut api, &[]).map_err(|error| failure(&error))?;
            return Ok(true);
        }
    }
    let Some(mut backend) = make(settings)? else {
        return Ok(false);
    };
    backend.remove().map_err(|error| failure(&error))?;
    Ok(true)
}

/// The locks for a removal: on the state file, which a service with this firewall has, and on the notes. Such a service
/// would neither see that its entries are gone nor where its notes went.
fn lock_for_removal(
    settings: &Settings,
) -> Result<(Option<StateLock>, Option<StateLock>), Failure> {
    let state = &settings.config.state_file;
    if state.is_empty() {
        return Ok((None, None));
    }
    let busy = || {
        Failure::trouble(format!(
            "{state}: another program keeps this state file and the firewall; end it first. Nothing was removed"
        ))
    };
    let ours = identity(settings);
    let service = match StateLock::take(Path::new(state), &ours) {
        Ok(lock) => Some(lock),
        Err(LockError::Held(holder)) if holder.firewall == ours => return Err(busy()),
        // It keeps another firewall, and none of these notes.
        Err(LockError::Held(_)) => None,
        // Without a folder there are no notes.
        Err(LockError::Unusable(error)) if error.kind() == ErrorKind::NotFound => None,
        Err(LockError::Unusable(error)) => return Err(unusable_lock(state, &error)),
    };
    let notes = lock_notes(settings).map_err(|_| busy())?;
    Ok((service, notes))
}

/// The lock on the notes of what is in a chain; `None` if nothing is noted, or nothing can be. Of two programs each
/// would go on from notes that the other changes.
///
/// # Errors
/// The program that has it.
pub fn lock_notes(settings: &Settings) -> Result<Option<StateLock>, Holder> {
    let config = &settings.config;
    let notes_nothing =
        config.firewall != FirewallKind::IptablesApi || config.state_file.is_empty();
    if notes_nothing || settings.own.ipset {
        return Ok(None);
    }
    let notes = notes_path(Path::new(&config.state_file));
    match StateLock::take(&notes, &identity(settings)) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held(holder)) => Err(holder),
        // If no lock file can be made, no notes can be written either, which is told when that is tried.
        Err(LockError::Unusable(_)) => Ok(None),
    }
}

/// What tells one firewall from another: two programs must not keep the same one.
pub fn identity(settings: &Settings) -> String {
    if settings.own.ipset {
        return format!("ipset {}", settings.own.ipset_name);
    }
    settings.config.firewall_identity()
}

/// Everything that belongs into the firewall, with the time that each ban has left.
pub fn wanted(shared: &Shared, scope: Scope) -> Vec<Element> {
    let now = shared.now();
    let mut elements = Vec::new();
    let tables = [
        (scope.has_feed(), &shared.feed),
        (scope.has_local(), &shared.local),
    ];
    for (wanted, table) in tables {
        table.for_each(|entry| {
            if wanted && entry.value > now {
                elements.push(Element {
                    subnet: entry.subnet,
                    seconds_left: entry.value.seconds_since(now),
                    hits: entry.hits,
                });
            }
        });
    }
    later_ends(elements)
}

/// Makes the firewall equal to `wanted`. What is in force and wanted stays in force meanwhile.
pub fn bring_up_to_date(backend: &mut dyn Firewall, wanted: &[Element]) -> Result<(), Error> {
    let rest = backend.reconcile(wanted)?;
    let applied = rest
        .chunks(backend.batch_size().max(1))
        .try_for_each(|batch| backend.apply(batch));
    for (level, text) in backend.drain_notes() {
        log!(level, "{text}");
    }
    applied
}

/// The failure of a command, with the remedy.
pub fn failure(error: &Error) -> Failure {
    Failure::trouble(match error {
        Error::Permission(what) => format!(
            "firewall: {what}: CAP_NET_ADMIN is missing; run this as root, or grant it in the unit with \
             AmbientCapabilities=CAP_NET_ADMIN. The firewall is as it was"
        ),
        error => format!("firewall: {error}"),
    })
}
