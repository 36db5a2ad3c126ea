//! What ipvsadm 1.31 prints, byte for byte, from what the API tells (ipvs-semantics §8.5, §8.6).

use super::names::Names;
use super::{Layout, Named};
use crate::model::{Protocol, ServiceKey};
use dirigent_api::{Connection, Counters, Server, Service, Timeouts};
use std::cmp::Ordering;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

/// First line of `-v` and `-h`.
pub const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)";

/// Column of a name.
const WIDTH: usize = 33;

/// A service that the API tells of, and who it is.
#[derive(Clone, Copy)]
struct Known<'a> {
    key: ServiceKey,
    service: &'a Service,
}

/// The key of a service of the API; none: a leftover of one that is gone.
pub fn key(service: &Service) -> Option<ServiceKey> {
    if let Some(mark) = service.fwmark {
        return Some(ServiceKey::Mark { mark: NonZeroU32::new(mark)?, ipv6: service.family == 6 });
    }
    let protocol = Protocol::of_name(&service.protocol)?;
    let place: SocketAddr = service.address.parse().ok()?;
    Some(ServiceKey::Address { protocol, address: place.ip(), port: place.port() })
}

/// The table as `-L` prints it. `size`: that of the connection table. `names`: none prints numbers.
pub fn table(services: &[Service], size: u64, layout: Layout, sorted: bool, names: Option<&dyn Names>) -> String {
    let mut out = format!("IP Virtual Server version 1.2.1 (size={size})\n");
    out += heading(layout);
    known(services, sorted).into_iter().for_each(|known| service(&known, layout, sorted, names, &mut out));
    out
}

/// One service of it.
pub fn one(found: &Service, layout: Layout, sorted: bool, names: Option<&dyn Names>) -> String {
    let mut out = heading(layout).to_owned();
    let known = key(found).map(|key| Known { key, service: found });
    known.iter().for_each(|known| service(known, layout, sorted, names, &mut out));
    out
}

/// Rules that make the table again, as `-S` prints them.
pub fn save(services: &[Service], names: Option<&dyn Names>) -> String {
    let mut out = String::new();
    for Known { key, service } in known(services, true) {
        let name = option(&key, names);
        let _ = write!(out, "-A {name} -s {}", service.scheduler);
        if let Some(p) = &service.persistence {
            let _ = write!(out, " -p {}", p.timeout_s);
            mask(&p.mask).into_iter().for_each(|mask| _ = write!(out, " -M {mask}"));
        }
        if one_packet(service) {
            out += " -o";
        }
        let flags = flags(service);
        if !flags.is_empty() {
            let _ = write!(out, " -b {flags}");
        }
        out.push('\n');
        for server in servers(service, true) {
            let _ = write!(out, "-a {name} -r {} ", server_name(&key, server, names));
            let _ = match server.method.as_str() {
                "nat" => write!(out, "-m -w {}", server.weight),
                "tun" => write!(out, "-i -w {}{}", server.weight, tunnel_options(server)),
                _ => write!(out, "-g -w {}", server.weight),
            };
            out.push('\n');
        }
    }
    out
}

/// The connections, as `-L -c` prints them.
pub fn connections(all: &[Connection], engines: bool, names: Option<&dyn Names>) -> String {
    let mut out = "IPVS connection entries\n".to_owned();
    let columns = ["pro", "expire", "state", "source", "virtual", "destination"];
    let [pro, expire, state, source, virtual_, destination] = columns;
    let _ = write!(out, "{pro:<3} {expire:<6} {state:<11} {source:<18} {virtual_:<18} ");
    let _ = match engines {
        true => writeln!(out, "{destination:<18} {:<16} pe_data", "pe name"),
        false => writeln!(out, "{destination}"),
    };
    for c in all {
        let protocol = Protocol::of_name(&c.protocol);
        let name = protocol.map_or_else(|| "IP".to_owned(), |p| p.name().to_uppercase());
        let place = |text: &str| place(text, protocol.unwrap_or(Protocol::Tcp), names);
        let time = format!("{:02}:{:02}", c.expires_s / 60, c.expires_s % 60);
        let (client, virtual_, server) = (place(&c.client), place(&c.virtual_address), place(&c.server));
        let _ = writeln!(out, "{name:<3} {time:<6} {:<11} {client:<18} {virtual_:<18} {server}", c.state);
    }
    out
}

/// `-L --timeout`.
pub fn timeouts(t: &Timeouts) -> String {
    format!("Timeout (tcp tcpfin udp): {} {} {}\n", t.tcp_s, t.tcp_fin_s, t.udp_s)
}

fn heading(layout: Layout) -> &'static str {
    match layout {
        Layout::Plain => {
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        }
        Layout::Stats { .. } => {
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  -> RemoteAddress:Port\n"
        }
        Layout::Rate { .. } => {
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  -> RemoteAddress:Port\n"
        }
        Layout::Thresholds => {
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  -> RemoteAddress:Port\n"
        }
        Layout::Persistent => {
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n  -> RemoteAddress:Port\n"
        }
        Layout::Tunnels => {
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        }
    }
}

fn service(known: &Known<'_>, layout: Layout, sorted: bool, names: Option<&dyn Names>, out: &mut String) {
    let Known { key, service } = known;
    let name = match key {
        ServiceKey::Mark { mark, ipv6 } => format!("FWM  {}{}", mark.get() as i32, if *ipv6 { " IPv6" } else { "" }),
        ServiceKey::Address { protocol, .. } => {
            format!("{:<4} {}", protocol.name().to_uppercase(), place(&service.address, *protocol, names))
        }
    };
    match layout {
        Layout::Stats { exact } => counted(out, &name, &service.counters, exact, false),
        Layout::Rate { exact } => counted(out, &name, &service.rates.unwrap_or_default(), exact, false),
        _ => {
            out.push_str(&name);
            rules(service, out);
        }
    }
    for server in servers(service, sorted) {
        let name = format!("  -> {:<28}", server_name(key, server, names));
        let (weight, active, inactive) = (server.weight, server.active, server.inactive);
        let method = match server.method.as_str() {
            _ if server.next_hop.state == "local" => "Local",
            "nat" => "Masq",
            "tun" => "Tunnel",
            _ => "Route",
        };
        let _ = match layout {
            Layout::Stats { exact } => {
                counted(out, &name, &server.counters, exact, false);
                Ok(())
            }
            Layout::Rate { exact } => {
                counted(out, &name, &server.rates.unwrap_or_default(), exact, true);
                Ok(())
            }
            Layout::Plain => writeln!(out, "{name} {method:<7} {weight:<6} {active:<10} {inactive:<10}"),
            Layout::Thresholds => {
                writeln!(out, "{name} {:<10} {:<10} {active:<10} {inactive:<10}", server.upper, server.lower)
            }
            Layout::Persistent => {
                writeln!(out, "{name} {weight:<9} {:<11} {active:<10} {inactive:<10}", server.templates)
            }
            Layout::Tunnels => {
                let info = tunnel_info(server);
                writeln!(out, "{name} {method:<7} {info:<13} {weight:<6} {active:<10} {inactive:<10}")
            }
        };
    }
}

/// Scheduler and flags of a service.
fn rules(service: &Service, out: &mut String) {
    let _ = write!(out, " {}", service.scheduler);
    let flags = flags(service);
    if !flags.is_empty() {
        let _ = write!(out, " ({flags})");
    }
    if let Some(p) = &service.persistence {
        let _ = write!(out, " persistent {}", p.timeout_s);
        mask(&p.mask).into_iter().for_each(|mask| _ = write!(out, " mask {mask}"));
    }
    if one_packet(service) {
        out.push_str(" ops");
    }
    out.push('\n');
}

const ONE_PACKET: &str = "one-packet";

fn one_packet(service: &Service) -> bool {
    service.flags.iter().any(|flag| flag == ONE_PACKET)
}

/// The scheduler's, in ipvsadm's order.
fn flags(service: &Service) -> String {
    let mut flags: Vec<_> = service.flags.iter().filter(|flag| *flag != ONE_PACKET).map(String::as_str).collect();
    flags.sort_by_key(|flag| !(flag.ends_with("-fallback") || *flag == "flag-1"));
    flags.join(",")
}

/// A mask, if it is not the whole address.
fn mask(mask: &str) -> Option<&str> {
    (!["255.255.255.255", "/128"].contains(&mask)).then(|| mask.trim_start_matches('/'))
}

/// `gue:6080:+c`.
fn tunnel_info(server: &Server) -> String {
    let Some(tunnel) = &server.tunnel else { return "n/a".to_owned() };
    let port = tunnel.port.map_or_else(String::new, |port| format!(":{port}"));
    let checksum = match (tunnel.kind.as_str(), tunnel.checksum.as_str()) {
        ("ipip", _) => "",
        (_, "full") => ":+c",
        (_, "remote") => ":r+c",
        _ => ":-c",
    };
    format!("{}{port}{checksum}", tunnel.kind)
}

fn tunnel_options(server: &Server) -> String {
    let Some(tunnel) = &server.tunnel else { return String::new() };
    let port = tunnel.port.map_or_else(String::new, |port| format!(" --tun-port {port}"));
    let checksum = match (tunnel.kind.as_str(), tunnel.checksum.as_str()) {
        ("ipip", _) => "",
        (_, "full") => " --tun-csum",
        (_, "remote") => " --tun-remcsum",
        _ => " --tun-nocsum",
    };
    format!(" --tun-type {}{port}{checksum}", tunnel.kind)
}

/// Five numbers; `raw`: the first three without K, M, G, T.
fn counted(out: &mut String, name: &str, c: &Counters, exact: bool, raw: bool) {
    let _ = write!(out, "{name:<WIDTH$}");
    let numbers = [c.connections, c.in_packets, c.out_packets, c.in_bytes, c.out_bytes];
    for (at, number) in numbers.into_iter().enumerate() {
        let _ =
            if exact || (raw && at < 3) { write!(out, " {number:>8}") } else { write!(out, "{:>9}", short(number)) };
    }
    out.push('\n');
}

fn short(number: u64) -> String {
    match number {
        0..100_000_000 => number.to_string(),
        100_000_000..1_000_000_000 => format!("{}K", number / 1000),
        1_000_000_000..100_000_000_000 => format!("{}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{}G", number / 1_000_000_000),
        _ => format!("{}T", number / 1_000_000_000_000),
    }
}

/// An address with its port, by name if names are wanted and known.
fn place(text: &str, protocol: Protocol, names: Option<&dyn Names>) -> String {
    let (Some(names), Ok(place)) = (names, text.parse::<SocketAddr>()) else { return text.to_owned() };
    let host = names.of_host(place.ip()).unwrap_or_else(|| match place.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    });
    let port = Some(place.port()).filter(|port| *port != 0).and_then(|port| names.of_port(port, protocol));
    format!("{host}:{}", port.unwrap_or_else(|| place.port().to_string()))
}

fn server_name(key: &ServiceKey, server: &Server, names: Option<&dyn Names>) -> String {
    place(&server.address, key.protocol().unwrap_or(Protocol::Tcp), names)
}

/// The service as an option.
fn option(key: &ServiceKey, names: Option<&dyn Names>) -> String {
    match key {
        ServiceKey::Address { protocol, address, port } if names.is_some() => {
            let text = Named(key).to_string();
            let option = text.split_once(' ').map_or(text.as_str(), |(option, _)| option).to_owned();
            format!("{option} {}", place(&crate::model::join(*address, *port), *protocol, names))
        }
        _ => Named(key).to_string(),
    }
}

fn known(services: &[Service], sorted: bool) -> Vec<Known<'_>> {
    let known = services.iter().filter_map(|service| Some(Known { key: key(service)?, service })).collect();
    if !sorted {
        return known;
    }
    sort(known, &|a: &Known, b: &Known| {
        let rank = |k: &Known| (k.key.mark(), k.key.is_ipv6(), k.key.protocol().map(Protocol::number));
        rank(a)
            .cmp(&rank(b))
            .then_with(|| match (a.key.address(), b.key.address()) {
                (Some(x), Some(y)) => addresses(x, y),
                _ => Ordering::Equal,
            })
            .then_with(|| a.key.port().cmp(&b.key.port()))
    })
}

/// Those in the kernel's list, by address and port or newest first.
fn servers(service: &Service, sorted: bool) -> Vec<&Server> {
    let listed: Vec<_> = service.servers.iter().rev().filter(|s| s.is_in_table()).collect();
    if !sorted {
        return listed;
    }
    let of = |server: &Server| server.address.parse::<SocketAddr>().ok();
    sort(listed, &|a: &&Server, b: &&Server| match (of(a), of(b)) {
        (Some(a), Some(b)) => addresses(a.ip(), b.ip()).then_with(|| a.port().cmp(&b.port())),
        _ => Ordering::Equal,
    })
}

/// IPv4 by the wrapped difference of 32 bits, as ipvsadm compares: no order, in general.
fn addresses(a: IpAddr, b: IpAddr) -> Ordering {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().wrapping_sub(b.to_bits()) as i32).cmp(&0),
        _ => a.cmp(&b),
    }
}

/// A merge sort as the C library's qsort is one: what compares by no order comes out the same.
fn sort<T>(mut all: Vec<T>, compare: &dyn Fn(&T, &T) -> Ordering) -> Vec<T> {
    if all.len() < 2 {
        return all;
    }
    let second = all.split_off(all.len() / 2);
    let (first, second) = (sort(all, compare), sort(second, compare));
    let mut out = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter().peekable(), second.into_iter().peekable());
    while let (Some(a), Some(b)) = (first.peek(), second.peek()) {
        let next = if compare(a, b) == Ordering::Greater { second.next() } else { first.next() };
        out.extend(next);
    }
    out.extend(first);
    out.extend(second);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_cut() {
        for (number, text) in [
            (0, "0"),
            (99_999_999, "99999999"),
            (100_000_000, "100000K"),
            (999_999_999, "999999K"),
            (1_000_000_000, "1000M"),
            (123_456_789_012, "123G"),
            (99_999_999_999_999, "99999G"),
            (100_000_000_000_000, "100T"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(short(number), text);
        }
        let counters = Counters { connections: 123_456_789, in_bytes: 123_456_789_012, ..Counters::default() };
        let line = |exact, raw| {
            let mut out = String::new();
            counted(&mut out, "TCP  192.0.2.10:80", &counters, exact, raw);
            out
        };
        let name = "TCP  192.0.2.10:80               ";
        assert_eq!(line(false, false), format!("{name}  123456K        0        0     123G        0\n"));
        assert_eq!(line(true, false), format!("{name} 123456789        0        0 123456789012        0\n"));
        assert_eq!(line(false, true), format!("{name} 123456789        0        0     123G        0\n"));
    }

    /// ipvs-semantics §8.5: by a wrapped difference, and so that nothing panics over it.
    #[test]
    fn addresses_sort_as_in_ipvsadm() {
        let service = |address: &str| Service {
            protocol: "tcp".into(),
            address: format!("{address}:80"),
            family: 4,
            ..Service::default()
        };
        let order = |all: &[&str]| {
            let services: Vec<_> = all.iter().map(|address| service(address)).collect();
            known(&services, true).iter().map(|k| k.service.address.clone()).collect::<Vec<_>>()
        };
        assert_eq!(order(&["10.0.0.1", "192.168.100.100"]), ["192.168.100.100:80", "10.0.0.1:80"]);
        assert_eq!(order(&["10.0.0.2", "10.0.0.1"]), ["10.0.0.1:80", "10.0.0.2:80"]);
        let circle: Vec<String> = (0..90).map(|n| format!("{}.0.0.1", n * 97 % 256)).collect();
        assert_eq!(order(&circle.iter().map(String::as_str).collect::<Vec<_>>()).len(), 90);
    }
}
