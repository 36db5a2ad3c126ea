//! How each scheduler spreads load, drawn from real runs: packets of many clients through the
//! packet path in memory, and which server each connection went to.

use std::net::{IpAddr, Ipv4Addr};

use dirigent_config::{Model, file};
use dirigent_director::schedule::Scheduler;
use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Style, Text};

use crate::golden::memory::Memory;
use crate::golden::{Bed, Does, Executor, Side};
use crate::packet::{self as build, IpOptions, Tcp, flag, proto};

/// Servers.
pub const SERVERS: usize = 4;
/// The first one's weight; the others have twice, three times and four times as much.
const WEIGHT: usize = 5;
/// Connections of one run.
pub const CONNECTIONS: u32 = 2000;
const CLIENTS: u32 = 300;
const DESTINATIONS: u32 = 24;

/// One run: connections that each server got.
pub fn run(scheduler: Scheduler) -> Result<[u32; SERVERS], String> {
    let bed = Bed::with_servers(SERVERS as u8, &["route add local 198.51.100.0/24 dev lo".to_owned()])?;
    let mut executor = Memory::default();
    executor.set_up(&bed, &model(scheduler)?)?;
    let mut seed = 1_u32;
    let mut draw = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    let mut got = [0; SERVERS];
    let mut open: Vec<(u32, [Vec<u8>; 2])> = Vec::new();
    for n in 0..CONNECTIONS {
        let client = (Ipv4Addr::from(0xcb00_7100 + draw(CLIENTS)).into(), 1024 + n as u16);
        let to = (Ipv4Addr::from(0xc633_6401 + draw(DESTINATIONS)).into(), 80);
        let [syn, ack, fin] = [flag::SYN, flag::ACK, flag::FIN | flag::ACK].map(|flags| frame(client, to, flags));
        match executor.run(Side::C, &syn)?.0 {
            // By direct routing the server is told by its MAC.
            Does::Out(Side::R, out) => *got.get_mut(usize::from(out[5]) - 1).ok_or("no such server")? += 1,
            other => return Err(format!("{} connection {n}: {other:?}", scheduler.name())),
        }
        executor.run(Side::C, &ack)?;
        // Most end soon, one in ten stays ten times as long.
        let until = n + 1 + draw(30) * if draw(10) == 0 { 10 } else { 1 };
        open.push((until, [fin, ack]));
        for (_, last) in open.extract_if(.., |(until, _)| *until <= n) {
            for frame in last {
                executor.run(Side::C, &frame)?;
            }
        }
    }
    Ok(got)
}

fn model(scheduler: Scheduler) -> Result<Model, String> {
    let mut text = format!(
        "version = 1\n[[mark]]\ndestination = \"198.51.100.0/24\"\nset = 1\n[[service]]\nfwmark = 1\nscheduler = \"{}\"\n",
        scheduler.name()
    );
    for n in 1..=SERVERS {
        text +=
            &format!("[[service.server]]\naddress = \"10.1.0.{}\"\nmethod = \"dr\"\nweight = {}\n", 10 + n, n * WEIGHT);
    }
    file::parse("spread", &text).map_err(|e| e.to_string())
}

fn frame(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
    let tcp = Tcp { sport: from.1, dport: to.1, flags, seq: 1, ack: 1, payload: b"" };
    let ip = build::ip(from.0, to.0, proto::TCP, &build::tcp(from.0, to.0, &tcp), &IpOptions::default());
    build::eth(Side::C.mac(), [2, 0, 0, 0, 0, 0xfe], &ip)
}

const COLUMNS: usize = 5;
const CELL: (f64, f64) = (168.0, 150.0);
const BAR: f64 = 26.0;
/// Height of a bar for all connections.
const FULL: f64 = 92.0;

/// The picture of all schedulers; for light and dark pages alike.
pub fn picture() -> Result<String, String> {
    let rows = Scheduler::ALL.len().div_ceil(COLUMNS);
    let (width, height) = (CELL.0 * COLUMNS as f64, CELL.1 * rows as f64 + 44.0);
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, width, height))
        .set("font-family", "sans-serif")
        .set("role", "img")
        .add(Style::new(
            "text{fill:#444}.bar{fill:#2f7fb8}.share{stroke:#c4571b;stroke-width:2}.base{stroke:#999}\
             @media(prefers-color-scheme:dark){text{fill:#ccc}.bar{fill:#5aa9de}.share{stroke:#f09050}.base{stroke:#777}}",
        ));
    for (n, scheduler) in Scheduler::ALL.iter().enumerate() {
        let (x, y) = ((n % COLUMNS) as f64 * CELL.0, (n / COLUMNS) as f64 * CELL.1);
        document = document.add(panel(*scheduler, &run(*scheduler)?).set("transform", format!("translate({x} {y})")));
    }
    let words = format!(
        "{CONNECTIONS} connections of {CLIENTS} clients to {DESTINATIONS} addresses; servers of weight 5, 10, 15 and 20."
    );
    let below = "Bars: the share of connections that each got, in percent. Lines: its share of the weights.";
    Ok(document
        .add(label(&words, 12.0, height - 26.0, 12).set("text-anchor", "start"))
        .add(label(below, 12.0, height - 10.0, 12).set("text-anchor", "start"))
        .to_string()
        + "\n")
}

fn label(text: &str, x: f64, y: f64, size: u32) -> Text {
    Text::new(text).set("x", x).set("y", y).set("font-size", size).set("text-anchor", "middle")
}

fn panel(scheduler: Scheduler, got: &[u32; SERVERS]) -> Group {
    let base = CELL.1 - 22.0;
    let mut group = Group::new()
        .add(label(scheduler.name(), CELL.0 / 2.0, 18.0, 14).set("font-weight", "bold"))
        .add(Line::new().set("x1", 12).set("x2", CELL.0 - 12.0).set("y1", base).set("y2", base).set("class", "base"));
    for (n, count) in got.iter().enumerate() {
        let (x, share) = (18.0 + n as f64 * (BAR + 9.0), f64::from(*count) / f64::from(CONNECTIONS));
        let by_weight = base - FULL * (n + 1) as f64 / 10.0;
        let bar = Rectangle::new().set("x", x).set("y", base - FULL * share).set("width", BAR);
        let line = Line::new().set("x1", x - 3.0).set("x2", x + BAR + 3.0).set("y1", by_weight).set("y2", by_weight);
        group = group
            .add(bar.set("height", FULL * share).set("class", "bar"))
            .add(line.set("class", "share"))
            .add(label(&format!("{:.0}", share * 100.0), x + BAR / 2.0, (base - FULL * share).min(by_weight) - 4.0, 11))
            .add(label(&((n + 1) * WEIGHT).to_string(), x + BAR / 2.0, base + 14.0, 11));
    }
    group
}
