//! One HTTP exchange with the service: what is asked, what comes back, what can go wrong.

use super::control_id::ControlId;
use super::key::Key;
use crate::quote::{foreign, plain};

mod http;
mod redirect;
mod worker;

pub use http::{HttpClient, HttpSettings};
pub use worker::{spawn, Worker};

/// Longest error text in characters.
const MAX_TEXT: usize = 160;

/// Asks for the part of the list that follows a control ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose request it is.
    pub key: Key,
    /// Where to begin; `None`: from the beginning.
    pub after: Option<ControlId>,
    /// How many requests the exchange may make in all, redirects included; 1 or more.
    pub allowed: u32,
}

/// An answer, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The `Retry-After` header in seconds from now.
    pub retry_after: Option<u64>,
    /// At most 1 MiB.
    pub body: Vec<u8>,
    /// How many redirects were followed: each was a request of its own.
    pub redirects: u32,
}

/// There is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct FetchError {
    /// What went wrong.
    pub kind: FetchErrorKind,
    /// How many redirects were followed: each was a request of its own.
    pub redirects: u32,
}

impl From<FetchErrorKind> for FetchError {
    /// An error of the first request.
    fn from(kind: FetchErrorKind) -> Self {
        FetchError { kind, redirects: 0 }
    }
}

/// Why there is no answer. The text is one line and holds no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchErrorKind {
    /// The exchange took longer than `http_timeout`.
    #[error("timeout after {0} s")]
    Timeout(u64),
    /// The host's name is unknown.
    #[error("{0}: host not found")]
    Resolve(String),
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Connection(String),
    /// No trust in the other side, or it speaks no TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// A redirect that would need more requests than [`Request::allowed`].
    #[error("the service redirects, and rate_limit_requests allows no further request now")]
    OverBudget,
    /// A redirect that is not followed.
    #[error("redirect refused: {0}")]
    Redirect(String),
    /// A body of more than 1 MiB.
    #[error("the answer is longer than 1 MiB")]
    TooLong,
    /// An answer that is not HTTP.
    #[error("{0}")]
    Protocol(String),
    /// Our own fault.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Performs one exchange. It may take as long as its own timeout.
pub trait Fetch: Send {
    /// Sends the request and waits for the answer.
    fn fetch(&mut self, request: &Request) -> Result<Response, FetchError>;
}

/// One line of at most 160 characters without the key.
fn clean(key: &Key, text: &str) -> String {
    // Redact first: a key cut in half would no longer be recognised.
    foreign(&plain(&key.redact(text)), MAX_TEXT).to_string()
}
