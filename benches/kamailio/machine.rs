//! What the figures were measured on and with.

use std::fs;
use std::process::Command;

/// Lines for the head of the report.
pub fn describe() -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let model = field(&cpuinfo, "model name").unwrap_or("unknown");
    let cores = cpuinfo.matches("processor\t").count();
    let memory = read("/proc/meminfo");
    let memory = field(&memory, "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .map_or(0.0, |kilobytes| kilobytes / 1048576.0);
    let os = read("/etc/os-release");
    let os = os
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let virt = output("systemd-detect-virt", &[]);
    let virt = match virt.as_str() {
        "" | "none" => String::new(),
        kind => format!(", virtual machine ({kind})"),
    };
    let kamailio = output("kamailio", &["-v"]);
    format!(
        "- machine: {model}, {cores} cores, {memory:.0} GB{virt}\n\
         - kernel {}, {}\n\
         - {}\n\
         - apiban {}, {}, {}\n",
        read("/proc/sys/kernel/osrelease").trim(),
        os.unwrap_or("unknown").trim_matches('"'),
        kamailio.lines().next().unwrap_or("no kamailio").trim(),
        env!("CARGO_PKG_VERSION"),
        output("rustc", &["--version"]),
        output("nft", &["--version"]),
    )
}

/// The day, and how busy the machine is.
pub fn now() -> String {
    let load = read("/proc/loadavg");
    let minutes: Vec<&str> = load.split_whitespace().take(3).collect();
    format!(
        "Measured on {} with apiban {}, load at the start {}.",
        output("date", &["--utc", "+%Y-%m-%d"]),
        env!("CARGO_PKG_VERSION"),
        minutes.join(" ")
    )
}

/// Whether this process runs as root, which network namespaces need.
pub fn is_root() -> bool {
    output("id", &["-u"]) == "0"
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().into(),
    )
}
