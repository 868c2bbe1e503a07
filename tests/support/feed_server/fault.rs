//! What the stand-in for the service can do wrong.

use std::str::FromStr;

/// One way to answer wrongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 429, with Retry-After in seconds where given.
    RateLimited(Option<u64>),
    /// 429 with Retry-After as an HTTP date this many seconds ahead.
    RateLimitedDate(u64),
    /// The refusal for the rate limit as an older edition sends it: 403.
    RateLimited403,
    /// A refused key with this status.
    Unauthorized(u16),
    /// This status with an HTML body, and Retry-After where given.
    Status(u16, Option<u64>),
    /// Takes the request and never answers.
    Hang,
    /// Closes the connection without an answer.
    Drop,
    /// Half of the body that the header promises.
    Truncated,
    /// Half of the JSON, in an answer that is whole as HTTP.
    HalfJson,
    /// 200 with a proxy's HTML page.
    Html,
    /// 200 without a body.
    Empty,
    /// A body of 2 MiB.
    Giant,
    /// The page asked for, one byte each 100 ms.
    SlowDrip,
    /// The first page again and again, with its own control ID.
    SamePage,
    /// The page with its single address as a string instead of an array.
    StringShape,
    /// "no new bans" with this status.
    NoNewBans(u16),
    /// The same as a string instead of an array.
    NoNewBansString(u16),
    /// Nothing but a control ID of none.
    BareNone(u16),
    /// Junk among the addresses.
    Junk,
    /// Addresses that no list should hold.
    Poison,
    /// Redirect with this status to this Location; `{path}` stands for the path asked for.
    Redirect(u16, String),
    /// A page that quotes the key.
    EchoKey,
    /// A full page behind every page: the list has no end.
    Endless,
}

/// The page behind the control ID `asked` of a list without an end: addresses that it has sent before, and a new ID.
pub(super) fn endless_page(asked: u64, now: u64) -> String {
    // In the past, as a real ID is, however many pages follow.
    let id = asked.max(now - 100_000) + 1;
    let addresses: Vec<String> = (0..super::PAGE).map(|n| format!("20.9.0.{n}")).collect();
    serde_json::json!({"ipaddress": addresses, "ID": id.to_string()}).to_string()
}

impl FromStr for Fault {
    type Err = String;

    /// `NAME` or `NAME:ARGUMENT`, as the control port takes it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let number = argument.and_then(|a| a.parse::<u64>().ok());
        let status = |default: u16| number.and_then(|n| n.try_into().ok()).unwrap_or(default);
        Ok(match name {
            "rate_limited" => Fault::RateLimited(number),
            "rate_limited_date" => Fault::RateLimitedDate(number.unwrap_or(5)),
            "rate_limited_403" => Fault::RateLimited403,
            "unauthorized" => Fault::Unauthorized(status(403)),
            "status" => Fault::Status(status(500), None),
            "hang" => Fault::Hang,
            "drop" => Fault::Drop,
            "truncated" => Fault::Truncated,
            "half_json" => Fault::HalfJson,
            "html" => Fault::Html,
            "empty" => Fault::Empty,
            "giant" => Fault::Giant,
            "slow_drip" => Fault::SlowDrip,
            "same_page" => Fault::SamePage,
            "string_shape" => Fault::StringShape,
            "no_new_bans" => Fault::NoNewBans(status(400)),
            "no_new_bans_string" => Fault::NoNewBansString(status(400)),
            "bare_none" => Fault::BareNone(status(400)),
            "junk" => Fault::Junk,
            "poison" => Fault::Poison,
            "redirect" => Fault::Redirect(307, argument.unwrap_or("{path}").to_owned()),
            "echo_key" => Fault::EchoKey,
            "endless" => Fault::Endless,
            _ => return Err(format!("unknown fault {name}")),
        })
    }
}
