//! The TCP, UDP and SCTP tables against recordings of the real kernel: for each state and each
//! packet the state after it, its timeout, and what the server's counters do.
//! The recordings stand beside the clone (`../shared/oracle/golden/states`, or below
//! `DIRIGENT_GOLDEN`); without them this says so, and fails where `CI` is `true`.
#![expect(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use dirigent_director::conn;
use dirigent_director::records::{Conn, Tuple, kind};
use dirigent_director::verdict::Action;
use dirigent_director::{sctp, tcp};
use dirigent_wire::{Addr4, Be16};
use std::path::{Path, PathBuf};
use support::{CLIENT_LINK, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VPORT, client4, frame4, server4};

const CLIENT_PORT: u16 = 4000;

/// The directory of recordings of this kind, or nothing, said aloud.
fn recordings(name: &str) -> Option<PathBuf> {
    let base = match std::env::var_os("DIRIGENT_GOLDEN") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle/golden"),
    };
    let file = base.join("states").join(name);
    if file.exists() {
        return Some(file);
    }
    let said = format!("no recording {} (set DIRIGENT_GOLDEN)", file.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{said}");
    eprintln!("SKIPPED: {said}");
    None
}

/// The value of a field in a step: recordings have one step a line and flat fields.
fn field<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(&format!("\"{name}\": "))?;
    let value = match rest.strip_prefix('"') {
        Some(text) => text.split('"').next()?,
        None => rest.split([',', '}']).next()?,
    };
    (value != "null").then_some(value)
}

/// "c:SA": a packet of the client with SYN and ACK; "c:-": with no flag; "c:10": with an SCTP
/// chunk of type 10.
fn packet(event: &str, protocol: u8) -> (Vec<u8>, u32) {
    let (side, letters) = event.split_once(':').unwrap_or_else(|| panic!("event {event}"));
    let bit = |letter| match letter {
        'F' => 0x01,
        'S' => 0x02,
        'R' => 0x04,
        'P' => 0x08,
        'A' => 0x10,
        '-' => 0,
        other => panic!("flag {other}"),
    };
    let flags = match protocol {
        132 => letters.parse().expect("a chunk type"),
        _ => letters.chars().map(bit).fold(0, |all, bit| all | bit),
    };
    let (client, server) = ((client4(1), CLIENT_PORT), (server4(0), SERVER_PORT));
    if side == "c" {
        let spec = Spec { src: client, dst: (VIP4, VPORT), protocol, flags, ttl: 64, payload: 0 };
        (frame4(spec), CLIENT_LINK)
    } else {
        (frame4(Spec { src: server, dst: client, protocol, flags, ttl: 64, payload: 0 }), SERVER_LINK)
    }
}

fn replay(name: &str, method: u8, protocol: u8) {
    let Some(file) = recordings(name) else { return };
    let text = std::fs::read_to_string(&file).unwrap();
    let key = Tuple::new(protocol, Addr4::new(client4(1)), Be16::new(CLIENT_PORT), Addr4::new(VIP4), Be16::new(VPORT));
    let state = |conn: Option<&Conn<Addr4>>| {
        let name = |c: &Conn<Addr4>| match protocol {
            6 => tcp::NAMES[usize::from(c.word().state())],
            132 => sctp::NAMES[usize::from(c.word().state())],
            _ => "UDP",
        };
        conn.map(name)
    };
    let (mut steps, mut wrong) = (0, Vec::new());
    for line in text.lines().filter(|line| field(line, "event").is_some()) {
        let (path, event) = (field(line, "path").unwrap(), field(line, "event").unwrap());
        let mut m = Memory::new(0, method, &[1]);
        for earlier in path.split_whitespace() {
            let (frame, link) = packet(earlier, protocol);
            let _ = m.run(&frame, link);
        }
        let server = match protocol {
            6 => 0,
            132 => 4,
            _ => 1,
        };
        let at_first = state(m.conns4.get(&key));
        let (active, inactive) = m.counted()[server];
        let (frame, link) = packet(event, protocol);
        let (verdict, _) = m.run(&frame, link);
        let (after, counted) = (state(m.conns4.get(&key)), m.counted()[server]);
        let moved = (i64::from(counted.0) - i64::from(active), i64::from(counted.1) - i64::from(inactive));

        let number = |name| field(line, name).map(|n| n.parse::<i64>().expect("a number"));
        let mut differs = Vec::new();
        if at_first != field(line, "state") {
            differs.push(format!("before: {at_first:?}"));
        }
        if after != field(line, "to") {
            differs.push(format!("after: {after:?}"));
        }
        // The kernel removes an inactive connection some time after it let go of it, and
        // the recording counted it before or after: rows that begin in such a state
        // disagree among themselves about the inactive ones, of one and the same event.
        let closing = matches!(at_first, Some("TIME_WAIT" | "CLOSE" | "CLOSED"));
        let inactive = if closing { moved.1 } else { number("inactive").unwrap() };
        if moved != (number("active").unwrap(), inactive) {
            differs.push(format!("counters moved by {moved:?}"));
        }
        // A packet that belongs to nothing goes to the host, which answers or forwards it.
        let forwarded = matches!(verdict.action, Action::Transmit);
        if event.starts_with('c') && field(line, "passed") != Some(if forwarded { "true" } else { "false" }) {
            differs.push(format!("verdict {verdict:?}"));
        }
        if let (Some(timer), Some(conn)) = (number("timer"), m.conns4.get(&key)) {
            // Recorded up to a second and a half after the packet.
            let ours = i64::from(conn::timeout(&m.settings, protocol, conn.word().state()) / m.settings.hz);
            if !(timer..=timer + 2).contains(&ours) {
                differs.push(format!("timeout {ours} s"));
            }
        }
        steps += 1;
        if !differs.is_empty() {
            wrong.push(format!("{line}\n    {}", differs.join("; ")));
        }
    }
    assert!(steps > 0, "{}: no steps", file.display());
    assert!(wrong.is_empty(), "{} of {steps} steps differ:\n{}", wrong.len(), wrong.join("\n"));
    println!("{name}: {steps} steps");
}

#[test]
fn tcp_states_in_nat_are_those_of_the_kernel() {
    replay("states-tcp-masq.json", kind::NAT_REQUEST, 6);
}

#[test]
fn tcp_states_in_direct_routing_are_those_of_the_kernel() {
    replay("states-tcp-gate.json", kind::DR_REQUEST, 6);
}

#[test]
fn udp_states_are_those_of_the_kernel() {
    replay("states-udp-masq.json", kind::NAT_REQUEST, 17);
}

#[test]
fn sctp_states_in_nat_are_those_of_the_kernel() {
    replay("states-sctp-masq.json", kind::NAT_REQUEST, 132);
}
