//! The ports that a firewall restricts itself to.

use std::fmt;

use crate::quote::foreign;

/// Most ranges in a list: more are a mistake, and the text must stay readable.
const MOST_RANGES: usize = 64;

/// What the parameter `firewall_ports` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PortChoice {
    /// All traffic of a banned source, whatever the protocol.
    #[default]
    All,
    /// The ports that this Kamailio listens on.
    Sip,
    /// These.
    List(Ports),
}

impl PortChoice {
    /// Reads `all`, `sip`, or a list of ports and ranges.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(PortChoice::All),
            "sip" => Ok(PortChoice::Sip),
            list => Ports::parse(list).map(PortChoice::List),
        }
    }
}

/// UDP and TCP ports: disjoint ranges in order, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// Of ranges in any order, first and last port each; `None` if there is no port.
    pub fn of(mut ranges: Vec<(u16, u16)>) -> Option<Self> {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if u32::from(first) <= u32::from(before.1) + 1 => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        (!merged.is_empty()).then_some(Ports(merged))
    }

    /// Reads ports and ranges separated by commas, such as `5060,5061,10000-20000`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("holds \"{}\", which is no port", brief(text))),
        };
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let range = match part.split_once('-') {
                Some((first, last)) => (port(first)?, port(last)?),
                None => (port(part)?, port(part)?),
            };
            if range.0 > range.1 {
                return Err(format!(
                    "holds \"{}\", which ends before it begins",
                    brief(part)
                ));
            }
            ranges.push(range);
        }
        if ranges.len() > MOST_RANGES {
            return Err(format!("has more than {MOST_RANGES} ports and ranges"));
        }
        Ports::of(ranges).ok_or_else(|| "is empty".to_owned())
    }

    /// First and last port of each range.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// A piece of the given text for a message.
fn brief(text: &str) -> String {
    foreign(text.trim(), 20).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_merged() {
        let shown = |text: &str| Ports::parse(text).map(|ports| ports.to_string());
        assert_eq!(shown("5060").unwrap(), "5060");
        assert_eq!(
            shown("5061, 5060,10000-20000").unwrap(),
            "5060-5061,10000-20000"
        );
        assert_eq!(shown("1-65535,7").unwrap(), "1-65535");
        assert_eq!(shown("65535,65534").unwrap(), "65534-65535");
        for bad in [
            "",
            "0",
            "65536",
            "5060,",
            "a",
            "7-6",
            "5060-",
            "-1",
            "5060;5061",
        ] {
            assert!(shown(bad).is_err(), "{bad}");
        }
        let long: Vec<_> = (1..200).map(|n| (n * 3).to_string()).collect();
        assert!(shown(&long.join(",")).unwrap_err().contains("more than 64"));
    }

    #[test]
    fn words_and_lists() {
        assert_eq!(PortChoice::parse("all"), Ok(PortChoice::All));
        assert_eq!(PortChoice::parse("sip"), Ok(PortChoice::Sip));
        assert!(matches!(PortChoice::parse("5060"), Ok(PortChoice::List(_))));
        assert!(PortChoice::parse("ssh").is_err());
    }
}
