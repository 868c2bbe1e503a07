//! The APIBAN list: fetched, parsed, scheduled.
use serde::{Deserialize, Serialize};
/// Key
#[derive(Clone)]
pub struct Key(String);
impl Key {
    /// new
    pub fn new(key: String) -> Self {
        Key(key)
    }
}
/// Saved
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {}
impl Saved {
    /// x
    pub fn belongs_to(&self, _: &str, _: &str) -> bool {
        true
    }
}
/// FeedState
pub struct FeedState;
impl FeedState {
    /// x
    pub fn from_number(_: u64) -> Self {
        FeedState
    }
    /// x
    pub fn name(&self) -> &'static str {
        "starting"
    }
}
