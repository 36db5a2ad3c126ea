//! QUIC: a client that comes from another address or port goes on with its server, which
//! stands in the connection ids that the server gave it.
//!
//! Only what every version has in common is read (RFC 8999), so neither a version that is
//! not known nor greasing (RFC 8701's idea, RFC 9287's bit) confuses it. The ids are those of
//! draft-ietf-quic-load-balancers in plain text: one byte, four of the server, at least four more.

use crate::direct::Flow;
use crate::family::Family;
use crate::open::{self, Wish};
use crate::packet::Packet;
use crate::parse::Fragment;
use crate::records::server_flag;
use crate::tables::{Step, Tables};
use dirigent_wire::{Header, QuicLong, QuicShort, ServerCid, UdpHeader};

/// Longest connection id of the versions that are known (RFC 9000 §17.2).
const LONGEST: u8 = 20;

/// Comparisons that find an id among as many as a service may have, 4096, and more.
const DEEPEST: u32 = 16;

/// [`crate::direct::Stage::Quic`]: looks who made the packet's connection id. If it is one of
/// the service's servers, leaves word of that to [`crate::direct::Stage::Open`] and says so.
#[inline(always)]
pub fn look<F: Family, P: Packet, T: Tables>(p: &P, t: &T, flow: &Flow<F>) -> bool {
    let mark = t.stashed() as u32;
    if flow.ip.fragment == Fragment::Later {
        return false;
    }
    let Some(server) = server_id(p, flow).and_then(|id| owner::<F, T>(t, flow, mark, id)) else { return false };
    t.stash(Wish::only(mark, server));
    true
}

/// The id in the packet's destination connection id, if there is room for one and the packet
/// is one whose id a server made.
#[inline(always)]
fn server_id<F: Family, P: Packet>(p: &P, flow: &Flow<F>) -> Option<u32> {
    let at = flow.ip.l4 + UdpHeader::LEN;
    let holds = |bytes: usize| flow.ip.l4_len() >= (UdpHeader::LEN + bytes) as u32;
    let cid = match p.get::<u8>(at)? & QuicLong::FORM {
        0 if holds(QuicShort::LEN) => p.get::<QuicShort>(at)?.cid,
        0 => return None,
        _ if holds(QuicLong::LEN) => {
            let long = p.get::<QuicLong>(at)?;
            let fits = (ServerCid::LEN as u8..=LONGEST).contains(&long.length);
            if !fits || !long.is_handshake() {
                return None;
            }
            long.cid
        }
        _ => return None,
    };
    if cid.rotation() == ServerCid::UNROUTABLE { None } else { Some(cid.server()) }
}

/// The server of an id, if it is still configured. One that takes no new connections, by
/// weight, threshold or because it is being drained, keeps those that it has.
#[inline(always)]
fn owner<F: Family, T: Tables>(t: &T, flow: &Flow<F>, mark: u32, id: u32) -> Option<u32> {
    let service = t.service(open::find::<F, T>(t, &flow.key, mark)?)?;
    let base = service.ids()?;
    let mut search = Search { base: base.wrapping_add(1), low: 0, high: t.slot(base)?, id, found: 0, hit: false };
    t.walk(DEEPEST, &mut search);
    let there = t.server(search.found).is_some_and(|server| server.flags.load() & server_flag::AVAILABLE != 0);
    if search.hit && there { Some(search.found) } else { None }
}

/// Search of an id by halves.
struct Search {
    base: u32,
    low: u32,
    high: u32,
    id: u32,
    found: u32,
    hit: bool,
}

impl<T: Tables> Step<T> for Search {
    #[inline(always)]
    fn step(&mut self, t: &T, _: u32) -> bool {
        if self.low >= self.high {
            return false;
        }
        let middle = self.low + (self.high - self.low) / 2;
        let at = self.base.wrapping_add(middle.wrapping_mul(2));
        let (Some(id), Some(server)) = (t.slot(at), t.slot(at.wrapping_add(1))) else { return false };
        if id == self.id {
            (self.found, self.hit) = (server, true);
            return false;
        }
        if id < self.id {
            self.low = middle + 1;
        } else {
            self.high = middle;
        }
        true
    }
}
