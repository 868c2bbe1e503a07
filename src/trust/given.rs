//! What the operator trusts, as parameters and file say it.

use super::list::covering;
use super::{until, ListError, Rule, Trusted};
use crate::address::{parse_address, ParseError, Subnet};
use crate::clock::UnixSeconds;
use crate::quote::foreign;

/// Longest word that an error quotes, in characters.
const MAX_QUOTE: usize = 40;

/// A rule that an operator gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenRule {
    /// What is trusted, and by which rule.
    pub trusted: Trusted,
    /// When that ends, by the wall clock; `None`: never.
    pub until: Option<UnixSeconds>,
}

/// The rules of parameters and file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// In their order: of two for the same subnet the first that is in force counts.
    pub rules: Vec<GivenRule>,
    /// Texts for the log: what may be meant otherwise.
    pub warnings: Vec<String>,
}

impl Given {
    /// Parses the value of the parameter `trust`: addresses and prefixes, separated by comma, semicolon or blanks.
    ///
    /// # Errors
    /// A word that is neither an address nor a prefix.
    pub fn parse_parameter(text: &str) -> Result<Self, ListError> {
        let mut given = Given::default();
        for word in text.split([',', ' ', '\t', '\n', ';']) {
            if !word.is_empty() {
                given.push("trust", word, word.parse()?, Rule::Parameter, None);
            }
        }
        Ok(given)
    }

    /// Parses a trust file: one address or prefix a line, which `until=` may follow; `#` begins a comment.
    ///
    /// # Errors
    /// A line that is wrong.
    pub fn parse_file(text: &str) -> Result<Self, ListError> {
        let mut given = Given::default();
        for (line, content) in (1..).zip(text.lines()) {
            let wrong = |reason: String| ListError::Line { line, reason };
            let mut words = content
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            let Some(word) = words.next() else {
                continue;
            };
            let subnet = word
                .parse()
                .map_err(|error: ParseError| wrong(error.to_string()))?;
            let mut end = None;
            for more in words {
                let until = until::parse(more).filter(|_| end.is_none());
                end = Some(until.ok_or_else(|| {
                    let quoted = foreign(more, MAX_QUOTE);
                    wrong(format!(
                        "\"{quoted}\" stands where only until=YYYY-MM-DD may stand"
                    ))
                })?);
            }
            let place = format!("trust_file line {line}");
            given.push(&place, word, subnet, Rule::File(line), end);
        }
        Ok(given)
    }

    fn push(
        &mut self,
        place: &str,
        word: &str,
        subnet: Subnet,
        rule: Rule,
        until: Option<UnixSeconds>,
    ) {
        self.warnings.extend(host_bits(place, word, subnet));
        let rules = covering(subnet, rule).into_iter();
        self.rules
            .extend(rules.map(|trusted| GivenRule { trusted, until }));
    }

    /// Adds what another list says, after this one.
    pub fn add(&mut self, other: Given) {
        self.rules.extend(other.rules);
        self.warnings.extend(other.warnings);
    }

    /// The rules that are in force at this time of the wall clock.
    pub fn at(&self, wall: UnixSeconds) -> Vec<Trusted> {
        self.rules
            .iter()
            .filter(|rule| rule.until.is_none_or(|end| end > wall))
            .map(|rule| rule.trusted)
            .collect()
    }
}

impl From<Vec<Trusted>> for Given {
    /// Rules without an end.
    fn from(rules: Vec<Trusted>) -> Self {
        let rules = rules.into_iter().map(|trusted| GivenRule {
            trusted,
            until: None,
        });
        Given {
            rules: rules.collect(),
            warnings: Vec::new(),
        }
    }
}

/// A warning about a prefix that is written with an address inside it, such as `192.0.2.10/24`.
fn host_bits(place: &str, word: &str, subnet: Subnet) -> Option<String> {
    let address = parse_address(word.split_once('/')?.0).ok()?;
    (address != subnet.address()).then(|| {
        format!(
            "{place}: {word} means the whole network {subnet}: write {address} if only this address is to be trusted, \
             else {subnet}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(given: &Given, wall: u32) -> Vec<String> {
        let rules = given.at(UnixSeconds::new(wall)).into_iter();
        rules.map(|(subnet, _)| subnet.to_string()).collect()
    }

    #[test]
    fn a_rule_ends_by_itself() {
        let text = "192.0.2.1 until=2026-12-31 # ticket 4711\n192.0.2.2\tuntil=1000\n192.0.2.3\n";
        let given = Given::parse_file(text).unwrap();
        assert_eq!(at(&given, 999), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(at(&given, 1_000), ["192.0.2.1", "192.0.2.3"]);
        assert_eq!(at(&given, 1_798_761_599), ["192.0.2.1", "192.0.2.3"]);
        assert_eq!(at(&given, 1_798_761_600), ["192.0.2.3"]);
        assert_eq!(given.rules[1].trusted.1, Rule::File(2));
        assert!(given.warnings.is_empty());
    }

    #[test]
    fn what_may_not_follow_an_address_is_named() {
        for (line, quoted) in [
            ("192.0.2.1 192.0.2.2", "\"192.0.2.2\""),
            ("192.0.2.1 until=2026-02-30", "\"until=2026-02-30\""),
            ("192.0.2.1 until=1000 until=2000", "\"until=2000\""),
        ] {
            let error = Given::parse_file(&format!("# one\n{line}\n")).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("line 2: "), "{text}");
            assert!(
                text.contains(quoted) && text.contains("until=YYYY-MM-DD"),
                "{text}"
            );
        }
    }

    #[test]
    fn host_bits_are_worth_a_warning() {
        let given =
            Given::parse_parameter("192.0.2.10/24; 192.0.2.0/24,192.0.2.7/32 2001:db8::5/64")
                .unwrap();
        assert_eq!(
            given.warnings,
            [
                "trust: 192.0.2.10/24 means the whole network 192.0.2.0/24: write 192.0.2.10 if only this address is to be \
                 trusted, else 192.0.2.0/24",
                "trust: 2001:db8::5/64 means the whole network 2001:db8::/64: write 2001:db8::5 if only this address is to be \
                 trusted, else 2001:db8::/64"
            ]
        );
        let given = Given::parse_file("\n192.0.2.10/24\n").unwrap();
        assert!(given.warnings[0].starts_with("trust_file line 2: 192.0.2.10/24 means"));
    }
}
