//! Mark rules: which packets have which firewall mark.
//!
//! Neither XDP nor tc sees a mark that netfilter sets later, so the director marks for
//! itself, by what iptables' MARK rules mostly say.

use crate::error::Violation;
use crate::settings::interface_name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Mark rules at most.
pub const MAX_MARK_RULES: usize = dirigent_director::records::MARK_RULES as usize;

/// Protocols by name, as iptables and nft call them: for people, numbers do as well.
pub const PROTOCOLS: [(&str, u8); 10] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("sctp", 132),
    ("udplite", 136),
];

/// One thing that a rule asks of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Test<T> {
    /// What it compares with.
    pub is: T,
    /// The packet must differ.
    pub not: bool,
}

impl<T> Test<T> {
    /// The packet must be so.
    pub fn is(is: T) -> Self {
        Self { is, not: false }
    }
    /// The packet must not be so.
    pub fn is_not(is: T) -> Self {
        Self { is, not: true }
    }
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// Addresses with the same first `length` bits; the others of `address` do not count.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(a) if length <= 32 => Ipv4Addr::from_bits(a.to_bits() & mask4(length)).into(),
            IpAddr::V6(a) if length <= 128 => Ipv6Addr::from_bits(a.to_bits() & mask6(length)).into(),
            _ => return None,
        };
        Some(Self { address, length })
    }
    /// All addresses of a family.
    pub fn everyone(ipv6: bool) -> Self {
        let address = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        Self { address, length: 0 }
    }
    /// Reads `192.0.2.0/24`, or an address alone.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address.parse().ok()?, Some(length.parse().ok()?)),
            None => (text.parse().ok()?, None),
        };
        Self::new(address, length.unwrap_or(if IpAddr::is_ipv4(&address) { 32 } else { 128 }))
    }
    /// The first of its addresses.
    pub fn address(&self) -> IpAddr {
        self.address
    }
    /// How many bits count.
    pub fn length(&self) -> u8 {
        self.length
    }
    /// These bits, as an address.
    pub fn mask(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => Ipv4Addr::from_bits(mask4(self.length)).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(mask6(self.length)).into(),
        }
    }
}

fn mask4(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}
fn mask6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Ports from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// From `first` to `last`, which is not smaller.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }
    /// Reads `80` or `1024-65535`.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        Self::new(number(first)?, number(last)?)
    }
    /// The smallest.
    pub fn first(&self) -> u16 {
        self.first
    }
    /// The largest.
    pub fn last(&self) -> u16 {
        self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// A rule. Rules are gone through in order, and each that a packet passes all tests of changes
/// its mark, which is 0 at first: bits of `mask` are cleared, then those of `set` are flipped
/// (iptables' `--set-xmark`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MarkRule {
    /// It is for IPv6 packets, else for IPv4.
    pub ipv6: bool,
    /// Name of the interface that the packet came by.
    pub interface: Option<Test<String>>,
    /// Source address.
    pub source: Option<Test<Prefix>>,
    /// Destination address.
    pub destination: Option<Test<Prefix>>,
    /// IP protocol, not 0.
    pub protocol: Option<Test<u8>>,
    /// Source port. Packets without ports have 0.
    pub source_ports: Option<Test<Ports>>,
    /// Destination port.
    pub destination_ports: Option<Test<Ports>>,
    /// Bits that are flipped.
    pub set: u32,
    /// Bits that are cleared before.
    pub mask: u32,
}

impl MarkRule {
    /// All packets of a family get this mark.
    pub fn all(ipv6: bool, mark: u32) -> Self {
        Self {
            ipv6,
            interface: None,
            source: None,
            destination: None,
            protocol: None,
            source_ports: None,
            destination_ports: None,
            set: mark,
            mask: u32::MAX,
        }
    }
    /// Its tests as (key in dirigent.toml, value there, whether the packet must differ).
    pub(crate) fn tests(&self) -> Vec<(&'static str, String, bool)> {
        fn of<T>(
            key: &'static str,
            test: &Option<Test<T>>,
            text: impl Fn(&T) -> String,
        ) -> Option<(&'static str, String, bool)> {
            test.as_ref().map(|test| (key, text(&test.is), test.not))
        }
        let all = [
            of("interface", &self.interface, String::clone),
            of("source", &self.source, Prefix::to_string),
            of("destination", &self.destination, Prefix::to_string),
            of("protocol", &self.protocol, |number| protocol_name(*number)),
            of("source_ports", &self.source_ports, Ports::to_string),
            of("destination_ports", &self.destination_ports, Ports::to_string),
        ];
        all.into_iter().flatten().collect()
    }
    /// What is wrong with it.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut out = Vec::new();
        if let Some(test) = &self.interface
            && !interface_name(&test.is)
        {
            out.push(Violation::MarkInterface(test.is.clone()));
        }
        for (key, test) in [("source", &self.source), ("destination", &self.destination)] {
            if let Some(test) = test
                && test.is.address.is_ipv6() != self.ipv6
            {
                out.push(Violation::MarkFamily { key, prefix: test.is.to_string() });
            }
        }
        if self.protocol.is_some_and(|test| test.is == 0) {
            out.push(Violation::MarkProtocol("0".into()));
        }
        out
    }
}

impl fmt::Display for MarkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.ipv6 { "IPv6" } else { "IPv4" })?;
        for (key, value, not) in self.tests() {
            write!(f, " {} {}{value}", key.replace('_', " "), if not { "not " } else { "" })?;
        }
        match self.mask {
            u32::MAX => write!(f, " mark {}", self.set),
            mask => write!(f, " mark {:#x}/{mask:#x}", self.set),
        }
    }
}

/// A protocol's name, or its number if it has none here.
pub(crate) fn protocol_name(number: u8) -> String {
    let named = PROTOCOLS.iter().find(|(_, n)| *n == number);
    named.map_or_else(|| number.to_string(), |(name, _)| (*name).into())
}

/// The protocol of that name or number, not 0.
pub(crate) fn protocol(text: &str) -> Option<u8> {
    let named = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))).filter(|n| *n != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (text, is) in [
            ("192.0.2.77/24", Some("192.0.2.0/24")),
            ("192.0.2.77", Some("192.0.2.77/32")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:db8::ff/112", Some("2001:db8::/112")),
            ("::/0", Some("::/0")),
            ("192.0.2.0/33", None),
            ("2001:db8::/129", None),
            ("192.0.2/24", None),
            ("/24", None),
        ] {
            assert_eq!(Prefix::parse(text).map(|p| p.to_string()).as_deref(), is, "{text}");
        }
        assert_eq!(Prefix::parse("10.0.0.0/20").unwrap().mask().to_string(), "255.255.240.0");
        assert_eq!(Prefix::parse("fd00::/20").unwrap().mask().to_string(), "ffff:f000::");
    }

    #[test]
    fn ports_and_protocols() {
        for (text, is) in
            [("80", Some((80, 80))), ("1-65535", Some((1, 65535))), ("9-8", None), ("+1", None), ("", None)]
        {
            assert_eq!(Ports::parse(text).map(|p| (p.first(), p.last())), is, "{text}");
        }
        for (text, is) in [("tcp", Some(6)), ("112", Some(112)), ("0", None), ("+6", None), ("256", None), ("x", None)]
        {
            assert_eq!(protocol(text), is, "{text}");
        }
        assert_eq!((protocol_name(58), protocol_name(112)), ("icmpv6".into(), "112".into()));
    }
}
