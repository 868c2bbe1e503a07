//! Log lines for the operator, handed to whatever sink the program has set.
//!
//! Inside Kamailio the sink writes to Kamailio's own log; without a sink lines go to standard error.
//! Only the main thread of a process may log there, so threads hand their lines over instead.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

/// Longest line in characters: what was quoted in it came from outside.
const MAX_LINE: usize = 1_000;

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
    let text = text.to_string();
    let mut text = printable(&text);
    if let Some((cut, _)) = text.char_indices().nth(MAX_LINE) {
        text = Cow::Owned(format!("{}...", &text[..cut]));
    }
    match SINK.get() {
        Some(sink) => sink(level, Origin { file, line }, &text),
        None => eprintln!("{level:?} {file}:{line}: {text}"),
    }
}

/// Text from outside as it may be shown to people: what could begin a new line, steer a terminal, or
/// hide or turn round what follows becomes `?`.
pub fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if text.contains(harmful) {
        Cow::Owned(text.replace(harmful, "?"))
    } else {
        Cow::Borrowed(text)
    }
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

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn nothing_that_is_shown_can_forge_a_line() {
        for (given, shown) in [
            ("friendly-scanner", "friendly-scanner"),
            ("Zoë 100 % %s", "Zoë 100 % %s"),
            ("a\r\nERROR: b", "a??ERROR: b"),
            ("\u{1b}[2J\u{7f}\u{9b}1m", "?[2J??1m"),
            ("\u{202e}txt\u{2028}", "?txt?"),
        ] {
            assert_eq!(printable(given), shown);
        }
    }
}
