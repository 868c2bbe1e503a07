//! What a long fetch is waiting for, on a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::Config;
use crate::feed::FeedState;
use crate::shared::published::Number;
use crate::shared::Shared;

/// What takes no longer than this needs no bar.
const QUIET: Duration = Duration::from_secs(1);

/// A line that is redrawn in place; it shows nothing if the standard error is no terminal.
pub struct Progress {
    started: Instant,
    bar: Option<ProgressBar>,
    wanted: bool,
}

impl Progress {
    /// Shows nothing for the first second, and never if it is not `wanted`.
    pub fn new(wanted: bool) -> Self {
        Progress {
            started: Instant::now(),
            bar: None,
            wanted,
        }
    }

    /// Redraws the line.
    pub fn show(&mut self, shared: &Shared, config: &Config) {
        if !self.wanted || self.started.elapsed() < QUIET {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_message(message(shared, config));
        bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn message(shared: &Shared, config: &Config) -> String {
    let entries = shared.feed.len();
    let number = |number| shared.published.number(number);
    let pages = number(Number::FeedPages);
    let until = shared.published.time(Number::FeedNextPoll);
    let wait = until.map_or(0, |until| until.seconds_since(shared.now()));
    let state = FeedState::from_number(number(Number::FeedState)).as_str();
    if wait > 0 {
        let (requests, window) = (config.rate_limit_requests, config.rate_limit_window);
        format!(
            "{entries} addresses, {pages} pages; waiting {wait} s: the service allows {requests} requests in {window} s"
        )
    } else {
        format!("{entries} addresses, {pages} pages; {state}")
    }
}
