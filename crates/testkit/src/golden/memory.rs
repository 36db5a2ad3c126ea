//! Recordings in memory.

use dirigent_api::{Connection, Stats, Timeouts};
use dirigent_config::{Model, Plan, ServiceKey};
use dirigent_datapath::control::snapshot::foretell;
use dirigent_datapath::control::tally::Tally;
use dirigent_datapath::control::{Control, Flow, Target};
use dirigent_datapath::memory::{self, Capacity, Incoming, MemoryTables, Outcome};
use dirigent_director::family::Address as _;
use dirigent_director::records::{NextHop, tunnel};
use dirigent_director::{Action, Verdict};
use dirigent_wire::{Addr4, Addr6};
use std::net::IpAddr;

use super::bed::{Bed, Side};
use super::executor::{Does, Executor, Load, Row};
use super::tables;
use super::text::Rates;

/// Ticks between two steps.
pub const TICKS: u32 = 2;

/// How frames meet the packet path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plays {
    /// XDP first, then tc for what it hands over.
    #[default]
    XdpThenTc,
    /// tc only.
    Tc,
    /// tc only, and no packet is taken for easy.
    SlowTc,
    /// As [`Plays::XdpThenTc`]; what becomes of each packet is foretold, and comes true.
    Foretold,
}

/// A director in memory.
#[derive(Default)]
pub struct Memory {
    plays: Plays,
    room: Capacity,
    running: Option<(Bed, Control<MemoryTables>)>,
}

impl Memory {
    /// One that plays these parts.
    pub fn playing(plays: Plays) -> Self {
        Self { plays, ..Self::default() }
    }
    /// One whose tables hold so much.
    pub fn with_room(room: Capacity) -> Self {
        Self { room, ..Self::default() }
    }
    /// The tables, once there is a set-up.
    pub fn tables(&mut self) -> Option<&mut MemoryTables> {
        self.running.as_mut().map(|(_, control)| control.store_mut())
    }

    fn running(&mut self) -> Result<(&Bed, &mut Control<MemoryTables>), String> {
        self.running.as_mut().map(|(bed, control)| (&*bed, control)).ok_or("no set-up was made".into())
    }
}

/// Runs a packet, which must fare as a copy of the tables says.
fn foretold(tables: &mut MemoryTables, incoming: &Incoming<'_>) -> Result<Outcome, String> {
    let told = foretell(&*tables, incoming, true, |copy| {
        copy.share_luck(tables);
        copy.routes = tables.routes.clone();
        (copy.datagrams4, copy.datagrams6) = (tables.datagrams4.clone(), tables.datagrams6.clone());
        (copy.pins4, copy.pins6) = (tables.pins4.clone(), tables.pins6.clone());
    });
    let told = told.map_err(|e| e.to_string())?;
    let outcome = memory::run(tables, incoming);
    if told.outcome == outcome {
        return Ok(outcome);
    }
    Err(format!("foretold was {:?}, and it was {outcome:?}; seen: {:#?}", told.outcome, told.seen))
}

/// What an outcome means on the bed.
pub(super) fn does(bed: &Bed, tables: &MemoryTables, outcome: Outcome) -> Result<(Does, Verdict), String> {
    let Outcome { verdict, frame, more, .. } = outcome;
    let first = one(bed, tables, verdict, frame)?;
    if more.is_empty() {
        return Ok((first, verdict));
    }
    let rest = more.into_iter().map(|(verdict, frame)| one(bed, tables, verdict, frame));
    let pieces: Result<Vec<Does>, String> = std::iter::once(Ok(first)).chain(rest).collect();
    Ok((Does::Pieces(pieces?), verdict))
}

fn one(bed: &Bed, tables: &MemoryTables, verdict: Verdict, frame: Vec<u8>) -> Result<Does, String> {
    let side = || bed.side(verdict.ifindex).ok_or(format!("interface {} is no side", verdict.ifindex));
    let does = match verdict.action {
        Action::Pass | Action::Deliver | Action::Forward => Does::ToHost(frame),
        Action::Drop => Does::Drop,
        Action::Transmit => Does::Out(side()?, frame),
        Action::Resolve => Does::Resolve(side()?, frame, tables.resolved_by().map(peer)),
        Action::HandOver | Action::Continue => return Err(format!("{verdict:?} is no end")),
    };
    Ok(does)
}

/// Whose neighbour a next hop names.
fn peer(next: &NextHop) -> IpAddr {
    match next.flags & tunnel::PEER_V6 {
        0 => Addr4::from_words(&next.peer).bytes().into(),
        _ => Addr6(next.peer).bytes().into(),
    }
}

impl Executor for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }
    fn set_up(&mut self, bed: &Bed, model: &Model) -> Result<(), String> {
        let mut tables = MemoryTables::new(&self.room);
        tables.routes = bed.routes.clone();
        let control = tables::set_up(tables, bed, model)?;
        self.running = Some((bed.clone(), control));
        Ok(())
    }
    fn change(&mut self, plan: &Plan) -> Result<(), String> {
        let (bed, control) = self.running()?;
        tables::change(control, bed, plan)
    }
    fn probe(&mut self, probes: &[(Flow, Target)]) -> Result<Vec<bool>, String> {
        let (bed, control) = self.running()?;
        tables::probe(control, bed, probes)
    }
    fn fail(&mut self, servers: &[(ServiceKey, IpAddr, u16)]) -> Result<(u64, u64), String> {
        tables::fail(self.running()?.1, servers)
    }
    fn sweep_after(&mut self, seconds: u32) -> Result<(u64, u64), String> {
        tables::sweep_after(self.running()?.1, seconds)
    }
    fn run(&mut self, side: Side, frame: &[u8]) -> Result<(Does, Option<Verdict>), String> {
        let plays = self.plays;
        let (bed, control) = self.running()?;
        let tables = control.store_mut();
        tables.now = tables.now.wrapping_add(TICKS);
        let incoming = Incoming { frame, ingress: bed.ifindex(side), ..Incoming::default() };
        let outcome = match plays {
            Plays::XdpThenTc => memory::run(tables, &incoming),
            Plays::Tc => memory::run_tc(tables, &incoming),
            Plays::SlowTc => memory::run_slow(tables, &incoming),
            Plays::Foretold => foretold(tables, &incoming)?,
        };
        let (does, verdict) = does(bed, tables, outcome)?;
        Ok((does, Some(verdict)))
    }
    fn conns(&mut self) -> Result<Vec<Row>, String> {
        tables::rows(self.running()?.1)
    }
    fn loads(&mut self) -> Result<Vec<Load>, String> {
        tables::loads(self.running()?.1)
    }
    fn tally(&mut self) -> Result<Tally, String> {
        tables::tally(self.running()?.1)
    }
    fn stats(&mut self, rates: Rates) -> Result<Stats, String> {
        tables::stats(self.running()?.1, &rates)
    }
    fn connections(&mut self) -> Result<Vec<Connection>, String> {
        tables::connections_told(self.running()?.1)
    }
    fn timeouts(&mut self) -> Result<Timeouts, String> {
        tables::timeouts(self.running()?.1)
    }
    fn zero(&mut self, service: Option<ServiceKey>) -> Result<(), String> {
        tables::zero(self.running()?.1, service)
    }
}
