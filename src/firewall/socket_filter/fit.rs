//! Which bans go into a program of limited length.

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

/// A program, and how many bans are in it.
#[derive(Debug)]
pub struct Fitted {
    /// The program; empty if no ban is in it.
    pub program: Vec<Instruction>,
    /// So many of the bans that packets of this kind can meet, the first ones.
    pub count: usize,
}

/// True if a socket of this kind can receive packets from `subnet`.
pub fn concerns(kind: Kind, subnet: &Subnet) -> bool {
    if subnet.is_v4() {
        kind.v4
    } else {
        kind.v6
    }
}

/// As many of `ranked`, from its beginning, as fit `budget` instructions. One packet in `one_in` comes through.
pub fn fit(kind: Kind, ranked: &[Subnet], budget: usize, one_in: u32) -> Fitted {
    let bans: Vec<Subnet> = ranked
        .iter()
        .filter(|subnet| concerns(kind, subnet))
        .copied()
        .collect();
    let mut count = bans.len().min(budget * PER_INSTRUCTION);
    // The short form is the last to fit: once it does not, neither will the fast one.
    let mut forms = [Leaves::Fast, Leaves::Short].as_slice();
    while count > 0 {
        let ranges = Ranges::of(&bans[..count]);
        let mut length = 0;
        for leaves in forms {
            // What cannot fit is not compiled.
            length = leaves.least(ranges.v4.len() + ranges.v6.len());
            if length > budget {
                continue;
            }
            let program = compile(kind, &ranges, *leaves, one_in);
            if program.len() <= budget {
                return Fitted { program, count };
            }
            length = program.len();
        }
        forms = &[Leaves::Short];
        // In proportion, and always fewer.
        count = (count * budget / length).min(count - 1);
    }
    Fitted {
        program: Vec::new(),
        count: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::sample::OFTEN;
    use super::*;

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

    #[test]
    fn the_first_ones_go_in_and_the_program_never_exceeds_its_budget() {
        let ranked: Vec<Subnet> = (0..20_000u32)
            .map(|n| Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1)))
            .map(|ip| Subnet::host(IpAddr::V4(ip)))
            .collect();
        for (budget, least) in [(4096, 3_850), (1_200, 1_100), (100, 80), (8, 0), (0, 0)] {
            let fitted = fit(V4, &ranked, budget, OFTEN);
            assert!(fitted.program.len() <= budget, "{budget}");
            assert!(fitted.count >= least, "{budget}: {}", fitted.count);
            let expected = match fitted.count {
                0 => Vec::new(),
                count => {
                    let ranges = Ranges::of(&ranked[..count]);
                    let both = [Leaves::Fast, Leaves::Short];
                    let programs = both.map(|leaves| compile(V4, &ranges, leaves, OFTEN));
                    programs.into_iter().find(|p| p.len() <= budget).unwrap()
                }
            };
            assert_eq!(fitted.program, expected);
        }
        // What is of the other family is not counted.
        let v6: Subnet = "2001:db8::/64".parse().unwrap();
        let fitted = fit(V4, &[v6, ranked[1]], LONGEST, OFTEN);
        assert_eq!(fitted.count, 1);
        assert_eq!(fit(V4, &[v6], LONGEST, OFTEN).program, []);
    }
}
