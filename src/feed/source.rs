//! Where the list comes from: base URL, API version, dataset.

use std::fmt;
use std::str::FromStr;

use crate::base_url::{BaseUrl, BaseUrlError};

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

    /// Takes the name in capital or small letters.
    fn from_str(text: &str) -> Result<Self, SourceError> {
        [Dataset::Sip, Dataset::Http, Dataset::All]
            .into_iter()
            .find(|dataset| text.eq_ignore_ascii_case(dataset.as_str()))
            .ok_or(SourceError::Dataset)
    }
}

/// The configuration names no list that could be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The text is not a URL.
    #[error("the URL {0}")]
    Url(#[from] BaseUrlError),
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
    base: BaseUrl,
    version: ApiVersion,
    dataset: Dataset,
}

impl Source {
    /// Checks that the version can serve the dataset.
    pub fn of(base: BaseUrl, version: ApiVersion, dataset: Dataset) -> Result<Self, SourceError> {
        if version == ApiVersion::V1 && dataset != Dataset::Sip {
            return Err(SourceError::DatasetNeedsV2);
        }
        Ok(Source {
            base,
            version,
            dataset,
        })
    }

    /// Parses the base URL, then does the same as [`Source::of`].
    pub fn new(api_url: &str, version: ApiVersion, dataset: Dataset) -> Result<Self, SourceError> {
        Source::of(api_url.parse()?, version, dataset)
    }

    /// The base URL without a slash at the end.
    pub fn base(&self) -> &str {
        self.base.as_str()
    }

    /// True if the base URL is a host alone.
    pub fn has_no_path(&self) -> bool {
        self.base.has_no_path()
    }

    /// The API version.
    pub fn version(&self) -> ApiVersion {
        self.version
    }

    /// The dataset.
    pub fn dataset(&self) -> Dataset {
        self.dataset
    }

    /// Identifies the list: dataset and base URL. A saved list and its control ID are used for a
    /// source with the same fingerprint only. Both versions share their IDs.
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
        let source = new("https://apiban.org/api/").unwrap();
        assert_eq!(source.base(), "https://apiban.org/api");
        assert_eq!(source.fingerprint(), "all https://apiban.org/api");
        assert_eq!(new("apiban.org"), Err(SourceError::Url(BaseUrlError::Form)));
        let v1 = Source::new("http://h", ApiVersion::V1, Dataset::All);
        assert_eq!(v1, Err(SourceError::DatasetNeedsV2));
        assert_eq!("SIP".parse(), Ok(Dataset::Sip));
        assert_eq!("sips".parse::<Dataset>(), Err(SourceError::Dataset));
    }
}
