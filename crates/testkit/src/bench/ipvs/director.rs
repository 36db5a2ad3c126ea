//! The director's side: programs and tables in the namespace of `scripts/bench-ipvs.py`, which says when they are attached.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use dirigent_datapath::control::{Control, KernelStore, Store as _, features};
use dirigent_datapath::kernel::{Instance, Kernel, LoadOptions, Mode, TcKind, detach_all};
use dirigent_director::Reason;
use dirigent_director::records::LAYOUT_VERSION;
use serde_json::json;

use crate::golden::bed::Bed;
use crate::golden::kernel::ifindex;
use crate::golden::setup as models;
use crate::golden::tables::{self, text};

/// The oracle's bed has so many here, and its devices this MTU.
const SERVERS: u8 = 2;
const MTU: u32 = 1500;
/// The devices that packets come in by.
const DEVICES: [&str; 2] = ["c0", "r0"];
/// Room for all connections that are opened on both paths.
const CONNECTIONS: u32 = 1 << 18;

/// Loads, sets up the services of these lines of ipvsadm, and obeys: `attach xdp`, `attach tc`, `reasons`. The answer to each, and
/// to being ready, is a line of JSON. At the end of the orders everything is taken off again.
pub fn serve(lines: &str, orders: impl BufRead, mut answers: impl Write) -> Result<(), String> {
    let [c0, r0] = DEVICES.map(ifindex);
    let bed = Bed::of(SERVERS, MTU, MTU, &[])?.with_ifindex([c0?, r0?, ifindex("p0")?])?;
    let model = models::model(std::iter::empty(), lines.lines()).map_err(|e| format!("{e:?}"))?;
    let instance = Instance::new("bench-ipvs").map_err(text)?;
    let map_sizes = [("CONNS4", CONNECTIONS), ("CONNS6", CONNECTIONS)];
    // What has no use here takes the emulated verifier long.
    let features = features(&model);
    let options = LoadOptions { instance: Some(&instance), layout: LAYOUT_VERSION, map_sizes: &map_sizes, features };
    let mut kernel = Kernel::load(&options).map_err(text)?;
    let control = tables::set_up(KernelStore::new(&kernel).map_err(text)?, &bed, &model)?;
    let mut answer =
        |value: serde_json::Value| writeln!(answers, "{value}").and_then(|()| answers.flush()).map_err(text);
    answer(json!("ready"))?;
    for order in orders.lines() {
        let order = order.map_err(text)?;
        answer(match order.strip_prefix("attach ") {
            Some(mode) => json!(attach(&mut kernel, mode)?),
            None if order == "reasons" => json!(reasons(&control)?),
            None => return Err(format!("{order:?}: no such order")),
        })?;
    }
    detach_all(&instance).map_err(text)?;
    Ok(())
}

/// Attaches to both devices, in this mode and no other; says how tc is attached.
fn attach(kernel: &mut Kernel, mode: &str) -> Result<String, String> {
    let wanted = Mode::ALL.into_iter().find(|one| one.name() == mode).ok_or(format!("{mode}: no mode"))?;
    let done = kernel.attach(&DEVICES.map(|device| (device, wanted)), TcKind::Auto).map_err(text)?;
    match done.iter().find(|one| one.path.to_string() != mode) {
        Some(other) => Err(format!("{} is on {}: {}", other.interface, other.path, other.reason)),
        None => Ok(done.into_iter().map(|one| one.reason).collect::<Vec<_>>().join("; ")),
    }
}

/// Packets by reason, of those that were counted at all.
fn reasons(control: &Control<KernelStore>) -> Result<BTreeMap<&'static str, u64>, String> {
    let counts = control.store().reasons().map_err(text)?;
    Ok(Reason::ALL.iter().map(|reason| reason.name()).zip(counts).filter(|(_, count)| *count > 0).collect())
}
