//! Return codes of script functions, as a route shows them.

use super::kamailio::Kamailio;

/// Statements that make `call` and show its return code in the log under `name`.
///
/// A worker writes the log before it answers: whoever has the answer can read the code.
pub fn show(name: &str, call: &str) -> String {
    format!("{call};\nxlog(\"L_INFO\", \"code {name} $rc\\n\");\n")
}

impl Kamailio {
    /// The codes shown under `name` so far, oldest first.
    pub fn codes(&self, name: &str) -> Vec<i64> {
        let mark = format!("code {name} ");
        let log = self.log();
        log.lines()
            .filter_map(|line| line.split_once(&mark)?.1.trim().parse().ok())
            .collect()
    }

    /// The last code shown under `name`.
    #[track_caller]
    pub fn code(&self, name: &str) -> i64 {
        match self.codes(name).last() {
            Some(code) => *code,
            None => panic!("no code {name} in:\n{}", self.log()),
        }
    }

    /// The log's lines that the module itself wrote.
    pub fn module_log(&self) -> Vec<String> {
        module_lines(&self.log())
    }

    /// A JSON-RPC call with text arguments that must succeed.
    #[track_caller]
    pub fn ask(&self, method: &str, arguments: &[&str]) -> serde_json::Value {
        match self.jsonrpc(method, serde_json::json!(arguments)) {
            Ok(reply) => reply,
            Err(fault) => panic!("{method} {arguments:?}: {fault}\n{}", self.log()),
        }
    }

    /// What `apiban.check` says of an address.
    #[track_caller]
    pub fn verdict(&self, ip: &str) -> serde_json::Value {
        self.ask("apiban.check", &[ip])
    }
}

/// The lines of a log that the module wrote.
pub fn module_lines(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| line.contains(": apiban ["))
        .map(String::from)
        .collect()
}
