//! What the tests, the benchmarks and the demo share.
//!
//! [`feed_server`] stands in for the service, [`sip`] talks SIP from any loopback address, [`wait`] polls with a deadline. With the feature
//! `harness`: `kamailio` starts and stops Kamailio on free loopback ports, `script` shows what script
//! functions returned, `fed` is a Kamailio with a list, `cluster` are several that share it, `ports` keeps
//! parallel tests apart, `netns` and `veth` are networks that end with the test, `iptables_api` stands
//! in for that daemon, `rerun` runs one test in a process of its own, `forge` sends packets with forged sources.
//!
//! Nothing here sends a packet outside 127.0.0.0/8, ::1 and network namespaces of its own.

use std::path::PathBuf;

pub mod feed_server;
pub mod sip;

#[cfg(feature = "harness")]
pub mod cluster;
#[cfg(feature = "harness")]
pub mod fed;
#[cfg(feature = "harness")]
pub mod forge;
#[cfg(feature = "harness")]
pub mod iptables_api;
#[cfg(feature = "harness")]
pub mod kamailio;
#[cfg(feature = "harness")]
pub mod netns;
#[cfg(feature = "harness")]
pub mod ports;
#[cfg(feature = "harness")]
pub mod rerun;
#[cfg(feature = "harness")]
pub mod script;
#[cfg(feature = "harness")]
pub mod tls;
#[cfg(feature = "harness")]
pub mod veth;
pub mod wait;

/// Where `tests/run` keeps what it fetches and unpacks for the tests.
pub fn cache_dir() -> PathBuf {
    let of_user = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(of_user)
        .unwrap_or_default()
        .join("apiban")
}
