//! `dirigent explain`: what would become of a packet now, by the packet path itself on a copy of the tables.

mod packet;
mod steps;

use crate::cli::ExplainArgs;
use crate::failure::Result;
use crate::frame::Frame;
use crate::imagine::Imagination;
use clap::ValueEnum as _;
use dirigent_api::{Explanation, Sent, path};
use dirigent_config::Protocol;
use dirigent_datapath::control::report::kind_name;
use dirigent_datapath::control::{KernelStore, Store};
use dirigent_datapath::memory::{Incoming, Outcome, Ran};
use dirigent_director::verdict::{Action, Verdict};
use dirigent_net::{Mac, mac_text};
pub use packet::{Coming, Flag, NOBODY, TTL, frame};
use std::collections::BTreeSet;
use std::net::SocketAddr;
pub use steps::{Names, considers, flow as flow_text};

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
    let mut now = Imagination::new(store, xdp)?;
    let ingress = now.ingress(question)?;
    let frame = packet::frame(question, now.coming(ingress)?)?;
    let incoming = Incoming { frame: &frame, ingress, mark: question.mark, ..Incoming::default() };
    let foretold = now.foretell(question, &incoming, |_| ())?;
    let names = now.names()?;
    let outcome = &foretold.outcome;
    let reason = outcome.verdict.reason;
    Ok(Explanation {
        packet: told(&frame),
        interface: names.interface(ingress),
        path: match outcome.by {
            Ran::Xdp => "xdp",
            Ran::Tc if now.has_xdp(ingress) => "xdp, then tc",
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

/// What is in a frame.
pub fn told(frame: &[u8]) -> String {
    Frame::read(frame).map_or_else(|| format!("{} bytes", frame.len()), |frame| frame.to_string())
}

/// The frames that leave.
fn sent(outcome: &Outcome, names: &Names<'_, KernelStore>) -> Vec<Sent> {
    let first = (outcome.verdict, outcome.frame.as_slice());
    let all = std::iter::once(first).chain(outcome.more.iter().map(|(verdict, frame)| (*verdict, frame.as_slice())));
    all.filter_map(|(verdict, frame)| one(verdict, frame, names)).collect()
}

/// What is sent of a frame, if it is.
pub fn one<S: Store>(verdict: Verdict, frame: &[u8], names: &Names<'_, S>) -> Option<Sent> {
    let interface = match verdict.action {
        Action::Drop | Action::Continue | Action::HandOver => return None,
        Action::Pass | Action::Deliver | Action::Forward => String::new(),
        Action::Transmit | Action::Resolve => names.interface(verdict.ifindex),
    };
    let read = Frame::read(frame).filter(|_| verdict.action == Action::Transmit);
    let mac = |of: fn(&Frame<'_>) -> Mac| read.as_ref().map(|frame| mac_text(of(frame))).unwrap_or_default();
    Some(Sent {
        interface,
        source_mac: mac(|frame| frame.source),
        destination_mac: mac(|frame| frame.destination),
        packet: told(frame),
        bytes: frame.len(),
    })
}

/// The verdict in a line.
pub fn verdict(told: &Explanation) -> String {
    format!("{}: {} ({})", told.kind, told.verdict, told.reason)
}

/// For people.
pub fn text(told: &Explanation) -> String {
    let mut text = format!("{} comes in by {} ({})\n", told.packet, told.interface, told.path);
    for step in &told.steps {
        text.push_str(&format!("  {step}\n"));
    }
    text.push_str(&verdict(told));
    text.push('\n');
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
