//! HTTP/1.x (RFC 9110, RFC 9112): one GET and its answer.
//!
//! The answer's body is what counts for digest and regex: a body in chunks is put together first. Without either the
//! verdict stands when the header has come.

use super::lines::{Lines, Taken};
use super::pattern::Pattern;
use super::{End, Stream};
use crate::check::{Http, HttpVersion, Request};
use crate::machine::{Outcome, Weight};
use crate::why::Why;
use md5::{Digest, Md5};
use std::net::SocketAddr;

/// Bytes of a body that are kept for a regex; what comes later is not matched. A digest is of all of it.
pub const BODY_KEPT: usize = 1 << 20;

/// Longest line of a header, bytes.
const LINE: usize = 16 << 10;

/// Longest header, bytes: with all interim answers before it, and trailers.
const HEADER: usize = 64 << 10;

/// What the answer must be: made once, and used for each attempt.
#[derive(Clone, Debug)]
pub struct Expected {
    status: Vec<(u16, u16)>,
    digest: Option<[u8; 16]>,
    pattern: Option<Pattern>,
    close_notify: bool,
}

impl Expected {
    /// By this request of the check; the error is that of a pattern.
    pub fn new(check: &Http, request: &Request) -> Result<Self, Why> {
        let status = if request.status.is_empty() { vec![(200, 299)] } else { request.status.clone() };
        let digest = match &request.digest {
            Some(text) => {
                let bytes = super::udp::hex(text).and_then(|bytes| bytes.try_into().ok());
                Some(bytes.ok_or(Why::of("the digest is no MD5"))?)
            }
            None => None,
        };
        let pattern = request.regex.as_ref().map(Pattern::new).transpose()?;
        let tls = check.tls.as_ref();
        let close_notify = tls.is_some_and(|tls| request.close_notify.unwrap_or(tls.close_notify));
        Ok(Self { status, digest, pattern, close_notify })
    }

    fn body_counts(&self) -> bool {
        self.digest.is_some() || self.pattern.is_some()
    }
}

/// The requests of an attempt: all, or the part that a recovery is at.
pub fn requests(check: &Http, part: Option<u32>) -> &[Request] {
    let all = check.requests.as_slice();
    let one = part.and_then(|part| usize::try_from(part).ok()).and_then(|part| all.get(part..)?.get(..1));
    one.unwrap_or(all)
}

/// The request for a server at this address (the one that is connected to).
pub fn request(check: &Http, request: &Request, server: SocketAddr) -> Vec<u8> {
    let own = request.virtual_host.as_ref().or(check.virtual_host.as_ref());
    let host = own.cloned().unwrap_or_else(|| host(server, if check.tls.is_some() { 443 } else { 80 }));
    let (version, close) = match check.version {
        HttpVersion::V10 => ("1.0", ""),
        HttpVersion::V10Close => ("1.0", "Connection: close\r\n"),
        // There is one request on a connection: without this the server would wait for another.
        HttpVersion::V11 => ("1.1", "Connection: close\r\n"),
    };
    let path = &request.path;
    format!("GET {path} HTTP/{version}\r\nHost: {host}\r\nUser-Agent: dirigent\r\nAccept: */*\r\n{close}\r\n").into()
}

/// A Host header (RFC 9110 section 7.2): the port only if it is not the scheme's.
fn host(server: SocketAddr, default: u16) -> String {
    let address = match server {
        SocketAddr::V4(server) => server.ip().to_string(),
        // Without a scope, which means nothing to the server.
        SocketAddr::V6(server) => format!("[{}]", server.ip()),
    };
    if server.port() == default { address } else { format!("{address}:{}", server.port()) }
}

/// Where in the answer it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Status,
    Header(Framing),
    /// Up to the end of the connection.
    ToEnd,
    /// So many more bytes.
    Length(u64),
    ChunkSize,
    /// So many more bytes of this chunk.
    Chunk(u64),
    ChunkEnd,
    Trailer,
    /// The answer is whole; the connection's end is awaited.
    Whole,
}

/// What the header says of the body, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Framing {
    status: u16,
    length: Option<u64>,
    /// A transfer coding, which goes before a length; and whether chunks are the last one.
    coded: Option<bool>,
}

/// A request and its answer.
#[derive(Debug)]
pub struct Exchange {
    output: Vec<u8>,
    expected: Expected,
    place: Place,
    lines: Lines,
    /// Bytes of lines so far.
    header: usize,
    md5: Md5,
    kept: Vec<u8>,
    verdict: Option<Outcome>,
}

impl Exchange {
    /// One that sends this request, from [`request`].
    pub fn new(request: Vec<u8>, expected: Expected) -> Self {
        Self {
            output: request,
            expected,
            place: Place::Status,
            lines: Lines::new(LINE),
            header: 0,
            md5: Md5::new(),
            kept: Vec::new(),
            verdict: None,
        }
    }

    fn step(&mut self, bytes: &mut &[u8]) -> Result<(), Why> {
        match self.place {
            Place::Whole => *bytes = &[],
            Place::ToEnd => {
                self.take(bytes, u64::MAX);
            }
            Place::Length(left) => match left - self.take(bytes, left) {
                0 => self.whole(),
                left => self.place = Place::Length(left),
            },
            Place::Chunk(left) => match left - self.take(bytes, left) {
                0 => self.place = Place::ChunkEnd,
                left => self.place = Place::Chunk(left),
            },
            Place::Status | Place::Header(_) | Place::ChunkSize | Place::ChunkEnd | Place::Trailer => {
                match self.lines.take(bytes) {
                    Taken::Line(line) => self.line(&line)?,
                    Taken::More => {}
                    Taken::TooLong => return Err(Why::of("a line of the header is too long")),
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Why> {
        // Chunks are many, and each has two lines: only what belongs to no chunk is counted.
        if !matches!(self.place, Place::ChunkSize | Place::ChunkEnd) {
            self.header += line.len() + 2;
            if self.header > HEADER {
                return Err(Why::of("the header is too long"));
            }
        }
        match self.place {
            Place::Status => {
                let status = status(line).ok_or_else(|| Why::quoting("not HTTP/1.x:", line))?;
                self.place = Place::Header(Framing { status, length: None, coded: None });
            }
            Place::Header(framing) if line.is_empty() => self.after_header(framing),
            Place::Header(framing) => self.place = Place::Header(field(framing, line)?),
            Place::ChunkSize => {
                let size = chunk_size(line).ok_or_else(|| Why::quoting("bad size of a chunk:", line))?;
                self.place = if size == 0 { Place::Trailer } else { Place::Chunk(size) };
            }
            Place::ChunkEnd if line.is_empty() => self.place = Place::ChunkSize,
            Place::ChunkEnd => return Err(Why::of("a chunk is longer than it says")),
            Place::Trailer if line.is_empty() => self.whole(),
            Place::Trailer | Place::ToEnd | Place::Length(_) | Place::Chunk(_) | Place::Whole => {}
        }
        Ok(())
    }

    fn after_header(&mut self, framing: Framing) {
        let Framing { status, length, coded } = framing;
        // Interim answers; 101 is none, and none that is asked for.
        if (100..200).contains(&status) && status != 101 {
            self.place = Place::Status;
            return;
        }
        if !self.expected.status.iter().any(|(first, last)| (*first..=*last).contains(&status)) {
            self.verdict = Some(Err(Why::new(format!("status {status}"))));
        } else if !self.expected.body_counts() && !self.expected.close_notify {
            self.verdict = Some(Ok(Weight::Keep));
        } else {
            // RFC 9112 section 6.3.
            self.place = match (status, coded, length) {
                (204 | 304, ..) | (_, None, Some(0)) => return self.whole(),
                (_, Some(true), _) => Place::ChunkSize,
                (_, Some(false), _) | (_, None, None) => Place::ToEnd,
                (_, None, Some(length)) => Place::Length(length),
            };
        }
    }

    /// Takes at most `left` bytes of the body, and says how many.
    fn take(&mut self, bytes: &mut &[u8], left: u64) -> u64 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (piece, rest) = bytes.split_at(count);
        *bytes = rest;
        if self.expected.digest.is_some() {
            self.md5.update(piece);
        }
        if self.expected.pattern.is_some() {
            let room = BODY_KEPT.saturating_sub(self.kept.len()).min(piece.len());
            self.kept.extend_from_slice(piece.get(..room).unwrap_or_default());
            // The rest would change nothing, and may be endless.
            let last = self.expected.digest.is_none() && !self.expected.close_notify;
            if last && self.kept.len() >= BODY_KEPT {
                self.verdict = Some(self.body());
            }
        }
        u64::try_from(count).unwrap_or(left)
    }

    /// The body as it is known now.
    fn body(&self) -> Outcome {
        if self.expected.digest.is_some_and(|digest| self.md5.clone().finalize().as_slice() != digest) {
            return Err(Why::of("the body has another digest"));
        }
        match &self.expected.pattern {
            Some(pattern) => pattern.judge(&self.kept).map(|()| Weight::Keep),
            None => Ok(Weight::Keep),
        }
    }

    /// The answer is whole.
    fn whole(&mut self) {
        self.place = Place::Whole;
        if self.verdict.is_none() {
            let body = self.body();
            if body.is_err() || !self.expected.close_notify {
                self.verdict = Some(body);
            }
        }
    }
}

impl Stream for Exchange {
    fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn on_bytes(&mut self, mut bytes: &[u8]) {
        while self.verdict.is_none() && !bytes.is_empty() {
            if let Err(why) = self.step(&mut bytes) {
                self.verdict = Some(Err(why));
            }
        }
    }

    fn on_end(&mut self, end: End) {
        if self.verdict.is_some() {
            return;
        }
        match self.place {
            Place::ToEnd => self.whole(),
            Place::Whole => {}
            Place::Status if self.header == 0 && self.lines.rest().is_empty() => {
                self.verdict = Some(Err(Why::of("closed without an answer")));
            }
            _ => self.verdict = Some(Err(Why::of("the answer ended early"))),
        }
        self.verdict.get_or_insert(match end {
            End::Clean => Ok(Weight::Keep),
            End::Cut => Err(Why::of("closed without close_notify")),
        });
    }

    fn verdict(&self) -> Option<&Outcome> {
        self.verdict.as_ref()
    }
}

/// The code of a status line (RFC 9112 section 4).
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (&minor, rest) = rest.split_first()?;
    let (code, rest) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let well =
        minor.is_ascii_digit() && code.iter().all(u8::is_ascii_digit) && matches!(rest.first(), None | Some(b' '));
    let code = std::str::from_utf8(code).ok()?.parse().ok()?;
    (well && code >= 100).then_some(code)
}

/// One field of the header.
fn field(mut framing: Framing, line: &[u8]) -> Result<Framing, Why> {
    // A line without a colon, or a continuation of one before: not what this looks for.
    let Some(colon) = line.iter().position(|b| *b == b':') else { return Ok(framing) };
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    if name.eq_ignore_ascii_case(b"content-length") {
        let digits = (!value.is_empty() && value.iter().all(u8::is_ascii_digit)).then_some(value);
        let length = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        if length.is_none() || framing.length.is_some_and(|other| Some(other) != length) {
            return Err(Why::quoting("bad Content-Length:", value));
        }
        framing.length = length;
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        let last = value.rsplit(|b| *b == b',').next().unwrap_or_default().trim_ascii();
        framing.coded = Some(last.eq_ignore_ascii_case(b"chunked"));
    }
    Ok(framing)
}

/// The size of a chunk, extensions apart.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let hex = (!size.is_empty() && size.iter().all(u8::is_ascii_hexdigit)).then_some(size)?;
    u64::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}

#[cfg(test)]
mod tests;
