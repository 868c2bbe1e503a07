//! `examples/clients/cisco-asa` and `junos`: what a device has after each run, from the service to the device.

use std::fs;
use std::path::Path;

use apiban_testing::feed_server::{Fault, FeedServer};

use super::clients::Examples;
use super::fetching::{fetching, service};
use super::program::Ran;

/// A device behind stand-ins for ssh and scp, and the script that keeps its list.
struct Device {
    examples: Examples,
    service: FeedServer,
    script: &'static str,
    host: &'static str,
}

impl Device {
    fn of(script: &'static str, host: &'static str) -> Device {
        let service = service();
        let examples = Examples::of(fetching(&service, ""));
        let folder = examples.file("device");
        fs::create_dir(&folder).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/device.py");
        for command in ["ssh", "scp"] {
            let (program, folder) = (program.display(), folder.display());
            let line = format!("exec python3 {program} {folder} {command} \"$@\"");
            examples.command(command, &line);
        }
        Device {
            examples,
            service,
            script,
            host,
        }
    }

    /// Fetches the whole list, as cron does, and then lets the script run.
    fn run(&self) -> Ran {
        self.examples.program.run(&["sync", "--full"]);
        let kept = self.examples.file("kept").display().to_string();
        self.examples.run(self.script, &[self.host, &kept])
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.examples.file("device").join(name)
    }

    /// From now on it has this file; see the head of the device.
    fn set(&self, name: &str, content: &str) {
        fs::write(self.file(name), content).unwrap();
    }

    fn unset(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    fn members(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file("running")).unwrap_or_default();
        let mut members: Vec<String> = text.lines().map(str::to_owned).collect();
        members.sort();
        members
    }
}

/// Addresses of which no two make a prefix.
fn apart() -> Vec<String> {
    let addresses = (0..300).map(|n| format!("20.0.{}.{}", n / 100, n % 100 * 2 + 1));
    addresses.collect()
}

/// What all of them do, whatever the device is.
fn follows(device: &Device) {
    device.service.list(&["192.0.2.7", "203.0.113.5"]);
    device.service.list(&["198.51.100.0/24", "2001:db8::7"]);
    device.run().ok();
    let first = [
        "192.0.2.7/32",
        "198.51.100.0/24",
        "2001:db8::7/128",
        "203.0.113.5/32",
    ];
    assert_eq!(device.members(), first);

    device.service.delist(&["192.0.2.7", "2001:db8::7"]);
    device.service.list(&["203.0.113.200", "2001:db8::8"]);
    device.run().ok();
    let second = [
        "198.51.100.0/24",
        "2001:db8::8/128",
        "203.0.113.200/32",
        "203.0.113.5/32",
    ];
    assert_eq!(device.members(), second);

    // The service is down: nothing changes.
    device.service.set_fault(Fault::Status(503, None), None);
    device.run().ok();
    assert_eq!(device.members(), second);
    device.service.clear_faults();

    // The device is away: what it missed it gets at the next run, though nothing is new then.
    device.service.delist(&["203.0.113.5"]);
    device.set("away", "");
    assert_ne!(device.run().code, 0);
    assert_eq!(device.members(), second);
    device.unset("away");
    device.run().ok();
    let third = ["198.51.100.0/24", "2001:db8::8/128", "203.0.113.200/32"];
    assert_eq!(device.members(), third);

    // A list that is suspiciously short is not for the device, even if somebody made the program believe it.
    device.service.list(&apart());
    device.run().ok();
    let whole = device.members();
    device.service.delist(&apart());
    device.examples.program.run(&["sync", "--force"]).ok();
    let short = device.run();
    assert_eq!(short.code, 3, "{short:?}");
    assert_eq!(device.members(), whole);
}

#[test]
fn the_group_of_a_cisco_asa_is_the_list_after_each_run() {
    let device = Device::of("cisco-asa", "admin@firewall");
    follows(&device);
    assert!(!device.file("said").exists(), "it refused nothing");

    // A restart of the device brings back what was saved, and that is all of it.
    let before = device.members();
    fs::copy(device.file("startup"), device.file("running")).unwrap();
    assert_eq!(device.members(), before);

    // The connection ends in the middle. The next run sends the rest; the device complains of the first part.
    device.service.list(&apart());
    device
        .service
        .list(&["192.0.2.17", "192.0.2.19", "192.0.2.21"]);
    device.set("cut", "3\n");
    assert_ne!(device.run().code, 0);
    assert_ne!(device.members(), before);
    device.unset("cut");
    device.run().ok();
    let mut wanted = before;
    wanted.extend(["192.0.2.17/32", "192.0.2.19/32", "192.0.2.21/32"].map(String::from));
    wanted.sort();
    assert_eq!(device.members(), wanted);
    let said = fs::read_to_string(device.file("said")).unwrap();
    assert_eq!(said.matches("already exists").count(), 1, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn the_prefix_list_of_a_junos_router_is_the_list_after_each_run() {
    follows(&Device::of("junos", "admin@router"));
}
