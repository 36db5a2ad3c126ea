//! The stream of events: server-sent events, as the HTML standard has them.

use super::read::Limit;
use super::refused::{Parameters, Refused};
use super::{Answer, Shared};
use axum::Json;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{self, KeepAlive};
use dirigent_api::{Event, Happened, path};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt as _};
use utoipa::IntoParams;

/// What is worth an event.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Threshold {
    /// Drops of one reason, each second, of which no event is sent unless they are more; default 0.
    #[serde(default)]
    drops: u64,
}

/// What happens from now on: configuration applied, server up or down, role changed, packets dropped.
///
/// The stream opens at once and ends with the daemon. Each event has its name (`applied`, `server`, `role`, `drops`,
/// `missed`) and an object as its data.
#[utoipa::path(
    get, path = path::EVENTS, tag = "director", params(Threshold),
    responses((status = 200, content_type = "text/event-stream", body = Event), Refused)
)]
pub async fn events(
    State(shared): State<Shared>,
    Parameters(Threshold { drops }): Parameters<Threshold>,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let heard = BroadcastStream::new(shared.events.listen());
    let heard = heard.map(|event| match event {
        Ok(event) => event,
        Err(BroadcastStreamRecvError::Lagged(events)) => Event::Missed { events },
    });
    let wanted = heard.filter(move |event| !matches!(event, Event::Drops { per_second, .. } if *per_second <= drops));
    Sse::new(wanted.filter_map(|event| message(&event))).keep_alive(KeepAlive::default())
}

/// An event as it is sent: under the name that its field `event` has.
pub fn message(event: &impl Serialize) -> Option<Result<sse::Event, Infallible>> {
    let data = serde_json::to_value(event).ok()?;
    let name = data.get("event")?.as_str()?.to_owned();
    Some(Ok(sse::Event::default().event(name).data(data.to_string())))
}

/// Past events that are told unless more are asked for.
const PAST: usize = 100;

/// What happened last since the daemon began, the latest first: all but drops, which counters tell.
#[utoipa::path(
    get, path = path::PAST_EVENTS, tag = "director", params(Limit),
    responses((status = 200, body = Vec<Happened>), Refused)
)]
pub async fn past_events(State(shared): State<Shared>, Parameters(query): Parameters<Limit>) -> Answer<Vec<Happened>> {
    Ok(Json(shared.events.last(query.limit.unwrap_or(PAST))))
}
