//! Small datagrams of many clients' ports, as fast as they go, and how many of them arrive.

use super::{CLIENT_CPU, SERVER_CPU};
use crate::cpu;
use dirigent_net::netns::Namespace;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// As many sender's ports: as many connections for a director.
const PORTS: usize = 64;
/// From one port in a row.
const ROW: usize = 16;
/// Of one datagram: the shortest frame of Ethernet, 60 bytes and its checksum.
pub const PAYLOAD: usize = 18;
/// Room for what comes while the receiver sleeps.
const ROOM: usize = 64 << 20;
/// The receiver looks so often, rather than being woken for each, which would cost more than the way of a datagram.
const LOOKS: Duration = Duration::from_micros(500);
/// What is under way when the sender stops.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Datagrams that arrived.
    pub received: u64,
    /// Datagrams that were sent.
    pub sent: u64,
    /// In this time.
    pub time: Duration,
}

/// Sends from one namespace to an address, and receives in another, at its port of any address.
pub fn run(client: &Namespace, server: &Namespace, to: SocketAddr, time: Duration) -> Result<Arrived, String> {
    let fail = |e: io::Error| format!("datagrams: {e}");
    let bound = server.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, to.port()))).map_err(|e| e.to_string())?;
    let sink = bound.map_err(fail)?;
    setsockopt(&sink, RcvBufForce, &ROOM).map_err(|e| format!("a socket's room: {e}"))?;
    sink.set_nonblocking(true).map_err(fail)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| cpu::pin(0, &[SERVER_CPU]).and_then(|()| receive(&sink, &over).map_err(fail)));
        let sent = client.run(|| cpu::pin(0, &[CLIENT_CPU]).and_then(|()| send(to, time).map_err(fail)));
        std::thread::sleep(LAST_WORDS);
        over.store(true, Ordering::Relaxed);
        let received = receiver.join().map_err(|_| "the receiver broke".to_owned())??;
        let (sent, time) = sent.map_err(|e| e.to_string())??;
        Ok(Arrived { received, sent, time })
    })
}

fn send(to: SocketAddr, time: Duration) -> io::Result<(u64, Duration)> {
    let socket = |_| -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        Ok(socket)
    };
    let sockets: Vec<_> = (0..PORTS).map(socket).collect::<io::Result<_>>()?;
    let (begun, mut sent) = (Instant::now(), 0);
    for socket in sockets.iter().cycle() {
        if begun.elapsed() >= time {
            break;
        }
        for _ in 0..ROW {
            // An ICMP error about an earlier one is no reason to stop.
            sent += u64::from(socket.send(&[b'.'; PAYLOAD]).is_ok());
        }
    }
    Ok((sent, begun.elapsed()))
}

fn receive(sink: &UdpSocket, over: &AtomicBool) -> io::Result<u64> {
    let (mut received, mut datagram) = (0, [0; PAYLOAD + 1]);
    loop {
        let last = over.load(Ordering::Relaxed);
        loop {
            match sink.recv(&mut datagram) {
                Ok(length) => received += u64::from(length == PAYLOAD),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        if last {
            return Ok(received);
        }
        std::thread::sleep(LOOKS);
    }
}
