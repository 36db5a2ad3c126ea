//! Recordings of frames (`oracle/golden/xmit`): running them and telling what differs.

use std::collections::HashMap;
use std::net::IpAddr;

use dirigent_config::{Model, Plan};
use dirigent_director::verdict::ReasonKind;

use super::bed::{Bed, Side};
use super::compare::{compare_rows, same_frame, same_frames};
use super::directory::{Unsupported, not_run};
use super::executor::{Does, Executor, told};
use super::host::{Frames, outcome};
use super::recording::{Recording, Step};
use super::report::{Mismatch, Ran};
use super::rules::{self, Case, Seen};
use super::setup::NoSetup;
use super::tunnel;
use crate::decode::{Ip, describe, packet};

/// Whether the step is of this format.
pub(super) fn is_step(step: &Step) -> bool {
    step.conns.is_some() || (step.frame.is_some() && step.side.is_some())
}

/// Runs one recording.
pub fn run_recording(executor: &mut dyn Executor, recording: &Recording, unsupported: Unsupported) -> Ran {
    let mut ran = Ran { recording: recording.name.clone(), executor: executor.name(), ..Ran::default() };
    let steps = recording.steps.len();
    let (bed, model) = match set_up(executor, recording) {
        Ok(set_up) => set_up,
        Err(why) => return not_run(ran, why, steps, unsupported),
    };
    let (running, seen, datagrams) = (model.clone(), Seen::default(), HashMap::new());
    let mut run = Run { executor, bed, running, model, seen, datagrams, number: 0 };
    for (number, step) in recording.steps.iter().enumerate() {
        run.number = number;
        match run.step(step) {
            Ok(None) => ran.passed += 1,
            Ok(Some(rule)) => ran.excused.entry(rule).or_default().push(number),
            Err(difference) => {
                ran.failed += 1;
                ran.mismatches.push(Mismatch { step: number, note: step.note.clone(), difference });
            }
        }
    }
    // Of what went on to somebody nothing was recorded to come out: it passed too early.
    for pieces in run.datagrams.into_values().filter(|pieces| !pieces.got.is_empty()) {
        for number in pieces.steps {
            ran.passed = ran.passed.saturating_sub(1);
            ran.failed += 1;
            let note = recording.steps.get(number).map(|step| step.note.clone()).unwrap_or_default();
            let difference = format!("    nothing was recorded of this datagram, got:{}", show(&pieces.got));
            ran.mismatches.push(Mismatch { step: number, note, difference });
        }
    }
    ran
}

fn set_up(executor: &mut dyn Executor, recording: &Recording) -> Result<(Bed, Model), NoSetup> {
    let model = recording.model()?;
    let bed = Bed::new(recording.mtu_c, recording.mtu_servers, &recording.routes).map_err(NoSetup::Wrong)?;
    executor.set_up(&bed, &model).map_err(NoSetup::Wrong)?;
    Ok((bed, model))
}

struct Run<'e> {
    executor: &'e mut dyn Executor,
    bed: Bed,
    /// As set up.
    model: Model,
    /// As it is now.
    running: Model,
    seen: Seen,
    /// Datagrams that came in pieces, until the recorded one is complete.
    datagrams: HashMap<Datagram, Pieces>,
    /// Of the step under way.
    number: usize,
}

/// Whose piece a fragment is: ends and identification.
type Datagram = (IpAddr, IpAddr, u32);

/// What came of a datagram's pieces so far.
#[derive(Default)]
struct Pieces {
    /// What came in, with whether something came out.
    input: Vec<(Vec<u8>, bool)>,
    expected: Frames,
    got: Frames,
    /// The steps they came in.
    steps: Vec<usize>,
}

impl Run<'_> {
    /// A step: passed, excused by a rule, or what differs.
    fn step(&mut self, step: &Step) -> Result<Option<&'static str>, String> {
        match &step.conns {
            Some(rows) => compare_rows(rows, &self.executor.conns()?).map(|()| None),
            None => self.frame(step),
        }
    }

    /// nat_icmp_send is switched between steps; only the notes tell (packet-rules §4.2).
    fn hidden_switch(&mut self, note: &str) -> Result<(), String> {
        let mut settings = self.model.settings().clone();
        for value in [0, 1] {
            if note.contains(&format!("nat_icmp_send {value}")) {
                settings.nat_icmp_send = value == 1;
            }
        }
        if *self.running.settings() != settings {
            let before = self.running.clone();
            self.running.set_settings(settings).map_err(|e| e.to_string())?;
            self.executor.change(&Plan::between(&before, &self.running))?;
        }
        Ok(())
    }

    fn frame(&mut self, step: &Step) -> Result<Option<&'static str>, String> {
        self.hidden_switch(&step.note)?;
        let (side, input) = step.input()?;
        let expected = step.output()?;
        let (does, verdict) = self.executor.run(side, &input)?;
        let got = outcome(&self.bed, side, &does);
        let passed = verdict.is_some_and(|v| v.reason.kind() == ReasonKind::Passed);
        let changed = matches!(&does, Does::ToHost(frame) if packet(frame) != packet(&input));
        let leaked = matches!(does, Does::ToHost(_)) && !changed && expected.is_empty() && self.is_ours_to_drop(&input);
        // A test run of the kernel shows the first piece of a packet that is cut.
        let shown = if self.executor.shows_pieces() { expected.len() } else { expected.len().min(1) };
        if same_frames(side, &input, &expected[..shown], &got) && !(passed && changed) && !leaked {
            return self.datagram(&input, &expected, &got).map(|_| None);
        }
        if let Some(verdict) = self.whole_datagram(&input, &expected, &got) {
            return verdict;
        }
        let (bed, model, seen) = (&self.bed, &self.model, &self.seen);
        let case = Case { bed, model, seen, side, input: &input, expected: &expected, got: &got };
        let excused = rules::excuse(&case);
        self.seen.see(&input);
        match excused {
            Some(rule) => Ok(Some(rule.id)),
            None => {
                let leaked = if leaked { ", to the host, which must not see it" } else { "" };
                Err(format!(
                    "    in {}: {}\n    verdict {}{leaked}\n    expected:{}\n    got:{}",
                    side.name(),
                    describe(&input),
                    told(verdict),
                    show(&expected),
                    show(&got)
                ))
            }
        }
    }

    /// A piece of a datagram for a service or from a server: IPVS holds the pieces until all
    /// are there, this director sends each on. `None`: it is no such piece; else how the
    /// datagram as a whole compares, once the recorded one is complete.
    fn whole_datagram(
        &mut self,
        input: &[u8],
        expected: &Frames,
        got: &Frames,
    ) -> Option<Result<Option<&'static str>, String>> {
        let ip = packet(input).and_then(Ip::read)?;
        ip.fragment?;
        if !rules::concerns_service(&self.model, &ip) {
            return None;
        }
        Some(self.datagram(input, expected, got))
    }

    /// Notes a piece; compares when the recorded datagram is complete.
    fn datagram(&mut self, input: &[u8], expected: &Frames, got: &Frames) -> Result<Option<&'static str>, String> {
        let Some(ip) = packet(input).and_then(Ip::read) else { return Ok(None) };
        let Some((ident, ..)) = ip.fragment else { return Ok(None) };
        let key = (ip.src, ip.dst, ident);
        let pieces = self.datagrams.entry(key).or_default();
        pieces.steps.push(self.number);
        pieces.input.push((input.to_vec(), !got.is_empty()));
        pieces.expected.extend(expected.iter().cloned());
        pieces.got.extend(got.iter().cloned());
        if expected.is_empty() {
            return Ok(None);
        }
        let pieces = self.datagrams.remove(&key).unwrap_or_default();
        pieces.compare()
    }

    /// A packet for a service whose transport header is cut short: a listener of the
    /// host's own must not get it (packet-rules §4.5).
    fn is_ours_to_drop(&self, input: &[u8]) -> bool {
        let Some(p) = packet(input) else { return false };
        let Some(ip) = Ip::read(p) else { return false };
        let least = match ip.protocol {
            6 => 20,
            17 => 8,
            132 => 12,
            _ => return false,
        };
        let short = ip.len <= p.len() && p.len() < ip.l4 + least;
        let service = self.model.services().iter().any(|s| {
            let port = ip.ports(p).is_none_or(|(_, dport)| s.key.port() == dport);
            let protocol = s.key.protocol().is_some_and(|protocol| protocol.number() == ip.protocol);
            s.key.address() == Some(ip.dst) && protocol && port
        });
        short && service
    }
}

impl Pieces {
    /// All as recorded: passed. Without those that came before their first: C18. In a
    /// tunnel: C2.
    fn compare(mut self) -> Result<Option<&'static str>, String> {
        let place =
            |frame: &[u8]| packet(frame).and_then(Ip::read).and_then(|ip| ip.fragment).map_or(0, |(_, at, _)| at);
        let by_place = |frames: &mut Frames| frames.sort_by_key(|(_, frame)| place(frame));
        by_place(&mut self.expected);
        by_place(&mut self.got);
        let first = self.input.iter().position(|(frame, _)| place(frame) == 0);
        // Those of the recorded pieces that could be sent on.
        let early: Vec<usize> =
            self.input.iter().take(first.unwrap_or(self.input.len())).map(|(f, _)| place(f)).collect();
        let kept: Frames = self.expected.iter().filter(|(_, f)| !early.contains(&place(f))).cloned().collect();
        let same = |a: &Frames, b: &Frames| {
            a.len() == b.len() && a.iter().zip(b).all(|(e, g)| e.0 == g.0 && same_frame(&e.1, &g.1, false, false))
        };
        if same(&self.expected, &self.got) {
            return Ok(None);
        }
        if !early.is_empty() && same(&kept, &self.got) {
            return Ok(Some("C18"));
        }
        if self.same_inside(!early.is_empty()) {
            return Ok(Some("C2"));
        }
        let inputs: Frames = self.input.iter().map(|(frame, _)| (Side::C, frame.clone())).collect();
        Err(format!(
            "    the datagram's pieces:{}\n    expected:{}\n    got:{}",
            show(&inputs),
            show(&self.expected),
            show(&self.got)
        ))
    }

    /// Whether the same datagram is inside both: of the recorded one the outer packet was
    /// cut, of ours each piece has its own outer header. `early`: pieces came too early, and
    /// what is left need only be part of the recorded one.
    fn same_inside(&self, early: bool) -> bool {
        fn packets(frames: &Frames) -> Vec<&[u8]> {
            frames.iter().filter_map(|(_, frame)| packet(frame)).collect()
        }
        let recorded = tunnel::put_together(&packets(&self.expected));
        let recorded = recorded.as_deref().and_then(tunnel::inner);
        let Some(recorded) = recorded.and_then(|p| tunnel::whole(&[p])) else { return false };
        // A piece that did not fit was cut once more, on the outside.
        let mut ours: Vec<Vec<u8>> = Vec::new();
        for frame in packets(&self.got) {
            let ip = Ip::read(frame);
            match ip.and_then(|ip| ip.fragment) {
                None => ours.push(frame.to_vec()),
                Some((ident, ..)) => {
                    let same = |p: &&[u8]| Ip::read(p).and_then(|ip| ip.fragment).is_some_and(|(i, ..)| i == ident);
                    let parts: Vec<&[u8]> = packets(&self.got).into_iter().filter(same).collect();
                    match tunnel::put_together(&parts) {
                        Some(whole) if !ours.contains(&whole) => ours.push(whole),
                        Some(_) => {}
                        None => return false,
                    }
                }
            }
        }
        let inner: Option<Vec<&[u8]>> = ours.iter().map(|p| tunnel::inner(p)).collect();
        let Some(inner) = inner else { return false };
        if !early {
            return tunnel::whole(&inner) == Some(recorded);
        }
        let sent = self.input.iter().filter(|(_, sent)| *sent).count();
        sent == inner.len() && inner.iter().all(|piece| tunnel::is_part(piece, &recorded.2))
    }
}

fn show(frames: &Frames) -> String {
    match frames.is_empty() {
        true => " nothing".into(),
        false => frames.iter().map(|(side, frame)| format!("\n      {}: {}", side.name(), describe(frame))).collect(),
    }
}
