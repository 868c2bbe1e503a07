//! The JSON of an answer, read in one pass with its limits.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::address::Subnet;
use crate::feed::control_id::ControlId;
use crate::quote::foreign;

use super::MAX_ADDRESSES;

/// Longest foreign text quoted, in characters.
const MAX_QUOTE: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Body {
    /// True if `ipaddress` is there at all.
    pub has_items: bool,
    pub addresses: Vec<Subnet>,
    pub skipped: usize,
    pub example: Option<String>,
    pub nothing_newer: bool,
    pub rate_limited: bool,
    pub id: Id,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Id {
    #[default]
    Missing,
    None,
    Unauthorized,
    Digits(ControlId),
    Bad,
}

/// Reads the body, or says in a few words why it cannot.
pub(super) fn read(bytes: &[u8]) -> Result<Body, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("empty body".to_owned());
    }
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        // Our own words: serde_json's would quote the body.
        serde_json::error::Category::Eof => "truncated JSON".to_owned(),
        serde_json::error::Category::Data => {
            "JSON of another shape, or more than 10,000 addresses".to_owned()
        }
        _ => "not JSON".to_owned(),
    })
}

impl Body {
    fn take(&mut self, item: Item) -> bool {
        match item {
            Item::Address(subnet) => self.addresses.push(subnet),
            Item::NothingNewer => self.nothing_newer = true,
            Item::RateLimited => self.rate_limited = true,
            Item::None => {}
            Item::Other(text) => {
                self.skipped += 1;
                self.example.get_or_insert(text);
            }
        }
        self.addresses.len() + self.skipped <= MAX_ADDRESSES
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BodyVisitor;

        impl<'de> Visitor<'de> for BodyVisitor {
            type Value = Body;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
                let mut body = Body::default();
                while let Some(name) = map.next_key::<Text>()? {
                    match name.0.as_str() {
                        "ipaddress" if body.has_items => {
                            return Err(de::Error::duplicate_field("ipaddress"))
                        }
                        "ipaddress" => {
                            body.has_items = true;
                            map.next_value_seed(Items(&mut body))?;
                        }
                        "ID" | "id" => body.id = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(body)
            }
        }

        deserializer.deserialize_map(BodyVisitor)
    }
}

/// A member's name, cut to a length that none of the names we know has.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl Visitor<'_> for TextVisitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.chars().take(MAX_QUOTE).collect()))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// The array of addresses, or the one string that may stand for it.
struct Items<'a>(&'a mut Body);

impl<'de> de::DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of at most 10,000 addresses, or a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.take(Item::from_text(text));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.has_items = false;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<Item>()? {
            if !self.0.take(item) {
                return Err(de::Error::custom("too many addresses"));
            }
        }
        Ok(())
    }
}

enum Item {
    Address(Subnet),
    NothingNewer,
    RateLimited,
    None,
    Other(String),
}

impl Item {
    fn from_text(text: &str) -> Item {
        let text = text.trim();
        if let Ok(subnet) = text.parse() {
            return Item::Address(subnet);
        }
        if text.eq_ignore_ascii_case("no new bans") {
            Item::NothingNewer
        } else if text.eq_ignore_ascii_case("rate limit exceeded") {
            Item::RateLimited
        } else if text.eq_ignore_ascii_case("none") {
            Item::None
        } else {
            Item::Other(foreign(text, MAX_QUOTE).to_string())
        }
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor(Item::from_text, || {
            Item::Other("not a string".to_owned())
        }))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let from_text = |text: &str| match text.trim() {
            none if none.is_empty() || none.eq_ignore_ascii_case("none") => Id::None,
            no if no.eq_ignore_ascii_case("unauthorized") => Id::Unauthorized,
            digits => ControlId::new(digits).map_or(Id::Bad, Id::Digits),
        };
        deserializer.deserialize_any(AnyVisitor(from_text, || Id::Bad))
    }
}

/// Takes any JSON value: text and whole numbers by the first function, all else by the second.
struct AnyVisitor<F, G>(F, G);

impl<'de, T, F: FnOnce(&str) -> T, G: FnOnce() -> T> Visitor<'de> for AnyVisitor<F, G> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok((self.0)(&number.to_string()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok((self.1)())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok((self.1)())
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok((self.1)())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok((self.1)())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<T, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok((self.1)())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok((self.1)())
    }
}
