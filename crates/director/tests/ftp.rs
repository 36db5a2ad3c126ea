//! FTP by NAT: what control connections say, the data connections that come of it, and the
//! addresses that clients are told.
#![expect(clippy::indexing_slicing, clippy::expect_used, reason = "tests")]

mod support;

use dirigent_director::conn::{self, Expiry};
use dirigent_director::family::{V4, V6};
use dirigent_director::ftp::{LINE, Line, Said, What, read, rename};
use dirigent_director::records::{Conn, Place, Tuple, conn_flag, kind, service_flag, setting};
use dirigent_director::tcp::State;
use dirigent_director::verdict::{Action, Reason};
use dirigent_wire::{Addr4, Addr6, Be16, checksum};
use proptest::prelude::*;
use support::{
    CLIENT_LINK, Memory, SERVER_LINK, Spec, VIP4, VIP6, checksums_hold, client4, client6, frame4, frame6, server4,
    server6,
};

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;
/// The client's port of the control connection.
const CLIENT: u16 = 4000;

/// A director of one server, which has FTP on this port, and all its ports persistent or not.
fn director(port: u16, persistent: bool) -> Memory {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
    m.settings.flags |= setting::FTP;
    for service in [0, 2] {
        m.services[service].port = Be16::new(21);
        m.servers[service].port = Be16::new(port);
        if persistent {
            m.services[service].flags |= service_flag::PERSISTENT;
            m.services[service].persistence = 360 * m.settings.hz;
            m.services[service].mask = if service == 0 { u32::MAX } else { 128 };
        }
    }
    m.places4.insert(Place::new(6, Addr4::new(VIP4), Be16::new(21)), 0);
    m.places6.insert(Place::new(6, Addr6::new(VIP6), Be16::new(21)), 2);
    m
}

/// One end of a packet: the client, the virtual address or the server.
#[derive(Clone, Copy)]
enum End {
    Client(u16),
    Vip(u16),
    Server(u16),
}

/// A TCP packet between them that says `text`.
fn packet(v6: bool, (src, dst): (End, End), flags: u8, text: &str) -> Vec<u8> {
    let (protocol, ttl, payload) = (6, 64, text.len());
    let ends4 = |end| match end {
        End::Client(port) => (client4(1), port),
        End::Vip(port) => (VIP4, port),
        End::Server(port) => (server4(0), port),
    };
    let ends6 = |end| match end {
        End::Client(port) => (client6(1), port),
        End::Vip(port) => (VIP6, port),
        End::Server(port) => (server6(0), port),
    };
    let mut frame = match v6 {
        false => frame4(Spec { src: ends4(src), dst: ends4(dst), protocol, flags, ttl, payload }),
        true => frame6(Spec { src: ends6(src), dst: ends6(dst), protocol, flags, ttl, payload }),
    };
    let (addresses, l4) = if v6 { (22..54, 54) } else { (26..34, 34) };
    let at = l4 + 20;
    frame[at..].copy_from_slice(text.as_bytes());
    frame[l4 + 16..l4 + 18].copy_from_slice(&[0, 0]);
    let mut covered = frame[addresses].to_vec();
    covered.extend([0, 6]);
    covered.extend((20 + text.len() as u16).to_be_bytes());
    covered.extend(&frame[l4..]);
    let check = !checksum::sum_bytes(&covered);
    frame[l4 + 16..l4 + 18].copy_from_slice(&check.to_ne_bytes());
    assert!(checksums_hold(&frame));
    frame
}

/// A packet from one of them, which must be sent on: what comes out.
fn sent(m: &mut Memory, v6: bool, ends: (End, End), flags: u8, text: &str) -> Vec<u8> {
    let link = if matches!(ends.0, End::Server(_)) { SERVER_LINK } else { CLIENT_LINK };
    let (verdict, out) = m.run(&packet(v6, ends, flags, text), link);
    assert_eq!(verdict.action, Action::Transmit, "{verdict:?} {text}");
    assert!(checksums_hold(&out), "{text}: {out:02x?}");
    out
}

/// What it says, and its ports.
fn said(v6: bool, frame: &[u8]) -> (String, u16, u16) {
    let l4 = if v6 { 54 } else { 34 };
    let port = |at: usize| u16::from_be_bytes([frame[l4 + at], frame[l4 + at + 1]]);
    (String::from_utf8(frame[l4 + 20..].to_vec()).expect("text"), port(0), port(2))
}

/// Opens the control connection; the server has it on `port`.
fn log_in(m: &mut Memory, v6: bool, port: u16) {
    let up = (End::Client(CLIENT), End::Vip(21));
    sent(m, v6, up, SYN, "");
    sent(m, v6, (End::Server(port), End::Client(CLIENT)), SYN | ACK, "");
    sent(m, v6, up, ACK, "");
    sent(m, v6, (End::Server(port), End::Client(CLIENT)), ACK, "220 ready\r\n");
    sent(m, v6, up, ACK, "USER ftp\r\n");
}

/// The entry of a client's packets to a port of the virtual address: state, server's port, flags.
fn entry(m: &Memory, v6: bool, port: u16, vport: u16) -> Option<(u8, u16, u8)> {
    fn of<A>(conn: &Conn<A>) -> (u8, u16, u8) {
        (conn.word().state(), conn.port.get(), conn.flags)
    }
    let (sport, dport) = (Be16::new(port), Be16::new(vport));
    if v6 {
        m.conns6.get(&Tuple::new(6, Addr6::new(client6(1)), sport, Addr6::new(VIP6), dport)).map(of)
    } else {
        m.conns4.get(&Tuple::new(6, Addr4::new(client4(1)), sport, Addr4::new(VIP4), dport)).map(of)
    }
}

/// How many data connections the control connection has.
fn children(m: &Memory, v6: bool) -> u32 {
    let (sport, dport) = (Be16::new(CLIENT), Be16::new(21));
    if v6 {
        m.conns6[&Tuple::new(6, Addr6::new(client6(1)), sport, Addr6::new(VIP6), dport)].link().connections()
    } else {
        m.conns4[&Tuple::new(6, Addr4::new(client4(1)), sport, Addr4::new(VIP4), dport)].link().connections()
    }
}

fn expire(m: &mut Memory, v6: bool, port: u16, vport: u16) -> Expiry {
    let (sport, dport) = (Be16::new(port), Be16::new(vport));
    if v6 {
        conn::expire::<V6, _>(m, &Tuple::new(6, Addr6::new(client6(1)), sport, Addr6::new(VIP6), dport), false)
    } else {
        conn::expire::<V4, _>(m, &Tuple::new(6, Addr4::new(client4(1)), sport, Addr4::new(VIP4), dport), false)
    }
}

const LISTEN: u8 = State::Listen as u8;
const SYN_RECV: u8 = State::SynRecv as u8;
const ESTABLISHED: u8 = State::Established as u8;

/// The same frame with IP options, or with an extension header: neither says anything.
fn with_options(v6: bool, frame: &[u8]) -> Vec<u8> {
    let (mut out, more) = (frame.to_vec(), if v6 { [6, 0, 1, 4, 0, 0, 0, 0] } else { [1, 1, 1, 1, 1, 1, 1, 0] });
    let at = if v6 { 54 } else { 34 };
    out.splice(at..at, more);
    if v6 {
        out[19] += 8;
        out[20] = 60;
    } else {
        out[14] += 2;
        out[17] += 8;
        out[24..26].fill(0);
        let check = !checksum::sum_bytes(&out[14..42]);
        out[24..26].copy_from_slice(&check.to_ne_bytes());
    }
    out
}

/// Whatever headers stand before it, what is said on a control connection is heard.
#[test]
fn headers_that_are_seldom_hide_nothing() {
    for v6 in [false, true] {
        let m = &mut director(21, false);
        log_in(m, v6, 21);
        let (text, vport) = if v6 {
            ("229 Entering Extended Passive Mode (|||5000|)\r\n".to_owned(), 5000)
        } else {
            let [a, b, c, d] = server4(0);
            (format!("227 Entering Passive Mode ({a},{b},{c},{d},19,136).\r\n"), 5000)
        };
        let plain = packet(v6, (End::Server(21), End::Client(CLIENT)), ACK, &text);
        let (verdict, out) = m.run(&with_options(v6, &plain), SERVER_LINK);
        assert_eq!(verdict.action, Action::Transmit, "{verdict:?}");
        assert_eq!(entry(m, v6, 0, vport).map(|(state, ..)| state), Some(LISTEN), "v6: {v6}");
        assert!(v6 || String::from_utf8_lossy(&out).contains("192,0,2,"), "{}", String::from_utf8_lossy(&out));
    }
}

#[test]
fn passive_data_goes_to_the_server_of_its_control_connection() {
    for (v6, persistent, port) in [(false, false, 21), (true, false, 21), (false, true, 21), (true, true, 2121)] {
        let m = &mut director(port, persistent);
        log_in(m, v6, port);
        let conns = |m: &Memory| m.counters.borrow().iter().map(|c| c.conns).sum::<u64>();
        assert_eq!(conns(m), 1);
        let down = (End::Server(port), End::Client(CLIENT));
        if v6 {
            let text = "229 Entering Extended Passive Mode (|||40000|)\r\n";
            assert_eq!(said(v6, &sent(m, v6, down, ACK, text)).0, text);
        } else {
            let out = sent(m, v6, down, ACK, "227 Entering Passive Mode (10,1,0,11,156,64).\r\n");
            assert_eq!(said(v6, &out).0, "227 Entering Passive Mode(192,0,2,10,156,64).\r\n");
        }
        assert_eq!(entry(m, v6, 0, 40000), Some((LISTEN, 40000, conn_flag::FTP_DATA)));
        assert_eq!(children(m, v6), 1);
        // The client comes from a port of its own; it is no connection of the scheduler's.
        let (client, vip, server) = (End::Client(5555), End::Vip(40000), End::Server(40000));
        assert_eq!(said(v6, &sent(m, v6, (client, vip), SYN, "")).2, 40000);
        assert_eq!(entry(m, v6, 0, 40000), None);
        assert_eq!(entry(m, v6, 5555, 40000), Some((SYN_RECV, 40000, conn_flag::FTP_DATA)));
        assert_eq!(said(v6, &sent(m, v6, (server, client), SYN | ACK, "")).1, 40000);
        sent(m, v6, (client, vip), ACK, "");
        assert_eq!(entry(m, v6, 5555, 40000).map(|e| e.0), Some(ESTABLISHED));
        sent(m, v6, (server, client), ACK, "227 no (1,2,3,4,5,6) control connection");
        assert_eq!((children(m, v6), conns(m)), (1, 1));
        assert_eq!(m.recount(), m.counted());
        // Another SYN finds nobody who expects it.
        let again = packet(v6, (End::Client(5556), vip), SYN, "");
        let (verdict, _) = m.run(&again, CLIENT_LINK);
        if persistent {
            assert_eq!(verdict.reason, Reason::Request, "the template's");
        } else {
            assert_eq!(verdict.reason, Reason::FtpData);
        }
    }
}

#[test]
fn active_data_comes_from_the_virtual_address() {
    for (v6, port) in [(false, 21), (true, 21), (false, 2121), (true, 2121)] {
        let m = &mut director(port, false);
        log_in(m, v6, port);
        let text = if v6 { "EPRT |2|2001:db8::1|50000|\r\n" } else { "PORT 198,51,100,1,195,80\r\n" };
        let out = sent(m, v6, (End::Client(CLIENT), End::Vip(21)), ACK, text);
        assert_eq!(said(v6, &out).0, text);
        assert_eq!(entry(m, v6, 50000, 20), Some((LISTEN, port - 1, conn_flag::FTP_DATA)));
        let (client, vip, server) = (End::Client(50000), End::Vip(20), End::Server(port - 1));
        assert_eq!(said(v6, &sent(m, v6, (server, client), SYN, "")), (String::new(), 20, 50000));
        assert_eq!(entry(m, v6, 50000, 20).map(|e| e.0), Some(LISTEN));
        assert_eq!(said(v6, &sent(m, v6, (client, vip), SYN | ACK, "")), (String::new(), 50000, port - 1));
        sent(m, v6, (server, client), ACK, "");
        assert_eq!(entry(m, v6, 50000, 20).map(|e| e.0), Some(ESTABLISHED));
        assert_eq!(m.recount(), m.counted());
        // Closed, and the same port once more.
        sent(m, v6, (server, client), ACK | FIN, "");
        sent(m, v6, (client, vip), ACK | FIN, "");
        assert_eq!(entry(m, v6, 50000, 20).map(|e| e.0), Some(State::TimeWait as u8));
        sent(m, v6, (End::Client(CLIENT), End::Vip(21)), ACK, text);
        assert_eq!(entry(m, v6, 50000, 20).map(|e| e.0), Some(LISTEN));
        assert_eq!((children(m, v6), m.recount()), (1, m.counted()));
    }
}

#[test]
fn a_control_connection_lives_as_long_as_its_data() {
    for v6 in [false, true] {
        let m = &mut director(21, false);
        log_in(m, v6, 21);
        let text = "229 Extended (|||40000|)\r\n";
        sent(m, v6, (End::Server(21), End::Client(CLIENT)), ACK, text);
        sent(m, v6, (End::Client(5555), End::Vip(40000)), SYN, "");
        sent(m, v6, (End::Server(40000), End::Client(5555)), SYN | ACK, "");
        for _ in 0..4 {
            sent(m, v6, (End::Client(5555), End::Vip(40000)), ACK, "");
            m.now = m.now.wrapping_add(800 * m.settings.hz);
            assert_eq!(expire(m, v6, CLIENT, 21), Expiry::Alive);
        }
        m.now = m.now.wrapping_add(200 * m.settings.hz);
        assert_eq!(expire(m, v6, 5555, 40000), Expiry::Gone);
        assert_eq!(children(m, v6), 0);
        assert_eq!(expire(m, v6, CLIENT, 21), Expiry::Gone);
        assert!(m.conns4.is_empty() && m.conns6.is_empty());
        assert!(m.counted().iter().all(|c| *c == (0, 0)));
    }
}

#[test]
fn what_nobody_claims_is_gone_after_two_minutes() {
    let m = &mut director(21, false);
    log_in(m, false, 21);
    let passive = |m: &mut Memory| {
        let text = "227 Entering Passive Mode (10,1,0,11,156,64)\r\n";
        sent(m, false, (End::Server(21), End::Client(CLIENT)), ACK, text)
    };
    let first = passive(m);
    m.now = m.now.wrapping_add(100 * m.settings.hz);
    // Said again: the same bytes, the same entry, and its time begins anew.
    assert_eq!(passive(m), first);
    assert_eq!(children(m, false), 1);
    m.now = m.now.wrapping_add(100 * m.settings.hz);
    assert_eq!(expire(m, false, 0, 40000), Expiry::Alive);
    m.now = m.now.wrapping_add(20 * m.settings.hz);
    let syn = packet(false, (End::Client(5555), End::Vip(40000)), SYN, "");
    assert_eq!(m.run(&syn, CLIENT_LINK).0.reason, Reason::FtpData);
    assert_eq!(expire(m, false, 0, 40000), Expiry::Gone);
    assert_eq!((children(m, false), m.recount()), (0, m.counted()));
}

#[test]
fn only_established_control_connections_are_heard() {
    // Before the handshake's end.
    let m = &mut director(21, false);
    sent(m, false, (End::Client(CLIENT), End::Vip(21)), SYN, "");
    sent(m, false, (End::Server(21), End::Client(CLIENT)), SYN | ACK, "227 (10,1,0,11,156,64)");
    assert_eq!(m.conns4.len(), 2);
    // Another port's connection.
    let m = &mut Memory::new(0, kind::NAT_REQUEST, &[1]);
    sent(m, false, (End::Client(CLIENT), End::Vip(80)), SYN, "");
    sent(m, false, (End::Server(8080), End::Client(CLIENT)), SYN | ACK, "");
    sent(m, false, (End::Client(CLIENT), End::Vip(80)), ACK, "PORT 198,51,100,1,195,80\r\n");
    let text = "227 Entering Passive Mode (10,1,0,11,156,64)\r\n";
    assert_eq!(said(false, &sent(m, false, (End::Server(8080), End::Client(CLIENT)), ACK, text)).0, text);
    assert_eq!(m.conns4.len(), 2);
}

#[test]
fn without_room_for_the_address_the_answer_is_dropped() {
    let m = &mut director(21, false);
    log_in(m, false, 21);
    let down = (End::Server(21), End::Client(CLIENT));
    // Longer than the virtual address, or as long: it fits without any text.
    let text = "227 (110,101,100,111,156,64)\r\n";
    let told = said(false, &sent(m, false, down, ACK, text)).0;
    assert_eq!(told, "227      (192,0,2,10,156,64)\r\n");
    let (verdict, _) = m.run(&packet(false, down, ACK, "227 (1,1,1,1,156,64)\r\n"), SERVER_LINK);
    assert_eq!((verdict.action, verdict.reason), (Action::Drop, Reason::FtpNoRoom));
    assert_eq!(m.recount(), m.counted());
}

/// tc decides again what XDP has rewritten already.
#[test]
fn deciding_twice_is_deciding_once() {
    let m = &mut director(21, false);
    log_in(m, false, 21);
    let down = (End::Server(21), End::Client(CLIENT));
    let once = said(false, &sent(m, false, down, ACK, "227 Entering Passive Mode (10,1,0,11,156,64).\r\n")).0;
    let (len, connections) = (m.conns4.len(), m.counted());
    assert_eq!(said(false, &sent(m, false, down, ACK, &once)).0, once);
    assert_eq!((m.conns4.len(), m.counted(), children(m, false)), (len, connections, 1));
}

fn line(text: &[u8]) -> (Line, u32) {
    let mut line = Line::default();
    let len = text.len().min(LINE);
    line.0[..len].copy_from_slice(&text[..len]);
    (line, len as u32)
}

fn heard(text: &str, reply: bool, v6: bool) -> (What, u16, u32, u32) {
    let m = Memory::new(0, kind::NAT_REQUEST, &[1]);
    let (line, len) = line(text.as_bytes());
    let Said { what, port, begin, end } = read(&m, &line, len, reply, v6);
    if what == What::Passive { (what, port, begin, end) } else { (what, port, 0, 0) }
}

const NOTHING: (What, u16, u32, u32) = (What::Nothing, 0, 0, 0);
fn active(port: u16) -> (What, u16, u32, u32) {
    (What::Active, port, 0, 0)
}
fn extended(port: u16) -> (What, u16, u32, u32) {
    (What::Extended, port, 0, 0)
}

#[test]
fn lines_are_read() {
    for (text, wanted) in [
        ("PORT 1,2,3,4,5,6\r\n", active(1286)),
        ("port 1,2,3,4,255,255\r\n", active(65535)),
        ("PORT 1,2,3,4,5,6", NOTHING),
        ("PORT 1,2,3,4,5,256\r\n", NOTHING),
        ("PORT 1,2,3,4,0,0\r\n", NOTHING),
        ("PORT 1,2,3,4,5\r\n", NOTHING),
        ("PORT 1,2,3,,4,5,6\r\n", NOTHING),
        ("PORTO 1,2,3,4,5,6\r\n", NOTHING),
        ("PASV\r\n", NOTHING),
        ("EPRT |1|192.0.2.1|6275|\r\n", active(6275)),
        ("eprt !1!192.0.2.1!6275!\r\n", active(6275)),
        ("EPRT |2|2001:db8::1|6275|\r\n", NOTHING),
        ("EPRT |1|192.0.2.1|62750000|\r\n", NOTHING),
        ("EPRT |1|192.0.2.1|65536|\r\n", NOTHING),
        ("EPRT |1|192.0.2.1|6275\r\n", NOTHING),
    ] {
        assert_eq!(heard(text, false, false), wanted, "{text}");
        assert_eq!(heard(text, true, false), NOTHING, "{text}");
    }
    for (text, wanted) in [
        ("227 Entering Passive Mode (10,0,0,2,1,2).\r\n", (What::Passive, 258, 27, 35)),
        ("227 Entering Passive Mode. 10,0,0,2,1,2\r\n", (What::Passive, 258, 27, 35)),
        ("227 Mode 7, or 1,2: =10,0,0,2,1,2\r\n", (What::Passive, 258, 21, 29)),
        ("227 Entering Passive Mode (10,0,0,2,1,2", NOTHING),
        ("227 Entering Passive Mode (1000,0,0,2,1,2)", NOTHING),
        ("227-Entering Passive Mode (10,0,0,2,1,2)", NOTHING),
        ("229 Entering Extended Passive Mode (|||6446|)\r\n", extended(6446)),
        ("229 Extended (!!!6446!)\r\n", extended(6446)),
        ("229 Extended (|||0|)\r\n", NOTHING),
        ("229 Extended (|1|10.0.0.2|6446|)\r\n", extended(6446)),
        ("226 done (1,2,3,4,5,6)\r\n", NOTHING),
    ] {
        assert_eq!(heard(text, true, false), wanted, "{text}");
        assert_eq!(heard(text, false, false), NOTHING, "{text}");
    }
    assert_eq!(heard("EPRT |2|2001:db8::1|6275|\r\n", false, true), active(6275));
    assert_eq!(heard("EPRT |1|192.0.2.1|6275|\r\n", false, true), NOTHING);
    assert_eq!(heard("PORT 1,2,3,4,5,6\r\n", false, true), NOTHING);
    assert_eq!(heard("227 Passive (1,2,3,4,5,6)\r\n", true, true), NOTHING);
    assert_eq!(heard("229 Extended (|||6446|)\r\n", true, true), extended(6446));
}

proptest! {
    /// Whatever addresses: the line keeps its length, and what is read afterwards is the new
    /// address with the old port.
    #[test]
    fn an_address_is_renamed_in_place(old: [u8; 4], new: [u8; 4], port in 1..=65535u16, text in "[A-Za-z ]{0,40}") {
        let numbers = |a: [u8; 4]| format!("{},{},{},{}", a[0], a[1], a[2], a[3]);
        let rest = format!(",{},{}).\r\n", port >> 8, port & 255);
        let before = format!("227 {text}({}{rest}", numbers(old));
        let m = Memory::new(0, kind::NAT_REQUEST, &[1]);
        let (mut bytes, len) = line(before.as_bytes());
        let Said { what, port: heard, begin, end } = read(&m, &bytes, len, true, false);
        prop_assert_eq!((what, heard), (What::Passive, port), "{}", before);
        let room = numbers(new).len() <= numbers(old).len() + text.len();
        prop_assert_eq!(rename(&m, &mut bytes, begin, end, new), room);
        if room {
            let after = String::from_utf8(bytes.0[..len as usize].to_vec()).expect("text");
            prop_assert!(after.starts_with("227 ") && after.ends_with(&format!("({}{rest}", numbers(new))), "{}", after);
            prop_assert!(bytes.0[len as usize..].iter().all(|b| *b == 0));
            let again = read(&m, &bytes, len, true, false);
            prop_assert_eq!((again.what, again.port), (What::Passive, port), "{}", after);
        }
    }

    /// Lines of any content are read without harm, and what is rewritten stays its size.
    #[test]
    fn any_line_is_read(start in 0..5usize, text in prop::collection::vec(any::<u8>(), 0..200), fields in "[0-9,|()]{0,60}", v6: bool) {
        let m = Memory::new(0, kind::NAT_REQUEST, &[1]);
        let start = [&b"227 "[..], b"229 ", b"PORT ", b"EPRT |1|", b""][start];
        for text in [[start, &text].concat(), [start, fields.as_bytes(), b"\r\n"].concat()] {
            let (mut bytes, len) = line(&text);
            for reply in [false, true] {
                let Said { what, begin, end, .. } = read(&m, &bytes, len, reply, v6);
                if what == What::Passive {
                    prop_assert!(4 <= begin && begin + 7 <= end && end < len);
                    let before = bytes;
                    if rename(&m, &mut bytes, begin, end, VIP4) {
                        prop_assert_eq!(&bytes.0[..4], &before.0[..4]);
                        prop_assert_eq!(&bytes.0[end as usize..], &before.0[end as usize..]);
                    }
                }
            }
        }
    }
}
