//! `apiban sync`, `run` and `flush`: the module's updater at work without Kamailio.
//!
//! `work.rs` makes the updater with everything that it needs; [`sync`] turns it until the list is complete and
//! then brings the firewall up to date; [`run`] turns it until a signal comes.

mod backend;
mod host;
mod leftovers;
mod progress;
pub mod run;
mod signals;
pub mod sync;
mod work;

pub use work::unusable_lock;

use super::config::Settings;
use super::exit::{Exit, Failure};
use super::messages;

/// Takes away all that this program put into the firewall.
pub fn flush(settings: &Settings) -> Result<Exit, Failure> {
    if !backend::remove(settings)? {
        messages::note(&format!(
            "firewall is \"none\" in {}: there is nothing to remove",
            settings.name()
        ));
    }
    Ok(Exit::Ok)
}
