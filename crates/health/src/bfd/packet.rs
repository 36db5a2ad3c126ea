//! Control packets (RFC 5880 section 4.1), and what a received one must be (section 6.8.6).
//!
//! ```text
//!  0                   1                   2                   3
//!  |Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//!  |                       My Discriminator                        |
//!  |                      Your Discriminator                       |
//!  |                 Desired Min TX Interval (µs)                  |
//!  |                 Required Min RX Interval (µs)                 |
//!  |               Required Min Echo RX Interval (µs)              |
//! ```

use std::fmt;

/// Bytes of a packet without authentication.
pub const LENGTH: usize = 24;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Held down by its operator.
    AdminDown,
    /// Down, or just made.
    Down,
    /// The neighbour is heard, and may not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

/// A control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last changed; [`diagnostic`] has words.
    pub diagnostic: u8,
    /// State of the sender's session.
    pub state: State,
    /// It wants an answer with `last`.
    pub poll: bool,
    /// It answers a packet with `poll` (the Final bit).
    pub last: bool,
    /// The sender's forwarding outlives its control plane.
    pub independent: bool,
    /// An authentication section follows, which is not read.
    pub authentication: bool,
    /// The sender wants no more periodic packets.
    pub demand: bool,
    /// So many packets missed are a failure.
    pub multiplier: u8,
    /// The sender's name of the session.
    pub mine: u32,
    /// The receiver's name of it; 0: not known yet.
    pub yours: u32,
    /// Least time between the packets that the sender wants to send, µs.
    pub desired_min_tx_us: u32,
    /// Least time between those that it can take, µs; 0: it wants none.
    pub required_min_rx_us: u32,
    /// The same for echo; 0: it does no echo.
    pub required_min_echo_rx_us: u32,
}

/// Why a packet was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It came through too many routers (RFC 5881 section 5).
    TooFar {
        /// So many.
        hops: u8,
    },
    /// There is no whole header.
    Short,
    /// Another version than 1.
    Version(u8),
    /// A length less than the header's.
    LengthTooSmall(u8),
    /// A length more than there is.
    LengthTooLarge(u8),
    /// A detection multiplier of 0.
    Multiplier,
    /// A multipoint session.
    Multipoint,
    /// No name of the sender's.
    NoDiscriminator,
    /// No session of that name.
    NoSession(u32),
    /// It names no session, though the sender's state says that it knows ours.
    Nameless(State),
    /// No session with that neighbour.
    NoNeighbour,
    /// Authentication of this type, which no session here uses.
    Authentication,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFar { hops } => write!(f, "from {hops} hops away"),
            Self::Short => f.write_str("too short"),
            Self::Version(version) => write!(f, "version {version}"),
            Self::LengthTooSmall(length) => write!(f, "length {length} is too small"),
            Self::LengthTooLarge(length) => write!(f, "length {length} is more than there is"),
            Self::Multiplier => f.write_str("detection multiplier 0"),
            Self::Multipoint => f.write_str("multipoint"),
            Self::NoDiscriminator => f.write_str("no discriminator"),
            Self::NoSession(name) => write!(f, "no session {name:#010x}"),
            Self::Nameless(state) => write!(f, "state {state:?} without a discriminator of ours"),
            Self::NoNeighbour => f.write_str("no session with that neighbour"),
            Self::Authentication => f.write_str("authentication, which is not used here"),
        }
    }
}

impl Packet {
    /// Reads a packet, in the order of section 6.8.6 up to where a session must be known. What follows within the
    /// datagram is ignored.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let (&[first, flags, multiplier, length], words) = bytes.split_first_chunk().ok_or(Refusal::Short)?;
        if first >> 5 != 1 {
            return Err(Refusal::Version(first >> 5));
        }
        let authentication = flags & AUTHENTICATION != 0;
        // The authentication section has its type and length at least.
        let least = if authentication { LENGTH + 2 } else { LENGTH };
        if usize::from(length) < least {
            return Err(Refusal::LengthTooSmall(length));
        }
        if usize::from(length) > bytes.len() {
            return Err(Refusal::LengthTooLarge(length));
        }
        if multiplier == 0 {
            return Err(Refusal::Multiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(Refusal::Multipoint);
        }
        let mut words = words.iter().copied();
        let mut word = || (0..4).filter_map(|_| words.next()).fold(0, |word, byte| word << 8 | u32::from(byte));
        let packet = Self {
            diagnostic: first & 0x1f,
            state: match flags >> 6 {
                0 => State::AdminDown,
                1 => State::Down,
                2 => State::Init,
                _ => State::Up,
            },
            poll: flags & POLL != 0,
            last: flags & FINAL != 0,
            independent: flags & INDEPENDENT != 0,
            authentication,
            demand: flags & DEMAND != 0,
            multiplier,
            mine: word(),
            yours: word(),
            desired_min_tx_us: word(),
            required_min_rx_us: word(),
            required_min_echo_rx_us: word(),
        };
        if packet.mine == 0 { Err(Refusal::NoDiscriminator) } else { Ok(packet) }
    }

    /// The bytes. There is no authentication in what is sent here.
    pub fn emit(&self) -> [u8; LENGTH] {
        let state = match self.state {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        };
        let flag = |set, bit| if set { bit } else { 0 };
        let flags = state << 6
            | flag(self.poll, POLL)
            | flag(self.last, FINAL)
            | flag(self.independent, INDEPENDENT)
            | flag(self.demand, DEMAND);
        let [m0, m1, m2, m3] = self.mine.to_be_bytes();
        let [y0, y1, y2, y3] = self.yours.to_be_bytes();
        let [t0, t1, t2, t3] = self.desired_min_tx_us.to_be_bytes();
        let [r0, r1, r2, r3] = self.required_min_rx_us.to_be_bytes();
        let [e0, e1, e2, e3] = self.required_min_echo_rx_us.to_be_bytes();
        #[rustfmt::skip]
        let bytes = [
            1 << 5 | self.diagnostic & 0x1f, flags, self.multiplier, 24,
            m0, m1, m2, m3, y0, y1, y2, y3, t0, t1, t2, t3, r0, r1, r2, r3, e0, e1, e2, e3,
        ];
        bytes
    }
}

/// The session a packet belongs to, and the rest of the checks before it is taken: by our discriminator if the packet
/// has it, else by whom it comes from, as only a neighbour that is down may say nothing.
pub fn find<T>(
    packet: &Packet,
    by_discriminator: impl FnOnce(u32) -> Option<T>,
    by_neighbour: impl FnOnce() -> Option<T>,
) -> Result<T, Refusal> {
    let session = match (packet.yours, packet.state) {
        (0, State::Init | State::Up) => return Err(Refusal::Nameless(packet.state)),
        (0, State::Down | State::AdminDown) => by_neighbour().ok_or(Refusal::NoNeighbour)?,
        (name, _) => by_discriminator(name).ok_or(Refusal::NoSession(name))?,
    };
    if packet.authentication { Err(Refusal::Authentication) } else { Ok(session) }
}

/// Words for a diagnostic code (section 4.1).
pub fn diagnostic(code: u8) -> &'static str {
    match code {
        0 => "no diagnostic",
        1 => "control detection time expired",
        2 => "echo function failed",
        3 => "neighbour signalled session down",
        4 => "forwarding plane reset",
        5 => "path down",
        6 => "concatenated path down",
        7 => "administratively down",
        8 => "reverse concatenated path down",
        _ => "unknown diagnostic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BYTES: [u8; LENGTH] = [
        0x23, 0xea, 5, 24, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0, 0x0f, 0x42, 0x40, 0, 0, 0x27, 0x10, 0, 0,
        0, 1,
    ];

    fn packet() -> Packet {
        Packet {
            diagnostic: 3,
            state: State::Up,
            poll: true,
            last: false,
            independent: true,
            authentication: false,
            demand: true,
            multiplier: 5,
            mine: 0x1234_5678,
            yours: 0x9abc_def0,
            desired_min_tx_us: 1_000_000,
            required_min_rx_us: 10_000,
            required_min_echo_rx_us: 1,
        }
    }

    #[test]
    fn both_ways() {
        assert_eq!(Packet::parse(&BYTES), Ok(packet()));
        assert_eq!(packet().emit(), BYTES);
        let other = Packet { state: State::AdminDown, poll: false, last: true, demand: false, ..packet() };
        assert_eq!(Packet::parse(&other.emit()), Ok(other));
        assert_eq!(other.emit()[1], 0x18);
        // What follows does not matter.
        assert_eq!(Packet::parse(&[&BYTES[..], &[1, 2, 3]].concat()), Ok(packet()));
    }

    #[test]
    fn refusals_in_order() {
        // Each spoils one more thing; the first in RFC 5880's order is told.
        let mut bytes = [&BYTES[..], &[0; 4]].concat();
        let mut told = Vec::new();
        bytes[4..8].fill(0);
        told.push(Packet::parse(&bytes).unwrap_err());
        bytes[1] |= MULTIPOINT;
        told.push(Packet::parse(&bytes).unwrap_err());
        bytes[2] = 0;
        told.push(Packet::parse(&bytes).unwrap_err());
        bytes[3] = 29;
        told.push(Packet::parse(&bytes).unwrap_err());
        bytes[3] = 23;
        told.push(Packet::parse(&bytes).unwrap_err());
        bytes[0] = 0x43;
        told.push(Packet::parse(&bytes).unwrap_err());
        told.push(Packet::parse(&bytes[..3]).unwrap_err());
        assert_eq!(
            told,
            [
                Refusal::NoDiscriminator,
                Refusal::Multipoint,
                Refusal::Multiplier,
                Refusal::LengthTooLarge(29),
                Refusal::LengthTooSmall(23),
                Refusal::Version(2),
                Refusal::Short,
            ]
        );
        // With authentication two bytes more are needed.
        let mut bytes = [&BYTES[..], &[1, 2]].concat();
        bytes[1] |= AUTHENTICATION;
        assert_eq!(Packet::parse(&bytes), Err(Refusal::LengthTooSmall(24)));
        bytes[3] = 26;
        assert_eq!(Packet::parse(&bytes), Ok(Packet { authentication: true, ..packet() }));
        for length in 4..LENGTH {
            assert_eq!(Packet::parse(&BYTES[..length]), Err(Refusal::LengthTooLarge(24)));
        }
    }

    #[test]
    fn sessions_are_found() {
        let found = |packet: Packet| find(&packet, |name| (name == 7).then_some("name"), || Some("neighbour"));
        let none = |packet: Packet| find(&packet, |_| None::<()>, || None);
        let nameless = |state| Packet { yours: 0, state, ..packet() };
        assert_eq!(found(Packet { yours: 7, ..packet() }), Ok("name"));
        assert_eq!(found(Packet { yours: 8, ..packet() }), Err(Refusal::NoSession(8)));
        assert_eq!(found(nameless(State::Down)), Ok("neighbour"));
        assert_eq!(found(nameless(State::AdminDown)), Ok("neighbour"));
        for state in [State::Init, State::Up] {
            assert_eq!(found(nameless(state)), Err(Refusal::Nameless(state)));
        }
        assert_eq!(none(nameless(State::Down)), Err(Refusal::NoNeighbour));
        let authenticated = Packet { yours: 7, authentication: true, ..packet() };
        assert_eq!(
            (found(authenticated), none(authenticated)),
            (Err(Refusal::Authentication), Err(Refusal::NoSession(7)))
        );
    }

    proptest! {
        #[test]
        fn any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..60), nearly in any::<bool>()) {
            if nearly && bytes.len() > 4 {
                (bytes[0], bytes[3]) = (0x20 | bytes[0] & 0x1f, 24);
            }
            if let Ok(packet) = Packet::parse(&bytes) {
                let again = Packet { authentication: false, ..packet };
                prop_assert_eq!(Packet::parse(&again.emit()), Ok(again));
            }
        }
    }
}
