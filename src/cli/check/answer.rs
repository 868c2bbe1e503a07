//! What the service's answer to CHECK means. Believes little, never panics.

use serde_json::Value;

/// The meaning of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is listed.
    Listed,
    /// It is not.
    NotListed,
    /// The service takes it for no address.
    NotAnAddress,
    /// The key is bad or missing.
    Unauthorized,
    /// Too many requests.
    RateLimited,
    /// The service is in trouble; its HTTP status.
    ServerError(u16),
    /// Not an answer of this API.
    Garbage(&'static str),
}

/// Reads an answer to the question for `asked`.
pub fn parse(status: u16, body: &[u8], asked: &str) -> Answer {
    match status {
        429 => return Answer::RateLimited,
        500..=599 => return Answer::ServerError(status),
        _ => {}
    }
    let body: Option<Value> = serde_json::from_slice(body).ok();
    let words = words(body.as_ref());
    if words.iter().any(|word| word == "rate limit exceeded") {
        return Answer::RateLimited;
    }
    let id = body.as_ref().and_then(|body| body.get("ID"));
    if matches!(status, 401 | 403) || id.and_then(Value::as_str) == Some("unauthorized") {
        return Answer::Unauthorized;
    }
    let says = |word: &str| words.iter().any(|said| said == word);
    let success = (200..=299).contains(&status);
    // Both words for "no" before any for "yes": it is in neither of the service's answers by chance.
    if (says("not blocked") || says("ok")) && (success || matches!(status, 400 | 404)) {
        return Answer::NotListed;
    }
    let names_it = || {
        let asked = asked.parse::<crate::address::Subnet>();
        words
            .iter()
            .any(|said| said.parse().ok() == asked.clone().ok())
    };
    if success && (says("blocked") || names_it()) {
        return Answer::Listed;
    }
    match body {
        Some(Value::Object(object)) if object.is_empty() && status == 400 => Answer::NotAnAddress,
        Some(Value::Object(_)) if status == 404 && words.is_empty() => Answer::NotListed,
        Some(_) => Answer::Garbage("JSON of another shape"),
        None => Answer::Garbage("not JSON"),
    }
}

/// The text or texts of `ipaddress`, in lower case.
fn words(body: Option<&Value>) -> Vec<String> {
    let lower = |value: &Value| value.as_str().map(|text| text.trim().to_ascii_lowercase());
    match body.and_then(|body| body.get("ipaddress")) {
        Some(Value::Array(items)) => items.iter().take(16).filter_map(lower).collect(),
        Some(value) => lower(value).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_that_was_seen() {
        for (status, body, meaning) in [
            (
                200,
                r#"{"ipaddress":["192.0.2.1"],"ID":"987654321"}"#,
                Answer::Listed,
            ),
            (
                200,
                r#"{"ipaddress":"blocked","ID":"987654321"}"#,
                Answer::Listed,
            ),
            (
                200,
                r#"{"ipaddress":["not blocked"],"ID":"none"}"#,
                Answer::NotListed,
            ),
            (
                400,
                r#"{"ipaddress":["not blocked"],"ID":"none"}"#,
                Answer::NotListed,
            ),
            (
                404,
                r#"{"ipaddress":["not blocked"],"ID":"none"}"#,
                Answer::NotListed,
            ),
            (400, r#"{"ipaddress":"ok","ID":"0"}"#, Answer::NotListed),
            (404, r#"{}"#, Answer::NotListed),
            (400, r#"{}"#, Answer::NotAnAddress),
            (
                403,
                r#"{"ipaddress":"none","ID":"unauthorized"}"#,
                Answer::Unauthorized,
            ),
            (
                200,
                r#"{"ipaddress":"none","ID":"unauthorized"}"#,
                Answer::Unauthorized,
            ),
            (401, "", Answer::Unauthorized),
            (
                429,
                r#"{"ipaddress":"rate limit exceeded","ID":"unauthorized"}"#,
                Answer::RateLimited,
            ),
            (
                403,
                r#"{"ipaddress":"rate limit exceeded","ID":"unauthorized"}"#,
                Answer::RateLimited,
            ),
            (503, "<html>", Answer::ServerError(503)),
            (200, "<html>", Answer::Garbage("not JSON")),
            (200, "", Answer::Garbage("not JSON")),
            (200, "[]", Answer::Garbage("JSON of another shape")),
            (
                200,
                r#"{"ipaddress":["192.0.2.2"],"ID":"1"}"#,
                Answer::Garbage("JSON of another shape"),
            ),
        ] {
            assert_eq!(
                parse(status, body.as_bytes(), "192.0.2.1"),
                meaning,
                "{status} {body}"
            );
        }
    }
}
