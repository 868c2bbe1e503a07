//! The mirror of `apiban feed` and `apiban run --listen`: the service's interface in both versions, and the
//! list for devices, to any number of consumers from one key.
//!
//! The updater's loop publishes a [`snapshot::Snapshot`] whenever the list has changed. [`server`] runs on a
//! thread of its own and answers from the snapshot; [`answer`] turns a request into a response.

mod answer;
mod keys;
mod limit;
mod server;
mod snapshot;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::config::Settings;
use super::exit::Failure;
use super::messages;
use crate::shared::published::Number;
use crate::shared::Shared;
use keys::Keys;
use snapshot::Snapshot;

/// What the updater's loop and the server share.
struct Common {
    /// `None` until the whole list has been received once.
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    keys: RwLock<Keys>,
    /// The word for the list that is served.
    dataset: &'static str,
}

/// The running mirror; it ends with the process.
pub struct Mirror {
    common: Arc<Common>,
    keys_file: String,
    feed_ttl: Duration,
    seen: Option<(u64, usize, usize)>,
}

impl Mirror {
    /// Listens, and answers from now on.
    pub fn start(settings: &Settings, listen: SocketAddr) -> Result<Mirror, Failure> {
        let keys_file = settings.own.feed_keys_file.clone();
        if keys_file.is_empty() && !listen.ip().is_loopback() {
            return Err(Failure::trouble(format!(
                "--listen {listen}: others can reach this address, so the mirror needs keys for them: set \
                 feed_keys_file in {}, or listen on 127.0.0.1",
                settings.name()
            )));
        }
        let common = Arc::new(Common {
            snapshot: RwLock::new(None),
            keys: RwLock::new(Keys::read(&keys_file)?),
            dataset: settings.config.dataset.as_str(),
        });
        let limit = settings.own.feed_rate_limit;
        let window = settings.config.rate_limit_window;
        let local = server::start(listen, Arc::clone(&common), limit, window)?;
        messages::note(&format!("the mirror listens on {local}"));
        Ok(Mirror {
            common,
            keys_file,
            feed_ttl: Duration::from_secs(settings.config.feed_ttl.into()),
            seen: None,
        })
    }

    /// Reads the keys again; what cannot be read stays as it was.
    pub fn reload(&self) {
        match Keys::read(&self.keys_file) {
            Ok(keys) => *write(&self.common.keys) = keys,
            Err(failure) => messages::error(&format!(
                "{}; the keys stay as they were",
                failure.text().unwrap_or_default()
            )),
        }
    }

    /// Publishes the list if it has changed. `complete`: a list has come through whole, now or in an earlier
    /// run; before that there is none to serve.
    pub fn follow(&mut self, shared: &Shared, complete: bool) {
        let pages = shared.published.number(Number::FeedPages);
        let now = Some((pages, shared.feed.len(), shared.trust.count().0));
        if !complete || self.seen == now {
            return;
        }
        self.seen = now;
        let snapshot = Snapshot::of(shared, self.feed_ttl);
        *write(&self.common.snapshot) = Some(Arc::new(snapshot));
    }
}

impl Common {
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        read(&self.snapshot).clone()
    }
}

/// No code panics while it holds such a lock; were it so, the data would still be whole.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// For messages about a file.
fn shown(path: &str) -> std::path::Display<'_> {
    Path::new(path).display()
}
