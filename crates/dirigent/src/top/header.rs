//! What stands above every table: who the director is, what it is for its addresses, and how much it does.

use super::look::Known;
use super::state::State;
use super::table::Tone;
use super::words;
use std::time::Instant;

/// A part of a line.
pub type Part = (String, Tone);

/// The lines above the table. Those of virtual routers and of problems are only there where there are any.
pub fn lines(state: &State, known: &Known, now: Instant) -> Vec<Vec<Part>> {
    let mut lines = vec![director(state, known, now), places(known), traffic(known)];
    lines.extend(routers(known));
    lines.extend(problems(known));
    lines
}

fn plain(text: impl Into<String>) -> Part {
    (text.into(), Tone::Plain)
}

fn director(state: &State, known: &Known, now: Instant) -> Vec<Part> {
    let mut parts = vec![plain(format!("dirigent {}", known.look.status.instance))];
    if let Some((since, why)) = &known.trouble {
        parts.push((format!("  not answering for {}: {why}", words::age(now, *since)), Tone::Bad));
        return parts;
    }
    if let Some(daemon) = &known.look.status.daemon {
        parts.push(("  forwarding".to_owned(), Tone::Good));
        parts.push(plain(format!(", up {}, generation {}", words::span(daemon.uptime_s), daemon.generation)));
    }
    let pause = known.pause(state.interval);
    parts.push(match pause > state.interval {
        _ if state.paused => ("  PAUSED".to_owned(), Tone::Odd),
        true => (format!("  every {}: it is slow", words::interval(pause)), Tone::Odd),
        false => (format!("  every {}", words::interval(pause)), Tone::Faint),
    });
    parts
}

fn places(known: &Known) -> Vec<Part> {
    let status = &known.look.status;
    let interface = |i: &dirigent_api::Interface| {
        let name = if i.name.is_empty() { i.index.to_string() } else { i.name.clone() };
        format!("{name} {}", i.path)
    };
    let interfaces: Vec<_> = status.interfaces.iter().map(interface).collect();
    let room = &status.connections;
    // NAT has two entries of each connection, and there is as much room again for the other family: the most that it may be.
    let full = room.used as f64 / room.connections.max(1) as f64;
    let tone = match full {
        full if full > 0.9 => Tone::Bad,
        full if full > 0.7 => Tone::Odd,
        _ => Tone::Plain,
    };
    vec![
        plain(format!("interfaces {}", interfaces.join(", "))),
        (
            format!("  connections {} of {}", words::number(room.used as f64), words::number(room.connections as f64)),
            tone,
        ),
    ]
}

fn traffic(known: &Known) -> Vec<Part> {
    let speed = known.rates.total();
    let reasons = known.look.stats.reasons.iter().filter(|reason| reason.kind == "dropped");
    let drops: f64 = reasons.map(|reason| known.rates.reason(&reason.name)).sum();
    let (rate, bytes) = (words::rate, words::bytes);
    vec![
        plain(format!("{} conn/s", rate(speed.connections))),
        plain(format!("  in {} p/s {}/s", rate(speed.in_packets), bytes(speed.in_bytes))),
        plain(format!("  out {} p/s {}/s", rate(speed.out_packets), bytes(speed.out_bytes))),
        (format!("  drops {}/s", rate(drops)), if drops > 0.0 { Tone::Bad } else { Tone::Plain }),
    ]
}

fn routers(known: &Known) -> Option<Vec<Part>> {
    let routers = &known.look.status.virtual_routers;
    if routers.is_empty() {
        return None;
    }
    let mut parts = vec![plain("routers")];
    for router in routers {
        let tone = match router.state.as_str() {
            "master" => Tone::Good,
            "fault" => Tone::Bad,
            _ => Tone::Plain,
        };
        parts.push((format!("  {} {}", router.name, router.state), tone));
    }
    Some(parts)
}

fn problems(known: &Known) -> Option<Vec<Part>> {
    let (first, more) = known.look.status.problems.split_first()?;
    let more = if more.is_empty() { String::new() } else { format!(" (and {} more: dirigent status)", more.len()) };
    Some(vec![(format!("problem{more}: {first}"), Tone::Bad)])
}
