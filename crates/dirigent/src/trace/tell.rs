//! A packet's life in words.

use crate::explain::{self, Names, flow_text};
use dirigent_api::{Captured, Explanation, Traced};
use dirigent_datapath::control::report::kind_name;
use dirigent_datapath::control::{Flow, Store, address, state_name};
use dirigent_director::conn::Word;
use dirigent_director::trace::{CANDIDATES, Candidate, Entry, Head, Life, by};
use dirigent_director::verdict::{Action, Verdict};
use dirigent_director::{Reason, schedule::Scheduler};
use nix::time::{ClockId, clock_gettime};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// Puts lives into words.
pub struct Teller<'a, S> {
    names: Names<'a, S>,
    /// Bytes, too.
    bytes: bool,
    /// 1970-01-01 00:00 UTC to the zero of the monotonic clock.
    zero: Duration,
}

impl<'a, S: Store> Teller<'a, S> {
    /// With these names. `bytes`: what was in the packets is told, too.
    pub fn new(names: Names<'a, S>, bytes: bool) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Every Linux has that clock.
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        Self { names, bytes, zero: now.saturating_sub(monotonic) }
    }

    /// One packet.
    pub fn tell(&self, life: &Life) -> Traced {
        let head = &life.head;
        let [came, left] = [(&life.incoming, head.came), (&life.outgoing, head.left)]
            .map(|(bytes, [_, kept])| bytes.get(..kept as usize).unwrap_or_default());
        let all = Reason::ALL;
        let reason = all.get(head.reason as usize).copied().unwrap_or(Reason::StageMissing);
        let action = Action::ALL.get(head.action as usize).copied().unwrap_or(Action::Drop);
        let verdict = Verdict { ifindex: head.out, action, reason };
        let mut sent = explain::one(verdict, left, &self.names);
        if let Some(sent) = &mut sent {
            sent.bytes = head.left[0] as usize;
        }
        let entry = if head.after.found != 0 { head.after } else { head.before };
        let time = self.zero + Duration::from_nanos(head.time);
        Traced {
            time_us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            cpu: head.cpu,
            bytes: head.came[0],
            service: match entry.found {
                0 => head.service.checked_sub(1).map(|index| self.names.service(index)).unwrap_or_default(),
                _ => self.names.service(entry.service),
            },
            server: if entry.found == 0 { String::new() } else { self.names.server(entry.server) },
            captured: self.bytes.then(|| Captured {
                came: hex(came),
                left: if sent.is_some() { hex(left) } else { String::new() },
                left_bytes: head.left[0],
            }),
            life: Explanation {
                packet: explain::told(came),
                interface: self.names.interface(head.interface),
                path: match head.by {
                    by::XDP => "xdp",
                    by::EGRESS => "tc, on its way out",
                    _ => "tc",
                }
                .to_owned(),
                steps: self.steps(head, action),
                reason: reason.name().to_owned(),
                kind: kind_name(reason.kind()).to_owned(),
                verdict: reason.text().to_owned(),
                sent: sent.into_iter().collect(),
            },
        }
    }

    fn steps(&self, head: &Head, action: Action) -> Vec<String> {
        if head.family == 0 {
            return Vec::new();
        }
        let v6 = head.family == 6;
        let flow = Flow {
            protocol: head.protocol as u8,
            template: 0,
            src: address(&head.src, v6),
            sport: u16::from_be(head.sport),
            dst: address(&head.dst, v6),
            dport: u16::from_be(head.dport),
        };
        let mut steps = match head.before.found {
            0 => self.opens(head, &flow),
            _ => vec![format!(
                "connection with server {} of {}: {}",
                self.names.server(head.before.server),
                self.names.service(head.before.service),
                change(flow.protocol, &head.before, &head.after)
            )],
        };
        if action == Action::HandOver {
            steps.push("XDP cannot finish it and leaves it to tc, which begins anew".to_owned());
        }
        steps
    }

    /// Of a packet that found no connection.
    fn opens(&self, head: &Head, flow: &Flow) -> Vec<String> {
        let mut steps = vec![format!("no connection {}", flow_text(flow))];
        let asked = head.service.checked_sub(1);
        let Some(service) = asked.or_else(|| (head.after.found != 0).then_some(head.after.service)) else {
            steps.push(format!("no virtual service at {}", std::net::SocketAddr::new(flow.dst, flow.dport)));
            return steps;
        };
        steps.push(format!(
            "virtual service {}, scheduler {}",
            self.names.service(service),
            self.names.scheduler(service)
        ));
        if head.after.found == 0 {
            return steps;
        }
        if asked.is_some() {
            steps.push(format!("a server is chosen{}:", place(self.names.scheduler(service), head.cursor)));
            let told = (head.listed as usize).min(CANDIDATES);
            steps.extend(head.candidates.iter().take(told).map(|candidate| self.candidate(candidate)));
            if head.listed as usize > told {
                steps.push(format!("  and {} more", head.listed as usize - told));
            }
        }
        let state = state_name(flow.protocol, Word(head.after.word).state());
        steps.push(format!("opens {} with server {}: {state}", flow_text(flow), self.names.server(head.after.server)));
        steps
    }

    fn candidate(&self, of: &Candidate) -> String {
        let [active, inactive] = [of.load >> 32, of.load & u64::from(u32::MAX)];
        explain::considers(&self.names.server(of.server), of.weight, (active as u32, inactive as u32), of.full != 0)
    }
}

/// Where a scheduler that goes round is.
fn place(scheduler: &str, cursor: u64) -> String {
    let goes_round = [Scheduler::Rr, Scheduler::Wrr].iter().any(|one| one.name() == scheduler);
    match cursor >> 32 {
        _ if !goes_round => String::new(),
        0 => ", from the beginning of the list".to_owned(),
        place => format!(", from behind place {place} of the list"),
    }
}

/// What became of a connection's state.
fn change(protocol: u8, before: &Entry, after: &Entry) -> String {
    let [was, is] = [before, after].map(|entry| state_name(protocol, Word(entry.word).state()));
    match after.found {
        0 => format!("{was}, and it ends"),
        _ if was == is => was.to_owned(),
        _ => format!("{was}, which becomes {is}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A string takes all.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
