//! Two ipsets, `NAME-v4` and `NAME-v6`, for rules that the operator has made: `ipset restore` fills a set
//! aside and swaps it in. The rules never meet an empty one.
//!
//! Entries have timeouts, so the kernel ends bans by itself. For the program only: the module starts no other
//! program.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{Change, Element, Error, Facts, Firewall, Report, Scope};

/// Longest timeout of an ipset, in seconds: the kernel counts milliseconds in 31 bits.
pub const LONGEST: u32 = 2_147_483;
/// Timeout of an entry that is added by hand: what APIBAN keeps an address for.
pub const DEFAULT_TIMEOUT: u32 = 604_800;
/// Room in each set. Sets can be swapped only if they were made alike, so it is the same for any list.
pub const ROOM: usize = 1_048_576;

/// What this backend can do.
pub const FACTS: Facts = Facts {
    name: "ipset",
    ends_bans_itself: true,
    is_limited: false,
    scopes_by_port: false,
    knows_what_it_holds: true,
    default_scope: Scope::All,
};

/// The sets of one name.
pub struct Ipset {
    name: String,
}

impl Ipset {
    /// `name` has at most 24 characters, since the kernel allows 31 and `-v4-new` is appended.
    pub fn new(name: &str) -> Self {
        Ipset {
            name: name.to_owned(),
        }
    }

    /// The commands that make both sets exist.
    fn create(&self) -> String {
        let mut text = String::new();
        for (suffix, inet) in [("v4", "inet"), ("v6", "inet6")] {
            let name = format!("{}-{suffix}", self.name);
            create(&mut text, &name, inet);
        }
        text
    }

    fn set_of(&self, element: &super::Change) -> String {
        let suffix = if element.subnet().is_v4() { "v4" } else { "v6" };
        format!("{}-{suffix}", self.name)
    }
}

/// The command that makes one set exist.
pub fn create(text: &mut String, name: &str, inet: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "create {name} hash:net family {inet} hashsize 4096 maxelem {ROOM} timeout {DEFAULT_TIMEOUT} -exist"
    );
}

/// The commands that replace what both sets hold by these entries and the seconds that each has left.
pub fn replace<'a>(
    name: &str,
    entries: impl Iterator<Item = (&'a crate::address::Subnet, u32)> + Clone,
) -> String {
    let mut text = String::new();
    for (v4, suffix, inet) in [(true, "v4", "inet"), (false, "v6", "inet6")] {
        let set = format!("{name}-{suffix}");
        create(&mut text, &set, inet);
        create(&mut text, &format!("{set}-new"), inet);
        let _ = writeln!(text, "flush {set}-new");
        for (subnet, left) in entries.clone().filter(|(subnet, _)| subnet.is_v4() == v4) {
            let left = left.clamp(1, LONGEST);
            let _ = writeln!(text, "add {set}-new {subnet} timeout {left} -exist");
        }
        let _ = writeln!(text, "swap {set}-new {set}\ndestroy {set}-new");
    }
    text
}

/// Runs `ipset restore` with these commands.
fn restore(commands: &str) -> Result<(), Error> {
    let mut child = Command::new("ipset")
        .arg("restore")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(&error))?;
    let written = child
        .stdin
        .take()
        .map(|mut input| input.write_all(commands.as_bytes()));
    let output = child
        .wait_with_output()
        .map_err(|error| Error::Transient(format!("ipset: {error}")))?;
    match written {
        _ if !output.status.success() => Err(explain(&output.stderr)),
        Some(Err(error)) => Err(Error::Transient(format!("ipset: {error}"))),
        _ => Ok(()),
    }
}

fn not_started(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Unsupported("ipset: the program ipset is not installed".into())
        }
        _ => Error::Transient(format!("ipset: it cannot be started: {error}")),
    }
}

fn explain(stderr: &[u8]) -> Error {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().next().unwrap_or_default().trim().to_owned();
    if line.contains("Operation not permitted") {
        Error::Permission("ipset")
    } else if line.contains("already exists") {
        Error::Unsupported(format!(
            "{line}: a set of this name is of another kind; set ipset_name to another name"
        ))
    } else {
        Error::Transient(line)
    }
}

impl Firewall for Ipset {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn reset(&mut self) -> Result<(), Error> {
        restore(&replace(&self.name, std::iter::empty()))
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        let mut text = self.create();
        for change in changes {
            let set = self.set_of(change);
            let _ = match change {
                Change::Add(element) if element.seconds_left > 0 => writeln!(
                    text,
                    "add {set} {} timeout {} -exist",
                    element.subnet,
                    element.seconds_left.min(LONGEST)
                ),
                change => writeln!(text, "del {set} {} -exist", change.subnet()),
            };
        }
        restore(&text)
    }

    fn reconcile(&mut self, wanted: &[Element]) -> Result<Vec<Change>, Error> {
        let live = wanted.iter().filter(|element| element.seconds_left > 0);
        let entries = live.map(|element| (&element.subnet, element.seconds_left));
        restore(&replace(&self.name, entries))?;
        Ok(Vec::new())
    }

    fn probe(&mut self) -> Result<(), Error> {
        restore(&self.create())
    }

    fn intact(&mut self) -> Result<bool, Error> {
        // Looking would start a program every second: what others do to the sets is not noticed.
        Ok(true)
    }

    fn report(&mut self) -> Result<Report, Error> {
        // The rules are the operator's, and so are their counters.
        Ok(Report::default())
    }

    fn remove(&mut self) -> Result<(), Error> {
        let mut text = self.create();
        for suffix in ["v4", "v6"] {
            let _ = writeln!(text, "flush {}-{suffix}", self.name);
        }
        restore(&text)?;
        for suffix in ["v4", "v6"] {
            // A set that a rule still names stays, empty; the rule is the operator's.
            let _ = restore(&format!("destroy {}-{suffix}\n", self.name));
        }
        Ok(())
    }

    fn batch_size(&self) -> usize {
        10_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_program_in_our_terms() {
        let denied = b"ipset v7.17: Kernel error received: Operation not permitted\n";
        assert!(matches!(explain(denied), Error::Permission("ipset")));
        let other = b"ipset v7.17: Error in line 1: Set cannot be created: set with the same name already exists\n";
        assert!(matches!(explain(other), Error::Unsupported(_)));
        assert!(matches!(explain(b"anything"), Error::Transient(_)));
    }

    #[test]
    fn both_families_are_swapped() {
        let subnets = [
            "192.0.2.1".parse().unwrap(),
            "2001:db8::/64".parse().unwrap(),
        ];
        let text = replace("a", subnets.iter().map(|subnet| (subnet, u32::MAX)));
        assert!(text.contains(
            "flush a-v4-new\nadd a-v4-new 192.0.2.1 timeout 2147483 -exist\nswap a-v4-new a-v4\n"
        ));
        assert!(text
            .contains("flush a-v6-new\nadd a-v6-new 2001:db8::/64 timeout 2147483 -exist\nswap"));
    }
}
