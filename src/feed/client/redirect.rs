//! Where a redirect may lead: the same host, never from `https` back to `http`.

use ureq::http::Uri;

/// Resolves `location` as it stands in an answer from `from`, or says why it is not followed. The
/// text names hosts only: a path may hold the key.
pub(super) fn target(from: &Uri, location: &str) -> Result<Uri, String> {
    let unreadable = || "unreadable Location".to_owned();
    let origin = |uri: &Uri| {
        let scheme = uri.scheme_str().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        format!("{scheme}://{host}:{}", port(uri).unwrap_or_default())
    };
    let absolute = if location.starts_with("//") {
        format!("{}:{location}", from.scheme_str().unwrap_or_default())
    } else if location.starts_with('/') {
        let authority = from.authority().map_or("", |a| a.as_str());
        format!(
            "{}://{authority}{location}",
            from.scheme_str().unwrap_or_default()
        )
    } else {
        location.to_owned()
    };
    // A relative path without a leading slash has no scheme and ends here: no API needs it.
    let to: Uri = absolute.parse().map_err(|_| unreadable())?;
    let (Some(scheme), Some(host), Some(authority)) = (to.scheme_str(), to.host(), to.authority())
    else {
        return Err(unreadable());
    };
    if !matches!(scheme, "http" | "https") || authority.as_str().contains('@') {
        return Err(unreadable());
    }
    let same_host = from.host().is_some_and(|h| h.eq_ignore_ascii_case(host));
    let upgrade = from.scheme_str() == Some("http") && scheme == "https";
    let same_origin = from.scheme_str() == Some(scheme) && port(from) == port(&to);
    if same_host && (upgrade || same_origin) {
        Ok(to)
    } else {
        Err(format!("{} leads to {}", origin(from), origin(&to)))
    }
}

fn port(uri: &Uri) -> Option<u16> {
    let default = match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    uri.port_u16().or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(from: &str, location: &str) -> Option<String> {
        target(&from.parse().unwrap(), location)
            .ok()
            .map(|uri| uri.to_string())
    }

    #[test]
    fn the_same_host_only() {
        let from = "http://api.example:8080/api/get";
        for (location, to) in [
            ("/v2/get", "http://api.example:8080/v2/get"),
            ("http://API.example:8080/x", "http://API.example:8080/x"),
            ("//api.example:8080/x", "http://api.example:8080/x"),
            ("https://api.example/x", "https://api.example/x"),
        ] {
            let found = allowed(from, location).map(|uri| uri.to_lowercase());
            assert_eq!(found, Some(to.to_lowercase()), "{location}");
        }
        for location in [
            "http://evil.example:8080/x",
            "//evil.example/x",
            "http://api.example:8081/x",
            "http://api.example:8080@evil.example/x",
            "http://u:p@api.example:8080/x",
            "http://api.example.evil.example:8080/",
            "ftp://api.example:8080/",
            "file:///etc/passwd",
            "get",
            "",
            "http://",
        ] {
            assert_eq!(allowed(from, location), None, "{location}");
        }
        assert_eq!(allowed("https://h/x", "http://h/x"), None);
        assert!(allowed("https://h/x", "https://h:443/y").is_some());
    }

    #[test]
    fn the_refusal_holds_no_path() {
        let from: Uri = "https://h/KEY/banned".parse().unwrap();
        let text = target(&from, "https://other/KEY/banned").unwrap_err();
        assert_eq!(text, "https://h:443 leads to https://other:443");
    }
}
