//! What runs the frames of a recording.

use std::net::IpAddr;

use dirigent_api::{Connection, Stats, Timeouts};
use dirigent_config::{Model, Plan, ServiceKey};
use dirigent_datapath::control::tally::Tally;
use dirigent_datapath::control::{Flow, Target};
use dirigent_director::Verdict;

use super::bed::{Bed, Side};
use super::text::Rates;

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
    Resolve(Side, Vec<u8>, Option<IpAddr>),
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
    /// A director as the Model says, on this bed: new, or an earlier one that was emptied.
    fn set_up(&mut self, bed: &Bed, model: &Model) -> Result<(), String>;
    /// Changes the running director.
    fn change(&mut self, plan: &Plan) -> Result<(), String>;
    /// Has these servers probed, and these probes of them pinned, instead of those before; says of each whether it is.
    fn probe(&mut self, probes: &[(Flow, Target)]) -> Result<Vec<bool>, String>;
    /// These servers failed, and their connections are reset: how many ended at once, and how many ends are to be told.
    fn fail(&mut self, servers: &[(ServiceKey, IpAddr, u16)]) -> Result<(u64, u64), String>;
    /// A frame comes in. The verdict where it can be known.
    fn run(&mut self, side: Side, frame: &[u8]) -> Result<(Does, Option<Verdict>), String>;
    /// Time passes without a packet, and the sweep comes by: (gone, still alive).
    fn sweep_after(&mut self, seconds: u32) -> Result<(u64, u64), String>;
    /// The rows of the connection table, sorted.
    fn conns(&mut self) -> Result<Vec<Row>, String>;
    /// The servers of all services, each service's as its scheduler finds them.
    fn loads(&mut self) -> Result<Vec<Load>, String>;
    /// What is counted, by index.
    fn tally(&mut self) -> Result<Tally, String>;
    /// All counters as the API tells them.
    fn stats(&mut self, rates: Rates) -> Result<Stats, String>;
    /// The connections, as the API tells them.
    fn connections(&mut self) -> Result<Vec<Connection>, String>;
    /// The timeouts that ipvsadm knows.
    fn timeouts(&mut self) -> Result<Timeouts, String>;
    /// Zeroes the counters of a service and its servers, or all of them.
    fn zero(&mut self, service: Option<ServiceKey>) -> Result<(), String>;
}

/// A server as the packet path has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its address.
    pub address: IpAddr,
    /// Weight, active and inactive connections.
    pub counts: [u32; 3],
}

/// A verdict for people.
pub(super) fn told(verdict: Option<Verdict>) -> String {
    verdict.map_or_else(|| "?".into(), |v| format!("{:?} ({})", v.action, v.reason.name()))
}
