//! The program `apiban`: the module's work on a host without Kamailio, and answers from its list.
//!
//! [`args`] defines the commands, and help, man pages and completions come from that definition.
//! [`config`] reads what a command works with; each command has a file of its own. Answers go to the
//! standard output, messages to the standard error.

pub mod args;
pub mod check;
pub mod config;
pub mod exit;
pub mod export;
mod generate;
mod lines;
pub mod listing;
mod messages;
mod mirror;
mod report;
pub mod service;
mod times;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::Parser;

use args::{Arguments, Command};
use config::Settings;
use exit::{Exit, Failure};

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers; everything else is a message.
            let shown = error.print().is_ok();
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return if asked && shown {
                Exit::Ok
            } else {
                Exit::Trouble
            }
            .into();
        }
    };
    messages::set_up(&arguments.common);
    match run(&arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if let Some(text) = failure.text() {
                messages::error(text);
            }
            failure.exit().into()
        }
    }
}

fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let settings = || Settings::read(&arguments.common);
    match &arguments.command {
        Command::Check(options) => check::run(&settings()?, options, arguments.common.json),
        Command::List(options) => listing::run(&settings()?, options, arguments.common.json),
        Command::Export(options) => export::run(&settings()?, options),
        Command::Sync(options) => service::sync::run(&settings()?, options, &arguments.common),
        Command::Run(options) => {
            service::run::run(&settings()?, service::run::Role::Service, options.listen)
        }
        Command::Feed(options) => service::run::run(
            &settings()?,
            service::run::Role::Mirror,
            Some(options.listen),
        ),
        Command::Flush => service::flush(&settings()?),
        Command::Report(options) => report::run(&settings()?, options, arguments.common.json),
        Command::Man(options) => generate::man(options),
        Command::Completions(options) => generate::completions(options),
    }
}
