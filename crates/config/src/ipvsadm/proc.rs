//! IPVS's files in /proc/net, byte for byte, from what the API tells (ipvs-semantics §8.3). Numbers are hexadecimal.

use super::list::key;
use crate::model::{Protocol, ServiceKey};
use dirigent_api::{Connection, Counters, Service, Stats};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// The kernel's ticks a second, in which `ip_vs` tells persistence.
const HZ: u32 = 250;

/// `ip_vs`. `size`: that of the connection table.
pub fn table(services: &[Service], size: u64) -> String {
    let mut out = format!(
        "IP Virtual Server version 1.2.1 (size={size})\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port \
         Forward Weight ActiveConn InActConn\n"
    );
    for service in services {
        let Some(key) = key(service) else { continue };
        let ops = if service.flags.iter().any(|flag| flag == "one-packet") { "ops " } else { "" };
        let scheduler = &service.scheduler;
        let _ = match key {
            ServiceKey::Mark { mark, .. } => write!(out, "FWM  {mark:08X} {scheduler} {ops}"),
            ServiceKey::Address { protocol, address, port } => {
                let (name, place) = (protocol.name().to_uppercase(), place(address, port));
                match address {
                    IpAddr::V4(_) => write!(out, "{name}  {place} {scheduler} {ops} "),
                    IpAddr::V6(_) => write!(out, "{name}  {place} {scheduler} "),
                }
            }
        };
        if let Some(p) = &service.persistence {
            // A prefix's length lies there as a number of the host's byte order.
            let mask = match p.mask.strip_prefix('/') {
                Some(length) => length.parse::<u32>().unwrap_or_default().swap_bytes(),
                None => p.mask.parse::<std::net::Ipv4Addr>().map_or(0, std::net::Ipv4Addr::to_bits),
            };
            let _ = write!(out, "persistent {} {mask:08X}", p.timeout_s.saturating_mul(HZ));
        }
        out.push('\n');
        for server in service.servers.iter().rev().filter(|server| server.is_in_table()) {
            let Ok(at) = server.address.parse::<SocketAddr>() else { continue };
            let method = match server.method.as_str() {
                _ if server.next_hop.state == "local" => "Local",
                "nat" => "Masq",
                "tun" => "Tunnel",
                _ => "Route",
            };
            let (weight, active, inactive) = (server.weight, server.active, server.inactive);
            let place = place(at.ip(), at.port());
            let _ = writeln!(out, "  -> {place}      {method:<7} {weight:<6} {active:<10} {inactive:<10}");
        }
    }
    out
}

/// `ip_vs_conn`.
pub fn connections(all: &[Connection]) -> String {
    let mut out = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n".to_owned();
    for c in all {
        let known = Protocol::of_name(&c.protocol);
        let name = known.map_or_else(|| "IP".to_owned(), |p| p.name().to_uppercase());
        let place = |text: &str| {
            let at: Option<SocketAddr> = text.parse().ok();
            at.map_or_else(String::new, |at| format!("{} {:04X}", bare(at.ip()), at.port()))
        };
        let (client, to, server) = (place(&c.client), place(&c.virtual_address), place(&c.server));
        let _ = writeln!(out, "{name:<3} {client} {to} {server} {:<11} {:>7}", c.state, c.expires_s);
    }
    out
}

/// `ip_vs_stats`.
pub fn stats(stats: &Stats) -> String {
    let mut out =
        "   Total Incoming Outgoing         Incoming         Outgoing\n   Conns  Packets  Packets            \
                   Bytes            Bytes\n"
            .to_owned();
    row(&stats.total, &mut out);
    out += "\n Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n";
    row(&stats.rates.unwrap_or_default(), &mut out);
    out
}

/// `ip_vs_stats_percpu`: of all CPUs together, as this director keeps its counters by service and server.
pub fn stats_by_cpu(stats: &Stats) -> String {
    let mut out =
        "       Total Incoming Outgoing         Incoming         Outgoing\nCPU    Conns  Packets  Packets            \
                   Bytes            Bytes\n"
            .to_owned();
    out += "  ~ ";
    row(&stats.total, &mut out);
    out += "\n     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n    ";
    row(&stats.rates.unwrap_or_default(), &mut out);
    out
}

/// `ip_vs_app`: FTP, if a service needs it, with the connections that are read.
pub fn apps(services: &[Service], connections: &[Connection]) -> String {
    const FTP: u16 = 21;
    let mut out = "prot port    usecnt name\n".to_owned();
    let is_ftp = |service: &Service| {
        let tcp = matches!(key(service), Some(ServiceKey::Address { protocol: Protocol::Tcp, port: FTP, .. }));
        tcp && service.servers.iter().any(|server| server.method == "nat")
    };
    if services.iter().any(is_ftp) {
        let read = |c: &&Connection| c.protocol == "tcp" && c.virtual_address.ends_with(":21");
        let _ = writeln!(out, "{:<3}  {FTP:<7} {:<6} {:<17}", "TCP", connections.iter().filter(read).count(), "ftp");
    }
    out
}

fn row(c: &Counters, out: &mut String) {
    let Counters { connections, in_packets, out_packets, in_bytes, out_bytes } = c;
    let _ = writeln!(out, "{connections:8X} {in_packets:8X} {out_packets:8X} {in_bytes:16X} {out_bytes:16X}");
}

fn place(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(_) => format!("{}:{port:04X}", bare(address)),
        IpAddr::V6(_) => format!("[{}]:{port:04X}", bare(address)),
    }
}

fn bare(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => format!("{:08X}", ip.to_bits()),
        IpAddr::V6(ip) => ip.segments().map(|segment| format!("{segment:04x}")).join(":"),
    }
}
