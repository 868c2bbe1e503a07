//! The fuzz targets of `tests/fuzz` without a fuzzer, on any compiler: the corpus, and mutations of it that
//! are the same in every run. What the fuzzer once found is in the corpus, so it stays found.

mod bodies;

use std::fs;
use std::path::Path;

/// Mutated inputs for each target: a second's work.
const MUTATIONS: u64 = 1_500;
/// What the formats are made of.
const WORDS: &[&str] = &[
    "\n",
    "\n--\n",
    "|",
    " ",
    ",",
    "/",
    "/0",
    "/32",
    "/128",
    "::",
    "::ffff:",
    "[",
    "]",
    "@",
    ";",
    "%s",
    "\0",
    "\u{1b}[",
    "\u{202e}",
    "#",
    "-1",
    "0",
    "4294967295",
    "18446744073709551616",
    "192.0.2.1",
    "198.51.100.0/24",
    "2001:db8:5::/64",
    "127.0.0.1",
    "\"ID\":\"none\"",
    "\"ipaddress\":",
    "[[[[",
    "429 1",
    "none",
    "{\"\":",
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit.max(1) as u64) as usize
    }

    /// Some place in `data`, and how far from there.
    fn range(&mut self, data: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(data.len() + 1);
        start..start + self.below((data.len() - start).min(40) + 1)
    }

    fn mutate(&mut self, data: &mut Vec<u8>, other: &[u8]) {
        let range = self.range(data);
        match self.below(5) {
            0 => drop(data.splice(range, WORDS[self.below(WORDS.len())].bytes())),
            1 => drop(data.drain(range)),
            2 => {
                let piece = data[range].to_vec();
                let at = self.below(data.len() + 1);
                drop(data.splice(at..at, piece));
            }
            3 => drop(data.splice(range, other[self.range(other)].to_vec())),
            _ => {
                if let Some(byte) = data.get_mut(range.start) {
                    *byte ^= 1 << self.below(8);
                }
            }
        }
    }
}

fn smoke(name: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!corpus.is_empty(), "no corpus in {}", folder.display());
    body(&[]);
    for (path, input) in paths.iter().zip(&corpus) {
        println!("{}", path.display());
        body(input);
    }
    for round in 0..MUTATIONS {
        let mut random = Random(round);
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(6) {
            let other = random.below(corpus.len());
            random.mutate(&mut input, &corpus[other]);
        }
        // Shown where the body panics.
        println!(
            "mutation {round}: {:?}",
            String::from_utf8_lossy(&input[..input.len().min(400)])
        );
        body(&input);
    }
}

#[test]
fn api_answer() {
    smoke("api_answer", bodies::api_answer::run);
}

#[test]
fn state_file() {
    smoke("state_file", bodies::state_file::run);
}

#[test]
fn trust_list() {
    smoke("trust_list", bodies::trust_list::run);
}

#[test]
fn rpc_command() {
    smoke("rpc_command", bodies::rpc_command::run);
}

#[test]
fn address() {
    smoke("address", bodies::address::run);
}

#[test]
fn uri() {
    smoke("uri", bodies::uri::run);
}

#[test]
fn cluster_message() {
    smoke("cluster_message", bodies::cluster_message::run);
}
