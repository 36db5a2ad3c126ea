//! Sockets as a check's target wants them.

use super::super::job::Job;
use super::{Tools, evidence};
use crate::daemon::Leave;
use dirigent_health::Why;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// A connection, with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A socket to the job's server, bound as its target says.
pub fn socket(job: &Job, kind: Type, protocol: Protocol) -> Result<Socket, Why> {
    open(job, kind, protocol).map_err(|e| Why::new(format!("no socket for it: {e}")))
}

fn open(job: &Job, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let target = &job.check.target;
    let socket = Socket::new(Domain::for_address(job.to), kind.nonblocking(), Some(protocol))?;
    if target.mark != 0 {
        socket.set_mark(target.mark)?;
    }
    if let Some(interface) = &target.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if target.source.is_some() || target.source_port.is_some() {
        let any: IpAddr = match job.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        if target.source_port.is_some() {
            // The last check's connection may be in TIME_WAIT.
            socket.set_reuse_address(true)?;
        }
        let own = SocketAddr::new(target.source.unwrap_or(any), target.source_port.unwrap_or(0));
        socket.bind(&SockAddr::from(own))?;
    }
    Ok(socket)
}

/// Connects. What is to be dropped after the connection comes first.
pub async fn tcp(job: &Job, tools: &Tools) -> Result<(Option<Leave>, TcpStream), Why> {
    if job.to.port() == 0 {
        return Err(Why::of("it has no port to check: give the check one"));
    }
    let (leave, socket) = match &job.along {
        Some(along) => {
            let (socket, leave) = tools.ways.tcp(job.to, along)?;
            (Some(leave), socket)
        }
        None => (None, socket(job, Type::STREAM, Protocol::TCP)?.into()),
    };
    let connected = TcpSocket::from_std_stream(socket).connect(job.to);
    let stream = evidence::first(job, &tools.late, connected).await?;
    if leave.is_some() {
        // With a reset, or its last packets would be nobody's: its leave ends with it.
        let _ = stream.set_zero_linger();
    }
    Ok((leave, stream))
}

/// A socket for datagrams from and to this server alone: an ICMP error about one is its error.
pub async fn udp(job: &Job, tools: &Tools) -> Result<(Option<Leave>, UdpSocket), Why> {
    if job.to.port() == 0 {
        return Err(Why::of("it has no port to check: give the check one"));
    }
    let (leave, socket) = match &job.along {
        Some(along) => {
            let (socket, leave) = tools.ways.udp(job.to, along)?;
            (Some(leave), socket)
        }
        None => (None, socket(job, Type::DGRAM, Protocol::UDP)?.into()),
    };
    let socket = UdpSocket::from_std(socket).map_err(|e| refused(&e))?;
    socket.connect(job.to).await.map_err(|e| refused(&e))?;
    Ok((leave, socket))
}

/// The system's word for it, without its number.
pub fn refused(error: &io::Error) -> Why {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Why::of("connection refused"),
        io::ErrorKind::HostUnreachable => Why::of("host unreachable"),
        io::ErrorKind::NetworkUnreachable => Why::of("network unreachable"),
        io::ErrorKind::ConnectionReset => Why::of("connection reset"),
        io::ErrorKind::TimedOut => Why::TIMEOUT,
        _ => Why::new(error.to_string()),
    }
}
