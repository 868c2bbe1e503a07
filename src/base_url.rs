//! The URL that a service's paths are appended to.

use std::fmt;
use std::str::FromStr;

use ureq::http::Uri;

/// `http://HOST[:PORT][/PATH]` or the same with `https`: no user, no query, no fragment, no slash at
/// the end. Immutable and valid.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

/// Why a text is no base URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Neither `http://` nor `https://` in front, or nothing that a URL may hold after it.
    #[error("is no URL of the form http://HOST[:PORT][/PATH]")]
    Form,
    /// A user would end up in log lines.
    #[error("holds a user name (@)")]
    User,
    /// A query or fragment cannot be followed by a path.
    #[error("holds a query (?) or fragment (#)")]
    Query,
    /// The port is no number from 1 to 65535.
    #[error("has a port that is not 1 to 65535")]
    Port,
}

impl Default for BaseUrl {
    /// This host.
    fn default() -> Self {
        BaseUrl("http://127.0.0.1".to_owned())
    }
}

impl BaseUrl {
    /// The text, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if nothing follows host and port.
    pub fn has_no_path(&self) -> bool {
        self.0.matches('/').count() == 2
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let base = text.trim().trim_end_matches('/');
        if base.contains('@') {
            return Err(BaseUrlError::User);
        }
        if base.contains(['?', '#']) {
            return Err(BaseUrlError::Query);
        }
        let uri: Uri = base.parse().map_err(|_| match has_bad_port(base) {
            true => BaseUrlError::Port,
            false => BaseUrlError::Form,
        })?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.host().is_some_and(|host| !host.is_empty());
        if !scheme || !host {
            return Err(BaseUrlError::Form);
        }
        if has_bad_port(base) {
            return Err(BaseUrlError::Port);
        }
        Ok(BaseUrl(base.to_owned()))
    }
}

/// True if a port is there and no number from 1 to 65535. The parser takes some of these.
fn has_bad_port(base: &str) -> bool {
    let authority = base
        .split_once("://")
        .map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    // The colons of an IPv6 address stand inside the brackets.
    let after_host = authority
        .rfind(']')
        .map_or(authority, |end| &authority[end..]);
    let Some((_, port)) = after_host.split_once(':') else {
        return false;
    };
    let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    !(is_number && port.parse::<u16>().is_ok_and(|port| port > 0))
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_path_can_be_appended_to() {
        let parse = |url: &str| url.parse::<BaseUrl>();
        let good = parse(" https://apiban.org/api/ ").unwrap();
        assert_eq!(good.as_str(), "https://apiban.org/api");
        assert!(!good.has_no_path());
        for bare in [
            "http://h",
            "http://h:1/",
            "https://[::1]:65535",
            "http://192.0.2.1",
        ] {
            assert!(parse(bare).unwrap().has_no_path(), "{bare}");
        }
        for bad in [
            "",
            "apiban.org",
            "ftp://h/x",
            "https://",
            "http://h/\r\nx",
            "https//x",
        ] {
            assert_eq!(parse(bad), Err(BaseUrlError::Form), "{bad}");
        }
        assert_eq!(parse("http://u:p@h/"), Err(BaseUrlError::User));
        assert_eq!(parse("http://h/?k=1"), Err(BaseUrlError::Query));
        for bad in [
            "http://h:0",
            "http://h:99999/x",
            "https://h:",
            "http://h:/",
            "http://[::1]:65536/x",
            "http://h:x",
        ] {
            assert_eq!(parse(bad), Err(BaseUrlError::Port), "{bad}");
        }
    }
}
