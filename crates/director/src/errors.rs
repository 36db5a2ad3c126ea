//! ICMP errors and resets the director itself sends (ipvs-semantics §2.1, packet-rules
//! §2.2 "Errors the director sends"), within a budget.

use crate::conn::age;
use crate::direct::Stage;
use crate::family::{Address, Family, L3};
use crate::packet::{L4, Packet};
use crate::parse::{Fragment, Ip};
use crate::records::{ERROR_BUCKETS, Settings};
use crate::shared::S64;
use crate::tables::Tables;
use crate::verdict::{Action, Reason, Verdict};
use dirigent_wire::{Be16, Be32, EthHeader, IcmpHeader, Ports, TcpHeader, checksum, ip::proto};

/// Which error, and why: what stands for the packet in the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Notice {
    /// TTL or hop limit used up.
    TimeExceeded = 0,
    /// Too long for the next route.
    TooBig = 1,
    /// No route to the server.
    NoRoute = 2,
    /// Nobody to take the connection.
    NoServer = 3,
    /// A NAT server's packet of no connection (nat_icmp_send).
    Stray = 4,
    /// A port of a virtual address that no service has.
    NoPort = 5,
    /// The connection's server failed: [`crate::reset`].
    ServerFailed = 6,
}

/// Decides that the packet, as it is now, is answered with an error: a later
/// stage builds it. `mtu` goes with [`Notice::TooBig`].
#[inline(always)]
pub fn refuse<F: Family, T: Tables>(t: &T, notice: Notice, mtu: u32) -> Verdict {
    t.stash(u64::from(mtu) << 32 | notice as u64);
    Stage::Refuse.verdict::<F>()
}

/// Turns the packet into the error that [`refuse`] decided on, back to its
/// sender by the way it came.
#[inline(always)]
pub fn send<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, ip: &Ip<F::Addr>) -> Verdict {
    // RFC 1122 §3.2.2: only about a datagram's first piece.
    if ip.fragment == Fragment::Later {
        return Verdict::drop(Reason::NoErrorAboutIcmp);
    }
    let word = t.stashed();
    let plain = ip.l4 == L3 + F::HEADER && ip.fragment == Fragment::Whole;
    let resets = match word as u8 {
        5 => Some(Reason::Refused),
        6 => Some(Reason::Reset),
        _ => None,
    };
    if let Some(reason) = resets
        && ip.protocol == proto::TCP
        && plain
    {
        // No longer than what it answers, and sent as often: the host's own resets have no budget either.
        return match reset::<F, P>(p, ip) {
            Some(()) => Verdict::out(Action::Transmit, reason, p.ingress()),
            None => Verdict::drop(Reason::ErrorUnsent),
        };
    }
    if !allowed(t, ip.src.hash_fold()) {
        return Verdict::drop(Reason::ErrorWithheld);
    }
    let mut from = ip.dst;
    let (kind, reason) = match word as u8 {
        0 => (F::ERRORS.time_exceeded, Reason::TtlExpired),
        1 => (F::ERRORS.too_big, Reason::TooBig),
        2 => (F::ERRORS.host_unreachable, Reason::NoRoute),
        3 => (F::ERRORS.port_unreachable, Reason::NoServer),
        5 => (F::ERRORS.port_unreachable, Reason::Refused),
        6 => (F::ERRORS.port_unreachable, Reason::Reset),
        _ => {
            let Some(link) = t.link(p.ingress()) else { return Verdict::drop(Reason::ErrorUnsent) };
            from = F::link_addr(link);
            (F::ERRORS.port_unreachable, Reason::Stray)
        }
    };
    let ident = (t.random() as u16) | 1;
    match build::<F, P>(p, ip, from, (kind, (word >> 32) as u32), ident) {
        Some(()) => Verdict::out(Action::Transmit, reason, p.ingress()),
        None => Verdict::drop(Reason::ErrorUnsent),
    }
}

#[inline(always)]
fn build<F: Family, P: Packet>(
    p: &mut P,
    ip: &Ip<F::Addr>,
    from: F::Addr,
    ((kind, code), rest): ((u8, u8), u32),
    ident: u16,
) -> Option<()> {
    let heads = *p.get::<EthHeader>(0)?;
    let grow = F::HEADER as u32 + 8;
    let quote = ip.len.min(F::ERROR_MAX - grow);
    if !p.reshape(L3 as u32 + quote, grow) {
        return None;
    }
    *p.get_mut::<EthHeader>(0)? = EthHeader { dst: heads.src, src: heads.dst, ethertype: heads.ethertype };
    write::<F, P>(p, (from, ip.src), ((kind, code), rest), (ip.tos, ident), quote)
}

/// Turns a segment into the reset that a closed port answers it with (RFC 9293 §3.10.7.1): its
/// sender takes that for true, since its number is the one that he waits for. The checksum is
/// patched, not computed: that of the segment may wait for a device to finish it.
#[inline(always)]
fn reset<F: Family, P: Packet>(p: &mut P, ip: &Ip<F::Addr>) -> Option<()> {
    const HEADER: u32 = size_of::<TcpHeader>() as u32;
    let at = L3 + F::HEADER;
    let (len, said) = (ip.l4_len(), *p.get::<TcpHeader>(at)?);
    let before = p.sum(at, len)?;
    if !p.reshape(at as u32 + HEADER, 0) {
        return None;
    }
    turn::<P>(p)?;
    let acknowledges = said.flags & TcpHeader::ACK != 0;
    // Else the segment is acknowledged: what it took of the sequence, SYN and FIN included.
    let data = len.wrapping_sub(u32::from(said.data_offset >> 4) * 4);
    let marks = u32::from(said.flags & TcpHeader::SYN != 0) + u32::from(said.flags & TcpHeader::FIN != 0);
    let end = said.seq.get().wrapping_add(data).wrapping_add(marks);
    *p.get_mut::<TcpHeader>(at)? = TcpHeader {
        ports: Ports { src: said.ports.dst, dst: said.ports.src },
        seq: if acknowledges { said.ack } else { Be32::new(0) },
        ack: Be32::new(if acknowledges { 0 } else { end }),
        data_offset: 5 << 4,
        flags: if acknowledges { TcpHeader::RST } else { TcpHeader::RST | TcpHeader::ACK },
        window: Be16::new(0),
        check: said.check,
        urgent: Be16::new(0),
    };
    let content = checksum::delta(before, p.sum(at, HEADER)?);
    let lengths = checksum::delta((len as u16).to_be(), (HEADER as u16).to_be());
    let answered = F::answer(p, F::HEADER as u32 + HEADER);
    (answered && p.patch_l4(at + TcpHeader::CHECK, lengths, content, L4::Tcp, F::V6)).then_some(())
}

/// Sends a frame back to where it came from.
#[inline(always)]
fn turn<P: Packet>(p: &mut P) -> Option<()> {
    let heads = p.get_mut::<EthHeader>(0)?;
    (heads.dst, heads.src) = (heads.src, heads.dst);
    Some(())
}

/// Writes an error in front of the `quote` bytes that it quotes: IP and ICMP header.
#[inline(always)]
pub fn write<F: Family, P: Packet>(
    p: &mut P,
    (from, to): (F::Addr, F::Addr),
    ((kind, code), rest): ((u8, u8), u32),
    (tos, ident): (u8, u16),
    quote: u32,
) -> Option<()> {
    if !F::write_error_header(p, from, to, F::HEADER as u32 + 8 + quote, tos, ident) {
        return None;
    }
    let at = L3 + F::HEADER;
    *p.get_mut::<IcmpHeader>(at)? = IcmpHeader { kind, code, check: Be16::new(0), rest: Be32::new(rest) };
    let sum = p.sum(at, 8 + quote)?;
    let pseudo = F::icmp_pseudo_sum(&from, &to, 8 + quote);
    p.get_mut::<IcmpHeader>(at)?.check = Be16::from_raw(!checksum::add(sum, pseudo));
    Some(())
}

/// Whether the budgets of this destination and of all allow one more error.
#[inline(always)]
fn allowed<T: Tables>(t: &T, destination: u32) -> bool {
    let Some(settings) = t.settings() else { return false };
    let now = t.now();
    let hz = settings.hz;
    let Settings { error_rate, error_burst, error_dest_rate, error_dest_burst, .. } = *settings;
    // Multiplicative hashing (Knuth): the top ten bits.
    let bucket = destination.wrapping_mul(0x9e37_79b1) >> 22;
    let bucket = if bucket == 0 { ERROR_BUCKETS - 1 } else { bucket };
    spend(t.error_budget(bucket), now, hz, error_dest_rate, error_dest_burst)
        && spend(t.error_budget(0), now, hz, error_rate, error_burst)
}

/// Takes one error from a token bucket: the word holds the time of the last
/// change (high half) and tokens in 1/`hz` (low half). Rate 0: no limit.
#[inline(always)]
fn spend(bucket: Option<&S64>, now: u32, hz: u32, rate: u32, burst: u32) -> bool {
    if rate == 0 {
        return true;
    }
    let Some(bucket) = bucket else { return false };
    let mut tries = 0;
    while tries < 4 {
        let word = bucket.load();
        // A bucket never used is full. A time ahead is another CPU's tick.
        let elapsed = u64::from(if word == 0 { u32::MAX } else { age(now, (word >> 32) as u32) });
        let full = u64::from(burst.max(1)) * u64::from(hz);
        let tokens = (u64::from(word as u32) + elapsed * u64::from(rate)).min(full).min(u64::from(u32::MAX));
        if tokens < u64::from(hz) {
            return false;
        }
        if bucket.swap_if(word, u64::from(now) << 32 | (tokens - u64::from(hz))) {
            return true;
        }
        tries += 1;
    }
    false
}
