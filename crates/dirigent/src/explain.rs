//! `dirigent explain`: what would become of a packet now, by the packet path itself on a copy of the tables.

mod packet;
mod steps;

use crate::cli::ExplainArgs;
use crate::failure::{Failure, Result, code};
use clap::ValueEnum as _;
use dirigent_api::{Explanation, Sent, path};
use dirigent_config::Protocol;
use dirigent_datapath::control::report::kind_name;
use dirigent_datapath::control::snapshot::foretell;
use dirigent_datapath::control::{KernelStore, Store as _};
use dirigent_datapath::memory::{Incoming, MemoryTables, Outcome, Ran, Target};
use dirigent_director::verdict::{Action, Verdict};
use dirigent_net::{NextHopState, Resolver, Snapshot};
use dirigent_wire::Mac;
pub use packet::Flag;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The packet that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its source.
    pub from: SocketAddr,
    /// Its destination, of the same family.
    pub to: SocketAddr,
    /// The interface it comes in by; none: by which its source is reached.
    pub interface: Option<String>,
    /// Of TCP.
    pub flags: Vec<Flag>,
    /// What netfilter has marked it with.
    pub mark: u32,
    /// Bytes of its payload.
    pub length: u16,
}

impl From<ExplainArgs> for Question {
    fn from(args: ExplainArgs) -> Self {
        let ExplainArgs { protocol, from, to, interface, flags, mark, length, .. } = args;
        Self { protocol, from, to, interface, flags, mark, length }
    }
}

impl Question {
    /// Where the daemon answers it.
    pub fn path(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("protocol", self.protocol.name());
        query.append_pair("from", &self.from.to_string()).append_pair("to", &self.to.to_string());
        let flags = self.flags.iter().filter_map(Flag::to_possible_value).map(|flag| flag.get_name().to_owned());
        let flags: Vec<_> = flags.collect();
        query.append_pair("flags", &flags.join(",")).append_pair("mark", &self.mark.to_string());
        query.append_pair("length", &self.length.to_string());
        if let Some(interface) = &self.interface {
            query.append_pair("interface", interface);
        }
        format!("{}?{}", path::EXPLAIN, query.finish())
    }
}

/// The answer. `xdp`: the interfaces that have it.
pub fn explain(store: &KernelStore, xdp: &BTreeSet<u32>, question: &Question) -> Result<Explanation> {
    let host = Snapshot::take()?;
    let mut resolver = Resolver::new()?;
    let ingress = ingress(question, &host, &mut resolver)?;
    let mac = store.links()?.into_iter().find(|(index, _)| *index == ingress).map(|(_, link)| link.mac);
    let frame = packet::frame(question, mac.unwrap_or(Mac::new([0; 6])).bytes())?;
    let incoming = Incoming { frame: &frame, ingress, mark: question.mark, ..Incoming::default() };
    let has_xdp = xdp.contains(&ingress);
    let mut ways = Ok(());
    let foretold = foretell(store, &incoming, has_xdp, |tables| ways = find_ways(tables, question, &mut resolver))?;
    ways?;
    let names = host.links.values().map(|link| (link.index, link.name.clone())).collect();
    let names = steps::Names::of(store, names)?;
    let outcome = &foretold.outcome;
    let reason = outcome.verdict.reason;
    Ok(Explanation {
        packet: packet::told(&frame).2,
        interface: names.interface(ingress),
        path: match outcome.by {
            Ran::Xdp => "xdp",
            Ran::Tc if has_xdp => "xdp, then tc",
            Ran::Tc => "tc",
        }
        .to_owned(),
        steps: steps::tell(&foretold.seen, &names, &foretold.tables),
        reason: reason.name().to_owned(),
        kind: kind_name(reason.kind()).to_owned(),
        verdict: reason.text().to_owned(),
        sent: sent(outcome, &names),
    })
}

/// The interface that is named, or the one that leads to the source.
fn ingress(question: &Question, host: &Snapshot, resolver: &mut Resolver) -> Result<u32> {
    if let Some(name) = &question.interface {
        let found = host.links.values().find(|link| link.name == *name).map(|link| link.index);
        let missing = || Failure::new(name, "there is no such interface", "`ip link` names them");
        return found.ok_or_else(|| Failure { code: code::INVALID, ..missing() });
    }
    let way = resolver.resolve(question.from.ip())?;
    if way.state == NextHopState::NoRoute {
        let what = "no route leads there: by which interface would its packets come in?";
        return Err(Failure {
            code: code::INVALID,
            ..Failure::new(question.from.to_string(), what, "say so: --interface")
        });
    }
    Ok(way.ifindex)
}

/// What the kernel's routing table says of both ends: answers go to the one, errors to the other.
fn find_ways(tables: &mut MemoryTables, question: &Question, resolver: &mut Resolver) -> Result<()> {
    let family = if question.from.is_ipv6() { "ipv6/conf/all/forwarding" } else { "ipv4/ip_forward" };
    let forwards = std::fs::read_to_string(format!("/proc/sys/net/{family}"));
    tables.routes.not_forwarding = forwards.is_ok_and(|value| value.trim() == "0");
    for end in [question.from.ip(), question.to.ip()] {
        let way = resolver.resolve(end)?;
        let dst = (way.state == NextHopState::Resolved).then(|| Mac::new(way.mac));
        let target = Target { ifindex: way.ifindex, mtu: way.mtu, src: Mac::new(way.source_mac), dst };
        let leads = matches!(way.state, NextHopState::Resolved | NextHopState::NoNeighbour);
        tables.routes.set(end, if end.is_ipv6() { 128 } else { 32 }, leads.then_some(target));
    }
    Ok(())
}

/// The frames that leave.
fn sent(outcome: &Outcome, names: &steps::Names<'_, KernelStore>) -> Vec<Sent> {
    let first = (outcome.verdict, outcome.frame.as_slice());
    let all = std::iter::once(first).chain(outcome.more.iter().map(|(verdict, frame)| (*verdict, frame.as_slice())));
    all.filter_map(|(verdict, frame)| one(verdict, frame, names)).collect()
}

fn one(verdict: Verdict, frame: &[u8], names: &steps::Names<'_, KernelStore>) -> Option<Sent> {
    let interface = match verdict.action {
        Action::Drop | Action::Continue => return None,
        Action::Pass | Action::HandOver | Action::Deliver | Action::Forward => String::new(),
        Action::Transmit | Action::Resolve => names.interface(verdict.ifindex),
    };
    let (source_mac, destination_mac, packet) = packet::told(frame);
    let known = verdict.action == Action::Transmit;
    let mac = |mac| if known { mac } else { String::new() };
    Some(Sent {
        interface,
        source_mac: mac(source_mac),
        destination_mac: mac(destination_mac),
        packet,
        bytes: frame.len(),
    })
}

/// For people.
pub fn text(told: &Explanation) -> String {
    let mut text = format!("{} comes in by {} ({})\n", told.packet, told.interface, told.path);
    for step in &told.steps {
        text.push_str(&format!("  {step}\n"));
    }
    text.push_str(&format!("{}: {} ({})\n", told.kind, told.verdict, told.reason));
    for sent in &told.sent {
        let to = match (sent.interface.as_str(), sent.destination_mac.as_str()) {
            ("", _) => "to this host's own stack".to_owned(),
            (out, "") => format!("out of {out}, to the neighbour that the kernel finds"),
            (out, mac) => format!("out of {out}, to {mac}"),
        };
        text.push_str(&format!("  {}, {} bytes, {to}\n", sent.packet, sent.bytes));
    }
    text
}
