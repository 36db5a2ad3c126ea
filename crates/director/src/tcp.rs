//! TCP connection states as IPVS keeps them. IPVS looks at flags only, never at
//! sequence numbers or windows; compare RFC 9293 §3.3.2, figure 5.

use dirigent_wire::TcpHeader;

/// A TCP state; IPVS's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Nothing seen but an ICMP error.
    None = 0,
    /// Both sides talk.
    Established = 1,
    /// A SYN from the server's side.
    SynSent = 2,
    /// A SYN from the client.
    SynRecv = 3,
    /// The server closed.
    FinWait = 4,
    /// Both closed.
    TimeWait = 5,
    /// Reset or over.
    Close = 6,
    /// The client closed.
    CloseWait = 7,
    /// Never entered in practice.
    LastAck = 8,
    /// Expected (data connections).
    Listen = 9,
    /// SYN seen, defence mode.
    SynAck = 10,
    /// Not IPVS's: its server failed, and whoever sends gets a reset ([`crate::reset`]). No packet
    /// leaves it, and its timeout is 0, so that each finds the connection at its end.
    Reset = 11,
}

/// Names as ipvsadm shows them, by state.
pub const NAMES: [&str; 12] = [
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
    "RESET",
];

/// Idle seconds after which an entry goes, by state. An entry is born with 3 s
/// and NONE is only ever the state at birth, so that is NONE's value here.
pub const TIMEOUTS_S: [u32; 11] = [3, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];

/// Bit i: state i counts as active.
const ACTIVE: u32 = 1 << State::Established as u32
    | 1 << State::SynSent as u32
    | 1 << State::SynRecv as u32
    | 1 << State::SynAck as u32;

/// Whether connections in this state are counted as active.
#[inline(always)]
pub const fn active(state: u8) -> bool {
    ACTIVE >> (state & 31) & 1 == 1
}

/// Who speaks, as the director sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The client, of a connection whose replies are seen.
    In,
    /// The server.
    Out,
    /// The client, of a connection whose replies go another way (DR, TUN).
    InOnly,
}

/// What a packet's flags say: the first of RST, SYN, FIN, ACK that is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// SYN.
    Syn,
    /// FIN.
    Fin,
    /// ACK alone.
    Ack,
    /// RST.
    Rst,
    /// None of them.
    Nothing,
}

impl Event {
    /// Of a packet with these flags.
    #[inline(always)]
    pub const fn of(flags: u8) -> Self {
        if flags & TcpHeader::RST != 0 {
            Event::Rst
        } else if flags & TcpHeader::SYN != 0 {
            Event::Syn
        } else if flags & TcpHeader::FIN != 0 {
            Event::Fin
        } else if flags & TcpHeader::ACK != 0 {
            Event::Ack
        } else {
            Event::Nothing
        }
    }
}

/// Four bits for each number, the first lowest: a row of a table without memory and without
/// a bounds check.
pub(crate) const fn pack<const N: usize>(numbers: [u8; N]) -> u64 {
    assert!(N <= 16);
    let (mut packed, mut i) = (0, 0);
    while i < N {
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
        let number = numbers[i];
        assert!(number < 16);
        packed |= (number as u64) << (4 * i);
        i += 1;
    }
    packed
}

/// A row of a table of states: the next state, for each state it is read in.
macro_rules! row {
    ($($state:expr),* $(,)?) => { $crate::tcp::pack([$($state as u8),*]) };
}
pub(crate) use row;

#[rustfmt::skip]
mod table {
    use super::State::{Established as Es, SynSent as Ss, SynRecv as Sr, FinWait as Fw,
        TimeWait as Tw, Close as Cl, CloseWait as Cw, LastAck as La, Listen as Li, SynAck as Sa, Reset as Re};

    // In state:                        NONE ESTA SYNS SYNR FINW TIMW CLOS CLOW LACK LIST SYNA RESET
    pub const IN_SYN: u64      = row![ Sr,  Es,  Es,  Sr,  Sr,  Sr,  Sr,  Sr,  Sr,  Sr,  Sr,  Re ];
    pub const IN_FIN: u64      = row![ Cl,  Cw,  Ss,  Tw,  Tw,  Tw,  Cl,  Cw,  La,  Li,  Tw,  Re ];
    pub const IN_ACK: u64      = row![ Es,  Es,  Ss,  Es,  Fw,  Tw,  Cl,  Cw,  Cl,  Li,  Es,  Re ];
    pub const IN_RST: u64      = row![ Cl,  Cl,  Cl,  Sr,  Cl,  Cl,  Cl,  Cl,  La,  Li,  Sr,  Re ];
    pub const OUT_SYN: u64     = row![ Ss,  Es,  Ss,  Sr,  Ss,  Ss,  Ss,  Ss,  Ss,  Li,  Sr,  Re ];
    pub const OUT_FIN: u64     = row![ Tw,  Fw,  Ss,  Tw,  Fw,  Tw,  Cl,  Tw,  La,  Li,  Tw,  Re ];
    pub const OUT_ACK: u64     = row![ Es,  Es,  Ss,  Es,  Fw,  Tw,  Cl,  Cw,  La,  Es,  Es,  Re ];
    pub const OUT_RST: u64     = row![ Cl,  Cl,  Ss,  Cl,  Cl,  Tw,  Cl,  Cl,  Cl,  Cl,  Cl,  Re ];
    pub const ONLY_SYN: u64    = row![ Sr,  Es,  Es,  Sr,  Sr,  Sr,  Sr,  Sr,  Sr,  Sr,  Sr,  Re ];
    pub const ONLY_FIN: u64    = row![ Cl,  Fw,  Ss,  Tw,  Fw,  Tw,  Cl,  Cw,  La,  Li,  Tw,  Re ];
    pub const ONLY_ACK: u64    = row![ Es,  Es,  Ss,  Es,  Fw,  Tw,  Cl,  Cw,  Cl,  Li,  Es,  Re ];
    pub const ONLY_RST: u64    = row![ Cl,  Cl,  Cl,  Sr,  Cl,  Cl,  Cl,  Cl,  La,  Li,  Cl,  Re ];
    pub const NOTHING: u64     = row![ Cl,  Cl,  Cl,  Cl,  Cl,  Cl,  Cl,  Cl,  Cl,  Cl,  Cl,  Re ];

    // With `secure_tcp` these instead: who has only asked stays in SYN_RECV or SYNACK.
    pub const SECURE_IN_SYN: u64   = row![ Sr,  Es,  Es,  Sr,  Sr,  Sr,  Sr,  Sr,  Sr,  Sr,  Sa,  Re ];
    pub const SECURE_IN_FIN: u64   = row![ Cl,  Cw,  Ss,  Tw,  Tw,  Tw,  Cl,  Cw,  La,  Li,  Sa,  Re ];
    pub const SECURE_IN_ACK: u64   = row![ Es,  Es,  Ss,  Sr,  Fw,  Tw,  Cl,  Cw,  Cl,  Li,  Sa,  Re ];
    pub const SECURE_IN_RST: u64   = row![ Cl,  Cl,  Cl,  Sr,  Cl,  Cl,  Cl,  Cl,  La,  Li,  Cl,  Re ];
    pub const SECURE_OUT_SYN: u64  = row![ Ss,  Es,  Ss,  Sa,  Ss,  Ss,  Ss,  Ss,  Ss,  Li,  Sa,  Re ];
    pub const SECURE_ONLY_SYN: u64 = row![ Sa,  Es,  Es,  Sr,  Sa,  Sa,  Sa,  Sa,  Sa,  Sa,  Sa,  Re ];
}

/// What a row says of `state`.
#[inline(always)]
pub(crate) const fn read(row: u64, state: u8) -> u8 {
    (row >> (4 * (state & 15)) & 15) as u8
}

/// The state after `event` in `state`.
#[inline(always)]
pub const fn next(direction: Direction, event: Event, state: u8) -> u8 {
    read(row_of(direction, event), state)
}

/// The row of `event`: [`read`] says the next state.
#[inline(always)]
pub(crate) const fn row_of(direction: Direction, event: Event) -> u64 {
    match (direction, event) {
        (_, Event::Nothing) => table::NOTHING,
        (Direction::In, Event::Syn) => table::IN_SYN,
        (Direction::In, Event::Fin) => table::IN_FIN,
        (Direction::In, Event::Ack) => table::IN_ACK,
        (Direction::In, Event::Rst) => table::IN_RST,
        (Direction::Out, Event::Syn) => table::OUT_SYN,
        (Direction::Out, Event::Fin) => table::OUT_FIN,
        (Direction::Out, Event::Ack) => table::OUT_ACK,
        (Direction::Out, Event::Rst) => table::OUT_RST,
        (Direction::InOnly, Event::Syn) => table::ONLY_SYN,
        (Direction::InOnly, Event::Fin) => table::ONLY_FIN,
        (Direction::InOnly, Event::Ack) => table::ONLY_ACK,
        (Direction::InOnly, Event::Rst) => table::ONLY_RST,
    }
}

/// The same with `secure_tcp` (ipvs-semantics §3.5). Where [`row_of`] stays in a state, this stays
/// too, but for a server's SYN.
#[inline(always)]
pub(crate) const fn secure_row(direction: Direction, event: Event) -> u64 {
    match (direction, event) {
        (Direction::In, Event::Syn) => table::SECURE_IN_SYN,
        (Direction::In, Event::Fin) => table::SECURE_IN_FIN,
        (Direction::In, Event::Ack) => table::SECURE_IN_ACK,
        (Direction::In, Event::Rst) => table::SECURE_IN_RST,
        (Direction::Out, Event::Syn) => table::SECURE_OUT_SYN,
        (Direction::InOnly, Event::Syn) => table::SECURE_ONLY_SYN,
        _ => row_of(direction, event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_opens_and_closes() {
        let mut s = State::None as u8;
        let mut see = |d, e| {
            s = next(d, e, s);
            s
        };
        assert_eq!(see(Direction::In, Event::Syn), State::SynRecv as u8);
        assert_eq!(see(Direction::Out, Event::Syn), State::SynRecv as u8);
        assert_eq!(see(Direction::In, Event::Ack), State::Established as u8);
        assert_eq!(see(Direction::In, Event::Fin), State::CloseWait as u8);
        assert_eq!(see(Direction::Out, Event::Fin), State::TimeWait as u8);
        assert_eq!(see(Direction::In, Event::Rst), State::Close as u8);
    }

    #[test]
    fn rst_of_the_client_leaves_syn_recv() {
        assert_eq!(next(Direction::In, Event::Rst, State::SynRecv as u8), State::SynRecv as u8);
        assert_eq!(next(Direction::Out, Event::Rst, State::SynRecv as u8), State::Close as u8);
    }

    /// The packet path asks the ordinary table alone whether a packet changes anything,
    /// unless it is a server's SYN, FIN or RST.
    #[test]
    fn what_the_ordinary_table_keeps_the_secure_one_keeps() {
        let next_secure = |direction, event, state| read(secure_row(direction, event), state);
        for direction in [Direction::In, Direction::Out, Direction::InOnly] {
            for event in [Event::Syn, Event::Fin, Event::Ack, Event::Rst, Event::Nothing] {
                for state in (0..11).filter(|state| next(direction, event, *state) == *state) {
                    let moves = next_secure(direction, event, state) != state;
                    assert_eq!(
                        moves,
                        (direction, event, state) == (Direction::Out, Event::Syn, State::SynRecv as u8),
                        "{direction:?} {event:?} {state}"
                    );
                }
            }
        }
    }

    #[test]
    fn with_secure_tcp_only_the_server_makes_a_connection_of_a_request() {
        let next_secure = |direction, event, state| read(secure_row(direction, event), state);
        let mut s = State::None as u8;
        let mut see = |d, e| {
            s = next_secure(d, e, s);
            s
        };
        assert_eq!(see(Direction::In, Event::Syn), State::SynRecv as u8);
        assert_eq!(see(Direction::In, Event::Ack), State::SynRecv as u8);
        assert_eq!(see(Direction::Out, Event::Syn), State::SynAck as u8);
        assert_eq!(see(Direction::In, Event::Ack), State::SynAck as u8);
        assert_eq!(see(Direction::Out, Event::Ack), State::Established as u8);
        assert_eq!(next_secure(Direction::InOnly, Event::Syn, State::None as u8), State::SynAck as u8);
    }

    #[test]
    fn nothing_leaves_a_reset() {
        for direction in [Direction::In, Direction::Out, Direction::InOnly] {
            for event in [Event::Syn, Event::Fin, Event::Ack, Event::Rst, Event::Nothing] {
                assert_eq!(next(direction, event, State::Reset as u8), State::Reset as u8);
            }
        }
    }

    #[test]
    fn only_four_states_are_active() {
        let active = (0..12).filter(|s| super::active(*s)).collect::<std::vec::Vec<_>>();
        assert_eq!(active, [1, 2, 3, 10]);
    }
}
