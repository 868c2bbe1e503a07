//! Runs a program as the kernel does, for tests.

use std::net::IpAddr;

use super::assembler::{
    ABOVE, AND, ANY_BIT, EQUAL, FROM, JUMP, LOAD, LOAD_BYTE, LOAD_MEMORY, LOAD_NUMBER, RETURN,
    STORE,
};
use crate::sys::socket_filter::Instruction;

/// A packet as a socket's program sees it.
pub struct Packet {
    /// From the header of UDP or TCP on.
    pub transport: Vec<u8>,
    /// From the IP header on.
    pub network: Vec<u8>,
    /// The protocol number of the frame.
    pub protocol: u16,
}

impl Packet {
    /// One of UDP.
    pub fn udp(from: IpAddr) -> Self {
        let mut network = match from {
            IpAddr::V4(ip) => {
                let mut header = vec![0xee; 20];
                header[12..16].copy_from_slice(&ip.octets());
                header
            }
            IpAddr::V6(ip) => {
                let mut header = vec![0xee; 40];
                header[8..24].copy_from_slice(&ip.octets());
                header
            }
        };
        let transport = vec![0xdd; 20];
        network.extend(&transport);
        Packet {
            transport,
            network,
            protocol: match from {
                IpAddr::V4(_) => 0x0800,
                IpAddr::V6(_) => 0x86dd,
            },
        }
    }

    /// One of TCP with these flags.
    pub fn tcp(from: IpAddr, flags: u8) -> Self {
        let mut packet = Packet::udp(from);
        packet.transport[13] = flags;
        packet
    }
}

/// How many bytes of the packet the program keeps. Panics if the program does what the kernel does not allow.
pub fn run(program: &[Instruction], packet: &Packet, random: u32) -> u32 {
    let (mut a, mut memory) = (0u32, [None::<u32>; 16]);
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match code {
            RETURN => return k,
            LOAD | LOAD_BYTE => {
                a = load(packet, k, if code == LOAD { 4 } else { 1 }, random);
                continue;
            }
            LOAD_NUMBER => {
                a = k;
                continue;
            }
            LOAD_MEMORY => {
                a = memory[k as usize].expect("written before it is read");
                continue;
            }
            STORE => {
                memory[k as usize] = Some(a);
                continue;
            }
            AND => {
                a &= k;
                continue;
            }
            JUMP => {
                at += k as usize;
                continue;
            }
            EQUAL => a == k,
            ABOVE => a > k,
            FROM => a >= k,
            ANY_BIT => a & k != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

fn load(packet: &Packet, k: u32, bytes: usize, random: u32) -> u32 {
    let offset = k as i32;
    // -0x1000: besides the bytes; -0x100000: the IP header. See linux/filter.h.
    let from = match offset {
        -0x1000 => return u32::from(packet.protocol),
        -0xfc8 => return random,
        0.. => &packet.transport[offset as usize..],
        _ => &packet.network[(offset + 0x10_0000) as usize..],
    };
    from[..bytes]
        .iter()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}
