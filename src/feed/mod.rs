//! The APIBAN list: fetched, parsed, scheduled.
//!
//! [`engine::Engine`] decides in the updater's main loop what to ask and when, and turns each answer
//! into effects; it does no input or output and reads no clock. [`client::spawn`] runs one exchange
//! at a time on a thread of its own, because a server may let it hang.

pub mod client;
pub mod control_id;
pub mod engine;
pub mod key;
pub mod parse;
pub mod request_budget;
pub mod schedule;
pub mod source;

pub use control_id::ControlId;
pub use engine::{Effect, Engine, FeedSettings, FeedState, HeldBack, Listed, Saved, Status, Step};
pub use key::{ApiKey, Key};
pub use source::{ApiVersion, Dataset, Source};
