//! The walk of one request and its reply through a lab, as captured at every hop; and what happens to a reply that does
//! not come back through the director.

use super::capture::{Capture, Seen};
use super::files::host;
use super::packet::Tcp;
use crate::failure::{Failure, Result};
use dirigent_net::lab::{Family, Lab, LabSpec, Mode};
use dirigent_wire::TcpHeader;
use std::net::IpAddr;

/// Client ports of the walk; the first that is free is taken.
const PORTS: &str = "40000-40199";
const FILTER: &str = "tcp and portrange 40000-40199";
const WHY: &str = "\
Why: the client asked B, so an answer from C belongs to no connection of its own and is refused with RST; to the router's
firewall, which saw the request go to B, the answer from C is just as unknown, and it drops it. With NAT every answer must
come back through the director, which makes it B's again: that is why the director is the servers' default route.";

/// Walks, and if asked shows the way around.
pub fn run(lab: &Lab, family: Family, around: bool) -> Result<()> {
    let spec = LabSpec { family, ..lab.spec().clone() };
    if spec.mode != Mode::Nat {
        if around {
            let remedy = "leave --around out: with direct routing and tunnels it is how answers go";
            return Err(Failure::new("--around", "only of NAT an answer can go around the director", remedy));
        }
        return walk_direct(lab, &spec);
    }
    walk(lab, &spec)?;
    if around { go_around(lab, &spec) } else { Ok(()) }
}

/// One HTTP request of the client; its body, or nothing when there was no answer.
fn request(lab: &Lab, vip: IpAddr) -> Result<Option<String>> {
    let url = format!("http://{}/", host(vip));
    let close = "Connection: close";
    let argv = ["curl", "-sS", "-g", "--max-time", "1", "--local-port", PORTS, "-H", close, &url];
    let output = lab.output("client", &argv)?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned()))
}

fn places(spec: &LabSpec) -> Vec<(String, String)> {
    let (clients, servers) = spec.director_interfaces();
    let mut places = vec![("client", "eth0"), ("router", "client0"), ("director", clients)];
    if servers != clients {
        places.push(("director", servers));
    }
    let places = places.into_iter().map(|(host, interface)| (host.to_owned(), interface.to_owned()));
    places.chain((1..=spec.servers).map(|k| (format!("server{k}"), "eth0".to_owned()))).collect()
}

fn walk(lab: &Lab, spec: &LabSpec) -> Result<()> {
    let (a, b) = (spec.client(), spec.vip());
    let capture = Capture::start(lab, &places(spec), FILTER)?;
    let answer = request(lab, b)?;
    let seen = capture.finish()?;
    let Some(server) = answer else {
        return Err(Failure::new(b.to_string(), "no answer to an HTTP request", "see `dirigent stats --drops`"));
    };
    let names = |ip: IpAddr| (1..=spec.servers).find(|k| spec.server(*k) == ip);
    // The packets with the request and the answer in them, told apart by who sent them to whom.
    let stage = |from: &dyn Fn(IpAddr) -> bool, to: &dyn Fn(IpAddr) -> bool| -> Vec<(String, Tcp)> {
        let first = |place: &Seen| {
            let wanted = |p: &&Tcp| p.payload > 0 && from(p.from.ip()) && to(p.to.ip());
            Some((place.place(), place.packets.iter().find(wanted)?.clone()))
        };
        let mut found: Vec<_> = seen.iter().filter_map(first).collect();
        found.sort_by_key(|(_, packet)| packet.at);
        found
    };
    let (is_a, is_b, is_c) = (|ip| ip == a, |ip| ip == b, |ip| names(ip).is_some());
    let stages = [stage(&is_a, &is_b), stage(&is_a, &is_c), stage(&is_c, &is_a), stage(&is_b, &is_a)];
    let [ask, translated, reply, restored] = &stages;
    let [Some((_, first)), Some((_, inside)), Some(_), Some(_)] = stages.each_ref().map(|s| s.first()) else {
        return Err(Failure::new(
            "",
            "the capture lacks a hop of the request or its reply",
            "try again; is it tc mode?",
        ));
    };
    println!("one request and its reply, as captured at each hop ({server} answered):\n");
    show(&format!("A {} → B {}", first.from, first.to), ask, first.at);
    show(&format!("director NAT: A → C {}", inside.to), translated, first.at);
    show("C → A", reply, first.at);
    show("director un-NAT: B → A", restored, first.at);
    Ok(())
}

/// The same with direct routing or a tunnel: the director carries one half.
fn walk_direct(lab: &Lab, spec: &LabSpec) -> Result<()> {
    let (a, b) = (spec.client(), spec.vip());
    let mut places = places(spec);
    places.push(("router".to_owned(), "servers0".to_owned()));
    let filter = format!("({FILTER}) or proto 4 or proto 41 or proto 47 or udp port {}", super::files::GUE_PORT);
    let capture = Capture::start(lab, &places, &filter)?;
    let answer = request(lab, b)?;
    let seen = capture.finish()?;
    let Some(server) = answer else {
        return Err(Failure::new(b.to_string(), "no answer to an HTTP request", "see `dirigent stats --drops`"));
    };
    let stage = |wanted: &dyn Fn(&Seen, &Tcp) -> bool| -> Vec<(String, Tcp)> {
        let first = |place: &Seen| {
            let packet = place.packets.iter().find(|p| p.payload > 0 && wanted(place, p))?;
            Some((place.place(), packet.clone()))
        };
        let mut found: Vec<_> = seen.iter().filter_map(first).collect();
        found.sort_by_key(|(_, packet)| packet.at);
        found
    };
    let to_b = |p: &Tcp| p.from.ip() == a && p.to.ip() == b;
    let lacks = || Failure::new("", "the capture lacks a hop of the request or its reply", "try again; is it tc mode?");
    let at_server = stage(&|place, p| place.host == server && to_b(p));
    let (_, sent) = at_server.first().ok_or_else(lacks)?;
    // What the director sends has its MAC as its source.
    let director = sent.from_mac.clone();
    let ask = stage(&|_, p| to_b(p) && p.from_mac != director);
    let carried = stage(&|_, p| to_b(p) && p.from_mac == director);
    let reply = stage(&|_, p| p.from.ip() == b && p.to.ip() == a);
    let (Some((_, first)), false) = (ask.first(), reply.is_empty()) else { return Err(lacks()) };
    println!("one request and its reply, as captured at each hop ({server} answered):\n");
    show(&format!("A {} → B {}", first.from, first.to), &ask, first.at);
    match &sent.outer {
        Some(outer) => show(&format!("director tunnel: A → B inside {outer}"), &carried, first.at),
        None => show("director direct routing: A → B as it was, to C's MAC", &carried, first.at),
    }
    show("C holds B and answers A itself: B → A, not through the director", &reply, first.at);
    Ok(())
}

/// A title, and a line for each place that saw the packet.
fn show(title: &str, packets: &[(String, Tcp)], start: u64) {
    println!("  {title}");
    for (place, packet) in packets {
        let ways = packet.to_string();
        let Tcp { from_mac, to_mac, ttl, at, .. } = packet;
        let after = at.saturating_sub(start);
        println!("    {place:<15} {ways:<46} TTL {ttl:<3} {from_mac} → {to_mac}  +{after} µs  {}", packet.what());
    }
    println!();
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
    println!("{WHY}");
    Ok(())
}

/// Asks until the server with the wrong route was chosen; what was seen of it.
fn until_unanswered(lab: &Lab, spec: &LabSpec) -> Result<Vec<Seen>> {
    let own = |host: &str, interface: &str| (host.to_owned(), interface.to_owned());
    let places = [own("client", "eth0"), own("router", "servers0"), own("server1", "eth0")];
    let capture = Capture::start(lab, &places, FILTER)?;
    for _ in 0..usize::from(spec.servers) * 4 {
        if request(lab, spec.vip())?.is_none() {
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
    for (_, place, packet, note) in lines {
        let ways = packet.to_string();
        println!("    {place:<15} {ways:<46} {:<8} {note}", packet.what());
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
