//! Takes connections, and keeps clients that stall, flood or vanish from keeping others out.

use super::peer::Peer;
use super::refused;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use nix::unistd::Gid;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_io_timeout::TimeoutStream;
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
    others: HashMap<Option<u32>, usize>,
    /// Those that are only told that there is no room.
    refused: usize,
}

/// Whose a connection is.
#[derive(Clone, Copy)]
enum Owner {
    Operator,
    Other(Option<u32>),
    Refused,
}

/// One of them.
struct Place {
    open: Arc<Mutex<Open>>,
    owner: Owner,
}

impl Place {
    /// A place for him; one to be told that there is none; or not even that.
    fn take(open: &Arc<Mutex<Open>>, peer: Peer, operator: bool) -> Option<Self> {
        let mut all = open.lock().unwrap_or_else(PoisonError::into_inner);
        let together: usize = all.others.values().sum();
        let his = all.others.get(&peer.user()).copied().unwrap_or(0);
        let owner = match operator {
            true if all.operators < MOST => Owner::Operator,
            false if together < MOST && his < MOST_OF_ONE => Owner::Other(peer.user()),
            _ if all.refused < MOST_OF_ONE => Owner::Refused,
            _ => return None,
        };
        match owner {
            Owner::Operator => all.operators += 1,
            Owner::Other(user) => _ = all.others.insert(user, his + 1),
            Owner::Refused => all.refused += 1,
        }
        Some(Self { open: open.clone(), owner })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match self.owner {
            Owner::Operator => all.operators = all.operators.saturating_sub(1),
            Owner::Refused => all.refused = all.refused.saturating_sub(1),
            Owner::Other(user) => match all.others.get_mut(&user) {
                Some(his) if *his > 1 => *his -= 1,
                _ => _ = all.others.remove(&user),
            },
        }
    }
}

/// Serves until it is told to end, and lets the answers under way go out.
pub async fn serve(listener: UnixListener, routes: Router, operators: Option<Gid>, mut stop: oneshot::Receiver<()>) {
    let open = Arc::new(Mutex::new(Open::default()));
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            _ = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!("the control socket: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let peer = Peer::of(&stream);
        let Some(place) = Place::take(&open, peer, peer.operates(operators)) else { continue };
        let full = matches!(place.owner, Owner::Refused);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(UNREAD));
        let routes = routes.clone();
        let answer = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let routes = routes.clone();
            async move {
                if full { Ok::<_, Infallible>(refused::busy()) } else { routes.oneshot(request.map(Body::new)).await }
            }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(!full);
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), answer);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            // Who leaves in the middle has his reasons.
            if let Err(error) = connection.await {
                tracing::debug!("the control socket: {error}");
            }
        });
    }
    graceful.shutdown().await;
}
