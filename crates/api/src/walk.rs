//! The way of a virtual service's requests and answers, hop by hop.

use crate::{Counters, Tunnel};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The ways of a virtual service's packets: one for each forwarding method that its servers use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Walk {
    /// Name of the service.
    pub service: String,
    /// One server of each method, or the one that was asked for.
    pub ways: Vec<Way>,
    /// Methods that no picture is drawn of, since none of their servers takes connections: each in a sentence.
    pub left_out: Vec<String>,
}

/// The way of a request to a server, and of its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Way {
    /// The server, by its name in lists.
    pub server: String,
    /// Its state, as in lists.
    pub state: String,
    /// `nat`, `dr` or `tun`.
    pub method: String,
    /// The director itself is the server.
    pub local: bool,
    /// Of `tun`: what packets are inside of.
    pub tunnel: Option<Tunnel>,
    /// Protocol of the packets: `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The client that is imagined, with its port.
    pub client: String,
    /// What it asks, with the port.
    pub asked: String,
    /// The request, from hop to hop.
    pub request: Vec<Hop>,
    /// The answer.
    pub answer: Vec<Hop>,
    /// Why it does not come to the client so; none: it does.
    pub broken: Option<String>,
    /// What must be so for it to work, and what happens otherwise: one sentence or two each.
    pub needs: Vec<String>,
    /// Of `tun`: what fits into the tunnel.
    pub fits: Option<Fits>,
    /// Who carries which traffic.
    pub traffic: Traffic,
    /// What was taken for granted.
    pub notes: Vec<String>,
}

/// A packet between two hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hop {
    /// `client`, `router`, `director` or `server`: who sends the frame.
    pub from: String,
    /// Who gets it.
    pub to: String,
    /// The director's interface that it goes or comes by; empty: the director is neither.
    pub interface: String,
    /// MAC of who sends it.
    pub source_mac: MacAddress,
    /// MAC of who gets it.
    pub destination_mac: MacAddress,
    /// Source of the packet, with its port.
    pub source: String,
    /// Destination, with its port.
    pub destination: String,
    /// TTL, or hop limit.
    pub ttl: u8,
    /// What it is inside of; none: it is in no tunnel.
    pub outer: Option<OuterPacket>,
    /// What `from` has changed of what came to it: names of these keys.
    pub changed: Vec<String>,
}

impl Hop {
    /// Both are the director: it is the server.
    pub fn is_within(&self) -> bool {
        [&self.from, &self.to].iter().all(|party| ["director", "server"].contains(&party.as_str()))
            && self.interface.is_empty()
    }
}

/// A MAC, if it can be known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MacAddress {
    /// The address; none: the director cannot know it.
    pub address: Option<String>,
    /// Why not; empty if it is known.
    pub unknown: String,
}

/// The packet of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OuterPacket {
    /// `ipip`, `gre` or `gue`.
    pub kind: String,
    /// Its source.
    pub source: String,
    /// Its destination.
    pub destination: String,
    /// Its TTL, or hop limit.
    pub ttl: u8,
    /// Bytes that it adds.
    pub bytes: u32,
}

/// What fits into a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fits {
    /// The largest IP packet that the way to the server carries, bytes.
    pub mtu: u32,
    /// Bytes that the tunnel adds.
    pub overhead: u32,
    /// The largest packet inside.
    pub packet: u32,
    /// Of TCP: the largest segment (MSS) without options; none: it is not TCP.
    pub segment: Option<u32>,
}

/// Who carries which traffic: of all servers of the service that are reached so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Whether the director carries answers too, not only requests.
    pub both: bool,
    /// Its traffic so far.
    pub counters: Counters,
    /// The same each second; none without a daemon.
    pub rates: Option<Counters>,
    /// All that in a sentence.
    pub text: String,
}
