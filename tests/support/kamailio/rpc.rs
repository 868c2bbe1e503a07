//! Asking a running Kamailio: kamcmd, JSON-RPC, its process list.

use super::process::Kamailio;
use crate::wait::{patience, wait_for, SOON};
use serde_json::{json, Value};
use std::fmt;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long one command may take.
fn limit() -> Duration {
    Duration::from_secs(10) * patience()
}

/// A command that Kamailio refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The code, such as 404; 0 if Kamailio could not be asked at all.
    pub code: i64,
    /// The text.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.code, self.text)
    }
}

/// One line of `core.ps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process ID.
    pub pid: i32,
    /// What Kamailio says it is for, such as `tcp main process`.
    pub name: String,
}

impl Kamailio {
    /// Runs the release's own kamcmd: the method and its arguments.
    pub fn kamcmd(&self, words: &[&str]) -> Result<String, Fault> {
        let socket = format!("unix:{}/ctl", self.inner_dir().display());
        let limit = limit().as_secs().to_string();
        let output = self
            .release()
            .command_after(&["timeout", &limit], "kamcmd")
            .args(["-s", &socket])
            .args(words)
            .output()
            .map_err(|error| Fault {
                code: 0,
                text: error.to_string(),
            })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some(fault) = text.strip_prefix("error: ") {
            let (code, text) = fault.trim().split_once(" - ").unwrap_or(("0", fault));
            return Err(Fault {
                code: code.parse().unwrap_or(0),
                text: text.into(),
            });
        }
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(Fault {
                code: 0,
                text: format!("kamcmd: {}: {errors}{text}", output.status),
            });
        }
        Ok(text)
    }

    /// A JSON-RPC call over the datagram socket; `params` is an array or an object.
    pub fn jsonrpc(&self, method: &str, params: Value) -> Result<Value, Fault> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let trouble = |error: std::io::Error| Fault {
            code: 0,
            text: error.to_string(),
        };
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        // A name without a file: it means the same inside a root.
        let name = format!("apiban-test-{}-{id}", std::process::id());
        let own = SocketAddr::from_abstract_name(name).map_err(trouble)?;
        let socket = UnixDatagram::bind_addr(&own).map_err(trouble)?;
        socket.set_read_timeout(Some(limit())).map_err(trouble)?;
        let request = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id});
        socket
            .send_to(request.to_string().as_bytes(), self.dir().join("rpc"))
            .map_err(trouble)?;
        let mut reply = vec![0; 65_536];
        let length = loop {
            match socket.recv(&mut reply) {
                // With a timeout the kernel does not go on by itself after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.map_err(trouble)?,
            }
        };
        let reply: Value = serde_json::from_slice(&reply[..length]).map_err(|error| Fault {
            code: 0,
            text: error.to_string(),
        })?;
        match reply.get("error") {
            Some(error) => Err(Fault {
                code: error["code"].as_i64().unwrap_or(0),
                text: error["message"].as_str().unwrap_or_default().into(),
            }),
            None => Ok(reply["result"].clone()),
        }
    }

    /// A statistic by its group and name, such as `("apiban", "checks")`.
    #[track_caller]
    pub fn statistic(&self, group: &str, name: &str) -> u64 {
        let key = format!("{group}.{name}");
        let all = self
            .jsonrpc("stats.fetch", json!([key]))
            .unwrap_or_else(|fault| panic!("{key}: {fault}"));
        match &all[&key] {
            Value::String(text) => text.parse().expect("a number"),
            number => number
                .as_u64()
                .unwrap_or_else(|| panic!("no {key} in {all}")),
        }
    }

    /// Every process that Kamailio has, as it names them.
    pub fn processes(&self) -> Vec<Process> {
        let Ok(text) = self.kamcmd(&["core.ps"]) else {
            return Vec::new();
        };
        let lines: Vec<&str> = text.lines().collect();
        lines
            .chunks_exact(2)
            .filter_map(|pair| {
                Some(Process {
                    pid: pair[0].trim().parse().ok()?,
                    name: pair[1].trim().into(),
                })
            })
            .collect()
    }

    /// The process whose name begins so; waits for it.
    #[track_caller]
    pub fn pid_of(&self, name: &str) -> i32 {
        wait_for(&format!("a process {name:?}"), SOON, || {
            let found = self.processes();
            found
                .iter()
                .find(|p| p.name.starts_with(name))
                .map(|p| p.pid)
        })
    }
}
