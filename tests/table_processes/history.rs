//! Checks whether what several processes saw of a key can be explained by one order of events.

use std::collections::HashSet;

/// What an operation did to a key that is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Made it there, or not there.
    Write(bool),
    /// Saw it there, or not there.
    Read(bool),
}

/// One operation: it took effect at some moment from `start` to `end`.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub start: u64,
    pub end: u64,
    pub action: Action,
}

/// True where the operations of all processes, each in its own order, have one order that respects time
/// and in which every read sees the last write. The key is not there at first.
///
/// A search through all orders, after Wing and Gong, that visits no state twice: how far each process
/// is, and whether the key is there. A read that fits is taken at once, which never spoils an order.
pub fn explainable(processes: &[Vec<Operation>]) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![(vec![0usize; processes.len()], false)];
    while let Some((mut done, there)) = open.pop() {
        loop {
            let fitting = possible(processes, &done)
                .find(|&(_, operation)| operation.action == Action::Read(there));
            let Some((process, _)) = fitting else {
                break;
            };
            done[process] += 1;
        }
        if done
            .iter()
            .zip(processes)
            .all(|(&done, all)| done == all.len())
        {
            return true;
        }
        if !seen.insert((done.clone(), there)) {
            continue;
        }
        for (process, operation) in possible(processes, &done) {
            if let Action::Write(value) = operation.action {
                let mut after = done.clone();
                after[process] += 1;
                open.push((after, value));
            }
        }
    }
    false
}

/// The next operation of each process, where no other one had ended before it began.
fn possible<'a>(
    processes: &'a [Vec<Operation>],
    done: &'a [usize],
) -> impl Iterator<Item = (usize, Operation)> + 'a {
    let next = move || {
        (0..processes.len())
            .filter_map(move |process| Some((process, *processes[process].get(done[process])?)))
    };
    let horizon = next().map(|(_, operation)| operation.end).min();
    next().filter(move |(_, operation)| Some(operation.start) <= horizon)
}
