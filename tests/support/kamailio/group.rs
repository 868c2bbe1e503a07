//! What `/proc` tells of the processes of one Kamailio.

use std::fs;

/// Whether a process runs; one that ended and waits to be collected does not.
pub fn is_alive(pid: i32) -> bool {
    group_of(pid).is_some()
}

/// What the kernel knows of processes that should have ended: state, place of waiting, system call.
pub(super) fn describe(pids: &[i32]) -> String {
    let read = |pid: &i32, name: &str| {
        fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_else(|error| error.to_string())
    };
    let line = |pid: &i32| {
        let [wchan, syscall, stat] = ["wchan", "syscall", "stat"].map(|name| read(pid, name));
        format!("{pid}: {wchan} | {} | {}", syscall.trim(), stat.trim())
    };
    pids.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The processes of a group.
pub(super) fn members(group: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| group_of(*pid) == Some(group))
        .collect()
}

/// The process group of a running process.
fn group_of(pid: i32) -> Option<i32> {
    let (state, group) = state_and_group(pid)?;
    (!matches!(state, 'Z' | 'X')).then_some(group)
}

/// Whether a process waits for something to do; one that was just forked does not.
pub(super) fn is_waiting(pid: i32) -> bool {
    state_and_group(pid).is_some_and(|(state, _)| state == 'S')
}

fn state_and_group(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; state, parent and group come after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(1)?.parse().ok()?))
}
