//! The commands of `kamcmd` and JSON-RPC: arguments in, a tree of values out. No C type in here.
//!
//! They run in whichever process received the command, possibly a SIP worker: they read shared memory,
//! leave requests for the updater, and never wait.

mod arguments;
mod bans;
mod check;
mod cluster;
mod commands;
mod list;
mod page;
mod reload;
mod reply;
mod status;
mod trust;

pub use arguments::Arguments;
pub use commands::COMMANDS;
pub use reply::{crop, crop_to, number, text, Fault, Fields, Reply, Value};

use crate::bans::Bans;
use crate::config::Config;
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
