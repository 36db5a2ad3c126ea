//! Building and reading netlink messages: a fixed header, then attributes padded to four bytes.
//!
//! Written here rather than taken from a library of typed messages, because a load balancer must keep reading links and
//! routes on kernels newer than itself: unknown attributes are skipped, not refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    buffer: Vec<u8>,
}

impl Message {
    /// A message of `kind` with `flags` and the protocol's fixed header.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut buffer = vec![0; 4];
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&flags.to_ne_bytes());
        buffer.extend_from_slice(&[0; 8]);
        buffer.extend_from_slice(fixed);
        pad(&mut buffer);
        Message { buffer }
    }

    /// Adds an attribute.
    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.buffer, kind, value);
        self
    }

    /// Adds a 32-bit attribute in host order.
    pub(crate) fn attr_u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds a string attribute with its closing zero.
    pub(crate) fn attr_str(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Adds an address attribute.
    pub(crate) fn attr_ip(self, kind: u16, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => self.attr(kind, &ip.octets()),
            IpAddr::V6(ip) => self.attr(kind, &ip.octets()),
        }
    }

    /// Adds a nested attribute whose content `fill` writes, after `fixed` bytes that some nests start with.
    pub(crate) fn nest(mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(Self) -> Self) -> Self {
        let mut inner = Message { buffer: fixed.to_vec() };
        pad(&mut inner.buffer);
        let inner = fill(inner);
        put(&mut self.buffer, kind | NLA_F_NESTED, &inner.buffer);
        self
    }

    /// The bytes to send, with sequence number and length filled in.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.buffer.len() as u32;
        for (at, value) in [(0, length), (8, sequence)] {
            if let Some(field) = self.buffer.get_mut(at..at + 4) {
                field.copy_from_slice(&value.to_ne_bytes());
            }
        }
        self.buffer
    }

    /// The flags that the message was built with.
    pub(crate) fn flags(&self) -> u16 {
        read_u16(&self.buffer, 6).unwrap_or(0)
    }
}

fn put(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    buffer.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(value);
    pad(buffer);
}

fn pad(buffer: &mut Vec<u8>) {
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// One message as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages in one datagram; stops at the first that is cut short.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        let length = read_u32(self.0, 0)? as usize;
        let body = self.0.get(HEADER..length)?;
        let raw = Raw { kind: read_u16(self.0, 4)?, flags: read_u16(self.0, 6)?, sequence: read_u32(self.0, 8)?, body };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(raw)
    }
}

/// The attributes of a message; stops at the first that is cut short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes after a fixed header of `fixed` bytes.
    pub(crate) fn after(body: &'a [u8], fixed: usize) -> Self {
        Attributes(body.get(fixed.next_multiple_of(4)..).unwrap_or(&[]))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = read_u16(self.0, 0)? as usize;
        let kind = read_u16(self.0, 2)? & NLA_TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A string attribute without its closing zero.
pub(crate) fn read_str(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or(&[])).into_owned()
}

/// An address attribute, by its length.
pub(crate) fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let bytes = Message::new(16, 5, &[1, 2, 3, 4])
            .attr_str(3, "eth0")
            .nest(18, &[], |m| m.attr_u32(1, 7))
            .attr_ip(1, "2001:db8::10".parse().unwrap())
            .finish(9);
        let mut messages = Messages(&bytes);
        let raw = messages.next().unwrap();
        assert_eq!((raw.kind, raw.flags, raw.sequence), (16, 5, 9));
        assert!(messages.next().is_none());
        let attributes: Vec<_> = Attributes::after(raw.body, 4).collect();
        assert_eq!(attributes.len(), 3);
        assert_eq!((attributes[0].0, read_str(attributes[0].1)), (3, "eth0".to_string()));
        assert_eq!(attributes[1].0, 18);
        let inner: Vec<_> = Attributes(attributes[1].1).collect();
        assert_eq!((inner[0].0, read_u32(inner[0].1, 0)), (1, Some(7)));
        assert_eq!(read_ip(attributes[2].1), Some("2001:db8::10".parse().unwrap()));
    }

    #[test]
    fn cut_short_input_ends_the_walk() {
        let bytes = Message::new(16, 0, &[0; 4]).attr(1, &[1, 2, 3, 4]).finish(0);
        for end in 0..bytes.len() {
            assert_eq!(Messages(&bytes[..end]).count(), 0, "{end}");
        }
        assert_eq!(Attributes(&[8, 0, 1, 0, 9]).count(), 0);
        assert_eq!(Attributes(&[0, 0, 0, 0]).count(), 0, "a length of zero must not loop");
        assert_eq!(Messages(&[0; 16]).count(), 0, "a length of zero must not loop");
    }
}
