//! Checks by single packets: DNS, UDP, ping.

use super::super::job::Job;
use super::connect::{self, refused};
use super::{Tools, evidence};
use dirigent_config::health::{Record, Udp};
use dirigent_health::judge::dns::Question;
use dirigent_health::judge::icmp::Echo;
use dirigent_health::judge::udp::Datagrams;
use dirigent_health::{Outcome, Weight};
use socket2::{Protocol, SockAddr, Type};
use tokio::net::UdpSocket;

/// Longest datagram that is looked at, bytes.
const LONGEST: usize = 65_536;

pub async fn dns(job: &Job, name: &str, record: Record, tools: &Tools) -> Outcome {
    let question = Question::new(name, record)?;
    let id = fastrand::u16(..);
    let (_leave, socket) = connect::udp(job, tools).await?;
    socket.send(&question.query(id)?).await.map_err(|e| refused(&e))?;
    let mut answer = vec![0; LONGEST];
    loop {
        let length = evidence::first(job, &tools.late, socket.recv(&mut answer)).await?;
        if let Some(outcome) = question.judge(id, answer.get(..length).unwrap_or_default()) {
            return outcome;
        }
    }
}

pub async fn udp(job: &Job, udp: &Udp, tools: &Tools) -> Outcome {
    let datagrams = Datagrams::new(udp)?;
    let (_leave, socket) = connect::udp(job, tools).await?;
    let random = fastrand::u128(..).to_ne_bytes();
    socket.send(&datagrams.payload(random)).await.map_err(|e| refused(&e))?;
    let mut reply = vec![0; LONGEST];
    let receive = evidence::first(job, &tools.late, socket.recv(&mut reply));
    let received = match datagrams.patience(job.check.pace.timeout) {
        Some(patience) => match tokio::time::timeout(patience, receive).await {
            Ok(received) => received,
            Err(_) => return Ok(Weight::Keep),
        },
        None => receive.await,
    };
    let length = received?;
    datagrams.judge(reply.get(..length).unwrap_or_default())
}

/// By a socket for echo where the kernel lets this group have them (`ping_group_range`), else by a raw one.
pub async fn ping(job: &Job) -> Outcome {
    let ipv6 = job.to.is_ipv6();
    let protocol = if ipv6 { Protocol::ICMPV6 } else { Protocol::ICMPV4 };
    let (socket, raw) = match connect::socket(job, Type::DGRAM, protocol) {
        Ok(socket) => (socket, false),
        Err(_) => (connect::socket(job, Type::RAW, protocol)?, true),
    };
    let mut to = job.to;
    to.set_port(0);
    // From then on it gets this server's packets only.
    match socket.connect(&SockAddr::from(to)) {
        Err(e) if e.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(refused(&e)),
        _ => {}
    }
    // To tokio, sockets that send and receive single packets are all alike.
    let socket = UdpSocket::from_std(socket.into()).map_err(|e| refused(&e))?;
    let echo = Echo {
        ipv6,
        ident: raw.then(|| fastrand::u16(..)),
        sequence: fastrand::u16(..),
        payload: fastrand::u128(..).to_ne_bytes(),
    };
    socket.send(&echo.request()).await.map_err(|e| refused(&e))?;
    let mut message = [0; 2048];
    loop {
        let length = socket.recv(&mut message).await.map_err(|e| refused(&e))?;
        if let Some(outcome) = echo.judge(message.get(..length).unwrap_or_default(), raw && !ipv6) {
            return outcome;
        }
    }
}
