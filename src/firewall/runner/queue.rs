//! Changes that wait for the backend: one per ban, however often it changes.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::address::Subnet;
use crate::firewall::{Change, Element};

/// What is to happen to one ban.
#[derive(Debug, Clone, Copy)]
struct Pending {
    /// When the ban ends; `None` lifts it.
    end: Option<Instant>,
    hits: u32,
    /// True if it waits in the queue of new changes.
    urgent: bool,
}

/// New changes go first, what is left of a refill comes after them. The order among different bans
/// does not matter; of several changes of one ban only the last is kept.
#[derive(Debug, Default)]
pub struct Queue {
    pending: HashMap<Subnet, Pending>,
    /// Keys in order of arrival; one without a pending change was taken through the other queue.
    urgent: VecDeque<Subnet>,
    backlog: VecDeque<Subnet>,
    urgent_count: usize,
}

impl Queue {
    /// A new change. It replaces one that waits for the same ban.
    pub fn push(&mut self, change: &Change, now: Instant) {
        let key = change.subnet();
        let pending = Pending::of(change, now, true);
        let old = self.pending.insert(key, pending);
        if !old.is_some_and(|old| old.urgent) {
            self.urgent.push_back(key);
            self.urgent_count += 1;
        }
    }

    /// A change that is part of a refill, counted from `now`; newer ones go before it.
    pub fn push_backlog(&mut self, change: &Change, now: Instant) {
        let key = change.subnet();
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.pending.entry(key) {
            vacant.insert(Pending::of(change, now, false));
            self.backlog.push_back(key);
        }
    }

    /// Takes up to `limit` changes; a ban that ended while it waited comes with no seconds left.
    pub fn pop(&mut self, limit: usize, now: Instant) -> Vec<Change> {
        let mut taken = Vec::new();
        while taken.len() < limit {
            let Some(key) = self.urgent.pop_front().or_else(|| self.backlog.pop_front()) else {
                break;
            };
            let Some(pending) = self.pending.remove(&key) else {
                continue;
            };
            self.urgent_count -= usize::from(pending.urgent);
            taken.push(pending.change(key, now));
        }
        taken
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Queue::default();
    }

    /// Forgets what is left of an earlier refill.
    pub fn clear_backlog(&mut self) {
        self.backlog.clear();
        self.pending.retain(|_, pending| pending.urgent);
    }

    /// Changes that wait.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// New changes that wait, those of a refill not counted.
    pub fn urgent(&self) -> usize {
        self.urgent_count
    }

    /// Changes of a refill that wait.
    pub fn backlog(&self) -> usize {
        self.pending.len() - self.urgent_count
    }
}

impl Pending {
    fn of(change: &Change, now: Instant, urgent: bool) -> Self {
        match change {
            Change::Add(element) => Pending {
                // Beyond the clock's range is like now. It cannot happen with 32-bit seconds.
                end: now.checked_add(Duration::from_secs(element.seconds_left.into())),
                hits: element.hits,
                urgent,
            },
            Change::Remove(_) => Pending {
                end: None,
                hits: 0,
                urgent,
            },
        }
    }

    fn change(&self, subnet: Subnet, now: Instant) -> Change {
        match self.end {
            None => Change::Remove(subnet),
            Some(end) => Change::Add(Element {
                subnet,
                seconds_left: seconds_between(now, end),
                hits: self.hits,
            }),
        }
    }
}

/// Seconds from `now` to `end`, rounded up; 0 if it is past.
pub fn seconds_between(now: Instant, end: Instant) -> u32 {
    let left = end.saturating_duration_since(now);
    let up = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(up).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(text: &str, seconds_left: u32) -> Change {
        Change::Add(Element {
            subnet: text.parse().unwrap(),
            seconds_left,
            hits: 7,
        })
    }

    fn remove(text: &str) -> Change {
        Change::Remove(text.parse().unwrap())
    }

    #[test]
    fn the_last_change_of_a_ban_counts() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.push(&add("192.0.2.1", 5), now);
        queue.push(&remove("192.0.2.1"), now);
        queue.push(&add("192.0.2.1", 9), now);
        assert_eq!((queue.len(), queue.urgent()), (1, 1));
        assert_eq!(queue.pop(10, now), [add("192.0.2.1", 9)]);
        assert_eq!((queue.len(), queue.urgent()), (0, 0));
    }

    #[test]
    fn new_changes_go_before_a_refill_and_replace_its() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for n in 1..=3 {
            queue.push_backlog(&add(&format!("192.0.2.{n}"), 60), now);
        }
        queue.push(&remove("192.0.2.2"), now);
        queue.push_backlog(&add("192.0.2.2", 60), now);
        assert_eq!((queue.len(), queue.urgent()), (3, 1));
        assert_eq!(queue.pop(1, now), [remove("192.0.2.2")]);
        let rest = [add("192.0.2.1", 60), add("192.0.2.3", 60)];
        assert_eq!(queue.pop(9, now), rest);
        assert!(queue.pop(9, now).is_empty());
    }

    #[test]
    fn time_passes_while_waiting() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.push(&add("192.0.2.1", 60), now);
        queue.push(&add("192.0.2.2", 10), now);
        let later = now + Duration::from_millis(20_500);
        assert_eq!(
            queue.pop(9, later),
            [add("192.0.2.1", 40), add("192.0.2.2", 0)]
        );
    }

    #[test]
    fn what_is_left_of_a_refill_can_be_forgotten() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.push(&add("192.0.2.1", 60), now);
        queue.push_backlog(&add("192.0.2.2", 60), now);
        queue.clear_backlog();
        assert_eq!((queue.len(), queue.urgent()), (1, 1));
        assert_eq!(queue.pop(9, now), [add("192.0.2.1", 60)]);
        assert!(queue.pop(9, now).is_empty());
    }
}
