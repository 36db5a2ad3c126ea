//! The names of what the daemon's log tells: the field `event` of its lines. They stay the same from version to version, and
//! so do the fields beside them; sentences may change. What the stream of events tells too ([`crate::Event`]) has its name
//! and its fields. docs/metrics.md describes each: tests compare that, this and the lines themselves.

/// An event of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its name.
    pub event: &'static str,
    /// The fields that its lines have.
    pub fields: &'static [&'static str],
}

const fn logged(event: &'static str, fields: &'static [&'static str]) -> Logged {
    Logged { event, fields }
}

/// All of them.
pub const ALL: &[Logged] = &[
    logged("applied", &["generation", "by", "what", "operations"]),
    logged("server", &["address", "up", "why"]),
    logged("health", &["service", "server", "up", "why"]),
    logged("quorum", &["service", "up"]),
    logged("role", &["role", "why"]),
    logged("alarm", &["router", "what"]),
    logged("suspected", &["service", "server", "cause", "what", "over"]),
    logged("ready", &["generation", "services", "servers"]),
    logged("took_over", &["director"]),
    logged("detached", &["director"]),
    logged("refused", &["place", "what", "remedy"]),
    logged("problem", &["place", "what", "remedy"]),
    logged("interface_attached", &["interface", "path"]),
    logged("interface_detached", &["interface"]),
    logged("interface_gone", &["interface"]),
    logged("address_added", &["address", "device"]),
    logged("address_removed", &["address", "device"]),
    logged("priority", &["router", "priority"]),
    logged("late", &["router", "late_ms"]),
    logged("connections_reset", &["servers", "connections"]),
    logged("check_failed", &["check", "why"]),
    logged("script_failed", &["script", "of", "why"]),
    logged("mail_failed", &["subject", "why"]),
    logged("sync_peer", &["node", "whole"]),
    logged("certificates", &["ok"]),
];
