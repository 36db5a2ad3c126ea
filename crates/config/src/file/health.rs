//! Health in dirigent.toml: read and printed.

use super::duration;
use super::keys;
use super::print::{line, list, method, quoted};
use super::reader::{Report, Table, kind};
use crate::health::{
    Bfd, Check, DEFAULT_HELO, Fault, Http, HttpVersion, OnFailure, OnFailureConnections, Pace, Probe, Record, Regex,
    Request, Script, ServerHealth, ServiceHealth, Target, Tls, Udp,
};
use std::net::IpAddr;
use std::time::Duration;

const TYPES: [&str; 10] = ["tcp", "http", "https", "smtp", "dns", "ping", "udp", "script", "file", "bfd"];
const TARGET: [&str; 6] = ["address", "port", "source", "source_port", "interface", "mark"];
/// What can go the way of clients' packets: what asks a server's service.
const SERVICES: [&str; 6] = ["tcp", "http", "https", "smtp", "dns", "udp"];
const PACE: [&str; 10] =
    ["type", "interval", "jitter", "timeout", "retries", "retry_interval", "warmup", "rise", "start", "log_failures"];

/// The keys that only some types of check have.
fn own(of: &str) -> &'static [&'static str] {
    match of {
        "http" => &["http_version", "virtual_host", "fast_recovery", "request"],
        "https" => &[
            "http_version",
            "virtual_host",
            "fast_recovery",
            "request",
            "sni",
            "close_notify",
            "ca",
            "certificate",
            "key",
        ],
        "smtp" => &["helo"],
        "dns" => &["name", "record"],
        "udp" => &["payload", "reply", "min_reply", "max_reply"],
        "script" => &["command", "weight_from_exit"],
        "file" => &["path", "weight", "reverse"],
        "bfd" => &["min_rx", "min_tx", "idle_tx", "multiplier", "passive", "ttl", "max_hops", "multihop"],
        _ => &[],
    }
}

fn has(of: &str, key: &str) -> bool {
    let located = !["script", "file"].contains(&of);
    let real = key == "real_path" && SERVICES.contains(&of);
    PACE.contains(&key) || (located && TARGET.contains(&key)) || real || own(of).contains(&key)
}

fn blame(t: &Table, faults: impl IntoIterator<Item = Fault>, report: &mut Report) {
    faults.into_iter().for_each(|(key, what, remedy)| report.add(t.place(key), what, remedy));
}

fn text(t: &Table, key: &str, report: &mut Report) -> Option<String> {
    t.string(key, report).map(|(text, _)| text.to_owned())
}

/// A list of words, or a table with the list and whose rights it has.
pub fn script(t: &Table, key: &'static str, report: &mut Report) -> Option<Script> {
    let command = |t: &Table, key, report: &mut Report| {
        let words = t.strings(key, report)?;
        Some(words.into_iter().map(|(word, _)| word.to_owned()).collect())
    };
    let (value, at) = t.get(key)?;
    let (script, place) = if value.as_table().is_some() {
        let inner = t.table(key, keys::SCRIPT, report)?;
        if inner.get("command").is_none() {
            report.add(at, "command is missing", "add command = [\"/path/to/program\"]");
        }
        let (user, group) = (text(&inner, "user", report), text(&inner, "group", report));
        (Script { command: command(&inner, "command", report)?, user, group }, at)
    } else {
        (Script { command: command(t, key, report)?, user: None, group: None }, at)
    };
    script.faults(key).into_iter().for_each(|(_, what, remedy)| report.add(place, what, remedy));
    Some(script)
}

fn boxed(t: &Table, key: &'static str, report: &mut Report) -> Option<Box<Script>> {
    script(t, key, report).map(Box::new)
}

fn switch(t: &Table, key: &str, report: &mut Report) -> bool {
    t.boolean(key, report).unwrap_or(false)
}

fn number(t: &Table, key: &str, max: u16, report: &mut Report) -> Option<u16> {
    t.integer32(key, 0, max.into(), report).and_then(|n| u16::try_from(n).ok())
}

fn on_failure(t: &Table, report: &mut Report) -> Option<OnFailure> {
    t.choice("on_failure", &OnFailure::ALL.map(|o| (o.name(), o)), report)
}

/// `[service.health]`, its sorry server apart, whose keys are the caller's to read.
pub fn service(t: &Table, report: &mut Report) -> ServiceHealth {
    let default = ServiceHealth::default();
    let health = ServiceHealth {
        on_failure: on_failure(t, report).unwrap_or_default(),
        on_failure_connections: t
            .choice("on_failure_connections", &OnFailureConnections::ALL.map(|o| (o.name(), o)), report)
            .unwrap_or_default(),
        quorum: t.integer32("quorum", 1, u32::MAX, report).unwrap_or(default.quorum),
        hysteresis: t.integer32("hysteresis", 0, u32::MAX, report).unwrap_or(default.hysteresis),
        notify_at_stop: switch(t, "notify_at_stop", report),
        only_with_address: switch(t, "only_with_address", report),
        mail: t.boolean("mail", report),
        quorum_up: boxed(t, "quorum_up", report),
        quorum_down: boxed(t, "quorum_down", report),
        sorry: None,
    };
    blame(t, health.faults().into_iter().filter(|(key, ..)| *key == "hysteresis"), report);
    health
}

/// What becomes of a sorry server that is not wanted.
pub fn sorry_on_failure(t: &Table, report: &mut Report) -> OnFailure {
    on_failure(t, report).unwrap_or_default()
}

/// A server's own.
pub fn server(t: &Table, report: &mut Report) -> ServerHealth {
    ServerHealth {
        on_failure: on_failure(t, report),
        notify_up: boxed(t, "notify_up", report),
        notify_down: boxed(t, "notify_down", report),
        mail: t.boolean("mail", report),
        checks: t.tables("check", keys::CHECK, report).iter().filter_map(|t| check(t, report)).collect(),
    }
}

fn check(t: &Table, report: &mut Report) -> Option<Check> {
    if t.get("type").is_none() {
        report.add(t.at, "type is missing", "add type = \"tcp\", or what the check shall be");
    }
    let of = t.choice("type", &TYPES.map(|name| (name, name)), report)?;
    for key in keys::CHECK.keys.iter().map(|k| k.name).filter(|key| !has(of, key)) {
        if let Some((_, at)) = t.get(key) {
            let owner = TYPES.iter().find(|other| has(other, key)).copied().unwrap_or_default();
            report.add(at, format!("{key} in a {of} check"), format!("remove it, or set type = \"{owner}\""));
        }
    }
    let start = t.choice("start", &[("up", false), ("down", true)], report);
    let check = Check {
        probe: probe(of, t, report)?,
        pace: pace(t, report),
        target: if has(of, "address") { target(t, report) } else { Target::default() },
        start_down: start.unwrap_or(false),
        log_failures: switch(t, "log_failures", report),
    };
    // An empty command has been told of with its place.
    let faults = check.faults();
    blame(t, faults.into_iter().filter(|(key, ..)| *key != "command"), report);
    Some(check)
}

fn pace(t: &Table, report: &mut Report) -> Pace {
    let default = Pace::default();
    let mut time = |key, default| t.duration(key, report).unwrap_or(default);
    Pace {
        interval: time("interval", default.interval),
        jitter: time("jitter", default.jitter),
        timeout: time("timeout", default.timeout),
        retry_interval: time("retry_interval", default.retry_interval),
        retries: t.integer32("retries", 0, u32::MAX, report).unwrap_or(default.retries),
        rise: t.integer32("rise", 1, u32::MAX, report).unwrap_or(default.rise),
        warmup: t.duration("warmup", report),
    }
}

fn address(t: &Table, key: &str, report: &mut Report) -> Option<IpAddr> {
    let (text, at) = t.string(key, report)?;
    let found = text.parse().ok();
    if found.is_none() {
        report.add(
            at,
            format!("{key} is {text:?}, no address"),
            "write it in numbers, like \"10.0.0.2\" or \"fd00::2\"",
        );
    }
    found
}

fn target(t: &Table, report: &mut Report) -> Target {
    let mut port = |key| t.integer32(key, 1, 65535, report).and_then(|n| u16::try_from(n).ok());
    let (port, source_port) = (port("port"), port("source_port"));
    Target {
        address: address(t, "address", report),
        port,
        source: address(t, "source", report),
        source_port,
        interface: text(t, "interface", report),
        mark: t.integer32("mark", 0, u32::MAX, report).unwrap_or(0),
        real_path: switch(t, "real_path", report),
    }
}

fn probe(of: &str, t: &Table, report: &mut Report) -> Option<Probe> {
    Some(match of {
        "http" | "https" => Probe::Http(Http {
            version: t.choice("http_version", &HttpVersion::ALL.map(|v| (v.name(), v)), report).unwrap_or_default(),
            virtual_host: text(t, "virtual_host", report),
            fast_recovery: switch(t, "fast_recovery", report),
            requests: t.tables("request", keys::REQUEST, report).iter().map(|t| request(t, report)).collect(),
            tls: (of == "https").then(|| Tls {
                sni: text(t, "sni", report),
                close_notify: switch(t, "close_notify", report),
                ca: text(t, "ca", report),
                certificate: text(t, "certificate", report),
                key: text(t, "key", report),
            }),
        }),
        "smtp" => Probe::Smtp { helo: text(t, "helo", report).unwrap_or_else(|| DEFAULT_HELO.into()) },
        "dns" => Probe::Dns {
            name: text(t, "name", report).unwrap_or_else(|| ".".into()),
            record: t.choice("record", &Record::ALL.map(|r| (r.name(), r)), report).unwrap_or_default(),
        },
        "udp" => {
            let default = Udp::default();
            Probe::Udp(Udp {
                payload: text(t, "payload", report),
                reply: text(t, "reply", report),
                min_reply: number(t, "min_reply", u16::MAX, report).unwrap_or(default.min_reply),
                max_reply: number(t, "max_reply", u16::MAX, report).unwrap_or(default.max_reply),
            })
        }
        "script" => {
            if t.get("command").is_none() {
                report.add(t.at, "command is missing", "add command = [\"/path/to/program\"]");
            }
            Probe::Script {
                script: script(t, "command", report)?,
                weight_from_exit: switch(t, "weight_from_exit", report),
            }
        }
        "file" => {
            if t.get("path").is_none() {
                report.add(t.at, "path is missing", "add path = \"/run/server.weight\"");
            }
            let path = text(t, "path", report)?;
            Probe::File {
                path,
                weight: signed(t, "weight", report).unwrap_or(0),
                reverse: switch(t, "reverse", report),
            }
        }
        "bfd" => Probe::Bfd(bfd(t, report)),
        "ping" => Probe::Ping,
        _ => Probe::Tcp,
    })
}

fn signed(t: &Table, key: &str, report: &mut Report) -> Option<i32> {
    let (value, at) = t.get(key)?;
    let number = value.as_integer().and_then(|n| i32::from_str_radix(n.as_str(), n.radix()).ok());
    if number.is_none_or(|n| n == i32::MIN) {
        let remedy = "use a whole number from -2147483647 to 2147483647, without quotes";
        report.add(at, format!("{key} is {}", kind(value)), remedy);
    }
    number
}

fn bfd(t: &Table, report: &mut Report) -> Bfd {
    let default = Bfd::default();
    let byte = |key, report: &mut Report| number(t, key, 255, report).and_then(|n| u8::try_from(n).ok());
    // 255 hops are as far as a packet goes: no limit.
    let max_hops = byte("max_hops", report).map_or(default.max_hops, |hops| (hops < 255).then_some(hops));
    Bfd {
        min_rx: t.duration("min_rx", report).unwrap_or(default.min_rx),
        min_tx: t.duration("min_tx", report).unwrap_or(default.min_tx),
        idle_tx: t.duration("idle_tx", report).unwrap_or(default.idle_tx),
        multiplier: byte("multiplier", report).unwrap_or(default.multiplier),
        passive: switch(t, "passive", report),
        ttl: byte("ttl", report),
        max_hops,
        multihop: switch(t, "multihop", report),
    }
}

fn request(t: &Table, report: &mut Report) -> Request {
    let pattern = text(t, "regex", report);
    if pattern.is_none() {
        for key in ["regex_invert", "regex_options", "regex_min_offset", "regex_max_offset"] {
            if let Some((_, at)) = t.get(key) {
                report.add(at, format!("{key} without regex"), "remove it, or add regex = \"…\"");
            }
        }
    }
    let regex = pattern.map(|pattern| Regex {
        pattern,
        invert: switch(t, "regex_invert", report),
        options: t.strings("regex_options", report).into_iter().flatten().map(|(o, _)| o.to_owned()).collect(),
        min_offset: t.integer32("regex_min_offset", 0, u32::MAX, report),
        max_offset: t.integer32("regex_max_offset", 0, u32::MAX, report),
    });
    let request = Request {
        path: text(t, "path", report).unwrap_or_else(|| "/".into()),
        virtual_host: text(t, "virtual_host", report),
        status: t.strings("status", report).into_iter().flatten().filter_map(|(s, at)| status(s, at, report)).collect(),
        digest: text(t, "digest", report),
        regex,
        close_notify: t.boolean("close_notify", report),
    };
    blame(t, request.faults(), report);
    request
}

/// `200` or `200-299`.
fn status(text: &str, at: usize, report: &mut Report) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.parse().ok().zip(last.parse().ok());
    if range.is_none() {
        report.add(at, format!("status holds {text:?}"), "write codes like \"200\" or \"200-299\"");
    }
    range
}

fn time(out: &mut String, key: &str, time: Duration, default: Duration) {
    if time != default {
        line(out, key, quoted(&duration::format(time)));
    }
}

fn some(out: &mut String, key: &str, value: Option<&String>) {
    if let Some(value) = value {
        line(out, key, quoted(value));
    }
}

fn set(out: &mut String, key: &str, value: bool) {
    if value {
        line(out, key, true);
    }
}

fn unless<T: PartialEq + std::fmt::Display>(out: &mut String, key: &str, value: T, default: T) {
    if value != default {
        line(out, key, value);
    }
}

pub fn print_script(out: &mut String, key: &str, script: Option<&Script>) {
    let Some(Script { command, user, group }) = script else { return };
    let command = list(command);
    let of = [("user", user), ("group", group)];
    let of: Vec<_> = of.iter().filter_map(|(key, v)| Some(format!(", {key} = {}", quoted(v.as_ref()?)))).collect();
    match of.is_empty() {
        true => line(out, key, command),
        false => line(out, key, format_args!("{{ command = {command}{} }}", of.concat())),
    }
}

/// `[service.health]`, if it says anything.
pub fn print_service(health: &ServiceHealth, out: &mut String) {
    let default = ServiceHealth::default();
    if *health == default {
        return;
    }
    *out += "\n[service.health]\n";
    if health.on_failure != default.on_failure {
        line(out, "on_failure", quoted(health.on_failure.name()));
    }
    if health.on_failure_connections != default.on_failure_connections {
        line(out, "on_failure_connections", quoted(health.on_failure_connections.name()));
    }
    unless(out, "quorum", health.quorum, default.quorum);
    unless(out, "hysteresis", health.hysteresis, default.hysteresis);
    print_script(out, "quorum_up", health.quorum_up.as_deref());
    print_script(out, "quorum_down", health.quorum_down.as_deref());
    set(out, "notify_at_stop", health.notify_at_stop);
    set(out, "only_with_address", health.only_with_address);
    if let Some(mail) = health.mail {
        line(out, "mail", mail);
    }
    if let Some(sorry) = &health.sorry {
        *out += "\n[service.health.sorry]\n";
        line(out, "address", quoted(&crate::model::join(sorry.address, sorry.port)));
        method(sorry.method, out);
        if sorry.on_failure != OnFailure::Remove {
            line(out, "on_failure", quoted(sorry.on_failure.name()));
        }
    }
}

/// The keys of a server, then its checks.
pub fn print_server(health: &ServerHealth, out: &mut String) {
    if let Some(on_failure) = health.on_failure {
        line(out, "on_failure", quoted(on_failure.name()));
    }
    print_script(out, "notify_up", health.notify_up.as_deref());
    print_script(out, "notify_down", health.notify_down.as_deref());
    if let Some(mail) = health.mail {
        line(out, "mail", mail);
    }
    health.checks.iter().for_each(|check| print_check(check, out));
}

fn print_check(check: &Check, out: &mut String) {
    *out += "\n[[service.server.check]]\n";
    line(out, "type", quoted(check.probe.name()));
    let (pace, default) = (&check.pace, Pace::default());
    time(out, "interval", pace.interval, default.interval);
    time(out, "jitter", pace.jitter, default.jitter);
    time(out, "timeout", pace.timeout, default.timeout);
    unless(out, "retries", pace.retries, default.retries);
    time(out, "retry_interval", pace.retry_interval, default.retry_interval);
    if let Some(warmup) = pace.warmup {
        line(out, "warmup", quoted(&duration::format(warmup)));
    }
    unless(out, "rise", pace.rise, default.rise);
    if check.start_down {
        line(out, "start", quoted("down"));
    }
    set(out, "log_failures", check.log_failures);
    let target = &check.target;
    some(out, "address", target.address.map(|a| a.to_string()).as_ref());
    target.port.into_iter().for_each(|port| line(out, "port", port));
    some(out, "source", target.source.map(|a| a.to_string()).as_ref());
    target.source_port.into_iter().for_each(|port| line(out, "source_port", port));
    some(out, "interface", target.interface.as_ref());
    unless(out, "mark", target.mark, 0);
    set(out, "real_path", target.real_path);
    print_probe(&check.probe, out);
}

fn print_probe(probe: &Probe, out: &mut String) {
    match probe {
        Probe::Tcp | Probe::Ping => {}
        Probe::Http(http) => {
            if http.version != HttpVersion::default() {
                line(out, "http_version", quoted(http.version.name()));
            }
            some(out, "virtual_host", http.virtual_host.as_ref());
            set(out, "fast_recovery", http.fast_recovery);
            if let Some(tls) = &http.tls {
                some(out, "sni", tls.sni.as_ref());
                set(out, "close_notify", tls.close_notify);
                some(out, "ca", tls.ca.as_ref());
                some(out, "certificate", tls.certificate.as_ref());
                some(out, "key", tls.key.as_ref());
            }
            http.requests.iter().for_each(|request| print_request(request, out));
        }
        Probe::Smtp { helo } => line(out, "helo", quoted(helo)),
        Probe::Dns { name, record } => {
            line(out, "name", quoted(name));
            line(out, "record", quoted(record.name()));
        }
        Probe::Udp(udp) => {
            let default = Udp::default();
            some(out, "payload", udp.payload.as_ref());
            some(out, "reply", udp.reply.as_ref());
            unless(out, "min_reply", udp.min_reply, default.min_reply);
            unless(out, "max_reply", udp.max_reply, default.max_reply);
        }
        Probe::Script { script, weight_from_exit } => {
            print_script(out, "command", Some(script));
            set(out, "weight_from_exit", *weight_from_exit);
        }
        Probe::File { path, weight, reverse } => {
            line(out, "path", quoted(path));
            unless(out, "weight", *weight, 0);
            set(out, "reverse", *reverse);
        }
        Probe::Bfd(bfd) => {
            let default = Bfd::default();
            time(out, "min_rx", bfd.min_rx, default.min_rx);
            time(out, "min_tx", bfd.min_tx, default.min_tx);
            time(out, "idle_tx", bfd.idle_tx, default.idle_tx);
            unless(out, "multiplier", bfd.multiplier, default.multiplier);
            set(out, "passive", bfd.passive);
            bfd.ttl.into_iter().for_each(|ttl| line(out, "ttl", ttl));
            unless(out, "max_hops", bfd.max_hops.unwrap_or(255), 0);
            set(out, "multihop", bfd.multihop);
        }
    }
}

fn print_request(request: &Request, out: &mut String) {
    *out += "\n[[service.server.check.request]]\n";
    line(out, "path", quoted(&request.path));
    some(out, "virtual_host", request.virtual_host.as_ref());
    if !request.status.is_empty() {
        let range = |(first, last): &(u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        line(out, "status", list(&request.status.iter().map(range).collect::<Vec<_>>()));
    }
    some(out, "digest", request.digest.as_ref());
    if let Some(close) = request.close_notify {
        line(out, "close_notify", close);
    }
    let Some(regex) = &request.regex else { return };
    line(out, "regex", quoted(&regex.pattern));
    set(out, "regex_invert", regex.invert);
    if !regex.options.is_empty() {
        line(out, "regex_options", list(&regex.options));
    }
    regex.min_offset.into_iter().for_each(|n| line(out, "regex_min_offset", n));
    regex.max_offset.into_iter().for_each(|n| line(out, "regex_max_offset", n));
}
