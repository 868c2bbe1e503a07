//! The host in the URI of a dispatcher's destination.
//!
//! Input: any text; where it has three lines they are user, host and the rest of a URI.

use std::net::IpAddr;

use apiban::updater::uri::host;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(host) = host(&text) {
        assert!(!host.is_empty() && text.contains(host));
        assert!(host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c)));
    }
    let lines: Vec<&str> = text.lines().collect();
    let [user, name, rest] = lines.as_slice() else {
        return;
    };
    let address = name.parse::<IpAddr>().ok();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let named = !name.is_empty() && name.chars().all(plain);
    let port = rest.split([';', '?']).next().unwrap_or_default();
    let digits = |port: &str| port.chars().all(|c| c.is_ascii_digit());
    let rest_begins = port.is_empty() || port.strip_prefix(':').is_some_and(digits);
    if (address.is_none() && !named) || !rest_begins || rest.contains('@') || user.contains('@') {
        return;
    }
    let bracketed = match address {
        Some(IpAddr::V6(_)) => format!("[{name}]"),
        _ => (*name).to_owned(),
    };
    let at = if user.is_empty() { "" } else { "@" };
    for scheme in ["sip:", "SIPS:"] {
        // The rest must not be taken for more of the user: it holds no "@".
        let uri = format!("{scheme}{user}{at}{bracketed}{rest}");
        assert_eq!(host(&uri), Some(*name), "{uri:?}");
    }
}
