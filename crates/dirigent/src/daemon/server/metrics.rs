//! Metrics, for whoever scrapes them: among the API's paths, and alone on a port of their own.

use super::Shared;
use super::refused::{self, Refused};
use crate::daemon::metrics::{Format, scrape};
use crate::failure::Failure;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dirigent_api::path;

/// What OpenMetrics is called, and the older text.
const OPEN_METRICS: &str = "application/openmetrics-text";
const TEXT: &str = "text/plain";

/// All metrics, as Prometheus scrapes them: its text format, or OpenMetrics if that is asked for.
#[utoipa::path(
    get, path = path::METRICS, tag = "stats",
    responses((status = 200, content_type = "text/plain", body = String), Refused)
)]
pub async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Result<Response, Failure> {
    let format = format_of(headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()));
    // Never closed.
    let _turn = shared.scrapes.acquire().await;
    let sources = shared.metrics.clone();
    let text = shared.read(move |reader| scrape(reader, &sources, format)).await?;
    Ok(([(CONTENT_TYPE, format.content_type())], text).into_response())
}

/// The routes of the port that has nothing else.
pub fn alone(shared: Shared) -> Router {
    Router::new()
        .route(path::METRICS, get(metrics))
        .fallback(refused::only_metrics)
        .method_not_allowed_fallback(refused::only_metrics)
        .with_state(shared)
}

/// What a scraper asks for: OpenMetrics, where he likes it as much as the older text.
fn format_of<'a>(accepted: impl Iterator<Item = &'a str>) -> Format {
    let (mut open, mut text) = (0.0, 0.0);
    for one in accepted.flat_map(|value| value.split(',')) {
        let mut parts = one.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
        let quality = quality.unwrap_or(0.0_f64);
        match kind {
            OPEN_METRICS => open = quality.max(open),
            TEXT => text = quality.max(text),
            _ => {}
        }
    }
    if open > 0.0 && open >= text { Format::OpenMetrics } else { Format::Prometheus }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_what_they_like_best() {
        let of = |accept: &str| format_of(std::iter::once(accept));
        for open in [
            OPEN_METRICS,
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/vnd.google.protobuf;q=0.6, application/openmetrics-text; version=1.0.0; q=0.5, text/plain;q=0.4",
        ] {
            assert_eq!(of(open), Format::OpenMetrics, "{open}");
        }
        for text in ["", "*/*", "text/plain", "text/plain;q=0.9,application/openmetrics-text;q=0.5"] {
            assert_eq!(of(text), Format::Prometheus, "{text}");
        }
        for refused in ["application/openmetrics-text;q=0", "application/openmetrics-text;q=much"] {
            assert_eq!(of(refused), Format::Prometheus, "{refused}");
        }
        assert_eq!(format_of(std::iter::empty()), Format::Prometheus);
        assert_eq!(format_of(["text/plain;q=0.3", OPEN_METRICS].into_iter()), Format::OpenMetrics);
    }
}
