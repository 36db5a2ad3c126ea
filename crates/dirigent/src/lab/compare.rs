//! Walks of one request and its reply in labs of several forwarding methods, next to each other: which hop sees what, and
//! the bytes on each side of the director.

use super::capture::Seen;
use super::packet::Tcp;
use super::walk::{Walked, walk};
use crate::failure::{Failure, Result};
use crate::print;
use dirigent_net::lab::{DIRECTORY, Family, Lab, LabSpec, Mode};
use std::fs;
use std::path::Path;

/// What is asked for, and its length: long enough that bytes tell requests from answers.
const ANSWER: &str = "million";
const BYTES: usize = 1_000_000;
/// Columns of the table: the places, then one for each lab.
const PLACES: usize = 19;
const COLUMN: usize = 26;

const WHY: &str = "\
With NAT the servers answer as C, and only the director can make their answers B's again: so it
carries both directions of every connection. With direct routing and tunnelling the servers hold B
themselves and answer A straight through the router: so the director carries requests alone.";

/// A lab's column.
struct Column {
    head: String,
    spec: LabSpec,
    walked: Walked,
    /// MACs of the director's two interfaces.
    director: [String; 2],
}

/// Prints the table.
pub fn run(labs: &[Lab], family: Family) -> Result<()> {
    let columns: Vec<_> = labs.iter().map(|lab| column(lab, family)).collect::<Result<_>>()?;
    let Some(one) = columns.first() else { return Ok(()) };
    let spec = &one.spec;
    println!("A {} is the client, B {} the virtual address, C the server that answers,", spec.client(), spec.vip());
    println!("D {} the director, where it sends from its own address.\n", spec.director());
    let row = |place: &str, cell: &dyn Fn(&Column) -> String| {
        let cells: String = columns.iter().map(|column| format!(" {:<COLUMN$}", cell(column))).collect();
        println!("{}", format!("  {place:<PLACES$}{cells}").trim_end());
    };
    let [c, s] = [("director", "c0"), ("director", "r0")];
    let there = [("client", "eth0"), ("router", "client0"), c, s, ("server", "eth0")];
    let back = [("server", "eth0"), s, c, ("router", "servers0"), ("router", "client0"), ("client", "eth0")];
    row("", &|column| column.head.clone());
    for (title, request, places) in [("the request", true, &there[..]), ("the answer", false, &back)] {
        println!("{title}");
        for (host, interface) in places {
            row(&format!("{host} {interface}"), &|column| column.passing(host, interface, request));
        }
    }
    println!("bytes at the director, for this request and its answer of 1 MB");
    for (interface, who) in [("c0", "clients"), ("r0", "servers")] {
        for (way, sent) in [("from", false), ("to", true)] {
            row(&format!("{interface} {way} {who}"), &|column| print::bytes(column.bytes(interface, sent)));
        }
    }
    println!("\n{WHY}");
    Ok(())
}

fn column(lab: &Lab, family: Family) -> Result<Column> {
    let spec = LabSpec { family, ..lab.spec().clone() };
    if spec.one_arm {
        let what = "its director has one interface, so there are no two sides to compare";
        return Err(Failure::new(lab.name(), what, "build it without --one-arm"));
    }
    let file = Path::new(DIRECTORY).join(lab.name()).join("www").join(ANSWER);
    fs::write(&file, [b'.'; BYTES]).map_err(|e| Failure::io(file.display().to_string(), &e))?;
    let status = Lab::status(lab.name())?;
    let hosts = status.iter().flat_map(|status| &status.hosts);
    let interfaces: Vec<_> = hosts.filter(|host| host.host == "director").flat_map(|host| &host.interfaces).collect();
    let mac = |name: &str| interfaces.iter().find(|i| i.name == name).and_then(|i| i.mac.clone()).unwrap_or_default();
    let walked = walk(lab, &spec, &format!("/{ANSWER}"))?;
    let head = match spec.mode {
        Mode::Nat => "NAT".to_owned(),
        Mode::Dr => "direct routing".to_owned(),
        _ => format!("tunnelling ({})", walked.tunnel().unwrap_or_default()),
    };
    Ok(Column { head, spec, walked, director: [mac("c0"), mac("r0")] })
}

impl Column {
    fn seen(&self, host: &str, interface: &str) -> Option<&Seen> {
        let host = if host == "server" { &self.walked.server } else { host };
        self.walked.seen.iter().find(|place| place.host == host && place.interface == interface)
    }

    /// What passes there, of request or answer.
    fn passing(&self, host: &str, interface: &str, request: bool) -> String {
        let a = self.spec.client();
        let wanted = |p: &&Tcp| p.payload > 0 && if request { p.from.ip() == a } else { p.to.ip() == a };
        let packet = self.seen(host, interface).and_then(|place| place.packets.iter().find(wanted));
        let Some(p) = packet else { return "–".to_owned() };
        let letter = |ip| match ip {
            ip if ip == a => "A",
            ip if ip == self.spec.vip() => "B",
            _ => "C",
        };
        let (from, to) = (letter(p.from.ip()), letter(p.to.ip()));
        let how = match &p.outer {
            Some(_) => " in D → C",
            None if to == "B" && self.for_the_server(p) => ", MAC of C",
            None => "",
        };
        format!("{:<17} TTL {}", format!("{from} → {to}{how}"), p.ttl)
    }

    /// Sent to the server's MAC: as it arrives there.
    fn for_the_server(&self, packet: &Tcp) -> bool {
        let a = self.spec.client();
        let arrived = self.seen("server", "eth0").and_then(|place| place.packets.iter().find(|p| p.from.ip() == a));
        arrived.is_some_and(|p| p.to_mac == packet.to_mac)
    }

    /// What the director received or sent by an interface.
    fn bytes(&self, interface: &str, sent: bool) -> u64 {
        let packets = self.seen("director", interface).map(|place| place.packets.as_slice()).unwrap_or_default();
        packets.iter().filter(|p| self.director.contains(&p.from_mac) == sent).map(|p| p.frame).sum()
    }
}
