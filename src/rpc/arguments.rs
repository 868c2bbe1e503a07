//! The arguments of a command.

use std::ops::RangeInclusive;

use super::{crop, Fault};

/// The arguments as they came, all of them text: the transports disagree on what is a number.
#[derive(Clone, Debug, Default)]
pub struct Arguments(pub Vec<String>);

impl Arguments {
    /// The argument at `index`; an empty one counts as absent.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0
            .get(index)
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
    }

    /// The argument at `index`, or a fault that names it.
    pub fn required(&self, index: usize, name: &str) -> Result<&str, Fault> {
        self.get(index)
            .ok_or_else(|| Fault::argument(name, "missing"))
    }

    /// A number, or `default` if it is absent.
    pub fn number(
        &self,
        index: usize,
        name: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, Fault> {
        let Some(text) = self.get(index) else {
            return Ok(default);
        };
        match text.parse::<u64>() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(Fault::argument(
                name,
                format_args!(
                    "\"{}\" is not a number from {} to {}",
                    crop(text),
                    range.start(),
                    range.end()
                ),
            )),
        }
    }
}
