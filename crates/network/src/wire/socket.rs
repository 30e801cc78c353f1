//! A blocking netlink socket.
//!
//! It belongs to the network namespace of the thread that opened it, whoever uses it later. It is used from
//! blocking work only; the kernel answers these requests while they are being sent, so waits are short.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{Batch, HEADER_LEN, attribute, number, text};

/// The longest wait for an answer of the kernel: it answers at once or is in great trouble.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Room for one read: the kernel fills at most 32 KiB at a time when it lists.
const READ_LEN: usize = 64 * 1024;
/// Room for answers that queue up while a long batch is carried out.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// The default of an unprivileged socket; a longer batch asks for more.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Why the kernel refused a message.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused message {message} of {count}{}{}", if text.is_empty() { "" } else { ": " }, text)]
pub(crate) struct Refusal {
    /// Which message, from 1.
    pub message: u32,
    /// Of how many.
    pub count: u32,
    /// The error's number.
    #[source]
    pub errno: Errno,
    /// What the kernel said about it, when it did.
    pub text: String,
}

/// A socket of one netlink family.
pub(crate) struct Socket {
    fd: OwnedFd,
}

/// One message as received.
struct Received<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    fn open(family: Option<Protocol>) -> io::Result<Self> {
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, family)?;
        sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_WAIT))?;
        // Without the right to exceed the machine's limit the default has to do.
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER_BYTES);
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            enable(&fd, option)?;
        }
        Ok(Self { fd })
    }

    /// A socket for links, addresses, neighbours and routes.
    pub fn route() -> io::Result<Self> {
        // The family whose number is 0.
        Self::open(None)
    }

    /// A socket for packet rules and tracked connections.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(Some(net::netlink::NETFILTER))
    }

    /// Sends messages that all ask for an acknowledgement; gives each one's fate, in order.
    pub fn request(&self, batch: &Batch) -> io::Result<Vec<Result<(), Refusal>>> {
        let count = batch.count();
        if count == 0 {
            return Ok(Vec::new());
        }
        self.send(batch)?;
        let mut fates: Vec<Result<(), Refusal>> = Vec::with_capacity(count as usize);
        while fates.len() < count as usize {
            self.receive(|message| {
                if i32::from(message.kind) == libc::NLMSG_ERROR {
                    fates.push(fate(message, count));
                }
            })?;
        }
        Ok(fates)
    }

    /// Sends a transaction whose last message but one asks for an acknowledgement: all of it happened, or nothing.
    pub fn transact(&self, batch: &Batch, acknowledged: u32) -> io::Result<Result<(), Refusal>> {
        self.send(batch)?;
        let mut first: Option<Refusal> = None;
        let mut done = false;
        while !done && first.is_none() {
            self.receive(|message| {
                if i32::from(message.kind) == libc::NLMSG_ERROR {
                    done |= message.sequence == acknowledged;
                    if let Err(refusal) = fate(message, batch.count()) {
                        first.get_or_insert(refusal);
                    }
                }
            })?;
        }
        self.drain();
        Ok(first.map_or(Ok(()), Err))
    }

    /// Sends one request to list and hands each answer's kind and body to `take`.
    pub fn dump(&self, batch: &Batch, mut take: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.send(batch)?;
        let mut end = None;
        while end.is_none() {
            self.receive(|message| match i32::from(message.kind) {
                libc::NLMSG_DONE => end = Some(Ok(())),
                libc::NLMSG_ERROR => end = Some(fate(message, 1)),
                _ => take(message.kind, message.body),
            })?;
        }
        end.unwrap_or(Ok(())).map_err(|refusal| refusal.errno.into())
    }

    fn send(&self, batch: &Batch) -> io::Result<()> {
        let bytes = batch.bytes();
        if bytes.len() > SEND_BUFFER_BYTES / 2 {
            // The kernel takes a message only when its buffer could hold it, bookkeeping included.
            sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len() + SEND_BUFFER_BYTES)?;
        }
        let sent = net::send(&self.fd, bytes, SendFlags::empty())?;
        if sent != bytes.len() {
            return Err(io::Error::other(format!("only {sent} of {} bytes were taken", bytes.len())));
        }
        Ok(())
    }

    /// Waits for one datagram and hands on its messages.
    fn receive(&self, take: impl FnMut(&Received<'_>)) -> io::Result<()> {
        let mut buffer = vec![0; READ_LEN];
        let (len, _) =
            rustix::io::retry_on_intr(|| net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()))?;
        messages(&buffer[..len]).iter().for_each(take);
        Ok(())
    }

    /// Throws away answers nobody waits for, such as errors of a batch that was refused already.
    fn drain(&self) {
        let mut buffer = vec![0; READ_LEN];
        while net::recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
    }
}

fn messages(mut bytes: &[u8]) -> Vec<Received<'_>> {
    let mut found = Vec::new();
    while let Some(len) =
        number(bytes).map(|len| len as usize).filter(|len| (HEADER_LEN..=bytes.len()).contains(len))
    {
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let sequence = u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        found.push(Received { kind, sequence, body: &bytes[HEADER_LEN..len] });
        bytes = bytes.get(len.next_multiple_of(super::ALIGN)..).unwrap_or(&[]);
    }
    found
}

/// What an acknowledgement says: its error, and the text that follows the capped copy of the request's header.
fn fate(message: &Received<'_>, count: u32) -> Result<(), Refusal> {
    const MESSAGE_TEXT: u16 = 1;
    let code = number(message.body).unwrap_or(0) as i32;
    if code == 0 {
        return Ok(());
    }
    let said = message.body.get(4 + HEADER_LEN..).and_then(|rest| attribute(rest, MESSAGE_TEXT)).map(text);
    Err(Refusal {
        message: message.sequence,
        count,
        errno: Errno::from_raw_os_error(-code),
        text: said.unwrap_or_default(),
    })
}

fn enable(fd: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the pointer leads to an integer of the length given.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, std::ptr::from_ref(&on).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
