//! A program that fetches from a stand-in for the service, and what it put into the firewall.

use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::time::Duration;

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::netns::objects;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::program::Program;

pub const KEY: &str = "sEcRet0123456789";
pub const SOON: Duration = Duration::from_secs(30);

pub fn service() -> FeedServer {
    FeedServer::start(Options::new(KEY)).expect("the stand-in for the service")
}

/// A program that fetches from this service as fast as it likes.
pub fn fetching(service: &FeedServer, config: &str) -> Program {
    Program::new(&format!(
        "api_key = \"{KEY}\"\napi_url = \"{}\"\nrate_limit_requests = 1000\nrate_limit_window = 1\n\
         trust_self = false\nhttp_timeout = 2\n{config}",
        service.url()
    ))
}

pub fn many(count: u32) -> Vec<String> {
    (0..count)
        .map(|n| format!("20.{}.{}.{}", n / 62_500, n / 250 % 250, n % 250))
        .collect()
}

/// What all sets of the nft table hold.
pub fn banned() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for set in objects("set").iter().filter(|set| set["table"] == "apiban") {
        let name = set["name"].as_str().unwrap();
        found.extend(apiban_testing::netns::addresses(name));
    }
    found
}

pub fn set_of<A: ToString>(addresses: &[A]) -> BTreeSet<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// A program in the background; it ends with the test.
pub struct Running(Child);

impl Running {
    pub fn start(mut command: Command) -> Running {
        Running(command.spawn().expect("the program starts"))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        kill(pid, signal).expect("it is there");
    }

    pub fn end(mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.0.wait().expect("it ends").code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
