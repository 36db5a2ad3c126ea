//! A Model as dirigent.toml.

use super::{VERSION, duration, failover, health};
use crate::mark::MarkRule;
use crate::model::{Method, Model, Netmask, Persistence, Server, Service, ServiceKey, TunnelKind, VipPolicy};
use crate::settings::Settings;
use std::fmt::Write;

/// A file that [`super::parse`] makes the same Model of, as far as this version
/// accepts it (and its virtual addresses are unicast: the file wants that, ipvsadm
/// rules do not). Services come in the order of their keys; what has its default
/// value is left out.
pub fn to_toml(model: &Model) -> String {
    let mut out = format!("version = {VERSION}\n");
    settings(model.settings(), &mut out);
    model.marks().iter().for_each(|rule| mark(rule, &mut out));
    model.services().iter().for_each(|s| service(s, &mut out));
    failover::print(model.failover(), &mut out);
    out
}

/// Writes `key = value`. Writing to a String cannot fail.
pub(super) fn line(out: &mut String, key: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{key} = {value}");
}

pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}

pub(super) fn list(items: &[impl AsRef<str>]) -> String {
    let items: Vec<_> = items.iter().map(|i| quoted(i.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

fn settings(s: &Settings, out: &mut String) {
    let d = Settings::default();
    let mut director = String::new();
    let o = &mut director;
    if s.instance != d.instance {
        line(o, "instance", quoted(&s.instance));
    }
    if let Some(names) = &s.interfaces {
        line(o, "interfaces", list(names));
    }
    if s.mode != d.mode {
        line(o, "mode", quoted(s.mode.name()));
    }
    if s.vip_default != d.vip_default {
        line(o, "vip_default", quoted(s.vip_default.name()));
    }
    if let Some(device) = &s.mark_device {
        line(o, "mark_device", quoted(device));
    }
    if let Some(connections) = s.connections {
        line(o, "connections", connections);
    }
    for (key, room) in s.rooms() {
        if let Some(room) = room {
            line(o, key, room);
        }
    }
    for ((key, value), (_, default)) in s.switches().into_iter().zip(d.switches()) {
        if value != default {
            line(o, key, value);
        }
    }
    for ((key, value, _), (_, default, _)) in s.numbers().zip(d.numbers()) {
        if value != default {
            line(o, key, value);
        }
    }
    for (key, text) in [("socket", &s.socket), ("group", &s.group), ("operators", &s.operators)] {
        if let Some(text) = text {
            line(o, key, quoted(text));
        }
    }

    let mut timeouts = String::new();
    for ((key, value), (_, default)) in s.timeouts.by_key().zip(d.timeouts.by_key()) {
        if value != default {
            line(&mut timeouts, key, quoted(&duration::format(value)));
        }
    }
    let mut errors = String::new();
    for (key, value, default) in [
        ("rate", s.errors.rate, d.errors.rate),
        ("burst", s.errors.burst, d.errors.burst),
        ("destination_rate", s.errors.destination_rate, d.errors.destination_rate),
        ("destination_burst", s.errors.destination_burst, d.errors.destination_burst),
    ] {
        if value != default {
            line(&mut errors, key, value);
        }
    }
    let mut api = String::new();
    if let Some(s) = &s.api {
        line(&mut api, "listen", quoted(&s.listen.to_string()));
        s.files().into_iter().for_each(|(key, file)| line(&mut api, key, quoted(file)));
        if !s.operators.is_empty() {
            line(&mut api, "operator_names", list(&s.operators));
        }
    }
    let mut metrics = String::new();
    if let Some(listen) = s.metrics.listen {
        line(&mut metrics, "listen", quoted(&listen.to_string()));
    }
    if s.metrics.ipvs_names != d.metrics.ipvs_names {
        line(&mut metrics, "ipvs_names", s.metrics.ipvs_names);
    }
    // Without a word in it, the table alone says that there is a page.
    let mut page = String::new();
    if let Some(s) = &s.page {
        s.listen.iter().for_each(|listen| line(&mut page, "listen", quoted(&listen.to_string())));
        if s.operate || s.listen.is_none() {
            line(&mut page, "operate", s.operate);
        }
    }
    let tables = [
        ("[director]", director),
        ("[director.timeouts]", timeouts),
        ("[director.errors]", errors),
        ("[director.api]", api),
        ("[director.metrics]", metrics),
        ("[director.page]", page),
    ];
    for (header, text) in tables {
        if !text.is_empty() {
            *out += &format!("\n{header}\n{text}");
        }
    }
}

/// Mark rules as dirigent.toml has them.
pub fn marks_to_toml(rules: &[MarkRule]) -> String {
    let mut out = String::new();
    rules.iter().for_each(|rule| mark(rule, &mut out));
    out
}

fn mark(rule: &MarkRule, out: &mut String) {
    *out += "\n[[mark]]\n";
    if rule.ipv6 && rule.source.is_none() && rule.destination.is_none() {
        line(out, "family", 6);
    }
    let tests = rule.tests();
    tests.iter().for_each(|(key, value, _)| line(out, key, quoted(value)));
    let not: Vec<_> = tests.iter().filter(|(.., not)| *not).map(|(key, ..)| *key).collect();
    if !not.is_empty() {
        line(out, "not", list(&not));
    }
    line(out, "set", rule.set);
    if rule.mask != u32::MAX {
        line(out, "mask", format_args!("{:#x}", rule.mask));
    }
}

pub(super) fn service(s: &Service, out: &mut String) {
    *out += "\n[[service]]\n";
    match s.key {
        ServiceKey::Address { protocol, address, port } => {
            line(out, "protocol", quoted(protocol.name()));
            line(out, "address", quoted(&crate::model::join(address, port)));
        }
        ServiceKey::Mark { mark, ipv6 } => {
            line(out, "fwmark", mark);
            if ipv6 {
                line(out, "family", 6);
            }
        }
    }
    line(out, "scheduler", quoted(s.scheduler.name()));
    let flags = s.scheduler_flags.names(s.scheduler);
    if !flags.is_empty() {
        line(out, "scheduler_flags", list(&flags));
    }
    if let Some(size) = s.table_size {
        line(out, "table_size", size);
    }
    if s.one_packet {
        line(out, "one_packet", true);
    }
    for (key, set) in [("stateless", s.stateless), ("quic", s.quic)] {
        if set {
            line(out, key, true);
        }
    }
    if let Some(time) = s.slow_start {
        line(out, "slow_start", quoted(&duration::format(time)));
    }
    for (key, prefixes) in [("allow", &s.sources.allow), ("deny", &s.sources.deny)] {
        if !prefixes.is_empty() {
            let prefixes: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
            line(out, key, list(&prefixes));
        }
    }
    if s.vip == VipPolicy::Manage {
        line(out, "vip", quoted(s.vip.name()));
    }
    if let Some(p) = &s.persistence {
        persistence(p, s.key.is_ipv6(), out);
    }
    health::print_service(&s.health, out);
    s.servers.iter().for_each(|server| self::server(server, out));
}

fn persistence(p: &Persistence, ipv6: bool, out: &mut String) {
    *out += "\n[service.persistence]\n";
    line(out, "timeout", quoted(&format!("{}s", p.timeout_s)));
    if p.mask != Netmask::whole(ipv6) {
        line(out, "mask", quoted(&p.mask.to_string()));
    }
}

fn server(s: &Server, out: &mut String) {
    *out += "\n[[service.server]]\n";
    line(out, "address", quoted(&s.name()));
    method(s.method, out);
    line(out, "weight", s.weight);
    if s.upper != 0 {
        line(out, "upper", s.upper);
        line(out, "lower", s.lower);
    }
    if let Some(id) = s.server_id {
        line(out, "server_id", quoted(&id.to_string()));
    }
    health::print_server(&s.health, out);
}

pub(super) fn method(method: Method, out: &mut String) {
    line(out, "method", quoted(method.name()));
    if let Method::Tun(tunnel) = method {
        line(out, "tunnel", quoted(tunnel.kind.name()));
        if let TunnelKind::Gue { port } = tunnel.kind {
            line(out, "tunnel_port", port);
        }
        line(out, "tunnel_checksum", quoted(tunnel.checksum.name()));
    }
}
