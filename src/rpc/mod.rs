//! The commands of `kamcmd` and JSON-RPC: arguments in, a tree of values out. No C type in here.
//!
//! They run in whichever process received the command, possibly a SIP worker: they read shared memory,
//! leave requests for the updater, and never wait.

mod bans;
mod check;
mod cluster;
mod commands;
mod listing;
mod trust;

use std::fmt;
use std::ops::RangeInclusive;

pub use commands::COMMANDS;

use crate::bans::Bans;
use crate::config::Config;
use crate::quote::foreign;
use crate::shared::requests::Request;
use crate::shared::Shared;

/// What a command works on.
pub struct Service<'a> {
    /// The ban tables, with the rest of the shared memory.
    pub bans: Bans<'a>,
    /// Its parameters.
    pub config: &'a Config,
    /// The Kamailio release that runs.
    pub kamailio: &'a str,
}

impl Service<'_> {
    /// The shared memory of the module.
    fn shared(&self) -> &Shared {
        self.bans.shared
    }

    /// Asks the updater for this, and wakes it.
    fn ask(&self, request: Request) {
        self.shared().requests.ask(request);
        self.bans.wake.wake();
    }
}

/// One command.
pub struct Command {
    /// Name, `apiban.` included.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// The arguments, in order, as they are named in errors.
    pub arguments: &'static [&'static str],
    /// The form of its reply.
    pub returns: Shape,
    /// Runs it with at most as many arguments as `arguments` names.
    pub run: fn(&Service<'_>, &Arguments) -> Result<Reply, Fault>,
}

/// The form of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One line.
    Line,
    /// One structure.
    Struct,
    /// Any number of structures.
    List,
}

/// A value in a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number; sent as text where it does not fit 32 bits, which not all transports carry.
    Number(u64),
    /// Names with values, in order.
    Struct(Fields),
}

/// Names with values, in order.
pub type Fields = Vec<(&'static str, Value)>;

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// One line.
    Text(String),
    /// One structure.
    Struct(Fields),
    /// Any number of structures.
    List(Vec<Fields>),
}

/// What a command refuses with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// 400 bad argument, 403 trusted, 404 not banned, 500 a file cannot be used, 507 full.
    pub code: i32,
    /// What is wrong, the argument named.
    pub text: String,
}

impl Fault {
    /// A bad argument.
    pub fn argument(name: &str, problem: impl fmt::Display) -> Self {
        Fault {
            code: 400,
            text: format!("{name}: {problem}"),
        }
    }
}

/// The arguments as they came, all of them text: the transports disagree on what is a number.
#[derive(Clone, Debug, Default)]
pub struct Arguments(pub Vec<String>);

impl Arguments {
    /// The argument at `index`; an empty one counts as absent.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0
            .get(index)
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
    }

    /// The argument at `index`, or a fault that names it.
    pub fn required(&self, index: usize, name: &str) -> Result<&str, Fault> {
        self.get(index)
            .ok_or_else(|| Fault::argument(name, "missing"))
    }

    /// A number, or `default` if it is absent.
    pub fn number(
        &self,
        index: usize,
        name: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, Fault> {
        let Some(text) = self.get(index) else {
            return Ok(default);
        };
        match text.parse::<u64>() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(Fault::argument(
                name,
                format_args!(
                    "\"{}\" is not a number from {} to {}",
                    crop(text),
                    range.start(),
                    range.end()
                ),
            )),
        }
    }
}

/// Foreign text in a fault: bounded, and without what could break a line.
pub fn crop(text: &str) -> String {
    crop_to(text, 64)
}

/// The same with another limit, in characters.
pub fn crop_to(text: &str, limit: usize) -> String {
    foreign(text, limit).to_string()
}

/// A field.
pub fn text(name: &'static str, value: impl Into<String>) -> (&'static str, Value) {
    (name, Value::Text(value.into()))
}

/// A field.
pub fn number(name: &'static str, value: impl Into<u64>) -> (&'static str, Value) {
    (name, Value::Number(value.into()))
}
