//! From a request to a response: pure, but for the list it is given.

use std::net::IpAddr;
use std::time::SystemTime;

use clap::ValueEnum;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde_json::Value;

use super::keys::Keys;
use super::snapshot::{Snapshot, Text};
use crate::cli::export::Format;
use crate::feed::ControlId;

/// What the mirror sends.
pub type Answer = Response<Bytes>;

/// A request as far as it matters.
pub struct Question<'a> {
    /// GET, HEAD, POST.
    pub method: &'a Method,
    /// The path without its query.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// At most a few hundred bytes of JSON.
    pub body: &'a [u8],
}

/// What a path asks for.
enum Wanted<'a> {
    After(Option<String>),
    Check(String),
    Plain,
    Export(&'a str),
}

/// Answers a request.
pub fn answer(
    question: &Question<'_>,
    keys: &Keys,
    dataset: &str,
    snapshot: Option<&Snapshot>,
) -> Answer {
    let json: Value = serde_json::from_slice(question.body).unwrap_or(Value::Null);
    let segments: Vec<&str> = question
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let reads = matches!(*question.method, Method::GET | Method::HEAD);
    let text = |name: &str| match &json[name] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let in_header = key_in_header(question.headers);
    let (key, wanted) = match (reads, segments.as_slice()) {
        (false, ["api", "get"]) => (in_header, Wanted::After(text("id"))),
        (false, ["api", "check"]) => (
            in_header,
            Wanted::Check(text("ipaddress").unwrap_or_default()),
        ),
        (true, ["api", key, "banned"]) => (decoded(key), Wanted::After(None)),
        (true, ["api", key, "banned", id]) => (decoded(key), Wanted::After(Some((*id).to_owned()))),
        (true, ["api", key, "check", ip]) => {
            (decoded(key), Wanted::Check(decoded(ip).unwrap_or_default()))
        }
        (true, ["ipset", key, "list"]) => (decoded(key), Wanted::Plain),
        (true, ["export", format]) => (in_header, Wanted::Export(format)),
        _ => return plain(StatusCode::NOT_FOUND, "no such path\n"),
    };
    if !keys.allow(key.as_deref()) {
        return unauthorized(matches!(wanted, Wanted::Export(_)));
    }
    let other_set = text("set").filter(|set| set != dataset);
    if let Some(set) = other_set {
        let error = format!("this mirror serves the dataset {dataset}, not {set:.16}");
        let body = serde_json::json!({ "error": error }).to_string();
        return json_answer(StatusCode::BAD_REQUEST, body);
    }
    let Some(snapshot) = snapshot else {
        return not_ready();
    };
    match wanted {
        Wanted::After(id) => page(snapshot, id.as_deref()),
        Wanted::Check(ip) => check(snapshot, &ip),
        Wanted::Plain => list(snapshot.text(Format::Plain), Format::Plain, question),
        Wanted::Export(name) => match Format::from_str(name, false) {
            Ok(format) => list(snapshot.text(format), format, question),
            Err(_) => plain(StatusCode::NOT_FOUND, "no such format\n"),
        },
    }
}

/// `Authorization: Bearer KEY`, or the password of `Basic`: what a URL with `user:password@` sends.
fn key_in_header(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = base64(rest.trim())?;
    let text = String::from_utf8(pair).ok()?;
    text.split_once(':').map(|(_, key)| key.to_owned())
}

/// RFC 4648, without padding checks: whatever comes out is only compared with keys.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    Some(out)
}

/// A segment of a path with its `%XX`.
fn decoded(segment: &str) -> Option<String> {
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

fn page(snapshot: &Snapshot, id: Option<&str>) -> Answer {
    // A client without an ID, or with one that was never ours, begins at the beginning.
    let after = id
        .and_then(|id| ControlId::new(id.trim()).ok())
        .and_then(|id| id.as_str().parse::<u64>().ok())
        .unwrap_or(0);
    match snapshot.page_after(after) {
        Some(body) => respond(StatusCode::OK, "application/json", body),
        None => json_answer(
            StatusCode::BAD_REQUEST,
            r#"{"ipaddress":["no new bans"],"ID":"none"}"#.into(),
        ),
    }
}

fn check(snapshot: &Snapshot, ip: &str) -> Answer {
    let Ok(ip) = ip.trim().parse::<IpAddr>() else {
        return json_answer(StatusCode::BAD_REQUEST, "{}".into());
    };
    let ip = ip.to_canonical();
    match snapshot.find(ip) {
        Some(id) => json_answer(
            StatusCode::OK,
            format!("{{\"ipaddress\":[\"{ip}\"],\"ID\":\"{id}\"}}"),
        ),
        None => json_answer(
            StatusCode::BAD_REQUEST,
            r#"{"ipaddress":["not blocked"],"ID":"none"}"#.into(),
        ),
    }
}

/// A list for a device, or the word that it has not changed.
fn list(text: Option<Text>, format: Format, question: &Question<'_>) -> Answer {
    // An empty list would open the device: it keeps what it has.
    let Some(text) = text else {
        return not_ready();
    };
    let headers = question.headers;
    let given = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let modified = httpdate::fmt_http_date(text.modified);
    let same = match given(header::IF_NONE_MATCH) {
        Some(tags) => tags.split(',').any(|tag| {
            let tag = tag.trim().trim_start_matches("W/");
            tag == "*" || tag == text.etag
        }),
        None => given(header::IF_MODIFIED_SINCE)
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .is_some_and(|since| seconds(text.modified) <= seconds(since)),
    };
    let zipped = given(header::ACCEPT_ENCODING).is_some_and(accepts_gzip);
    let body = match (same, zipped) {
        (true, _) => Bytes::new(),
        (_, true) => text.gzip,
        _ => text.body,
    };
    let status = if same {
        StatusCode::NOT_MODIFIED
    } else {
        StatusCode::OK
    };
    let mut answer = respond(status, content_type(format), body);
    let headers = answer.headers_mut();
    insert(headers, header::LAST_MODIFIED, &modified);
    insert(headers, header::ETAG, &text.etag);
    insert(headers, header::VARY, "Accept-Encoding");
    if zipped && !same {
        insert(headers, header::CONTENT_ENCODING, "gzip");
    }
    answer
}

fn accepts_gzip(value: &str) -> bool {
    value.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        name.eq_ignore_ascii_case("gzip") && !refused
    })
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        Format::Csv | Format::Crowdsec => "text/csv; charset=utf-8",
        Format::Freeswitch => "application/xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// The first list is not complete yet: "nothing listed" would be a lie.
fn not_ready() -> Answer {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, "no complete list yet\n");
    insert(answer.headers_mut(), header::RETRY_AFTER, "30");
    answer
}

/// As the service refuses too many requests.
pub fn rate_limited(wait: u64) -> Answer {
    let body = r#"{"ipaddress":"rate limit exceeded","ID":"unauthorized"}"#;
    let mut answer = json_answer(StatusCode::TOO_MANY_REQUESTS, body.into());
    insert(answer.headers_mut(), header::RETRY_AFTER, &wait.to_string());
    answer
}

fn unauthorized(is_export: bool) -> Answer {
    if is_export {
        let mut answer = plain(StatusCode::UNAUTHORIZED, "a key is needed\n");
        insert(
            answer.headers_mut(),
            header::WWW_AUTHENTICATE,
            "Basic realm=\"apiban\"",
        );
        return answer;
    }
    let body = r#"{"ipaddress":"none","ID":"unauthorized"}"#;
    json_answer(StatusCode::FORBIDDEN, body.into())
}

fn json_answer(status: StatusCode, body: String) -> Answer {
    respond(status, "application/json", Bytes::from(body))
}

/// A short text.
pub fn plain(status: StatusCode, text: &'static str) -> Answer {
    respond(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(text.as_bytes()),
    )
}

fn respond(status: StatusCode, kind: &str, body: Bytes) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    insert(answer.headers_mut(), header::CONTENT_TYPE, kind);
    answer
}

/// Every value here is printable ASCII; another one would be left out.
fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_headers() {
        let key = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            key_in_header(&headers)
        };
        assert_eq!(key("Bearer k1").as_deref(), Some("k1"));
        assert_eq!(key("Basic dXNlcjprOnk=").as_deref(), Some("k:y"));
        for bad in ["Basic !", "Basic dXNlcg==", "Digest x", "Bearer"] {
            assert_eq!(key(bad), None, "{bad}");
        }
        assert_eq!(decoded("a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(decoded("a%2"), None);
        assert!(accepts_gzip("br, gzip;q=0.5") && !accepts_gzip("gzip;q=0, br"));
    }
}
