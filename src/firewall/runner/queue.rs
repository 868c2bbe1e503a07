//! Changes that wait for the backend: one per ban, however often it changes.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::address::Subnet;
use crate::firewall::{Change, Element, Set};

type Key = (Set, Subnet);

/// What is to happen to one ban.
#[derive(Debug, Clone, Copy)]
struct Pending {
    /// When the ban ends; `None` lifts it.
    end: Option<Instant>,
    /// True where it stands in the fast counters.
    urgent: bool,
}

/// New changes go first, what is left of a refill comes after them. The order among different bans
/// does not matter; of several changes of one ban only the last is kept.
#[derive(Debug, Default)]
pub struct Queue {
    pending: HashMap<Key, Pending>,
    /// Keys in order of arrival; one without a pending change was taken through the other counters.
    urgent: VecDeque<Key>,
    backlog: VecDeque<Key>,
    urgent_count: usize,
}

impl Queue {
    /// A new change. It replaces one that waits for the same ban.
    pub fn push(&mut self, change: &Change, now: Instant) {
        let key = (change.set(), change.subnet());
        let pending = Pending {
            end: end(change, now),
            urgent: true,
        };
        let old = self.pending.insert(key, pending);
        if !old.is_some_and(|old| old.urgent) {
            self.urgent.push_back(key);
            self.urgent_count += 1;
        }
    }

    /// A change that is part of a refill, counted from `now`; newer ones go before it.
    pub fn push_backlog(&mut self, change: &Change, now: Instant) {
        let key = (change.set(), change.subnet());
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.pending.entry(key) {
            vacant.insert(Pending {
                end: end(change, now),
                urgent: false,
            });
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
            taken.push(change(key, pending.end, now));
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

    /// Forgets the changes of one set.
    pub fn clear_set(&mut self, set: Set) {
        self.pending.retain(|(of, _), _| *of != set);
        self.urgent.retain(|(of, _)| *of != set);
        self.backlog.retain(|(of, _)| *of != set);
        self.urgent_count = self.pending.values().filter(|p| p.urgent).count();
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

fn end(change: &Change, now: Instant) -> Option<Instant> {
    match change {
        // An end beyond the clock's range is as good as now: it cannot happen with 32-bit seconds.
        Change::Add(element) => {
            Some(now.checked_add(Duration::from_secs(element.seconds_left.into()))?)
        }
        Change::Remove { .. } => None,
    }
}

fn change((set, subnet): Key, end: Option<Instant>, now: Instant) -> Change {
    match end {
        None => Change::Remove { subnet, set },
        Some(end) => Change::Add(Element {
            subnet,
            set,
            seconds_left: seconds_between(now, end),
        }),
    }
}

/// Seconds from `now` to `end`, rounded up; 0 where it is past.
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
            set: Set::Local,
            seconds_left,
        })
    }

    fn remove(text: &str) -> Change {
        Change::Remove {
            subnet: text.parse().unwrap(),
            set: Set::Local,
        }
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
    fn one_set_can_be_forgotten() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.push(&add("192.0.2.1", 60), now);
        queue.push_backlog(&add("192.0.2.2", 60), now);
        queue.clear_set(Set::Feed);
        assert_eq!(queue.len(), 2);
        queue.clear_backlog();
        assert_eq!(queue.len(), 1);
        queue.clear_set(Set::Local);
        assert_eq!((queue.len(), queue.urgent()), (0, 0));
        assert!(queue.pop(9, now).is_empty());
    }
}
