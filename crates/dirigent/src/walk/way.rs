//! The way of one request and its answer: each hop, who changes what, and who carries which traffic.

use super::ask::{Asker, Request};
use super::{alike, is_local};
use crate::daemon::naming;
use crate::explain::{self, Coming, Flag, NOBODY, TTL, frame};
use crate::failure::{Failure, Result};
use crate::frame::Frame;
use crate::imagine::Imagination;
use crate::print;
use crate::why::{self, Method, Names};
use dirigent_api::{Counters, Fits, Hop, MacAddress, OuterPacket, Server, Service, Traffic, Way};
use dirigent_config::Protocol;
use dirigent_config::ruleset::Asked;
use dirigent_datapath::control::Store as _;
use dirigent_datapath::memory::{Incoming, Outcome};
use dirigent_director::records::NextHop;
use dirigent_director::verdict::{Action, ReasonKind};
use dirigent_net::{Mac, NextHopState, mac_text};
use std::net::SocketAddr;

const ELSEWHERE: &str = "on a link that the director is not on";
const SERVERS_ROUTE: &str = "since the server sends its answer by its own routes";
const WITHIN: &str = "no frame: the server is the director itself";

/// The hops of a packet, in order.
#[derive(Default)]
struct Hops(Vec<Hop>);

/// Who sends and who gets a frame: names of parties, the director's interface, and MACs.
struct Between<'a> {
    from: &'a str,
    to: &'a str,
    interface: String,
    macs: [MacAddress; 2],
}

impl Between<'_> {
    /// Where the director sees nothing.
    fn elsewhere<'a>(from: &'a str, to: &'a str) -> Between<'a> {
        Between { from, to, interface: String::new(), macs: [unknown(ELSEWHERE), unknown(ELSEWHERE)] }
    }
}

fn known(mac: Mac) -> MacAddress {
    MacAddress { address: Some(mac_text(mac)), unknown: String::new() }
}

fn unknown(why: impl Into<String>) -> MacAddress {
    MacAddress { address: None, unknown: why.into() }
}

impl Hops {
    /// The next one: a frame with so many hops less than it says.
    fn add(&mut self, between: Between<'_>, frame: &Frame<'_>, gone: u8) {
        let Some(packet) = frame.packet() else { return };
        let Between { from, to, interface, macs: [source_mac, destination_mac] } = between;
        // Of what is in a tunnel routers see the outer packet alone.
        let outer = frame.outer().map(|outer| OuterPacket {
            kind: outer.kind.name(),
            source: outer.from.to_string(),
            destination: outer.to.to_string(),
            ttl: outer.ttl.saturating_sub(gone),
            bytes: u32::try_from(outer.length.saturating_sub(packet.length)).unwrap_or(0),
        });
        let ttl = if outer.is_some() { packet.ttl } else { packet.ttl.saturating_sub(gone) };
        let mut hop = Hop {
            from: from.to_owned(),
            to: to.to_owned(),
            interface,
            source_mac,
            destination_mac,
            source: packet.source().to_string(),
            destination: packet.destination().to_string(),
            ttl,
            outer,
            changed: Vec::new(),
        };
        if let Some(before) = self.0.last() {
            hop.changed = changed(before, &hop);
        }
        self.0.push(hop);
    }
}

/// What is other than at the hop before.
fn changed(before: &Hop, hop: &Hop) -> Vec<String> {
    // Whoever sends a frame on writes both MACs, whether they are known here or not. Within a host there is none.
    let sent_on = !hop.is_within();
    let differs = [
        ("source_mac", sent_on),
        ("destination_mac", sent_on),
        ("outer", before.outer != hop.outer),
        ("source", before.source != hop.source),
        ("destination", before.destination != hop.destination),
        ("ttl", before.ttl != hop.ttl),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect()
}

/// The way to a server and back. `index`: the server's place in the tables.
pub fn of(asker: &mut Asker<'_, '_>, service: &Service, server: &Server, index: u32) -> Result<Way> {
    let request = asker.request(index)?;
    let next = asker.now.store.next_hop(index)?;
    let mut drawer = Drawer { now: &mut *asker.now, server, next, request };
    let there = drawer.there()?;
    let (back, broken) = drawer.back(&there)?;
    let Drawer { next, request, .. } = drawer;
    let explain::Question { protocol, from, to, mark, .. } = &request.question;
    let method = Method::of(&server.method, is_local(server));
    let fits = fits(&next, *protocol, to);
    let (client, asked) = (from.to_string(), to.to_string());
    let routed = there.hops.0.iter().chain(&back.0).any(|hop| hop.to == "router");
    let answers = there.hops.0.last().map_or_else(|| server.address.clone(), |hop| hop.destination.clone());
    let names = Names { client: &client, asked: &asked, server: &answers };
    Ok(Way {
        server: server.address.clone(),
        state: server.state.clone(),
        method: server.method.clone(),
        local: is_local(server),
        tunnel: server.tunnel.clone(),
        protocol: protocol.name().to_owned(),
        needs: needs(method, names, *protocol, to, server, fits.as_ref()),
        request: there.hops.0,
        answer: back.0,
        broken,
        fits,
        traffic: traffic(service, server, method),
        notes: notes(server, *mark, routed),
        client,
        asked,
    })
}

/// What the way is told from.
struct Drawer<'d, 's> {
    now: &'d mut Imagination<'s>,
    server: &'d Server,
    next: NextHop,
    request: Request,
}

/// The request's way, and how it left the director.
struct There {
    hops: Hops,
    /// The interface it left by; none: it did not leave.
    by: Option<u32>,
    /// A router is between director and server.
    behind: bool,
    /// MAC of the server or its router; none: it is not known.
    server: Option<Mac>,
    /// Whom the server answers as with NAT.
    answers: SocketAddr,
}

impl Drawer<'_, '_> {
    fn interface(&self, index: u32) -> String {
        let link = self.now.host.links.get(&index);
        link.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }

    /// The director's MAC on an interface, for those who send to it.
    fn own_mac(&self, index: u32) -> Result<MacAddress> {
        let link = self.now.store.links()?.into_iter().find(|(other, _)| *other == index).map(|(_, link)| link);
        Ok(match link {
            Some(link) if link.virtual_macs.iter().any(|word| *word != 0) => {
                let own = mac_text(link.mac.bytes());
                unknown(format!("{own} of {}, or a virtual router's", self.interface(index)))
            }
            Some(link) => known(link.mac.bytes()),
            None => unknown(format!("the director does not use {}", self.interface(index))),
        })
    }

    /// The MAC of the client or of the router to it.
    fn clients_mac(&self, by: u32) -> MacAddress {
        let way = &self.request.client;
        match (way.state, way.neighbour) {
            _ if way.ifindex != by => unknown(format!("no route leads to the client by {}", self.interface(by))),
            (NextHopState::Resolved, _) => known(way.mac),
            (_, Some(neighbour)) => unknown(format!("the kernel has not found {neighbour} yet")),
            (_, None) => unknown("it is this host"),
        }
    }

    /// What leaves the director is finished, or the kernel finds the neighbour.
    fn sent_macs(&self, outcome: &Outcome, frame: &Frame<'_>, neighbour: &str) -> Result<[MacAddress; 2]> {
        if outcome.verdict.action == Action::Transmit {
            return Ok([known(frame.source), known(frame.destination)]);
        }
        let own = self.now.mac(outcome.verdict.ifindex)?;
        let own = own.map_or_else(|| unknown("the kernel chooses it"), |mac| known(mac.bytes()));
        Ok([own, unknown(format!("the kernel has not found {neighbour} yet"))])
    }

    fn read<'f>(&self, bytes: &'f [u8]) -> Result<Frame<'f>> {
        let frame = match self.next.port.get() {
            0 => Frame::read(bytes),
            port => Frame::read_with(bytes, port),
        };
        frame.ok_or_else(|| {
            Failure::new(&self.server.address, "the packet path left no packet", "report this as a fault")
        })
    }

    fn there(&mut self) -> Result<There> {
        let (mut hops, ingress) = (Hops::default(), self.request.ingress);
        let led = self.request.is_led();
        let by = if led { self.request.client.ifindex } else { ingress };
        let macs = [self.clients_mac(by), self.own_mac(by)?];
        let interface = self.interface(by);
        let first = frame(&self.request.question, Coming { source: NOBODY, destination: NOBODY, ttl: TTL })?;
        let first = self.read(&first)?;
        if self.request.is_near() {
            hops.add(Between { from: "client", to: "director", interface, macs }, &first, 0);
        } else {
            hops.add(Between::elsewhere("client", "router"), &first, 0);
            hops.add(Between { from: "router", to: "director", interface, macs }, &first, 1);
        }
        if led {
            let (interface, own) = (self.interface(ingress), self.own_mac(ingress)?);
            let came = self.read(&self.request.frame)?;
            hops.add(Between { from: "director", to: "director", interface, macs: [own.clone(), own] }, &came, 0);
        }
        let outcome = &self.request.foretold.outcome;
        let sent = self.read(&outcome.frame)?;
        let answers = sent.packet().map_or(self.request.question.to, |packet| packet.destination());
        if !matches!(outcome.verdict.action, Action::Transmit | Action::Resolve) {
            hops.add(within("director", "server"), &sent, 0);
            return Ok(There { hops, by: None, behind: false, server: None, answers });
        }
        let by = outcome.verdict.ifindex;
        let address = naming::listed_identity(self.server).map(|(ip, _)| ip);
        let neighbour = address.map(|ip| self.now.way(ip)).transpose()?.and_then(|way| way.neighbour);
        let outcome = &self.request.foretold.outcome;
        let sent = self.read(&outcome.frame)?;
        let behind = neighbour.is_some() && neighbour != address;
        let who = neighbour.map_or_else(|| self.server.address.clone(), |ip| ip.to_string());
        let macs = self.sent_macs(outcome, &sent, &who)?;
        let server = macs[1].address.is_some().then_some(sent.destination);
        let (interface, to) = (self.interface(by), if behind { "router" } else { "server" });
        hops.add(Between { from: "director", to, interface, macs }, &sent, 0);
        if behind {
            hops.add(Between::elsewhere("router", "server"), &sent, 1);
        }
        Ok(There { hops, by: Some(by), behind, server, answers })
    }

    /// The server's answer: with SYN and ACK where there are such flags.
    fn answer(&self, from: SocketAddr) -> explain::Question {
        let asked = &self.request.question;
        let flags = vec![Flag::Syn, Flag::Ack];
        explain::Question { from, to: asked.from, flags, mark: 0, interface: None, ..asked.clone() }
    }

    fn back(&mut self, there: &There) -> Result<(Hops, Option<String>)> {
        match (there.by, self.server.method.as_str()) {
            (None, _) => self.by_itself(there),
            (Some(by), "nat") if self.same_link(there, by) => self.around(there),
            (Some(by), "nat") => self.through(there, by),
            (Some(by), _) => self.past(there, by).map(|hops| (hops, None)),
        }
    }

    /// Client and server are on one link.
    fn same_link(&self, there: &There, by: u32) -> bool {
        self.request.is_near() && !there.behind && self.request.client.ifindex == by
    }

    fn servers_mac(there: &There) -> MacAddress {
        match there.server {
            Some(mac) if !there.behind => known(mac),
            _ if there.behind => unknown(ELSEWHERE),
            _ => unknown("the kernel has not found the server yet"),
        }
    }

    /// NAT, and the client is the server's neighbour: it gets the answer without the director.
    fn around(&mut self, there: &There) -> Result<(Hops, Option<String>)> {
        let macs = [Self::servers_mac(there), self.clients_mac(self.request.client.ifindex)];
        let question = self.answer(there.answers);
        let bytes = frame(&question, Coming { source: NOBODY, destination: NOBODY, ttl: TTL })?;
        let mut hops = Hops::default();
        let between = Between { from: "server", to: "client", interface: String::new(), macs };
        hops.add(between, &self.read(&bytes)?, 0);
        let (client, asked) = (self.request.question.from, self.request.question.to);
        let broken = format!(
            "The client is on the server's own link, so the server answers it there, and not by the director. The client asked \
             {asked} and has no connection with {}: it refuses the answer. Have clients in another subnet, or use direct routing, or \
             give the server a route to {} by the director.",
            there.answers,
            client.ip()
        );
        Ok((hops, Some(broken)))
    }

    /// NAT: through the packet path again, which now knows the connection.
    fn through(&mut self, there: &There, by: u32) -> Result<(Hops, Option<String>)> {
        let question = self.answer(there.answers);
        let own = self.now.mac(by)?.unwrap_or_default().bytes();
        let ttl = if there.behind { TTL - 1 } else { TTL };
        let bytes = frame(&question, Coming { source: there.server.unwrap_or(NOBODY), destination: own, ttl })?;
        let came = self.read(&bytes)?;
        let mut hops = Hops::default();
        let theirs = there.server.map_or_else(|| unknown("the kernel has not found the server yet"), known);
        let macs = [theirs, self.own_mac(by)?];
        let interface = self.interface(by);
        if there.behind {
            let first = frame(&question, Coming { source: NOBODY, destination: NOBODY, ttl: TTL })?;
            hops.add(Between::elsewhere("server", "router"), &self.read(&first)?, 0);
            hops.add(Between { from: "router", to: "director", interface, macs }, &came, 0);
        } else {
            hops.add(Between { from: "server", to: "director", interface, macs }, &came, 0);
        }
        let incoming = Incoming { frame: &bytes, ingress: by, ..Incoming::default() };
        let outcome = self.now.run(&mut self.request.foretold.tables, &incoming);
        let broken = self.to_client(&mut hops, &outcome)?;
        Ok((hops, broken))
    }

    /// Out of the director, to the client.
    fn to_client(&self, hops: &mut Hops, outcome: &Outcome) -> Result<Option<String>> {
        let reason = outcome.verdict.reason;
        if reason.kind() != ReasonKind::Forwarded {
            return Ok(Some(format!(
                "The director does not send the answer on: {} ({})",
                reason.text(),
                reason.name()
            )));
        }
        let way = &self.request.client;
        let sent = self.read(&outcome.frame)?;
        let who = way.neighbour.map_or_else(|| self.request.question.from.ip().to_string(), |ip| ip.to_string());
        let macs = self.sent_macs(outcome, &sent, &who)?;
        let interface = self.interface(outcome.verdict.ifindex);
        self.last_hops(hops, interface, macs, &sent);
        Ok(None)
    }

    fn last_hops(&self, hops: &mut Hops, interface: String, macs: [MacAddress; 2], sent: &Frame<'_>) {
        if self.request.is_near() {
            hops.add(Between { from: "director", to: "client", interface, macs }, sent, 0);
        } else {
            hops.add(Between { from: "director", to: "router", interface, macs }, sent, 0);
            hops.add(Between::elsewhere("router", "client"), sent, 1);
        }
    }

    /// The director is the server: its stack sends, and what leaves is looked at.
    fn by_itself(&mut self, there: &There) -> Result<(Hops, Option<String>)> {
        let question = self.answer(there.answers);
        let way = self.request.client;
        let coming = Coming { source: way.source_mac, destination: way.mac, ttl: TTL };
        let bytes = frame(&question, coming)?;
        let mut hops = Hops::default();
        hops.add(within("server", "director"), &self.read(&bytes)?, 0);
        let leaving = Incoming { frame: &bytes, ingress: way.ifindex, ..Incoming::default() };
        let outcome = dirigent_datapath::memory::leave(&mut self.request.foretold.tables, &leaving);
        let reason = outcome.verdict.reason;
        if reason.kind() == ReasonKind::Dropped {
            return Ok((hops, Some(format!("The answer is dropped: {} ({})", reason.text(), reason.name()))));
        }
        let sent = self.read(&outcome.frame)?;
        let macs = [known(way.source_mac), self.clients_mac(way.ifindex)];
        self.last_hops(&mut hops, self.interface(way.ifindex), macs, &sent);
        Ok((hops, None))
    }

    /// Direct routing and tunnelling: from the server to the client, and the director sees nothing of it.
    fn past(&mut self, there: &There, by: u32) -> Result<Hops> {
        let question = self.answer(self.request.question.to);
        let bytes = frame(&question, Coming { source: NOBODY, destination: NOBODY, ttl: TTL })?;
        let answer = self.read(&bytes)?;
        let (mut hops, server) = (Hops::default(), Self::servers_mac(there));
        let interface = String::new();
        if self.same_link(there, by) {
            let macs = [server, self.clients_mac(by)];
            hops.add(Between { from: "server", to: "client", interface, macs }, &answer, 0);
            return Ok(hops);
        }
        let macs = [server, unknown(SERVERS_ROUTE)];
        hops.add(Between { from: "server", to: "router", interface, macs }, &answer, 0);
        hops.add(Between::elsewhere("router", "client"), &answer, 1);
        Ok(hops)
    }
}

fn within<'a>(from: &'a str, to: &'a str) -> Between<'a> {
    Between { from, to, interface: String::new(), macs: [unknown(WITHIN), unknown(WITHIN)] }
}

/// What fits into a tunnel, as the packet path reckons.
fn fits(next: &NextHop, protocol: Protocol, to: &SocketAddr) -> Option<Fits> {
    if !next.tunnelled() || next.path_mtu() == 0 {
        return None;
    }
    // Headers of IP and TCP without options.
    let headers = if to.is_ipv6() { 60 } else { 40 };
    let segment = (protocol == Protocol::Tcp).then(|| next.room().saturating_sub(headers));
    Some(Fits { mtu: next.path_mtu(), overhead: next.overhead(), packet: next.room(), segment })
}

/// What must be so.
fn needs(
    method: Method,
    names: Names<'_>,
    protocol: Protocol,
    to: &SocketAddr,
    server: &Server,
    fits: Option<&Fits>,
) -> Vec<String> {
    let vip = to.ip();
    let asking = Asked::of(vip).name();
    match method {
        Method::Nat => vec![why::nat_answer(names), why::nat_around(names, protocol == Protocol::Tcp)],
        Method::Local => {
            vec![format!(
                "The director's own stack answers as {}; what leaves for clients is made an answer of {} on its way out.",
                names.server, names.asked
            )]
        }
        Method::Direct => vec![
            why::own_answer(names),
            format!(
                "So the server must hold {vip} (on lo), or it throws the request away; and it must not answer {asking} for it, \
                 or clients' packets go to it past the director. `dirigent realserver setup --mode dr --vip {vip}` does both."
            ),
        ],
        Method::Tunnel => {
            let tunnel = server.tunnel.clone().unwrap_or_default();
            let kind = &tunnel.kind;
            let port = tunnel.port.map(|port| format!(" --port {port}")).unwrap_or_default();
            let mut all = vec![
                why::own_answer(names),
                format!(
                    "So the server must take the packet out of {}, hold {vip} (on lo), and not answer {asking} for it. \
                     `dirigent realserver setup --mode tun --vip {vip} --tunnel {kind}{port}` does all of it.",
                    kind.to_uppercase()
                ),
            ];
            all.extend(fits.map(room));
            all
        }
    }
}

fn room(fits: &Fits) -> String {
    let Fits { mtu, overhead, packet, segment } = fits;
    let segments = segment.map(|mss| format!(", and {mss} for a TCP segment (MSS)")).unwrap_or_default();
    format!(
        "The tunnel adds {overhead} bytes: of the {mtu} that the way to the server carries, {packet} are left for a packet{segments}. \
         Who sends more is told so by ICMP (\"fragmentation needed\", \"packet too big\"), which no firewall may drop; `dirigent \
         realserver setup` has the server offer a segment size that fits."
    )
}

/// Of all servers of the service that are reached so.
fn traffic(service: &Service, server: &Server, method: Method) -> Traffic {
    let all = || service.servers.iter().filter(|other| alike(server, other));
    let mut counters = Counters::default();
    all().for_each(|server| counters += server.counters);
    let rates = all().map(|server| server.rates).try_fold(Counters::default(), |mut sum, rates| {
        sum += rates?;
        Some(sum)
    });
    let both = method.carries_answers();
    let said = |c: &Counters, each: &str| {
        let inbound = format!("{}{each} in", print::bytes(c.in_bytes));
        if both { format!("{inbound}, {}{each} out", print::bytes(c.out_bytes)) } else { inbound }
    };
    let measured = match (counters.in_packets + counters.out_packets, &rates) {
        (0, _) => "no traffic yet".to_owned(),
        (_, Some(rates)) => format!("{}; now {}", said(&counters, ""), said(rates, "/s")),
        (_, None) => said(&counters, ""),
    };
    let text = format!("{}: {}: {measured}.", method.name(), method.carries());
    Traffic { both, counters, rates, text }
}

fn notes(server: &Server, mark: u32, routed: bool) -> Vec<String> {
    let mut all = Vec::new();
    if !["available", "starting"].contains(&server.state.as_str()) {
        all.push(format!(
            "{} is {}: it gets no new connections, and those that it has go on.",
            server.address, server.state
        ));
    }
    if mark != 0 {
        all.push(format!(
            "Netfilter on the director is taken to mark the request with {mark}, and `ip rule` to lead it to the device where the \
             director looks at marks (mark_device)."
        ));
    }
    let routers =
        if routed { " A router is drawn where there is one; there may be more, and each takes one off." } else { "" };
    all.push(format!("Client and server begin with TTL {TTL}, as Linux does.{routers}"));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_api::Tunnel;

    fn bytes(from: &str, to: &str, ttl: u8) -> Vec<u8> {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let flags = vec![Flag::Syn];
        let question =
            explain::Question { protocol: Protocol::Tcp, from, to, interface: None, flags, mark: 0, length: 0 };
        frame(&question, Coming { source: NOBODY, destination: NOBODY, ttl }).unwrap()
    }

    #[test]
    fn each_hop_says_what_its_sender_changed() {
        let (came, sent) = (bytes("198.51.100.7:4", "192.0.2.10:80", 63), bytes("198.51.100.7:4", "10.0.0.2:8080", 62));
        let (came, sent) = (Frame::read(&came).unwrap(), Frame::read(&sent).unwrap());
        let mut hops = Hops::default();
        hops.add(Between::elsewhere("router", "director"), &came, 0);
        hops.add(Between::elsewhere("director", "router"), &sent, 0);
        hops.add(Between::elsewhere("router", "server"), &sent, 1);
        hops.add(within("server", "server"), &sent, 1);
        let of = |hop: usize| hops.0[hop].changed.join(" ");
        assert_eq!(of(0), "");
        assert_eq!(of(1), "source_mac destination_mac destination ttl");
        assert_eq!(of(2), "source_mac destination_mac ttl");
        assert_eq!(of(3), "");
        assert_eq!(hops.0.iter().map(|hop| hop.ttl).collect::<Vec<_>>(), [63, 62, 61, 61]);
    }

    #[test]
    fn in_a_tunnel_the_outer_packet_ages() {
        let inner = bytes("198.51.100.7:4", "192.0.2.10:80", 62);
        let mut outer = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.write(&mut outer, etherparse::IpNumber::IPV4, &inner[14..]).unwrap();
        let mut hops = Hops::default();
        hops.add(Between::elsewhere("router", "director"), &Frame::read(&inner).unwrap(), 0);
        hops.add(Between::elsewhere("router", "server"), &Frame::read(&outer).unwrap(), 1);
        let hop = &hops.0[1];
        let outer = hop.outer.clone().unwrap();
        assert_eq!((hop.ttl, outer.ttl, outer.bytes, outer.kind.as_str()), (62, 63, 20, "ipip"));
        assert_eq!(hop.changed, ["source_mac", "destination_mac", "outer"]);
    }

    #[test]
    fn traffic_is_that_of_all_servers_of_the_method() {
        let server = |method: &str, in_bytes, out_bytes, rate: Option<u64>| Server {
            method: method.to_owned(),
            tunnel: (method == "tun").then(Tunnel::default),
            counters: Counters { in_packets: 1, in_bytes, out_bytes, ..Counters::default() },
            rates: rate.map(|in_bytes| Counters { in_bytes, ..Counters::default() }),
            ..Server::default()
        };
        let servers = vec![
            server("nat", 1000, 20_000, Some(10)),
            server("dr", 7, 0, Some(1)),
            server("nat", 500, 5000, Some(5)),
            server("tun", 9, 0, None),
        ];
        let service = Service { servers: servers.clone(), ..Service::default() };
        let said = |server: &Server| traffic(&service, server, Method::of(&server.method, false)).text;
        assert_eq!(
            said(&servers[0]),
            "NAT: the director carries both directions of every connection: 1.5 kB in, 25.0 kB out; now 15 B/s in, 0 B/s out."
        );
        assert_eq!(
            said(&servers[1]),
            "Direct routing: the director carries the inbound half only: 7 B in; now 1 B/s in."
        );
        assert_eq!(said(&servers[3]), "Tunnelling: the director carries the inbound half only: 9 B in.");
        let idle = Server { method: "nat".into(), ..Server::default() };
        let service = Service { servers: vec![idle.clone()], ..Service::default() };
        assert!(traffic(&service, &idle, Method::Nat).text.ends_with("no traffic yet."));
    }
}
