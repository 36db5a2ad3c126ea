//! The datagrams of IPVS: reading versions 0 and 1, writing version 1 (§9.2, §9.3).
//!
//! [`Datagram::parse`] checks what concerns the whole; [`Datagram::records`] gives one after
//! the other, each read or dropped with its [`Reason`]. A receiver drops exactly what the
//! kernel's does; crates/sync/recordings has its answers to malformed ones.

use crate::cursor::Cursor;
use crate::reason::{Reason, Scope};
use crate::record::{Ends, Flags, Pe, Recency, Record, Sequence, Shift};
use crate::state;
use std::net::SocketAddr;

/// Bytes of version 1's header.
pub const HEADER_BYTES: usize = 8;
/// Most records in one datagram: the count has 8 bits, and the kernel lets it wrap (§9.2).
pub const MAX_RECORDS: usize = 255;
/// Bytes of an IPv4 record without options.
pub const V4_BYTES: usize = 36;
/// Bytes of an IPv6 record without options.
pub const V6_BYTES: usize = 72;
/// Bytes of the longest datagram, whose size has 16 bits.
pub const MAX_BYTES: usize = 65535;

const RECORD0_BYTES: usize = 24;
const SEQUENCE_BYTES: usize = 24;
const VERSION: u8 = 1;
const TYPE_V6: u8 = 1;
const LENGTH_MASK: u16 = 0x0fff;

/// Option types. Bit 6 says that who does not know the option may skip it.
mod option {
    pub const OPTIONAL: u8 = 0x40;
    pub const SEQUENCE: u8 = 1;
    pub const PE_DATA: u8 = 2;
    pub const PE_NAME: u8 = 3;
    /// The extension's: milliseconds idle and the node that knows, 32 bits each.
    pub const RECENCY: u8 = 0x24;
}

/// Which version a datagram is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// 24-byte records, IPv4 alone.
    V0,
    /// What kernels since 2.6.39 send unless told otherwise.
    V1,
}

/// A datagram whose header is right.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    version: Version,
    sync_id: u8,
    count: u8,
    body: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads the header; the datagram must be as long as it says.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Reason> {
        let mut at = Cursor(bytes);
        let (Some(first), Some(sync_id), Some(size)) = (at.u8(), at.u8(), at.u16()) else {
            return Err(Reason::Short);
        };
        if usize::from(size) != bytes.len() {
            return Err(Reason::Size);
        }
        let old = at;
        // All that is not exactly version 1 is tried as version 0, whose count comes first: hence
        // the zero there.
        if let (0, Some(count), Some(VERSION), Some(0)) = (first, at.u8(), at.u8(), at.u16()) {
            return Ok(Self { version: Version::V1, sync_id, count, body: at.0 });
        }
        Ok(Self { version: Version::V0, sync_id, count: first, body: old.0 })
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }
    /// The sync id.
    pub fn sync_id(&self) -> u8 {
        self.sync_id
    }
    /// How many records it says it has.
    pub fn count(&self) -> u8 {
        self.count
    }
    /// The records, in order.
    pub fn records(&self) -> Records<'a> {
        Records { version: self.version, left: self.count, at: Cursor(self.body), padding: 0 }
    }
    /// What follows the records and their padding in version 1, by lengths alone: empty in what a
    /// kernel sends. Nothing if the records do not end properly.
    pub fn trailer(&self) -> Option<&'a [u8]> {
        let mut at = Cursor(self.body);
        let mut before = 0;
        for _ in 0..self.count {
            at.take(before)?;
            let length = usize::from(Cursor(at.0.get(2..4)?).u16()? & LENGTH_MASK);
            at.take(length)?;
            before = padding(length);
        }
        // Behind the last record there is padding only if something follows it.
        if !at.is_empty() {
            at.take(before)?;
        }
        Some(at.0)
    }
}

/// Bytes up to the next multiple of four.
fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

/// The records of a datagram: each read, or dropped with a reason. Ends behind a reason whose
/// [`Scope`] is [`Scope::Rest`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    version: Version,
    left: u8,
    at: Cursor<'a>,
    /// Bytes between the last record and the next.
    padding: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let item = match self.version {
            Version::V0 => self.next0(),
            Version::V1 => self.next1(),
        };
        if matches!(&item, Err(reason) if reason.scope() != Scope::Record) {
            self.left = 0;
        }
        Some(item)
    }
}

impl Records<'_> {
    fn next1(&mut self) -> Result<Record, Reason> {
        // The last record has no padding, so what is missing there is the next record.
        self.at.take(self.padding).ok_or(Reason::RecordShort)?;
        if self.at.0.len() < V4_BYTES {
            return Err(Reason::RecordShort);
        }
        let mut head = self.at;
        let (Some(kind), Some(protocol), Some(word)) = (head.u8(), head.u8(), head.u16()) else {
            return Err(Reason::RecordShort);
        };
        let length = usize::from(word & LENGTH_MASK);
        let whole = self.at.take(length).ok_or(Reason::RecordOverruns)?;
        if word & !LENGTH_MASK != 0 {
            return Err(Reason::RecordVersion);
        }
        self.padding = padding(length);
        let v6 = match kind {
            0 => false,
            kind if kind & TYPE_V6 != 0 => true,
            _ => return Err(Reason::RecordType),
        };
        let mut at = Cursor(whole);
        // A record shorter than four bytes has nothing to be read behind.
        at.take(4).ok_or(Reason::RecordLength)?;
        let fixed = fixed(&mut at, v6).ok_or(Reason::RecordLength)?;
        let options = Options::parse(at)?;
        let record = Record { protocol, sequence: options.sequence, recency: options.recency, ..fixed };
        known(&record)?;
        let pe = match (options.pe_name, options.pe_data) {
            (Some(name), Some(data)) => Pe::new(name, data),
            (None, Some(_)) => return Err(Reason::PeUnnamed),
            // A name alone means nothing.
            (_, None) => None,
        };
        Ok(Record { pe, ..record })
    }

    fn next0(&mut self) -> Result<Record, Reason> {
        let mut at = Cursor(self.at.take(RECORD0_BYTES).ok_or(Reason::OldRecordShort)?);
        let mut record = old(&mut at).ok_or(Reason::OldRecordShort)?;
        if record.flags.has(Flags::SEQ) {
            let mut at = Cursor(self.at.take(SEQUENCE_BYTES).ok_or(Reason::OldRecordShort)?);
            record.sequence = sequence(&mut at, Cursor::host_u32);
        }
        known(&record)?;
        Ok(record)
    }
}

/// The fixed part of a version 1 record, from its flags on; the protocol is put in by the caller.
fn fixed(at: &mut Cursor<'_>, v6: bool) -> Option<Record> {
    let flags = Flags(at.u32()?);
    let state = at.u16()?;
    let ports = [at.u16()?, at.u16()?, at.u16()?];
    let fwmark = at.u32()?;
    let timeout_seconds = at.u32()?;
    let [client, service, real] = ports;
    let ends = if v6 {
        Ends::v6((at.v6()?, client), (at.v6()?, service), (at.v6()?, real))
    } else {
        Ends::v4((at.v4()?, client), (at.v4()?, service), (at.v4()?, real))
    };
    Some(Record { protocol: 0, flags, state, ends, fwmark, timeout_seconds, sequence: None, pe: None, recency: None })
}

/// A version 0 record without its sequence data.
fn old(at: &mut Cursor<'_>) -> Option<Record> {
    let _reserved = at.u8()?;
    let protocol = at.u8()?;
    let [client, service, real] = [at.u16()?, at.u16()?, at.u16()?];
    let ends = Ends::v4((at.v4()?, client), (at.v4()?, service), (at.v4()?, real));
    let flags = Flags(u32::from(at.u16()?) & !Flags::HASHED);
    let state = at.u16()?;
    Some(Record {
        protocol,
        flags,
        state,
        ends,
        fwmark: 0,
        timeout_seconds: 0,
        sequence: None,
        pe: None,
        recency: None,
    })
}

fn sequence<'a>(at: &mut Cursor<'a>, word: fn(&mut Cursor<'a>) -> Option<u32>) -> Option<Sequence> {
    let mut shift = || Some(Shift { init: word(at)?, delta: word(at)?, previous: word(at)? });
    Some(Sequence { requests: shift()?, replies: shift()? })
}

/// Of connections, protocol and state must be known, of templates the state. (§9.2 says that a
/// template's state is only logged; kernel 6.1 drops it: recordings/backup.json, `templates`.)
fn known(record: &Record) -> Result<(), Reason> {
    let states = match record.flags.template() {
        true => state::TEMPLATE_STATES,
        false => state::count(record.protocol).ok_or(Reason::Protocol)?,
    };
    if record.state >= states { Err(Reason::State) } else { Ok(()) }
}

#[derive(Default)]
struct Options<'a> {
    sequence: Option<Sequence>,
    pe_data: Option<&'a [u8]>,
    pe_name: Option<&'a [u8]>,
    recency: Option<Recency>,
}

impl<'a> Options<'a> {
    fn parse(mut at: Cursor<'a>) -> Result<Self, Reason> {
        let mut got = Self::default();
        while !at.is_empty() {
            let (Some(kind), Some(length)) = (at.u8(), at.u8()) else { return Err(Reason::OptionShort) };
            let data = at.take(usize::from(length)).filter(|d| !d.is_empty()).ok_or(Reason::OptionLength)?;
            // What is known is read with and without the bit that says it may be skipped.
            match kind & !option::OPTIONAL {
                option::SEQUENCE => {
                    let right = data.len() == SEQUENCE_BYTES && got.sequence.is_none();
                    let read = right.then(|| sequence(&mut Cursor(data), Cursor::u32)).flatten();
                    got.sequence = Some(read.ok_or(Reason::OptionSequence)?);
                }
                option::PE_DATA if got.pe_data.is_some() => return Err(Reason::OptionPeData),
                option::PE_DATA => got.pe_data = Some(data),
                option::PE_NAME if got.pe_name.is_some() || data.len() > Pe::NAME_BYTES => {
                    return Err(Reason::OptionPeName);
                }
                option::PE_NAME => got.pe_name = Some(data),
                // Another length is a later program's: it may be skipped.
                option::RECENCY if kind & option::OPTIONAL != 0 => got.recency = recency(data).or(got.recency),
                _ if kind & option::OPTIONAL != 0 => {}
                _ => return Err(Reason::OptionUnknown),
            }
        }
        Ok(got)
    }
}

fn recency(data: &[u8]) -> Option<Recency> {
    let mut at = Cursor(data);
    let recency = Recency { idle_ms: at.u32()?, node: at.u32()? };
    at.is_empty().then_some(recency)
}

fn put_end(out: &mut Vec<u8>, end: SocketAddr) {
    match end {
        SocketAddr::V4(v4) => out.extend(v4.ip().octets()),
        SocketAddr::V6(v6) => out.extend(v6.ip().octets()),
    }
}

fn put_option(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    // Data is at most 255 bytes by the types that it comes from.
    if let Ok(length) = u8::try_from(data.len()) {
        out.extend([kind, length]);
        out.extend(data);
    }
}

/// Appends one version 1 record, without padding. Sequence data, a persistence engine's and
/// the recency follow it if there are any.
fn emit(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    let v6 = record.ends.is_v6();
    out.extend([u8::from(v6), record.protocol, 0, 0]);
    out.extend((record.flags.0 & !Flags::HASHED).to_be_bytes());
    out.extend(record.state.to_be_bytes());
    let ends = [record.ends.client(), record.ends.service(), record.ends.real()];
    for end in ends {
        out.extend(end.port().to_be_bytes());
    }
    out.extend(record.fwmark.to_be_bytes());
    out.extend(record.timeout_seconds.to_be_bytes());
    for end in ends {
        put_end(out, end);
    }
    if let Some(Sequence { requests, replies }) = record.sequence {
        let words = [requests.init, requests.delta, requests.previous, replies.init, replies.delta, replies.previous];
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
        put_option(out, option::SEQUENCE, &bytes);
    }
    if let Some(pe) = &record.pe {
        put_option(out, option::PE_DATA, pe.data());
        put_option(out, option::PE_NAME, pe.name());
    }
    if let Some(Recency { idle_ms, node }) = record.recency {
        let data = (u64::from(idle_ms) << 32 | u64::from(node)).to_be_bytes();
        put_option(out, option::OPTIONAL | option::RECENCY, &data);
    }
    // At most 72 + 26 + 257 + 18 + 10 bytes: it fits 12 bits.
    let length = u16::try_from(out.len() - start).unwrap_or(LENGTH_MASK) & LENGTH_MASK;
    if let Some(field) = out.get_mut(start + 2..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Fills version 1 datagrams with records (§9.4): one leaves when the next record does not fit, or some
/// time after its first one.
#[derive(Clone, Debug)]
pub struct Packer {
    sync_id: u8,
    max_len: usize,
    flush_after_ms: u64,
    buffer: Vec<u8>,
    count: u8,
    since_ms: u64,
}

impl Packer {
    /// How long the kernel keeps a datagram that is not full.
    pub const FLUSH_AFTER_MS: u64 = 2000;

    /// Datagrams of at most `max_len` bytes (the UDP payload: 1472 of IPv4 in 1500), but for one
    /// with a record that is longer by itself.
    pub fn new(sync_id: u8, max_len: usize, flush_after_ms: u64) -> Self {
        let max_len = max_len.min(MAX_BYTES);
        Self { sync_id, max_len, flush_after_ms, buffer: Vec::new(), count: 0, since_ms: 0 }
    }

    /// Takes a record; gives the datagram that it did not fit into.
    #[must_use]
    pub fn push(&mut self, now_ms: u64, record: &Record) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(128);
        emit(record, &mut bytes);
        let length = self.buffer.len() + padding(self.buffer.len()) + bytes.len();
        let full = length > self.max_len || usize::from(self.count) == MAX_RECORDS;
        let done = if full { self.flush() } else { None };
        if self.buffer.is_empty() {
            self.since_ms = now_ms;
            self.buffer.extend([0, self.sync_id, 0, 0, 0, VERSION, 0, 0]);
        }
        self.buffer.resize(self.buffer.len() + padding(self.buffer.len()), 0);
        self.buffer.extend(bytes);
        self.count = self.count.saturating_add(1);
        done
    }

    /// When the datagram that is being filled is due, if one is.
    pub fn due_ms(&self) -> Option<u64> {
        (self.count > 0).then(|| self.since_ms.saturating_add(self.flush_after_ms))
    }

    /// The datagram that is due by now.
    #[must_use]
    pub fn poll(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        if self.due_ms().is_some_and(|due| due <= now_ms) { self.flush() } else { None }
    }

    /// What there is.
    #[must_use]
    pub fn flush(&mut self) -> Option<Vec<u8>> {
        if self.count == 0 {
            return None;
        }
        let mut done = std::mem::take(&mut self.buffer);
        seal(&mut done, self.count);
        self.count = 0;
        Some(done)
    }
}

/// Writes size and count into a datagram.
fn seal(datagram: &mut [u8], count: u8) {
    // No datagram is longer: a record is at most 383 bytes beyond max_len.
    let size = u16::try_from(datagram.len()).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(fields) = datagram.get_mut(2..5) {
        let [a, b] = size;
        fields.copy_from_slice(&[a, b, count]);
    }
}

/// Appends to a version 1 datagram what a kernel does not read: padding and `more`, and mends the
/// size.
pub(crate) fn append(datagram: &mut Vec<u8>, more: &[u8]) {
    datagram.resize(datagram.len() + padding(datagram.len()), 0);
    datagram.extend(more);
    let count = datagram.get(4).copied().unwrap_or(0);
    seal(datagram, count);
}

#[cfg(test)]
mod tests;
