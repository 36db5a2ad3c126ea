//! Every way to a server, tried as clients' packets go: through the packet path to the virtual address on that server, and
//! back as an answer to a client comes.

use super::{ERROR, Subject, Way, along, on_server};
use dirigent_api::{Finding, HostCommand, TriedPath};
use dirigent_config::{Method, Tunnel, TunnelKind};
use dirigent_net::ask::who_has;
use dirigent_net::{NextHopState, mac_text};
use futures_util::{StreamExt as _, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Connections that are tried at once.
const AT_ONCE: usize = 256;

/// What came of each, and what is wrong.
pub async fn try_all(subject: &Subject) -> (Vec<TriedPath>, Vec<Finding>) {
    let tries = subject.ways.iter().filter_map(|way| {
        let job = way.job.clone()?;
        Some(async move { (way, subject.trier.attempt(job).await) })
    });
    let tries: Vec<_> = tries.collect();
    let outcomes: Vec<_> = stream::iter(tries).buffered(AT_ONCE).collect().await;
    let silent = outcomes.iter().filter(|(_, outcome)| outcome.as_ref().is_err_and(|why| is_down(&why.to_string())));
    let absent = absent(subject, silent.map(|(way, _)| way.server.address).collect()).await;
    let mut findings = unresolved(subject, &absent);
    let about = |finding: &Finding| finding.place.strip_prefix("server ")?.parse().ok();
    let blamed: Vec<IpAddr> = findings.iter().filter_map(about).collect();
    let mut paths = Vec::new();
    for (way, outcome) in outcomes {
        let what = match &outcome {
            Ok(_) => "a connection was made as a client's".to_owned(),
            Err(why) => why.to_string(),
        };
        paths.push(TriedPath {
            service: way.service.to_string(),
            server: way.server.name(),
            right: outcome.is_ok(),
            what: what.clone(),
        });
        if outcome.is_err() && !blamed.contains(&way.server.address) {
            findings.push(finding(subject, way, what));
        }
    }
    (paths, findings)
}

/// Whether the server answered nothing at all.
fn is_down(what: &str) -> bool {
    what.contains("is down, or no way leads to it")
}

/// Of these servers, those whose next hop does not answer when it is asked for: the kernel believes what it knew for a while.
async fn absent(subject: &Subject, servers: BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let asked = servers.into_iter().filter_map(|ip| {
        let hop = subject.hops.get(&ip).filter(|hop| hop.state == NextHopState::Resolved)?;
        Some(async move { (ip, who_has(&subject.host, hop.ifindex, hop.neighbour.unwrap_or(ip)).await) })
    });
    let asked: Vec<_> = asked.collect();
    let answers: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    answers.into_iter().filter(|(_, macs)| macs.as_ref().is_ok_and(BTreeSet::is_empty)).map(|(ip, _)| ip).collect()
}

/// Servers whose hardware address nobody tells, and those that no route leads to: once for all their services.
fn unresolved(subject: &Subject, absent: &BTreeSet<IpAddr>) -> Vec<Finding> {
    let servers: BTreeMap<IpAddr, &Way> = subject.ways.iter().map(|way| (way.server.address, way)).collect();
    let mut all = Vec::new();
    for ip in servers.into_keys() {
        let Some(hop) = subject.hops.get(&ip) else { continue };
        let link = subject.host.links.get(&hop.ifindex).map_or_else(String::new, |link| format!(" on {}", link.name));
        let asked = hop.neighbour.unwrap_or(ip);
        let (name, what, evidence, rule, remedy) = match hop.state {
            NextHopState::NoRoute => (
                "no_route",
                "no route leads to it".to_owned(),
                "the routing table has no route to it".to_owned(),
                "packets to a server go by the kernel's routes",
                "add a route to it, or remove it from the configuration".to_owned(),
            ),
            state if state == NextHopState::NoNeighbour || absent.contains(&ip) => (
                "neighbour",
                format!("nobody answers for {asked}{link}: packets to it have no hardware address"),
                format!(
                    "{} for {asked}{link} is not answered",
                    if asked.is_ipv4() { "ARP" } else { "neighbour discovery" }
                ),
                "a frame needs the MAC of its next hop",
                format!("see that {asked} is up and on that link, or correct the address or the route"),
            ),
            _ => continue,
        };
        all.push(Finding {
            name: name.into(),
            severity: ERROR.into(),
            place: format!("server {ip}"),
            what,
            evidence: vec![evidence],
            rule: rule.into(),
            remedy,
            ..Finding::default()
        });
    }
    all
}

fn finding(subject: &Subject, way: &Way, what: String) -> Finding {
    let server = way.server.address;
    let vip = way.service.address();
    let director = subject.sources.get(&server).copied();
    let mut evidence = Vec::new();
    if let (Some(along), Some(vip)) = (along(way), vip) {
        let hop = subject.hops.get(&server);
        let link = hop.and_then(|hop| subject.host.links.get(&hop.ifindex)).map_or("?", |link| link.name.as_str());
        let mac = hop.map_or_else(|| "?".to_owned(), |hop| mac_text(hop.mac));
        let port = way.service.port();
        let sent = match along.method {
            Method::Nat => format!("sent a SYN to {}, port {}", along.address, along.port),
            Method::Dr => format!("sent a SYN to {vip}, port {port}"),
            Method::Tun(Tunnel { kind, .. }) => {
                format!("sent a SYN to {vip}, port {port}, in {} to {server}", kind.name())
            }
        };
        evidence.push(format!("{sent}, by {link} to {mac}: {}", what.split(':').next().unwrap_or_default()));
    }
    let down = is_down(&what);
    let (name, rule, remedy, commands) = match way.server.method {
        _ if down => (
            "server_down",
            "a server that answers nothing serves nobody",
            "start it, or see what keeps its answers away".to_owned(),
            Vec::new(),
        ),
        _ if what.contains("nothing listens there") && !what.contains("out of the tunnel") => (
            "port_closed",
            "the program must listen where clients' packets arrive",
            "start the program, or have it listen on the address and port that packets come to".to_owned(),
            Vec::new(),
        ),
        Method::Nat => {
            let route = director.map(|ip| {
                let six = if ip.is_ipv6() { "-6 " } else { "" };
                on_server(server, format!("ip {six}route replace default via {ip}"))
            });
            (
                "replies_bypass",
                "by NAT the client knows no connection with the server, only with the virtual address: the answer must come \
                 back through the director, which writes that into it",
                "have the server's route to clients, mostly its default route, lead to the director".to_owned(),
                route.into_iter().collect(),
            )
        }
        Method::Dr | Method::Tun(_) => (
            if way.server.method == Method::Dr { "no_virtual_address" } else { "no_tunnel_end" },
            "by direct routing and tunnels the server gets packets to the virtual address: it must have it, without telling \
             anybody, and take them out of the tunnel",
            "set the server up as a real server".to_owned(),
            vec![set_up(subject, way)],
        ),
    };
    Finding {
        name: name.into(),
        severity: ERROR.into(),
        place: way.place(),
        what,
        evidence,
        rule: rule.into(),
        remedy,
        commands,
        sysctls: Vec::new(),
    }
}

/// What makes a host a real server of this kind: with all that it is one of, for what a setup names replaces what the last
/// one did.
pub fn set_up(subject: &Subject, way: &Way) -> HostCommand {
    let mac = |of: &Way| subject.hops.get(&of.server.address).map(|hop| hop.mac);
    let its = |of: &&Way| {
        let alike = std::mem::discriminant(&of.server.method) == std::mem::discriminant(&way.server.method);
        alike && (of.server.address == way.server.address || mac(of) == mac(way))
    };
    let ways: Vec<&Way> = subject.every.iter().filter(its).collect();
    let named =
        |name: &str, all: BTreeSet<String>| -> String { all.iter().map(|one| format!(" --{name} {one}")).collect() };
    let vips = ways.iter().filter_map(|way| way.service.address()).map(|ip| ip.to_string());
    let mut command =
        format!("dirigent realserver setup --mode {}{}", way.server.method.name(), named("vip", vips.collect()));
    if let Method::Tun(_) = way.server.method {
        let tunnels = ways.iter().filter_map(|way| match way.server.method {
            Method::Tun(Tunnel { kind, .. }) => Some(kind),
            _ => None,
        });
        command += &named("tunnel", tunnels.clone().map(|kind| kind.name().to_owned()).collect());
        let port =
            tunnels.filter_map(|kind| if let TunnelKind::Gue { port } = kind { Some(port.to_string()) } else { None });
        command += &named("port", port.take(1).collect());
        let directors = ways.iter().filter_map(|way| subject.sources.get(&way.server.address));
        command += &named("director", directors.map(ToString::to_string).collect());
    }
    on_server(way.server.address, command)
}
