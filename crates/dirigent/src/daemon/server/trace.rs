//! The stream of traced packets: server-sent events, as the HTML standard has them.

use super::events::message;
use super::refused::{Parameters, Refused};
use super::{Ask, Shared};
use crate::failure::{Failure, code};
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{self, KeepAlive};
use dirigent_api::{TraceEvent, TraceOf, path};
use futures_util::StreamExt as _;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

/// How long one may wait for his turn: who listened before has gone, and that is noticed soon.
const TURN: Duration = Duration::from_secs(1);
/// Packets that wait to be sent.
const WAITING: usize = 1024;

/// Packets as they go through the director, each with what was found and done, and why. One listens at a time.
///
/// The stream ends with the daemon. Each event has its name (`begun`, `packet`, `withheld`) and an object as its data.
#[utoipa::path(
    post, path = path::TRACE, tag = "director", params(TraceOf),
    responses((status = 200, content_type = "text/event-stream", body = TraceEvent), Refused)
)]
pub async fn trace(
    State(shared): State<Shared>,
    Parameters(of): Parameters<TraceOf>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Failure> {
    let turn = tokio::time::timeout(TURN, Arc::clone(&shared.tracing).lock_owned()).await.map_err(|_| {
        let failure =
            Failure::new("trace", "somebody traces already", "end that `dirigent trace`, or wait for its end");
        Failure { code: code::EXISTS, ..failure }
    })?;
    let tracing = shared.ask(|to| Ask::Trace(of, to)).await?;
    let (to, told) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        if let Err(failure) = tracing.run(&to) {
            tracing::warn!("tracing ends: {failure}");
        }
        drop(turn);
    });
    // It must not hold up the daemon's end.
    let mut heard = shared.events.listen();
    let end = async move { while !matches!(heard.recv().await, Err(RecvError::Closed)) {} };
    let told = ReceiverStream::new(told).filter_map(async |event| message(&event));
    Ok(Sse::new(told.take_until(Box::pin(end))).keep_alive(KeepAlive::default()))
}
