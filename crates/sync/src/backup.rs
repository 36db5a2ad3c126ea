//! What a backup does with one record (§9.5). Pure: the caller looks up what the record is about
//! — [`server_ports`] says in which order — and carries out the [`Decision`].
//!
//! Beyond IPVS, both nodes may be active: a connection whose packets this node handles itself
//! yields only to a peer that has seen packets of it more recently ([`Owner`]).

use crate::reason::Reason;
use crate::record::{Flags, Method, Record, Sequence};
use crate::state;
use std::net::SocketAddr;

/// Who handles a connection's packets, as far as this node knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// This node: it was opened here, or had a packet here since it was learned. `idle_ms`: time
    /// since that packet.
    Own {
        /// Milliseconds since the last packet.
        idle_ms: u64,
    },
    /// A peer that it was learned from, by its node id; kernels have none and are
    /// [`Owner::KERNEL`]. `idle_ms` as the peer's record said, and older since.
    Learned {
        /// The peer's node id.
        node: u32,
        /// Milliseconds since the last packet that the peer has seen.
        idle_ms: u64,
    },
}

impl Owner {
    /// The node id of all kernels, which do not tell theirs.
    pub const KERNEL: u32 = 0;
}

/// A connection or template that the backup has under the record's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Existing {
    /// Its flags: [`Flags`].
    pub flags: Flags,
    /// The real server that it goes to.
    pub real: SocketAddr,
    /// Whether it is bound to a server of the configuration.
    pub bound: bool,
    /// Who handles it.
    pub owner: Owner,
}

/// The server of the backup's own configuration that a record is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Configured {
    /// How that server is reached from here.
    pub method: Method,
}

/// What the caller found for a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// In the table of connections, under the record's key. (The kernel looks as for a client's
    /// packet: a record also finds the entry of an expected connection whose client's port is not
    /// known yet, and changes that. Here it may as well become an entry of its own.)
    pub existing: Option<Existing>,
    /// In the configuration; needs to be looked for only if `existing` is not bound.
    pub configured: Option<Configured>,
    /// Whether the record's persistence engine is here. (Yes, if it has none.)
    pub engine: bool,
}

/// From whom a record is, for who wins when both know a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct From {
    /// The peer's node id, or [`Owner::KERNEL`].
    pub node: u32,
    /// This node's.
    pub here: u32,
    /// Who saw the connection's last packet: the peer itself, or another node that the peer tells it
    /// for. Kernels: [`Owner::KERNEL`].
    pub seen_by: u32,
    /// Milliseconds since: as the record says ([`crate::Recency`]), and the time since it was made.
    /// Kernels do not tell, and are believed to have seen one just now.
    pub idle_ms: u64,
}

/// The connection counts as bound to the configured server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Flags of the entry from now on.
    pub flags: Flags,
    /// Whether to count it at the server as an active connection, an inactive one, or a template.
    /// The server closes if that reaches its upper threshold. Its total of connections is left as
    /// it is.
    pub counted: Counted,
}

/// What a server counts an entry as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// An active connection.
    Active,
    /// An inactive connection.
    Inactive,
    /// A persistence template.
    Template,
}

/// What an entry is set to, new or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contents {
    /// State, and the state that was sent last (what is compared with the next).
    pub state: u16,
    /// Idle seconds after which it goes; the timer starts anew.
    pub timeout_seconds: u32,
    /// Packets of the client: the backup's threshold, so that as a master it goes on in step.
    pub packets: u32,
    /// Sequence data, if the record has any; else what there is stays.
    pub sequence: Option<Sequence>,
}

/// What to do with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Nothing.
    Ignore(Reason),
    /// The entry stays, with these.
    Update {
        /// Flags of the entry from now on, if it is not bound by this.
        flags: Flags,
        /// Counted otherwise at its server than before: from active to inactive or back. Only of
        /// one that was bound.
        recount: Option<Counted>,
        /// It had no server, and has one now.
        bind: Option<Binding>,
        /// State, timeout and the rest.
        contents: Contents,
    },
    /// A new entry, after the existing one was expired if there is one.
    Create {
        /// Expire what was found first: it goes to another server.
        replace: bool,
        /// With a server of the configuration; else unbound: forwarded by the stored address (not
        /// in tunnels), counted nowhere.
        bind: Option<Binding>,
        /// Flags of an unbound entry.
        flags: Flags,
        /// State, timeout and the rest.
        contents: Contents,
    },
}

/// In which order of ports the server at the record's address is looked for in its service (which
/// is found by the mark first, if there is one, then by protocol, address and port).
pub fn server_ports(record: &Record) -> [u16; 2] {
    let port = record.ends.real().port();
    // What packets of a mark are not translated for has no port of its own.
    if record.fwmark != 0 && record.flags.method() != Some(Method::Nat) { [0, port] } else { [port, 0] }
}

/// What to do with a record. `threshold`: of this backup's `sync_threshold`.
pub fn decide(record: &Record, found: &Found, from: &From, threshold: u32) -> Decision {
    if !found.engine {
        return Decision::Ignore(Reason::PeUnknown);
    }
    let contents = contents(record, threshold);
    let Some(existing) = found.existing else {
        return create(record, found, false, contents);
    };
    if stale(&existing, from) {
        return Decision::Ignore(Reason::Staler);
    }
    if !record.flags.template() && existing.real != record.ends.real() {
        // The end of a connection that was already replaced by this one.
        if record.flags.inactive() {
            return Decision::Ignore(Reason::Replaced);
        }
        return create(record, found, true, contents);
    }
    let flags = Flags(existing.flags.0 & !Flags::ADOPTED | record.flags.0 & Flags::ADOPTED);
    let changed = (existing.flags.0 ^ record.flags.0) & Flags::INACTIVE != 0;
    let recount = (existing.bound && changed && !record.flags.template()).then(|| counted(flags));
    let bind = if existing.bound { None } else { found.configured.map(|c| bind(flags, c)) };
    Decision::Update { flags, recount, bind, contents }
}

/// Whether this node knows better. The peer that a connection was learned from always has the
/// last word about it, and this node about its own that a peer tells it back; between others, whoever
/// saw a packet last; in a tie the greater node id, which both sides find alike. Kernels cannot be
/// compared with, and win as they do among themselves.
fn stale(existing: &Existing, from: &From) -> bool {
    let (node, idle_ms) = match existing.owner {
        Owner::Own { .. } if from.seen_by == from.here => return true,
        Owner::Learned { node, .. } if node == from.node => return false,
        _ if from.node == Owner::KERNEL => return false,
        Owner::Learned { node, idle_ms } => (node, idle_ms),
        Owner::Own { idle_ms } => (from.here, idle_ms),
    };
    (idle_ms, std::cmp::Reverse(node)) < (from.idle_ms, std::cmp::Reverse(from.seen_by))
}

fn contents(record: &Record, threshold: u32) -> Contents {
    let seconds = match record.timeout_seconds {
        0 => state::default_seconds(record.protocol, record.flags.template(), record.state),
        seconds => seconds,
    };
    Contents { state: record.state, timeout_seconds: seconds, packets: threshold, sequence: record.sequence }
}

fn create(record: &Record, found: &Found, replace: bool, contents: Contents) -> Decision {
    if record.flags.has(Flags::ONE_PACKET) {
        return Decision::Ignore(Reason::OnePacket);
    }
    let flags = Flags(record.kept().0 | Flags::SYNC);
    let bind = found.configured.map(|c| bind(flags, c));
    Decision::Create { replace, bind, flags, contents }
}

/// Flags of an entry that is bound to a server of the configuration: how it is reached is that
/// server's, whether it is active the record's. An entry that this node made counts as what the
/// server's method says.
fn bind(flags: Flags, configured: Configured) -> Binding {
    let mut server = configured.method as u32;
    if configured.method != Method::Nat {
        server |= Flags::NO_OUTPUT;
    }
    let flags = Flags(flags.0 & !(Flags::METHOD | Flags::NO_OUTPUT) | server);
    // A template's activity is nobody's: the kernel sets it as of any new entry.
    let flags = if flags.template() { Flags(flags.0 | Flags::INACTIVE) } else { flags };
    Binding { flags, counted: counted(flags) }
}

fn counted(flags: Flags) -> Counted {
    if flags.template() {
        Counted::Template
    } else if flags.inactive() {
        Counted::Inactive
    } else {
        Counted::Active
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Ends;
    use crate::state::tcp;

    const HERE: u32 = 2;
    const KERNEL: From = From { node: Owner::KERNEL, here: HERE, seen_by: Owner::KERNEL, idle_ms: 0 };

    fn record() -> Record {
        Record {
            protocol: 6,
            flags: Flags(0x0083),
            state: tcp::ESTABLISHED,
            ends: Ends::v4(([203, 0, 113, 5].into(), 4000), ([192, 0, 2, 10].into(), 80), ([10, 1, 0, 11].into(), 80)),
            fwmark: 0,
            timeout_seconds: 900,
            sequence: None,
            pe: None,
            recency: None,
        }
    }
    const NAT: Configured = Configured { method: Method::Nat };
    const NOTHING: Found = Found { existing: None, configured: None, engine: true };
    const CONTENTS: Contents = Contents { state: tcp::ESTABLISHED, timeout_seconds: 900, packets: 3, sequence: None };

    fn existing(flags: u32, bound: bool) -> Existing {
        let owner = Owner::Learned { node: Owner::KERNEL, idle_ms: 0 };
        Existing { flags: Flags(flags), real: record().ends.real(), bound, owner }
    }

    #[test]
    fn new_with_a_server_takes_the_servers_method() {
        let found = Found { configured: Some(NAT), ..NOTHING };
        let bind = Binding { flags: Flags(Flags::SYNC), counted: Counted::Active };
        let flags = Flags(0x0083 | Flags::SYNC);
        let expected = Decision::Create { replace: false, bind: Some(bind), flags, contents: CONTENTS };
        assert_eq!(decide(&record(), &found, &KERNEL, 3), expected);
        // And of the activity, the record's.
        let inactive = Record { flags: Flags(0x0183), state: tcp::FIN_WAIT, ..record() };
        let Decision::Create { bind: Some(bind), .. } = decide(&inactive, &found, &KERNEL, 3) else { panic!() };
        assert_eq!(bind, Binding { flags: Flags(Flags::SYNC | Flags::INACTIVE), counted: Counted::Inactive });
        let route = Configured { method: Method::Route };
        let found = Found { configured: Some(route), ..NOTHING };
        let nat = Record { flags: Flags(0), ..record() };
        let Decision::Create { bind: Some(bind), .. } = decide(&nat, &found, &KERNEL, 3) else { panic!() };
        assert_eq!(bind.flags, Flags(3 | Flags::NO_OUTPUT | Flags::SYNC));
    }

    #[test]
    fn new_without_a_server_keeps_the_records_method() {
        let expected =
            Decision::Create { replace: false, bind: None, flags: Flags(0x83 | Flags::SYNC), contents: CONTENTS };
        assert_eq!(decide(&record(), &NOTHING, &KERNEL, 3), expected);
        // Flags that no receiver keeps.
        let odd = Record { flags: Flags(0xffff_c0bb), ..record() };
        assert_eq!(decide(&odd, &NOTHING, &KERNEL, 3), expected);
        // One-packet entries are in no table; a connection that is there is changed by such a record.
        let once = Record { flags: Flags(0x2083), ..record() };
        assert_eq!(decide(&once, &NOTHING, &KERNEL, 3), Decision::Ignore(Reason::OnePacket));
        let found = Found { existing: Some(existing(0x20, true)), ..NOTHING };
        assert!(matches!(decide(&once, &found, &KERNEL, 3), Decision::Update { .. }));
    }

    #[test]
    fn known_adopts_activity_and_sequence_only() {
        let closing = Record { flags: Flags(0x0783), state: tcp::CLOSE, timeout_seconds: 10, ..record() };
        let found = Found { existing: Some(existing(0x20, true)), ..NOTHING };
        let contents = Contents { state: tcp::CLOSE, timeout_seconds: 10, ..CONTENTS };
        let flags = Flags(0x20 | 0x700);
        let expected = Decision::Update { flags, recount: Some(Counted::Inactive), bind: None, contents };
        assert_eq!(decide(&closing, &found, &KERNEL, 3), expected);
        // Back.
        let found = Found { existing: Some(existing(0x720, true)), ..NOTHING };
        let expected =
            Decision::Update { flags: Flags(0x20), recount: Some(Counted::Active), bind: None, contents: CONTENTS };
        assert_eq!(decide(&record(), &found, &KERNEL, 3), expected);
        // As it was: nothing to count. Without a server: nowhere to count.
        for (found, configured) in [(existing(0x20, true), None), (existing(0x120, false), None)] {
            let found = Found { existing: Some(found), configured, engine: true };
            let expected = Decision::Update { flags: Flags(0x20), recount: None, bind: None, contents: CONTENTS };
            assert_eq!(decide(&record(), &found, &KERNEL, 3), expected);
        }
    }

    #[test]
    fn unbound_is_bound_when_there_is_a_server() {
        let found = Found { existing: Some(existing(0x1a3, false)), configured: Some(NAT), engine: true };
        let bind = Some(Binding { flags: Flags(0x20), counted: Counted::Active });
        let expected = Decision::Update { flags: Flags(0xa3), recount: None, bind, contents: CONTENTS };
        assert_eq!(decide(&record(), &found, &KERNEL, 3), expected);
    }

    #[test]
    fn another_server_replaces_if_the_record_is_active() {
        let other = Existing { real: "10.1.0.12:80".parse().unwrap(), ..existing(0x20, true) };
        let found = Found { existing: Some(other), configured: Some(NAT), engine: true };
        let decision = decide(&record(), &found, &KERNEL, 3);
        assert!(matches!(decision, Decision::Create { replace: true, bind: Some(_), .. }), "{decision:?}");
        let inactive = Record { flags: Flags(0x0183), state: tcp::CLOSE, ..record() };
        assert_eq!(decide(&inactive, &found, &KERNEL, 3), Decision::Ignore(Reason::Replaced));
        // The port alone is another server.
        let other = Existing { real: "10.1.0.11:81".parse().unwrap(), ..other };
        let found = Found { existing: Some(other), ..found };
        assert_eq!(decide(&inactive, &found, &KERNEL, 3), Decision::Ignore(Reason::Replaced));
        // A template's server is not looked at.
        let template = Record { flags: Flags(0x1100), state: 1, timeout_seconds: 60, ..record() };
        assert!(matches!(decide(&template, &found, &KERNEL, 3), Decision::Update { recount: None, .. }));
    }

    #[test]
    fn no_timeout_means_the_states_default() {
        let seconds = |record: &Record| match decide(record, &NOTHING, &KERNEL, 7) {
            Decision::Create { contents, .. } => (contents.timeout_seconds, contents.packets),
            other => panic!("{other:?}"),
        };
        let none = Record { timeout_seconds: 0, ..record() };
        assert_eq!(seconds(&Record { state: tcp::CLOSE, ..none.clone() }), (10, 7));
        assert_eq!(seconds(&Record { protocol: 17, state: 0, ..none.clone() }), (300, 7));
        assert_eq!(seconds(&Record { flags: Flags(Flags::TEMPLATE), ..none.clone() }), (180, 7));
        assert_eq!(seconds(&Record { protocol: 51, state: 0, ..none }), (180, 7));
    }

    #[test]
    fn servers_are_looked_for_by_the_port_that_the_method_has() {
        let marked = Record { fwmark: 9, ..record() };
        assert_eq!(server_ports(&marked), [0, 80]);
        assert_eq!(server_ports(&Record { flags: Flags(0), ..marked }), [80, 0]);
        assert_eq!(server_ports(&record()), [80, 0]);
    }

    #[test]
    fn an_engine_that_is_not_here_is_ignored() {
        let found = Found { engine: false, ..NOTHING };
        assert_eq!(decide(&record(), &found, &KERNEL, 3), Decision::Ignore(Reason::PeUnknown));
    }

    #[test]
    fn whoever_saw_a_packet_last_wins() {
        let owned = |owner| Found { existing: Some(Existing { owner, ..existing(0, true) }), ..NOTHING };
        let ignored = |owner, node, idle_ms| {
            let from = From { node, here: HERE, seen_by: node, idle_ms };
            decide(&record(), &owned(owner), &from, 3) == Decision::Ignore(Reason::Staler)
        };
        let own = Owner::Own { idle_ms: 100 };
        assert!(!ignored(own, 3, 99));
        assert!(ignored(own, 3, 101));
        // In a tie the greater id: each of both sides comes to the same.
        assert!(!ignored(own, 3, 100));
        assert!(ignored(own, 1, 100));
        // Kernels win, as among kernels; the peer it was learned from always; other peers like us.
        assert!(!ignored(own, Owner::KERNEL, 0));
        let learned = Owner::Learned { node: 3, idle_ms: 100 };
        assert!(!ignored(learned, 3, 5000));
        assert!(ignored(learned, 4, 5000));
        assert!(!ignored(learned, 4, 50));
        // What a peer tells back of this node's own, however fresh that seems.
        let back = From { node: 3, here: HERE, seen_by: HERE, idle_ms: 0 };
        assert_eq!(decide(&record(), &owned(own), &back, 3), Decision::Ignore(Reason::Staler));
        assert!(matches!(decide(&record(), &NOTHING, &back, 3), Decision::Create { .. }));
    }
}
