//! HTTP and HTTPS, by hyper and rustls.

use super::super::job::Job;
use super::connect::{self, Stream};
use super::{Tools, broken, is_cut};
use dirigent_config::health::{Http, HttpVersion, Request};
use dirigent_health::judge::End;
use dirigent_health::judge::http::{self, Answer, Expected};
use dirigent_health::{Outcome, Weight, Why};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use std::pin::pin;
use tokio::io::AsyncReadExt as _;

/// Longest header of an answer, bytes.
const HEADER: usize = 64 << 10;

type Body = Empty<Bytes>;

/// All requests of the attempt, one after the other, each by a connection of its own.
pub async fn make(job: &Job, check: &Http, part: Option<u32>, tools: &Tools) -> Outcome {
    for request in http::requests(check, part) {
        let several = check.requests.len() > 1;
        ask(job, check, request, tools)
            .await
            .map_err(|why| if several { Why::new(format!("{}: {why}", request.path)) } else { why })?;
    }
    Ok(Weight::Keep)
}

async fn ask(job: &Job, check: &Http, request: &Request, tools: &Tools) -> Outcome {
    let expected = Expected::new(check, request)?;
    let host = http::host(check, request, job.to);
    let (_leave, stream) = connect::tcp(job, tools).await?;
    let Some(tls) = &check.tls else { return over(stream, check, request, &host, expected).await };
    let connector = tools.tls.get(tls, check.version == HttpVersion::V2)?;
    let name = match &tls.sni {
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| Why::new(format!("{name} is no name for SNI")))?,
        // No name is sent for an address.
        None => ServerName::IpAddress(job.to.ip().into()),
    };
    let stream = connector.connect(name, stream).await.map_err(|e| Why::new(format!("TLS: {e}")))?;
    over(stream, check, request, &host, expected).await
}

/// One request over a connection.
async fn over(stream: impl Stream, check: &Http, request: &Request, host: &str, expected: Expected) -> Outcome {
    let message = message(check, request, host)?;
    let io = TokioIo::new(stream);
    if check.version == HttpVersion::V2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(|e| said(&e))?;
        let mut connection = pin!(connection);
        let mut talk = pin!(async move { read(sender.send_request(message).await, expected).await });
        let answer = tokio::select! {
            biased;
            answer = &mut talk => answer?,
            // What there is to say about its end the other says.
            _ = &mut connection => talk.await?,
        };
        return answer.verdict().cloned().unwrap_or(Ok(Weight::Keep));
    }
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEADER);
    let (mut sender, connection) = builder.handshake(io).await.map_err(|e| said(&e))?;
    let wants_end = expected.wants_end();
    let mut connection = pin!(connection.without_shutdown());
    let mut talk = pin!(async move { read(sender.send_request(message).await, expected).await });
    let mut ended = None;
    let mut answer = loop {
        tokio::select! {
            biased;
            answer = &mut talk => break answer?,
            end = &mut connection, if ended.is_none() => ended = Some(end),
        }
    };
    if answer.verdict().is_none() && wants_end {
        let end = match ended {
            Some(end) => end,
            None => connection.await,
        };
        answer.on_end(match end {
            Ok(parts) => last(parts.io.into_inner()).await?,
            Err(e) if cause(&e).is_some_and(is_cut) => End::Cut,
            Err(e) => return Err(said(&e)),
        });
    }
    answer.verdict().cloned().unwrap_or(Ok(Weight::Keep))
}

/// How the server ended the connection.
async fn last(mut stream: impl Stream) -> Result<End, Why> {
    let mut piece = [0; 1024];
    loop {
        match stream.read(&mut piece).await {
            Ok(0) => return Ok(End::Clean),
            // Behind a whole answer: of no meaning.
            Ok(_) => {}
            Err(e) if is_cut(&e) => return Ok(End::Cut),
            Err(e) => return Err(broken(&e)),
        }
    }
}

/// Reads an answer as far as it counts.
async fn read(response: hyper::Result<hyper::Response<Incoming>>, expected: Expected) -> Result<Answer, Why> {
    let response = response.map_err(|e| said(&e))?;
    let mut answer = Answer::new(expected, response.status().as_u16());
    let mut body = response.into_body();
    while answer.verdict().is_none() {
        match body.frame().await {
            Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|piece| answer.on_body(piece)),
            Some(Err(e)) => return Err(said(&e)),
            None => {
                answer.on_whole();
                break;
            }
        }
    }
    match answer.verdict() {
        Some(Err(why)) => Err(why.clone()),
        _ => Ok(answer),
    }
}

fn message(check: &Http, request: &Request, host: &str) -> Result<hyper::Request<Body>, Why> {
    let path = &request.path;
    let (version, close) = match check.version {
        HttpVersion::V10 => (hyper::Version::HTTP_10, false),
        HttpVersion::V10Close => (hyper::Version::HTTP_10, true),
        // There is one request on a connection: without this the server would wait for another.
        HttpVersion::V11 => (hyper::Version::HTTP_11, true),
        HttpVersion::V2 => (hyper::Version::HTTP_2, false),
    };
    let mut message = hyper::Request::builder().version(version).method("GET");
    message = if check.version == HttpVersion::V2 {
        let scheme = if check.tls.is_some() { "https" } else { "http" };
        message.uri(format!("{scheme}://{host}{path}"))
    } else {
        message.uri(path).header(hyper::header::HOST, host)
    };
    message = message.header(hyper::header::USER_AGENT, "dirigent").header(hyper::header::ACCEPT, "*/*");
    if close {
        message = message.header(hyper::header::CONNECTION, "close");
    }
    message.body(Body::new()).map_err(|e| Why::new(format!("no request for {path}: {e}")))
}

/// What hyper says, in the words of the other checks where it says the same.
fn said(error: &hyper::Error) -> Why {
    if error.is_incomplete_message() {
        return Why::of("the answer ended early");
    }
    if let Some(io) = cause(error) {
        return broken(io);
    }
    if error.is_parse() { Why::of("the answer is no HTTP") } else { Why::new(error.to_string()) }
}

/// What the system said, if that is behind it.
fn cause(error: &hyper::Error) -> Option<&std::io::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref() {
            return Some(io);
        }
        cause = inner.source();
    }
    None
}
