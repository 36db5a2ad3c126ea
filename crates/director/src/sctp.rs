//! SCTP (RFC 9260): the association states as IPVS keeps them, which looks at the first
//! chunk's type only, and the rewrite of ports, whose checksum is a CRC.

use crate::direct::Flow;
use crate::family::{Family, L3};
use crate::forward::Rewrite;
use crate::packet::Packet;
use crate::parse::{Extent, Fragment, Ip, Transport};
use crate::records::Conn;
use crate::tcp::{self, Direction, pack};
use dirigent_wire::{Be16, ChunkHeader, Ports, SctpHeader, crc32c};

/// A packet that is known to be SCTP: where the packet path's common part differs for SCTP
/// it asks [`Packet::SCTP`], so that the programs for TCP and UDP have none of it.
pub struct Association<'p, P>(pub &'p mut P);

impl<P: Packet> Packet for Association<'_, P> {
    const EASY: bool = false;
    const LAST: bool = P::LAST;
    const SCTP: bool = true;
    const PROBE: bool = P::PROBE;
    crate::packet::as_the_one_inside!();
}

/// An association's state; IPVS's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Nothing seen but an ICMP error.
    None = 0,
    /// An INIT from the client.
    Init1 = 1,
    /// It again.
    Init = 2,
    /// INIT ACK from the server.
    CookieSent = 3,
    /// COOKIE ECHO from the client.
    CookieReplied = 4,
    /// An INIT from the server.
    CookieWait = 5,
    /// INIT ACK from the client.
    Cookie = 6,
    /// COOKIE ECHO from the server.
    CookieEchoed = 7,
    /// Both sides talk.
    Established = 8,
    /// The server closes.
    ShutdownSent = 9,
    /// The client closes.
    ShutdownReceived = 10,
    /// The server has agreed.
    ShutdownAckSent = 11,
    /// Aborted by whom it was offered to.
    Rejected = 12,
    /// Over.
    Closed = 13,
}

/// Number of states.
pub const STATES: usize = 14;

/// Names as ipvsadm shows them, by state.
pub const NAMES: [&str; STATES] = [
    "NONE",
    "INIT1",
    "INIT",
    "C-SENT",
    "C-REPLIED",
    "C-WAIT",
    "COOKIE",
    "C-ECHOED",
    "ESTABLISHED",
    "S-SENT",
    "S-RECEIVED",
    "S-ACK-SENT",
    "REJECTED",
    "CLOSED",
];

/// Idle seconds after which an entry goes, by state. NONE: see [`crate::tcp::TIMEOUTS_S`].
pub const TIMEOUTS_S: [u32; STATES] = [3, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];

/// Whether associations in this state are counted as active.
#[inline(always)]
pub const fn active(state: u8) -> bool {
    state == State::Established as u8
}

/// What a packet's first chunk says. It stands in [`Transport::flags`].
pub mod event {
    /// DATA, SACK, HEARTBEAT, anything without a meaning of its own here.
    pub const DATA: u8 = 0;
    /// INIT.
    pub const INIT: u8 = 1;
    /// INIT ACK.
    pub const INIT_ACK: u8 = 2;
    /// COOKIE ECHO.
    pub const COOKIE_ECHO: u8 = 3;
    /// COOKIE ACK.
    pub const COOKIE_ACK: u8 = 4;
    /// SHUTDOWN.
    pub const SHUTDOWN: u8 = 5;
    /// SHUTDOWN ACK.
    pub const SHUTDOWN_ACK: u8 = 6;
    /// SHUTDOWN COMPLETE.
    pub const SHUTDOWN_COMPLETE: u8 = 7;
    /// ERROR.
    pub const ERROR: u8 = 8;
    /// ABORT.
    pub const ABORT: u8 = 9;
    /// There is no chunk: no state changes.
    pub const NOTHING: u8 = 10;
}

/// The event of a chunk of this type (RFC 9260 §3.2): four bits for each of the first 16.
#[inline(always)]
pub const fn event_of(chunk: u8) -> u8 {
    use event::*;
    const BY_TYPE: u64 = pack([
        DATA,              // DATA
        INIT,              // INIT
        INIT_ACK,          // INIT ACK
        DATA,              // SACK
        DATA,              // HEARTBEAT
        DATA,              // HEARTBEAT ACK
        ABORT,             // ABORT
        SHUTDOWN,          // SHUTDOWN
        SHUTDOWN_ACK,      // SHUTDOWN ACK
        ERROR,             // ERROR
        COOKIE_ECHO,       // COOKIE ECHO
        COOKIE_ACK,        // COOKIE ACK
        DATA,              // ECNE
        DATA,              // CWR
        SHUTDOWN_COMPLETE, // SHUTDOWN COMPLETE
        DATA,
    ]);
    if chunk > 15 { DATA } else { (BY_TYPE >> (4 * (chunk & 15)) & 15) as u8 }
}

#[rustfmt::skip]
mod table {
    use crate::tcp::row;
    use super::State::{Init1 as I1, Init as In, CookieSent as Cs, CookieReplied as Cr,
        CookieWait as Cw, Cookie as Co, CookieEchoed as Ce, Established as Es, ShutdownSent as Ss,
        ShutdownReceived as Sr, ShutdownAckSent as Sa, Rejected as Rj, Closed as Cl};

    /// Rows by event, for each direction.
    pub const IN: [u64; 10] = [
        // In state: NONE I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
        row![         Es, I1, In, Cs, Cr, Cw, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // data
        row![         I1, In, In, Cs, Cr, Cw, Co, Ce, Es, Ss, Sr, Sa, In, In ], // INIT
        row![         Cw, Cw, Cw, Cs, Cr, Co, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // INIT ACK
        row![         Cr, In, In, Cr, Cr, Cw, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // COOKIE ECHO
        row![         Es, I1, In, Cs, Cr, Cw, Co, Es, Es, Ss, Sr, Sa, Rj, Cl ], // COOKIE ACK
        row![         Sr, I1, In, Cs, Cr, Cw, Co, Ce, Sr, Ss, Sr, Sa, Rj, Cl ], // SHUTDOWN
        row![         Cl, In, In, Cs, Cr, Cw, Co, Ce, Es, Cl, Sr, Cl, Rj, Cl ], // SHUTDOWN ACK
        row![         Cl, Cl, Cl, Cs, Cr, Cw, Co, Ce, Es, Ss, Sr, Cl, Rj, Cl ], // SHUTDOWN COMPLETE
        row![         Cl, I1, In, Cs, Cr, Cw, Co, Cl, Es, Ss, Sr, Sa, Rj, Cl ], // ERROR
        row![         Cl, Cl, Cl, Cl, Cl, Rj, Cl, Cl, Cl, Cl, Cl, Cl, Cl, Cl ], // ABORT
    ];
    pub const OUT: [u64; 10] = [
        row![         Es, I1, In, Cs, Cr, Cw, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // data
        row![         Cw, Cw, Cw, Cw, Cw, Cw, Cw, Cw, Es, Cw, Cw, Cw, Cw, Cw ], // INIT
        row![         Cs, Cs, Cs, Cs, Cr, Cw, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // INIT ACK
        row![         Ce, Ce, Ce, Ce, Ce, Ce, Ce, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // COOKIE ECHO
        row![         Es, Es, Es, Es, Es, Es, Es, Es, Es, Ss, Sr, Sa, Rj, Cl ], // COOKIE ACK
        row![         Ss, Ss, Ss, Ss, Ss, Ss, Ss, Ss, Ss, Ss, Sr, Sa, Rj, Cl ], // SHUTDOWN
        row![         Sa, Sa, Sa, Sa, Sa, Cw, Co, Ce, Es, Sa, Sa, Sa, Rj, Cl ], // SHUTDOWN ACK
        row![         Cl, I1, In, Cs, Cr, Cw, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // SHUTDOWN COMPLETE
        row![         Cl, Cl, Cl, Cl, Cl, Cw, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // ERROR
        row![         Cl, Rj, Cl, Cl, Cl, Cl, Cl, Cl, Cl, Cl, Cl, Cl, Cl, Cl ], // ABORT
    ];
    pub const ONLY: [u64; 10] = [
        row![         Es, I1, In, Cs, Cr, Es, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // data
        row![         I1, In, In, In, In, In, Co, Ce, Es, Ss, Sr, Sa, In, In ], // INIT
        row![         Ce, Ce, Ce, Ce, Ce, Ce, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // INIT ACK
        row![         Es, Es, Es, Es, Es, Es, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // COOKIE ECHO
        row![         Es, I1, In, Es, Es, Cw, Es, Es, Es, Ss, Sr, Sa, Rj, Cl ], // COOKIE ACK
        row![         Sr, I1, In, Cs, Cr, Cw, Co, Ce, Sr, Ss, Sr, Sa, Rj, Cl ], // SHUTDOWN
        row![         Cl, In, In, Cs, Cr, Cw, Co, Ce, Cl, Cl, Sr, Cl, Rj, Cl ], // SHUTDOWN ACK
        row![         Cl, Cl, Cl, Cl, Cl, Cw, Co, Ce, Es, Ss, Cl, Cl, Rj, Cl ], // SHUTDOWN COMPLETE
        row![         Cl, I1, In, Cs, Cr, Cw, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl ], // ERROR
        row![         Cl, Cl, Cl, Cl, Cl, Rj, Cl, Cl, Cl, Cl, Cl, Cl, Cl, Cl ], // ABORT
    ];
}

/// The rows of all directions.
static ROWS: [[u64; 10]; 3] = [table::IN, table::OUT, table::ONLY];

/// Every state stays.
const STAY: u64 = pack([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

/// The state after `event` in `state`.
#[inline(always)]
pub fn next(direction: Direction, event: u8, state: u8) -> u8 {
    tcp::read(row_of(direction, event), state)
}

/// The row of `event`: [`tcp::read`] says the next state.
#[inline(always)]
pub(crate) fn row_of(direction: Direction, event: u8) -> u64 {
    let rows = match direction {
        Direction::In => ROWS.first(),
        Direction::Out => ROWS.get(1),
        Direction::InOnly => ROWS.get(2),
    };
    match rows.and_then(|rows| rows.get(usize::from(event & 15))) {
        Some(row) => *row,
        None => STAY,
    }
}

/// Reads the SCTP header of `ip` and the type of what its first chunk is.
#[inline(always)]
pub fn transport<P: Packet, A>(p: &P, ip: &Ip<A>) -> (Extent, Transport) {
    const HEADER: u32 = size_of::<SctpHeader>() as u32;
    const CHUNK: u32 = size_of::<ChunkHeader>() as u32;
    let mut l4 = Transport { flags: event::NOTHING, ..Transport::default() };
    l4.check_at = ip.l4 + size_of::<Ports>() + 4;
    let room = ip.l4_len();
    if room < 4 {
        return (Extent::Nothing, l4);
    }
    let Some(ports) = p.get::<Ports>(ip.l4) else { return (Extent::Nothing, l4) };
    (l4.sport, l4.dport) = (ports.src, ports.dst);
    if room < HEADER || p.get::<SctpHeader>(ip.l4).is_none() {
        return (Extent::Ports, l4);
    }
    if room < HEADER + CHUNK {
        return (Extent::Full, l4);
    }
    let at = ip.l4 + HEADER as usize;
    let Some(first) = p.get::<ChunkHeader>(at).copied() else { return (Extent::Full, l4) };
    l4.flags = event_of(first.kind);
    let bundles = l4.flags == event::COOKIE_ECHO || l4.flags == event::COOKIE_ACK;
    if bundles && first.len.get() >= CHUNK as u16 {
        // An ABORT behind them counts (RFC 9260 §3.3.7).
        let second = at + ((usize::from(first.len.get()) + 3) & 0x1fffc);
        if second + CHUNK as usize <= L3 + ip.len as usize
            && p.get::<ChunkHeader>(second & 0x7fff).is_some_and(|chunk| event_of(chunk.kind) == event::ABORT)
        {
            l4.flags = event::ABORT;
        }
    }
    (Extent::Full, l4)
}

/// What an offload has yet to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfinished {
    /// Nothing.
    No,
    /// The CRC: the field is 0, and whoever computes it takes it for part of the packet.
    Crc,
    /// To be made several packets of.
    Segments,
}

/// Nobody says in BPF whether the CRC is yet to be computed; but then the sender has left 0
/// there, which as a CRC comes once in 2^32 packets.
#[inline(always)]
pub fn unfinished<F: Family, P: Packet>(p: &P, flow: &Flow<F>) -> Unfinished {
    if p.gso_size() != 0 {
        return Unfinished::Segments;
    }
    let first = flow.ip.fragment != Fragment::Later;
    match p.get::<SctpHeader>(flow.ip.l4) {
        Some(header) if first && header.check.get() == 0 => Unfinished::Crc,
        _ => Unfinished::No,
    }
}

/// Whether the rewrite changes a port of a packet in pieces: the CRC covers all of it, and
/// where it ends nobody knows yet.
#[inline(always)]
pub fn changes_a_piece<F: Family>(rewrite: &Rewrite<F::Addr>, flow: &Flow<F>) -> bool {
    let old = if rewrite.source { flow.key.sport } else { flow.key.dport };
    rewrite.nat && flow.ip.fragment != Fragment::Whole && old != rewrite.port
}

/// What the CRC changes by where the entry changes the port. Asked for early: what comes
/// later the verifier goes through many times, and this is long.
#[inline(always)]
pub fn crc_change<F: Family>(conn: &Conn<F::Addr>, flow: &Flow<F>) -> u32 {
    let Rewrite { nat, source, port, .. } = Rewrite::of(conn);
    let old = if source { flow.key.sport } else { flow.key.dport };
    if !nat || old == port {
        return 0;
    }
    crc32c::port_change(old.raw(), port.raw(), source, flow.ip.l4_len())
}

/// Rewrites the port, and the CRC with it. One that is wrong stays wrong (difference C16).
#[inline(always)]
pub fn rewrite_port<F: Family, P: Packet>(p: &mut P, flow: &Flow<F>, port: Be16, source: bool) -> bool {
    let Some(header) = p.get_mut::<SctpHeader>(flow.ip.l4) else { return false };
    if source {
        header.ports.src = port;
    } else {
        header.ports.dst = port;
    }
    // What is yet to be computed will be of the packet as it is then.
    if header.check.get() != 0 {
        header.check = header.check.xor_le(flow.l4.header);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_types_are_those_of_rfc_9260() {
        assert_eq!(event_of(1), event::INIT);
        assert_eq!(event_of(6), event::ABORT);
        assert_eq!(event_of(10), event::COOKIE_ECHO);
        assert_eq!(event_of(14), event::SHUTDOWN_COMPLETE);
        assert_eq!((event_of(0), event_of(3), event_of(15), event_of(16), event_of(193)), (0, 0, 0, 0, 0));
    }

    #[test]
    fn an_association_opens_and_closes() {
        let mut s = State::None as u8;
        let mut see = |d, e| {
            s = next(d, e, s);
            s
        };
        assert_eq!(see(Direction::In, event::INIT), State::Init1 as u8);
        assert_eq!(see(Direction::Out, event::INIT_ACK), State::CookieSent as u8);
        assert_eq!(see(Direction::In, event::COOKIE_ECHO), State::CookieReplied as u8);
        assert_eq!(see(Direction::Out, event::COOKIE_ACK), State::Established as u8);
        assert_eq!(see(Direction::In, event::SHUTDOWN), State::ShutdownReceived as u8);
        assert_eq!(see(Direction::Out, event::SHUTDOWN_ACK), State::ShutdownAckSent as u8);
        assert_eq!(see(Direction::In, event::SHUTDOWN_COMPLETE), State::Closed as u8);
        assert_eq!(see(Direction::In, event::NOTHING), State::Closed as u8);
    }
}
