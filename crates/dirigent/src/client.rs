//! The control socket, seen from a command.

use crate::failure::{Failure, Result, code};
use dirigent_api::Refusal;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::Path;
use tokio::net::UnixStream;

/// Asks the daemon; `None` when none listens there.
pub async fn call<T: DeserializeOwned>(socket: &Path, method: Method, path: &str) -> Result<Option<T>> {
    send(socket, method, path, Bytes::new()).await
}

/// Has the daemon do something about what is said; `None` when none listens there.
pub async fn tell<T: DeserializeOwned>(socket: &Path, path: &str, what: &impl Serialize) -> Result<Option<T>> {
    let body = serde_json::to_vec(what).map_err(|e| Failure::new("JSON", e.to_string(), ""))?;
    send(socket, Method::POST, path, body.into()).await
}

async fn send<T: DeserializeOwned>(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<Option<T>> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(denied(socket)),
        Err(e) => return Err(Failure::io(socket.display().to_string(), &e)),
    };
    let fail = |e: String| Failure::new(socket.display().to_string(), e, "see the daemon's log");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| fail(e.to_string()))?;
    // It ends with the answer, or with an error that the answer shows too.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "dirigent");
    let request = request.header("content-type", "application/json");
    let request = request.body(Full::new(body)).map_err(|e| fail(e.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|e| fail(e.to_string()))?;
    let good = answer.status().is_success();
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|e| fail(e.to_string()))?.to_bytes();
    if good {
        return serde_json::from_slice(&body).map(Some).map_err(|e| fail(format!("the answer is not understood: {e}")));
    }
    match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) => Err(refusal.into()),
        Err(_) => Err(fail(format!("the daemon answers {status}"))),
    }
}

fn denied(socket: &Path) -> Failure {
    let remedy = "run it as root, or set `group` in the configuration and join that group";
    let failure = Failure::new(socket.display().to_string(), "this user may not use the control socket", remedy);
    Failure { code: code::KERNEL, ..failure }
}
