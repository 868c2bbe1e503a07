//! What the filter asks of the kernel: a trait, because a test must be able to refuse.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::socket_filter::{self, Instruction};

/// Where the kernel says how many bytes of options, a filter among them, a socket may have.
const OPTMEM: &str = "/proc/sys/net/core/optmem_max";

/// The calls on one socket; their errors are those of [`crate::sys::socket_filter`].
pub trait Kernel: Send {
    /// Puts a program on the socket, in place of the one that is there.
    fn attach(&mut self, socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()>;
    /// Takes the program off the socket.
    fn detach(&mut self, socket: BorrowedFd<'_>) -> io::Result<()>;
    /// The program on the socket; empty: none.
    fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<Vec<Instruction>>;
    /// Packets that the kernel dropped at the socket.
    fn drops(&mut self, socket: BorrowedFd<'_>) -> io::Result<u32>;
    /// The most bytes of options that a socket may have; `None` if that cannot be read.
    fn option_memory(&self) -> Option<usize>;
}

/// The kernel that runs.
#[derive(Debug, Default)]
pub struct Linux;

impl Kernel for Linux {
    fn attach(&mut self, socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
        socket_filter::attach(socket, program)
    }

    fn detach(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        socket_filter::detach(socket)
    }

    fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<Vec<Instruction>> {
        socket_filter::read(socket)
    }

    fn drops(&mut self, socket: BorrowedFd<'_>) -> io::Result<u32> {
        socket_filter::drops(socket)
    }

    fn option_memory(&self) -> Option<usize> {
        fs::read_to_string(OPTMEM).ok()?.trim().parse().ok()
    }
}
