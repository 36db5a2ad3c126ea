//! The walk of one request and its reply through a lab, as captured at every hop; and what happens to a reply that does
//! not come back through the director.

use super::capture::{Capture, Seen};
use super::files::host;
use super::packet::Tcp;
use crate::failure::{Failure, Result};
use crate::{print, why};
use dirigent_net::lab::{Family, Lab, LabSpec, Mode};
use dirigent_wire::TcpHeader;
use std::net::IpAddr;

/// Client ports of the walk; the first that is free is taken.
const PORTS: &str = "40000-40199";
const FILTER: &str = "tcp and portrange 40000-40199";
/// Columns of what is said about it.
const COLUMNS: usize = 100;

/// One request and its reply, as captured.
pub struct Walked {
    /// Who answered.
    pub server: String,
    /// The request as the client sent it.
    pub first: Tcp,
    /// What happened, in order.
    stages: Vec<Stage>,
    /// All that was seen.
    pub seen: Vec<Seen>,
}

impl Walked {
    /// The kind of tunnel, if there was one.
    pub fn tunnel(&self) -> Option<String> {
        let mut packets = self.seen.iter().flat_map(|place| &place.packets);
        packets.find_map(|p| p.outer.as_ref()).map(|outer| outer.kind.to_uppercase())
    }
}

/// The same packet at all places that it passed unchanged but for its TTL.
struct Stage {
    title: String,
    packets: Vec<(String, Tcp)>,
}

/// Walks, and if asked shows the way around; or tells as JSON what was captured.
pub fn run(lab: &Lab, family: Family, around: bool, json: bool) -> Result<()> {
    let spec = LabSpec { family, ..lab.spec().clone() };
    if json {
        return print::json(&observe(lab, &spec, "/")?);
    }
    if spec.mode != Mode::Nat {
        if around {
            let remedy = "leave --around out: with direct routing and tunnels it is how answers go";
            return Err(Failure::new("--around", "only of NAT an answer can go around the director", remedy));
        }
        show(&walk(lab, &spec, "/")?);
        return Ok(());
    }
    show(&walk(lab, &spec, "/")?);
    if around { go_around(lab, &spec) } else { Ok(()) }
}

/// One HTTP request of the client; its body, or nothing when there was no answer.
fn request(lab: &Lab, vip: IpAddr, path: &str) -> Result<Option<String>> {
    let url = format!("http://{}{path}", host(vip));
    let close = "Connection: close";
    let argv = ["curl", "-sS", "-g", "--max-time", "1", "--local-port", PORTS, "-H", close, &url];
    let output = lab.output("client", &argv)?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned()))
}

/// Where it is captured.
fn places(spec: &LabSpec) -> Vec<(String, String)> {
    let (clients, servers) = spec.director_interfaces();
    let mut places = vec![("client", "eth0"), ("router", "client0"), ("director", clients)];
    if servers != clients {
        places.push(("director", servers));
    }
    let places = places.into_iter().map(|(host, interface)| (host.to_owned(), interface.to_owned()));
    places.chain((1..=spec.servers).map(|k| (format!("server{k}"), "eth0".to_owned()))).collect()
}

/// Asks for what is at `path`, and captures everything everywhere meanwhile.
pub fn observe(lab: &Lab, spec: &LabSpec, path: &str) -> Result<Vec<Seen>> {
    let b = spec.vip();
    let mut places = places(spec);
    if !spec.one_arm {
        places.extend(["servers0", "outside0"].map(|interface| ("router".to_owned(), interface.to_owned())));
    } else {
        places.push(("router".to_owned(), "servers0".to_owned()));
    }
    let filter = format!("({FILTER}) or proto 4 or proto 41 or proto 47 or udp port {}", crate::frame::GUE_PORT);
    let capture = Capture::start(lab, &places, if spec.mode == Mode::Tun { &filter } else { FILTER })?;
    let answer = request(lab, b, path)?;
    let seen = capture.finish()?;
    if answer.is_none() {
        return Err(Failure::new(b.to_string(), "no answer to an HTTP request", "see `dirigent stats --drops`"));
    }
    Ok(seen)
}

/// The same, told apart by who sent what to whom.
pub fn walk(lab: &Lab, spec: &LabSpec, path: &str) -> Result<Walked> {
    let (a, seen) = (spec.client(), observe(lab, spec, path)?);
    let lacks = || Failure::new("", "the capture lacks a hop of the request or its reply", "try again; is it tc mode?");
    // Who answered saw the answer first.
    let answered = |place: &Seen| place.packets.iter().find(|p| p.payload > 0 && p.to.ip() == a).map(|p| p.at);
    let servers = seen.iter().filter(|place| place.host.starts_with("server"));
    let (_, server) =
        servers.filter_map(|place| Some((answered(place)?, place))).min_by_key(|x| x.0).ok_or_else(lacks)?;
    let server = server.host.clone();
    let (first, stages) = match spec.mode {
        Mode::Nat => stages_of_nat(&seen, spec),
        _ => stages_of_direct(&seen, spec, &server),
    }
    .ok_or_else(lacks)?;
    Ok(Walked { server, first, stages, seen })
}

/// The first packet with something in it that is wanted, at each place that saw one.
fn stage(seen: &[Seen], wanted: &dyn Fn(&Seen, &Tcp) -> bool) -> Vec<(String, Tcp)> {
    let first = |place: &Seen| {
        let packet = place.packets.iter().find(|p| p.payload > 0 && wanted(place, p))?;
        Some((place.place(), packet.clone()))
    };
    let mut found: Vec<_> = seen.iter().filter_map(first).collect();
    found.sort_by_key(|(_, packet)| packet.at);
    found
}

/// The packets with the request and the answer in them, told apart by who sent them to whom.
fn stages_of_nat(seen: &[Seen], spec: &LabSpec) -> Option<(Tcp, Vec<Stage>)> {
    let (a, b) = (spec.client(), spec.vip());
    let is_c = |ip: IpAddr| (1..=spec.servers).any(|k| spec.server(k) == ip);
    let ask = stage(seen, &|_, p| p.from.ip() == a && p.to.ip() == b);
    let translated = stage(seen, &|_, p| p.from.ip() == a && is_c(p.to.ip()));
    let reply = stage(seen, &|_, p| is_c(p.from.ip()) && p.to.ip() == a);
    let restored = stage(seen, &|_, p| p.from.ip() == b && p.to.ip() == a);
    let (_, first) = ask.first()?.clone();
    let (_, inside) = translated.first()?;
    let titles = [
        format!("A {} → B {}", first.from, first.to),
        format!("director NAT: A → C {}", inside.to),
        "C → A".to_owned(),
        "director un-NAT: B → A".to_owned(),
    ];
    let stages: Vec<_> = titles
        .into_iter()
        .zip([ask, translated, reply, restored])
        .map(|(title, packets)| Stage { title, packets })
        .collect();
    stages.iter().all(|stage| !stage.packets.is_empty()).then_some((first, stages))
}

/// The same with direct routing or a tunnel: the director carries one half.
fn stages_of_direct(seen: &[Seen], spec: &LabSpec, server: &str) -> Option<(Tcp, Vec<Stage>)> {
    let (a, b) = (spec.client(), spec.vip());
    let to_b = |p: &Tcp| p.from.ip() == a && p.to.ip() == b;
    let at_server = stage(seen, &|place, p| place.host == server && to_b(p));
    let (_, sent) = at_server.first()?;
    // What the director sends has its MAC as its source.
    let director = &sent.from_mac;
    let ask = stage(seen, &|_, p| to_b(p) && p.from_mac != *director);
    let carried = stage(seen, &|_, p| to_b(p) && p.from_mac == *director);
    let reply = stage(seen, &|_, p| p.from.ip() == b && p.to.ip() == a);
    let (_, first) = ask.first()?.clone();
    let how = match &sent.outer {
        Some(outer) => format!("director tunnel: A → B inside {outer}"),
        None => "director direct routing: A → B as it was, to C's MAC".to_owned(),
    };
    let stages = vec![
        Stage { title: format!("A {} → B {}", first.from, first.to), packets: ask },
        Stage { title: how, packets: carried },
        Stage { title: "C holds B and answers A itself: B → A, not through the director".to_owned(), packets: reply },
    ];
    stages.iter().all(|stage| !stage.packets.is_empty()).then_some((first, stages))
}

/// Every stage: its title, its packet, and a line for each place that saw it.
fn show(walked: &Walked) {
    println!("one request and its reply, as captured at each hop ({} answered):\n", walked.server);
    for Stage { title, packets } in &walked.stages {
        println!("  {title}");
        if let Some((_, packet)) = packets.first() {
            println!("    {packet}: {}", packet.what());
        }
        for (place, packet) in packets {
            let Tcp { from_mac, to_mac, ttl, at, .. } = packet;
            let after = at.saturating_sub(walked.first.at);
            println!("    {place:<15}  TTL {ttl:<3}  MAC {from_mac} → {to_mac}  +{after} µs");
        }
        println!();
    }
}

/// Puts routes and rules back, however the demonstration ends.
struct Restore<'a>(&'a Lab);

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        for result in [self.0.set_server_route_around_director(1, false), self.0.drop_invalid_on_router(false)] {
            if let Err(error) = result {
                tracing::warn!("{error}");
            }
        }
    }
}

fn go_around(lab: &Lab, spec: &LabSpec) -> Result<()> {
    let _restore = Restore(lab);
    println!("server1's default route is now the router: it answers around the director.\n");
    lab.set_server_route_around_director(1, true)?;

    let before = resets(lab)?;
    let seen = until_unanswered(lab, spec)?;
    println!("  without a firewall, the client refuses the answer:");
    story(&seen, spec);
    println!("    client: {} resets sent (counter TcpOutRsts)\n", resets(lab)?.saturating_sub(before));

    lab.drop_invalid_on_router(true)?;
    let seen = until_unanswered(lab, spec)?;
    println!("  with `ct state invalid drop` on the router, the answer does not even arrive:");
    story(&seen, spec);
    println!("    router: {} packets dropped as invalid (nftables counter)\n", lab.invalid_drops_on_router()?);
    let names = why::Names { client: "A", asked: "B", server: "C" };
    println!("Why:\n{}", print::wrapped(&why::nat_answer(names), COLUMNS));
    println!("{}", print::wrapped(&why::nat_around(names, true), COLUMNS));
    Ok(())
}

/// Asks until the server with the wrong route was chosen; what was seen of it.
fn until_unanswered(lab: &Lab, spec: &LabSpec) -> Result<Vec<Seen>> {
    let own = |host: &str, interface: &str| (host.to_owned(), interface.to_owned());
    let places = [own("client", "eth0"), own("router", "servers0"), own("server1", "eth0")];
    let capture = Capture::start(lab, &places, FILTER)?;
    for _ in 0..usize::from(spec.servers) * 4 {
        if request(lab, spec.vip(), "/")?.is_none() {
            return capture.finish();
        }
    }
    Err(Failure::new("server1", "it was never chosen", "give it weight in the lab's configuration"))
}

/// What of the unanswered connection each place saw: the request, the answer around the director, the refusal.
fn story(seen: &[Seen], spec: &LabSpec) {
    let (a, b, c) = (spec.client(), spec.vip(), spec.server(1));
    let port = |p: &Tcp| if p.from.ip() == a { p.from.port() } else { p.to.port() };
    // The connection that failed came last.
    let all = || seen.iter().flat_map(|place| &place.packets);
    let Some(last) = all().filter(|p| p.has(TcpHeader::SYN) && p.to.ip() == b).max_by_key(|p| p.at).map(port) else {
        return;
    };
    let mut lines = Vec::new();
    for place in seen {
        let mut line = |wanted: &dyn Fn(&&Tcp) -> bool, note: &str| {
            let found = place.packets.iter().filter(|p| port(p) == last).find(wanted);
            lines.extend(found.map(|p| (p.at, place.place(), p.clone(), note.to_owned())));
        };
        line(&|p| p.has(TcpHeader::SYN) && p.to.ip() == b, "A asks B");
        line(&|p| p.has(TcpHeader::SYN) && p.from.ip() == a && p.to.ip() == c, "the director made it C's");
        line(&|p| p.has(TcpHeader::SYN | TcpHeader::ACK) && p.from.ip() == c, "C answers A, not through the director");
        line(&|p| p.has(TcpHeader::RST) && p.from.ip() == a && place.host == "client", "A refuses");
    }
    lines.sort_by_key(|(at, ..)| *at);
    let width = lines.iter().map(|(_, _, packet, _)| packet.to_string().chars().count()).max().unwrap_or(0);
    for (_, place, packet, note) in lines {
        let ways = packet.to_string();
        println!("    {place:<15} {ways:<width$} {:<7} {note}", packet.what());
    }
    let arrived = seen.iter().filter(|p| p.host == "client").flat_map(|p| &p.packets);
    if !arrived.into_iter().any(|p| p.from.ip() == c && port(p) == last) {
        println!("    {:<15} nothing came from C", "client eth0");
    }
}

/// How many resets the client has sent.
fn resets(lab: &Lab) -> Result<u64> {
    let output = lab.output("client", &["cat", "/proc/net/snmp"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut rows = text.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_ascii_whitespace);
    let (names, values) = (rows.next(), rows.next());
    let found = names.into_iter().flatten().zip(values.into_iter().flatten()).find(|(name, _)| *name == "OutRsts");
    let missing = || Failure::new("client", "/proc/net/snmp counts no resets", "");
    found.and_then(|(_, value)| value.parse().ok()).ok_or_else(missing)
}
