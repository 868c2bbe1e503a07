//! The cluster: every ban on every node, and one node that fetches the list for all.
//!
//! [`Node`] is a state machine without input, output or clock: it is given messages, changes of the ban table and
//! the time, and calls a [`Host`] to send, to ban and to lift. Each node sends its own bans to every other node and
//! never passes on what it received, so there are no loops. Nothing relies on a message arriving: every few seconds
//! each node says HELLO with digests of what it has, and what differs is asked for again.
//!
//! | file | what |
//! | --- | --- |
//! | `keys.rs` | the secret, and what is derived from it |
//! | `message.rs` | the form of the messages |
//! | `window.rs` | no message counts twice |
//! | `replica.rs` | sets and their digests |
//! | `budget.rs` | what a node may ban, and how fast is sent |
//! | `peer.rs` | what is known of one other node |
//! | `node/` | the state machine |
//!
//! `src/member.rs` is the state machine at work in its process.

pub mod budget;
pub mod keys;
pub mod message;
pub mod node;
pub mod peer;
pub mod replica;
pub mod window;

pub use keys::Keyring;
pub use node::{
    Counts, FeedMode, FeedView, Host, Node, NodeState, NodeView, OwnBan, Placed, Role, Settings,
};
