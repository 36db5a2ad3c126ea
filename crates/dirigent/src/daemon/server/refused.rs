//! All that is no success, in JSON.

use crate::failure::{Failure, code};
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use dirigent_api::{Refusal, path};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(30);

/// The answers that are no success.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
pub enum Refused {
    /// The request is none: its body is not JSON, or a parameter is not what it must be.
    #[response(status = 400)]
    Malformed(Refusal),
    /// The asker may not, or the daemon lacks rights.
    #[response(status = 403)]
    Denied(Refusal),
    /// There is no such service, server or path.
    #[response(status = 404)]
    Absent(Refusal),
    /// The body took too long to come.
    #[response(status = 408)]
    Late(Refusal),
    /// The configuration is of another generation, or what was to be added is there already.
    #[response(status = 409)]
    Conflict(Refusal),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(Refusal),
    /// The body is not said to be JSON.
    #[response(status = 415)]
    NotJson(Refusal),
    /// It was refused: what is asked for cannot be.
    #[response(status = 422)]
    Invalid(Refusal),
    /// Too many ask at once.
    #[response(status = 503)]
    Busy(Refusal),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.code {
            code::STALE | code::EXISTS => StatusCode::CONFLICT,
            code::ABSENT => StatusCode::NOT_FOUND,
            code::KERNEL => StatusCode::FORBIDDEN,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        (status, Json(self.refusal())).into_response()
    }
}

/// A request that cannot be one, with its status.
pub struct Rejected(StatusCode, Failure);

impl Rejected {
    fn new(status: StatusCode, place: &str, what: String, remedy: &str) -> Self {
        Self(status, Failure { code: code::INVALID, ..Failure::new(place, what, remedy) })
    }
}

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        (self.0, Json(self.1.refusal())).into_response()
    }
}

impl From<JsonRejection> for Rejected {
    fn from(rejection: JsonRejection) -> Self {
        let remedy = format!("send JSON, with content-type application/json, of the form that {} names", path::OPENAPI);
        Self::new(rejection.status(), "the request's body", rejection.body_text(), &remedy)
    }
}

impl From<QueryRejection> for Rejected {
    fn from(rejection: QueryRejection) -> Self {
        let remedy = "correct what stands behind the ?";
        Self::new(rejection.status(), "the address's parameters", rejection.body_text(), remedy)
    }
}

impl From<PathRejection> for Rejected {
    fn from(rejection: PathRejection) -> Self {
        let remedy = "write names in UTF-8, with % where a URL needs it";
        Self::new(rejection.status(), "the address", rejection.body_text(), remedy)
    }
}

/// A body in JSON, which comes in time.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Rejected;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejected> {
        match tokio::time::timeout(BODY, Json::from_request(request, state)).await {
            Ok(Ok(Json(body))) => Ok(Self(body)),
            Ok(Err(rejection)) => Err(rejection.into()),
            Err(_) => {
                let what = format!("it did not come in {} seconds", BODY.as_secs());
                Err(Rejected::new(StatusCode::REQUEST_TIMEOUT, "the request's body", what, "send it at once"))
            }
        }
    }
}

/// What stands behind the `?` of an address.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Rejected))]
pub struct Parameters<T>(pub T);

/// What the address names.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Rejected))]
pub struct Named<T>(pub T);

/// For every path that is none.
pub async fn no_such_path(uri: Uri) -> Rejected {
    let remedy = format!("GET {} names the paths that there are", path::OPENAPI);
    Rejected::new(StatusCode::NOT_FOUND, uri.path(), "there is no such path".into(), &remedy)
}

/// For every path that there is, asked in another way.
pub async fn no_such_method(method: Method, uri: Uri) -> Rejected {
    let remedy = format!("GET {} says what each path takes", path::OPENAPI);
    let what = format!("{method} is not for this path");
    Rejected::new(StatusCode::METHOD_NOT_ALLOWED, uri.path(), what, &remedy)
}

/// For whom there is no room.
pub fn busy() -> Response {
    let what = "too many connections are open already".to_owned();
    let remedy = "close some, or ask again in a moment";
    Rejected::new(StatusCode::SERVICE_UNAVAILABLE, "the control API", what, remedy).into_response()
}
