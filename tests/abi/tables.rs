//! The tables that `tests/abi/extract` made from Kamailio's own headers.

use std::collections::BTreeMap;
use std::fs;

use crate::manifest_dir;

/// All supported releases, on each supported machine; without a machine: x86_64.
pub const RELEASES: [&str; 6] = [
    "5.6.3",
    "5.6.3-aarch64",
    "6.0.1",
    "6.0.1-aarch64",
    "6.1.4",
    "6.1.4-aarch64",
];

/// What `tests/abi/extract` printed for one release on one machine.
pub struct Table {
    /// The release, and the machine as in `RELEASES`.
    pub release: String,
    pub sizes: BTreeMap<String, usize>,
    pub members: BTreeMap<(String, String), (usize, usize)>,
    pub constants: BTreeMap<String, u64>,
}

pub fn table_text(release: &str) -> String {
    let path = manifest_dir().join(format!("tests/abi/kamailio-{release}.txt"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn table(release: &str) -> Table {
    let mut table = Table {
        release: release.into(),
        sizes: BTreeMap::new(),
        members: BTreeMap::new(),
        constants: BTreeMap::new(),
    };
    let text = table_text(release);
    let mut lines = text.lines();
    let (number, machine) = release.split_once('-').unwrap_or((release, "x86_64"));
    assert!(
        text.starts_with(&format!("# Kamailio {number}, {machine},")),
        "kamailio-{release}.txt is of another release or machine"
    );
    lines.next();
    for line in lines {
        parse_line(&mut table, line).unwrap_or_else(|| panic!("{release}: not understood: {line}"));
    }
    table
}

fn parse_line(table: &mut Table, line: &str) -> Option<()> {
    let in_brackets = |text: &str| Some(text.strip_prefix('(')?.strip_suffix(')')?.to_owned());
    let (kind, rest) = line.split_once(' ')?;
    let mut words: Vec<&str> = rest.split_whitespace().collect();
    match kind {
        "sizeof" => {
            let size = words.pop()?.parse().ok()?;
            table.sizes.insert(words.join(" "), size);
        }
        "off" => {
            let size = in_brackets(words.pop()?)?.parse().ok()?;
            let offset = words.pop()?.parse().ok()?;
            let member = words.pop()?.to_owned();
            table
                .members
                .insert((words.join(" "), member), (offset, size));
        }
        "val" => {
            let hexadecimal = in_brackets(words.pop()?)?;
            let value = u64::from_str_radix(hexadecimal.strip_prefix("0x")?, 16).ok()?;
            words.pop()?;
            table.constants.insert(words.join(" "), value);
        }
        _ => return None,
    }
    Some(())
}
