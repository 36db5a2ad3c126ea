//! State numbers and names as IPVS has them (§3.4), for what a record may carry.

/// Protocol numbers of IP that connections are of.
pub mod protocol {
    /// Templates of firewall marks only: any protocol.
    pub const ANY: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Numbers of TCP's states.
pub mod tcp {
    /// Both sides talk.
    pub const ESTABLISHED: u16 = 1;
    /// The server closed.
    pub const FIN_WAIT: u16 = 4;
    /// Both closed.
    pub const TIME_WAIT: u16 = 5;
    /// Reset, or over.
    pub const CLOSE: u16 = 6;
    /// The client closed.
    pub const CLOSE_WAIT: u16 = 7;
}

/// Numbers of SCTP's states.
pub mod sctp {
    /// Both sides talk.
    pub const ESTABLISHED: u16 = 8;
    /// The server shuts down.
    pub const SHUTDOWN_SENT: u16 = 9;
    /// The client shuts down.
    pub const SHUTDOWN_RECEIVED: u16 = 10;
    /// The server answered a shutdown.
    pub const SHUTDOWN_ACK_SENT: u16 = 11;
    /// Over.
    pub const CLOSED: u16 = 13;
}

const TCP_NAMES: [&str; 11] = [
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
];
const TCP_SECONDS: [u32; 11] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];

const SCTP_NAMES: [&str; 14] = [
    "NONE",
    "INIT1",
    "INIT",
    "C-SENT",
    "C-REPLIED",
    "C-WAIT",
    "COOKIE",
    "C-ECHOED",
    "ESTABLISHED",
    "S-SENT",
    "S-RECEIVED",
    "S-ACK-SENT",
    "REJECTED",
    "CLOSED",
];
const SCTP_SECONDS: [u32; 14] = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];

const UDP_NAMES: [&str; 1] = ["UDP"];
const TEMPLATE_NAMES: [&str; 2] = ["NONE", "ASSURED"];

/// How many states a template has: none, and assured.
pub const TEMPLATE_STATES: u16 = TEMPLATE_NAMES.len() as u16;

/// How many states a protocol has that IPVS knows; `None` of one that it does not.
pub const fn count(protocol: u8) -> Option<u16> {
    match protocol {
        protocol::TCP => Some(TCP_NAMES.len() as u16),
        protocol::SCTP => Some(SCTP_NAMES.len() as u16),
        // The protocols with one state.
        protocol::UDP | protocol::ESP | protocol::AH => Some(1),
        _ => None,
    }
}

fn names(protocol: u8) -> &'static [&'static str] {
    match protocol {
        protocol::TCP => &TCP_NAMES,
        protocol::SCTP => &SCTP_NAMES,
        protocol::UDP => &UDP_NAMES,
        _ => &[],
    }
}

/// A connection's or template's state as ipvsadm names it.
pub fn name(protocol: u8, template: bool, state: u16) -> &'static str {
    let names = if template { &TEMPLATE_NAMES } else { names(protocol) };
    match names.get(usize::from(state)) {
        Some(name) => name,
        None if protocol == protocol::ANY => "NONE",
        None => "ERR!",
    }
}

/// The number of a connection's state with that name.
pub fn number(protocol: u8, name: &str) -> Option<u16> {
    let at = names(protocol).iter().position(|n| *n == name)?;
    u16::try_from(at).ok()
}

/// Idle seconds of a connection whose record says no timeout (§9.5): its state's default, 180 of a
/// template, and of a protocol without a table of them. `udp_seconds` and the others
/// that `ipvsadm --set` changes are the backup's own, so the caller may overrule this.
pub fn default_seconds(protocol: u8, template: bool, state: u16) -> u32 {
    let table: &[u32] = match protocol {
        _ if template => &[],
        protocol::TCP => &TCP_SECONDS,
        protocol::SCTP => &SCTP_SECONDS,
        protocol::UDP => &[300],
        _ => &[],
    };
    table.get(usize::from(state)).copied().unwrap_or(180)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for p in [protocol::TCP, protocol::UDP, protocol::SCTP] {
            let states = count(p).unwrap();
            assert_eq!(usize::from(states), names(p).len());
            for s in 0..states {
                assert_eq!(number(p, name(p, false, s)), Some(s));
            }
            assert_eq!(name(p, false, states), "ERR!");
        }
        assert_eq!(name(protocol::TCP, true, 1), "ASSURED");
        assert_eq!(name(protocol::ANY, true, 2), "NONE");
        assert_eq!(number(protocol::TCP, "CLOSE_WAIT"), Some(tcp::CLOSE_WAIT));
        assert_eq!(number(protocol::SCTP, "CLOSED"), Some(sctp::CLOSED));
    }
}
