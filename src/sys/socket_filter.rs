//! Classic BPF programs on sockets: attach, detach, read, and the count of what a socket dropped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void, socklen_t};

/// One instruction of classic BPF, in the kernel's layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a test holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());

/// The longest program that the kernel takes, in instructions: BPF_MAXINSNS of linux/bpf_common.h.
pub const LONGEST: usize = 4096;

/// The kernel's number of the answer of SO_MEMINFO, in 32-bit words; newer kernels may have more.
const MEMINFO_WORDS: usize = libc::SK_MEMINFO_DROPS as usize + 1;

/// Puts `program` on the socket, in place of the program that is there. No packet meets the socket without
/// the one or the other.
///
/// # Errors
/// `EINVAL`: empty, too long, or not a valid program. `ENOMEM`: the old and the new one together need more than
/// `net.core.optmem_max`. `EPERM`: the socket is locked, or the kernel wants CAP_NET_ADMIN for this kind of socket.
pub fn attach(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    // An empty slice points nowhere, which an emulator may notice before it asks for the length.
    let length = u16::try_from(program.len())
        .ok()
        .filter(|length| *length > 0)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: what the kernel reads for this option: `length` instructions, which live until the call returns.
    unsafe { set(socket, libc::SO_ATTACH_FILTER, &program) }
}

/// Takes the program off the socket, whosever it is.
///
/// # Errors
/// `ENOENT`: there is none. `EPERM`: the socket is locked.
pub fn detach(socket: BorrowedFd<'_>) -> io::Result<()> {
    let unused: c_int = 0;
    // SAFETY: what the kernel reads for this option: one number.
    unsafe { set(socket, libc::SO_DETACH_FILTER, &unused) }
}

/// Sets an option of the socket.
///
/// # Safety
/// `value` must be what the kernel reads for this option, and all that it points to must be valid during the call.
unsafe fn set<T>(socket: BorrowedFd<'_>, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the caller's; the kernel reads the value and writes nothing.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as socklen_t,
        )
    };
    checked(result)
}

/// The program on the socket; empty if there is none.
///
/// # Errors
/// `EACCES`: the program there is not classic BPF.
pub fn read(socket: BorrowedFd<'_>) -> io::Result<Vec<Instruction>> {
    let mut program = vec![Instruction::default(); read_into(socket, &mut [])?];
    if program.is_empty() {
        return Ok(program);
    }
    // Another program may have come meanwhile. A longer one is EINVAL.
    let length = read_into(socket, &mut program)?;
    program.truncate(length);
    Ok(program)
}

/// Writes the program on the socket to `room` if it fits; returns its length in instructions. With no room only the
/// length is asked for.
fn read_into(socket: BorrowedFd<'_>, room: &mut [Instruction]) -> io::Result<usize> {
    // For this option the kernel counts instructions, not bytes.
    let mut length = room.len() as socklen_t;
    // SAFETY: the kernel writes at most as many instructions as `length` says, which is the room there is, and
    // any bytes are an instruction.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            room.as_mut_ptr().cast::<c_void>(),
            &raw mut length,
        )
    };
    checked(result)?;
    Ok(length as usize)
}

/// Packets that the kernel dropped at the socket since it was made: those that a filter refused, and those that
/// came while its buffer was full. Wraps at 2^32.
///
/// # Errors
/// That of the system; kernels before 4.12 do not know the question.
pub fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut words = [0u32; MEMINFO_WORDS];
    let mut length = size_of_val(&words) as socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the room there is.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    checked(result)?;
    Ok(words[MEMINFO_WORDS - 1])
}

fn checked(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    const RET: u16 = 0x06;

    fn ret(k: u32) -> Instruction {
        Instruction {
            code: RET,
            k,
            ..Instruction::default()
        }
    }

    #[test]
    fn a_program_drops_is_read_back_and_goes() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        assert_eq!(read(socket.as_fd()).unwrap(), []);
        let error = detach(socket.as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));

        attach(socket.as_fd(), &[ret(0)]).unwrap();
        assert_eq!(read(socket.as_fd()).unwrap(), [ret(0)]);
        let before = drops(socket.as_fd()).unwrap();
        sender.send_to(b"dropped", to).unwrap();
        // Loopback delivers, or drops, before the call of the sender returns.
        assert_eq!(drops(socket.as_fd()).unwrap(), before + 1);

        attach(socket.as_fd(), &[ret(u32::MAX)]).unwrap();
        sender.send_to(b"received", to).unwrap();
        let mut buffer = [0; 16];
        let (length, _) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"received");
        detach(socket.as_fd()).unwrap();
        assert_eq!(read(socket.as_fd()).unwrap(), []);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for bad in [
            vec![],
            vec![Instruction::default()],
            vec![ret(0); LONGEST + 1],
            vec![ret(0); 65_537],
        ] {
            let error = attach(socket.as_fd(), &bad).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{}", bad.len());
        }
        attach(socket.as_fd(), &vec![ret(0); LONGEST]).unwrap();
    }
}
