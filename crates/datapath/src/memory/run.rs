//! Running frames through the packet path: the twins of bpf/src/xdp.rs and tc.rs.

use dirigent_director::direct::{self, Stage, Work};
use dirigent_director::family::{V4, V6};
use dirigent_director::packet::Packet as _;
use dirigent_director::parse::Payload;
use dirigent_director::records::link_flag;
use dirigent_director::tables::Tables as _;
use dirigent_director::{Action, Reason, Verdict};

use super::{Frame, MemoryTables, Seen};

/// A frame and how it came in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incoming<'a> {
    /// Its bytes, Ethernet header first.
    pub frame: &'a [u8],
    /// The interface it came in by.
    pub ingress: u32,
    /// Bytes of each of the segments that it stands for; 0: it is one.
    pub gso_size: u32,
    /// A VLAN tag that the device took out.
    pub stripped_tag: Option<u16>,
    /// What netfilter has marked it with; 0: nothing.
    pub mark: u32,
}

/// Which program decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// XDP.
    Xdp,
    /// tc.
    Tc,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Never `Continue`; of [`run`] and [`run_tc`] never `HandOver`.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Its mark afterwards.
    pub mark: u32,
    /// Who decided.
    pub by: Ran,
    /// Of a packet that was cut, the pieces after the first, in order.
    pub more: Vec<(Verdict, Vec<u8>)>,
}

/// A packet passes through fewer stages than this; the kernel allows 33.
const MAX_STAGES: usize = 33;

/// The later stages, one after the other, as tail calls.
fn stages<const LAST: bool>(
    frame: Frame<true, LAST>,
    t: &mut MemoryTables,
    mut verdict: Verdict,
    stage: impl Fn(&mut Frame<false, LAST>, &mut MemoryTables, u32) -> Verdict,
) -> (Verdict, Frame<false, LAST>) {
    let mut frame = frame.later();
    let mut left = MAX_STAGES;
    while verdict.action == Action::Continue {
        t.note(Seen::Stage(verdict.ifindex));
        verdict = match left {
            0 => Verdict::drop(Reason::StageMissing),
            _ => stage(&mut frame, t, verdict.ifindex),
        };
        left = left.saturating_sub(1);
    }
    (verdict, frame)
}

/// The outcome of a frame's stages; copies that it left to be cut further are run too.
fn outcome<const LAST: bool>(
    t: &mut MemoryTables,
    (verdict, frame): (Verdict, Frame<false, LAST>),
    ingress: u32,
    by: Ran,
) -> Outcome {
    t.count_reason(verdict.reason);
    let mut out = Outcome { verdict, frame: frame.bytes().to_vec(), mark: frame.mark(), by, more: Vec::new() };
    for (word, rest) in frame.forks {
        t.stash(word);
        let rest = Frame::<true, LAST>::new(&Incoming { frame: &rest, ingress, ..Incoming::default() });
        let v6 = rest.bytes().get(12..14) == Some([0x86, 0xdd].as_slice());
        let begin = Verdict::out(Action::Continue, Reason::LaterStage, Stage::Rest.number(v6));
        let ended = stages(rest, t, begin, direct::resume);
        let Outcome { verdict, frame, more, .. } = outcome(t, ended, ingress, by);
        out.more.push((verdict, frame));
        out.more.extend(more);
    }
    out
}

fn enter<const LAST: bool>(t: &mut MemoryTables, packet: &Incoming<'_>, by: Ran) -> Outcome {
    let mut frame = Frame::<true, LAST>::new(packet);
    let verdict = direct::direct(&mut frame, t);
    let ended = stages(frame, t, verdict, direct::resume);
    outcome(t, ended, packet.ingress, by)
}

/// As XDP. The verdict may be to hand over to tc.
pub fn run_xdp(t: &mut MemoryTables, packet: &Incoming<'_>) -> Outcome {
    enter::<false>(t, packet, Ran::Xdp)
}

/// As tc, which sees a frame without XDP's word on it.
pub fn run_tc(t: &mut MemoryTables, packet: &Incoming<'_>) -> Outcome {
    enter::<true>(t, packet, Ran::Tc)
}

/// As XDP and then, if that hands over, tc: how a director treats what comes in.
/// What stands for several segments, or lost its tag to the device, only tc sees.
pub fn run(t: &mut MemoryTables, packet: &Incoming<'_>) -> Outcome {
    if packet.gso_size != 0 || packet.stripped_tag.is_some() {
        return run_tc(t, packet);
    }
    let out = run_xdp(t, packet);
    if out.verdict.action != Action::HandOver {
        return out;
    }
    t.note(Seen::HandedToTc);
    run_tc(t, &Incoming { frame: &out.frame, ..*packet })
}

/// As [`run_tc`], with nothing taken for easy: every IP packet goes through the later
/// stages. The outcome must be the same; a test says so.
pub fn run_slow(t: &mut MemoryTables, packet: &Incoming<'_>) -> Outcome {
    let mut frame = Frame::<true, true>::new(packet);
    t.stash(0);
    let verdict = match t.link(frame.ingress()).cloned() {
        None => Verdict::pass(Reason::UnusedLink),
        // Nothing of it is taken for easy anyway.
        Some(link) if link.flags & link_flag::PROBE != 0 => direct::direct(&mut frame, t),
        Some(link) => match direct::ethernet(&mut frame, t, &link) {
            Err(verdict) => verdict,
            Ok(Payload::Ipv4) => Stage::Slow.verdict::<V4>(),
            Ok(Payload::Ipv6) => Stage::Slow.verdict::<V6>(),
        },
    };
    let ended = stages(frame, t, verdict, direct::resume);
    outcome(t, ended, packet.ingress, Ran::Tc)
}

/// A packet that this host itself sends, at tc egress.
pub fn leave(t: &mut MemoryTables, packet: &Incoming<'_>) -> Outcome {
    let mut frame = Frame::<true, true>::new(packet);
    let verdict = direct::leave(&mut frame, t);
    const SCTP: u32 = Stage::Sctp as u32;
    let (verdict, frame) = stages(frame, t, verdict, |frame, t, number| match (number / 2, number % 2) {
        (SCTP, 0) => direct::leave_sctp(frame, t, &mut Work::<V4>::default()),
        (SCTP, _) => direct::leave_sctp(frame, t, &mut Work::<V6>::default()),
        (_, 0) => direct::leave_icmp(frame, t, &mut Work::<V4>::default()),
        (_, _) => direct::leave_icmp(frame, t, &mut Work::<V6>::default()),
    });
    // What is none of ours is nearly everything, and not counted.
    if matches!(verdict.action, Action::Drop | Action::Deliver) {
        t.count_reason(verdict.reason);
    }
    Outcome { verdict, frame: frame.bytes().to_vec(), mark: frame.mark(), by: Ran::Tc, more: Vec::new() }
}
