//! A director's tables, in memory and in the kernel alike: set up, changed and read by
//! what the daemon uses.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use dirigent_api::{Stats, Timeouts};
use dirigent_config::{Model, Op, Plan, ServiceKey};
use dirigent_datapath::control::report::{Growth, Report, Whose};
use dirigent_datapath::control::tally::{self, Tally};
use dirigent_datapath::control::{Connection, Control, Error, Flow, Resets, Store, Sweep, Target, connections};
use dirigent_director::family::Address as _;
use dirigent_director::records::{NextHop, Server, Service, server_flag};
use dirigent_director::schedule;
use dirigent_wire::{Addr4, Addr6};

use super::bed::{Bed, Side};
use super::executor::{Load, Row};

/// Seconds after which every connection is over: longer than any timeout of a recording.
const EVER_S: u32 = 24 * 3600;

/// Seconds between two sweeps of a long time: what ends when others have ended ends in it.
const SLICE_S: u32 = 60;

/// For `map_err`.
pub fn text<E: std::fmt::Display>(e: E) -> String {
    e.to_string()
}

/// The tables as the Model says, on this bed.
pub fn set_up<S: Store>(mut store: S, bed: &Bed, model: &Model) -> Result<Control<S>, String> {
    for side in Side::EVERY {
        store.put_link(bed.ifindex(side), &bed.link(side)).map_err(text)?;
    }
    for local in &bed.locals {
        store.set_local(*local, true).map_err(text)?;
    }
    let mut control = Control::open(store, &Model::default()).map_err(text)?;
    control.set_local_nets(&bed.nets).map_err(text)?;
    let named = [("c0", Side::C), ("r0", Side::R)].map(|(name, side)| (name.to_owned(), bed.ifindex(side)));
    control.set_interfaces(named.into()).map_err(text)?;
    change(&mut control, bed, &Plan::between(&Model::default(), model))?;
    // As the daemon does once it follows the network.
    control.ways_changed().map_err(text)?;
    Ok(control)
}

/// Takes everything out of the tables. What is left of connections by then is an error.
pub fn empty<S: Store>(mut control: Control<S>) -> Result<S, String> {
    control.set_targets(&HashSet::new()).map_err(text)?;
    control.change_to(&Model::default()).map_err(text)?;
    let (mut gone, mut alive) = sweep_at(&mut control, EVER_S)?;
    // A template outlives its connections, and one of them is FTP's, which outlives its data's.
    while gone > 0 && alive > 0 {
        (gone, alive) = sweep_at(&mut control, EVER_S)?;
    }
    let mut store = control.into_store();
    for index in 0..store.room().servers {
        let server = store.server(index).map_err(text)?;
        let (counted, templates) = (server.connections(), server.persistent.load());
        if alive > 0 || counted != (0, 0) || templates != 0 {
            return Err(format!(
                "{alive} connections never end, {counted:?} and {templates} templates are counted on server {index}"
            ));
        }
        store.put_server(index, &Server::default()).map_err(text)?;
        store.put_next_hop(index, &NextHop::default()).map_err(text)?;
    }
    for index in 0..store.room().services {
        store.put_service_rules(index, &Service::default()).map_err(text)?;
    }
    Ok(store)
}

/// Does a Plan. How frames reach its servers is known first, as the daemon sees to.
pub fn change<S: Store>(control: &mut Control<S>, bed: &Bed, plan: &Plan) -> Result<(), String> {
    for op in &plan.ops {
        if let Op::AddServer { server, .. } = op {
            control.set_next_hop(server.address, &bed.next_hop(server.address)).map_err(text)?;
        }
    }
    control.apply(plan).map_err(text)
}

/// Has these servers probed, and these probes of them pinned, instead of those before; says of each whether it is.
pub fn probe<S: Store>(control: &mut Control<S>, bed: &Bed, probes: &[(Flow, Target)]) -> Result<Vec<bool>, String> {
    control.set_targets(&HashSet::new()).map_err(text)?;
    for (_, target) in probes {
        control.set_next_hop(target.address, &bed.next_hop(target.address)).map_err(text)?;
    }
    control.set_targets(&probes.iter().map(|(_, target)| *target).collect()).map_err(text)?;
    let link = bed.ifindex(Side::P);
    let mut pin = |(flow, target): &(Flow, Target)| {
        let aim = control.aim(target).ok_or("a target without a record")?;
        match control.pin(flow, &aim, link) {
            Ok(_) => Ok(true),
            Err(Error::NotPinned { .. }) => Ok(false),
            Err(error) => Err(text(error)),
        }
    };
    probes.iter().map(&mut pin).collect()
}

/// Has these servers' connections reset: (ended at once, ends that are to be told).
pub fn fail<S: Store>(control: &mut Control<S>, servers: &[(ServiceKey, IpAddr, u16)]) -> Result<(u64, u64), String> {
    let indexes = servers.iter().map(|(key, address, port)| control.allow_resets(key, *address, *port));
    let indexes = indexes.collect::<Result<Vec<_>, _>>().map_err(text)?;
    let resets = Resets::of(indexes.into_iter().flatten());
    let (mut ended, mut untold) = (0, 0);
    // A template goes after the last connection that it controls.
    for _ in 0..2 {
        ended += resets.mark(control.store_mut(), &mut || {}).map_err(text)?;
    }
    resets.untold(control.store(), &mut |_| untold += 1).map_err(text)?;
    Ok((ended, untold))
}

/// Moves the packet path's clock, and sweeps on the way: (gone, still alive in the end).
pub fn sweep_after<S: Store>(control: &mut Control<S>, seconds: u32) -> Result<(u64, u64), String> {
    let (mut gone, mut left) = (0, seconds);
    loop {
        let slice = left.min(SLICE_S);
        left -= slice;
        let (more, alive) = sweep_at(control, slice)?;
        gone += more;
        if left == 0 {
            // In a second there are several sweeps: what ends after others does.
            let (more, _) = sweep_at(control, 0)?;
            return Ok((gone + more, alive.saturating_sub(more)));
        }
    }
}

/// The same with one sweep at the end.
fn sweep_at<S: Store>(control: &mut Control<S>, seconds: u32) -> Result<(u64, u64), String> {
    let store = control.store_mut();
    let mut settings = store.settings().map_err(text)?;
    settings.clock_offset = settings.clock_offset.wrapping_add(seconds * settings.hz);
    store.put_settings(&settings).map_err(text)?;
    let swept = Sweep::default().run(store, &mut || ()).map_err(text)?;
    Ok((swept.gone, swept.alive))
}

/// The rows of the connection table, sorted.
pub fn rows<S: Store>(control: &Control<S>) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    connections(control.store(), &mut |c| rows.push(row(&c))).map_err(text)?;
    rows.sort();
    Ok(rows)
}

fn row(c: &Connection) -> Row {
    let place = |(address, port)| SocketAddr::new(address, port).to_string();
    let protocol = match c.protocol {
        0 => "IP",
        6 => "TCP",
        132 => "SCTP",
        _ => "UDP",
    };
    let time = format!("{:02}:{:02}", c.remaining_s / 60, c.remaining_s % 60);
    [protocol.into(), c.state.into(), time, place(c.client), place(c.service), place(c.server)]
}

/// What is counted.
pub fn tally<S: Store>(control: &Control<S>) -> Result<Tally, String> {
    tally::read(control.store()).map_err(text)
}

/// All counters as the API tells them.
pub fn stats<S: Store>(control: &Control<S>, rates: &dyn Growth) -> Result<Stats, String> {
    Report::of(control.store(), Some(rates)).stats().map_err(text)
}

/// The connections, as the API tells them.
pub fn connections_told<S: Store>(control: &Control<S>) -> Result<Vec<dirigent_api::Connection>, String> {
    Report::of(control.store(), None)
        .connections(usize::MAX, &Whose::default())
        .map(|all| all.connections)
        .map_err(text)
}

/// The timeouts that ipvsadm knows.
pub fn timeouts<S: Store>(control: &Control<S>) -> Result<Timeouts, String> {
    Report::of(control.store(), None).timeouts().map_err(text)
}

/// Zeroes counters.
pub fn zero<S: Store>(control: &mut Control<S>, service: Option<ServiceKey>) -> Result<(), String> {
    control.zero(service.as_ref()).map(|_| ()).map_err(text)
}

/// The servers of all services. Read from the tables, not from the Model: what packets
/// find is what counts, its order too.
pub fn loads<S: Store>(control: &Control<S>) -> Result<Vec<Load>, String> {
    let store = control.store();
    let mut places = store.places().map_err(text)?;
    places.sort();
    let mut loads = Vec::new();
    for (_, index) in places {
        let (base, len) = schedule::list(&store.service(index).map_err(text)?);
        for server in store.slots(base, len).map_err(text)? {
            let server = store.server(server).map_err(text)?;
            let address = match server.flags.load() & server_flag::IPV6 {
                0 => IpAddr::from(Addr4::from_words(&server.addr).bytes()),
                _ => IpAddr::from(Addr6::from_words(&server.addr).bytes()),
            };
            let (active, inactive) = server.connections();
            loads.push(Load { address, counts: [server.weight.load(), active, inactive] });
        }
    }
    Ok(loads)
}
