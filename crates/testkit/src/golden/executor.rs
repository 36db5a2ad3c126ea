//! What runs the frames of a recording.

use dirigent_config::Model;
use dirigent_director::Verdict;

use super::bed::{Bed, Side};

/// A row of the connection table as recorded: protocol, state, time left, client,
/// virtual service, server.
pub type Row = [String; 6];

/// What the director does with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    /// To the host's stack: as it came, or rewritten for it to deliver or forward.
    ToHost(Vec<u8>),
    /// Nothing more.
    Drop,
    /// Out of a side.
    Out(Side, Vec<u8>),
    /// Out of a side, to the neighbour that the kernel finds: with its address, where that
    /// is not the packet's destination.
    Resolve(Side, Vec<u8>, Option<std::net::IpAddr>),
    /// Several, in order: it was cut.
    Pieces(Vec<Does>),
}

/// Runs frames through a director.
pub trait Executor {
    /// `memory`, `xdp` or `tc`.
    fn name(&self) -> &'static str;
    /// Whether all pieces of a packet that is cut can be seen: a test run of the kernel
    /// shows one frame.
    fn shows_pieces(&self) -> bool {
        true
    }
    /// A director of its own, as the Model says, on this bed.
    fn set_up(&mut self, bed: &Bed, model: &Model) -> Result<(), String>;
    /// Changes the running director's Model.
    fn change(&mut self, model: &Model) -> Result<(), String>;
    /// A frame comes in. The verdict where it can be known.
    fn run(&mut self, side: Side, frame: &[u8]) -> Result<(Does, Option<Verdict>), String>;
    /// The rows of the connection table, sorted.
    fn conns(&mut self) -> Result<Vec<Row>, String>;
}

/// A row of the table.
pub(super) fn row(c: &dirigent_datapath::control::Connection) -> Row {
    let place = |(address, port)| std::net::SocketAddr::new(address, port).to_string();
    let protocol = if c.protocol == 6 { "TCP" } else { "UDP" };
    let time = format!("{:02}:{:02}", c.remaining_s / 60, c.remaining_s % 60);
    [protocol.into(), c.state.into(), time, place(c.client), place(c.service), place(c.server)]
}
