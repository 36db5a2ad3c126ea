//! Along the clients' path: what a failure is told as. How the server answers by its own address is looked at while the
//! probe waits, or when it failed at once.

use super::super::job::Job;
use super::{connect, datagram};
use dirigent_config::Method;
use dirigent_config::health::{Check, Probe};
use dirigent_health::Why;
use dirigent_health::path::{Forwarding, Got, Own, explain};
use socket2::{Protocol, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

/// The server's own address has so long to answer.
const LOOK: Duration = Duration::from_millis(200);

/// What an attempt is told as if it ends by its timeout, which its maker cannot wait for.
#[derive(Clone, Debug, Default)]
pub struct Late(Arc<Mutex<Option<Why>>>);

impl Late {
    /// That.
    pub fn take(&self) -> Option<Why> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
    fn put(&self, why: Option<Why>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// Waits for the first answer along the clients' path. Half-way to the timeout it begins to look what is known of the server.
pub async fn first<T>(job: &Job, late: &Late, answer: impl Future<Output = io::Result<T>>) -> Result<T, Why> {
    if job.along.is_none() {
        return answer.await.map_err(|e| connect::refused(&e));
    }
    let look = async {
        sleep(job.check.pace.timeout / 2).await;
        late.put(said(job, &Got::Nothing).await);
        std::future::pending::<()>().await;
    };
    let came = tokio::select! {
        came = answer => came,
        () = look => return Err(Why::TIMEOUT),
    };
    late.put(None);
    match came {
        Ok(came) => Ok(came),
        Err(error) => Err(said(job, &got(&error)).await.unwrap_or_else(|| connect::refused(&error))),
    }
}

fn got(error: &io::Error) -> Got {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset, _) => Got::Refused,
        (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable, _) => Got::Unreachable,
        (_, Some(nix::libc::ENOPROTOOPT | nix::libc::EPROTO)) => Got::NoProtocol,
        (io::ErrorKind::TimedOut, _) => Got::Nothing,
        _ => Got::Other(connect::refused(error)),
    }
}

async fn said(job: &Job, got: &Got) -> Option<Why> {
    let along = job.along?;
    let by = match along.method {
        Method::Nat => Forwarding::Nat,
        Method::Dr => Forwarding::Direct,
        Method::Tun(_) => Forwarding::Tunnel,
    };
    Some(explain(by, got, own(job, SocketAddr::new(along.address, along.port)).await))
}

/// How the server answers the director.
async fn own(job: &Job, server: SocketAddr) -> Own {
    let plain = |probe, to| Job { check: Check::new(probe), to, along: None, needs: None };
    let (tcp, ping) = (plain(Probe::Tcp, server), plain(Probe::Ping, server));
    let takes = async {
        if matches!(job.check.probe, Probe::Udp(_) | Probe::Dns { .. }) {
            return None;
        }
        let socket = connect::socket(&tcp, Type::STREAM, Protocol::TCP).ok()?;
        match timeout(LOOK, TcpSocket::from_std_stream(socket.into()).connect(server)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_zero_linger();
                Some(Own::Takes)
            }
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Some(Own::Refuses),
            _ => None,
        }
    };
    let pings = async { matches!(timeout(LOOK, datagram::ping(&ping)).await, Ok(Ok(_))) };
    match tokio::join!(takes, pings) {
        (Some(own), _) => own,
        (None, true) => Own::Pings,
        (None, false) => Own::Silent,
    }
}
