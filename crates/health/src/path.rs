//! Why a check along the clients' path failed, as far as what came of it says: what the probe got, and whether the server
//! answers the director by its own address at that time.

use crate::why::Why;
use std::fmt;

/// How clients' packets get to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// Addresses are rewritten, and answers come back through the director.
    Nat,
    /// Only the frame is readdressed: the server has the virtual address.
    Direct,
    /// In a tunnel, and as with direct routing then.
    Tunnel,
}

/// What the probe got instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// Nothing.
    Nothing,
    /// A reset, or that the port is closed.
    Refused,
    /// An ICMP error that its protocol is not known there (RFC 792; IPv6: unrecognized next header, RFC 4443 §3.4).
    NoProtocol,
    /// An ICMP error that it cannot get there.
    Unreachable,
    /// Something else.
    Other(Why),
}

/// How the server answers the director by its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// It takes connections to that port.
    Takes,
    /// It refuses them.
    Refuses,
    /// It answers pings, and nothing on that port.
    Pings,
    /// Not at all.
    Silent,
}

impl Own {
    fn is_there(self) -> bool {
        self != Self::Silent
    }
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Takes => "it takes connections by its own address",
            Self::Refuses => "it is there, and by its own address refuses them as well",
            Self::Pings => "it answers pings",
            Self::Silent => "it does not answer by its own address either",
        })
    }
}

/// One sentence: what was got, and what that leaves for a cause.
pub fn explain(by: Forwarding, got: &Got, own: Own) -> Why {
    use Forwarding::{Direct, Nat, Tunnel};
    let what = match got {
        Got::Nothing => "timeout".to_owned(),
        Got::Refused => "connection refused".to_owned(),
        Got::NoProtocol => "protocol unreachable".to_owned(),
        Got::Unreachable => "unreachable".to_owned(),
        Got::Other(why) => return why.clone(),
    };
    let cause = match (by, got, own) {
        // Whoever said that is on the server, and has the packet whole.
        (Tunnel, Got::NoProtocol, _) => "the server does not take packets out of the tunnel",
        (_, _, Own::Silent) => "the server is down, or no way leads to it",
        (Nat, Got::Nothing, _) => {
            "its answers go around the director (its route to clients does not lead there), or it drops what comes from clients"
        }
        (Nat, Got::Refused, Own::Takes) => "it, or a firewall before it, refuses what comes from clients",
        (_, Got::Refused, Own::Refuses) => "nothing listens there",
        // Datagrams, of which nothing is known by its own address; or that is filtered.
        (Nat, Got::Refused, Own::Pings) => "nothing listens there, or a firewall refuses what comes from clients",
        // By GUE a closed port of the tunnel's own is refused the same way (RFC 792: port unreachable).
        (Tunnel, Got::Refused, _) => {
            "it does not take packets out of the tunnel, or has the virtual address and nothing listens there on it: the \
             program is bound to another address, or to another port"
        }
        (Direct, Got::Refused, _) => {
            "it has the virtual address, and nothing listens there on it: the program is bound to another address, or to \
             another port"
        }
        (Direct, Got::Nothing, _) => "it lacks the virtual address, or drops what comes from clients",
        (Tunnel, Got::Nothing, _) => {
            "it does not take packets out of the tunnel, lacks the virtual address, or drops what comes from clients"
        }
        (Direct, Got::Unreachable | Got::NoProtocol, _) => {
            "it lacks the virtual address, and sends on what is for it, or a firewall refuses it"
        }
        (Tunnel, Got::Unreachable, _) => {
            "it does not take packets out of the tunnel, or lacks the virtual address, or a firewall refuses them"
        }
        (Nat, ..) => "a router or firewall on the clients' path refuses it",
        (_, Got::Other(_), _) => "",
    };
    let both = if own.is_there() { format!("{own}, but ") } else { format!("{own}: ") };
    Why::new(match (got, own) {
        (Got::Refused, Own::Refuses) => format!("{what}: by its own address, too: {cause}"),
        _ => format!("{what}: {both}{cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Forwarding::{Direct, Nat, Tunnel};

    #[test]
    fn causes_are_narrowed_by_what_is_known() {
        for (by, got, own, expected) in [
            (
                Nat,
                Got::Nothing,
                Own::Takes,
                "timeout: it takes connections by its own address, but its answers go around the director (its route to \
                 clients does not lead there), or it drops what comes from clients",
            ),
            (
                Direct,
                Got::Nothing,
                Own::Refuses,
                "timeout: it is there, and by its own address refuses them as well, but it lacks the virtual address, or \
                 drops what comes from clients",
            ),
            (
                Direct,
                Got::Refused,
                Own::Takes,
                "connection refused: it takes connections by its own address, but it has the virtual address, and nothing \
                 listens there on it: the program is bound to another address, or to another port",
            ),
            (
                Tunnel,
                Got::NoProtocol,
                Own::Pings,
                "protocol unreachable: it answers pings, but the server does not take packets out of the tunnel",
            ),
            (
                Tunnel,
                Got::Nothing,
                Own::Takes,
                "timeout: it takes connections by its own address, but it does not take packets out of the tunnel, lacks \
                 the virtual address, or drops what comes from clients",
            ),
            (Nat, Got::Refused, Own::Refuses, "connection refused: by its own address, too: nothing listens there"),
            (Nat, Got::Other(Why::of("no room")), Own::Takes, "no room"),
        ] {
            assert_eq!(explain(by, &got, own).to_string(), expected);
        }
    }

    /// Who does not answer at all is not blamed for a detail of the path, and whoever is there is not called down.
    #[test]
    fn who_is_silent_is_down() {
        for by in [Nat, Direct, Tunnel] {
            for got in [Got::Nothing, Got::Refused, Got::Unreachable] {
                for own in [Own::Takes, Own::Refuses, Own::Pings, Own::Silent] {
                    let why = explain(by, &got, own).to_string();
                    assert_eq!(why.contains("is down"), own == Own::Silent, "{by:?} {got:?} {own:?}: {why}");
                    assert!(why.len() < 250 && !why.ends_with(['.', ' ', ':']), "{why}");
                }
            }
        }
    }
}
