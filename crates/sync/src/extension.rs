//! What Dirigent's nodes say to each other beyond IPVS, in datagrams that real kernels ignore.
//! docs/sync.md has the byte tables.
//!
//! Two shapes. A **message** begins with a zero byte and has a version byte that is not 1, so a kernel
//! tries it as version 0 and finds no connections in it. A **stamp** follows the records of an
//! ordinary version 1 datagram, where a kernel does not look. Both carry who sent it, when, and
//! a number, and may end with a tag ([`crate::auth`]).

use crate::auth::{Key, TAG_BYTES};
use crate::cursor::Cursor;
use crate::message::{self, Datagram, MAX_BYTES, Version};
use crate::reason::Reason;
use crate::record;
use std::net::SocketAddr;

/// Version byte of the messages: not 1, or kernels would read them.
pub const VERSION: u8 = 0xd1;
/// Revision of the extension that this program speaks.
pub const REVISION: u8 = 1;
/// First bytes of a stamp.
const MAGIC: [u8; 4] = *b"DIRG";
/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 36;
/// Most ranges in one [`Body::Nack`].
pub const MAX_RANGES: usize = 64;
/// Most connections in one [`Body::Delete`].
pub const MAX_DELETED: usize = 30;
/// Most who ask for one bulk.
pub const MAX_ASKED: usize = 16;
/// The tag stands at the end of the datagram.
const FLAG_TAG: u8 = 1;

const HELLO: u8 = 1;
const NACK: u8 = 2;
const GONE: u8 = 3;
const BULK_REQUEST: u8 = 4;
const BULK_BEGIN: u8 = 5;
const BULK_END: u8 = 6;
const DELETE: u8 = 7;

/// What a node can do: bits of [`Hello::abilities`].
pub mod ability {
    /// Its datagrams are numbered, and it sends again what is missing.
    pub const REPAIR: u32 = 1;
    /// It sends all that it has to a node that joins.
    pub const BULK: u32 = 2;
}

/// Who sent a datagram, when, and which one it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The node. Not 0.
    pub node: u32,
    /// Which start of it: greater each time.
    pub boot: u64,
    /// Of numbered datagrams (records, deletions, begin and end of a bulk): one more than the last
    /// one's, from 1. Of what else a master says, and of what a backup asks for: greater than that
    /// of the last one of those.
    pub number: u64,
    /// When it was sent, by the sender's clock, milliseconds.
    pub sent_ms: u64,
}

/// What a node says of itself, every second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// Bits of [`ability`].
    pub abilities: u32,
    /// The start at which its tables were last empty: what was learned from it since then, it still
    /// tells itself, and what it does not tell is no more.
    pub epoch: u64,
    /// Number of the oldest datagram that it can send again.
    pub oldest: u64,
    /// Number that its next datagram will have.
    pub next: u64,
    /// How many connections and templates it has to tell of.
    pub connections: u64,
}

/// Numbers of datagrams, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first.
    pub first: u64,
    /// The last, not below `first`.
    pub last: u64,
}

/// One start of a node: who a request is to, or whom a connection was learned from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Origin {
    /// The node; 0 stands for all kernels.
    pub node: u32,
    /// Which start of it: greater each time.
    pub boot: u64,
}

impl Origin {
    /// Kernels, which do not say who they are.
    pub const KERNEL: Origin = Origin { node: 0, boot: 0 };
}

/// A message of the extension.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Here I am.
    Hello(Hello),
    /// These did not arrive: send them again.
    Nack {
        /// Whose they are.
        to: Origin,
        /// Which, at most [`MAX_RANGES`].
        ranges: Vec<Range>,
    },
    /// What was asked for is too old: the oldest that there is. Ask for all instead.
    Gone {
        /// Who asked.
        to: Origin,
        /// Number of the oldest datagram that could be sent again.
        oldest: u64,
    },
    /// Send all connections.
    BulkRequest {
        /// Who shall.
        to: Origin,
        /// Which request of the asker's: the same when it is repeated.
        request: u32,
    },
    /// Numbered: from here on all connections are sent, mixed with news.
    BulkBegin {
        /// Which bulk of the sender's.
        bulk: u32,
        /// Who asked for it, at most [`MAX_ASKED`]: it has what those do not know. Others may find in
        /// it what is no more.
        asked: Vec<Origin>,
    },
    /// Numbered: all have been sent.
    BulkEnd {
        /// Which bulk of the sender's.
        bulk: u32,
        /// How many records were sent since its begin, news among them.
        count: u64,
    },
    /// Numbered: these connections are no more.
    Delete(Vec<record::Key>),
}

impl Stamp {
    /// Who sent it.
    pub fn origin(&self) -> Origin {
        Origin { node: self.node, boot: self.boot }
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Body::Hello(_) => HELLO,
            Body::Nack { .. } => NACK,
            Body::Gone { .. } => GONE,
            Body::BulkRequest { .. } => BULK_REQUEST,
            Body::BulkBegin { .. } => BULK_BEGIN,
            Body::BulkEnd { .. } => BULK_END,
            Body::Delete(_) => DELETE,
        }
    }
    /// Whether it stands in the sequence of numbered datagrams.
    pub fn numbered(&self) -> bool {
        matches!(self, Body::BulkBegin { .. } | Body::BulkEnd { .. } | Body::Delete(_))
    }
}

/// What a datagram is, as far as the extension is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A kernel's, or that of a node without the extension.
    Plain,
    /// Records with a stamp: read as any version 1 datagram.
    Records(Stamp),
    /// A message.
    Message(Stamp, Body),
}

/// A datagram's stamp and where its tag begins.
#[derive(Clone, Copy)]
struct Head<'a> {
    stamp: Stamp,
    tagged: bool,
    /// What follows the stamp.
    rest: &'a [u8],
}

fn put_stamp(out: &mut Vec<u8>, stamp: &Stamp, tagged: bool) {
    out.extend(MAGIC);
    out.extend([REVISION, if tagged { FLAG_TAG } else { 0 }, 0, 0]);
    out.extend(stamp.node.to_be_bytes());
    for word in [stamp.boot, stamp.number, stamp.sent_ms] {
        out.extend(word.to_be_bytes());
    }
}

fn stamp(bytes: &[u8]) -> Result<Head<'_>, Reason> {
    let mut at = Cursor(bytes);
    let mut read = || {
        let magic = at.take(4)?;
        let (revision, flags, _spare) = (at.u8()?, at.u8()?, at.u16()?);
        let stamp = Stamp { node: at.u32()?, boot: at.u64()?, number: at.u64()?, sent_ms: at.u64()? };
        (magic == MAGIC && stamp.node != 0).then_some((revision, flags, stamp))
    };
    let (revision, flags, stamp) = read().ok_or(Reason::Malformed)?;
    if revision != REVISION {
        return Err(Reason::Unknown);
    }
    Ok(Head { stamp, tagged: flags & FLAG_TAG != 0, rest: at.0 })
}

/// Takes the tag off, after checking it if there is a key.
fn untagged<'a>(whole: &[u8], head: &Head<'a>, key: Option<&Key>) -> Result<&'a [u8], Reason> {
    let body = if head.tagged { head.rest.len().checked_sub(TAG_BYTES) } else { Some(head.rest.len()) };
    let (body, tag) = body.and_then(|n| head.rest.split_at_checked(n)).ok_or(Reason::Malformed)?;
    if let Some(key) = key {
        let signed = whole.len().checked_sub(TAG_BYTES).and_then(|n| whole.get(..n)).ok_or(Reason::Unauthentic)?;
        if !head.tagged || !key.verify(signed, tag) {
            return Err(Reason::Unauthentic);
        }
    }
    Ok(body)
}

/// Says what a datagram is. With a key, whatever claims to be of the extension must have a right
/// tag; without one, tags are not looked at.
pub fn parse(bytes: &[u8], key: Option<&Key>) -> Result<Seen, Reason> {
    let datagram = Datagram::parse(bytes)?;
    if datagram.version() == Version::V1 {
        let Some(trailer) = datagram.trailer().filter(|t| !t.is_empty()) else { return Ok(Seen::Plain) };
        let head = stamp(trailer)?;
        return match untagged(bytes, &head, key)? {
            [] => Ok(Seen::Records(head.stamp)),
            _ => Err(Reason::Malformed),
        };
    }
    match bytes.get(..8) {
        Some(&[0, _, _, _, kind, VERSION, _, _]) => {
            let head = stamp(bytes.get(8..).unwrap_or_default())?;
            let mut at = Cursor(untagged(bytes, &head, key)?);
            let body = body(kind, &mut at)?;
            if at.is_empty() { Ok(Seen::Message(head.stamp, body)) } else { Err(Reason::Malformed) }
        }
        _ => Ok(Seen::Plain),
    }
}

fn body(kind: u8, at: &mut Cursor<'_>) -> Result<Body, Reason> {
    let read = match kind {
        HELLO => hello(at).map(Body::Hello),
        NACK => nack(at),
        GONE => gone(at),
        BULK_REQUEST => request(at),
        BULK_BEGIN => begin(at),
        BULK_END => end(at),
        DELETE => delete(at),
        _ => return Err(Reason::Unknown),
    };
    read.ok_or(Reason::Malformed)
}

fn origin(at: &mut Cursor<'_>) -> Option<Origin> {
    Some(Origin { node: at.u32()?, boot: at.u64()? })
}
fn hello(at: &mut Cursor<'_>) -> Option<Hello> {
    let (abilities, _spare) = (at.u32()?, at.u32()?);
    let hello = Hello { abilities, epoch: at.u64()?, oldest: at.u64()?, next: at.u64()?, connections: at.u64()? };
    // Numbers begin with 1, and the last one is never reached.
    (hello.oldest >= 1 && hello.next >= hello.oldest && hello.next < u64::MAX).then_some(hello)
}
fn nack(at: &mut Cursor<'_>) -> Option<Body> {
    let to = origin(at)?;
    let count = usize::from(at.u16()?);
    if count == 0 || count > MAX_RANGES {
        return None;
    }
    let mut range = || {
        let range = Range { first: at.u64()?, last: at.u64()? };
        (1 <= range.first && range.first <= range.last).then_some(range)
    };
    let ranges = (0..count).map(|_| range()).collect::<Option<_>>()?;
    Some(Body::Nack { to, ranges })
}
fn gone(at: &mut Cursor<'_>) -> Option<Body> {
    Some(Body::Gone { to: origin(at)?, oldest: at.u64()? })
}
fn request(at: &mut Cursor<'_>) -> Option<Body> {
    Some(Body::BulkRequest { to: origin(at)?, request: at.u32()? })
}
fn begin(at: &mut Cursor<'_>) -> Option<Body> {
    let bulk = at.u32()?;
    let count = usize::from(at.u16()?);
    let asked = (count <= MAX_ASKED).then(|| (0..count).map(|_| origin(at)).collect::<Option<_>>());
    Some(Body::BulkBegin { bulk, asked: asked.flatten()? })
}
fn end(at: &mut Cursor<'_>) -> Option<Body> {
    Some(Body::BulkEnd { bulk: at.u32()?, count: at.u64()? })
}

fn delete(at: &mut Cursor<'_>) -> Option<Body> {
    let count = usize::from(at.u16()?);
    if count == 0 || count > MAX_DELETED {
        return None;
    }
    (0..count).map(|_| deleted(at)).collect::<Option<_>>().map(Body::Delete)
}

const KEY_V6: u8 = 1;
const KEY_TEMPLATE: u8 = 2;

fn deleted(at: &mut Cursor<'_>) -> Option<record::Key> {
    let (bits, protocol, client, service) = (at.u8()?, at.u8()?, at.u16()?, at.u16()?);
    let mut end = |port| -> Option<SocketAddr> {
        Some(if bits & KEY_V6 != 0 { (at.v6()?, port).into() } else { (at.v4()?, port).into() })
    };
    let (client, service) = (end(client)?, end(service)?);
    let length = usize::from(at.u8()?);
    let pe_data = at.take(length)?.into();
    Some(record::Key { template: bits & KEY_TEMPLATE != 0, protocol, client, service, pe_data })
}

fn put_deleted(out: &mut Vec<u8>, key: &record::Key) {
    let bits = if key.client.is_ipv6() { KEY_V6 } else { 0 } | if key.template { KEY_TEMPLATE } else { 0 };
    out.extend([bits, key.protocol]);
    for end in [key.client, key.service] {
        out.extend(end.port().to_be_bytes());
    }
    for end in [key.client, key.service] {
        match end {
            SocketAddr::V4(v4) => out.extend(v4.ip().octets()),
            SocketAddr::V6(v6) => out.extend(v6.ip().octets()),
        }
    }
    let length = u8::try_from(key.pe_data.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend(key.pe_data.iter().take(usize::from(length)));
}

fn put_origin(out: &mut Vec<u8>, to: Origin) {
    out.extend(to.node.to_be_bytes());
    out.extend(to.boot.to_be_bytes());
}

/// Writes a message.
pub fn emit(sync_id: u8, stamp: &Stamp, body: &Body, key: Option<&Key>) -> Vec<u8> {
    let mut out = vec![0, sync_id, 0, 0, body.kind(), VERSION, 0, 0];
    put_stamp(&mut out, stamp, key.is_some());
    match body {
        Body::Hello(hello) => {
            out.extend(hello.abilities.to_be_bytes());
            out.extend([0; 4]);
            for word in [hello.epoch, hello.oldest, hello.next, hello.connections] {
                out.extend(word.to_be_bytes());
            }
        }
        Body::Nack { to, ranges } => {
            put_origin(&mut out, *to);
            let ranges = ranges.get(..MAX_RANGES).unwrap_or(ranges);
            out.extend((ranges.len() as u16).to_be_bytes());
            for range in ranges {
                out.extend(range.first.to_be_bytes());
                out.extend(range.last.to_be_bytes());
            }
        }
        Body::Gone { to, oldest } => {
            put_origin(&mut out, *to);
            out.extend(oldest.to_be_bytes());
        }
        Body::BulkRequest { to, request } => {
            put_origin(&mut out, *to);
            out.extend(request.to_be_bytes());
        }
        Body::BulkBegin { bulk, asked } => {
            out.extend(bulk.to_be_bytes());
            let asked = asked.get(..MAX_ASKED).unwrap_or(asked);
            out.extend((asked.len() as u16).to_be_bytes());
            asked.iter().for_each(|origin| put_origin(&mut out, *origin));
        }
        Body::BulkEnd { bulk, count } => {
            out.extend(bulk.to_be_bytes());
            out.extend(count.to_be_bytes());
        }
        Body::Delete(keys) => {
            let keys = keys.get(..MAX_DELETED).unwrap_or(keys);
            out.extend((keys.len() as u16).to_be_bytes());
            for key in keys {
                put_deleted(&mut out, key);
            }
        }
    }
    sign(&mut out, key);
    out
}

/// Bytes that [`stamp_records`] adds to a datagram at most.
pub fn stamp_room(key: Option<&Key>) -> usize {
    3 + STAMP_BYTES + if key.is_some() { TAG_BYTES } else { 0 }
}

/// Puts a stamp behind the records of a version 1 datagram.
pub fn stamp_records(datagram: &mut Vec<u8>, stamp: &Stamp, key: Option<&Key>) {
    let mut bytes = Vec::with_capacity(stamp_room(key));
    put_stamp(&mut bytes, stamp, key.is_some());
    message::append(datagram, &bytes);
    sign(datagram, key);
}

/// Writes the size, and the tag if there is a key.
fn sign(datagram: &mut Vec<u8>, key: Option<&Key>) {
    let tag = if key.is_some() { TAG_BYTES } else { 0 };
    // The longest message is below 10 kB, the longest datagram of records leaves room for a stamp.
    let size = u16::try_from((datagram.len() + tag).min(MAX_BYTES)).unwrap_or(u16::MAX);
    if let Some(field) = datagram.get_mut(2..4) {
        field.copy_from_slice(&size.to_be_bytes());
    }
    if let Some(key) = key {
        let tag = key.tag(datagram);
        datagram.extend(tag);
    }
}

#[cfg(test)]
mod tests;
