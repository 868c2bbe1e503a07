//! A real Kamailio for one test: started on free loopback ports, ended with the test.
//!
//! ```ignore
//! let kamailio = Kamailio::builder()
//!     .param("api_url", feed.url())
//!     .request_route("if (apiban_check()) { exit; }")
//!     .start();
//! assert_eq!(kamailio.udp("127.0.0.5").options(), Answer::Status(200));
//! kamailio.assert_dropped("127.0.0.66");
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `builder.rs` | the configuration a test asks for, as text |
//! | `release.rs` | the Kamailio releases of this machine: the host's and those in roots |
//! | `process.rs` | start, log, stop, kill; nothing is left behind |
//! | `group.rs` | its processes as the kernel sees them |
//! | `rpc.rs` | kamcmd, JSON-RPC, process list |
//! | `traffic.rs` | SIP to it, and the proof that a packet was dropped |

mod builder;
mod group;
mod process;
mod release;
mod rpc;
mod traffic;

pub use builder::{module_path, Builder, Value};
pub use group::is_alive;
pub use process::{Failure, Kamailio, Stopped};
pub use release::{is_aarch64, is_emulated, is_root, Release};
pub use rpc::{Fault, Process};
