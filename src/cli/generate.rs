//! Manual pages and shell completions, from the definition of the commands.

use std::io::Write;

use clap::CommandFactory;

use super::args::{Arguments, CompletionsOptions, ManOptions};
use super::exit::{Exit, Failure};
use crate::quote::plain;

/// Prints the manual page, or writes one for the program and for each command.
pub fn man(options: &ManOptions) -> Result<Exit, Failure> {
    let command = Arguments::command();
    match &options.directory {
        None => clap_mangen::Man::new(command).render(&mut std::io::stdout().lock())?,
        Some(directory) => clap_mangen::generate_to(command, directory).map_err(|error| {
            Failure::trouble(format!(
                "{}: {}; give a directory that exists and can be written",
                directory.display(),
                plain(&error)
            ))
        })?,
    }
    Ok(Exit::Ok)
}

/// Prints the completions for a shell.
pub fn completions(options: &CompletionsOptions) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(
        options.shell,
        &mut Arguments::command(),
        "apiban",
        &mut text,
    );
    std::io::stdout().lock().write_all(&text)?;
    Ok(Exit::Ok)
}
