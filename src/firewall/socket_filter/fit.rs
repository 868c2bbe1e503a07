//! Which bans go into a program of limited length.

use super::bans::{Candidate, Rank};
use super::compile::{compile, Kind, Leaves};
use super::ranges::Ranges;
use crate::address::Subnet;
use crate::sys::socket_filter::{Instruction, LONGEST};

/// What older kernels allow a socket, in bytes, if the kernel does not say.
const SMALL_MEMORY: usize = 20_480;

/// Consecutive addresses take less than an instruction each: so many bans are looked at for each instruction that
/// there may be.
const PER_INSTRUCTION: usize = 4;

/// The longest program for sockets that may have so many bytes of options. The kernel stores 8 bytes for each
/// instruction, and holds the old and the new program while they are exchanged; 80 instructions are its own
/// records and what a translation adds.
pub fn budget(option_memory: Option<usize>) -> usize {
    let bytes = option_memory.unwrap_or(SMALL_MEMORY);
    (bytes / 16).saturating_sub(80).min(LONGEST)
}

/// A program, and which bans are in it.
#[derive(Debug)]
pub struct Fitted {
    /// The program; empty if no ban is in it.
    pub program: Vec<Instruction>,
    /// Of the bans that packets of this kind can meet, those of this rank and above; `None`: no ban.
    pub from: Option<Rank>,
}

/// True if a socket of this kind can receive packets from `subnet`.
pub fn concerns(kind: Kind, subnet: &Subnet) -> bool {
    if subnet.is_v4() {
        kind.v4
    } else {
        kind.v6
    }
}

/// As many of `candidates`, those of the highest ranks, as fit `budget` instructions. One packet in `one_in` comes
/// through.
pub fn fit(kind: Kind, candidates: &[Candidate], budget: usize, one_in: u32) -> Fitted {
    let concerned = || candidates.iter().filter(|c| concerns(kind, &c.subnet));
    let all = concerned().count();
    let mut count = all.min(budget * PER_INSTRUCTION);
    // Of those that may still go in; empty as long as all may.
    let mut ranks: Vec<Rank> = Vec::new();
    // The lowest rank that goes in.
    let mut from = Rank::default();
    // The short form is the last to fit: once it does not, neither will the fast one.
    let mut forms = [Leaves::Fast, Leaves::Short].as_slice();
    while count > 0 {
        if count < all {
            if ranks.is_empty() {
                ranks.extend(concerned().map(|candidate| candidate.rank));
            }
            let (_, last, _) = ranks.select_nth_unstable_by(count - 1, |a, b| b.cmp(a));
            from = *last;
            ranks.truncate(count);
        }
        let chosen = concerned().filter(|candidate| candidate.rank >= from);
        let ranges = Ranges::of(chosen.map(|candidate| &candidate.subnet));
        let mut length = 0;
        for leaves in forms {
            // What cannot fit is not compiled. A 37th more is what long jumps take in a full program.
            let least = leaves.least(ranges.v4.len() + ranges.v6.len());
            length = least + least / 37;
            if least > budget {
                continue;
            }
            let program = compile(kind, &ranges, *leaves, one_in);
            if program.len() <= budget {
                let from = Some(from);
                return Fitted { program, from };
            }
            length = program.len();
        }
        forms = &[Leaves::Short];
        // In proportion, and always fewer.
        count = (count * budget / length).min(count - 1);
    }
    Fitted {
        program: Vec::new(),
        from: None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Instant;

    use super::super::bans::Bans;
    use super::super::sample::OFTEN;
    use super::*;
    use crate::firewall::Element;

    const V4: Kind = Kind {
        v4: true,
        v6: false,
        tcp: false,
    };

    #[test]
    fn the_budget_follows_the_kernels_limit() {
        assert_eq!(budget(Some(131_072)), LONGEST);
        assert_eq!(budget(Some(20_480)), 1_200);
        assert_eq!(budget(None), 1_200);
        assert_eq!(budget(Some(0)), 0);
    }

    /// One after the other.
    fn candidates(subnets: &[Subnet]) -> Vec<Candidate> {
        let now = Instant::now();
        let mut bans = Bans::default();
        for subnet in subnets {
            let element = Element {
                subnet: *subnet,
                seconds_left: 60,
                hits: 0,
            };
            bans.store(&element, now);
        }
        bans.candidates(now, |_| true)
    }

    #[test]
    fn the_latest_go_in_and_the_program_never_exceeds_its_budget() {
        let subnets: Vec<Subnet> = (0..20_000u32)
            .map(|n| Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1)))
            .map(|ip| Subnet::host(IpAddr::V4(ip)))
            .collect();
        let all = candidates(&subnets);
        for (budget, least) in [(4096, 3_850), (1_200, 1_100), (100, 80), (8, 0), (0, 0)] {
            let fitted = fit(V4, &all, budget, OFTEN);
            assert!(fitted.program.len() <= budget, "{budget}");
            let is_in = |c: &&Candidate| fitted.from.is_some_and(|from| c.rank >= from);
            let count = all.iter().filter(is_in).count();
            assert!(count >= least, "{budget}: {count}");
            let expected = match count {
                0 => Vec::new(),
                count => {
                    let ranges = Ranges::of(&subnets[subnets.len() - count..]);
                    let both = [Leaves::Fast, Leaves::Short];
                    let programs = both.map(|leaves| compile(V4, &ranges, leaves, OFTEN));
                    programs.into_iter().find(|p| p.len() <= budget).unwrap()
                }
            };
            assert_eq!(fitted.program, expected);
        }
    }

    #[test]
    fn what_is_of_the_other_family_takes_no_room() {
        let [v6, v4]: [Subnet; 2] =
            ["2001:db8::/64", "192.0.2.1"].map(|text| text.parse().unwrap());
        let both = fit(V4, &candidates(&[v6, v4]), LONGEST, OFTEN);
        let one = fit(V4, &candidates(&[v4]), LONGEST, OFTEN);
        assert!(both.from.is_some());
        assert_eq!(both.program, one.program);
        let none = fit(V4, &candidates(&[v6]), LONGEST, OFTEN);
        assert_eq!((none.program.len(), none.from), (0, None));
    }
}
