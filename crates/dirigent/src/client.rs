//! The control socket, seen from a command.

use crate::failure::{Failure, Result, code};
use dirigent_api::Refusal;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
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
pub async fn tell<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    what: &impl Serialize,
) -> Result<Option<T>> {
    let body = serde_json::to_vec(what).map_err(|e| Failure::new("JSON", e.to_string(), ""))?;
    send(socket, method, path, body.into()).await
}

/// Hears events until the stream ends, or the listener says that he has heard enough; `None` when no daemon listens.
pub async fn listen<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    mut heard: impl FnMut(T) -> bool,
) -> Result<Option<()>> {
    let Some(mut answer) = ask(socket, method, path, Bytes::new()).await? else { return Ok(None) };
    let fail = failing(socket);
    if !answer.status().is_success() {
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|e| fail(e.to_string()))?.to_bytes();
        return Err(refused(socket, status, &body));
    }
    let mut unread = Vec::new();
    while let Some(frame) = answer.body_mut().frame().await {
        // A daemon that was killed ends the stream in the middle.
        let Ok(frame) = frame else { break };
        unread.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            let event = serde_json::from_slice(data).map_err(|e| fail(format!("an event is not understood: {e}")))?;
            if !heard(event) {
                return Ok(Some(()));
            }
        }
    }
    Ok(Some(()))
}

fn failing(socket: &Path) -> impl Fn(String) -> Failure {
    move |e| Failure::new(socket.display().to_string(), e, "see the daemon's log")
}

async fn ask(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<Option<Response<Incoming>>> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(denied(socket)),
        Err(e) => return Err(Failure::io(socket.display().to_string(), &e)),
    };
    let fail = failing(socket);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| fail(e.to_string()))?;
    // It ends with the answer, or with an error that the answer shows too.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "dirigent");
    let request = request.header("content-type", "application/json");
    let request = request.body(Full::new(body)).map_err(|e| fail(e.to_string()))?;
    sender.send_request(request).await.map(Some).map_err(|e| fail(e.to_string()))
}

async fn send<T: DeserializeOwned>(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<Option<T>> {
    let Some(answer) = ask(socket, method, path, body).await? else { return Ok(None) };
    let fail = failing(socket);
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|e| fail(e.to_string()))?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map(Some).map_err(|e| fail(format!("the answer is not understood: {e}")));
    }
    Err(refused(socket, status, &body))
}

fn refused(socket: &Path, status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.into(),
        Err(_) => failing(socket)(format!("the daemon answers {status}")),
    }
}

fn denied(socket: &Path) -> Failure {
    let remedy = "run it as root, or set `group` in the configuration and join that group";
    let failure = Failure::new(socket.display().to_string(), "this user may not use the control socket", remedy);
    Failure { code: code::KERNEL, ..failure }
}
