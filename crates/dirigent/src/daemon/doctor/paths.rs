//! Every way to a server, tried as clients' packets go: through the packet path to the virtual address on that server, and
//! back as an answer to a client comes.

use super::answers::{self, Answers};
use super::way::Way;
use super::{ERROR, Subject, on_server};
use dirigent_api::{Finding, HostCommand, TriedPath};
use dirigent_config::{Method, Tunnel, TunnelKind};
use dirigent_health::Outcome;
use dirigent_health::path::{Forwarding, Got, Own, explain};
use dirigent_net::mac_text;
use futures_util::{StreamExt as _, stream};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Connections that are tried at once.
const AT_ONCE: usize = 256;

/// A way, and what came of it.
pub type Tried<'s> = (&'s Way, Outcome);

/// What came of each.
pub async fn try_all(subject: &Subject) -> Vec<Tried<'_>> {
    let tries = subject.ways().filter_map(|way| {
        let job = way.job.clone()?;
        Some(async move { (way, subject.trier.attempt(job).await) })
    });
    let tries: Vec<_> = tries.collect();
    stream::iter(tries).buffered(AT_ONCE).collect().await
}

/// What is wrong with ways, but for those to servers that are to blame for something else.
/// Of servers that were heard, though not by this host's sockets, it is known that they are there.
pub fn judge(
    subject: &Subject,
    tried: Vec<Tried<'_>>,
    blamed: &BTreeSet<IpAddr>,
    heard: &BTreeSet<IpAddr>,
    answers: &Answers,
) -> (Vec<TriedPath>, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut paths = Vec::new();
    for (way, outcome) in &tried {
        let what = match outcome {
            Ok(_) if way.is_udp() => "nothing said that nobody listens".to_owned(),
            Ok(_) => "a connection was made as a client's".to_owned(),
            Err(why) if is_down(&why.to_string()) && heard.contains(&way.server.address) => {
                let by = match way.server.method {
                    Method::Nat => Forwarding::Nat,
                    Method::Dr => Forwarding::Direct,
                    Method::Tun(_) => Forwarding::Tunnel,
                };
                explain(by, &Got::Nothing, Own::Pings).to_string()
            }
            Err(why) => why.to_string(),
        };
        paths.push(TriedPath {
            service: way.service.to_string(),
            server: way.server.name(),
            right: outcome.is_ok(),
            what: what.clone(),
        });
        if outcome.is_err() && !blamed.contains(&way.server.address) {
            let mut found = finding(subject, way, what);
            if heard.contains(&way.server.address) {
                let on = subject.hops.get(&way.server.address).map_or("?", |hop| subject.link(hop.ifindex));
                found.evidence.push(format!(
                    "its answers to pings were seen on {on}; rules of netfilter keep them from this host"
                ));
            }
            if let Some(came) = answers.get(&way.server.address).filter(|_| found.name == REPLIES_BYPASS) {
                found.evidence.push(answers::seen_from(subject, came));
                if answers::come_straight(subject, way.server.address, came) {
                    found = dropped_there(way, found);
                }
            }
            // What breaks the way of datagrams broke that of connections, too.
            let same = |(of, other): &Of<'_>| {
                let alike = (of.server.address, of.service.address()) == (way.server.address, way.service.address());
                alike && way.is_udp() && other.name == found.name && found.name != PORT_CLOSED
            };
            if !findings.iter().any(same) {
                findings.push((*way, found));
            }
        }
    }
    (paths, findings.into_iter().map(|(_, finding)| finding).collect())
}

/// A finding, and the way that it is about.
type Of<'s> = (&'s Way, Finding);

const REPLIES_BYPASS: &str = "replies_bypass";
const PORT_CLOSED: &str = "port_closed";

/// Whether no answer came, or a word that none will.
fn is_silence(what: &str) -> bool {
    ["timeout", "connection refused", "protocol unreachable", "unreachable", "no way"]
        .iter()
        .any(|w| what.starts_with(w))
}

/// Whether the server answered nothing at all.
pub fn is_down(what: &str) -> bool {
    what.contains("is down, or no way leads to it")
}

fn finding(subject: &Subject, way: &Way, what: String) -> Finding {
    let server = way.server.address;
    let down = is_down(&what);
    let (name, rule, remedy, commands) = match way.server.method {
        _ if down => (
            "server_down",
            "a server that answers nothing serves nobody",
            "start it, or see what keeps its answers away".to_owned(),
            Vec::new(),
        ),
        _ if what.contains("nothing listens there") && !what.contains("out of the tunnel") => (
            PORT_CLOSED,
            "the program must listen where clients' packets arrive",
            "start the program, or have it listen on the address and port that packets come to".to_owned(),
            Vec::new(),
        ),
        _ if !is_silence(&what) => (
            "wrong_answer",
            "the check that the server has says what must come",
            "see what the program answers, or correct the check".to_owned(),
            Vec::new(),
        ),
        Method::Nat => (
            REPLIES_BYPASS,
            "by NAT the client knows no connection with the server, only with the virtual address: the answer must come \
             back through the director, which writes that into it",
            "have the server's route to clients, mostly its default route, lead to the director".to_owned(),
            route_back(subject, server, None).into_iter().collect(),
        ),
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
        evidence: sent(subject, way, &what).into_iter().collect(),
        what,
        rule: rule.into(),
        remedy,
        commands,
        ..Finding::default()
    }
}

/// The server's way back is right, since other answers come by it: then it is this that it does not answer.
fn dropped_there(way: &Way, found: Finding) -> Finding {
    let port = way.along().map_or(0, |along| along.port);
    Finding {
        name: "server_drops".into(),
        what: format!("timeout: it answers clients, but not what they send to its port {port}: it drops that"),
        rule: "what comes from clients' addresses, the server must take from everybody".into(),
        remedy: "see the server's rules of netfilter, and whether its program takes connections fast enough".into(),
        commands: Vec::new(),
        ..found
    }
}

/// What was sent, and what came of it.
fn sent(subject: &Subject, way: &Way, what: &str) -> Option<String> {
    let (along, vip) = (way.along()?, way.service.address()?);
    let server = way.server.address;
    let hop = subject.hops.get(&server);
    let link = hop.map_or("?", |hop| subject.link(hop.ifindex));
    let mac = hop.map_or_else(|| "?".to_owned(), |hop| mac_text(hop.mac));
    let router = hop.and_then(|hop| hop.neighbour).filter(|neighbour| *neighbour != server);
    let router = router.map_or_else(String::new, |router| format!(" via {router}"));
    let port = way.service.port();
    let packet = if way.is_udp() { "a datagram" } else { "a SYN" };
    let sent = match along.method {
        Method::Nat => format!("sent {packet} to {}, port {}", along.address, along.port),
        Method::Dr => format!("sent {packet} to {vip}, port {port}"),
        Method::Tun(Tunnel { kind, .. }) => {
            format!("sent {packet} to {vip}, port {port}, in {} to {server}", kind.name())
        }
    };
    Some(format!("{sent}, by {link}{router} to {mac}: {}", what.split(':').next().unwrap_or_default()))
}

/// What leads a server's answers back through the director: all, or those to one client.
pub fn route_back(subject: &Subject, server: IpAddr, client: Option<IpAddr>) -> Option<HostCommand> {
    let director = subject.sources.get(&server)?;
    let six = if director.is_ipv6() { "-6 " } else { "" };
    let to = client.map_or_else(|| "default".to_owned(), |ip| ip.to_string());
    Some(on_server(server, format!("ip {six}route replace {to} via {director}")))
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
