//! How many requests each client may send in a window.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Clients that are counted in one window. More of them are one attack, and are refused together.
const MOST_CLIENTS: usize = 65_536;

/// Counts requests by client: an IPv4 address, or an IPv6 network of 64 bits.
pub struct Limit {
    requests: u32,
    window: Duration,
    begun: Instant,
    counted: HashMap<IpAddr, u32>,
}

impl Limit {
    /// `requests` in each `window`; 0: no limit.
    pub fn new(requests: u32, window: Duration, now: Instant) -> Self {
        Limit {
            requests,
            window,
            begun: now,
            counted: HashMap::new(),
        }
    }

    /// Counts a request; the error is the time until the window ends.
    pub fn count(&mut self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        if self.requests == 0 {
            return Ok(());
        }
        if now.duration_since(self.begun) >= self.window {
            self.begun = now;
            self.counted.clear();
        }
        let left = self.window.saturating_sub(now.duration_since(self.begun));
        let client = network(client);
        if self.counted.len() >= MOST_CLIENTS && !self.counted.contains_key(&client) {
            return Err(left);
        }
        let count = self.counted.entry(client).or_insert(0);
        *count = count.saturating_add(1);
        if *count > self.requests {
            Err(left)
        } else {
            Ok(())
        }
    }
}

fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_count_and_each_window_begins_anew() {
        let start = Instant::now();
        let mut limit = Limit::new(2, Duration::from_secs(10), start);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let late = start + Duration::from_secs(4);
        assert!(limit.count(ip("2001:db8::1"), start).is_ok());
        assert!(limit.count(ip("2001:db8::2"), start).is_ok());
        assert_eq!(
            limit.count(ip("2001:db8::3"), late),
            Err(Duration::from_secs(6))
        );
        assert!(limit.count(ip("192.0.2.1"), late).is_ok());
        assert!(limit.count(ip("::ffff:192.0.2.1"), late).is_ok());
        assert!(limit.count(ip("192.0.2.1"), late).is_err());
        assert!(limit
            .count(ip("192.0.2.1"), start + Duration::from_secs(10))
            .is_ok());
        let mut none = Limit::new(0, Duration::from_secs(10), start);
        assert!((0..1000).all(|_| none.count(ip("192.0.2.1"), start).is_ok()));
    }
}
