//! What commands print.

use crate::failure::{Failure, Result};
use dirigent_api::{Connections, Counters, Problem, Reason, Service, Stats, Status, Synchronisation, VirtualRouter};
use dirigent_config::Scheduler;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use Column::{Left, Right};

/// Text to stdout. A reader that has gone (`| head`) is no failure.
pub fn text(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::io("stdout", &e)),
        _ => Ok(()),
    }
}

/// Anything as JSON.
pub fn json<T: Serialize>(value: &T) -> Result<()> {
    let mut out = serde_json::to_string_pretty(value).map_err(|e| Failure::new("JSON", e.to_string(), ""))?;
    out.push('\n');
    text(&out)
}

/// Anything as JSON in one line.
pub fn json_line<T: Serialize>(value: &T) -> Result<()> {
    let out = serde_json::to_string(value).map_err(|e| Failure::new("JSON", e.to_string(), ""))?;
    text(&(out + "\n"))
}

/// Problems to stderr, in red where that can be seen.
pub fn problems(problems: &[Problem]) {
    let (on, off) = if std::io::stderr().is_terminal() { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
    let mut err = std::io::stderr().lock();
    for problem in problems {
        // There is nobody left to tell.
        let _ = writeln!(err, "{on}error:{off} {problem}");
    }
}

/// A word in colour, where a terminal shows it.
pub fn coloured(word: &str, colour: u8) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() }
}

/// `12.3 MB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} PB")
}

/// `1 server`, `2 servers`.
pub fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A column of a table: its heading, and on which side its cells line up.
enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers: digits of the same worth stand below each other.
    Right(&'static str),
}

impl Column {
    fn heading(&self) -> &'static str {
        match self {
            Left(heading) | Right(heading) => heading,
        }
    }
}

/// Rows under headings, columns as wide as they need.
fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<_> = columns.iter().map(|c| c.heading().chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, width), column) in cells.zip(&widths).zip(columns) {
            let _ = match column {
                Left(_) => write!(line, "{cell:<width$}  "),
                Right(_) => write!(line, "{cell:>width$}  "),
            };
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let mut out = line(&mut columns.iter().map(Column::heading));
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

fn counters(c: &Counters) -> [String; 5] {
    [
        c.connections.to_string(),
        c.in_packets.to_string(),
        bytes(c.in_bytes),
        c.out_packets.to_string(),
        bytes(c.out_bytes),
    ]
}

/// The configured weight, and behind it the effective one where that differs.
pub fn weight(server: &dirigent_api::Server) -> String {
    let effective = server.effective_weight;
    match server.state.as_str() {
        "draining" => format!("{} (0)", server.weight),
        "removed" | "down" | "away" => server.weight.to_string(),
        _ if effective == f64::from(server.weight) => server.weight.to_string(),
        _ if effective >= 100.0 => format!("{} ({effective:.0})", server.weight),
        _ => format!("{} ({effective:.2})", server.weight),
    }
}

/// A service's scheduler with its flags, and persistence.
pub fn scheduler(service: &Service) -> String {
    let mut scheduler = service.scheduler.clone();
    if !service.flags.is_empty() {
        let _ = write!(scheduler, " ({})", service.flags.join(","));
    }
    let default = Scheduler::from_name(&service.scheduler).and_then(Scheduler::table).map(|table| table.size);
    if let Some(size) = service.table_size.filter(|size| Some(*size) != default) {
        let _ = write!(scheduler, " table of {size}");
    }
    if let Some(p) = &service.persistence {
        let _ = write!(scheduler, " persistent {}", p.timeout_s);
        if !["255.255.255.255", "/128"].contains(&p.mask.as_str()) {
            let _ = write!(scheduler, " mask {}", p.mask);
        }
    }
    scheduler
}

/// Virtual services, each with its servers below it.
pub fn services(services: &[Service]) -> String {
    let mut rows = Vec::new();
    for service in services {
        let active: u64 = service.servers.iter().map(|s| u64::from(s.active)).sum();
        let inactive: u64 = service.servers.iter().map(|s| u64::from(s.inactive)).sum();
        rows.push(vec![
            service.name(),
            scheduler(service),
            String::new(),
            String::new(),
            active.to_string(),
            inactive.to_string(),
            String::new(),
        ]);
        for (word, nets) in [("allow", &service.allow), ("deny", &service.deny)] {
            if let Some(nets) = some_of(nets) {
                let row = [format!("  {word} {nets}")];
                rows.push(row.into_iter().chain(std::iter::repeat_n(String::new(), 6)).collect());
            }
        }
        for s in &service.servers {
            let name = format!("  → {}", s.address);
            let (weight, active, inactive) = (weight(s), s.active.to_string(), s.inactive.to_string());
            rows.push(vec![name, String::new(), s.method.clone(), weight, active, inactive, s.state.clone()]);
        }
    }
    let columns = [
        Left("SERVICE"),
        Left("SCHEDULER"),
        Left("METHOD"),
        Right("WEIGHT"),
        Right("ACTIVE"),
        Right("INACTIVE"),
        Left("STATE"),
    ];
    table(&columns, &rows)
}

/// The first few of a list; nothing of an empty one.
fn some_of(all: &[String]) -> Option<String> {
    const FEW: usize = 3;
    let first = all.get(..all.len().min(FEW)).filter(|first| !first.is_empty())?.join(", ");
    Some(if all.len() > FEW { format!("{first} and {} more", all.len() - FEW) } else { first })
}

/// Real servers.
pub fn servers(services: &[Service]) -> String {
    let row = |s: &dirigent_api::Server| {
        let thresholds = if s.upper == 0 { "-".into() } else { format!("{}/{}", s.lower, s.upper) };
        let (weight, active, inactive) = (weight(s), s.active.to_string(), s.inactive.to_string());
        let hop = format!("{} {}", s.next_hop.state, s.next_hop.mac);
        let (address, method, service) = (s.address.clone(), s.method.clone(), s.service.clone());
        vec![address, service, method, weight, thresholds, active, inactive, s.state.clone(), hop]
    };
    let rows: Vec<_> = services.iter().flat_map(|s| &s.servers).map(row).collect();
    let columns = [
        Left("SERVER"),
        Left("SERVICE"),
        Left("METHOD"),
        Right("WEIGHT"),
        Right("LIMITS"),
        Right("ACTIVE"),
        Right("INACTIVE"),
        Left("STATE"),
        Left("NEXT HOP"),
    ];
    table(&columns, &rows)
}

/// Connections.
pub fn connections(all: &Connections) -> String {
    let row = |c: &dirigent_api::Connection| {
        let (arrived, left) = (c.in_packets.to_string(), c.out_packets.to_string());
        let (client, vip, server) = (c.client.clone(), c.virtual_address.clone(), c.server.clone());
        vec![c.protocol.clone(), client, vip, server, c.state.clone(), format!("{} s", c.expires_s), arrived, left]
    };
    let rows: Vec<_> = all.connections.iter().map(row).collect();
    let columns = [
        Left("PROTOCOL"),
        Left("CLIENT"),
        Left("VIRTUAL"),
        Left("SERVER"),
        Left("STATE"),
        Right("EXPIRES"),
        Right("IN PACKETS"),
        Right("OUT PACKETS"),
    ];
    table(&columns, &rows)
}

/// Verdicts that were counted.
pub fn reasons<'a>(reasons: impl Iterator<Item = &'a Reason>) -> String {
    let rows: Vec<_> =
        reasons.map(|r| vec![r.kind.clone(), r.name.clone(), r.count.to_string(), r.text.clone()]).collect();
    table(&[Left("VERDICT"), Left("REASON"), Right("PACKETS"), Left("MEANING")], &rows)
}

/// Rows of all that is counted: services with their servers, and the sum.
fn counted(stats: &Stats, which: impl Fn(&Counters, Option<&Counters>) -> Counters) -> Vec<Vec<String>> {
    let row = |name: String, c: &Counters, r: Option<&Counters>| {
        std::iter::once(name).chain(counters(&which(c, r))).collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    for service in &stats.services {
        rows.push(row(service.name(), &service.counters, service.rates.as_ref()));
        rows.extend(service.servers.iter().map(|s| row(format!("  → {}", s.address), &s.counters, s.rates.as_ref())));
    }
    rows.push(row("total".to_owned(), &stats.total, stats.rates.as_ref()));
    rows
}

/// Growth each second, by service and server.
pub fn rates(stats: &Stats) -> String {
    let columns = [
        Left("SERVICE"),
        Right("CONNECTIONS/S"),
        Right("IN PACKETS/S"),
        Right("IN BYTES/S"),
        Right("OUT PACKETS/S"),
        Right("OUT BYTES/S"),
    ];
    table(&columns, &counted(stats, |_, rates| rates.copied().unwrap_or_default()))
}

/// Counters by service and server, then by verdict.
pub fn stats(stats: &Stats) -> String {
    let rows = counted(stats, |counters, _| *counters);
    let columns = [
        Left("SERVICE"),
        Right("CONNECTIONS"),
        Right("IN PACKETS"),
        Right("IN BYTES"),
        Right("OUT PACKETS"),
        Right("OUT BYTES"),
    ];
    let mut out = table(&columns, &rows);
    out.push('\n');
    out + &reasons(stats.reasons.iter().filter(|r| r.count > 0))
}

/// Reasons for an interface that are printed.
const REASONS: usize = 4;

/// Columns of the longest lines of sentences.
const SENTENCES: usize = 100;

/// A text in lines of at most so many columns, those after the first further in.
pub fn wrapped(text: &str, most: usize) -> String {
    let (mut out, mut column) = (String::from("   "), 3);
    for word in text.split(' ') {
        let width = word.chars().count();
        if column + 1 + width > most && column > 6 {
            out.push_str("\n     ");
            column = 5;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + width;
    }
    out
}

/// How the director is doing.
pub fn status(s: &Status) -> String {
    let mut out = String::new();
    let daemon = match &s.daemon {
        Some(d) => {
            let taken = if d.took_over { ", took over an earlier one's work" } else { "" };
            format!("{} (process {}, up {} s, {}{taken})", coloured("forwarding", 32), d.pid, d.uptime_s, d.config)
        }
        None => format!("{} without a daemon", coloured("forwarding", 33)),
    };
    let _ = writeln!(out, "director {}: {daemon}", s.instance);
    for i in &s.interfaces {
        let name = if i.name.is_empty() { format!("number {}", i.index) } else { i.name.clone() };
        let _ = writeln!(out, "  interface {name}: {}", i.path);
        // The last one says why XDP or tc; before it there is one for each server.
        let (path, why) = i.reasons.split_last().map_or((None, [].as_slice()), |(path, why)| (Some(path), why));
        for reason in why.iter().take(REASONS) {
            let _ = writeln!(out, "{}", wrapped(reason, SENTENCES));
        }
        if why.len() > REASONS {
            let _ = writeln!(out, "    and {} more; `dirigent status --json` has all", why.len() - REASONS);
        }
        if let Some(reason) = path {
            let _ = writeln!(out, "{}", wrapped(reason, SENTENCES));
        }
    }
    let room = &s.connections;
    let _ = writeln!(
        out,
        "  connections: {}; room for {} in each address family, in tables of {}",
        room.used,
        room.connections,
        bytes(room.bytes)
    );
    for vip in &s.virtual_addresses {
        let holder = vip.holder.as_ref().map_or_else(|| coloured("nobody here", 31), |on| format!("on {on}"));
        let managed = if vip.managed { ", managed by the daemon" } else { "" };
        let _ = writeln!(out, "  virtual address {}: {holder}{managed}", vip.address);
    }
    for r in &s.virtual_routers {
        let _ =
            writeln!(out, "  virtual router {}: {} for {} s, {}", r.name, role(&r.state), r.for_s, router_details(r));
        let _ = writeln!(out, "{}", wrapped(&r.why, SENTENCES));
    }
    if let Some(sync) = &s.synchronisation {
        out.push_str(&synchronisation(sync));
    }
    for problem in &s.problems {
        let _ = writeln!(out, "  {} {problem}", coloured("problem:", 31));
    }
    out
}

fn synchronisation(s: &Synchronisation) -> String {
    let mut out = format!("  synchronisation: {} as node {}; {} own", s.role, s.node, s.own);
    if s.kernels > 0 {
        let _ = write!(out, ", {} from kernels", s.kernels);
    }
    let _ = writeln!(out, "; {} records sent, {} heard, {} changes made", s.sent, s.received, s.applied);
    for p in &s.peers {
        let (state, colour) = if p.whole { ("whole", 32) } else { ("incomplete", 33) };
        let at = if p.address.is_empty() || p.address == p.node { String::new() } else { format!(" at {}", p.address) };
        let _ = writeln!(
            out,
            "    node {}{at}: {}, {} known of {}, {} ms behind, heard {} ms ago; {} gaps, {} repaired, {} lost",
            p.node,
            coloured(state, colour),
            p.known,
            p.expected,
            p.lag_ms,
            p.silent_ms,
            p.gaps,
            p.repaired,
            p.lost
        );
    }
    let dropped: Vec<_> = s.dropped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if !dropped.is_empty() {
        let _ = writeln!(out, "    not used: {}", dropped.join(", "));
    }
    if let Some(trouble) = &s.trouble {
        let _ = writeln!(out, "    {} {trouble}", coloured("trouble:", 31));
    }
    out
}

fn role(state: &str) -> String {
    match state {
        "master" => coloured(state, 32),
        "fault" => coloured(state, 31),
        _ => state.to_owned(),
    }
}

fn router_details(r: &VirtualRouter) -> String {
    let mut out = format!("priority {}", r.priority);
    if r.priority != r.configured_priority {
        let _ = write!(out, " (configured {})", r.configured_priority);
    }
    if let Some(master) = &r.master {
        let word = if r.contended { "also master: " } else { "master " };
        let _ =
            write!(out, ", {word}{} of priority {}, heard {} ms ago", master.address, master.priority, master.heard_ms);
    }
    if let Some(claimed) = &r.claimed {
        let _ = write!(out, ", another host claims {claimed}");
    }
    if r.gave_way {
        out += ", gave way";
    }
    let _ = write!(out, "; {}", if r.addresses.is_empty() { "no addresses".to_owned() } else { r.addresses.join(" ") });
    out
}

/// Virtual routers.
pub fn virtual_routers(routers: &[VirtualRouter]) -> String {
    let row = |r: &VirtualRouter| {
        let master = r
            .master
            .as_ref()
            .map_or_else(|| "-".to_owned(), |m| format!("{} ({}), {} ms ago", m.address, m.priority, m.heard_ms));
        let priority = match r.priority == r.configured_priority {
            true => r.priority.to_string(),
            false => format!("{} ({})", r.priority, r.configured_priority),
        };
        let state = match &r.claimed {
            Some(claimed) => format!("{}, claimed: {claimed}", r.state),
            None if r.gave_way => format!("{}, gave way", r.state),
            None => r.state.clone(),
        };
        vec![
            r.name.clone(),
            state,
            priority,
            format!("{} s", r.for_s),
            r.interface.clone(),
            r.vrid.to_string(),
            master,
            r.addresses.join(" "),
            r.why.clone(),
        ]
    };
    let columns = [
        Left("ROUTER"),
        Left("STATE"),
        Right("PRIORITY"),
        Right("SINCE"),
        Left("INTERFACE"),
        Right("VRID"),
        Left("OTHER MASTER"),
        Left("ADDRESSES"),
        Left("WHY"),
    ];
    table(&columns, &routers.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_characters() {
        let rows = [vec!["→ é".into(), "1".into(), "x".into()], vec!["long one".into(), "10".into(), String::new()]];
        let columns = [Left("A"), Right("B"), Left("C")];
        assert_eq!(table(&columns, &rows), "A          B  C\n→ é        1  x\nlong one  10\n");
    }

    #[test]
    fn long_texts_are_wrapped_between_words() {
        assert_eq!(wrapped("a short one", SENTENCES), "    a short one");
        let long = "word ".repeat(40);
        let text = wrapped(long.trim_end(), SENTENCES);
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.len() <= 100), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("      word")), "{text}");
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!([bytes(0), bytes(999), bytes(1500), bytes(2_500_000_000)], ["0 B", "999 B", "1.5 kB", "2.5 GB"]);
    }
}
