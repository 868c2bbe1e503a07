//! What the script of Kamailio can call and read: the functions, in the native script and in KEMI, and `$apiban(name)`.

use crate::shared::events::Event;

/// What a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Looks an address up.
    Check,
    /// Bans it.
    Block,
    /// Lifts its ban.
    Unblock,
}

/// One function. Without arguments it acts on the source of the packet; arguments can be left out, the last first.
#[derive(Debug)]
pub struct Function {
    /// What it does.
    pub action: Action,
    /// Its name in the native script.
    pub name: &'static str,
    /// Its arguments, in order.
    pub arguments: &'static [Argument],
    /// Its names in KEMI, behind `KSR.apiban.`: one for each number of arguments, from none to all.
    pub kemi: &'static [&'static str],
}

/// An argument of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// The address to act on: text.
    Ip,
    /// How long to ban, in seconds: a number in KEMI, text in the native script.
    Ttl,
    /// Why: text.
    Reason,
}

impl Argument {
    /// Its name in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Argument::Ip => "ip",
            Argument::Ttl => "ttl",
            Argument::Reason => "reason",
        }
    }
}

/// Every function.
pub const FUNCTIONS: &[Function] = &[
    Function {
        action: Action::Check,
        name: "apiban_check",
        arguments: &[Argument::Ip],
        kemi: &["check", "check_ip"],
    },
    Function {
        action: Action::Block,
        name: "apiban_block",
        arguments: &[Argument::Ip, Argument::Ttl, Argument::Reason],
        kemi: &["block", "block_ip", "block_ip_ttl", "block_ip_reason"],
    },
    Function {
        action: Action::Unblock,
        name: "apiban_unblock",
        arguments: &[Argument::Ip],
        kemi: &["unblock", "unblock_ip"],
    },
];

/// A name in `$apiban(name)`.
pub struct Variable {
    /// The name.
    pub name: &'static str,
    /// Its value in the route of this event.
    pub read: fn(&Event) -> Value<'_>,
}

/// The value of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text.
    Text(&'a str),
    /// A number.
    Number(u32),
}

/// Every name, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "ip",
        read: |event| Value::Text(&event.ip),
    },
    Variable {
        name: "source",
        read: |event| Value::Text(event.origin.name()),
    },
    Variable {
        name: "reason",
        read: |event| Value::Text(&event.reason),
    },
    Variable {
        name: "count",
        read: |event| Value::Number(event.count),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_one_name_in_kemi_for_each_number_of_arguments() {
        for function in FUNCTIONS {
            let forms = function.arguments.len() + 1;
            assert_eq!(function.kemi.len(), forms, "{}", function.name);
        }
    }
}
