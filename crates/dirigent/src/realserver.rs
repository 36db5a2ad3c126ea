//! `dirigent realserver`: a real server's side of direct routing and tunnelling, on a
//! machine without a director.

use crate::changes::{self, Change, Shown, State, Terms, Tunnels, interface, make, segments, source_route};
use crate::cli::{
    RealserverCheck, RealserverCommand, RealserverMode, RealserverSetup, RealserverTarget, RealserverUndo,
};
use crate::failure::{Failure, Result};
use crate::print;
use dirigent_datapath::kernel::{Instance, detach_all, endpoint_counts};
use dirigent_director::endpoint::Outcome;
use dirigent_net::{Namespace, Snapshot, sysctl, vip};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

/// Runs a command.
pub fn run(command: RealserverCommand) -> Result<ExitCode> {
    match command {
        RealserverCommand::Setup(args) => setup(&args),
        RealserverCommand::Check(args) => check(&args),
        RealserverCommand::Undo(args) => undo(&args),
    }
}

/// All changes that a real server needs, done or not.
fn wanted(target: &RealserverTarget, network: &Snapshot) -> Result<Vec<Change>> {
    let link = interface(network, target.interface.as_deref())?;
    for address in &target.vip {
        if let Some(holder) = vip::holder(network, *address).filter(|holder| *holder != "lo") {
            return Err(Failure::new(
                address.to_string(),
                format!("{holder} has it, so this host tells everybody that it is here"),
                format!("ip address del {address} dev {holder}"),
            ));
        }
    }
    let mut changes: Vec<Change> = Vec::new();
    let mut raise = |name: &str, least: u32, value: u32, why: &str| -> Result<()> {
        let of = |which: &str| -> Result<u32> {
            let text = sysctl::get(&format!("net/ipv4/conf/{which}/{name}"))?;
            Ok(text.parse().unwrap_or(0))
        };
        // The larger of the two counts (Documentation/networking/ip-sysctl.rst).
        let right = of("all")?.max(of(&link.name)?) >= least;
        let (name, value, why) = (format!("net/ipv4/conf/all/{name}"), value.to_string(), why.to_owned());
        changes.push(Change::Sysctl { name, value, before: None, why, right });
        Ok(())
    };
    let v4 = target.vip.iter().any(std::net::IpAddr::is_ipv4);
    if v4 {
        raise("arp_ignore", 1, 1, "ARP for the virtual address is the director's to answer")?;
        raise("arp_announce", 2, 2, "ARP requests of this host do not name the virtual address")?;
        let strict = |which: &str| sysctl::get(&format!("net/ipv4/conf/{which}/rp_filter")).is_ok_and(|v| v == "1");
        let loose = |which: &str| sysctl::get(&format!("net/ipv4/conf/{which}/rp_filter")).is_ok_and(|v| v == "2");
        changes.push(Change::Sysctl {
            name: format!("net/ipv4/conf/{}/rp_filter", link.name),
            value: "2".into(),
            before: None,
            why: "clients' packets come by the director, whatever way leads back to them".into(),
            right: loose("all") || loose(&link.name) || !(strict("all") || strict(&link.name)),
        });
    }
    let mut routes = Vec::new();
    for (i, gateway) in target.gateway.iter().enumerate() {
        if target.gateway.iter().take(i).any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            let place = gateway.to_string();
            return Err(Failure::new(place, "a second gateway of this family", "answers leave by one: name one"));
        }
        routes.extend(source_route(network, &link, *gateway, target.table, &target.vip)?);
    }
    if target.mode == RealserverMode::Tun {
        let v6 = target.director.is_empty() || target.director.iter().any(std::net::IpAddr::is_ipv6);
        let tunnels: Vec<String> = match target.tunnel.as_slice() {
            [] => vec!["ipip".into()],
            some => some.to_vec(),
        };
        let header = |tunnel: &String| match tunnel.as_str() {
            "gre" => 8,
            "gue" => 12,
            _ => 0,
        };
        let overhead = tunnels.iter().map(header).max().unwrap_or(0) + if v6 { 40 } else { 20 };
        let inode = std::fs::metadata("/proc/thread-self/ns/net").map(|m| std::os::unix::fs::MetadataExt::ino(&m));
        let namespace = inode.map_err(|e| Failure::io("/proc/thread-self/ns/net", &e))?;
        // Answers by another interface have their segment sizes lowered there.
        let mut links = vec![link];
        for change in &routes {
            if let Change::Route { interface, .. } = change
                && let Some(link) = network.link_named(interface)
                && links.iter().all(|other| other.index != link.index)
            {
                links.push(link.clone());
            }
        }
        for link in links {
            let mac = link.mac.ok_or_else(|| {
                Failure::new(&link.name, "it has no hardware address", "name an Ethernet interface: --interface DEV")
            })?;
            changes.push(Change::Programs {
                interface: link.name.clone(),
                instance: format!("rs-{namespace}-{}", link.index),
                terms: Tunnels {
                    tunnels: tunnels.clone(),
                    port: target.port,
                    vips: target.vip.clone(),
                    directors: target.director.clone(),
                    mss: segments(link.mtu, overhead),
                    mac,
                },
                clsact_before: None,
            });
        }
    }
    changes.extend(routes);
    // Last: before all else is right, the address would be answered for.
    changes.extend(target.vip.iter().map(|address| Change::Address { address: *address }));
    Ok(changes)
}

fn setup(args: &RealserverSetup) -> Result<ExitCode> {
    let network = Snapshot::take()?;
    let mut todo = Vec::new();
    for change in wanted(&args.target, &network)? {
        if !change.is_done(&network)? {
            todo.push(change);
        }
    }
    make(todo, &terms(&args.state.state, args.yes, args.print.json), args.dry_run)?;
    Ok(ExitCode::SUCCESS)
}

fn terms(record: &Path, yes: bool, json: bool) -> Terms<'_> {
    Terms { record, yes, json, nothing: "this real server is set up", undo: "dirigent realserver undo" }
}

/// Takes the programs of a record off, whatever became of the rest: its machine goes.
pub fn forget(record: &std::path::Path, namespace: Option<&Namespace>) -> Result<()> {
    for change in State::read(record)?.changes {
        if let Change::Programs { instance, .. } = change {
            let instance = Instance::new(&instance)?;
            match namespace {
                Some(namespace) => namespace.run(|| detach_all(&instance))??,
                None => detach_all(&instance)?,
            };
        }
    }
    Ok(())
}

/// The answer of `check`.
#[derive(Debug, Serialize)]
struct Checked {
    right: bool,
    points: Vec<Shown>,
    packets: Vec<(&'static str, u64)>,
}

fn check(args: &RealserverCheck) -> Result<ExitCode> {
    let network = Snapshot::take()?;
    let mut points = Vec::new();
    let mut packets = Vec::new();
    for change in wanted(&args.target, &network)? {
        let done = change.is_done(&network)?;
        if let (Change::Programs { instance, .. }, true) = (&change, done) {
            packets = endpoint_counts(&Instance::new(instance)?)?;
        }
        points.push(Shown::of(&change, done));
    }
    let right = points.iter().all(|point| point.done);
    let checked = Checked { right, points, packets };
    if args.print.json {
        print::json(&checked)?;
    } else {
        for point in &checked.points {
            let word = if point.done { "right" } else { "WRONG" };
            print::text(&format!("{word}  {}\n", point.what))?;
            if !point.done {
                print::text(&format!("       {}\n", point.why))?;
            }
        }
        for (outcome, count) in checked.packets.iter().filter(|(_, count)| *count > 0) {
            let known = Outcome::ALL.iter().find(|known| known.name() == *outcome);
            print::text(&format!("packets {outcome}: {count} ({})\n", known.map_or("", |known| known.meaning())))?;
        }
        if !right {
            print::text("remedy: the same words with `dirigent realserver setup`\n")?;
        }
    }
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn undo(args: &RealserverUndo) -> Result<ExitCode> {
    changes::undo(&terms(&args.state.state, args.yes, args.print.json))?;
    Ok(ExitCode::SUCCESS)
}
