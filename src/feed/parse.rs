//! From the bytes of an answer to its meaning. Takes anything, believes little, never panics.

use crate::address::Subnet;

use super::control_id::ControlId;

mod body;
use body::{Body, Id};

/// Longest body that is looked at, in bytes: a full page of 250 addresses has about 10,000.
pub const MAX_BODY: usize = 1 << 20;
/// Most addresses accepted in one page; the service sends 250.
pub const MAX_ADDRESSES: usize = 10_000;
/// A page with fewer items than this is the last one for now.
pub const FULL_PAGE: usize = 250;

/// What the service said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A part of the list.
    Page(Page),
    /// Nothing newer than the control ID asked for: the list is complete.
    Complete,
    /// The key is bad or missing.
    Unauthorized,
    /// The key, good or bad, asked too often; wait this many seconds if the service names a time.
    RateLimited {
        /// Seconds to wait.
        retry_after: Option<u64>,
    },
    /// Trouble at the service: status 500 to 599.
    ServerError {
        /// The HTTP status.
        status: u16,
        /// Seconds to wait.
        retry_after: Option<u64>,
    },
    /// Not an answer of this API: one line of text says why, without a word of the body.
    Garbage(String),
}

/// One page of the list, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What is listed, at most 10,000 addresses or prefixes. Nothing has been judged yet.
    pub addresses: Vec<Subnet>,
    /// How many items are no address; the first of them, printable and at most 64 characters.
    pub skipped: usize,
    /// The first item skipped.
    pub example: Option<String>,
    /// Where the next page begins.
    pub id: ControlId,
}

impl Page {
    /// Number of items in the page as it was sent.
    pub fn items(&self) -> usize {
        self.addresses.len() + self.skipped
    }
}

/// Reads an answer. `retry_after` is the header's value in seconds.
pub fn parse(status: u16, retry_after: Option<u64>, body: &[u8]) -> Answer {
    if status == 429 {
        return Answer::RateLimited { retry_after };
    }
    if (500..=599).contains(&status) {
        return Answer::ServerError {
            status,
            retry_after,
        };
    }
    let body = if body.len() > MAX_BODY {
        Err("longer than 1 MiB".to_owned())
    } else {
        body::read(body)
    };
    if body.as_ref().is_ok_and(|body| body.rate_limited) {
        return Answer::RateLimited { retry_after };
    }
    if matches!(status, 401 | 403) {
        return Answer::Unauthorized;
    }
    match body {
        Ok(body) => meaning(status, body),
        Err(reason) => Answer::Garbage(format!("status {status}: {reason}")),
    }
}

fn meaning(status: u16, body: Body) -> Answer {
    let success = (200..=299).contains(&status);
    let garbage = |reason: &str| Answer::Garbage(format!("status {status}: {reason}"));
    if body.id == Id::Unauthorized {
        return Answer::Unauthorized;
    }
    let nothing_listed = body.addresses.is_empty();
    if nothing_listed && (body.nothing_newer || body.id == Id::None) {
        return if success || matches!(status, 400 | 404 | 408) {
            Answer::Complete
        } else {
            garbage("\"no new bans\" with a status that does not fit")
        };
    }
    match body.id {
        Id::Digits(id) if success && body.has_items => Answer::Page(Page {
            addresses: body.addresses,
            skipped: body.skipped,
            example: body.example,
            id,
        }),
        Id::Digits(_) if success => garbage("no \"ipaddress\""),
        Id::Digits(_) => garbage("a page with a status that does not fit"),
        Id::None => garbage("addresses without a control ID"),
        Id::Missing => garbage("no control ID"),
        Id::Bad | Id::Unauthorized => garbage("the control ID is not 1 to 20 digits"),
    }
}

#[cfg(test)]
mod tests;
