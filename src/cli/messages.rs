//! Messages for people and logs: standard error, one line each.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;

use super::args::Common;
use crate::log::{self, Level, Origin};

/// What is shown, and how.
struct Setup {
    lowest: Level,
    journal: bool,
    colour: bool,
}

static SETUP: OnceLock<Setup> = OnceLock::new();
/// Errors shown so far.
static ERRORS: AtomicUsize = AtomicUsize::new(0);

/// How many errors have been shown.
pub fn errors() -> usize {
    ERRORS.load(Ordering::Relaxed)
}

/// Takes over `--quiet` and `--verbose`, `NO_COLOR` and what systemd says of the standard error.
pub fn set_up(common: &Common) {
    let lowest = match (common.quiet, common.verbose) {
        (true, _) => Level::Error,
        (_, 0) => Level::Notice,
        (_, 1) => Level::Info,
        _ => Level::Debug,
    };
    let _ = SETUP.set(Setup {
        lowest,
        journal: std::env::var_os("JOURNAL_STREAM").is_some(),
        colour: wants_colour(),
    });
    log::set_sink(sink);
}

/// True if the standard error is a terminal whose user has not asked for plain text.
fn wants_colour() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Shows an error whatever the level is.
pub fn error(text: &str) {
    show(Level::Error, &crate::quote::printable(text));
}

/// Shows a warning.
pub fn warning(text: &str) {
    show(Level::Warn, &crate::quote::printable(text));
}

/// Shows a note that a person may want to know.
pub fn note(text: &str) {
    show(Level::Notice, &crate::quote::printable(text));
}

fn sink(level: Level, _: Origin, text: &str) {
    show(level, text);
}

fn show(level: Level, text: &str) {
    if level == Level::Error {
        ERRORS.fetch_add(1, Ordering::Relaxed);
    }
    let setup = SETUP.get();
    if setup.is_some_and(|setup| level > setup.lowest) {
        return;
    }
    let (priority, word, colour) = match level {
        Level::Error => (3, "error: ", "\u{1b}[31m"),
        Level::Warn => (4, "warning: ", "\u{1b}[33m"),
        Level::Notice => (5, "", ""),
        Level::Info => (6, "", ""),
        Level::Debug => (7, "", ""),
    };
    let mut out = std::io::stderr().lock();
    // If this fails, nobody can be told.
    let _ = match setup {
        Some(setup) if setup.journal => writeln!(out, "<{priority}>{word}{text}"),
        Some(setup) if setup.colour && !colour.is_empty() => {
            writeln!(out, "apiban: {colour}{word}\u{1b}[0m{text}")
        }
        _ => writeln!(out, "apiban: {word}{text}"),
    };
}
