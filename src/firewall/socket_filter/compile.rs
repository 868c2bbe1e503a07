//! Compiles bans to a program of classic BPF that a socket runs for each packet.
//!
//! A search tree over the 32-bit words of the source address, with leaves that compare one by one: about one
//! instruction an address. An IPv6 address is four words; the tree of a word holds the trees of the next.

use super::assembler::{
    Assembler, Target, ABOVE, AND, ANY_BIT, EQUAL, FROM, LOAD, LOAD_BYTE, LOAD_MEMORY, LOAD_NUMBER,
    NOTHING, RETURN, STORE, WHOLE,
};
use super::ranges::{ones, Range, Ranges};
use crate::sys::socket_filter::Instruction;

/// The first instruction of each program loads this number: it says whose program it is.
pub const MARK: u32 = u32::from_be_bytes(*b"APIB");

/// Places in what the kernel knows of a packet, besides its bytes (linux/filter.h).
const ANCILLARY: u32 = libc::SKF_AD_OFF as u32;
const PROTOCOL: u32 = ANCILLARY + libc::SKF_AD_PROTOCOL as u32;
const RANDOM: u32 = ANCILLARY + libc::SKF_AD_RANDOM as u32;
/// The IP header.
const NETWORK: u32 = libc::SKF_NET_OFF as u32;
/// The source address in it.
const SOURCE_V4: u32 = NETWORK + 12;
const SOURCE_V6: u32 = NETWORK + 8;
/// The protocol number of IPv4 in a frame.
const IS_V4: u32 = libc::ETH_P_IP as u32;
/// The flags of TCP: their byte, SYN and ACK in it. A packet begins with the TCP header when the filter sees it.
const TCP_FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// The highest bit of a word. A kernel that translates a program needs two instructions for a comparison
/// with a number that has it.
const TOP: u32 = 0x8000_0000;

/// Words of an IPv6 address.
const WORDS_V6: u32 = 4;

/// Instructions that compare one by one at the end of the tree: few are fast, many are short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// For a program that has room.
    Fast,
    /// For one that has not.
    Short,
}

impl Leaves {
    /// The fewest instructions in which a program for so many ranges can be: one for each range, and one for each
    /// branch of a family's tree but the first.
    pub fn least(self, ranges: usize) -> usize {
        (ranges + ranges / self.size()).saturating_sub(2)
    }

    fn size(self) -> usize {
        match self {
            Leaves::Fast => 12,
            Leaves::Short => 48,
        }
    }
}

/// Which packets a socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// IPv4 packets come.
    pub v4: bool,
    /// IPv6 packets come.
    pub v6: bool,
    /// The socket is one of TCP that listens: only the first packet of a connection may be dropped, since
    /// connections inherit the program and keep it.
    pub tcp: bool,
}

/// What stands in the tree of one word.
#[derive(Debug)]
enum Item {
    /// Words from the first to the last are banned, whatever follows.
    Range(u32, u32),
    /// Of addresses with this word, what follows decides.
    Within(u32, Vec<Item>),
}

impl Item {
    fn first(&self) -> u32 {
        match self {
            Item::Range(first, _) => *first,
            Item::Within(word, _) => *word,
        }
    }
}

/// The program for sockets of this kind, which lets one banned packet in `one_in` through, a power of two. The
/// program may be longer than the kernel takes.
pub fn compile(kind: Kind, ranges: &Ranges, leaves: Leaves, one_in: u32) -> Vec<Instruction> {
    let mut code = Assembler::new(&banned(one_in));
    let size = leaves.size();
    if kind.v4 {
        search_v4(&mut code, &ranges.v4, size);
    }
    if kind.v6 {
        let v4 = kind.v4.then(|| code.here());
        search_v6(&mut code, &ranges.v6, size);
        if let Some(v4) = v4 {
            code.test(EQUAL, IS_V4, Target::At(v4), Target::Next);
            code.step(LOAD, PROTOCOL);
        }
    }
    if kind.tcp {
        code.test(EQUAL, SYN, Target::Next, Target::Pass);
        code.step(AND, SYN | ACK);
        code.step(LOAD_BYTE, TCP_FLAGS);
    }
    code.step(LOAD_NUMBER, MARK);
    code.finish()
}

/// True for a program that [`compile`] made.
pub fn is_ours(program: &[Instruction]) -> bool {
    program
        .first()
        .is_some_and(|first| first.code == LOAD_NUMBER && first.k == MARK)
}

/// What happens to a packet of a banned source.
fn banned(one_in: u32) -> [Instruction; 4] {
    let plain = |code, k| Instruction {
        code,
        k,
        ..Instruction::default()
    };
    [
        plain(LOAD, RANDOM),
        Instruction {
            code: ANY_BIT,
            jt: 0,
            jf: 1,
            k: one_in - 1,
        },
        plain(RETURN, NOTHING),
        plain(RETURN, WHOLE),
    ]
}

fn search_v4(code: &mut Assembler, ranges: &[Range<u32>], leaf: usize) {
    // The lower half, and the upper one without its highest bit.
    let split = ranges.partition_point(|range| range.0 < TOP);
    let (lower, upper) = ranges.split_at(split);
    let across = lower.last().filter(|range| range.1 >= TOP);
    let across = across.map(|range| Item::Range(0, range.1 & !TOP));
    let lower = lower
        .iter()
        .map(|range| Item::Range(range.0, range.1.min(!TOP)));
    let upper = upper
        .iter()
        .map(|range| Item::Range(range.0 & !TOP, range.1 & !TOP));
    let lower: Vec<Item> = lower.collect();
    let upper: Vec<Item> = across.into_iter().chain(upper).collect();
    code.bring_ends_near(8);
    let mut half_at = |items: &[Item], clear: bool| {
        if items.is_empty() {
            return Target::Pass;
        }
        tree(code, items, 0, leaf);
        if clear {
            code.step(AND, !TOP);
        }
        Target::At(code.here())
    };
    let (upper, lower) = (half_at(&upper, true), half_at(&lower, false));
    code.test(FROM, TOP, upper, lower);
    code.step(LOAD, SOURCE_V4);
}

fn search_v6(code: &mut Assembler, ranges: &[Range<u128>], leaf: usize) {
    if ranges.is_empty() {
        code.jump(Target::Pass);
        return;
    }
    let items = items(ranges, WORDS_V6);
    tree(code, &items, 0, leaf);
    // Every word that the trees ask for is read once, in front of them: to read a packet takes the kernel
    // several instructions, to read the memory takes it one. The first word is read last.
    for word in 0..depth(&items) {
        if word > 0 {
            code.step(STORE, word);
        }
        code.step(LOAD, SOURCE_V6 + 4 * word);
    }
}

/// How many words the trees ask for.
fn depth(items: &[Item]) -> u32 {
    let of = |item: &Item| match item {
        Item::Range(..) => 1,
        Item::Within(_, next) => 1 + depth(next),
    };
    items.iter().map(of).max().unwrap_or(0)
}

/// The tree of the first of `words` words.
fn items(ranges: &[Range<u128>], words: u32) -> Vec<Item> {
    let shift = 32 * (words - 1);
    let rest = ones(shift);
    let mut items = Vec::with_capacity(ranges.len());
    // The ranges that begin with the same word, without it.
    let mut within: Option<(u32, Vec<Range<u128>>)> = None;
    let close = |items: &mut Vec<Item>, within: &mut Option<(u32, Vec<Range<u128>>)>| {
        if let Some((word, ranges)) = within.take() {
            items.push(Item::Within(word, self::items(&ranges, words - 1)));
        }
    };
    for &(first, last) in ranges {
        let mut from = first;
        loop {
            let word = (from >> shift) as u32;
            let word_last = from | rest;
            if from & rest == 0 && word_last <= last {
                close(&mut items, &mut within);
                // All words that are banned whole.
                let end = if last & rest == rest {
                    last >> shift
                } else {
                    (last >> shift) - 1
                };
                items.push(Item::Range(word, end as u32));
                from = (end << shift) | rest;
            } else {
                let until = last.min(word_last);
                match &mut within {
                    Some((open, ranges)) if *open == word => {
                        ranges.push((from & rest, until & rest));
                    }
                    _ => {
                        close(&mut items, &mut within);
                        within = Some((word, vec![(from & rest, until & rest)]));
                    }
                }
                from = until;
            }
            if from >= last {
                break;
            }
            from += 1;
        }
    }
    close(&mut items, &mut within);
    items
}

/// A search among `items` for `A`, which holds word `word` of the address.
fn tree(code: &mut Assembler, items: &[Item], word: u32, leaf: usize) {
    if items.len() > leaf {
        let (left, right) = items.split_at(items.len() / 2);
        tree(code, right, word, leaf);
        let at_right = code.here();
        tree(code, left, word, leaf);
        code.test(FROM, right[0].first(), Target::At(at_right), Target::Next);
        return;
    }
    let length = items.iter().map(length_in_leaf).sum::<usize>();
    code.bring_ends_near(length.min(LONGEST_LEAF));
    let mut otherwise = Target::Pass;
    for item in items.iter().rev() {
        match item {
            Item::Range(first, last) if first == last => {
                code.test(EQUAL, *first, Target::Banned, otherwise);
            }
            Item::Range(first, last) => {
                // What is below was compared before, what is above comes after.
                code.test(FROM, *first, Target::Banned, Target::Pass);
                code.test(ABOVE, *last, otherwise, Target::Next);
            }
            Item::Within(value, next) => {
                tree(code, next, word + 1, leaf);
                code.step(LOAD_MEMORY, word + 1);
                code.test(EQUAL, *value, Target::Next, otherwise);
            }
        }
        otherwise = Target::At(code.here());
    }
}

/// A leaf with trees in it is longer than any jump; those trees look after themselves.
const LONGEST_LEAF: usize = 100;

/// Instructions of an item, those of further words not counted.
fn length_in_leaf(item: &Item) -> usize {
    match item {
        Item::Range(first, last) if first == last => 1,
        Item::Range(..) => 2,
        Item::Within(..) => 4,
    }
}
