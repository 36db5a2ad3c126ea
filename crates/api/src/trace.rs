//! Packets as they go through the director: `dirigent trace`.

use crate::Explanation;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Packets that are told of a second, unless others are asked for.
pub const RATE: u32 = 100;

/// Which packets are told of, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TraceOf {
    /// From or to these clients, like `198.51.100.7` or `198.51.100.0/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(example = "198.51.100.0/24")]
    pub client: Option<String>,
    /// Of this virtual service, like `tcp:192.0.2.10:80`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Of connections of this real server, or from it: an address, with its port or without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// With one of these verdicts, separated by commas: reasons of docs/drops.md, or `forwarded`, `passed`, `answered`,
    /// `dropped`. Without it all; if nothing else is asked for either, all but `passed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasons: Option<String>,
    /// No more than so many a second; 100 if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Their bytes, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<bool>,
}

/// What a trace tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TraceEvent {
    /// From now on packets are told of.
    Begun,
    /// A packet went through.
    Packet(Box<Traced>),
    /// So many packets that were wanted were not told of so far: they were more than the rate, or than there was time for.
    Withheld {
        /// Since the trace began.
        packets: u64,
    },
}

/// A packet that went through the director.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traced {
    /// When it came, microseconds since 1970-01-01 00:00 UTC.
    pub time_us: u64,
    /// The CPU that it came to.
    pub cpu: u32,
    /// Its bytes as it came, Ethernet header and all; of what an offload put together, all of it.
    pub bytes: u32,
    /// The virtual service; empty: of none.
    pub service: String,
    /// The real server; empty: of none.
    pub server: String,
    /// What it is, what was found and done, and what left.
    #[serde(flatten)]
    pub life: Explanation,
    /// Its bytes, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captured: Option<Captured>,
}

/// The first 2048 bytes of a packet, in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Captured {
    /// As it came.
    pub came: String,
    /// As it left; empty: it did not.
    pub left: String,
    /// Bytes that left, of which those are the first.
    pub left_bytes: u32,
}
