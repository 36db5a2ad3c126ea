//! `dirigent realserver`: a real server's side of direct routing and tunnelling, on a
//! machine without a director.

mod change;
mod state;

use crate::cli::{
    RealserverCheck, RealserverCommand, RealserverMode, RealserverSetup, RealserverTarget, RealserverUndo,
};
use crate::failure::{Failure, Result};
use crate::print;
use change::{Change, Terms, interface, segments, source_route};
use dirigent_datapath::kernel::{Instance, detach_all, endpoint_counts};
use dirigent_director::endpoint::Outcome;
use dirigent_net::{Namespace, Snapshot, sysctl, vip};
use serde::Serialize;
use state::State;
use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;

/// Runs a command.
pub fn run(command: RealserverCommand) -> Result<ExitCode> {
    match command {
        RealserverCommand::Setup(args) => setup(&args),
        RealserverCommand::Check(args) => check(&args),
        RealserverCommand::Undo(args) => undo(&args),
    }
}

/// A change as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    what: String,
    why: String,
    done: bool,
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
                terms: Terms {
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

fn shown(change: &Change, done: bool) -> Shown {
    let (what, why) = change.describe();
    Shown { what, why, done }
}

fn setup(args: &RealserverSetup) -> Result<ExitCode> {
    let network = Snapshot::take()?;
    let mut state = State::read(&args.state.state)?;
    let mut todo = Vec::new();
    for change in wanted(&args.target, &network)? {
        if !change.is_done(&network)? {
            todo.push(change);
        }
    }
    let list: Vec<_> = todo.iter().map(|change| shown(change, false)).collect();
    if args.print.json && (args.dry_run || todo.is_empty()) {
        print::json(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    if todo.is_empty() {
        print::text("nothing to do: this real server is set up\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.print.json {
        print::text("This will change:\n")?;
        for change in &list {
            print::text(&format!("  {}\n      {}\n", change.what, change.why))?;
        }
        print::text(&format!(
            "It is noted in {}; `dirigent realserver undo` takes exactly this back.\n",
            args.state.state.display()
        ))?;
    }
    if args.dry_run || !agreed(args.yes)? {
        return Ok(ExitCode::SUCCESS);
    }
    for (done, change) in todo.iter_mut().enumerate() {
        change.note(state.changes.iter().find(|old| old.same_thing(change)))?;
        // Of what is changed again (programs that are renewed; all, after the machine started anew) there is one record.
        state.changes.retain(|old| !old.same_thing(change));
        state.changes.push(change.clone());
        state.write(&args.state.state)?;
        if let Err(failure) = change.apply() {
            let back = take_back(&mut state, done + 1, &args.state.state);
            let mut failure = failure;
            failure.problems.extend(back.err().into_iter().flat_map(|f| f.problems));
            return Err(failure);
        }
    }
    match args.print.json {
        true => print::json(&todo.iter().map(|change| shown(change, true)).collect::<Vec<_>>())?,
        false => print::text("done\n")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Undoes the last `count` changes.
fn take_back(state: &mut State, count: usize, path: &std::path::Path) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for _ in 0..count {
        let Some(change) = state.changes.last() else { break };
        said.push(change.undo()?);
        state.changes.pop();
        state.write(path)?;
    }
    Ok(said)
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

/// Whether the operator wants it.
fn agreed(yes: bool) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("", "nobody is here to agree to this", "say --yes, or look first with --dry-run"));
    }
    print::text("Do it? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|e| Failure::io("stdin", &e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
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
        points.push(shown(&change, done));
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
    let mut state = State::read(&args.state.state)?;
    let count = state.changes.len();
    if count == 0 {
        let nothing = format!("nothing to undo: {} records no change\n", args.state.state.display());
        match args.print.json {
            true => print::json::<Vec<String>>(&Vec::new())?,
            false => print::text(&nothing)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.print.json {
        print::text("This will be taken back:\n")?;
        for change in state.changes.iter().rev() {
            print::text(&format!("  {}\n", change.describe().0))?;
        }
    }
    if !agreed(args.yes)? {
        return Ok(ExitCode::SUCCESS);
    }
    let said = take_back(&mut state, count, &args.state.state)?;
    match args.print.json {
        true => print::json(&said)?,
        false => said.iter().try_for_each(|line| print::text(&format!("{line}\n")))?,
    }
    Ok(ExitCode::SUCCESS)
}
