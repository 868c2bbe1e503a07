//! The file that is written: as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::address::Subnet;
use crate::cli::exit::Failure;
use crate::quote::plain;

/// Permissions of a new file: a list is no secret, and a web server has to read it.
const MODE: u32 = 0o644;

/// How many addresses and prefixes a file of any format holds; 0 if it cannot be read.
pub fn entries_in(path: &Path) -> usize {
    let Ok(found) = fs::metadata(path) else {
        return 0;
    };
    if !found.is_file() {
        return 0;
    }
    let bytes = fs::read(path).unwrap_or_default();
    bytes.split(|byte| *byte == b'\n').map(addresses_in).sum()
}

/// True for the bytes of which addresses are made. A table, because the file may be large and every byte of it is looked up.
const PART_OF_ADDRESS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        let character = byte as u8;
        table[byte] = character.is_ascii_hexdigit() || matches!(character, b'.' | b':' | b'/');
        byte += 1;
    }
    table
};

/// The addresses of a line, at most one for each that is not a network mask.
fn addresses_in(line: &[u8]) -> usize {
    let words = line
        .split(|byte| !PART_OF_ADDRESS[usize::from(*byte)])
        .filter(|word| is_banned(word));
    let (mut count, mut last) = (0, &line[..0]);
    for word in words {
        count += 1;
        last = word;
    }
    // NETWORK MASK: the mask is none that could be banned, for it begins with 255.
    if count == 2 && last.starts_with(b"255.") {
        1
    } else {
        count
    }
}

/// True for an address or prefix that a list may hold. A lone number or word of hexadecimal digits is not one.
fn is_banned(word: &[u8]) -> bool {
    // The shortest is "::".
    if word.len() < 2 {
        return false;
    }
    let colons = || word.iter().filter(|byte| **byte == b':').count();
    let written_as_one =
        word.contains(&b'.') || colons() == 7 || word.windows(2).any(|two| two == b"::");
    written_as_one
        && std::str::from_utf8(word).is_ok_and(|word| {
            word.parse::<Subnet>()
                .is_ok_and(|subnet| subnet.never_bannable().is_none())
        })
}

/// Writes aside, synchronises, renames. What is there stays until then, and stays if anything fails.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let problem = |error: io::Error| {
        Failure::trouble(format!(
            "{}: {}; nothing was written, what was there is untouched",
            path.display(),
            plain(&error)
        ))
    };
    let found = fs::metadata(path).ok();
    if let Some(other) = found.as_ref().filter(|found| !found.is_file()) {
        if other.is_dir() {
            return Err(problem(io::ErrorKind::IsADirectory.into()));
        }
        // A pipe or a device is written to, never replaced.
        let written = OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(content));
        return written.map_err(problem);
    }
    // What a link points to is replaced, not the link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let aside = beside(&target);
    let mode = found.map_or(MODE, |found| found.mode() & 0o777);
    let written = write_aside(&aside, content, mode).and_then(|()| fs::rename(&aside, &target));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written.map_err(problem)
}

fn write_aside(aside: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(aside)?;
    file.write_all(content)?;
    // Not what the umask made of it: a web server may have to read it, as it could before.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// A hidden name of this process in the same directory, so that two exports never meet.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_every_format_are_counted() {
        for (line, count) in [
            ("192.0.2.1", 1),
            (" 192.0.2.1 timeout 604800s,", 1),
            (" network-object 192.0.2.0 255.255.255.0", 1),
            (
                "{\"ip\":\"2001:db8::1\",\"source\":\"feed\",\"since\":1,\"until\":2},",
                1,
            ),
            ("add apiban-v6-new 2001:db8::/64 timeout 1 -exist", 1),
            (
                "fail2ban-client set apiban banip 192.0.2.1 192.0.2.2 198.51.100.0/24",
                3,
            ),
            ("    <node type=\"deny\" cidr=\"2001:db8::1/128\"/>", 1),
            ("object-group network apiban", 0),
            ("    default 0;", 0),
            ("create apiban-v4 hash:net family inet hashsize 4096", 0),
            ("1 192.0.2.1 32 0 apiban", 1),
        ] {
            assert_eq!(addresses_in(line.as_bytes()), count, "{line}");
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        replace(&path, b"one\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let error = replace(folder.path(), b"").unwrap_err();
        assert!(!error.text().unwrap().contains("os error"), "{error:?}");
    }
}
