//! Resetting the connections of servers that failed: user space's part of `dirigent_director::reset`.

use std::collections::HashSet;
use std::net::IpAddr;

use dirigent_config::ServiceKey;
use dirigent_director::conn::Word;
use dirigent_director::family::pseudo_tail;
use dirigent_director::records::{kind, server_flag};
use dirigent_director::reset;
use dirigent_wire::ip::proto;
use dirigent_wire::{Addr4, Addr6, Be16, Be32, Ipv4Header, Ipv6Header, Ports, TcpHeader, checksum};
use zerocopy::IntoBytes as _;

use super::Error;
use super::apply::Control;
use super::store::{Due, Entry, Store};
use crate::keys::Flow;

impl<S: Store> Control<S> {
    /// A server failed: its connections may be reset from now on, until it is written anew. Gives its index, if it
    /// has any.
    pub fn allow_resets(&mut self, key: &ServiceKey, address: IpAddr, port: u16) -> Result<Option<u32>, Error> {
        let member = self.held.get_mut(key).and_then(|held| {
            let member = held.members.iter().find(|member| (member.address, member.port) == (address, port))?;
            held.written.remove(&member.index);
            Some(member.index)
        });
        let Some(index) = member.or_else(|| self.trash.find(key, address, port)) else { return Ok(None) };
        let server = self.store.server(index)?;
        server.flags.store(server.flags.load() | server_flag::RESETTING);
        self.store.put_server(index, &server)?;
        Ok(Some(index))
    }
}

/// The servers of one failure, whose connections are reset.
#[derive(Clone, Debug, Default)]
pub struct Resets {
    servers: HashSet<u32>,
}

impl Resets {
    /// Of these indexes.
    pub fn of(servers: impl IntoIterator<Item = u32>) -> Self {
        Self { servers: servers.into_iter().collect() }
    }

    fn concerns(&self, entry: &Entry) -> bool {
        self.servers.contains(&entry.server)
    }

    /// Marks what lives of their connections, and ends the rest. Gives how many ended. A packet that was scheduled
    /// before its server failed may open one afterwards: so it is to be done again.
    pub fn mark<S: Store>(&self, store: &mut S, pause: &mut dyn FnMut()) -> Result<u64, Error> {
        let due = |entry: &Entry| {
            let begins = self.concerns(entry)
                && entry.kind != kind::NAT_REPLY
                && !reset::is_marked(entry.flow.protocol, Word(entry.word));
            if begins { Due::Reset } else { Due::Not }
        };
        Ok(store.sweep(&mut |_, entry| Ok(due(entry)), pause)?.gone)
    }

    /// Shows whose packets are still to come that are answered with a reset, by the tuple of these packets.
    pub fn untold<S: Store>(&self, store: &S, see: &mut dyn FnMut(&Flow)) -> Result<(), Error> {
        for v6 in [false, true] {
            store.walk(v6, &mut |entry| {
                let word = Word(entry.word);
                let waits = reset::is_marked(entry.flow.protocol, word) && !word.told() && !word.dead();
                if waits && self.concerns(&entry) {
                    see(&entry.flow);
                }
            })?;
        }
        Ok(())
    }

    /// Ends what is marked. Gives how many connections that were.
    pub fn end<S: Store>(&self, store: &mut S, pause: &mut dyn FnMut()) -> Result<u64, Error> {
        let due = |entry: &Entry| {
            let marked = self.concerns(entry)
                && entry.kind != kind::NAT_REPLY
                && reset::is_marked(entry.flow.protocol, Word(entry.word));
            if marked { Due::AtOnce } else { Due::Not }
        };
        Ok(store.sweep(&mut |_, entry| Ok(due(entry)), pause)?.gone)
    }
}

impl Flow {
    /// An IP packet to whom this flow's packets come from, as if from where they go: an acknowledgement that cannot be
    /// the connection's next segment. TCP answers with one that tells its numbers (RFC 9293 §3.10.7.4, RFC 5961 §5).
    /// It carries nothing, so that nothing is taken for data should `random` be in its window. `None`: of no family.
    #[must_use]
    pub fn challenge(&self, random: u64) -> Option<Vec<u8>> {
        const LEN: u16 = size_of::<TcpHeader>() as u16;
        const TTL: u8 = 64;
        let mut segment = TcpHeader {
            ports: Ports { src: Be16::new(self.dport), dst: Be16::new(self.sport) },
            seq: Be32::new((random >> 32) as u32),
            ack: Be32::new(random as u32),
            data_offset: 5 << 4,
            flags: TcpHeader::ACK,
            window: Be16::new(0),
            check: Be16::new(0),
            urgent: Be16::new(0),
        };
        let mut finish = |addresses: &[u8]| {
            let sums = checksum::add(checksum::sum_bytes(addresses), checksum::sum_bytes(segment.as_bytes()));
            let sum = checksum::add(sums, pseudo_tail(proto::TCP, LEN.into()));
            segment.check = Be16::from_raw(!sum);
        };
        let mut packet;
        match (self.dst, self.src) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (src, dst) = (Addr4::new(src.octets()), Addr4::new(dst.octets()));
                finish([src.bytes(), dst.bytes()].as_flattened());
                let mut ip = Ipv4Header {
                    version_ihl: 0x45,
                    tos: 0,
                    total_len: Be16::new(size_of::<Ipv4Header>() as u16 + LEN),
                    id: Be16::new(0),
                    fragment: Be16::new(Ipv4Header::DF),
                    ttl: TTL,
                    protocol: proto::TCP,
                    check: Be16::new(0),
                    src,
                    dst,
                };
                ip.check = Be16::from_raw(!ip.sum());
                packet = ip.as_bytes().to_vec();
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (src, dst) = (Addr6::new(src.octets()), Addr6::new(dst.octets()));
                finish([src.bytes(), dst.bytes()].as_flattened());
                let ip = Ipv6Header {
                    version_class_flow: Be32::new(6 << 28),
                    payload_len: Be16::new(LEN),
                    next_header: proto::TCP,
                    hop_limit: TTL,
                    src,
                    dst,
                };
                packet = ip.as_bytes().to_vec();
            }
            _ => return None,
        }
        packet.extend_from_slice(segment.as_bytes());
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_goes_back_with_whole_checksums() {
        for (src, dst, l3) in [("198.51.100.7", "192.0.2.10", 20), ("2001:db8::7", "2001:db8::10", 40)] {
            let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let flow = Flow { protocol: 6, template: 0, src, sport: 40_000, dst, dport: 80 };
            let packet = flow.challenge(0x0102_0304_0506_0708).unwrap();
            let (ip, tcp) = packet.split_at(l3);
            let (addresses, octets) = match dst {
                IpAddr::V4(dst) => (&ip[12..], dst.octets().to_vec()),
                IpAddr::V6(dst) => (&ip[8..], dst.octets().to_vec()),
            };
            assert_eq!(addresses[..octets.len()], octets);
            let ports = [80_u16.to_be_bytes(), 40_000_u16.to_be_bytes()].concat();
            assert_eq!(tcp[..12], [&ports[..], &[1, 2, 3, 4, 5, 6, 7, 8]].concat());
            assert_eq!((tcp[12], tcp[13], tcp.len()), (0x50, 0x10, 20));
            let pseudo = [addresses, &[0, 6, 0, 20], tcp].concat();
            assert_eq!(checksum::sum_bytes(&pseudo), 0xffff);
            assert!(dst.is_ipv6() || checksum::sum_bytes(ip) == 0xffff);
        }
    }
}
