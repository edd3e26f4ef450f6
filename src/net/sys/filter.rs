//! Classic BPF: which socket of a port gets a datagram.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::socklen_t;

/// An instruction. There is one register, and jumps go forward, over so many of the next.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) enum Filter {
    /// The octet at this place of the datagram.
    Load { at: u32 },
    /// Keeps the bits of a mask.
    And(u32),
    /// Goes on where it is `value`.
    IfEqual { value: u32, or_skip: u8 },
    /// Skips where it is `value`.
    SkipIfEqual { value: u32, skip: u8 },
    /// Goes on where it is `value` or above.
    IfNotBelow { value: u32, or_skip: u8 },
    /// Skips where it is above `value`.
    IfAbove { value: u32, skip: u8 },
    /// The answer.
    Return(u32),
}

impl Filter {
    pub const fn encode(self) -> libc::sock_filter {
        const JUMP: u32 = libc::BPF_JMP | libc::BPF_K;
        let (code, jt, jf, k) = match self {
            Self::Load { at } => (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, at),
            Self::And(mask) => (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask),
            Self::IfEqual { value, or_skip } => (JUMP | libc::BPF_JEQ, 0, or_skip, value),
            Self::SkipIfEqual { value, skip } => (JUMP | libc::BPF_JEQ, skip, 0, value),
            Self::IfNotBelow { value, or_skip } => (JUMP | libc::BPF_JGE, 0, or_skip, value),
            Self::IfAbove { value, skip } => (JUMP | libc::BPF_JGT, skip, 0, value),
            Self::Return(value) => (libc::BPF_RET | libc::BPF_K, 0, 0, value),
        };
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
}

/// Has `program` choose, by its answer, the socket that gets a datagram, of all that are bound to the port of `socket`
/// with `SO_REUSEPORT`, counted from 0 in the order of their binding.
///
/// # Errors
/// What the kernel says (Linux 4.5 or later).
pub(in crate::net) fn select_socket(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads the `sock_fprog`, and through it as many instructions as it says, within the call; it
    // does not write to them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_val(&program) as socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
