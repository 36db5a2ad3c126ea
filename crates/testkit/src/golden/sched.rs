//! Recordings of schedulers (`oracle/golden/sched`): each step becomes the frames that the
//! oracle's schedrun.py sent, the server is read from the frame that comes out.

use std::net::IpAddr;

use dirigent_config::{Command, Method, Model, Plan, Protocol};
use dirigent_director::Verdict;

use super::apart::{Apart, Ends};
use super::bed::{self, Bed, Side};
use super::directory::{Unsupported, not_run};
use super::executor::{Executor, Load, Row, told};
use super::host::{Frames, host, outcome};
use super::report::{Mismatch, Ran};
use super::script::{Loads, Op, Script, Step};
use super::setup::NoSetup;
use crate::decode::{Ip, packet};
use crate::packet::{self as build, IpOptions, Tcp, flag, proto};

/// Servers of the bed: as many as any recording has.
const SERVERS: u8 = 10;

/// Runs one recording.
pub fn run_script(executor: &mut dyn Executor, script: &Script, unsupported: Unsupported) -> Ran {
    let mut ran = Ran { recording: script.name.clone(), executor: executor.name(), ..Ran::default() };
    let mut run = match set_up(executor, script) {
        Ok(run) => run,
        Err(why) => return not_run(ran, why, script.steps.len(), unsupported),
    };
    for (number, step) in script.steps.iter().enumerate() {
        match run.step(step) {
            Ok(None) => ran.passed += 1,
            Ok(Some(rule)) => ran.excused.entry(rule).or_default().push(number),
            Err(difference) => {
                ran.failed += 1;
                let note = [run.describe(&step.op), step.note.clone()].join(" ").trim_end().to_owned();
                ran.mismatches.push(Mismatch { step: number, note, difference });
            }
        }
    }
    ran
}

fn set_up<'e>(executor: &'e mut dyn Executor, script: &Script) -> Result<Run<'e>, NoSetup> {
    let model = script.model()?;
    let first = model.services().first().ok_or_else(|| NoSetup::Wrong("no service".into()))?;
    let server = first.servers.first().ok_or_else(|| NoSetup::Wrong("no server".into()))?;
    let (port, nat) = (server.port, server.method == Method::Nat);
    let protocol = script.protocol()?;
    // Of a mark's service they are the bed's first virtual address, and port 80.
    let vip = first.key.address().unwrap_or_else(|| bed::vip(first.key.is_ipv6()));
    let service = (vip, if first.key.mark() == 0 { first.key.port() } else { 80 });
    let bed = Bed::with_servers(SERVERS, &script.routes()).map_err(NoSetup::Wrong)?;
    executor.set_up(&bed, &model).map_err(NoSetup::Wrong)?;
    Ok(Run {
        executor,
        bed,
        model,
        protocol,
        service,
        port,
        nat,
        conns: Vec::new(),
        apart: Apart::default(),
        last: (Vec::new(), None),
    })
}

/// A connection of the recording.
#[derive(Clone, Debug)]
struct Conn {
    ends: Ends,
    /// Number of the server that got it.
    server: Option<u8>,
}

struct Run<'e> {
    executor: &'e mut dyn Executor,
    bed: Bed,
    model: Model,
    protocol: Protocol,
    /// The address and port that clients mean, if they do not say.
    service: (IpAddr, u16),
    /// Its servers' port; 0: the one the client used.
    port: u16,
    /// Whether its servers answer through the director.
    nat: bool,
    conns: Vec<Conn>,
    apart: Apart,
    /// The last frame, and what was decided about it.
    last: (Vec<u8>, Option<Verdict>),
}

impl Run<'_> {
    /// A step: passed, excused by a rule, or what differs.
    fn step(&mut self, step: &Step) -> Result<Option<&'static str>, String> {
        self.last = Default::default();
        if let Op::Table { conns } = &step.op {
            return self.apart.same_rows(conns, &self.executor.conns()?);
        }
        self.apart.next_step();
        let went = self.act(&step.op)?;
        let (Some(expected), got) = (&step.load, self.loads()?) else { return Err("    no load is recorded".into()) };
        let way = match &went {
            Some(went) if went.expected != went.got => self.another_way(went)?,
            _ => Some(None),
        };
        match (way, self.apart.same_loads(expected, &got)) {
            (Some(one), Some(other)) => Ok(one.or(other)),
            _ => {
                let place = |to: &Option<String>| to.clone().unwrap_or_else(|| "nowhere".into());
                let (to, went_to) = match &went {
                    Some(went) => (place(&went.expected) + "; ", place(&went.got) + "; "),
                    None => Default::default(),
                };
                let verdict = told(self.last.1);
                Err(format!("    verdict {verdict}\n    expected: {to}{expected}\n    got:      {went_to}{got}"))
            }
        }
    }

    /// The packet went another way than recorded: the rule that this is by. `None`: by none.
    fn another_way(&mut self, went: &Went) -> Result<Option<Option<&'static str>>, String> {
        let Went { ends, opens, expected, got } = went;
        let rule = match (expected.as_deref(), got.as_deref().and_then(number)) {
            (Some(there), Some(here)) if *opens => self.apart.moved(ends, there, here),
            // IPVS looks at no packet of a family without services: the host has it.
            (there, None) if got.is_none() && !self.has_services(ends) => {
                let known = self.executor.conns()?.iter().any(|row| whose(row).is_some_and(|(of, _)| of == *ends));
                let by_host = reached(&host(&self.bed, Side::C, &self.last.0));
                (known && by_host.as_deref() == there).then_some("unhooked")
            }
            _ => None,
        };
        Ok(rule.map(Some))
    }

    /// Whether there is any service of the connection's family.
    fn has_services(&self, ends: &Ends) -> bool {
        self.model.services().iter().any(|s| s.key.is_ipv6() == ends.service.0.is_ipv6())
    }

    /// Does it. Where a packet is followed: where it went.
    fn act(&mut self, op: &Op) -> Result<Option<Went>, String> {
        match op {
            Op::Open { src, sport, dst, dport, flags, payload, to, .. } => {
                let service = (dst.unwrap_or(self.service.0), dport.unwrap_or(self.service.1));
                let ends = Ends { client: (*src, *sport), service };
                let flags = flags.unwrap_or(flag::SYN);
                let opens = self.protocol == Protocol::Udp || flags & flag::SYN != 0;
                if self.conns.iter().any(|conn| conn.ends == ends) {
                    self.apart.comes(&ends, opens, &self.model, self.executor)?;
                }
                let got = self.client_sends(&ends, flags, 1000, payload.as_deref().unwrap_or_default())?;
                self.conns.push(Conn { ends: ends.clone(), server: got.as_deref().and_then(number) });
                Ok(Some(Went { ends, opens, expected: to.clone(), got }))
            }
            Op::Packet { id, flags, to } => {
                let ends = self.conn(*id)?.ends;
                let opens = self.protocol == Protocol::Udp || flags & flag::SYN != 0;
                self.apart.comes(&ends, opens, &self.model, self.executor)?;
                let got = self.client_sends(&ends, *flags, 1001, "")?;
                Ok(Some(Went { ends, opens, expected: to.clone(), got }))
            }
            Op::Establish { id } => {
                self.server_sends(*id, flag::SYN | flag::ACK, 5000)?;
                self.client(*id, flag::ACK, 1001)
            }
            Op::Fin { id } => {
                self.client(*id, flag::FIN | flag::ACK, 1001)?;
                self.server_sends(*id, flag::FIN | flag::ACK, 5001)?;
                self.client(*id, flag::ACK, 1002)
            }
            Op::FinFromClient { id } => self.client(*id, flag::FIN | flag::ACK, 1001),
            Op::Rst { id } => self.client(*id, flag::RST, 1001),
            Op::Ipvsadm { args, rc } => self.ipvsadm(args, *rc),
            Op::Sysctl { name, value } => {
                let mut after = self.model.clone();
                let mut settings = after.settings().clone();
                settings.ipvs_sysctl(name, *value).map_err(|e| format!("    {e}"))?;
                after.set_settings(settings).map_err(|e| e.to_string())?;
                self.change(after, None)
            }
            Op::Sleep { seconds } => {
                let seconds = seconds.round() as u32;
                self.apart.slept(seconds, self.model.settings(), self.executor)?;
                self.executor.sweep_after(seconds).map(|_| None)
            }
            Op::Table { .. } => Ok(None),
        }
    }

    fn ipvsadm(&mut self, args: &str, rc: u8) -> Result<Option<Went>, String> {
        let words: Vec<&str> = args.split_whitespace().collect();
        let command = Command::from_args(&words).map_err(|e| (e.exit_code != rc).then(|| e.to_string()));
        let planned = command.and_then(|command| {
            let mut after = self.model.clone();
            let plan = command.plan(&self.model).and_then(|plan| command.apply(&mut after).map(|()| plan));
            plan.map(|plan| (plan, after)).map_err(|e| (rc == 0).then(|| e.to_string()))
        });
        match planned {
            Ok(_) if rc != 0 => Err(format!("    expected: refused with {rc}\n    got:      taken")),
            Ok((plan, after)) => self.change(after, Some(plan)),
            Err(Some(unexpected)) => Err(format!("    expected: status {rc}\n    got:      {unexpected}")),
            Err(None) => Ok(None),
        }
    }

    fn change(&mut self, after: Model, plan: Option<Plan>) -> Result<Option<Went>, String> {
        self.executor.change(&plan.unwrap_or_else(|| Plan::between(&self.model, &after)))?;
        self.model = after;
        Ok(None)
    }

    fn conn(&self, id: usize) -> Result<Conn, String> {
        self.conns.get(id).cloned().ok_or_else(|| format!("    there is no connection {id}"))
    }

    /// A packet of a client that nobody follows.
    fn client(&mut self, id: usize, flags: u8, seq: u32) -> Result<Option<Went>, String> {
        let ends = self.conn(id)?.ends;
        self.client_sends(&ends, flags, seq, "").map(|_| None)
    }

    /// A packet of a client, and which server got it, or what came back.
    fn client_sends(&mut self, ends: &Ends, flags: u8, seq: u32, data: &str) -> Result<Option<String>, String> {
        let packet = self.transport(ends.client, ends.service, flags, seq, data);
        let frame = build::eth(Side::C.mac(), bed::GATEWAY, &packet);
        Ok(reached(&self.send(Side::C, &frame)?))
    }

    /// A packet of the server; answers go through the director with NAT only.
    fn server_sends(&mut self, id: usize, flags: u8, seq: u32) -> Result<(), String> {
        let Conn { ends, server } = self.conn(id)?;
        let (true, Some(server)) = (self.nat, server) else { return Ok(()) };
        let port = if self.port == 0 { ends.service.1 } else { self.port };
        let from = (bed::server(server, ends.client.0.is_ipv6()), port);
        let packet = self.transport(from, ends.client, flags, seq, "");
        self.send(Side::R, &build::eth(Side::R.mac(), bed::server_mac(server), &packet)).map(|_| ())
    }

    fn transport(&self, from: (IpAddr, u16), to: (IpAddr, u16), flags: u8, seq: u32, data: &str) -> Vec<u8> {
        let with = IpOptions { ident: 1, ..IpOptions::default() };
        let data: Vec<u8> = data.chars().map(|c| c as u8).collect();
        if self.protocol == Protocol::Udp {
            let data = if data.is_empty() { b"ping" } else { &data[..] };
            return build::ip(from.0, to.0, proto::UDP, &build::udp(from.0, to.0, from.1, to.1, data), &with);
        }
        if self.protocol == Protocol::Sctp {
            return build::ip(from.0, to.0, proto::SCTP, &build::sctp(from.1, to.1, &chunk(flags)), &with);
        }
        let ack = u32::from(flags & flag::ACK != 0);
        let segment = Tcp { sport: from.1, dport: to.1, flags, seq, ack, payload: &data };
        build::ip(from.0, to.0, proto::TCP, &build::tcp(from.0, to.0, &segment), &with)
    }

    fn send(&mut self, side: Side, frame: &[u8]) -> Result<Frames, String> {
        let (does, verdict) = self.executor.run(side, frame)?;
        self.last = (frame.to_vec(), verdict);
        Ok(outcome(&self.bed, side, &does))
    }

    fn loads(&mut self) -> Result<Loads, String> {
        let mut loads = Loads::default();
        for Load { address, counts } in self.executor.loads()? {
            loads.add(bed::server_name(address), counts);
        }
        Ok(loads)
    }

    /// A step for people.
    fn describe(&self, op: &Op) -> String {
        let of = |id: &usize| self.conns.get(*id).map_or_else(|| id.to_string(), |conn| conn.ends.to_string());
        match op {
            Op::Open { src, sport, flags, .. } => {
                let flags = flags.map(|flags| format!(" flags {flags:#04x}")).unwrap_or_default();
                format!("open {}{flags}", std::net::SocketAddr::new(*src, *sport))
            }
            Op::Packet { id, flags, .. } => format!("packet {} flags {flags:#04x}", of(id)),
            Op::Establish { id } => format!("establish {}", of(id)),
            Op::Fin { id } => format!("fin {}", of(id)),
            Op::FinFromClient { id } => format!("fin-from-client {}", of(id)),
            Op::Rst { id } => format!("rst {}", of(id)),
            Op::Ipvsadm { args, .. } => format!("ipvsadm {args}"),
            Op::Sysctl { name, value } => format!("sysctl {name}={value}"),
            Op::Sleep { seconds } => format!("sleep {seconds}"),
            Op::Table { .. } => "table".into(),
        }
    }
}

/// The chunk that stands for these TCP flags where SCTP was recorded.
fn chunk(flags: u8) -> [u8; 20] {
    const SYN_ACK: u8 = flag::SYN | flag::ACK;
    const FIN_ACK: u8 = flag::FIN | flag::ACK;
    let mut chunk = [0; 20];
    chunk[0] = match flags {
        flag::SYN => 1,
        SYN_ACK => 2,
        flag::ACK => 10,
        flag::RST => 6,
        FIN_ACK => 7,
        _ => 0,
    };
    chunk[3] = 20;
    chunk
}

/// Where a client's packet went.
struct Went {
    ends: Ends,
    /// It may open a connection.
    opens: bool,
    expected: Option<String>,
    got: Option<String>,
}

/// The number in a server's name.
fn number(name: &str) -> Option<u8> {
    name.strip_prefix("rs")?.parse().ok()
}

/// Which server a client's packet went to, by the frame's MAC; else what came back.
fn reached(frames: &Frames) -> Option<String> {
    let server = frames.iter().find_map(|(side, frame)| match frame.first_chunk()? {
        [2, 0, 0, 0, 1, n] if *side == Side::R => Some(format!("rs{n}")),
        _ => None,
    });
    server.or_else(|| frames.iter().find_map(|(_, frame)| answer(packet(frame)?)))
}

fn answer(p: &[u8]) -> Option<String> {
    let ip = Ip::read(p)?;
    let l4 = p.get(ip.l4..)?;
    match ip.protocol {
        proto::TCP if l4.get(13)? & flag::RST != 0 => Some("rst".into()),
        proto::ICMP | proto::ICMPV6 => Some(format!("icmp {}/{}", l4.first()?, l4.get(1)?)),
        _ => None,
    }
}

/// The row's ends and server.
pub(super) fn whose(row: &Row) -> Option<(Ends, IpAddr)> {
    let place = |text: &str| text.parse::<std::net::SocketAddr>().ok().map(|a| (a.ip(), a.port()));
    Some((Ends { client: place(&row[3])?, service: place(&row[4])? }, place(&row[5])?.0))
}
