//! Values of keywords. What is wrong with one is said, and the keyword is as if it were not there.

use super::Said;
use super::syntax::{Node, script_words};
use crate::health::Script;
use crate::model::{Method, Tunnel, TunnelChecksum, TunnelKind};
use std::net::IpAddr;
use std::time::Duration;

/// The first value, which must be there.
pub fn word<'n>(node: &'n Node, said: &mut Said) -> Option<&'n str> {
    let found = node.value(0);
    if found.is_none() {
        said.fault(&node.place, format!("{} has no value", node.keyword), "write one after it");
    }
    found
}

/// A whole number.
pub fn integer(node: &Node, min: i64, max: i64, said: &mut Said) -> Option<i64> {
    let text = word(node, said)?;
    let found = text.parse::<i64>().ok().filter(|n| (min..=max).contains(n));
    if found.is_none() {
        let remedy = format!("use a whole number from {min} to {max}");
        said.fault(&node.place, format!("{} is {text:?}", node.keyword), remedy);
    }
    found
}

pub fn integer32(node: &Node, min: u32, max: u32, said: &mut Said) -> Option<u32> {
    integer(node, min.into(), max.into(), said).and_then(|n| u32::try_from(n).ok())
}

pub fn port(node: &Node, said: &mut Said) -> Option<u16> {
    integer(node, 1, 65535, said).and_then(|n| u16::try_from(n).ok())
}

/// Decimal seconds, to the millisecond.
pub fn timer(node: &Node, may_be_zero: bool, said: &mut Said) -> Option<Duration> {
    let text = word(node, said)?;
    let found = seconds(text).filter(|time| may_be_zero || !time.is_zero());
    if found.is_none_or(|time| time > crate::health::MAX_TIME) {
        let remedy = "use seconds, up to 2678400, like 3 or 2.5";
        said.fault(&node.place, format!("{} is {text:?}", node.keyword), remedy);
        return None;
    }
    found
}

/// What is less than a millisecond is one.
pub fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) || part.len() > 9 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos: u64 = format!("{part:0<9}").parse().ok()?;
    let ms = whole.checked_mul(1000)?.checked_add(nanos.div_ceil(1_000_000))?;
    Some(Duration::from_millis(ms))
}

/// on, true, yes, off, false, no; alone: yes.
pub fn boolean(node: &Node, said: &mut Said) -> Option<bool> {
    match node.value(0) {
        None | Some("on" | "true" | "yes") => Some(true),
        Some("off" | "false" | "no") => Some(false),
        Some(other) => {
            said.fault(&node.place, format!("{} is {other:?}", node.keyword), "use on or off");
            None
        }
    }
}

pub fn address(node: &Node, text: &str, said: &mut Said) -> Option<IpAddr> {
    let found = text.parse().ok();
    if found.is_none() {
        let remedy = "write it in numbers, like 192.0.2.10 or 2001:db8::10";
        said.fault(&node.place, format!("{}: {text:?} is no address", node.keyword), remedy);
    }
    found
}

/// `ADDRESS [PORT]` from value number `at` on.
pub fn endpoint(node: &Node, at: usize, said: &mut Said) -> Option<(IpAddr, Option<u16>)> {
    let Some(text) = node.value(at) else {
        said.fault(&node.place, format!("{} has no address", node.keyword), "write ADDRESS PORT after it");
        return None;
    };
    let address = address(node, text, said);
    let port = match node.value(at + 1) {
        None => Some(None),
        Some(text) => port_of(node, text, said).map(Some),
    };
    Some((address?, port?))
}

pub fn port_of(node: &Node, text: &str, said: &mut Said) -> Option<u16> {
    let found = text.parse().ok();
    if found.is_none() {
        said.fault(&node.place, format!("{}: {text:?} is no port", node.keyword), "use a number from 0 to 65535");
    }
    found
}

/// A program, with whose rights it has.
pub fn script(node: &Node, user: &(Option<String>, Option<String>), said: &mut Said) -> Option<Script> {
    let text = word(node, said)?;
    let command = script_words(text);
    if command.first().is_none_or(String::is_empty) {
        said.fault(&node.place, format!("{} names no program", node.keyword), "write \"/path/to/program argument\"");
        return None;
    }
    let own = rights(node.values.get(1..).unwrap_or_default());
    if own.0.as_deref() == Some("root") {
        said.note(node, NOT_AS_ROOT);
    }
    let (user, group) = if own.0.is_some() { own } else { user.clone() };
    // Root's group goes with root.
    let user = user.filter(|user| user != "root");
    Some(Script { command, group: group.filter(|_| user.is_some()), user })
}

/// Why what was to run as root does not.
pub const NOT_AS_ROOT: &str = "no script runs as root: it runs as an unprivileged user, without any right; what needs root: run it by a \
                               timer of systemd's, let it write a number into a file, and look at that by FILE_CHECK or track_file";

/// `USER [:][GROUP]`.
pub fn rights(words: &[String]) -> (Option<String>, Option<String>) {
    let (user, rest) = match words.first().map(|w| w.split_once(':').unwrap_or((w, ""))) {
        None => return (None, None),
        Some(found) => found,
    };
    let group = words.get(1).map_or(rest, |w| w.trim_start_matches(':'));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (some(user), some(group))
}

/// A forwarding method.
pub fn method(node: &Node, said: &mut Said) -> Option<Method> {
    let name = word(node, said)?;
    let rest = node.values.get(1..).unwrap_or_default();
    let mut fault = |what: String, remedy: &str| {
        said.fault(&node.place, what, remedy);
        None
    };
    let plain = match name {
        "NAT" => Some(Method::Nat),
        "DR" => Some(Method::Dr),
        "TUN" => None,
        _ => return fault(format!("{} is {name:?}", node.keyword), "use NAT, DR or TUN"),
    };
    if let Some(method) = plain {
        return match rest.first() {
            None => Some(method),
            Some(word) => fault(format!("{word:?} after {name}"), "remove it, or use TUN"),
        };
    }
    let mut kind = TunnelKind::Ipip;
    let mut checksum = TunnelChecksum::None;
    let mut port = 0;
    let mut words = rest.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match (word, word == "type" || word == "port") {
            ("type", _) => match words.next() {
                Some("ipip") => kind = TunnelKind::Ipip,
                Some("gue") => kind = TunnelKind::Gue { port: 0 },
                Some("gre") => kind = TunnelKind::Gre,
                other => return fault(format!("type is {:?}", other.unwrap_or("")), "use ipip, gue or gre"),
            },
            ("port", _) => match words.next().and_then(|text| text.parse().ok()) {
                Some(number) if number != 0 => port = number,
                _ => return fault("the tunnel's port is no port".into(), "use 1 to 65535"),
            },
            ("nocsum", _) => checksum = TunnelChecksum::None,
            ("csum", _) => checksum = TunnelChecksum::Full,
            ("remcsum", _) => checksum = TunnelChecksum::Remote,
            _ => return fault(format!("{word:?} after TUN"), "use type, port, nocsum, csum, remcsum"),
        }
    }
    match &mut kind {
        TunnelKind::Gue { port: gue } => *gue = port,
        _ if port != 0 => return fault("a port of a tunnel that is not gue".into(), "remove it, or use type gue"),
        _ => {}
    }
    Some(Method::Tun(Tunnel { kind, checksum }))
}
