//! What each optional feature costs: packets of a service that has it, held against the same packets of one that has not, in the
//! same run. (Tunnels and address families are cases of their own; tracing is counted in instructions: [`super::instructions`].)

use std::fmt::Write as _;
use std::net::SocketAddr;

use dirigent_config::{Model, file};
use dirigent_director::Reason;

use super::Options;
use super::cases::{Case, DROP, FRAME_SIDE, Goal, NEW, Packets, ROUTER, SERVERS, Setup, TX, client, sizes, vip};
use super::instance::FRAME;
use crate::golden::bed::server;
use crate::packet::{IpOptions, Tcp, eth, flag, ip, proto, sctp, tcp, udp};

/// Names of their cases and instances begin so.
pub const WITH: &str = "with";

/// The packets that show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A TCP connection each.
    New,
    /// Of unknown TCP connections.
    Unknown,
    /// Requests of one TCP connection.
    Tcp,
    /// Of one UDP flow.
    Udp,
    /// Its datagrams' first pieces.
    FirstPiece,
    /// Their last ones.
    LastPiece,
    /// Of one SCTP association.
    Sctp,
}

/// An option.
struct Feature {
    /// Its name.
    name: &'static str,
    /// Beside the service in dirigent.toml.
    beside: &'static str,
    /// What chooses packets of the service, if its address does not.
    key: &'static str,
    /// The service's port.
    port: u16,
    /// Its scheduler and other keys.
    keys: &'static str,
    /// How packets reach servers.
    method: &'static str,
    /// Its packets, and the case that has the same without it.
    shown: &'static [(Kind, &'static str)],
    /// Why the first packet is dropped, if it is.
    first: Option<Reason>,
}

const PLAIN: Feature = Feature {
    name: "",
    beside: "",
    key: "",
    port: 80,
    keys: "scheduler = \"wrr\"",
    method: "dr",
    shown: &[(Kind::Tcp, KNOWN), (Kind::New, OPENED)],
    first: None,
};

const KNOWN: &str = "dr v4 tcp request, 1";
const KNOWN_NAT: &str = "nat v4 tcp request, 1";
const DATAGRAM: &str = "dr v4 udp request, 1";
const OPENED: &str = "dr v4 wrr tcp new";
const HASHED: &str = "dr v4 mh tcp new";

const FEATURES: &[Feature] = &[
    Feature { name: "persistence", keys: "scheduler = \"wrr\"\n[service.persistence]", ..PLAIN },
    Feature { name: "deny", keys: "scheduler = \"wrr\"\ndeny = [\"203.0.113.0/24\", \"198.51.100.7\"]", ..PLAIN },
    Feature {
        name: "firewall mark",
        beside: "[[mark]]\nprotocol = \"tcp\"\ndestination = \"192.0.2.10\"\ndestination_ports = \"80\"\nset = 7\n",
        key: "fwmark = 7",
        ..PLAIN
    },
    Feature { name: "sync", beside: "[sync]\ninterface = \"lo\"\n", ..PLAIN },
    Feature { name: "secure_tcp", beside: "[director]\nsecure_tcp = 3\n", ..PLAIN },
    Feature {
        name: "drop_packet",
        // One in so many that there will be none but the first.
        beside: "[director]\ndrop_packet = 3\nam_droprate = 2000000000\n",
        shown: &[(Kind::New, OPENED)],
        first: Some(Reason::DropPacket),
        ..PLAIN
    },
    Feature { name: "stateless", keys: "scheduler = \"mh\"\nstateless = true", shown: &[(Kind::New, HASHED)], ..PLAIN },
    // In tables of its own: the same clients would be known by their SYNs.
    Feature {
        name: "stateless, of another director",
        keys: "scheduler = \"mh\"\nstateless = true",
        shown: &[(Kind::Unknown, HASHED)],
        ..PLAIN
    },
    Feature { name: "ftp", port: 21, method: "nat", shown: &[(Kind::Tcp, KNOWN_NAT)], ..PLAIN },
    Feature {
        name: "sctp",
        // An association whose server has not answered is kept for seconds, and others are set up meanwhile.
        beside: "[director.timeouts]\nsctp_init1 = \"1h\"\n",
        method: "nat",
        shown: &[(Kind::Sctp, KNOWN_NAT)],
        ..PLAIN
    },
    Feature {
        name: "one_packet",
        keys: "scheduler = \"wrr\"\none_packet = true",
        shown: &[(Kind::Udp, DATAGRAM)],
        ..PLAIN
    },
    Feature { name: "quic", keys: "scheduler = \"wrr\"\nquic = true", shown: &[(Kind::Udp, DATAGRAM)], ..PLAIN },
    Feature {
        name: "pieces",
        keys: "scheduler = \"wrr\"",
        shown: &[(Kind::FirstPiece, DATAGRAM), (Kind::LastPiece, DATAGRAM)],
        ..PLAIN
    },
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Unknown => "unknown",
            Self::Tcp | Self::Udp | Self::Sctp => "request",
            Self::FirstPiece => "first",
            Self::LastPiece => "last",
        }
    }
    fn protocol(self) -> &'static str {
        match self {
            Self::New | Self::Unknown | Self::Tcp => "tcp",
            Self::Udp | Self::FirstPiece | Self::LastPiece => "udp",
            Self::Sctp => "sctp",
        }
    }
    fn opens(self) -> bool {
        matches!(self, Self::New | Self::Unknown)
    }
    /// What opens the connection that its packets are of.
    fn before(self, port: u16) -> Vec<Packets> {
        match self {
            Self::New | Self::Unknown => Vec::new(),
            Self::Tcp => vec![packets(port, 1, &segment(flag::SYN)), packets(port, 1, &segment(flag::ACK))],
            Self::Sctp => vec![packets(port, 1, &association(INIT))],
            Self::Udp => vec![packets(port, 1, &datagram(WHOLE))],
            Self::FirstPiece | Self::LastPiece => vec![packets(port, 1, &datagram(FIRST))],
        }
    }
    fn packets(self, port: u16) -> Packets {
        match self {
            Self::New => packets(port, 1 << 30, &segment(flag::SYN)),
            Self::Unknown => packets(port, 1 << 30, &segment(flag::ACK)),
            Self::Tcp => packets(port, 1, &segment(flag::ACK)),
            Self::Sctp => packets(port, 1, &association(DATA)),
            Self::Udp => packets(port, 1, &datagram(WHOLE)),
            Self::FirstPiece => packets(port, 1, &datagram(FIRST)),
            Self::LastPiece => packets(port, 1, &datagram(LAST)),
        }
    }
}

/// A packet's protocol, the fragment field of its header, and what builds the rest from both ends.
type Built = (u8, u16, Box<dyn Fn(SocketAddr, SocketAddr) -> Vec<u8>>);

/// Bytes behind an IPv4 header.
const ROOM: usize = FRAME - 14 - 20;
const WHOLE: u16 = 0x4000;
const FIRST: u16 = 0x2000;
const LAST: u16 = (ROOM / 8) as u16;
/// Types of SCTP's chunks.
const DATA: u8 = 0;
const INIT: u8 = 1;

fn segment(flags: u8) -> Built {
    let payload = vec![0; ROOM - 20];
    let build = move |src: SocketAddr, dst: SocketAddr| {
        let of = Tcp { sport: src.port(), dport: dst.port(), flags, seq: 1, ack: 1, payload: &payload };
        tcp(src.ip(), dst.ip(), &of)
    };
    (proto::TCP, WHOLE, Box::new(build))
}

fn datagram(fragment: u16) -> Built {
    // With QUIC's fixed bit, of a short header.
    let payload = [vec![0x40], vec![0; ROOM - 9]].concat();
    let build = move |src: SocketAddr, dst: SocketAddr| udp(src.ip(), dst.ip(), src.port(), dst.port(), &payload);
    (proto::UDP, fragment, Box::new(build))
}

fn association(chunk: u8) -> Built {
    let mut chunks = vec![0; ROOM - 12];
    let length = (chunks.len() as u16).to_be_bytes();
    chunks[..4].copy_from_slice(&[chunk, 3, length[0], length[1]]);
    (proto::SCTP, WHOLE, Box::new(move |src: SocketAddr, dst: SocketAddr| sctp(src.port(), dst.port(), &chunks)))
}

fn packets(port: u16, connections: u32, (protocol, fragment, build): &Built) -> Packets {
    let (src, dst) = ((client(false), 1024).into(), (vip(false), port).into());
    // The wrapper counts down from this identification as it counts up addresses.
    let options = IpOptions { ident: 0xffff, fragment: *fragment, ..IpOptions::default() };
    let frame = eth(FRAME_SIDE.mac(), ROUTER, &ip(client(false), vip(false), *protocol, &build(src, dst), &options));
    let len = FRAME as u32;
    Packets { frame, connections, v6: false, reply: false, action: TX, len, reason: Some(Reason::Request) }
}

impl Feature {
    fn of(&self) -> String {
        format!("{WITH} {}", self.name)
    }
    fn model(&self) -> Model {
        let protocol = self.shown.first().map_or("tcp", |(kind, _)| kind.protocol());
        let place = format!("protocol = \"{protocol}\"\naddress = \"{}\"", SocketAddr::new(vip(false), self.port));
        let key = if self.key.is_empty() { &place } else { self.key };
        let mut text = format!("version = 1\n{}\n[[service]]\n{key}\n{}\n", self.beside, self.keys);
        for n in 1..=SERVERS {
            let server = SocketAddr::new(server(n, false), self.port);
            let (method, weight) = (self.method, 1 + n % 3);
            let _ =
                write!(text, "[[service.server]]\naddress = \"{server}\"\nmethod = \"{method}\"\nweight = {weight}\n");
        }
        file::parse("bench", &text).unwrap_or_else(|e| panic!("{}: {e:?}\n{text}", self.name))
    }
}

/// The cases of all.
pub(super) fn cases() -> impl Iterator<Item = Case> {
    FEATURES.iter().flat_map(|feature| {
        feature.shown.iter().map(|(kind, base)| Case {
            name: format!("{}, {}", feature.of(), kind.name()),
            row: None,
            of: feature.of(),
            program: "bench_director",
            packets: kind.packets(feature.port),
            goals: vec![Goal { floor: base, factor: None }],
            fewer: if kind.opens() { NEW } else { 1 },
        })
    })
}

/// How the instance of this name is made, if it is of these.
pub(super) fn setup(name: &str, options: &Options) -> Option<Setup> {
    let feature = FEATURES.iter().find(|feature| feature.of() == name)?;
    let opens = feature.shown.iter().filter(|(kind, _)| kind.opens()).count() as u32;
    let first = feature.first.into_iter().map(|reason| {
        let packets = Kind::New.packets(feature.port);
        Packets { action: DROP, reason: Some(reason), ..packets }
    });
    let before = first.chain(feature.shown.iter().flat_map(|(kind, _)| kind.before(feature.port)));
    Some(Setup {
        map_sizes: sizes(false, (4 * options.connections * opens).max(64)),
        model: Some(feature.model()),
        floor_services: Vec::new(),
        before: before.map(|packets| ("bench_director", packets, 1)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_has_cases_against_such_as_there_are() {
        let all = super::super::cases::all(&Options::default());
        for feature in FEATURES {
            assert!(!feature.shown.is_empty() && setup(&feature.of(), &Options::default()).is_some());
            for (_, base) in feature.shown {
                assert!(all.iter().any(|case| case.name == *base), "{base}");
            }
        }
    }
}
