//! What other hosts on a link say about addresses: ARP packets from an address (RFC 826, RFC 5227), and neighbour
//! advertisements of it (RFC 4861 section 7.2.5).
//!
//! The kernel's filter on the socket passes what names one of the addresses only, so that a flood about others costs no
//! time of whoever reads.

use crate::error::{Context, Result, libc};
use crate::links::Mac;
use crate::raw::link_address;
use nix::sys::socket::bind;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::task::{self, Poll};
use tokio::io::unix::AsyncFd;

/// Addresses in a filter: its jumps are at most 255 instructions long.
const MOST: usize = 200;
/// More than any packet of these has that is looked at.
const LARGEST: usize = 256;

/// Somebody said that an address is at a MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub ip: IpAddr,
    /// The MAC.
    pub mac: Mac,
}

/// A socket that hears claims on one interface to addresses of one family, in the namespace of the thread that opened it.
/// Needs a tokio runtime with IO.
#[derive(Debug)]
pub struct Claims {
    socket: AsyncFd<Socket>,
}

impl Claims {
    /// Listens.
    pub fn open(ifindex: u32, ipv6: bool, addresses: &[IpAddr]) -> Result<Self> {
        let protocol = if ipv6 { libc::ETH_P_IPV6 } else { libc::ETH_P_ARP };
        let open = || -> io::Result<AsyncFd<Socket>> {
            // Of no protocol until it is filtered and bound.
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
            socket.set_nonblocking(true)?;
            let lines = filter(ipv6, addresses).into_iter();
            let lines: Vec<_> = lines.map(|line| SockFilter::new(line.code, line.jt, line.jf, line.k)).collect();
            socket.attach_filter(&lines)?;
            // SAFETY: a socket owns its descriptor, never exchanges it, and closes it only when dropped with the `AsyncFd`
            // that it moves into here.
            Ok(unsafe { AsyncFd::register(socket) }?)
        };
        let place = || format!("listening for other hosts' ARP on interface number {ifindex}");
        let socket = open().context(place)?;
        let address = link_address(ifindex, (protocol as u16).to_be())?;
        bind(socket.get_ref().as_raw_fd(), &address).context(place)?;
        Ok(Self { socket })
    }

    /// Whether something may have come in; else the task is woken when it has.
    pub fn poll_readable(&self, context: &mut task::Context<'_>) -> Poll<()> {
        // An error shows when it is read.
        self.socket.poll_read_ready(context).map(|_| ())
    }

    /// What came in, at most so many packets.
    pub fn receive(&self, most: usize) -> Vec<Claim> {
        let mut all = Vec::new();
        let mut bytes = [0; LARGEST];
        for _ in 0..most {
            match self.socket.get_ref().read(&mut bytes) {
                Ok(length) => all.extend(bytes.get(..length).and_then(claim)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // Nothing is left, or the interface is down, which netlink tells.
                    let mut none = task::Context::from_waker(task::Waker::noop());
                    if let Poll::Ready(Ok(mut ready)) = self.socket.poll_read_ready(&mut none) {
                        ready.clear_ready();
                    }
                    break;
                }
            }
        }
        all
    }
}

/// What a frame says. A probe of ARP's (RFC 5227 section 1.1) comes from no address, and claims none.
fn claim(frame: &[u8]) -> Option<Claim> {
    let mac = |at: usize| -> Option<Mac> { frame.get(at..at + 6)?.try_into().ok() };
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            // Ethernet and IPv4, request or reply.
            let plain = matches!(frame.get(14..22)?, [0, 1, 8, 0, 6, 4, 0, 1 | 2]);
            let ip: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
            (plain && ip != [0; 4]).then_some(Claim { ip: ip.into(), mac: mac(22)? })
        }
        [0x86, 0xdd] => {
            // An advertisement without extension headers, from the link (hop limit 255).
            let head = (*frame.get(20)?, *frame.get(21)?, *frame.get(54)?);
            let ip: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
            let option = matches!(frame.get(78..80), Some([2, 1])).then(|| mac(80)).flatten();
            (head == (58, 255, 136)).then_some(Claim { ip: ip.into(), mac: option.or_else(|| mac(6))? })
        }
        _ => None,
    }
}

/// Classic BPF: passes packets whose (last four bytes of the) address is one of these.
fn filter(ipv6: bool, addresses: &[IpAddr]) -> Vec<libc::sock_filter> {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let line = |code, k: u32, jt, jf| libc::sock_filter { code, jt, jf, k };
    let last = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) if !ipv6 => Some(ip.to_bits()),
        IpAddr::V6(ip) if ipv6 => Some(ip.to_bits() as u32),
        _ => None,
    };
    let mut words: Vec<u32> = addresses.iter().filter_map(last).collect();
    words.sort_unstable();
    words.dedup();
    let mut all = Vec::new();
    if ipv6 {
        // A neighbour advertisement of ICMPv6, and nothing else.
        all.push(line(LOAD_BYTE, 20, 0, 0));
        all.push(line(EQUAL, 58, 1, 0));
        all.push(line(RETURN, 0, 0, 0));
        all.push(line(LOAD_BYTE, 54, 0, 0));
        all.push(line(EQUAL, 136, 1, 0));
        all.push(line(RETURN, 0, 0, 0));
    }
    if words.len() <= MOST {
        all.push(line(LOAD_WORD, if ipv6 { 74 } else { 28 }, 0, 0));
        let left = words.len();
        // To the end from each: over those that follow, and the refusal.
        all.extend(words.iter().enumerate().map(|(n, word)| line(EQUAL, *word, (left - n) as u8, 0)));
        all.push(line(RETURN, 0, 0, 0));
    }
    all.push(line(RETURN, LARGEST as u32, 0, 0));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vip::{gratuitous_arp, unsolicited_advertisement};

    const MAC: Mac = [2, 0, 0, 0, 2, 1];

    #[test]
    fn announcements_are_claims() {
        for operation in [1, 2] {
            let frame = gratuitous_arp(MAC, [192, 0, 2, 10].into(), operation);
            assert_eq!(claim(&frame), Some(Claim { ip: [192, 0, 2, 10].into(), mac: MAC }));
            assert_eq!(claim(&frame[..31]), None);
        }
        let probe = gratuitous_arp(MAC, [0, 0, 0, 0].into(), 1);
        assert_eq!(claim(&probe), None);
        let ip: IpAddr = "2001:db8::10".parse().unwrap();
        let IpAddr::V6(v6) = ip else { panic!() };
        let mut frame = unsolicited_advertisement(MAC, v6, true);
        assert_eq!(claim(&frame), Some(Claim { ip, mac: MAC }));
        // Without the option it is the frame's own.
        frame[78] = 1;
        frame[6] = 6;
        assert_eq!(claim(&frame).map(|claim| claim.mac[0]), Some(6));
        frame[21] = 254;
        assert_eq!(claim(&frame), None, "not from the link");
    }

    /// What the kernel would do with it, as far as these filters need.
    fn passes(filter: &[libc::sock_filter], frame: &[u8]) -> bool {
        let (mut at, mut a) = (0, 0);
        loop {
            let line = filter[at];
            let k = line.k as usize;
            at += 1;
            match line.code {
                0x20 => a = u32::from_be_bytes(frame[k..k + 4].try_into().unwrap()),
                0x30 => a = frame[k].into(),
                0x15 => at += usize::from(if a == line.k { line.jt } else { line.jf }),
                _ => return line.k != 0,
            }
        }
    }

    #[test]
    fn the_filter_passes_these_addresses_only() {
        for count in [1, 3, MOST, MOST + 1] {
            let four: Vec<IpAddr> = (0..count).map(|n| [10, 0, (n >> 8) as u8, n as u8].into()).collect();
            let v4 = filter(false, &four);
            for ip in &four {
                let IpAddr::V4(ip) = ip else { panic!() };
                assert!(passes(&v4, &gratuitous_arp(MAC, *ip, 1)));
            }
            assert_eq!(passes(&v4, &gratuitous_arp(MAC, [10, 1, 0, 0].into(), 1)), count > MOST);
            let ip = |n: usize| std::net::Ipv6Addr::from_bits(0xfd << 120 | n as u128);
            let six: Vec<IpAddr> = (0..count).map(|n| ip(n).into()).collect();
            let v6 = filter(true, &six);
            let mut frame = unsolicited_advertisement(MAC, ip(count - 1), true);
            assert!(passes(&v6, &frame));
            assert_eq!(passes(&v6, &unsolicited_advertisement(MAC, ip(5000), true)), count > MOST);
            frame[54] = 135;
            assert!(!passes(&v6, &frame), "a solicitation");
        }
    }
}
