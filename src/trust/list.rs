//! Lists of trusted addresses: their errors, their length, and what is trusted without a list.

use std::collections::HashSet;

use super::rule::{Rule, Trusted};
use super::{Given, MAX_GIVEN};
use crate::address::{ParseError, Subnet};
use crate::clock::UnixSeconds;

/// A word of a trust list that is not an address, or a list that is too long.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// In the parameter.
    #[error("{0}")]
    Word(#[from] ParseError),
    /// In this line of the file.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// More addresses and prefixes than can be trusted; how many there are.
    #[error("{0} trusted addresses and prefixes, at most {MAX_GIVEN} are possible")]
    TooMany(usize),
}

/// The rules of a value of the parameter `trust`: see [`Given::parse_parameter`].
///
/// # Errors
/// A word that is neither an address nor a prefix.
pub fn parse_parameter(text: &str) -> Result<Vec<Trusted>, ListError> {
    Given::parse_parameter(text).map(|given| given.at(UnixSeconds::ZERO))
}

/// Refuses a list of more than [`MAX_GIVEN`] different addresses and prefixes.
///
/// # Errors
/// [`ListError::TooMany`] with their number.
pub fn check_length(trusted: &[Trusted]) -> Result<(), ListError> {
    let different: HashSet<Subnet> = trusted.iter().map(|(subnet, _)| *subnet).collect();
    if different.len() > MAX_GIVEN {
        return Err(ListError::TooMany(different.len()));
    }
    Ok(())
}

/// The rule for `subnet`. A table cannot hold a prefix of length 0: it is stored as its two halves.
pub(super) fn covering(subnet: Subnet, rule: Rule) -> Vec<Trusted> {
    let halves = match (subnet.prefix_len(), subnet.is_v4()) {
        (0, true) => ["0.0.0.0/1", "128.0.0.0/1"],
        (0, false) => ["::/1", "8000::/1"],
        _ => return vec![(subnet, rule)],
    };
    halves
        .iter()
        .filter_map(|half| Some((half.parse().ok()?, rule)))
        .collect()
}

/// The loopback networks, which `trust_self` covers.
pub fn loopback() -> Vec<Trusted> {
    ["127.0.0.0/8", "::1"]
        .iter()
        .filter_map(|text| Some((text.parse().ok()?, Rule::Loopback)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_named() {
        let error = Given::parse_file("192.0.2.1\n192.0.2.0/33\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: \"192.0.2.0/33\" is not an IP address or prefix"
        );
        assert!(parse_parameter("192.0.2.1,carrier.example")
            .unwrap_err()
            .to_string()
            .contains("carrier.example"));
    }

    #[test]
    fn the_error_of_a_long_list_names_the_limit_that_it_breaks() {
        let list = |count: u32| -> Vec<Trusted> {
            let host = |n: u32| Subnet::host(std::net::Ipv4Addr::from(0x0a00_0000 + n).into());
            // Each twice: only different ones count.
            (0..2 * count)
                .map(|n| (host(n / 2), Rule::Parameter))
                .collect()
        };
        assert_eq!(check_length(&list(8_192)), Ok(()));
        assert_eq!(
            check_length(&list(8_193)).unwrap_err().to_string(),
            "8193 trusted addresses and prefixes, at most 8192 are possible"
        );
    }
}
