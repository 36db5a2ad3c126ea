//! The picture of a walk, in 80 columns.

use crate::print;
use crate::why::Method;
use dirigent_api::{Hop, MacAddress, Walk, Way};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Columns of a terminal.
const WIDTH: usize = 80;
const BOLD: u8 = 1;
const RED: u8 = 31;
const YELLOW: u8 = 33;

/// A word in a colour, where that is wanted.
type Paint<'p> = &'p dyn Fn(&str, u8) -> String;

/// For people.
pub fn text(walk: &Walk) -> String {
    drawn(walk, &print::coloured)
}

fn drawn(walk: &Walk, paint: Paint<'_>) -> String {
    let mut out = String::new();
    for way in &walk.ways {
        if !out.is_empty() {
            out.push('\n');
        }
        draw_way(&mut out, &walk.service, way, paint);
    }
    for line in &walk.left_out {
        let _ = write!(out, "\n{}\n", print::wrapped(line, WIDTH).trim_start());
    }
    out
}

fn draw_way(out: &mut String, service: &str, way: &Way, paint: Paint<'_>) {
    let method = Method::of(&way.method, way.local).name();
    let kind = way.tunnel.as_ref().map(|tunnel| format!(" ({})", tunnel.kind.to_uppercase())).unwrap_or_default();
    let _ = writeln!(out, "{}", paint(&format!("{service}: {method}{kind}"), BOLD));
    let _ = writeln!(out, "  client  {}", way.client);
    let _ = writeln!(out, "  asks    {}", way.asked);
    let _ = writeln!(out, "  server  {}", way.server);
    for (title, hops) in [("the request", &way.request), ("the answer", &way.answer)] {
        let _ = writeln!(out, "\n{}", paint(title, BOLD));
        draw_hops(out, hops, paint);
    }
    if let Some(broken) = &way.broken {
        let _ = writeln!(out, "\n{}", paint("it does not arrive so", RED));
        let _ = writeln!(out, "{}", print::wrapped(broken, WIDTH));
    }
    let _ = writeln!(out, "\n  * changed by who sends it");
    for (reason, where_) in unknowns(way) {
        let _ =
            writeln!(out, "{}", print::wrapped(&format!("? not known here, {reason}: {}", where_.join(", ")), WIDTH));
    }
    let why = if way.needs.len() > 1 { "why so" } else { "how" };
    let traffic = vec![way.traffic.text.clone()];
    let parts = [(why, &way.needs), ("who carries what", &traffic), ("taken for granted", &way.notes)];
    for (title, lines) in parts.into_iter().filter(|(_, lines)| !lines.is_empty()) {
        let _ = writeln!(out, "\n{}", paint(title, BOLD));
        for line in lines {
            let _ = writeln!(out, "{}", print::wrapped(line, WIDTH));
        }
    }
}

fn draw_hops(out: &mut String, hops: &[Hop], paint: Paint<'_>) {
    let places = hops.iter().flat_map(|hop| [&hop.source, &hop.destination]);
    let outer = hops.iter().filter_map(|hop| hop.outer.as_ref()).flat_map(|outer| [&outer.source, &outer.destination]);
    // With room for a mark.
    let width = places.chain(outer).map(|place| place.chars().count() + 1).max().unwrap_or(0);
    for hop in hops {
        let _ = writeln!(out, "  {}", hop.from);
        draw_hop(out, hop, width, paint);
    }
    if let Some(last) = hops.last() {
        let _ = writeln!(out, "  {}", last.to);
    }
}

fn draw_hop(out: &mut String, hop: &Hop, width: usize, paint: Paint<'_>) {
    let changes = |key: &str| hop.changed.iter().any(|changed| changed == key);
    // Marks are told apart without colours, and colours take no room.
    let marked = |word: &str, changed: bool, width: usize| {
        let pad = " ".repeat(width.saturating_sub(word.chars().count() + usize::from(changed)));
        if changed { format!("{}*{pad}", paint(word, YELLOW)) } else { format!("{word}{pad}") }
    };
    let within = hop.is_within();
    let mac = |mac: &MacAddress, key: &str| match &mac.address {
        _ if within => String::new(),
        Some(address) => marked(address, changes(key), 0),
        None => marked("?", changes(key), 0),
    };
    let mut line = |label: &str, place: &str, changed: bool, mac: &str| {
        let line = format!("    │ {label:<4} {} {mac}", marked(place, changed, width));
        let _ = writeln!(out, "{}", line.trim_end());
    };
    let (from, to) = (mac(&hop.source_mac, "source_mac"), mac(&hop.destination_mac, "destination_mac"));
    let ends = [("from", &hop.source, "source"), ("to", &hop.destination, "destination")];
    match &hop.outer {
        None => {
            for ((label, place, key), mac) in ends.into_iter().zip([&from, &to]) {
                line(label, place, changes(key), mac);
            }
        }
        Some(outer) => {
            line("from", &outer.source, changes("outer"), &from);
            line("to", &outer.destination, changes("outer"), &to);
            let kind = marked(&outer.kind, changes("outer"), 0);
            line(&format!("{kind} TTL {}, {} bytes more, and inside:", outer.ttl, outer.bytes), "", false, "");
            for (label, place, key) in ends {
                line(label, place, changes(key), "");
            }
        }
    }
    let by = match hop.interface.as_str() {
        _ if within => ", without a frame".to_owned(),
        "" => String::new(),
        interface if hop.from == "director" && hop.to != "director" => format!(", out of {interface}"),
        interface => format!(", into {interface}"),
    };
    let _ = writeln!(out, "    ▼ TTL {}{by}", marked(&hop.ttl.to_string(), changes("ttl"), 0));
}

/// Why MACs are unknown, each with the hops that this is about.
fn unknowns(way: &Way) -> BTreeMap<&str, Vec<String>> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for hop in way.request.iter().chain(&way.answer).filter(|hop| !hop.is_within()) {
        let place = format!("{} → {}", hop.from, hop.to);
        for mac in [&hop.source_mac, &hop.destination_mac] {
            if mac.address.is_none() {
                let places = all.entry(&mac.unknown).or_default();
                if !places.contains(&place) {
                    places.push(place.clone());
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_api::{OuterPacket, Traffic, Tunnel};

    const LONGEST: &str = "[2001:db8:1111:2222:3333:4444:5555:6666]:40000";

    fn mac(address: &str) -> MacAddress {
        MacAddress { address: Some(address.to_owned()), unknown: String::new() }
    }

    fn hop(from: &str, to: &str, destination: &str, changed: &[&str]) -> Hop {
        Hop {
            from: from.to_owned(),
            to: to.to_owned(),
            source_mac: MacAddress { address: None, unknown: "somewhere else".to_owned() },
            destination_mac: mac("02:00:00:00:02:01"),
            source: LONGEST.to_owned(),
            destination: destination.to_owned(),
            ttl: 63,
            changed: changed.iter().map(|key| (*key).to_owned()).collect(),
            ..Hop::default()
        }
    }

    fn walk() -> Walk {
        let outer = OuterPacket {
            kind: "gue".to_owned(),
            source: LONGEST.trim_end_matches(":40000").trim_matches(['[', ']']).to_owned(),
            destination: "fd00::2".to_owned(),
            ttl: 64,
            bytes: 52,
        };
        let first = Hop { interface: "c0".to_owned(), ..hop("client", "director", "[2001:db8::10]:80", &[]) };
        let changed = ["source_mac", "destination_mac", "outer", "ttl"];
        let second = hop("director", "server", "[2001:db8::10]:80", &changed);
        let second = Hop { outer: Some(outer), interface: "r0".to_owned(), ..second };
        let way = Way {
            server: "[fd00::2]:80".to_owned(),
            method: "tun".to_owned(),
            tunnel: Some(Tunnel { kind: "gue".to_owned(), ..Tunnel::default() }),
            client: LONGEST.to_owned(),
            asked: "[2001:db8::10]:80".to_owned(),
            request: vec![first, second],
            answer: vec![hop("server", "client", LONGEST, &["source"])],
            broken: Some("word ".repeat(40).trim_end().to_owned()),
            needs: vec!["One.".to_owned(), "Two.".to_owned()],
            traffic: Traffic { text: "Half of it.".to_owned(), ..Traffic::default() },
            ..Way::default()
        };
        Walk { service: "tcp [2001:db8::10]:80".to_owned(), ways: vec![way], left_out: vec!["None left.".to_owned()] }
    }

    #[test]
    fn changes_are_marked_and_lines_fit() {
        let text = drawn(&walk(), &|word, _| word.to_owned());
        for line in [
            "tcp [2001:db8::10]:80: Tunnelling (GUE)",
            "    │ from [2001:db8:1111:2222:3333:4444:5555:6666]:40000  ?",
            "    │ to   [2001:db8::10]:80                               02:00:00:00:02:01",
            "    ▼ TTL 63, into c0",
            "    │ from 2001:db8:1111:2222:3333:4444:5555:6666*         ?*",
            "    │ to   fd00::2*                                        02:00:00:00:02:01*",
            "    │ gue* TTL 64, 52 bytes more, and inside:",
            "    │ to   [2001:db8::10]:80",
            "    ▼ TTL 63*, out of r0",
            "    │ from [2001:db8:1111:2222:3333:4444:5555:6666]:40000* ?",
            "it does not arrive so",
            "    ? not known here, somewhere else: client → director, director → server,",
            "      server → client",
            "None left.",
        ] {
            assert!(text.lines().any(|other| other == line), "{line:?} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn colours_change_no_place() {
        let painted = drawn(&walk(), &|word, colour| format!("\x1b[{colour}m{word}\x1b[0m"));
        assert!(painted.contains("\x1b[33mfd00::2\x1b[0m*"), "{painted}");
        let mut plain = painted;
        for code in [BOLD, RED, YELLOW, 0] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(plain, drawn(&walk(), &|word, _| word.to_owned()));
    }
}
