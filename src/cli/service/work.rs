//! The updater with everything that it needs.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use std::os::fd::AsFd;

use super::backend;
use super::host::ThisHost;
use crate::cli::config::Settings;
use crate::cli::exit::Failure;
use crate::cli::listing;
use crate::clock::Clock;
use crate::config::{reading, Config, FirewallKind};
use crate::feed::{ApiKey, Key};
use crate::quote::plain;
use crate::shared::Shared;
use crate::state::lock::{path_of, LockError, StateLock};
use crate::state::restore::{self, Resumed};
use crate::sys::mmap::Mapped;
use crate::trust::Given;
use crate::updater::{Parts, Updater};
use crate::wake;

/// Whether the work can begin.
pub enum Prepared {
    /// It can.
    Ready(Box<Work>),
    /// Another program writes the state file.
    InUse {
        /// It keeps the firewall of this configuration, too.
        same_firewall: bool,
    },
}

/// What an updater works on. Both live as long as the process.
pub struct Work {
    /// The parameters.
    pub config: &'static Config,
    /// The tables.
    pub shared: &'static Shared,
    /// Ends a sleep.
    pub waker: Arc<EventFd>,
    clock: Clock,
    key: Key,
    trusted: Given,
    resumed: Resumed,
}

impl Work {
    /// Reads trust and state. `firewall`: the updater itself keeps the firewall that the configuration names.
    pub fn prepare(settings: &Settings, firewall: bool) -> Result<Prepared, Failure> {
        let key = settings.need_key()?;
        let lock = match &settings.config.state_file {
            none if none.is_empty() => None,
            path => {
                make_directory(Path::new(path))?;
                let ours = backend::identity(settings);
                match StateLock::take(Path::new(path), &ours) {
                    Ok(lock) => Some(lock),
                    Err(LockError::Held(holder)) => {
                        return Ok(Prepared::InUse {
                            same_firewall: holder.firewall == ours,
                        })
                    }
                    Err(LockError::Unusable(error)) => return Err(unusable_lock(path, &error)),
                }
            }
        };
        let mut config = settings.config.clone();
        if !firewall {
            config.firewall = FirewallKind::None;
        }
        let trusted = settings.given_trust()?;
        reading::start_is_over();
        let config: &'static Config = Box::leak(Box::new(config));
        let clock = Clock::start();
        let shared = tables(config, &clock)?;
        let mut all = trusted.at(clock.unix());
        if config.trust_self {
            let own = listing::own_addresses().into_iter();
            all.extend(own.map(|ip| (crate::address::Subnet::host(ip), crate::trust::Rule::Own)));
        }
        shared.trust.replace(&all);
        let resumed = match lock {
            None => Resumed::default(),
            lock => restore::restore_locked(config, shared, lock),
        };
        let waker = wake::eventfd()
            .map_err(|error| Failure::trouble(format!("no eventfd: {}", error.desc())))?;
        Ok(Prepared::Ready(Box::new(Work {
            config,
            shared,
            waker: Arc::new(waker),
            clock,
            key,
            trusted,
            resumed,
        })))
    }

    /// True if an earlier run has had the whole list, and it is still there.
    pub fn was_complete(&self) -> bool {
        let saved = self.resumed.feed.as_ref();
        saved.is_some_and(|saved| saved.last_full.is_some())
    }

    /// Starts the updater's threads.
    pub fn updater<'h>(
        &self,
        host: &'h ThisHost,
    ) -> Result<Updater<'static, &'h ThisHost>, Failure> {
        let source = self
            .config
            .source()
            .map_err(|error| Failure::trouble(error.to_string()))?;
        let parts = Parts {
            config: self.config,
            shared: self.shared,
            clock: self.clock,
            source,
            key: ApiKey::Usable(self.key.clone()),
            product: concat!("apiban/", env!("CARGO_PKG_VERSION")),
            trusted: self.trusted.clone(),
            resumed: self.resumed.clone(),
            listening: Vec::new(),
        };
        let waker = Arc::clone(&self.waker);
        let wake = move || {
            let _ = waker.write(1);
        };
        Updater::new(parts, host, wake).map_err(Failure::trouble)
    }

    /// Sleeps until somebody wakes us, one of `others` can be read, or the time is over.
    pub fn sleep(&self, pause: Duration, others: &[&dyn AsFd]) {
        if wake::sleep(&self.waker, others, pause) {
            let _ = self.waker.read();
        }
    }
}

/// The lock file cannot be made, opened or locked.
pub fn unusable_lock(state: &str, error: &std::io::Error) -> Failure {
    Failure::trouble(format!(
        "{}: {}; run this as the user that may write there, or name another state file",
        path_of(Path::new(state)).display(),
        plain(error)
    ))
}

/// The tables, in memory that costs nothing before it is used.
fn tables(config: &'static Config, clock: &Clock) -> Result<&'static Shared, Failure> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::trouble(format!("no random numbers: {error}")))?;
    let shared = Shared::new(&mut Mapped::private(), config, u64::from_ne_bytes(seed))
        .map_err(|error| Failure::trouble(error.to_string()))?;
    shared.set_now(clock.unix());
    shared.started(clock.unix());
    Ok(Box::leak(Box::new(shared)))
}

/// Makes the directory of the state file, readable by its owner and group only.
fn make_directory(state: &Path) -> Result<(), Failure> {
    let Some(directory) = state.parent().filter(|directory| !directory.is_dir()) else {
        return Ok(());
    };
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory);
    made.map_err(|error| {
        let directory = directory.display();
        Failure::trouble(format!(
            "{directory}: {}; make this directory, or set state_file to a file in another one",
            plain(&error)
        ))
    })
}
