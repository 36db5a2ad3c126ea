//! A netlink socket that asks and waits for the answer.
//!
//! The kernel works on a request inside the call that sends it, so an answer never waits for anything but the kernel's own
//! lock: calling this from an async task is fine. A socket belongs to the network namespace of the thread that opened it,
//! for its whole life.

pub(crate) mod codec;
mod ops;

pub use ops::{AddressOptions, RouteSpec, VethEnd};
pub(crate) use ops::{family_of, link_header};

use crate::error::{Error, Result, libc};
use codec::{Attributes, Message, Messages, read_str, read_u32};
use netlink_sys::{Socket, SocketAddr, protocols};
use std::io;

pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// How often a dump that the kernel reports as inconsistent is started again.
const DUMP_TRIES: usize = 8;

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// A connection to the kernel's route netlink in one network namespace: changes and reads links, addresses,
/// routes and neighbours.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Route netlink in the namespace of the calling thread.
    pub fn route() -> Result<Self> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Wanted for their better error texts and filters only: an old kernel without them still works.
            let _ = socket.set_ext_ack(true);
            Ok(socket)
        };
        let place = "opening a route netlink socket".into();
        let socket = open().map_err(|source| Error::System { place, source })?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends a request, waits for the whole answer. `place` says what is asked, for the error.
    pub(crate) fn request(&mut self, message: Message, place: &dyn Fn() -> String) -> Result<Vec<Reply>> {
        for _ in 0..DUMP_TRIES {
            if let Some(replies) = self.attempt(message.clone(), place)? {
                return Ok(replies);
            }
        }
        Err(Error::refused(
            format!("{}: the table changed faster than it could be read", place()),
            "try again when fewer changes are under way",
        ))
    }

    /// One try; `None` when a dump was disturbed by a change.
    fn attempt(&mut self, message: Message, place: &dyn Fn() -> String) -> Result<Option<Vec<Reply>>> {
        let failed = |source: io::Error| Error::System { place: place(), source };
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let dump = message.flags() & NLM_F_DUMP == NLM_F_DUMP;
        self.socket.send(&message.finish(sequence), 0).map_err(failed)?;
        let mut replies = Vec::new();
        let mut disturbed = false;
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(failed)?,
            };
            for raw in Messages(&buffer) {
                if raw.sequence != sequence {
                    continue;
                }
                disturbed |= raw.flags & NLM_F_DUMP_INTR != 0;
                match raw.kind {
                    NLMSG_DONE => return Ok((!disturbed).then_some(replies)),
                    NLMSG_ERROR => {
                        check_error(raw.body, raw.flags, place)?;
                        if !dump {
                            return Ok(Some(replies));
                        }
                    }
                    kind => replies.push(Reply { kind, body: raw.body.to_vec() }),
                }
            }
        }
    }

    /// Sends a request whose answer is an acknowledgement.
    pub(crate) fn ask(&mut self, message: Message, place: &dyn Fn() -> String) -> Result<()> {
        self.request(message, place).map(|_| ())
    }
}

/// Reads `struct nlmsgerr`: zero is an acknowledgement.
fn check_error(body: &[u8], flags: u16, place: &dyn Fn() -> String) -> Result<()> {
    let Some(code) = read_u32(body, 0) else {
        return Err(Error::malformed(place(), "an error message without a number"));
    };
    if code == 0 {
        return Ok(());
    }
    let message = (flags & NLM_F_ACK_TLVS != 0).then(|| {
        let request = if flags & NLM_F_CAPPED != 0 { 16 } else { read_u32(body, 4).unwrap_or(16) as usize };
        Attributes::after(body, 4 + request)
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
            .map(|(_, text)| read_str(text))
    });
    Err(Error::Netlink {
        place: place(),
        source: io::Error::from_raw_os_error((code as i32).wrapping_neg()),
        message: message.flatten(),
    })
}

/// Turns "it is not there" into `None`.
pub(crate) fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.errno(),
                Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
