//! One connection as it goes over the wire.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Flags of a connection as IPVS numbers them (§1.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// The forwarding method's bits.
    pub const METHOD: u32 = 0x0007;
    /// Created by a sync message.
    pub const SYNC: u32 = 0x0020;
    /// Is in the table: internal, never sent.
    pub const HASHED: u32 = 0x0040;
    /// Replies are not expected to be seen.
    pub const NO_OUTPUT: u32 = 0x0080;
    /// Counted as inactive.
    pub const INACTIVE: u32 = 0x0100;
    /// Sequence numbers of replies are adjusted.
    pub const OUT_SEQ: u32 = 0x0200;
    /// Sequence numbers of requests are adjusted.
    pub const IN_SEQ: u32 = 0x0400;
    /// The client's port is not known yet.
    pub const NO_CLIENT_PORT: u32 = 0x0800;
    /// A persistence template.
    pub const TEMPLATE: u32 = 0x1000;
    /// One-packet scheduling.
    pub const ONE_PACKET: u32 = 0x2000;

    /// What a receiver keeps. (§9.2 has it without [`Flags::ONE_PACKET`]; kernel 6.1 heeds that:
    /// recordings/backup.json, `flags`.)
    pub const KEPT: u32 = 0x3f87;
    /// Either of the two that sequence data belongs to.
    pub const SEQ: u32 = Self::OUT_SEQ | Self::IN_SEQ;
    /// What a record changes in a connection that the backup has already (§9.5).
    pub const ADOPTED: u32 = Self::INACTIVE | Self::SEQ;

    /// Whether any of these bits is set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
    /// A persistence template's.
    pub const fn template(self) -> bool {
        self.has(Self::TEMPLATE)
    }
    /// Counted as inactive.
    pub const fn inactive(self) -> bool {
        self.has(Self::INACTIVE)
    }
    /// The forwarding method.
    pub const fn method(self) -> Option<Method> {
        match self.0 & Self::METHOD {
            0 => Some(Method::Nat),
            1 => Some(Method::Local),
            2 => Some(Method::Tunnel),
            3 => Some(Method::Route),
            4 => Some(Method::Bypass),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// How packets reach the real server; IPVS's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Method {
    /// NAT.
    Nat = 0,
    /// The server is the director itself.
    Local = 1,
    /// Tunnelling.
    Tunnel = 2,
    /// Direct routing.
    Route = 3,
    /// Past the servers, to the destination itself.
    Bypass = 4,
}

/// A connection's three ends, all of one address family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ends {
    client: SocketAddr,
    service: SocketAddr,
    real: SocketAddr,
}

/// Without the two fields of an IPv6 socket address that are of no packet.
fn plain(end: SocketAddr) -> SocketAddr {
    match end {
        SocketAddr::V4(_) => end,
        SocketAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0)),
    }
}

impl Ends {
    /// Of ends that are of one family; else nothing.
    pub fn new(client: SocketAddr, service: SocketAddr, real: SocketAddr) -> Option<Self> {
        let v4 = client.is_ipv4();
        (service.is_ipv4() == v4 && real.is_ipv4() == v4).then(|| Self {
            client: plain(client),
            service: plain(service),
            real: plain(real),
        })
    }
    /// Of IPv4 addresses.
    pub fn v4(client: (Ipv4Addr, u16), service: (Ipv4Addr, u16), real: (Ipv4Addr, u16)) -> Self {
        Self { client: client.into(), service: service.into(), real: real.into() }
    }
    /// Of IPv6 addresses.
    pub fn v6(client: (Ipv6Addr, u16), service: (Ipv6Addr, u16), real: (Ipv6Addr, u16)) -> Self {
        Self { client: client.into(), service: service.into(), real: real.into() }
    }
    /// The client's end; of a template its network and port 0.
    pub fn client(&self) -> SocketAddr {
        self.client
    }
    /// The virtual end; of a mark's template the mark as address and port 0.
    pub fn service(&self) -> SocketAddr {
        self.service
    }
    /// The real server's end.
    pub fn real(&self) -> SocketAddr {
        self.real
    }
    /// Whether they are IPv6.
    pub fn is_v6(&self) -> bool {
        self.client.is_ipv6()
    }
}

/// Sequence numbers of one direction whose payload was lengthened or shortened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Shift {
    /// The sequence number from which on `delta` is to be added.
    pub init: u32,
    /// What is added behind `init`.
    pub delta: u32,
    /// What is added before it.
    pub previous: u32,
}

/// Sequence data of both directions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Sequence {
    /// Of requests.
    pub requests: Shift,
    /// Of replies.
    pub replies: Shift,
}

/// What a persistence engine keeps of a template.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Pe {
    name: Vec<u8>,
    data: Vec<u8>,
}

impl Pe {
    /// Longest name.
    pub const NAME_BYTES: usize = 16;
    /// Most data.
    pub const DATA_BYTES: usize = 255;

    /// An engine's name (1 to 16 bytes) and its data (1 to 255); else nothing.
    pub fn new(name: &[u8], data: &[u8]) -> Option<Self> {
        let fits = (1..=Self::NAME_BYTES).contains(&name.len()) && (1..=Self::DATA_BYTES).contains(&data.len());
        fits.then(|| Self { name: name.to_vec(), data: data.to_vec() })
    }
    /// The engine's name: `sip`.
    pub fn name(&self) -> &[u8] {
        &self.name
    }
    /// Its data: the Call-ID.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}

/// One connection or persistence template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Protocol of IP; 0 of a mark's template.
    pub protocol: u8,
    /// Flags as they are on the wire; a receiver keeps [`Record::kept`].
    pub flags: Flags,
    /// State, by the protocol's numbers; of a template 0 or 1 (assured).
    pub state: u16,
    /// Client, virtual service and real server.
    pub ends: Ends,
    /// Firewall mark of the packet that opened it.
    pub fwmark: u32,
    /// Idle seconds after which it goes, from its last packet on; 0 in version 0, which has none.
    pub timeout_seconds: u32,
    /// Sequence data.
    pub sequence: Option<Sequence>,
    /// A persistence engine's data.
    pub pe: Option<Pe>,
    /// Extension: when its last packet was seen, and where. Kernels skip it.
    pub recency: Option<Recency>,
}

/// When and where a connection's last packet was seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Recency {
    /// Milliseconds before the record was made.
    pub idle_ms: u32,
    /// The node that saw it; 0: who sends the record.
    pub node: u32,
}

impl Record {
    /// The flags that a receiver keeps.
    pub fn kept(&self) -> Flags {
        Flags(self.flags.0 & Flags::KEPT)
    }
    /// What identifies it.
    pub fn key(&self) -> Key {
        Key {
            template: self.flags.template(),
            protocol: self.protocol,
            client: self.ends.client,
            service: self.ends.service,
            pe_data: self.pe.as_ref().map(|pe| pe.data.as_slice()).unwrap_or_default().into(),
        }
    }
}

/// What identifies a connection or template: there is one of each in a table.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key {
    /// Templates are apart from connections.
    pub template: bool,
    /// Protocol of IP.
    pub protocol: u8,
    /// The client's end.
    pub client: SocketAddr,
    /// The virtual end, of the same family.
    pub service: SocketAddr,
    /// A persistence engine's data (empty of most).
    pub pe_data: Box<[u8]>,
}
