//! Why an address is trusted.

use std::fmt;

use crate::address::Subnet;
use crate::table::Value;

/// Where a trust rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The parameter `trust`.
    Parameter,
    /// This line of the file that `trust_file` names, counted from 1.
    File(u32),
    /// An operator, by the command `apiban.trust_add`.
    Lent,
    /// Loopback, by `trust_self`.
    Loopback,
    /// An address of this Kamailio, by `trust_self`.
    Own,
    /// A node that the operator configured for the dmq module, by `trust_dmq`.
    Dmq,
    /// A node that the cluster has authenticated, by `trust_dmq`.
    Member,
    /// A destination of the dispatcher module, by `trust_dispatcher`.
    Dispatcher,
}

impl Rule {
    /// True if the rule also trusts an IPv4 host that comes through a NAT64 translator. Loopback never does.
    pub fn counts_behind_translator(self) -> bool {
        self != Rule::Loopback
    }

    /// True if the module found the address by itself.
    pub fn is_automatic(self) -> bool {
        !matches!(self, Rule::Parameter | Rule::File(_) | Rule::Lent)
    }
}

/// The kind in the low four bits, the line of the file above them.
impl Value for Rule {
    fn into_number(self) -> u32 {
        match self {
            Rule::Parameter => 1,
            Rule::File(line) => 2 | line << 4,
            Rule::Loopback => 3,
            Rule::Own => 4,
            Rule::Dmq => 5,
            Rule::Dispatcher => 6,
            Rule::Member => 7,
            Rule::Lent => 8,
        }
    }

    fn from_number(number: u32) -> Self {
        match number & 15 {
            2 => Rule::File(number >> 4),
            3 => Rule::Loopback,
            4 => Rule::Own,
            5 => Rule::Dmq,
            6 => Rule::Dispatcher,
            7 => Rule::Member,
            8 => Rule::Lent,
            _ => Rule::Parameter,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Parameter => f.write_str("trust"),
            Rule::File(line) => write!(f, "trust_file line {line}"),
            Rule::Lent => f.write_str("trust_add"),
            Rule::Loopback => f.write_str("trust_self: loopback"),
            Rule::Own => f.write_str("trust_self: own address"),
            Rule::Dmq => f.write_str("trust_dmq"),
            Rule::Member => f.write_str("trust_dmq: member of the cluster"),
            Rule::Dispatcher => f.write_str("trust_dispatcher"),
        }
    }
}

/// One rule and what it covers.
pub type Trusted = (Subnet, Rule);
