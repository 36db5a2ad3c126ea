//! Who says that an address is his: a host on the link that asks again and again by ARP and neighbour solicitations, and
//! hears what is announced.

use dirigent_net::netns::Namespace;
use dirigent_net::raw::PacketSocket;
use dirigent_net::{Mac, Netlink};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Each address is asked for so often.
pub const EVERY: Duration = Duration::from_millis(10);
/// Answers that are no further apart are of one time in which somebody answered: a busy machine answers late.
const TOGETHER: Duration = Duration::from_millis(250);
const INTERFACE: &str = "eth0";

/// The host that asks.
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// The host's own.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// Its interface's MAC.
    pub mac: Mac,
    /// Its address.
    pub v4: Ipv4Addr,
    /// And of IPv6.
    pub v6: Ipv6Addr,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    answers: BTreeMap<(IpAddr, Mac), Vec<Instant>>,
    announced: Vec<(Instant, IpAddr, Mac)>,
}

impl Prober {
    /// Begins to ask for these.
    pub fn start(namespace: &str, own: Own, addresses: Vec<IpAddr>) -> Self {
        let namespace = Namespace::open(namespace).expect("a namespace");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            namespace.run(|| probe(own, &addresses, &stopped)).expect("a namespace").expect("a packet socket")
        });
        Self { stop, thread }
    }

    /// Ends.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the prober's thread")
    }
}

fn probe(own: Own, addresses: &[IpAddr], stopped: &AtomicBool) -> dirigent_net::Result<Seen> {
    let ifindex = Netlink::route()?.index_of(INTERFACE)?;
    let socket = PacketSocket::listening(ifindex)?;
    let frames: Vec<_> = addresses.iter().map(|address| question(own, *address)).collect();
    let (mut seen, mut due) = (Seen::default(), Instant::now());
    while !stopped.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= due {
            frames.iter().try_for_each(|frame| socket.send(ifindex, frame))?;
            due = now + EVERY;
        }
        let patience = due.saturating_duration_since(Instant::now()).max(Duration::from_micros(10));
        if let Some(frame) = socket.receive(patience)?.filter(|frame| !frame.outgoing) {
            seen.heard(Instant::now(), &frame.bytes, own.mac);
        }
    }
    Ok(seen)
}

impl Seen {
    fn heard(&mut self, at: Instant, frame: &[u8], own: Mac) {
        let Some((address, from)) = claim(frame) else { return };
        if frame.get(..6) == Some(&own[..]) {
            self.answers.entry((address, from)).or_default().push(at);
        } else {
            self.announced.push((at, address, from));
        }
    }

    /// The longest time for which two hosts answered for one address.
    pub fn longest_double(&self, address: IpAddr) -> Duration {
        let of = |mac: Mac| spans(self.answers.get(&(address, mac)).map_or(&[][..], Vec::as_slice));
        let macs: Vec<_> = self.answerers(address).into_iter().collect();
        let mut longest = Duration::ZERO;
        for (n, one) in macs.iter().enumerate() {
            for other in macs.iter().skip(n + 1) {
                for (begun, ended) in of(*one) {
                    for (from, to) in of(*other) {
                        longest = longest.max(ended.min(to).saturating_duration_since(begun.max(from)));
                    }
                }
            }
        }
        longest
    }

    /// All that ever answered for it.
    pub fn answerers(&self, address: IpAddr) -> BTreeSet<Mac> {
        self.answers.keys().filter(|(ip, _)| *ip == address).map(|(_, mac)| *mac).collect()
    }

    /// How long after `event` a host other than `master` first announced the address.
    pub fn announced_after(&self, address: IpAddr, event: Instant, master: Mac) -> Option<Duration> {
        let first = self.announced.iter().find(|(at, ip, mac)| *ip == address && *mac != master && *at >= event);
        first.map(|(at, ..)| *at - event)
    }
}

/// From when to when somebody answered.
fn spans(times: &[Instant]) -> Vec<(Instant, Instant)> {
    let mut all: Vec<(Instant, Instant)> = Vec::new();
    for at in times {
        match all.last_mut() {
            Some((_, to)) if *at - *to <= TOGETHER => *to = *at,
            _ => all.push((*at, *at)),
        }
    }
    all
}

fn question(own: Own, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            let mut frame = [[0xff; 6], own.mac].concat();
            frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]); // ARP, a request
            frame.extend(own.mac);
            frame.extend(own.v4.octets());
            frame.extend([0; 6]);
            frame.extend(address.octets());
            frame
        }
        IpAddr::V6(address) => {
            let [.., x, y, z] = address.octets();
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from_be_bytes([y, z]));
            let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0]; // neighbour solicitation
            message.extend(address.octets());
            message.extend([1, 1]); // who asks
            message.extend(own.mac);
            let sum = checksum(own.v6, group, &message);
            message.splice(2..4, sum.to_be_bytes());
            let mut frame = vec![0x33, 0x33, 0xff, x, y, z];
            frame.extend(own.mac);
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, message.len() as u8, 58, 255]);
            frame.extend(own.v6.octets());
            frame.extend(group.octets());
            frame.extend(message);
            frame
        }
    }
}

/// Of ICMPv6, with its pseudo header.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = message.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let mut sum: u32 = source.segments().into_iter().chain(destination.segments()).chain(words).map(u32::from).sum();
    sum += message.len() as u32 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Which address a frame says is whose.
fn claim(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let from: Mac = frame.get(6..12)?.try_into().ok()?;
    match frame.get(12..14)? {
        [8, 6] => {
            let sender: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
            let target: [u8; 4] = frame.get(38..42)?.try_into().ok()?;
            // A reply, or a gratuitous request.
            let claims = frame.get(20..22)? == [0, 2] || sender == target;
            claims.then(|| (Ipv4Addr::from(sender).into(), from))
        }
        [0x86, 0xdd] if (frame.get(20)?, frame.get(54)?) == (&58, &136) => {
            let target: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
            Some((Ipv6Addr::from(target).into(), from))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_who_answer_are_seen_for_as_long_as_both_do() {
        let (vip, begun) = (IpAddr::from([10, 9, 0, 100]), Instant::now());
        let own = Own { mac: [2, 0, 0, 0, 0, 8], v4: [10, 9, 0, 8].into(), v6: "fd09::8".parse().unwrap() };
        let answer = |from: u8| {
            let mut frame = question(Own { mac: [2, 0, 0, 0, 0, from], v4: [10, 9, 0, 100].into(), ..own }, vip);
            frame[..6].copy_from_slice(&own.mac);
            frame[21] = 2;
            frame
        };
        let mut seen = Seen::default();
        // One answers until 300 ms, the other from 200 ms on, and the first once more at 900 ms.
        for ms in (0..1000).step_by(10) {
            let at = begun + Duration::from_millis(ms);
            if ms <= 300 || ms == 900 {
                seen.heard(at, &answer(1), own.mac);
            }
            if ms == 200 {
                let mut announcement = answer(2);
                announcement[..6].copy_from_slice(&[0xff; 6]);
                seen.heard(at, &announcement, own.mac);
            }
            if ms >= 200 {
                seen.heard(at, &answer(2), own.mac);
            }
        }
        assert_eq!(seen.longest_double(vip), Duration::from_millis(100));
        assert_eq!(seen.announced_after(vip, begun, [2, 0, 0, 0, 0, 1]), Some(Duration::from_millis(200)));
        assert_eq!(seen.announced_after(vip, begun, [2, 0, 0, 0, 0, 2]), None);
        assert_eq!(seen.answerers(vip).len(), 2);
    }
}
