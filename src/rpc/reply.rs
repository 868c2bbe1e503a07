//! What commands answer, and what they refuse with.

use std::fmt;

use crate::quote::foreign;

/// A value in a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number; sent as text if it does not fit 32 bits: not all transports carry more.
    Number(u64),
    /// Names with values, in order.
    Struct(Fields),
}

/// Names with values, in order.
pub type Fields = Vec<(&'static str, Value)>;

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// One line.
    Text(String),
    /// One structure.
    Struct(Fields),
    /// Any number of structures.
    List(Vec<Fields>),
}

/// What a command refuses with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// 400 bad argument, 403 trusted, 404 not banned, 500 a file cannot be used, 507 full.
    pub code: i32,
    /// What is wrong, the argument named.
    pub text: String,
}

impl Fault {
    /// A bad argument.
    pub fn argument(name: &str, problem: impl fmt::Display) -> Self {
        Fault {
            code: 400,
            text: format!("{name}: {problem}"),
        }
    }
}

/// Foreign text in a fault: bounded, and without what could break a line.
pub fn crop(text: &str) -> String {
    crop_to(text, 64)
}

/// The same with another limit, in characters.
pub fn crop_to(text: &str, limit: usize) -> String {
    foreign(text, limit).to_string()
}

/// A field.
pub fn text(name: &'static str, value: impl Into<String>) -> (&'static str, Value) {
    (name, Value::Text(value.into()))
}

/// A field.
pub fn number(name: &'static str, value: impl Into<u64>) -> (&'static str, Value) {
    (name, Value::Number(value.into()))
}
