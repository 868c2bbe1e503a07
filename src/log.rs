//! Log lines for the operator, handed to whatever sink the program has set.
//!
//! Inside Kamailio the sink writes to Kamailio's own log; without a sink lines go to standard error.
//! Only the main thread of a process may log there, so threads hand their lines over instead.

use std::fmt;
use std::sync::OnceLock;

use crate::quote::foreign;

/// Longest line in characters: what was quoted in it came from outside.
pub const MAX_LINE: usize = 1_000;

/// How much a line matters, in Kamailio's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something should be looked at.
    Warn,
    /// Something worth knowing changed.
    Notice,
    /// What the module does.
    Info,
    /// For developers.
    Debug,
}

/// Where a line came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Source file, without folders.
    pub file: &'static str,
    /// Line in it.
    pub line: u32,
}

/// Writes one line.
pub type Sink = fn(Level, Origin, &str);

static SINK: OnceLock<Sink> = OnceLock::new();

/// Sets the sink of this program; the first call counts.
pub fn set_sink(sink: Sink) {
    let _ = SINK.set(sink);
}

/// Writes one line; use the macros [`error!`](crate::error) to [`debug!`](crate::debug).
pub fn write(level: Level, path: &'static str, line: u32, text: fmt::Arguments<'_>) {
    let file = path.rsplit('/').next().unwrap_or(path);
    let text = foreign(&text.to_string(), MAX_LINE).to_string();
    match SINK.get() {
        Some(sink) => sink(level, Origin { file, line }, &text),
        None => eprintln!("{level:?} {file}:{line}: {text}"),
    }
}

/// Logs with a level that is known at run time only.
#[macro_export]
macro_rules! log {
    ($level:expr, $($arg:tt)*) => { $crate::log::write($level, file!(), line!(), format_args!($($arg)*)) };
}

/// Logs an error.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Error, file!(), line!(), format_args!($($arg)*)) };
}

/// Logs a warning.
#[macro_export]
macro_rules! warning {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Warn, file!(), line!(), format_args!($($arg)*)) };
}

/// Logs a change worth knowing.
#[macro_export]
macro_rules! notice {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Notice, file!(), line!(), format_args!($($arg)*)) };
}

/// Logs what the module does.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Info, file!(), line!(), format_args!($($arg)*)) };
}

/// Logs for developers.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Debug, file!(), line!(), format_args!($($arg)*)) };
}
