//! The host in a SIP URI (RFC 3261 19.1.1), as far as destinations of a dispatcher need it.

use std::net::Ipv6Addr;

/// The host of `sip:[user@]host[:port][;parameters][?headers]`; brackets of IPv6 are taken off. `None`
/// if there is none.
pub fn host(uri: &str) -> Option<&str> {
    let rest = uri.trim().trim_start_matches('<');
    let rest = rest
        .split_once(':')
        .filter(|(scheme, _)| {
            scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips")
        })
        .map_or(rest, |(_, rest)| rest);
    // The user part may hold ";" and "?"; nothing but its end may be an "@".
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    let host = rest.split([';', '?', '>']).next()?.trim();
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        // IPv6 without its brackets.
        None if host.parse::<Ipv6Addr>().is_ok() => host,
        None => host.split(':').next()?,
    };
    // Anything else is nobody's name, and no resolver need be asked for it.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    (!host.is_empty() && host.bytes().all(plain)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn hosts() {
        for (uri, expected) in [
            ("sip:192.0.2.7", Some("192.0.2.7")),
            ("sip:192.0.2.7:5080;transport=tcp", Some("192.0.2.7")),
            ("sips:gw@carrier.example:5061", Some("carrier.example")),
            ("sip:[2001:db8::1]:5060", Some("2001:db8::1")),
            ("<sip:[2001:db8::1];lr>", Some("2001:db8::1")),
            ("SIP:192.0.2.7", Some("192.0.2.7")),
            ("sip:a;b=c?d@192.0.2.7;lr", Some("192.0.2.7")),
            ("sip.carrier.example:5060", Some("sip.carrier.example")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("192.0.2.7:5060", Some("192.0.2.7")),
            ("sip:a@b@c", None),
            ("sip:", None),
            ("", None),
        ] {
            assert_eq!(host(uri), expected, "{uri}");
        }
    }
}
