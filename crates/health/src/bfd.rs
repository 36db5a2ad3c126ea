//! BFD (RFC 5880) over UDP, one hop (RFC 5881) or several (RFC 5883): asynchronous mode, without authentication and echo.
//!
//! [`packet`] is the codec, with the checks that a packet must pass; [`session`] the protocol. Neither has a clock or a
//! socket: the runner keeps the sessions, by discriminator and by neighbour ([`packet::find`]), and sends what they
//! give it.

pub mod packet;
pub mod session;

pub use packet::{Packet, Refusal, State, find};
pub use session::{Actions, Session, Settings};

use crate::check::Bfd;

/// Where control packets go to, one hop (RFC 5881 section 4).
pub const PORT: u16 = 3784;
/// The same over several hops (RFC 5883 section 5).
pub const MULTIHOP_PORT: u16 = 4784;
/// Where they come from: one of these, for a session always the same and no other's (RFC 5881 section 4).
pub const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// The port that both sides of a check's session listen on.
pub fn port(bfd: &Bfd) -> u16 {
    if bfd.multihop { MULTIHOP_PORT } else { PORT }
}

/// TTL or hop limit of what is sent.
pub fn ttl(bfd: &Bfd) -> u8 {
    bfd.ttl.unwrap_or(u8::MAX)
}

/// Whether a packet that came with this TTL came from as near as it must: the neighbour sends with 255, and no router
/// can make a smaller one larger (RFC 5881 section 5, RFC 5082).
pub fn near_enough(bfd: &Bfd, ttl: u8) -> Result<(), Refusal> {
    let hops = u8::MAX - ttl;
    if bfd.max_hops.is_none_or(|most| hops <= most) { Ok(()) } else { Err(Refusal::TooFar { hops }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_hops() {
        let bfd = Bfd::default();
        assert_eq!((port(&bfd), port(&Bfd { multihop: true, ..bfd.clone() })), (3784, 4784));
        assert_eq!((ttl(&bfd), ttl(&Bfd { ttl: Some(9), ..bfd.clone() })), (255, 9));
        for (most, ttl, well) in [
            (Some(0), 255, true),
            (Some(0), 254, false),
            (Some(2), 253, true),
            (Some(2), 252, false),
            (Some(254), 1, true),
            (Some(254), 0, false),
            (None, 0, true),
        ] {
            assert_eq!(near_enough(&Bfd { max_hops: most, ..bfd.clone() }, ttl).is_ok(), well, "{most:?} {ttl}");
        }
    }
}
