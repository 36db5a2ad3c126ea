//! FTP by NAT (RFC 959, RFC 2428; ipvs-semantics §5.4): data connections belong to their control
//! connection's server.
//!
//! What is said on a control connection is read as it goes by. Each side names a port there; the
//! connection that will come to it is entered before it comes, in LISTEN, as one of the control
//! connection's. A client that connects to the server (PASV, EPSV) does so from a port that
//! nobody knows: the entry has 0 in its place, until [`claim`].
//!
//! Only the answer to PASV names an address that clients would connect to, the server's. The
//! virtual address is written instead, and the text before it, which is for people, becomes as
//! much shorter or longer: the packet keeps its length, so that TCP's sequence numbers stay true,
//! nothing is remembered of it, and a repetition is rewritten to the same bytes.

use crate::conn::{self, Expiry};
use crate::direct::{Flow, Work};
use crate::family::{Address, Family};
use crate::open::{self, Bound, Wish};
use crate::packet::{L4, Packet};
use crate::parse::Fragment;
use crate::persist::{self, Whose};
use crate::records::{Conn, Tuple, conn_flag, setting};
use crate::tables::{Step, Tables};
use crate::tcp::State;
use crate::verdict::{Decision, Reason, Verdict};
use dirigent_wire::{Be16, TcpHeader, checksum, ip::proto};

/// The port of control connections.
pub const CONTROL: u16 = 21;
/// The port servers connect from in active mode.
pub const DATA: u16 = 20;

/// Bytes of a segment that are looked at: a line with room for what precedes an address. A
/// power of two: the verifier wants each index bounded, and takes a mask for it.
pub const LINE: usize = 128;

/// The first bytes of what a segment says.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Line(pub [u8; LINE]);

impl Default for Line {
    fn default() -> Self {
        Self([0; LINE])
    }
}

/// The byte there; an index is never out of bounds, whatever a peer sent.
#[inline(always)]
fn byte(line: &Line, i: u32) -> u8 {
    line.0.get(i as usize & (LINE - 1)).copied().unwrap_or(0)
}

#[inline(always)]
fn put(line: &mut Line, i: u32, byte: u8) {
    if let Some(at) = line.0.get_mut(i as usize & (LINE - 1)) {
        *at = byte;
    }
}

/// Whether the line begins so, in upper or lower case.
#[inline(always)]
fn begins(line: &Line, word: u32) -> bool {
    let [a, b, c, d, ..] = line.0;
    let letters = u32::from_be_bytes([a, b, c, d]);
    // Letters only: of digits and spaces the bit is set already.
    letters | 0x2020_2020 == word | 0x2020_2020
}

/// What a line of a control connection says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum What {
    /// Nothing that leads to a data connection.
    Nothing,
    /// `PORT`, `EPRT`: the client's port, to which the server will connect.
    Active,
    /// `229`: the server's port, to which the client will connect.
    Extended,
    /// `227`: the same, behind an address in decimal.
    Passive,
}

/// The same with what belongs to it. (Flat: an enum's unused payload would be registers
/// never set.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// What.
    pub what: What,
    /// The port.
    pub port: u16,
    /// Of [`What::Passive`]: where the address's text begins.
    pub begin: u32,
    /// Where it ends.
    pub end: u32,
}

/// Reads the first `len` bytes of a segment of the server (`reply`) or the client. `v6`: what
/// names IPv4 only says nothing.
#[inline(always)]
pub fn read<T: Tables>(t: &T, line: &Line, len: u32, reply: bool, v6: bool) -> Said {
    let word = |word: &[u8; 4]| begins(line, u32::from_be_bytes(*word));
    let nothing = Said { what: What::Nothing, port: 0, begin: 0, end: 0 };
    let form = if reply && word(b"227 ") && !v6 {
        form::COMMA
    } else if !reply && word(b"PORT") && byte(line, 4) == b' ' && !v6 {
        form::COMMA | form::STRICT
    } else if reply && word(b"229 ") {
        form::BRACKET
    } else if !reply && word(b"EPRT") && byte(line, 4) == b' ' {
        // RFC 2428 §2: 1 is IPv4, 2 is IPv6.
        if byte(line, 6) != if v6 { b'2' } else { b'1' } || byte(line, 7) != byte(line, 5) {
            return nothing;
        }
        form::STRICT
    } else {
        return nothing;
    };
    // Verified once, not once for each form.
    let form = t.forget(form);
    let mut fields = Fields { len, form, ..Fields::new(line) };
    t.walk(LINE as u32, &mut fields);
    if !fields.is(form::FOUND) || fields.value == 0 {
        return nothing;
    }
    let what = match (reply, fields.is(form::COMMA)) {
        (false, _) => What::Active,
        (true, false) => What::Extended,
        (true, true) => What::Passive,
    };
    Said { what, port: fields.value as u16, begin: fields.begin, end: fields.end }
}

/// How a line names a port, and how far it is read; see [`Fields`].
mod form {
    /// Six numbers and a byte that is no digit. Else: three of the delimiter, a number, and the delimiter.
    pub const COMMA: u32 = 1;
    /// The fields begin with byte 5, and nothing else may come.
    pub const STRICT: u32 = 2;
    /// An opening bracket is yet to come, and the delimiter is what follows it.
    pub const BRACKET: u32 = 4;
    /// All is there.
    pub const FOUND: u32 = 8;
}

/// The walk over a line. All numbers, so that the verifier can forget them.
struct Fields<'l> {
    line: &'l Line,
    len: u32,
    form: u32,
    /// 0: not known yet.
    delimiter: u32,
    /// Separators so far.
    separators: u32,
    /// Digits of the number so far.
    digits: u32,
    number: u32,
    value: u32,
    begin: u32,
    end: u32,
}

impl<'l> Fields<'l> {
    #[inline(always)]
    fn new(line: &'l Line) -> Self {
        Self { line, len: 0, form: 0, delimiter: 0, separators: 0, digits: 0, number: 0, value: 0, begin: 0, end: 0 }
    }
    #[inline(always)]
    fn is(&self, bit: u32) -> bool {
        self.form & bit != 0
    }
    #[inline(always)]
    fn digit(&mut self, byte: u8) {
        self.number = (self.number * 10 + u32::from(byte - b'0')) & 0xf_ffff;
        self.digits = (self.digits + 1) & 0xff;
    }
    /// The number ends, and is one of at most `most`.
    #[inline(always)]
    fn sound(&self, digits: u32, most: u32) -> bool {
        self.digits > 0 && self.digits <= digits && self.number <= most
    }
    #[inline(always)]
    fn number_six(&mut self, i: u32, byte: u8) -> bool {
        if byte.is_ascii_digit() {
            if self.digits == 0 && self.separators == 0 {
                self.begin = i;
            }
            self.digit(byte);
            return true;
        }
        let sound = self.sound(3, 255);
        let last = sound && self.separators == 5;
        if last || (sound && byte == b',') {
            self.value = (self.value & 0xff) << 8 | self.number;
            if self.separators == 3 {
                self.end = i;
            }
            self.separators += 1;
            if last {
                self.form |= form::FOUND;
            }
        } else if self.is(form::STRICT) {
            return false;
        } else {
            self.separators = 0;
        }
        (self.digits, self.number) = (0, 0);
        !last
    }
    #[inline(always)]
    fn number_barred(&mut self, byte: u8) -> bool {
        if self.delimiter == 0 {
            if self.is(form::BRACKET) {
                if byte == b'(' {
                    self.form &= !form::BRACKET;
                }
            } else {
                (self.delimiter, self.separators) = (byte.into(), 1);
                return !byte.is_ascii_digit() && byte > b' ';
            }
            return true;
        }
        if u32::from(byte) == self.delimiter {
            if self.separators == 3 && self.sound(5, 65535) {
                self.form |= form::FOUND;
            }
            self.value = self.number;
            self.separators += 1;
            (self.digits, self.number) = (0, 0);
            return self.separators < 4;
        }
        if self.separators < 3 {
            return true;
        }
        if byte.is_ascii_digit() {
            self.digit(byte);
        }
        byte.is_ascii_digit()
    }
}

impl<T: Tables> Step<T> for Fields<'_> {
    #[inline(always)]
    fn step(&mut self, t: &T, i: u32) -> bool {
        // Or each byte is verified for all that may have been read before it.
        let Self { form, delimiter, separators, digits, number, value, begin, end, .. } = self;
        for part in [form, delimiter, separators, digits, number, value, begin, end] {
            *part = t.forget(*part);
        }
        let first = if self.is(form::STRICT) { 5 } else { 4 };
        if i < first {
            return true;
        }
        if i >= self.len {
            return false;
        }
        let byte = byte(self.line, i);
        if byte == b'\r' || byte == b'\n' {
            // The last number may end with the line.
            if self.is(form::COMMA) {
                self.number_six(i, byte);
            }
            return false;
        }
        if self.is(form::COMMA) { self.number_six(i, byte) } else { self.number_barred(byte) }
    }
}

/// Blanks from `begin` to `end`.
struct Blanks<'l> {
    line: &'l mut Line,
    begin: u32,
    end: u32,
}

impl<T: Tables> Step<T> for Blanks<'_> {
    #[inline(always)]
    fn step(&mut self, _: &T, i: u32) -> bool {
        let at = self.begin.wrapping_add(i);
        if at < self.end {
            put(self.line, at, b' ');
        }
        at < self.end
    }
}

/// Writes the address so that its text ends before `end`.
#[inline(always)]
fn write_address(line: &mut Line, end: u32, octets: [u8; 4]) {
    // Backwards, from the comma before the port.
    let mut at = end;
    let mut n = 4;
    while n > 0 {
        n -= 1;
        let mut rest = octets.get(n).copied().unwrap_or(0);
        let mut digit = 0;
        while digit < 3 {
            if digit == 0 || rest > 0 {
                at = at.wrapping_sub(1);
                put(line, at, b'0' + rest % 10);
                rest /= 10;
            }
            digit += 1;
        }
        if n > 0 {
            at = at.wrapping_sub(1);
            put(line, at, b',');
        }
    }
}

/// Bytes that this address takes as text, with its commas.
#[inline(always)]
fn text_len(octets: [u8; 4]) -> u32 {
    let mut len = 3;
    let mut n = 0;
    while n < 4 {
        let octet = octets.get(n).copied().unwrap_or(0);
        len += if octet >= 100 {
            3
        } else if octet >= 10 {
            2
        } else {
            1
        };
        n += 1;
    }
    len
}

/// Names `octets` instead of the address whose text lies from `begin` to `end` of a `227` line;
/// what stood before it keeps to its left and becomes shorter or longer. Says whether it can.
#[inline(always)]
pub fn rename<T: Tables>(t: &T, line: &mut Line, begin: u32, end: u32, octets: [u8; 4]) -> bool {
    // Behind the code and a space, and what opens it ("(" as a rule).
    const FIRST: u32 = 5;
    let len = text_len(octets);
    let start = end.wrapping_sub(len);
    if begin < FIRST || end < len || start < FIRST {
        return false;
    }
    let opening = byte(line, begin - 1);
    // Shorter by at most 15 − 7 bytes.
    t.walk(8, &mut Blanks { line, begin: begin - 1, end: start });
    put(line, start - 1, opening);
    write_address(line, end, octets);
    true
}

/// What flags a connection by the tuple of its first packet as a control connection.
#[inline(always)]
pub fn flag<A>(key: &Tuple<A>) -> u8 {
    if key.dport == Be16::new(CONTROL) && key.protocol == [proto::TCP, 0, 0, 0] { conn_flag::FTP } else { 0 }
}

/// What [`crate::direct::Stage::Slow`] leaves for itself when it sends a packet to
/// [`crate::direct::Stage::Ftp`], from where it comes back: no other stage's word.
pub const HEARD: u64 = u64::MAX;

/// Whether a packet may say something: of a control connection, with something in it.
#[inline(always)]
pub fn speaks<F: Family>(flow: &Flow<F>, conn: &Conn<F::Addr>) -> bool {
    conn.flags & conn_flag::FTP != 0 && conn::paired(conn.kind) && flow.ip.l4_len() > flow.l4.header
}

/// A data connection of this control connection, which `cport` of the client opened at `vport`; it
/// goes to this port of the server.
#[inline(always)]
fn wish<A>(control: &Conn<A>, (cport, vport): (Be16, Be16), port: Be16, ingress: u32) -> Wish {
    let mut wish = Wish::new(control.service, 0, ingress, false, 0);
    (wish.server, wish.chosen, wish.port) = (control.server, true, port);
    wish.state = State::Listen as u8;
    let mask = u32::from(cport.get()) << 16 | u32::from(vport.get());
    wish.whose = Whose { mask, mark: control.mark, tag: 0, flags: conn_flag::FTP_DATA };
    wish
}

/// [`crate::direct::Stage::Ftp`]: reads what a packet of a control connection says, enters the data
/// connection that will come of it, and has the client told the virtual address.
#[inline(always)]
pub fn listen<F: Family, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Decision<()> {
    let Work { flow, conn, reply: key, line, .. } = w;
    let Some(found) = conn::held::<F, T>(t, &flow.key) else { return Ok(()) };
    let (reply, header) = (found.is_reply(), flow.l4.header);
    if !speaks::<F>(flow, &found) || header < 20 || flow.ip.fragment != Fragment::Whole {
        return Ok(());
    }
    let at = flow.ip.l4 + (header & 0x3c) as usize;
    let len = flow.ip.l4_len().wrapping_sub(header);
    let len = if len > LINE as u32 { LINE as u32 } else { len };
    // The request entry is the connection.
    *key = if reply { conn::partner::<F>(&flow.key, &found) } else { flow.key };
    let Some(control) = conn::held::<F, T>(t, key) else { return Ok(()) };
    if control.word.state() != State::Established as u8 || !p.load(at, len, line) {
        return Ok(());
    }
    // Verified once from here, not once for each way that led here.
    let (reply, len) = (t.forget(reply.into()) != 0, t.forget(len));
    let (ports, vip) = ((key.sport, key.dport), key.dst);
    let below = |port: Be16| Be16::new(port.get().wrapping_sub(1));
    let said = read(t, line, len, reply, F::V6);
    let port = Be16::new(said.port);
    let wish = match said.what {
        What::Nothing => return Ok(()),
        What::Active => {
            (key.sport, key.dport) = (port, below(key.dport));
            wish(&control, ports, below(control.port), p.ingress())
        }
        What::Extended | What::Passive => {
            (key.sport, key.dport) = (Be16::new(0), port);
            wish(&control, ports, port, p.ingress())
        }
    };
    if !control.lasts() {
        return Ok(());
    }
    let key = *key;
    let passive = t.forget(u32::from(said.what == What::Passive));
    expect::<F, T>(t, &key, wish, conn, &mut w.reply)?;
    if passive == 0 {
        return Ok(());
    }
    let [a, b, ..] = vip.to_words();
    let ([a, b], [c, d]) = (a.to_ne_bytes(), b.to_ne_bytes());
    if !rename(t, &mut w.line, said.begin, said.end, [a, b, c, d]) {
        return Err(Verdict::drop(Reason::FtpNoRoom));
    }
    write::<F, P>(p, &w.flow, (at, len), &w.line)
}

/// Enters a data connection that is to come.
#[inline(always)]
fn expect<F: Family, T: Tables>(
    t: &mut T,
    key: &Tuple<F::Addr>,
    mut wish: Wish,
    conn: &mut Conn<F::Addr>,
    reply: &mut Tuple<F::Addr>,
) -> Decision<()> {
    if let Some(there) = conn::held::<F, T>(t, key) {
        // Said again, or decided again by tc.
        if there.server == wish.server && there.word.state() == State::Listen as u8 && !open::idle::<F, T>(t, key) {
            there.last_seen.store(t.now());
            return Ok(());
        }
        conn::expire::<F, T>(t, key, true);
    }
    enter::<F, T>(t, key, &mut wish, conn, reply)
}

/// Binds a data connection, counted by its control connection.
#[inline(always)]
fn enter<F: Family, T: Tables>(
    t: &mut T,
    key: &Tuple<F::Addr>,
    wish: &mut Wish,
    conn: &mut Conn<F::Addr>,
    reply: &mut Tuple<F::Addr>,
) -> Decision<()> {
    if !persist::adopt::<F, T>(t, key, &mut wish.whose) {
        return Err(Verdict::drop(Reason::Raced));
    }
    let refused = match open::bind::<F, T>(t, key, wish, conn, reply) {
        Bound::Done => return Ok(()),
        Bound::There => None,
        Bound::Taken => Some(Verdict::drop(Reason::ReplyKeyTaken)),
        Bound::Refused(verdict) => Some(verdict),
    };
    persist::release::<F, T>(t, key, &wish.whose);
    refused.map_or(Ok(()), Err)
}

/// Whether a packet of no connection may be the first of an expected one.
#[inline(always)]
pub fn may_claim<F: Family>(flags: u32, flow: &Flow<F>) -> bool {
    const MASK: u8 = TcpHeader::SYN | TcpHeader::ACK | TcpHeader::RST;
    flags & setting::FTP != 0 && flow.key.proto() == proto::TCP && flow.l4.flags & MASK == TcpHeader::SYN
}

/// [`crate::direct::Stage::Claim`]: a client connects to the port that its server named; from now
/// on its own port is known. Says whether somebody expected it.
#[inline(always)]
pub fn claim<F: Family, P: Packet, T: Tables>(p: &P, t: &mut T, w: &mut Work<F>) -> Decision<bool> {
    let Work { flow, conn, reply: key, .. } = w;
    *key = Tuple::new(proto::TCP, flow.key.src, Be16::new(0), flow.key.dst, flow.key.dport);
    let Some(found) = conn::held::<F, T>(t, key) else { return Ok(false) };
    if found.flags & conn_flag::FTP_DATA == 0 || open::idle::<F, T>(t, key) {
        return Ok(false);
    }
    let mask = found.mask;
    let ports = (Be16::new((mask >> 16) as u16), Be16::new(mask as u16));
    let mut wish = wish(&found, ports, found.port, p.ingress());
    if !found.lasts() || conn::expire::<F, T>(t, key, true) != Expiry::Gone {
        return Err(Verdict::drop(Reason::Raced));
    }
    enter::<F, T>(t, &flow.key, &mut wish, conn, key).map(|()| true)
}

/// Writes the line back into the packet.
#[inline(always)]
fn write<F: Family, P: Packet>(p: &mut P, flow: &Flow<F>, (at, len): (usize, u32), line: &Line) -> Decision<()> {
    let failed = Verdict::drop(Reason::RewriteFailed);
    let before = p.sum(at, len).ok_or(failed)?;
    if !p.store(at, len, line) {
        return Err(failed);
    }
    let after = p.sum(at, len).ok_or(failed)?;
    let delta = checksum::add(checksum::negate(before), after);
    if p.patch_l4(flow.l4.check_at, 0, delta, L4::Tcp, F::V6) { Ok(()) } else { Err(failed) }
}
