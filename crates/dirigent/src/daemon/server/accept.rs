//! Takes connections, and keeps clients that stall, flood or vanish from keeping others out.

use super::linger::Lingering;
use super::peer::{Operators, Peer, Who};
use super::tls::{self, Tls};
use super::{owner, refused};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Connections of operators at once, and as many again of all others together: nobody who may only read can keep an
/// operator out.
const MOST: usize = 256;
/// Of one user who is no operator.
const MOST_OF_ONE: usize = 32;
/// How long a request's head may take to come, and the next one on the same connection.
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may leave an answer unread.
const UNREAD: Duration = Duration::from_secs(10);
/// Between two tries when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Open connections, by who has them.
#[derive(Default)]
struct Open {
    operators: usize,
    others: HashMap<Who, usize>,
    /// Those that are only told that there is no room.
    refused: usize,
}

/// Whose a connection is.
enum Owner {
    Operator,
    Other(Who),
    Refused,
}

/// One of them.
struct Place {
    open: Arc<Mutex<Open>>,
    owner: Owner,
}

impl Place {
    /// A place for him; one to be told that there is none for him; or not even that.
    fn take(open: &Arc<Mutex<Open>>, peer: &Peer, operators: &Operators) -> Option<Self> {
        let (operator, reads) = (peer.operates(operators), peer.reads(operators));
        let mut all = open.lock().unwrap_or_else(PoisonError::into_inner);
        let together: usize = all.others.values().sum();
        let his = all.others.get(&peer.who()).copied().unwrap_or(0);
        let owner = match operator {
            true if all.operators < MOST => Owner::Operator,
            false if reads && together < MOST && his < MOST_OF_ONE => Owner::Other(peer.who()),
            _ if all.refused < MOST_OF_ONE => Owner::Refused,
            _ => return None,
        };
        match &owner {
            Owner::Operator => all.operators += 1,
            Owner::Other(who) => _ = all.others.insert(who.clone(), his + 1),
            Owner::Refused => all.refused += 1,
        }
        Some(Self { open: open.clone(), owner })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.owner {
            Owner::Operator => all.operators = all.operators.saturating_sub(1),
            Owner::Refused => all.refused = all.refused.saturating_sub(1),
            Owner::Other(who) => match all.others.get_mut(who) {
                Some(his) if *his > 1 => *his -= 1,
                _ => _ = all.others.remove(who),
            },
        }
    }
}

/// Where connections come from.
pub struct Listeners {
    /// The control socket.
    pub socket: UnixListener,
    /// The port for TLS, if there is one.
    pub remote: Option<(TcpListener, Tls)>,
    /// The port for metrics alone, if there is one.
    pub scraped: Option<TcpListener>,
    /// The page's port for browsers of this host, if there is one.
    pub browsed: Option<TcpListener>,
}

/// What serves them.
#[derive(Clone)]
struct Service {
    routes: Router,
    operators: Operators,
    open: Arc<Mutex<Open>>,
    graceful: Arc<GracefulShutdown>,
}

/// Serves until it is told to end, and lets the answers under way go out: all paths, and those of the port for metrics alone.
pub async fn serve(
    from: Listeners,
    [routes, alone]: [Router; 2],
    operators: Operators,
    mut stop: oneshot::Receiver<()>,
) {
    let Listeners { socket, mut remote, scraped, browsed } = from;
    let service = Service { routes, operators, open: Arc::default(), graceful: Arc::default() };
    // With connections of their own: whoever reaches that port keeps nobody off the others.
    let scrapes = Service { routes: alone, open: Arc::default(), ..service.clone() };
    // Whoever has not proved yet who he is has no place among those who have.
    let unproved = Arc::new(Semaphore::new(MOST_OF_ONE));
    let unknown = Arc::new(Semaphore::new(MOST_OF_ONE));
    loop {
        tokio::select! {
            _ = &mut stop => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) => service.take(Peer::of(&stream), stream),
                Err(error) => pause("socket", &error).await,
            },
            accepted = plain(scraped.as_ref()) => match accepted {
                Ok((stream, address)) => scrapes.take(Peer::Anybody { address: address.ip() }, stream),
                Err(error) => pause("port of metrics", &error).await,
            },
            accepted = plain(browsed.as_ref()) => match accepted {
                Ok((stream, address)) => {
                    let Ok(unknown) = unknown.clone().try_acquire_owned() else { continue };
                    tokio::spawn(recognise(service.clone(), stream, address, unknown));
                }
                Err(error) => pause("port of the page", &error).await,
            },
            accepted = of(&mut remote) => match accepted {
                Ok((stream, address, acceptor)) => {
                    let Ok(unproved) = unproved.clone().try_acquire_owned() else { continue };
                    tokio::spawn(prove(service.clone(), stream, address, acceptor, unproved));
                }
                Err(error) => pause("port", &error).await,
            },
        }
    }
    drop(scrapes);
    let Service { graceful, .. } = service;
    if let Some(graceful) = Arc::into_inner(graceful) {
        graceful.shutdown().await;
    }
}

/// The process has no descriptor left, most likely.
async fn pause(what: &str, error: &std::io::Error) {
    tracing::error!("the control {what}: {error}");
    tokio::time::sleep(PAUSE).await;
}

/// The next connection by TCP; never, if there is no port.
async fn of(remote: &mut Option<(TcpListener, Tls)>) -> std::io::Result<(TcpStream, IpAddr, TlsAcceptor)> {
    match remote {
        Some((port, tls)) => {
            let (stream, address) = port.accept().await?;
            Ok((stream, address.ip(), tls.acceptor()))
        }
        None => std::future::pending().await,
    }
}

/// The next connection to a port without TLS; never, if there is none.
async fn plain(port: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match port {
        Some(port) => port.accept().await,
        None => std::future::pending().await,
    }
}

/// Finds out which user of this host it is.
async fn recognise(service: Service, stream: TcpStream, peer: SocketAddr, unknown: OwnedSemaphorePermit) {
    let Ok(own) = stream.local_addr() else { return };
    let uid = tokio::task::spawn_blocking(move || owner::of(peer, own)).await.ok().flatten();
    drop(unknown);
    service.take(Peer::Browser { uid }, stream);
}

/// TLS's handshake, in which the client shows his certificate.
async fn prove(service: Service, stream: TcpStream, address: IpAddr, tls: TlsAcceptor, unproved: OwnedSemaphorePermit) {
    let outcome = tokio::time::timeout(HEAD, tls.accept(stream)).await;
    drop(unproved);
    match outcome {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
            let names = shown.map(tls::names).unwrap_or_default();
            service.take(Peer::Remote { names, address }, stream);
        }
        Ok(Err(error)) => tracing::debug!("the control port: {address}: {error}"),
        Err(_) => tracing::debug!("the control port: {address} did not say who he is"),
    }
}

impl Service {
    /// Answers what comes by this connection.
    fn take(&self, peer: Peer, stream: impl AsyncRead + AsyncWrite + Send + 'static) {
        let Some(place) = Place::take(&self.open, &peer, &self.operators) else { return };
        let full = matches!(place.owner, Owner::Refused);
        let refusal = if peer.reads(&self.operators) { refused::busy } else { refused::no_reader };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(UNREAD));
        let routes = self.routes.clone();
        let answer = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let routes = routes.clone();
            async move { if full { Ok::<_, Infallible>(refusal()) } else { routes.oneshot(request.map(Body::new)).await } }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(!full);
        let connection = http.serve_connection(TokioIo::new(Lingering::on(Box::pin(stream))), answer);
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            // Who leaves in the middle has his reasons.
            if let Err(error) = connection.await {
                tracing::debug!("the control API: {error}");
            }
        });
    }
}
