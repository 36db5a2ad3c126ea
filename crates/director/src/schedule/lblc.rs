//! Locality-based least-connection (ipvs-semantics §4.10): a destination keeps its server,
//! until that one has too much to do and another too little; then wlc chooses.

use super::Client;
use super::least::least;
use super::local::overloaded;
use super::wlc::Wlc;
use crate::records::{NOBODY, Note, Noted, Server, Service, server_flag};
use crate::tables::Tables;

pub fn pick<T: Tables>(t: &T, service: &Service, client: &Client) -> Option<u32> {
    let dest = Noted { service: client.service, server: NOBODY, to: client.to };
    let own = t.note(&dest).map(|note| note.server);
    let chosen = match own.filter(|own| t.server(*own).is_some_and(|server| keeps(t, service, server))) {
        Some(own) => own,
        None => least::<Wlc, T>(t, service)?,
    };
    t.write_note(&dest, &Note { server: chosen, used: t.now(), ..Note::default() });
    Some(chosen)
}

/// Whether the destination's server takes the connection. As in IPVS its thresholds do not count.
#[inline(always)]
fn keeps<T: Tables>(t: &T, service: &Service, server: &Server) -> bool {
    server.flags.load() & server_flag::AVAILABLE != 0 && server.weight.load() > 0 && !overloaded(t, service, server)
}
