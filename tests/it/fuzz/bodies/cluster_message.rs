//! Messages of the cluster: the parser, and a node that is given anything under the right secret.
//!
//! Input: the kind of the message in the first byte, then its items.

use std::time::Duration;

use apiban::address::Subnet;
use apiban::clock::{UnixMillis, UnixSeconds};
use apiban::cluster::message::{addressed_to, items, open, Item, Items, LONGEST};
use apiban::cluster::{Host, Keyring, Node, OwnBan, Placed, Settings};
use apiban::log::Level;

const SECRET: &[u8] = b"a secret of the fuzz target";
const START: UnixMillis = UnixMillis::new(1_795_300_000_000);

/// A table that says what must never be in it.
#[derive(Default)]
struct Tables(Vec<Subnet>);

impl Host for Tables {
    fn send(&mut self, uri: &str, message: &[u8]) {
        assert!(message.len() <= LONGEST && uri.starts_with("sip"));
    }
    fn own(&self, _: Subnet) -> Option<OwnBan> {
        None
    }
    fn each_own(&self, _: &mut dyn FnMut(Subnet, UnixSeconds, UnixSeconds)) {}
    fn holds(&self, subnet: Subnet) -> bool {
        self.0.contains(&subnet)
    }
    fn place(&mut self, _: &str, subnet: Subnet, end: UnixSeconds, reason: &str) -> Placed {
        let shortest = if subnet.is_v4() { 24 } else { 48 };
        assert!(subnet.prefix_len() >= shortest, "{subnet}");
        assert!(end.millis() > START && reason.len() <= 3 * 56);
        self.0.push(subnet);
        assert!(
            self.0.len() <= 60,
            "more than the budget and half of the table"
        );
        Placed::Yes
    }
    fn shorten(&mut self, _: Subnet, _: UnixSeconds) {}
    fn lift(&mut self, _: Subnet) {}
    fn lift_own(&mut self, _: Subnet) {}
    fn each_listed(&self, _: &mut dyn FnMut(Subnet, UnixSeconds)) {}
    fn list(&mut self, _: &[(Subnet, UnixSeconds)]) {}
    fn keep_listed(&mut self, _: &dyn Fn(Subnet) -> bool) -> usize {
        0
    }
    fn log(&mut self, _: Level, _: &str) {}
}

fn keys() -> Keyring {
    Keyring::new([SECRET]).expect("a key")
}

/// A whole message with these items, as a member would send it.
fn sealed(kind: u8, to: u64, sequence: u64, items: &[u8]) -> Vec<u8> {
    let mut bytes = b"APBN".to_vec();
    bytes.extend([1, 1, kind, keys().signing_id()]);
    for word in [77, to, sequence, START.get()] {
        bytes.extend(u64::to_be_bytes(word));
    }
    bytes.extend(items);
    bytes.truncate(LONGEST - 16);
    let mac = keys().sign(&bytes);
    bytes.extend(mac);
    bytes
}

pub fn run(data: &[u8]) {
    let keys = keys();
    // As it stands it is no message: nobody but the cluster can make one.
    assert!(open(data, &keys).is_err());
    addressed_to(data);
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    if let Some(read) = items(rest) {
        // What was read is written and read again the same.
        let mut written = Items::new();
        let known: Vec<Item> = read
            .into_iter()
            .filter(|item| !matches!(item, Item::Unknown(_)))
            .collect();
        if known.iter().all(|item| written.add(item)) {
            let header = apiban::cluster::message::Header {
                version: 1,
                kind: apiban::cluster::message::Kind::Bans,
                run: 1,
                to: 2,
                sequence: 3,
                time: UnixMillis::new(4),
            };
            let bytes = written.seal(&header, &keys);
            let (_, again) = open(&bytes, &keys).expect("our own message");
            // A reason that was no text is one now.
            assert_eq!(items(again).map(|again| again.len()), Some(known.len()));
        }
    }
    with_node(*kind, rest);
}

/// A node in a session with a member that then sends this.
fn with_node(kind: u8, rest: &[u8]) {
    let settings = Settings {
        peer_budget: 10,
        peer_capacity: 100,
        software: "fuzz".into(),
        fingerprint: 5,
        rate_limit: 11,
        rate_window: Duration::from_secs(120),
        shrink_limit: 50,
    };
    let mut next = 1;
    let random = Box::new(move || {
        next += 1;
        next
    });
    let mut node = Node::new(settings, keys(), random, START);
    let (mut tables, from) = (Tables::default(), "10.0.0.2".parse().expect("an address"));
    node.listed("sip:10.0.0.1:5060", &["sip:10.0.0.2:5060".into()]);
    node.tick(START, &mut tables);
    let mut hello = Items::new();
    hello.add(&Item::Uri("sip:10.0.0.2:5060".into()));
    hello.add(&Item::Token(9));
    let hello = hello.seal(
        &apiban::cluster::message::Header {
            version: 1,
            kind: apiban::cluster::message::Kind::Hello,
            run: 77,
            // The first token that the node gave away: the prefix, and the third number.
            to: u64::from(node.token_prefix()) << 32 | 4,
            sequence: 1,
            time: START,
        },
        &keys(),
    );
    node.receive(START, from, &hello, &mut tables);
    assert_eq!(
        node.counts().received,
        1,
        "no session: the input would test nothing"
    );
    let to = u64::from(node.token_prefix()) << 32 | 4;
    for sequence in 2..5 {
        node.receive(
            START,
            from,
            &sealed(kind % 7, to, sequence, rest),
            &mut tables,
        );
        node.tick(START + Duration::from_millis(sequence * 200), &mut tables);
    }
    node.view(START + Duration::from_secs(2));
    node.feed_view();
}
