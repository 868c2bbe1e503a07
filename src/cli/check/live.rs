//! Questions to the service, within the request budget that all programs with one state file share.

use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::answer::{self, Answer};
use crate::cli::config::Settings;
use crate::cli::exit::{Exit, Failure};
use crate::cli::listing;
use crate::cli::messages;
use crate::cli::service::unusable_lock;
use crate::cli::times;
use crate::feed::client::{HttpClient, HttpSettings};
use crate::feed::request_budget::RequestBudget;
use crate::feed::{Key, Saved, Source};
use crate::state::lock::{LockError, StateLock};
use crate::state::{self, State};

/// The service, and what may be asked of it.
pub struct Live<'a> {
    settings: &'a Settings,
    source: Source,
    key: Key,
    client: HttpClient,
}

impl<'a> Live<'a> {
    /// Needs a key; asks nothing yet.
    pub fn new(settings: &'a Settings) -> Result<Self, Failure> {
        let config = &settings.config;
        let source = config
            .source()
            .map_err(|error| Failure::trouble(error.to_string()))?;
        Ok(Live {
            key: settings.need_key()?,
            client: HttpClient::new(HttpSettings {
                product: concat!("apiban/", env!("CARGO_PKG_VERSION")).to_owned(),
                source: source.clone(),
                timeout: u64::from(config.http_timeout),
                ca_file: None,
            }),
            source,
            settings,
        })
    }

    /// Asks for one address; waits if the budget is spent.
    pub fn ask(&mut self, ip: IpAddr) -> Result<Answer, Failure> {
        self.spend()?;
        let base = self.source.base().to_owned();
        let response = self
            .client
            .check(&self.key, ip)
            .map_err(|error| unavailable(&base, &error.to_string()))?;
        match answer::parse(response.status, &response.body, &ip.to_string()) {
            known @ (Answer::Listed | Answer::NotListed) => Ok(known),
            Answer::NotAnAddress => Err(Failure::trouble(format!(
                "{base}: the service takes {ip} for no address"
            ))),
            Answer::Unauthorized => Err(Failure::trouble(format!(
                "{base}: the service refuses the API key; see api_key_file in {}",
                self.settings.name()
            ))),
            Answer::RateLimited => Err(unavailable(
                &base,
                "too many requests with this key; try again in two minutes",
            )),
            Answer::ServerError(status) => {
                Err(unavailable(&base, &format!("HTTP status {status}")))
            }
            Answer::Garbage(what) => Err(unavailable(&base, what)),
        }
    }

    /// Counts the next request in the state file, after waiting until there is room for it.
    fn spend(&self) -> Result<(), Failure> {
        let config = &self.settings.config;
        let Ok(path) = listing::state_path(self.settings) else {
            return Ok(());
        };
        loop {
            let now = times::now_ms();
            let mut state = listing::load(&path)?.unwrap_or_default();
            let saved = state.feed.take().unwrap_or_else(|| Saved {
                source: self.source.fingerprint(),
                ..Saved::default()
            });
            let window = Duration::from_secs(config.rate_limit_window.into());
            let requests = config.rate_limit_requests;
            let mut budget = RequestBudget::new(requests, window, &saved.budget, now);
            let wait = budget.ready_at(now, false, 1).since(now);
            if !wait.is_zero() {
                messages::note(&format!(
                    "the service allows {requests} requests in {} s: waiting {} s",
                    config.rate_limit_window,
                    wait.as_millis().div_ceil(1_000)
                ));
                thread::sleep(wait);
                continue;
            }
            budget.sent(now);
            state.feed = Some(Saved {
                budget: budget.stamps(),
                ..saved
            });
            match StateLock::take(&path, "none") {
                Ok(_held) => store(&path, &state),
                Err(LockError::Unusable(error)) => {
                    return Err(unusable_lock(&self.settings.config.state_file, &error))
                }
                Err(LockError::Held(_)) => messages::note(&format!(
                    "{}: another program keeps this state file; this request is not counted there",
                    path.display()
                )),
            }
            return Ok(());
        }
    }
}

/// A state file that cannot be written is no reason to leave the question open.
fn store(path: &Path, state: &State) {
    if let Err(error) = state::store(path, state) {
        messages::warning(&format!(
            "{}: {}; this request is not counted for the next run",
            path.display(),
            crate::quote::plain(&error)
        ));
    }
}

fn unavailable(base: &str, what: &str) -> Failure {
    Failure::new(Exit::Trouble, format!("{base}: {what}"))
}
