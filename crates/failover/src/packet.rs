//! The VRRP payload after the IP header: bytes to [`Advert`] and back, by the rules of one
//! [`Format`]. It decides whether a packet is well formed and genuine, not whether the router wants
//! it (that is [`crate::router`]). What is around a payload with authentication type 2 is [`crate::ah`]'s.
//!
//! ```text
//!  0                   1                   2                   3     version 2 (RFC 3768 §5.1)
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+---------------+---------------+
//! |version| type 1|     VRID      |   priority    | address count |
//! +-------+-------+---------------+---------------+---------------+
//! |   auth type   |  interval, s  |           checksum            |  version 3 (RFC 9568 §5.2) has here
//! +---------------+---------------+-------------------------------+  4 bits 0 and 12 bits interval, cs
//! |  addresses: 4 bytes each, in version 3 for IPv6 16 bytes each |
//! +---------------------------------------------------------------+
//! |        version 2 only: 8 bytes of authentication data         |
//! +---------------------------------------------------------------+
//! ```

use crate::address::{PROTOCOL, TTL};
use dirigent_wire::checksum;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;
use subtle::ConstantTimeEq;
use thiserror::Error;

/// VRRP's version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Version {
    /// RFC 3768, IPv4 only, whole seconds.
    V2,
    /// RFC 5798 and RFC 9568, both families, centiseconds.
    V3,
}

impl Version {
    /// The number in the header.
    pub const fn number(self) -> u8 {
        match self {
            Version::V2 => 2,
            Version::V3 => 3,
        }
    }
}

/// The address family of a virtual router: it has addresses of one only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// An address's family.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// Authentication of version 2. RFC 3768 took it out again, keepalived still has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Type 0.
    None,
    /// Type 1: eight bytes in clear, shorter ones padded with zero.
    Password([u8; 8]),
    /// Type 2: the packet is inside an AH header, see [`crate::ah`]; in the payload the field is zero.
    Ah,
}

/// Says the type only: a password has no business in a log.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Auth(type {})", self.number())
    }
}

impl Auth {
    /// A password of at most eight bytes.
    pub fn password(text: &[u8]) -> Option<Self> {
        let mut padded = [0; 8];
        padded.get_mut(..text.len())?.copy_from_slice(text);
        Some(Auth::Password(padded))
    }

    /// The number in the header.
    pub const fn number(self) -> u8 {
        match self {
            Auth::None => 0,
            Auth::Password(_) => 1,
            Auth::Ah => 2,
        }
    }
}

/// What a payload looks like. Pairs that do not exist (version 2 with IPv6, version 3 with
/// authentication) cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Version 2, IPv4.
    V2 {
        /// How a packet proves whose it is.
        auth: Auth,
    },
    /// Version 3, IPv4.
    V3Ipv4 {
        /// The checksum covers the payload only, as in version 2: some routers read RFC 5798 so.
        checksum_as_v2: bool,
    },
    /// Version 3, IPv6.
    V3Ipv6,
}

impl Format {
    /// Its version.
    pub const fn version(self) -> Version {
        match self {
            Format::V2 { .. } => Version::V2,
            Format::V3Ipv4 { .. } | Format::V3Ipv6 => Version::V3,
        }
    }

    /// Its family.
    pub const fn family(self) -> Family {
        match self {
            Format::V2 { .. } | Format::V3Ipv4 { .. } => Family::V4,
            Format::V3Ipv6 => Family::V6,
        }
    }

    /// Whether the checksum covers a pseudo header too (RFC 9568 §5.2.8).
    const fn pseudo_header(self) -> bool {
        match self {
            Format::V2 { .. } => false,
            Format::V3Ipv4 { checksum_as_v2 } => !checksum_as_v2,
            Format::V3Ipv6 => true,
        }
    }
}

/// An advert interval in centiseconds: what both versions can say. Version 2 says whole seconds up
/// to 255 s, version 3 says 12 bits, up to 40.95 s. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Centis(u16);

impl Centis {
    /// One second, the default of both versions.
    pub const SECOND: Self = Self(100);

    /// So many centiseconds, 1 to 25,500.
    pub const fn new(centiseconds: u16) -> Option<Self> {
        if centiseconds == 0 || centiseconds > 25_500 { None } else { Some(Self(centiseconds)) }
    }

    /// Centiseconds.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The same as a length of time.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }

    /// Whether a version can say it.
    pub const fn fits(self, version: Version) -> bool {
        match version {
            Version::V2 => self.0.is_multiple_of(100),
            Version::V3 => self.0 <= 0xfff,
        }
    }
}

/// The addresses of a virtual router, of one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// IPv4.
    V4(Vec<Ipv4Addr>),
    /// IPv6; RFC 9568 wants the link-local one first.
    V6(Vec<Ipv6Addr>),
}

impl Addresses {
    /// Their family.
    pub const fn family(&self) -> Family {
        match self {
            Addresses::V4(_) => Family::V4,
            Addresses::V6(_) => Family::V6,
        }
    }

    /// How many.
    pub const fn len(&self) -> usize {
        match self {
            Addresses::V4(list) => list.len(),
            Addresses::V6(list) => list.len(),
        }
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both have the same addresses, in whatever order.
    pub fn same(&self, other: &Self) -> bool {
        fn sorted<T: Ord + Copy>(list: &[T]) -> Vec<T> {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        }
        match (self, other) {
            (Addresses::V4(a), Addresses::V4(b)) => a == b || sorted(a) == sorted(b),
            (Addresses::V6(a), Addresses::V6(b)) => a == b || sorted(a) == sorted(b),
            _ => false,
        }
    }
}

/// What an advert says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advert {
    /// The version it was, or is to be, written in.
    pub version: Version,
    /// The virtual router's number, 1 to 255.
    pub vrid: u8,
    /// 0: the master gives up; 255: the owner of the addresses.
    pub priority: u8,
    /// The time between the sender's adverts.
    pub interval: Centis,
    /// At most 255.
    pub addresses: Addresses,
}

/// What a router takes for an advert.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// The payload's shape.
    pub format: Format,
    /// TTLs or hop limits that are taken: 255 alone, but for unicast peers several hops away.
    pub ttl: RangeInclusive<u8>,
    /// Whether an advert may name no address at all (RFC 9568 §5.2.5: it must not).
    pub no_addresses: bool,
}

impl Rules {
    /// The RFCs' rules for one format.
    pub const fn new(format: Format) -> Self {
        Self { format, ttl: TTL..=TTL, no_addresses: false }
    }
}

/// What came in, and with which IP header around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// The sender.
    pub source: IpAddr,
    /// The group, or this host.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The bytes after the IP header (after the AH header, if there is one).
    pub payload: &'a [u8],
}

/// Why a packet is not taken for an advert.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ParseError {
    /// RFC 9568 §5.1.1.3.
    #[error("TTL {got} instead of {min} to {max}: it may come from another network")]
    Ttl {
        /// The packet's.
        got: u8,
        /// The least allowed.
        min: u8,
        /// The most allowed.
        max: u8,
    },
    /// The header does not fit.
    #[error("{got} bytes, fewer than a header's 8")]
    Short {
        /// Bytes there are.
        got: usize,
    },
    /// Another version.
    #[error("version {got} instead of {want}")]
    Version {
        /// The packet's.
        got: u8,
        /// The router's.
        want: u8,
    },
    /// Not an advertisement: there are no others.
    #[error("type {got} instead of 1")]
    Type {
        /// The packet's.
        got: u8,
    },
    /// The addresses around it are not of the router's family.
    #[error("from {from} to {to}: not the virtual router's address family")]
    Family {
        /// Source.
        from: IpAddr,
        /// Destination.
        to: IpAddr,
    },
    /// The length does not follow from the count of addresses.
    #[error("{got} bytes, but {count} addresses make {want}")]
    Length {
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        want: usize,
        /// The count in the header.
        count: u8,
    },
    /// A broken packet, or one for another reading of the RFC (see `v3_checksum_as_v2`).
    #[error("checksum {got:#06x} instead of {want:#06x}")]
    Checksum {
        /// The packet's.
        got: u16,
        /// What its bytes make.
        want: u16,
    },
    /// There is no virtual router 0.
    #[error("virtual router 0")]
    Vrid,
    /// A router that sends without a pause.
    #[error("an advert interval of 0")]
    Interval,
    /// It names no address.
    #[error("no addresses")]
    NoAddresses,
    /// Another kind of authentication than ours.
    #[error("authentication of type {got} instead of {want}")]
    AuthType {
        /// The packet's.
        got: u8,
        /// The router's.
        want: u8,
    },
    /// Not our password.
    #[error("a wrong password")]
    Password,
}

/// Why an advert cannot be written.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum EmitError {
    /// Version or family of advert and format differ.
    #[error("the advert is not of the format's version and family")]
    Format,
    /// There is no virtual router 0.
    #[error("virtual router 0")]
    Vrid,
    /// Version 2 says whole seconds, version 3 at most 40.95 s.
    #[error("an advert interval of {0} cs cannot be said in this version")]
    Interval(u16),
    /// The count has eight bits.
    #[error("{0} addresses, more than 255")]
    TooMany(usize),
}

/// Reads an advert. Bytes that a receiver ignores (RFC 9568 §5.2.6: the four bits before the
/// interval; authentication data that means nothing) may have any value.
pub fn parse(received: &Received<'_>, rules: &Rules) -> Result<Advert, ParseError> {
    let &Received { source, destination, ttl, payload } = received;
    let (version, family) = (rules.format.version(), rules.format.family());
    if !rules.ttl.contains(&ttl) {
        return Err(ParseError::Ttl { got: ttl, min: *rules.ttl.start(), max: *rules.ttl.end() });
    }
    if Family::of(source) != family || Family::of(destination) != family {
        return Err(ParseError::Family { from: source, to: destination });
    }
    let [kind, vrid, priority, count, a, b, sum_a, sum_b, rest @ ..] = payload else {
        return Err(ParseError::Short { got: payload.len() });
    };
    let (&vrid, &priority, &count) = (vrid, priority, count);
    if kind >> 4 != version.number() {
        return Err(ParseError::Version { got: kind >> 4, want: version.number() });
    }
    if kind & 0xf != ADVERTISEMENT {
        return Err(ParseError::Type { got: kind & 0xf });
    }
    let (each, trailer) = widths(rules.format);
    let addresses_len = usize::from(count) * each;
    let want = HEADER + addresses_len + trailer;
    let Some((addresses, trailer)) = rest.split_at_checked(addresses_len).filter(|_| payload.len() == want) else {
        return Err(ParseError::Length { got: payload.len(), want, count });
    };
    let covered = sum(payload, source, destination, rules.format);
    if covered != 0xffff {
        let got = u16::from_be_bytes([*sum_a, *sum_b]);
        // What the field has to be is what makes the sum 0xffff.
        let without = checksum::add(covered, checksum::negate(got.to_be()));
        return Err(ParseError::Checksum { got, want: u16::from_be(!without) });
    }
    if vrid == 0 {
        return Err(ParseError::Vrid);
    }
    let interval = match rules.format {
        Format::V2 { auth } => {
            check_auth(*a, trailer, auth)?;
            u16::from(*b) * 100
        }
        Format::V3Ipv4 { .. } | Format::V3Ipv6 => u16::from_be_bytes([*a & 0xf, *b]),
    };
    let interval = Centis::new(interval).ok_or(ParseError::Interval)?;
    if count == 0 && !rules.no_addresses {
        return Err(ParseError::NoAddresses);
    }
    let addresses = match family {
        Family::V4 => Addresses::V4(addresses.as_chunks().0.iter().map(|a: &[u8; 4]| Ipv4Addr::from(*a)).collect()),
        Family::V6 => Addresses::V6(addresses.as_chunks().0.iter().map(|a: &[u8; 16]| Ipv6Addr::from(*a)).collect()),
    };
    Ok(Advert { version, vrid, priority, interval, addresses })
}

/// Writes an advert that goes from `source` to `destination`.
pub fn emit(advert: &Advert, source: IpAddr, destination: IpAddr, format: Format) -> Result<Vec<u8>, EmitError> {
    let families = [advert.addresses.family(), Family::of(source), Family::of(destination)];
    if advert.version != format.version() || families.iter().any(|family| *family != format.family()) {
        return Err(EmitError::Format);
    }
    if advert.vrid == 0 {
        return Err(EmitError::Vrid);
    }
    if !advert.interval.fits(advert.version) {
        return Err(EmitError::Interval(advert.interval.get()));
    }
    let count = u8::try_from(advert.addresses.len()).map_err(|_| EmitError::TooMany(advert.addresses.len()))?;
    let [a, b] = match format {
        Format::V2 { auth } => [auth.number(), u8::try_from(advert.interval.get() / 100).unwrap_or(u8::MAX)],
        Format::V3Ipv4 { .. } | Format::V3Ipv6 => advert.interval.get().to_be_bytes(),
    };
    let kind = advert.version.number() << 4 | ADVERTISEMENT;
    let mut bytes = vec![kind, advert.vrid, advert.priority, count, a, b, 0, 0];
    match &advert.addresses {
        Addresses::V4(list) => list.iter().for_each(|address| bytes.extend(address.octets())),
        Addresses::V6(list) => list.iter().for_each(|address| bytes.extend(address.octets())),
    }
    match format {
        Format::V2 { auth: Auth::Password(password) } => bytes.extend(password),
        Format::V2 { auth: Auth::None | Auth::Ah } => bytes.extend([0; 8]),
        Format::V3Ipv4 { .. } | Format::V3Ipv6 => {}
    }
    let check = !sum(&bytes, source, destination, format);
    if let Some(field) = bytes.get_mut(6..8) {
        field.copy_from_slice(&check.to_ne_bytes());
    }
    Ok(bytes)
}

/// Bytes before the addresses.
const HEADER: usize = 8;
/// The only type there is.
const ADVERTISEMENT: u8 = 1;

/// Bytes of an address, and bytes after the last one.
const fn widths(format: Format) -> (usize, usize) {
    match format {
        Format::V2 { .. } => (4, 8),
        Format::V3Ipv4 { .. } => (4, 0),
        Format::V3Ipv6 => (16, 0),
    }
}

fn check_auth(kind: u8, data: &[u8], auth: Auth) -> Result<(), ParseError> {
    if kind != auth.number() {
        return Err(ParseError::AuthType { got: kind, want: auth.number() });
    }
    match auth {
        Auth::Password(password) if !bool::from(data.ct_eq(&password)) => Err(ParseError::Password),
        _ => Ok(()),
    }
}

/// The sum that the checksum makes 0xffff. The pseudo headers (RFC 768, RFC 8200 §8.1) differ in
/// where they have length and protocol, which a sum does not see.
fn sum(payload: &[u8], source: IpAddr, destination: IpAddr, format: Format) -> u16 {
    let own = checksum::sum_bytes(payload);
    if !format.pseudo_header() {
        return own;
    }
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    [sum_address(source), sum_address(destination), length.to_be(), u16::from(PROTOCOL).to_be()]
        .into_iter()
        .fold(own, checksum::add)
}

fn sum_address(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(address) => checksum::sum_bytes(&address.octets()),
        IpAddr::V6(address) => checksum::sum_bytes(&address.octets()),
    }
}

#[cfg(test)]
mod tests;
