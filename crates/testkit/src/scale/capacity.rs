//! What one machine with so many CPUs and a fast card does: a model, of what was measured and of what is assumed.

use crate::bench::cores::{Both, Cores};
use std::fmt::Write as _;

/// Assumed: what the driver of a card takes to receive a packet and to send it by XDP, nanoseconds. Frames of
/// `BPF_PROG_TEST_RUN` have no driver.
pub const DRIVER_NS: f64 = 60.0;
/// The card, bits a second.
const CARD: f64 = 100e9;
/// What Ethernet adds to each frame on the wire: preamble and gap (IEEE 802.3), bytes.
const WIRE: f64 = 20.0;
/// Frames, with their checksum, bytes: the smallest, the middle of the road, and the largest of MTU 1500.
const FRAMES: [u32; 3] = [64, 512, 1518];
/// CPUs that are reckoned with.
const CPUS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];

/// A kind of traffic: its cases, of which each has the same part of the packets.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    cases: &'static [&'static str],
}

const KINDS: [Kind; 4] = [
    Kind { name: "NAT, both directions", cases: &["nat v4 tcp request, 512K", "nat v4 tcp reply, 512K"] },
    Kind { name: "DR", cases: &["dr v4 tcp request, 512K"] },
    Kind { name: "new connections, wrr", cases: &["nat v4 wrr tcp new"] },
    Kind { name: "new connections, mh", cases: &["nat v4 mh tcp new"] },
];

/// What a kind takes, and how CPUs get along with it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    /// Nanoseconds a packet on one CPU, with the driver.
    ns: f64,
    /// What two do over twice what one does; at most 1.
    together: f64,
}

impl Kind {
    fn cost(&self, cores: &Cores) -> Result<Cost, String> {
        let find = |name: &&str| cores.case(name).ok_or(format!("{name} was not measured"));
        let cases: Vec<&Both> = self.cases.iter().map(find).collect::<Result<_, _>>()?;
        let mean = |of: fn(&Both) -> f64| cases.iter().map(|case| of(case)).sum::<f64>() / cases.len() as f64;
        let ns = mean(|case| case.alone_median_ns) + DRIVER_NS;
        Ok(Cost { ns, together: (mean(|case| case.times) / 2.0).min(1.0) })
    }
}

impl Cost {
    /// Millions a second of so many CPUs, if each doubling costs what the first one does; and if nothing does.
    fn millions(self, cpus: u32) -> (f64, f64) {
        let most = f64::from(cpus) * 1000.0 / self.ns;
        (most * self.together.powf(f64::from(cpus).log2()), most)
    }

    /// CPUs for so many millions a second, at worst and at best; none if no number that is reckoned with is enough.
    fn cpus(self, millions: f64) -> [Option<u32>; 2] {
        let enough = |of: fn((f64, f64)) -> f64| (1..=CPUS[CPUS.len() - 1]).find(|n| of(self.millions(*n)) >= millions);
        [enough(|(worst, _)| worst), enough(|(_, best)| best)]
    }
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// A range of two numbers; one, if they are alike as written.
fn range(low: String, high: String) -> String {
    if low == high { low } else { format!("{low} to {high}") }
}

/// The tables of the model, with the arithmetic.
pub fn tables(cores: &Cores) -> Result<String, String> {
    let costs: Vec<(Kind, Cost)> =
        KINDS.iter().map(|kind| Ok((*kind, kind.cost(cores)?))).collect::<Result<_, String>>()?;
    let mut out = format!(
        "One packet: what the packet path takes (the mean of its cases, middle rounds) and {DRIVER_NS} ns for the driver.\n\n\
         | traffic | packet path, ns | with the driver, ns | two CPUs together |\n|---|---|---|---|\n"
    );
    for (kind, cost) in &costs {
        let path = cost.ns - DRIVER_NS;
        let _ = writeln!(out, "| {} | {path:.0} | {:.0} | {:.2} of twice |", kind.name, cost.ns, cost.together);
    }
    out += "\nN CPUs, millions of packets (or new connections) a second: N × 1000 / ns; at worst times what two CPUs together do, \
            once for each doubling.\n\n| CPUs |";
    costs.iter().for_each(|(kind, _)| _ = write!(out, " {} |", kind.name));
    out += "\n|---|";
    costs.iter().for_each(|_| out += "---|");
    out.push('\n');
    for cpus in CPUS {
        let _ = write!(out, "| {cpus} |");
        for (_, cost) in &costs {
            let (worst, best) = cost.millions(cpus);
            let _ = write!(out, " {} |", range(number(worst), number(best)));
        }
        out.push('\n');
    }
    out += "\nA card of 100 Gbit/s: packets a second are 100·10⁹ / 8 / (bytes of the frame + 20); CPUs that they want, at best to at \
            worst.\n\n| frame, bytes | million packets/s | NAT, both directions: CPUs | DR: CPUs |\n|---|---|---|---|\n";
    for bytes in FRAMES {
        let millions = CARD / 8.0 / (f64::from(bytes) + WIRE) / 1e6;
        let _ = write!(out, "| {bytes} | {} |", number(millions));
        for (_, cost) in costs.iter().take(2) {
            let text = |cpus: Option<u32>| cpus.map_or(format!("over {}", CPUS[CPUS.len() - 1]), |n| n.to_string());
            let [worst, best] = cost.cpus(millions).map(text);
            let _ = write!(out, " {} |", range(best, worst));
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "\nMemory: {:.0} bytes a connection by NAT, so {:.1} million in a GB.",
        cores.bytes_a_connection,
        1e3 / cores.bytes_a_connection
    );
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(ns: f64, times: f64) -> Cores {
        let case = |name: &&str| Both { case: (*name).into(), alone_ns: ns, alone_median_ns: ns, times, waits: None };
        let cases = crate::bench::cores::CASES.iter().map(case).collect();
        Cores { rounds: 1, connections: 1, cases, bytes_a_connection: 250.0 }
    }

    #[test]
    fn the_arithmetic_is_that_of_the_text() {
        let cost = KINDS[0].cost(&cores(190.0, 1.8)).unwrap();
        assert_eq!(cost, Cost { ns: 250.0, together: 0.9 });
        assert_eq!(cost.millions(1), (4.0, 4.0));
        let (worst, best) = cost.millions(4);
        assert!((worst - 12.96).abs() < 1e-9 && best == 16.0, "{worst} {best}");
        assert_eq!(cost.cpus(8.0), [Some(3), Some(2)]);
        assert_eq!(cost.cpus(1e6), [None, None]);
        // More than twice is luck.
        assert_eq!(KINDS[1].cost(&cores(190.0, 2.2)).unwrap().together, 1.0);
    }

    #[test]
    fn tables_are_whole() {
        let text = tables(&cores(190.0, 1.8)).unwrap();
        assert!(text.contains("| 64 | 149 | 38 to over 64 | 38 to over 64 |"), "{text}");
        assert!(text.contains("| 1518 | 8.1 | 3 | 3 |"), "{text}");
        assert!(text.contains("250 bytes a connection by NAT, so 4.0 million in a GB"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("| ")).count(), 1 + 4 + 1 + 7 + 1 + 3);
        let mut less = cores(190.0, 1.8);
        less.cases.pop();
        assert!(tables(&less).is_err());
    }
}
