//! Instructions a packet, where the clock counts them: a guest of the oracle (`scripts/bench-instructions.sh`). What it costs that
//! packets can be traced, while they are not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use dirigent_datapath::control::{KernelStore, Store as _};
use dirigent_datapath::kernel::{Features, Kernel, LoadOptions, Runner};
use dirigent_director::Reason;
use dirigent_director::records::LAYOUT_VERSION;

use serde::{Deserialize, Serialize};

use super::cases::{Protocol, client, frame, vip};
use super::{own_namespace, pin};
use crate::golden::bed::server;
use crate::golden::tables::{self, text};
use crate::golden::{Side, setup as models};
use crate::occasion;
use crate::packet::flag;

/// Runs of a program in a round, and rounds: the least of them counts, which no timer's tick was in.
const RUNS: u32 = 50;
const ROUNDS: u32 = 20;
/// Of the packets of a known connection at most so much more.
pub const GOAL: f64 = 1.02;

/// Instructions of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which packets.
    pub name: String,
    /// The director's, less what an empty program's run takes.
    pub director: f64,
    /// The same as if packets could not be traced.
    pub untraced: f64,
}

impl Row {
    /// How much more it is.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.director / self.untraced
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = if self.ratio() > GOAL { "  (over)" } else { "" };
        let (director, untraced, ratio) = (self.director, self.untraced, self.ratio());
        write!(f, "{:24}  {director:8.1}  {untraced:8.1}  {ratio:6.4}{over}", self.name)
    }
}

/// A service's port, how its servers are reached, and theirs.
const SERVICES: [(&str, u16, &str, u16); 3] = [("nat", 80, "-m", 8080), ("dr", 81, "-g", 81), ("ipip", 82, "-i", 82)];

/// What a run has counted, and on which kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// The kernel's release.
    pub kernel: String,
    /// See [`Row`].
    pub rows: Vec<Row>,
}

impl Counted {
    /// Which cases take more than is aimed at.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let over = self.rows.iter().filter(|row| row.ratio() > GOAL);
        over.map(|row| format!("{}: {:.4} of what it takes untraced, and {GOAL:.2} is the goal", row.name, row.ratio()))
            .collect()
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:24}  {:>8}  {:>8}  {:>6}", "instructions/packet", "director", "untraced", "ratio")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

/// Counts them.
pub fn run(progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Counted, String> {
    pin(0, &[0])?;
    let bed = own_namespace()?;
    progress("load", 0, 1);
    let map_sizes = [("CONNS4", 64), ("CONNS6", 64), ("SLOTS", 1 << 12)];
    let options =
        LoadOptions { instance: None, layout: LAYOUT_VERSION, map_sizes: &map_sizes, features: Features::ALL };
    let mut kernel = Kernel::load(&options).map_err(text)?;
    let untraced = kernel.load_untraced().map_err(text)?;
    let place = |address: IpAddr, port: u16| SocketAddr::new(address, port);
    let mut lines = Vec::new();
    for v6 in [false, true] {
        for (_, port, method, server_port) in SERVICES {
            let service = place(vip(v6), port);
            lines.push(format!("-A -t {service} -s rr"));
            lines.push(format!("-a -t {service} -r {} {method}", place(server(1, v6), server_port)));
        }
    }
    let model = models::model(std::iter::empty(), lines.iter().map(String::as_str)).map_err(|e| format!("{e:?}"))?;
    let control = tables::set_up(KernelStore::new(&kernel).map_err(text)?, &bed, &model)?;
    let ifindex = bed.ifindex(Side::R);
    let runner = |program| kernel.runner(program).map_err(text);
    let (director, untraced, pass) = (runner("dirigent_xdp")?, runner(untraced)?, runner("dirigent_pass")?);
    let send = |program: &Runner<'_>, packet: &[u8]| program.run_xdp(ifindex, packet, 1).map(|_| ()).map_err(text);
    // What one run takes: the least of all rounds, of which each is many.
    let count = |program: &Runner<'_>, packet: &[u8]| -> Result<f64, String> {
        let mut least = f64::INFINITY;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            for _ in 0..RUNS {
                send(program, packet)?;
            }
            // Nanoseconds are instructions.
            least = least.min(begun.elapsed().as_nanos() as f64 / f64::from(RUNS));
        }
        Ok(least)
    };
    let mut rows = Vec::new();
    for v6 in [false, true] {
        for (n, (name, port, _, server_port)) in SERVICES.into_iter().enumerate() {
            progress("count", rows.len(), 8);
            let from = place(client(v6), 1024 + n as u16);
            let request = |flags| frame(Protocol::Tcp, from, place(vip(v6), port), flags);
            let reply = |flags| frame(Protocol::Tcp, place(server(1, v6), server_port), from, flags);
            send(&director, &request(flag::SYN))?;
            let mut packets = vec![("request", request(flag::ACK), Reason::Request)];
            if name == "nat" {
                send(&director, &reply(flag::SYN | flag::ACK))?;
                packets.push(("reply", reply(flag::ACK), Reason::Reply));
            }
            send(&director, &request(flag::ACK))?;
            for (direction, packet, reason) in packets {
                let reasons = || control.store().reasons().map_err(text);
                let before = reasons()?;
                let empty = count(&pass, &packet)?;
                let [all, without] = [count(&director, &packet)? - empty, count(&untraced, &packet)? - empty];
                let rose = |reason: Reason| Ok::<_, String>(reasons()?[reason as usize] - before[reason as usize]);
                if rose(reason)? != u64::from(2 * ROUNDS * RUNS) {
                    return Err(format!(
                        "{name} {direction}: packets left their path; these numbers would mean nothing"
                    ));
                }
                let family = if v6 { "v6" } else { "v4" };
                rows.push(Row { name: format!("{name} {family} tcp {direction}"), director: all, untraced: without });
            }
        }
    }
    Ok(Counted { kernel: occasion::kernel(), rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_said() {
        let row = |director| Row { name: "nat v4 tcp request".into(), director, untraced: 400.0 };
        assert!(row(411.0).to_string().ends_with("1.0275  (over)"));
        assert!(row(403.0).to_string().ends_with("1.0075"));
        let counted = Counted { kernel: "6.1".into(), rows: vec![row(403.0), row(411.0)] };
        assert_eq!(counted.faults(), ["nat v4 tcp request: 1.0275 of what it takes untraced, and 1.02 is the goal"]);
    }
}
