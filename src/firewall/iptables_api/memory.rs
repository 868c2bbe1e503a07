//! What was put into a chain that nobody can list, remembered over restarts.
//!
//! A text file: the first line names the daemon, then `+ADDRESS` before an address is added and `-ADDRESS`
//! after it was removed. A crash between two lines leaves an address too many in the file, never one too few.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// First words of the file; the URL of the daemon follows.
const MAGIC: &str = "apiban iptables-api 1 ";
/// Lines that say nothing any more and are kept: rewriting costs more than they do.
const SPARE_LINES: usize = 1_000;

/// The file of one chain. It is opened when the first line is written.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    header: String,
    file: Option<File>,
    /// Lines in the file after the first.
    lines: usize,
}

impl Memory {
    /// Reads what was remembered for the daemon at `url`; nothing if the file is missing or of another daemon.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is of another kind.
    pub fn open(path: &Path, url: &str) -> io::Result<(Self, BTreeSet<IpAddr>)> {
        let header = format!("{MAGIC}{url}\n");
        let mut memory = Memory {
            path: path.to_owned(),
            header,
            file: None,
            lines: 0,
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((memory, BTreeSet::new()))
            }
            Err(error) => return Err(error),
        };
        let Some(lines) = text.strip_prefix(&memory.header) else {
            let text = match text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix(MAGIC))
            {
                Some(other) => format!("it is about the chain of {other}"),
                None => "it is no memory of a chain".to_owned(),
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        let mut held = BTreeSet::new();
        // A last line without its end was cut off by a crash.
        for line in lines
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
        {
            memory.lines += 1;
            let address = |text: &str| text.parse::<IpAddr>().ok();
            if let Some(ip) = line.strip_prefix('+').and_then(address) {
                held.insert(ip);
            } else if let Some(ip) = line.strip_prefix('-').and_then(address) {
                held.remove(&ip);
            }
        }
        if memory.is_long(held.len()) || !text.ends_with('\n') {
            memory.rewrite(held.iter())?;
        }
        Ok((memory, held))
    }

    /// Notes addresses that are about to be added.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn adding(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        self.append('+', addresses)
    }

    /// Notes addresses that are no longer in the chain.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn removed(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        self.append('-', addresses)
    }

    /// Forgets everything: the chain was emptied.
    ///
    /// # Errors
    /// The file is there and cannot be removed.
    pub fn clear(&mut self) -> io::Result<()> {
        (self.file, self.lines) = (None, 0);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// True if the file has far more lines than the addresses held need: it is worth writing anew.
    pub fn is_long(&self, held: usize) -> bool {
        self.lines > held + held.max(SPARE_LINES)
    }

    fn append(&mut self, sign: char, addresses: &[IpAddr]) -> io::Result<()> {
        if addresses.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for ip in addresses {
            text.push_str(&format!("{sign}{ip}\n"));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut options = OpenOptions::new();
                let file = options
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .open(&self.path)?;
                if file.metadata()?.len() == 0 {
                    text.insert_str(0, &self.header);
                }
                none.insert(file)
            }
        };
        self.lines += addresses.len();
        file.write_all(text.as_bytes())
    }

    /// Replaces the file by one line for each address that is held.
    ///
    /// # Errors
    /// The file cannot be written; it is left as it was.
    pub fn rewrite<'a>(&mut self, held: impl Iterator<Item = &'a IpAddr>) -> io::Result<()> {
        let mut text = self.header.clone();
        let mut lines = 0;
        for ip in held {
            text.push_str(&format!("+{ip}\n"));
            lines += 1;
        }
        let mut aside = self.path.as_os_str().to_owned();
        aside.push(format!(".new-{}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&aside, &self.path));
        match &written {
            // The old file is another one now.
            Ok(()) => (self.file, self.lines) = (None, lines),
            Err(_) => drop(fs::remove_file(&aside)),
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://127.0.0.1:8082";

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_was_added_and_not_removed_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let (mut memory, held) = Memory::open(&path, URL).unwrap();
        assert!(held.is_empty());
        memory
            .adding(&ips(&["192.0.2.1", "192.0.2.17", "2001:db8::7"]))
            .unwrap();
        memory.removed(&ips(&["192.0.2.1"])).unwrap();
        let (mut memory, held) = Memory::open(&path, URL).unwrap();
        assert_eq!(Vec::from_iter(held), ips(&["192.0.2.17", "2001:db8::7"]));
        // A crash in the middle of a line, of which the start would be another address.
        memory.adding(&ips(&["192.0.2.18"])).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 2]).unwrap();
        let (mut memory, held) = Memory::open(&path, URL).unwrap();
        assert_eq!(Vec::from_iter(held), ips(&["192.0.2.17", "2001:db8::7"]));
        // The next line does not begin in the one that was cut off.
        memory.adding(&ips(&["192.0.2.19"])).unwrap();
        assert_eq!(Memory::open(&path, URL).unwrap().1.len(), 3);
        memory.clear().unwrap();
        memory.clear().unwrap();
        assert!(Memory::open(&path, URL).unwrap().1.is_empty());
    }

    #[test]
    fn lines_that_say_nothing_any_more_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let (mut memory, _) = Memory::open(&path, URL).unwrap();
        for n in 0..600u32 {
            let ip = [IpAddr::from(n.to_be_bytes())];
            memory.adding(&ip).unwrap();
            memory.removed(&ip).unwrap();
        }
        memory.adding(&ips(&["192.0.2.1"])).unwrap();
        assert!(memory.is_long(1));
        assert_eq!(Memory::open(&path, URL).unwrap().1.len(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        // In the middle of a run, too.
        let held = ips(&["192.0.2.1", "192.0.2.2"]);
        memory.rewrite(held.iter()).unwrap();
        assert!(!memory.is_long(2));
        memory.removed(&held[..1]).unwrap();
        let (_, known) = Memory::open(&path, URL).unwrap();
        assert_eq!(Vec::from_iter(known), held[1..]);
    }

    #[test]
    fn another_daemons_memory_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let (mut memory, _) = Memory::open(&path, URL).unwrap();
        memory.adding(&ips(&["192.0.2.1"])).unwrap();
        let other = Memory::open(&path, "http://127.0.0.1:9").unwrap_err();
        assert!(other.to_string().contains(URL), "{other}");
        assert_eq!(Memory::open(&path, URL).unwrap().1.len(), 1);
        fs::write(&path, "something else\n").unwrap();
        assert!(Memory::open(&path, URL).is_err());
    }
}
