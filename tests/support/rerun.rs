//! One test again, in a process of its own: for what threads of one process cannot have each for itself
//! (environment, capabilities, user namespace).

use std::ffi::OsStr;
use std::process::Command;

/// A command that runs one test of this program alone; `launcher` is put before it, such as
/// `["setpriv", "--inh-caps=-net_admin"]`. `module` is the test's `module_path!()`.
pub fn alone(launcher: &[&str], module: &str, test: &str) -> Command {
    let this = std::env::current_exe().expect("path of the test program");
    let mut words = launcher.iter().map(OsStr::new).chain([this.as_os_str()]);
    let mut command = Command::new(words.next().expect("at least this program"));
    command.args(words);
    // Test names begin below the crate.
    let name = match module.split_once("::") {
        Some((_, inside)) => format!("{inside}::{test}"),
        None => test.to_owned(),
    };
    command.args(["--exact", &name, "--nocapture"]);
    command
}

/// Runs a command of [`alone`]; the one test must have run and passed.
#[track_caller]
pub fn passes(command: &mut Command) {
    let output = command.output().expect("the test program starts");
    let said = String::from_utf8_lossy(&output.stdout);
    // A name that fits no test would succeed too.
    assert!(
        output.status.success() && said.contains("test result: ok. 1 passed"),
        "{command:?}: {output:?}"
    );
}
