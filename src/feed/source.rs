//! Where the list comes from: base URL, API version, dataset.

use std::fmt;
use std::str::FromStr;

use ureq::http::Uri;

/// The service's HTTP API in its two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiVersion {
    /// `GET {base}/{KEY}/banned[/ID]`: the key is part of the URL.
    V1,
    /// `POST {base}/get` with a bearer key.
    V2,
}

/// Which of the service's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dataset {
    /// Sources of SIP attacks; the default.
    Sip,
    /// Sources of HTTP attacks.
    Http,
    /// Both.
    All,
}

impl Dataset {
    /// The name in the API and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Dataset::Sip => "sip",
            Dataset::Http => "http",
            Dataset::All => "all",
        }
    }
}

impl FromStr for Dataset {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text {
            "sip" => Ok(Dataset::Sip),
            "http" => Ok(Dataset::Http),
            "all" => Ok(Dataset::All),
            _ => Err(SourceError::Dataset),
        }
    }
}

/// The configuration names no list that could be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Not `http://HOST[:PORT][/PATH]` or the same with `https`.
    #[error("expected http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH] without user, query or fragment")]
    Url,
    /// Unknown dataset.
    #[error("expected sip, http or all")]
    Dataset,
    /// Version 1 has no way to name a dataset.
    #[error("API version 1 knows the dataset sip only")]
    DatasetNeedsV2,
}

/// One list of one service. Immutable and valid.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    base: String,
    version: ApiVersion,
    dataset: Dataset,
}

impl Source {
    /// Checks the base URL (a trailing slash is cut off) and that the version can serve the dataset.
    pub fn new(api_url: &str, version: ApiVersion, dataset: Dataset) -> Result<Self, SourceError> {
        let base = api_url.trim().trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| SourceError::Url)?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.host().is_some_and(|host| !host.is_empty());
        // A user in the URL would end up in log lines.
        if !scheme || !host || base.contains(['@', '?', '#']) {
            return Err(SourceError::Url);
        }
        if version == ApiVersion::V1 && dataset != Dataset::Sip {
            return Err(SourceError::DatasetNeedsV2);
        }
        Ok(Source {
            base: base.to_owned(),
            version,
            dataset,
        })
    }

    /// The base URL without a trailing slash.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The API version.
    pub fn version(&self) -> ApiVersion {
        self.version
    }

    /// The dataset.
    pub fn dataset(&self) -> Dataset {
        self.dataset
    }

    /// What a saved control ID must have been saved for to be of use. Both versions share their IDs.
    pub fn fingerprint(&self) -> String {
        format!("{} {}", self.dataset.as_str(), self.base)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.fingerprint(), self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_datasets_are_checked() {
        let new = |url: &str| Source::new(url, ApiVersion::V2, Dataset::All);
        assert_eq!(
            new("https://apiban.org/api/").unwrap().base(),
            "https://apiban.org/api"
        );
        assert!(new("http://[::1]:8080").is_ok());
        for bad in [
            "",
            "apiban.org",
            "ftp://h/x",
            "https://",
            "http://u:p@h/",
            "http://h/?k=1",
            "http://h/\r\nx",
        ] {
            assert_eq!(new(bad), Err(SourceError::Url), "{bad}");
        }
        let v1 = Source::new("http://h", ApiVersion::V1, Dataset::All);
        assert_eq!(v1, Err(SourceError::DatasetNeedsV2));
        assert_eq!("SIP".parse::<Dataset>(), Err(SourceError::Dataset));
    }
}
