//! What connections say of the ways between clients and servers: which servers' answers never come by, and whose
//! connections never get past their first packet. Found on the sweep's way over the tables, so that packets pay nothing.

use std::collections::HashMap;
use std::net::IpAddr;

use dirigent_director::conn::{self, Word};
use dirigent_director::records::{Settings, kind};
use dirigent_director::{sctp, tcp};
use dirigent_wire::ip::proto;

use super::Error;
use super::store::{Entry, Store};
use crate::keys::Flow;
use crate::memory::within;

/// A connection bears witness for so many seconds after its client's last packet: a client that asks in vain asks again
/// after 1, 2, 4, 8 and 16 seconds (RFC 6298 section 2).
const WINDOW_S: u32 = 30;
/// Clients ask again so many times, all in all, before it is more than a packet that was lost.
const RETRIES: u64 = 3;
/// Of connections to NAT servers the answers stand in an entry of their own, each of which costs a look into the table:
/// so many a sweep at most. Where there are more that wait, these are enough to judge by.
const LOOKS: u32 = 1024;

/// Which connections are looked at together: what befalls one may not befall the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// Index of the server.
    pub server: u32,
    /// NAT: the clients are in a network that the server is in too, as far as the director knows.
    pub near: bool,
}

/// What the last sweep saw of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Connections whose clients got no further than asking.
    pub stuck: u64,
    /// Packets of those clients beyond the first of each: they asked again, or gave up with a reset.
    pub retries: u64,
    /// One of these connections: from its client.
    pub example: Flow,
    /// Connections that got further.
    passed: u64,
}

/// Networks: address and prefix length, bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<(IpAddr, u8)>);

impl Networks {
    /// The one that both are in.
    pub fn shared(&self, one: IpAddr, other: IpAddr) -> Option<(IpAddr, u8)> {
        let both = |(net, length): &&(IpAddr, u8)| [one, other].iter().all(|ip| within(*ip, *net, *length));
        self.0.iter().find(both).copied()
    }
}

/// The ways that connections bear witness of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    all: HashMap<Path, Witness>,
    /// Ticks.
    now: u32,
    window: u32,
    looks: u32,
}

impl Paths {
    pub(super) fn begin(settings: &Settings, now: u32) -> Self {
        Self { now, window: WINDOW_S * settings.hz, ..Self::default() }
    }

    /// Those on which clients ask again and again and not one got further.
    pub fn suspected(&self) -> impl Iterator<Item = (Path, Witness)> + '_ {
        let vain = |witness: &Witness| witness.passed == 0 && witness.retries >= RETRIES;
        self.all.iter().filter(move |(_, witness)| vain(witness)).map(|(path, witness)| (*path, *witness))
    }

    /// Looks at an entry.
    pub(super) fn look<S: Store>(&mut self, store: &S, entry: &Entry, networks: &Networks) -> Result<(), Error> {
        if conn::age(self.now, entry.last_seen) > self.window {
            return Ok(());
        }
        let opening = opens(entry.flow.protocol, Word(entry.word).state());
        let shared = |server, client| networks.shared(server, client).is_some();
        let (passed, near) = match (entry.kind, opening) {
            // What the server's side sent.
            (kind::NAT_REPLY, _) if entry.packets > 0 => (true, shared(entry.flow.src, entry.flow.dst)),
            (kind::NAT_REQUEST, Some(true)) if entry.packets > 1 && self.looks < LOOKS => {
                self.looks += 1;
                let reply = store.entry(&entry.flow.reply(entry.address, entry.port))?;
                if reply.is_none_or(|reply| reply.packets > 0) {
                    return Ok(());
                }
                (false, shared(entry.address, entry.flow.src))
            }
            // Whose answers go to the client directly, wherever he is.
            (kind::DR_REQUEST | kind::TUN_REQUEST, Some(opening)) if !opening || entry.packets > 1 => (!opening, false),
            _ => return Ok(()),
        };
        let path = Path { server: entry.server, near };
        let begun = Witness { stuck: 0, retries: 0, example: entry.flow, passed: 0 };
        let witness = self.all.entry(path).or_insert(begun);
        if passed {
            witness.passed += 1;
        } else {
            witness.stuck += 1;
            witness.retries += u64::from(entry.packets - 1);
            witness.example = entry.flow;
        }
        Ok(())
    }
}

/// Whether a connection in this state only begins, or got further; of others nobody can say.
pub(super) fn opens(protocol: u8, state: u8) -> Option<bool> {
    const SYN_RECV: u8 = tcp::State::SynRecv as u8;
    const SYN_ACK: u8 = tcp::State::SynAck as u8;
    const ESTABLISHED: u8 = tcp::State::Established as u8;
    const FIN_WAIT: u8 = tcp::State::FinWait as u8;
    const TIME_WAIT: u8 = tcp::State::TimeWait as u8;
    const CLOSE_WAIT: u8 = tcp::State::CloseWait as u8;
    const INIT1: u8 = sctp::State::Init1 as u8;
    const INIT: u8 = sctp::State::Init as u8;
    const ASSOCIATED: u8 = sctp::State::Established as u8;
    match (protocol, state) {
        (proto::TCP, SYN_RECV | SYN_ACK) | (proto::SCTP, INIT1 | INIT) => Some(true),
        (proto::TCP, ESTABLISHED | FIN_WAIT | TIME_WAIT | CLOSE_WAIT) | (proto::SCTP, ASSOCIATED) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use dirigent_config::Model;
    use dirigent_director::family::V4;
    use dirigent_director::records::Conn;
    use dirigent_director::shared::{S32, S64};
    use dirigent_wire::{Addr4, Be16};

    use super::super::{Control, Sweep};
    use super::*;
    use crate::memory::MemoryTables;

    const SYN_RECV: u8 = tcp::State::SynRecv as u8;
    const ESTABLISHED: u8 = tcp::State::Established as u8;
    const SERVER: [u8; 4] = [10, 0, 0, 2];
    const FAR: [u8; 4] = [198, 51, 100, 7];
    const NEAR: [u8; 4] = [10, 0, 0, 77];

    struct Lab(Control<MemoryTables>, Sweep);

    impl Lab {
        fn new() -> Self {
            let control = Control::open(MemoryTables::default(), &Model::default()).unwrap();
            let mut sweep = Sweep::default();
            sweep.set_networks(Networks(vec![([10, 0, 0, 1].into(), 24)]));
            Self(control, sweep)
        }
        /// One entry of server 3: its state, seconds since its last packet, packets.
        fn entry(&mut self, flow: &Flow, kind: u8, state: u8, silent_s: u32, packets: u32) {
            let tables = self.0.store_mut();
            let mut entry = Conn {
                word: S64::new(Word::new(state, kind != kind::DR_REQUEST, u32::from(flow.sport) * 0x9e37).0),
                last_seen: S32::new(tables.now.wrapping_sub(silent_s * tables.hz())),
                packets: S32::new(packets),
                addr: Addr4::new(SERVER),
                port: Be16::new(8080),
                server: 3,
                kind,
                ..Conn::default()
            };
            conn::insert::<V4, _>(tables, &flow.tuple4().unwrap(), &mut entry);
        }
        /// A connection by NAT: packets of the client, and of the server.
        fn nat(&mut self, client: [u8; 4], sport: u16, state: u8, packets: (u32, u32)) {
            let flow = flow(client, sport);
            self.entry(&flow, kind::NAT_REQUEST, state, 1, packets.0);
            self.entry(&flow.reply(SERVER.into(), 8080), kind::NAT_REPLY, state, 1, packets.1);
        }
        /// Whether the clients are near, connections, and packets in vain.
        fn suspected(&mut self) -> Vec<(bool, u64, u64)> {
            let Self(control, sweep) = self;
            assert_eq!(sweep.run(control.store_mut(), &mut || ()).unwrap().gone, 0);
            let mut all: Vec<_> = sweep.paths().suspected().collect();
            assert!(all.iter().all(|(path, w)| path.server == 3 && w.example.dst == IpAddr::from([192, 0, 2, 1])));
            all.sort_by_key(|(path, _)| *path);
            all.iter().map(|(path, w)| (path.near, w.stuck, w.retries)).collect()
        }
    }

    fn flow(client: [u8; 4], sport: u16) -> Flow {
        Flow { protocol: 6, template: 0, src: client.into(), sport, dst: [192, 0, 2, 1].into(), dport: 80 }
    }

    #[test]
    fn nat_servers_whose_answers_never_come_are_suspected() {
        let mut lab = Lab::new();
        lab.nat(FAR, 1, SYN_RECV, (3, 0));
        assert_eq!(lab.suspected(), [], "two more packets are no proof");
        lab.nat(FAR, 2, SYN_RECV, (1, 0));
        assert_eq!(lab.suspected(), [], "nor is one who asked once");
        lab.nat(FAR, 5, SYN_RECV, (2, 0));
        assert_eq!(lab.suspected(), [(false, 2, 3)]);
        // Clients in the server's own network are another matter.
        lab.nat(NEAR, 3, ESTABLISHED, (9, 9));
        assert_eq!(lab.suspected(), [(false, 2, 3)]);
        lab.nat(FAR, 4, SYN_RECV, (2, 1));
        assert_eq!(lab.suspected(), [], "it answers one");
    }

    #[test]
    fn clients_in_the_servers_network_are_looked_at_apart() {
        let mut lab = Lab::new();
        lab.nat(FAR, 1, ESTABLISHED, (9, 9));
        lab.nat(NEAR, 2, SYN_RECV, (5, 0));
        assert_eq!(lab.suspected(), [(true, 1, 4)]);
    }

    #[test]
    fn connections_that_never_get_past_their_first_packet_are_suspected() {
        let mut lab = Lab::new();
        lab.entry(&flow(FAR, 1), kind::DR_REQUEST, SYN_RECV, 1, 4);
        assert_eq!(lab.suspected(), [(false, 1, 3)]);
        lab.entry(&flow(FAR, 2), kind::DR_REQUEST, ESTABLISHED, WINDOW_S + 1, 9);
        assert_eq!(lab.suspected(), [(false, 1, 3)], "that was long ago");
        lab.entry(&flow(FAR, 3), kind::DR_REQUEST, ESTABLISHED, 1, 9);
        assert_eq!(lab.suspected(), []);
    }

    #[test]
    fn a_flood_is_no_witness() {
        let mut lab = Lab::new();
        for sport in 1..=1000 {
            lab.entry(&flow(FAR, sport), kind::DR_REQUEST, SYN_RECV, 1, 1);
            lab.entry(&flow(FAR, sport + 1000), kind::DR_REQUEST, SYN_RECV, WINDOW_S + 1, 9);
        }
        assert_eq!(lab.suspected(), []);
    }

    #[test]
    fn networks_are_compared_by_their_length() {
        let networks =
            Networks(vec![([10, 0, 0, 1].into(), 24), ("fd00::1".parse().unwrap(), 64), ([172, 16, 0, 1].into(), 32)]);
        let shared = |one: &str, other: &str| networks.shared(one.parse().unwrap(), other.parse().unwrap());
        assert_eq!(shared("10.0.0.2", "10.0.0.255").map(|net| net.1), Some(24));
        assert_eq!(shared("10.0.0.2", "10.0.1.2"), None);
        assert_eq!(shared("fd00::2", "fd00::ffff:1").map(|net| net.1), Some(64));
        assert_eq!(shared("fd00::2", "fd00:0:0:1::2"), None);
        assert_eq!(shared("172.16.0.1", "172.16.0.1").map(|net| net.1), Some(32));
        assert_eq!(shared("172.16.0.1", "172.16.0.2"), None);
        assert_eq!(
            Networks(vec![([0, 0, 0, 0].into(), 0)]).shared([1, 2, 3, 4].into(), [9, 9, 9, 9].into()).unwrap().1,
            0
        );
    }
}
