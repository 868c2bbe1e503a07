//! How the program ends, as scripts see it.

use std::io;
use std::process::ExitCode;

use crate::quote::plain;

/// The exit codes that the manual documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done. `check`: at least one address is listed.
    Ok = 0,
    /// `check`: none of the addresses is listed.
    None = 1,
    /// It could not be done: a message says why.
    Trouble = 2,
    /// `export`: the list is empty or far shorter than the one before, so nothing was written.
    TooShort = 3,
    /// `sync`: the service does not answer as it should; the list that was there is kept.
    Unavailable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command ended early, and with which code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// Ends with [`Exit::Trouble`]; the text names file or address, what is wrong, and the remedy.
    pub fn trouble(text: impl Into<String>) -> Self {
        Failure::new(Exit::Trouble, text)
    }

    /// Ends with this code and text.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Failure {
            exit,
            text: text.into(),
        }
    }

    /// The code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The message; `None` if there is nothing to say.
    pub fn text(&self) -> Option<&str> {
        (!self.text.is_empty()).then_some(&*self.text)
    }
}

/// The standard output could not be written. Somebody who closed a pipe has seen enough and gets no message.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::new(Exit::Ok, ""),
            _ => Failure::trouble(format!("the standard output: {}", plain(&error))),
        }
    }
}
