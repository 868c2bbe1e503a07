//! Writes a program of classic BPF from its end to its beginning.
//!
//! All jumps of classic BPF go forward, and a test reaches 255 instructions at most. Written backwards, every
//! place that a jump can go to is known when the jump is written. A target that is too far gets a step on the
//! way: a jump without a limit, or the return itself if the packet passes there.

use crate::sys::socket_filter::{Instruction, LONGEST};

/// `A` = 32 bits of the packet, in host order.
pub const LOAD: u16 = 0x20;
/// `A` = 8 bits of the packet.
pub const LOAD_BYTE: u16 = 0x30;
/// `A` = the operand.
pub const LOAD_NUMBER: u16 = 0x00;
/// `A` = a word of the program's memory.
pub const LOAD_MEMORY: u16 = 0x60;
/// A word of the program's memory = `A`.
pub const STORE: u16 = 0x02;
/// `A` &= the operand.
pub const AND: u16 = 0x54;
/// Goes on elsewhere.
pub const JUMP: u16 = 0x05;
/// `A` equals the operand.
pub const EQUAL: u16 = 0x15;
/// `A` is greater than the operand.
pub const ABOVE: u16 = 0x25;
/// `A` is not less than the operand.
pub const FROM: u16 = 0x35;
/// `A` and the operand have a bit in common.
pub const ANY_BIT: u16 = 0x45;
/// Ends: so many bytes of the packet are kept.
pub const RETURN: u16 = 0x06;

/// What [`RETURN`] says to keep the packet whole.
pub const WHOLE: u32 = u32::MAX;
/// What [`RETURN`] says to drop the packet.
pub const NOTHING: u32 = 0;

/// The farthest jump of a test.
const REACH: usize = 255;

/// A place in the program: how many instructions stand after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Where a test leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the instruction after the test.
    Next,
    /// To a place.
    At(Label),
    /// To the instructions for packets of banned sources.
    Banned,
    /// The packet passes.
    Pass,
}

/// A program, from some place to its end.
pub struct Assembler {
    reversed: Vec<Instruction>,
    /// What every packet of a banned source runs through.
    banned: Label,
    /// The nearest instruction that leads there.
    to_banned: Label,
    /// The nearest instruction that lets the packet pass.
    to_pass: Label,
}

impl Assembler {
    /// The end of a program: what happens to the packets of banned sources, `at_end` in the order of the program.
    /// It must end with [`RETURN`] of [`WHOLE`].
    pub fn new(at_end: &[Instruction]) -> Self {
        let banned = Label(at_end.len() - 1);
        let mut reversed = Vec::with_capacity(LONGEST);
        reversed.extend(at_end.iter().rev());
        Assembler {
            reversed,
            banned,
            to_banned: banned,
            to_pass: Label(0),
        }
    }

    /// The place of the instruction written last, which is the first of those there are.
    pub fn here(&self) -> Label {
        Label(self.reversed.len() - 1)
    }

    /// An instruction that goes on with the next.
    pub fn step(&mut self, code: u16, k: u32) {
        self.push(code, 0, 0, k);
    }

    /// A test.
    pub fn test(&mut self, code: u16, k: u32, yes: Target, no: Target) {
        let here = self.here();
        let fix = |target| match target {
            Target::Next => Target::At(here),
            other => other,
        };
        let (yes, no) = (fix(yes), fix(no));
        // A step for one of them puts the test one instruction further away from the other.
        let is_far = |target, steps| self.distance(target, steps) > REACH;
        let (mut far_yes, mut far_no) = (is_far(yes, 0), is_far(no, 0));
        if far_yes || far_no {
            (far_yes, far_no) = (far_yes || is_far(yes, 1), far_no || is_far(no, 1));
        }
        let no = if far_no { self.step_to(no) } else { no };
        let yes = if far_yes { self.step_to(yes) } else { yes };
        // Both are within reach now.
        let (jt, jf) = (self.distance(yes, 0) as u8, self.distance(no, 0) as u8);
        self.push(code, jt, jf, k);
    }

    /// Lets tests of the next `length` instructions reach both ends. Only between two parts of the program of
    /// which the first does not run on into the second.
    pub fn bring_ends_near(&mut self, length: usize) {
        // Room for the steps that a few of the tests may need.
        let room = length + length / 8 + 4;
        if self.distance(Target::Pass, room) > REACH {
            self.step_to(Target::Pass);
        }
        if self.distance(Target::Banned, room) > REACH {
            self.step_to(Target::Banned);
        }
    }

    /// Goes on at `target` always.
    pub fn jump(&mut self, target: Target) {
        self.step_to(target);
    }

    /// The program in its order.
    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.reversed.push(Instruction { code, jt, jf, k });
    }

    fn label(&self, target: Target) -> Label {
        match target {
            Target::Next => self.here(),
            Target::At(label) => label,
            Target::Banned => self.to_banned,
            Target::Pass => self.to_pass,
        }
    }

    /// How many instructions a test would skip that is written after `steps` others.
    fn distance(&self, target: Target, steps: usize) -> usize {
        self.reversed.len() + steps - self.label(target).0 - 1
    }

    /// An instruction that leads to `target`, however far that is.
    fn step_to(&mut self, target: Target) -> Target {
        let target = match target {
            Target::Banned => Target::At(self.banned),
            other => other,
        };
        let was_banned = target == Target::At(self.banned);
        match target {
            Target::Pass => {
                self.push(RETURN, 0, 0, WHOLE);
                self.to_pass = self.here();
            }
            other => {
                let distance = self.distance(other, 0);
                // A program is far shorter than 2^32 instructions.
                self.push(JUMP, 0, 0, distance as u32);
                if was_banned {
                    self.to_banned = self.here();
                }
            }
        }
        Target::At(self.here())
    }
}
