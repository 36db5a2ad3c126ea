//! Records and keys as the plain words that go into and out of the kernel's maps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dirigent_director::records::{Conn, Counters, Lesson, Link, NextHop, Server, Settings, Tuple};
use dirigent_director::shared::{S32, S64};
use dirigent_wire::{Addr4, Addr6, Be16, Mac};

use super::store::Entry;
use crate::keys::{Flow, Spot, words};
use crate::memory::SourceNet;

/// `Tuple<Addr4>`.
pub type Key4 = [u16; 8];
/// `Tuple<Addr6>`.
pub type Key6 = [u16; 20];
/// `Place<Addr4>`.
pub type Place4 = [u16; 4];
/// `Place<Addr6>`.
pub type Place6 = [u16; 10];
/// A prefix of `Addr4`: its length and address.
pub type Net4 = [u16; 4];
/// A prefix of `Addr6`: its length and address.
pub type Net6 = [u16; 10];
/// A prefix of `Source<Addr4>`: its length, the service and the address.
pub type Source4 = [u16; 6];
/// A prefix of `Source<Addr6>`: its length, the service and the address.
pub type Source6 = [u16; 12];
/// `Conn<Addr4>`.
pub type Conn4 = [u64; 8];
/// `Conn<Addr6>`.
pub type Conn6 = [u64; 10];

const _: () = {
    use dirigent_director::records::{Candidate, Place, Service};
    use std::mem::offset_of;
    assert!(size_of::<Key4>() == size_of::<Tuple<Addr4>>() && size_of::<Key6>() == size_of::<Tuple<Addr6>>());
    assert!(size_of::<Place4>() == size_of::<Place<Addr4>>() && size_of::<Place6>() == size_of::<Place<Addr6>>());
    assert!(size_of::<Conn4>() == size_of::<Conn<Addr4>>() && size_of::<Conn6>() == size_of::<Conn<Addr6>>());
    assert!(offset_of!(Conn<Addr4>, addr) == 40 && offset_of!(Conn<Addr4>, port) == 44);
    assert!(offset_of!(Conn<Addr6>, addr) == 40 && offset_of!(Conn<Addr6>, port) == 56);
    assert!(offset_of!(Conn<Addr4>, last_seen) == 16 && offset_of!(Conn<Addr4>, server) == 24);
    assert!(offset_of!(Conn<Addr4>, extra) == 32 && offset_of!(Conn<Addr6>, addr_delta) == 36);
    assert!(offset_of!(Conn<Addr4>, mark) == 48 && offset_of!(Conn<Addr6>, mark) == 60);
    assert!(offset_of!(Conn<Addr4>, timeout) == 60 && offset_of!(Conn<Addr6>, timeout) == 72);
    assert!(offset_of!(Service, persistence) == 40 && offset_of!(Service, port) == 52);
    assert!(size_of::<Service>() == 64 && offset_of!(Service, wrr_max) == 24 && offset_of!(Service, table) == 32);
    assert!(size_of::<Server>() == 64 && offset_of!(Server, port) == 32 && offset_of!(Server, weight) == 36);
    assert!(
        offset_of!(Server, flags) == 40 && offset_of!(Server, upper) == 48 && offset_of!(Server, last_weight) == 56
    );
    assert!(size_of::<NextHop>() == 64 && offset_of!(NextHop, src) == 12 && offset_of!(NextHop, tunnel) == 24);
    assert!(offset_of!(NextHop, learned) == 28 && offset_of!(NextHop, peer) == 48);
    assert!(size_of::<Link>() == 96 && offset_of!(Link, used) == 6 && offset_of!(Link, addr6) == 12);
    assert!(size_of::<Settings>() == 256 && offset_of!(Settings, udp_timeout) == 80);
    assert!(size_of::<Candidate>() == 48 && offset_of!(Candidate, flags) == 40);
    assert!(size_of::<Lesson>() == 96 && offset_of!(Lesson, flags) == 40 && offset_of!(Lesson, port) == 88);
};

/// Two words as one, the first at the lower address.
pub fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// The opposite of [`pair`].
pub fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

/// Two half words as one word.
fn word(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// The opposite of [`word`].
fn half_words(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_ne_bytes();
    (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]))
}

fn quarters(word: u64) -> [u16; 4] {
    let (first, second) = halves(word);
    let ((a, b), (c, d)) = (half_words(first), half_words(second));
    [a, b, c, d]
}

/// A port as the first half of a word.
pub fn word_of(port: Be16) -> u32 {
    word(port.raw(), 0)
}

/// The opposite of [`word_of`].
pub fn port_of(word: u32) -> Be16 {
    Be16::from_raw(half_words(word).0)
}

/// An address's words.
pub fn words4(address: Ipv4Addr) -> [u16; 2] {
    Addr4::new(address.octets()).0
}

/// An address's words.
pub fn words6(address: Ipv6Addr) -> [u16; 8] {
    Addr6::new(address.octets()).0
}

/// An address of these words.
pub fn address4(words: [u16; 2]) -> IpAddr {
    IpAddr::from(Addr4(words).bytes())
}

/// An address of these words.
pub fn address6(words: [u16; 8]) -> IpAddr {
    IpAddr::from(Addr6(words).bytes())
}

/// Protocol and kind of a tuple.
fn kind_of(flow: &Flow) -> u16 {
    u16::from_ne_bytes([flow.protocol, flow.template])
}

/// Last word of a place: protocol, and whether it is a mark's.
fn place_kind(spot: &Spot) -> u16 {
    u16::from_ne_bytes([spot.protocol, spot.mark.into()])
}

/// The key of a place.
pub fn place4(spot: &Spot, address: Ipv4Addr) -> Place4 {
    let [a, b] = words4(address);
    [a, b, spot.port.to_be(), place_kind(spot)]
}

/// The key of a place.
pub fn place6(spot: &Spot, address: Ipv6Addr) -> Place6 {
    let [a, b, c, d, e, f, g, h] = words6(address);
    [a, b, c, d, e, f, g, h, spot.port.to_be(), place_kind(spot)]
}

/// The place of a key.
pub fn spot4(&[a, b, port, kind]: &Place4) -> Spot {
    spot(address4([a, b]), port, kind)
}

/// The place of a key.
pub fn spot6(&[a, b, c, d, e, f, g, h, port, kind]: &Place6) -> Spot {
    spot(address6([a, b, c, d, e, f, g, h]), port, kind)
}

fn spot(address: IpAddr, port: u16, kind: u16) -> Spot {
    let [protocol, mark] = kind.to_ne_bytes();
    Spot { address, port: u16::from_be(port), protocol, mark: mark != 0 }
}

/// The key of a prefix.
pub fn net4(address: Ipv4Addr, length: u8) -> Net4 {
    let ((low, high), [a, b]) = (half_words(length.into()), words4(address));
    [low, high, a, b]
}

/// The key of a prefix.
pub fn net6(address: Ipv6Addr, length: u8) -> Net6 {
    let ((low, high), [a, b, c, d, e, f, g, h]) = (half_words(length.into()), words6(address));
    [low, high, a, b, c, d, e, f, g, h]
}

/// The prefix of a key.
pub fn of_net4(&[low, high, a, b]: &Net4) -> (IpAddr, u8) {
    (address4([a, b]), word(low, high) as u8)
}

/// The prefix of a key.
pub fn of_net6(&[low, high, a, b, c, d, e, f, g, h]: &Net6) -> (IpAddr, u8) {
    (address6([a, b, c, d, e, f, g, h]), word(low, high) as u8)
}

/// The bits of a service's index, which every prefix of a client begins with.
const SERVICE_BITS: u8 = 32;

/// The key of a service's IPv4 clients.
pub fn source4(service: u32, address: Ipv4Addr, length: u8) -> Source4 {
    let ((low, high), (c, d)) = (half_words((length + SERVICE_BITS).into()), half_words(service));
    let [e, f] = words4(address);
    [low, high, c, d, e, f]
}

/// The key of a service's IPv6 clients.
pub fn source6(service: u32, address: Ipv6Addr, length: u8) -> Source6 {
    let ((low, high), (c, d)) = (half_words((length + SERVICE_BITS).into()), half_words(service));
    let [e, f, g, h, i, j, k, l] = words6(address);
    [low, high, c, d, e, f, g, h, i, j, k, l]
}

/// The clients of a key.
pub fn of_source4(&[low, high, c, d, e, f]: &Source4) -> SourceNet {
    let length = (word(low, high) as u8).saturating_sub(SERVICE_BITS);
    SourceNet { service: word(c, d), address: address4([e, f]), length }
}

/// The clients of a key.
pub fn of_source6(&[low, high, c, d, e, f, g, h, i, j, k, l]: &Source6) -> SourceNet {
    let length = (word(low, high) as u8).saturating_sub(SERVICE_BITS);
    SourceNet { service: word(c, d), address: address6([e, f, g, h, i, j, k, l]), length }
}

/// The key of a tuple, if it is IPv4.
pub fn key4(flow: &Flow) -> Option<Key4> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (flow.src, flow.dst) else { return None };
    let ([a, b], [c, d]) = (words4(src), words4(dst));
    Some([a, b, c, d, flow.sport.to_be(), flow.dport.to_be(), kind_of(flow), 0])
}

/// The key of a tuple, if it is IPv6.
pub fn key6(flow: &Flow) -> Option<Key6> {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (flow.src, flow.dst) else { return None };
    Some(wide_key(words6(src), words6(dst), flow))
}

fn wide_key(src: [u16; 8], dst: [u16; 8], flow: &Flow) -> Key6 {
    let mut key = [0; 20];
    let words = src.into_iter().chain(dst).chain([flow.sport.to_be(), flow.dport.to_be(), kind_of(flow)]);
    for (to, word) in key.iter_mut().zip(words) {
        *to = word;
    }
    key
}

/// The key in a candidate of the expire step: IPv4 addresses in the first two words.
pub fn words_of_key(flow: &Flow) -> [u64; 5] {
    long_words(wide_key(words(flow.src), words(flow.dst), flow))
}

fn long_words(key: Key6) -> [u64; 5] {
    let mut out = [0; 5];
    for (to, chunk) in out.iter_mut().zip(key.chunks_exact(4)) {
        if let [a, b, c, d] = *chunk {
            *to = pair(word(a, b), word(c, d));
        }
    }
    out
}

/// A tuple, an IPv4 one's addresses in the first two words.
pub fn wide_tuple(flow: &Flow) -> Tuple<Addr6> {
    let protocol = [flow.protocol, flow.template, 0, 0];
    let (src, dst) = (Addr6(words(flow.src)), Addr6(words(flow.dst)));
    Tuple { src, dst, sport: Be16::new(flow.sport), dport: Be16::new(flow.dport), protocol }
}

/// A lesson's words. Its result stands in the upper half of the sixth.
pub fn lesson_words(l: &Lesson) -> [u64; 12] {
    let ([a, b, c, d, e, f, g, h], [i, j, k, m, n, o, p, q]) = (l.key.src.0, l.key.dst.0);
    let [protocol, template, ..] = l.key.protocol;
    let kind = u16::from_ne_bytes([protocol, template]);
    let (sport, dport) = (l.key.sport.raw(), l.key.dport.raw());
    let [v, w, x, y, z] = long_words([a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, sport, dport, kind, 0]);
    let rest = [
        pair(l.flags, l.result),
        pair(l.tag, l.server),
        pair(l.service, l.state),
        pair(l.idle, l.packets),
        pair(l.timeout, l.told),
        pair(l.until, l.mark),
    ];
    let [r, s, t, u, aa, bb] = rest;
    [v, w, x, y, z, r, s, t, u, aa, bb, pair(word_of(l.port), 0)]
}

fn flow(src: IpAddr, dst: IpAddr, [sport, dport, kind]: [u16; 3]) -> Flow {
    let [protocol, template] = kind.to_ne_bytes();
    Flow { protocol, template, src, sport: u16::from_be(sport), dst, dport: u16::from_be(dport) }
}

pub fn flow4(&[a, b, c, d, sport, dport, kind, _]: &Key4) -> Flow {
    flow(address4([a, b]), address4([c, d]), [sport, dport, kind])
}

pub fn flow6(&[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, sport, dport, kind, _]: &Key6) -> Flow {
    let (src, dst) = (address6([a, b, c, d, e, f, g, h]), address6([i, j, k, l, m, n, o, p]));
    flow(src, dst, [sport, dport, kind])
}

/// What stands before the address: word, link, times and indexes; and what stands behind.
fn entry(flow: Flow, head: [u64; 5], address: IpAddr, tail: [u32; 5]) -> Entry {
    let [word, link, times, indexes, extra] = head;
    let [end, mark, mask, template, timeout] = tail;
    let ((last_seen, packets), (server, service)) = (halves(times), halves(indexes));
    let (port, kind) = half_words(end);
    let ([kind, flags], port) = (kind.to_ne_bytes(), u16::from_be(port));
    Entry {
        flow,
        word,
        link,
        last_seen,
        packets,
        server,
        service,
        address,
        port,
        kind,
        flags,
        mark,
        mask,
        template,
        timeout,
        extra: halves(extra).0,
    }
}

/// An entry of the IPv4 table.
pub fn entry4(key: &Key4, &[state, link, times, indexes, extra, end, marks, last]: &Conn4) -> Entry {
    let ((address, end), (mark, mask), (template, timeout)) = (halves(end), halves(marks), halves(last));
    let address = address4(half_words(address).into());
    entry(flow4(key), [state, link, times, indexes, extra], address, [end, mark, mask, template, timeout])
}

/// An entry of the IPv6 table.
pub fn entry6(key: &Key6, &[state, link, times, indexes, extra, high, low, end, marks, last]: &Conn6) -> Entry {
    let ([a, b, c, d], [e, f, g, h]) = (quarters(high), quarters(low));
    let ((end, mark), (mask, template), (timeout, _)) = (halves(end), halves(marks), halves(last));
    let address = address6([a, b, c, d, e, f, g, h]);
    entry(flow6(key), [state, link, times, indexes, extra], address, [end, mark, mask, template, timeout])
}

/// What stands before the address of a pin, which no packet moves; and what its port, kind and
/// flags are with it.
fn pin<A>(conn: &Conn<A>) -> ([u64; 5], u32) {
    let deltas = word(conn.addr_delta, conn.port_delta);
    let head = [0, 0, 0, pair(conn.server, conn.service), pair(conn.extra.load(), deltas)];
    (head, word(conn.port.raw(), u16::from_ne_bytes([conn.kind, conn.flags])))
}

/// The words of a pin.
pub fn pin4(conn: &Conn<Addr4>) -> Conn4 {
    let ([a, b, c, d, e], end) = pin(conn);
    let Addr4([high, low]) = conn.addr;
    [a, b, c, d, e, pair(word(high, low), end), 0, 0]
}

/// The words of a pin.
pub fn pin6(conn: &Conn<Addr6>) -> Conn6 {
    let ([a, b, c, d, e], end) = pin(conn);
    let Addr6(words) = conn.addr;
    let [w, x, y, z] = four(words);
    [a, b, c, d, e, pair(w, x), pair(y, z), pair(end, 0), 0, 0]
}

/// A server of its words.
pub fn server([load, persistent, high, low, kind, flags, thresholds, last]: [u64; 8]) -> Server {
    let ([a, b, c, d], [e, f, g, h]) = (quarters(high), quarters(low));
    let (place, weight) = halves(kind);
    let (port, method) = half_words(place);
    let [method, protocol] = method.to_ne_bytes();
    let ((flags, service), (upper, lower), (last_weight, full)) = (halves(flags), halves(thresholds), halves(last));
    Server {
        load: S64::new(load),
        persistent: S64::new(persistent),
        addr: [a, b, c, d, e, f, g, h],
        port: Be16::from_raw(port),
        method,
        protocol,
        weight: S32::new(weight),
        flags: S32::new(flags),
        service,
        upper,
        lower,
        last_weight,
        full: S32::new(full),
    }
}

/// A server's words.
pub fn server_words(s: &Server) -> [u64; 8] {
    let [a, b, c, d, e, f, g, h] = s.addr;
    let place = word(s.port.raw(), u16::from_ne_bytes([s.method, s.protocol]));
    [
        s.load.load(),
        s.persistent.load(),
        pair(word(a, b), word(c, d)),
        pair(word(e, f), word(g, h)),
        pair(place, s.weight.load()),
        pair(s.flags.load(), s.service),
        pair(s.upper, s.lower),
        pair(s.last_weight, s.full.load()),
    ]
}

/// Eight half words of four words.
fn eight(words: [u32; 4]) -> [u16; 8] {
    let [(a, b), (c, d), (e, f), (g, h)] = words.map(half_words);
    [a, b, c, d, e, f, g, h]
}

/// The opposite of [`eight`].
fn four([a, b, c, d, e, f, g, h]: [u16; 8]) -> [u32; 4] {
    [word(a, b), word(c, d), word(e, f), word(g, h)]
}

/// A next hop of its words.
pub fn next_hop([state, ifindex, mtu, a, b, c, shape, learned, s, t, u, v, w, x, y, z]: [u32; 16]) -> NextHop {
    let ((a, b), (c, d), (e, f)) = (half_words(a), half_words(b), half_words(c));
    let (kind, port) = half_words(shape);
    let [tunnel, flags] = kind.to_ne_bytes();
    NextHop {
        state: S32::new(state),
        ifindex,
        mtu,
        src: Mac([a, b, c]),
        dst: Mac([d, e, f]),
        tunnel,
        flags,
        port: Be16::from_raw(port),
        learned: S32::new(learned),
        source: eight([s, t, u, v]),
        peer: eight([w, x, y, z]),
    }
}

/// A next hop's words.
pub fn hop_words(n: &NextHop) -> [u32; 16] {
    let (Mac([a, b, c]), Mac([d, e, f])) = (n.src, n.dst);
    let shape = word(u16::from_ne_bytes([n.tunnel, n.flags]), n.port.raw());
    let head = [n.state.load(), n.ifindex, n.mtu, word(a, b), word(c, d), word(e, f), shape, n.learned.load()];
    let mut words = [0; 16];
    for (to, word) in words.iter_mut().zip(head.into_iter().chain(four(n.source)).chain(four(n.peer))) {
        *to = word;
    }
    words
}

/// A link's words.
pub fn link_words(link: &Link) -> [u32; 24] {
    let (Mac([a, b, c]), [d, e], [f, g, h, i, j, k, l, m]) = (link.mac, link.addr4, link.addr6);
    let head = [word(a, b), word(c, link.used), word(d, e), word(f, g), word(h, i), word(j, k), word(l, m), link.flags];
    let mut words = [0; 24];
    for (to, word) in words.iter_mut().zip(head.into_iter().chain(link.virtual_macs)) {
        *to = word;
    }
    words
}

/// An interface of its words.
pub fn link(words: &[u32; 24]) -> Link {
    let [ab, cu, de, fg, hi, jk, lm, flags, rest @ ..] = *words;
    let ((a, b), (c, used), (d, e)) = (half_words(ab), half_words(cu), half_words(de));
    Link { mac: Mac([a, b, c]), used, addr4: [d, e], addr6: eight([fg, hi, jk, lm]), flags, virtual_macs: rest }
}

/// Counters of their words.
pub fn counters([conns, in_packets, in_bytes, out_packets, out_bytes]: [u64; 5]) -> Counters {
    Counters { conns, in_packets, in_bytes, out_packets, out_bytes }
}

/// Counters' words.
pub fn counter_words(c: &Counters) -> [u64; 5] {
    [c.conns, c.in_packets, c.in_bytes, c.out_packets, c.out_bytes]
}

/// Settings of their words.
pub fn settings(words: &[u32; 64]) -> Settings {
    let [version, flags, hz, clock_offset, rest @ ..] = *words;
    let (timeouts, rest) = rest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    let (limits, rest) = rest.split_first_chunk::<5>().unwrap_or((&[0; 5], &[]));
    let [udp_timeout, error_rate, error_burst, error_dest_rate, error_dest_burst] = *limits;
    let (sctp_timeouts, rest) = rest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    let (last, rest) = rest.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
    let [lblc_expiration, lblcr_expiration, mark_rules, drop_rate] = *last;
    let (sync, rest) = rest.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
    let [sync_threshold, sync_period, sync_refresh, sync_retries] = *sync;
    let [ways, ways_period, ways_followed] = *rest.first_chunk::<3>().unwrap_or(&[0; 3]);
    Settings {
        version,
        flags,
        hz,
        clock_offset,
        tcp_timeouts: *timeouts,
        udp_timeout,
        error_rate,
        error_burst,
        error_dest_rate,
        error_dest_burst,
        sctp_timeouts: *sctp_timeouts,
        lblc_expiration,
        lblcr_expiration,
        mark_rules,
        drop_rate,
        sync_threshold,
        sync_period,
        sync_refresh,
        sync_retries,
        ways,
        ways_period,
        ways_followed,
        spare: [0; 12],
    }
}

/// Settings' words.
pub fn settings_words(s: &Settings) -> [u32; 64] {
    let mut words = [0; 64];
    let head = [s.version, s.flags, s.hz, s.clock_offset];
    let tail = [s.udp_timeout, s.error_rate, s.error_burst, s.error_dest_rate, s.error_dest_burst];
    let last = [s.lblc_expiration, s.lblcr_expiration, s.mark_rules, s.drop_rate];
    let sync = [s.sync_threshold, s.sync_period, s.sync_refresh, s.sync_retries];
    let last = last.into_iter().chain(sync).chain([s.ways, s.ways_period, s.ways_followed]);
    let all = head.into_iter().chain(s.tcp_timeouts).chain(tail).chain(s.sctp_timeouts).chain(last);
    for (to, word) in words.iter_mut().zip(all) {
        *to = word;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_back() {
        let s = Settings { flags: 5, hz: 100, drop_rate: 9, sync_retries: 2, ways_followed: 7, ..Settings::default() };
        assert_eq!(format!("{:?}", settings(&settings_words(&s))), format!("{s:?}"));
        let words = [1, 8, 2, 3, pair(word(0x1234, 0x0601), 7), 5, 6, 7];
        assert_eq!(server_words(&server(words)), words);
        let words = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        assert_eq!(hop_words(&next_hop(words)), words);
        let words: [u32; 24] = std::array::from_fn(|i| 0x0101_0203 * (i as u32 + 1));
        assert_eq!(link_words(&link(&words)), words);
        assert_eq!(counter_words(&counters([1, 2, 3, 4, 5])), [1, 2, 3, 4, 5]);
        let flow = Flow {
            protocol: 6,
            template: 1,
            src: "192.0.2.1".parse().unwrap(),
            sport: 1,
            dst: "192.0.2.2".parse().unwrap(),
            dport: 2,
        };
        assert_eq!(flow4(&key4(&flow).unwrap()), flow);
        let flow = Flow { src: "2001:db8::1".parse().unwrap(), dst: "2001:db8::2".parse().unwrap(), ..flow };
        assert_eq!(flow6(&key6(&flow).unwrap()), flow);
    }
}
