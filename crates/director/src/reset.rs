//! Connections of a server that failed are reset at once (`on_failure_connections`), so that
//! clients try again instead of waiting until they give up.
//!
//! A reset counts only if its sequence number is the one that its receiver waits for (RFC 5961
//! §3.2), and the director keeps no sequence numbers. But every segment says which: so a
//! connection is *marked*, and whoever sends a packet of it gets the reset that a closed port
//! would answer with. Who is silent is made to speak: user space sends him a segment that cannot
//! be his connection's next, to which TCP answers with an acknowledgement (RFC 9293 §3.10.7.4).
//!
//! The mark is the state [`Reset`](tcp::State::Reset), whose timeout is 0: a packet finds the
//! connection at its end and leaves the easy path without having been asked one question more.

use crate::conn::{self, Expiry, Word};
use crate::direct::{Flow, Stage};
use crate::errors::{self, Notice};
use crate::family::Family;
use crate::parse::Fragment;
use crate::persist;
use crate::records::{Tuple, kind, server_flag};
use crate::tables::Tables;
use crate::tcp::State;
use crate::verdict::{Reason, Verdict};
use dirigent_wire::{TcpHeader, ip::proto};

const RESET: u8 = State::Reset as u8;

/// Whether a connection of this protocol with this word is being reset.
#[inline(always)]
pub fn is_marked(protocol: u8, word: Word) -> bool {
    protocol == proto::TCP && word.state() == RESET
}

/// Whether both sides have something that a reset ends: in these states they have heard of each
/// other and are not done.
#[inline(always)]
const fn is_live(state: u8) -> bool {
    const LIVE: u32 = 1 << State::Established as u32
        | 1 << State::FinWait as u32
        | 1 << State::CloseWait as u32
        | 1 << State::LastAck as u32;
    LIVE >> (state & 31) & 1 == 1
}

/// Begins the reset of a connection, if its server is (still) one whose connections are reset: a
/// server that came back has new ones, which nobody may touch. Live TCP is marked. The rest ends:
/// who asks again, by a SYN or a datagram, gets another server, and so he does with the server's
/// templates out of the way.
#[inline(never)]
pub fn begin<F: Family, T: Tables>(t: &mut T, key: &Tuple<F::Addr>) -> Expiry {
    let Some(conn) = conn::held::<F, T>(t, key) else { return Expiry::Absent };
    let (server, state, of) = (conn.server, conn.word.state(), conn.kind);
    let resetting = t.server(server).is_some_and(|server| server.flags.load() & server_flag::RESETTING != 0);
    if !resetting || conn.is_reply() || is_marked(key.proto(), conn.word) {
        return Expiry::Alive;
    }
    if of == kind::TEMPLATE {
        return persist::expire::<F, T>(t, key, true);
    }
    if key.proto() != proto::TCP || !is_live(state) {
        return conn::expire::<F, T>(t, key, true);
    }
    // If a packet is faster, user space comes again.
    if !conn.word.dead() && conn::set_state::<F, T>(t, key, &conn, RESET) {
        conn.entry.last_seen.store(t.now());
    }
    Expiry::Alive
}

/// What becomes of a packet, of either side, of a marked connection.
#[inline(always)]
pub fn meet<F: Family, T: Tables>(t: &mut T, flow: &Flow<F>) -> Verdict {
    const OPENS: u8 = TcpHeader::SYN;
    let flags = flow.l4.flags;
    let Some(conn) = conn::held::<F, T>(t, &flow.key) else { return Stage::Slow.verdict::<F>() };
    if flow.ip.fragment == Fragment::Later {
        return Verdict::drop(Reason::ResetOver);
    }
    if flags & (TcpHeader::SYN | TcpHeader::ACK | TcpHeader::RST) == OPENS && !conn.is_reply() {
        // The client tries again already.
        conn::expire::<F, T>(t, &flow.key, true);
        return Stage::Slow.verdict::<F>();
    }
    // If that fails, who sent it is asked once more than necessary.
    conn.entry.word.swap_if(conn.word.0, conn.word.when_told().0);
    if flags & TcpHeader::RST != 0 {
        return Verdict::drop(Reason::ResetOver);
    }
    errors::refuse::<F, T>(t, Notice::ServerFailed, 0)
}
