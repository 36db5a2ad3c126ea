//! All that is no success, in JSON.

use crate::failure::{Failure, code};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dirigent_api::{Refusal, path};
use dirigent_config::file::json::Object;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{OpenApi, RefOr};

/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(10);

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

fn unfit_as(status: StatusCode, what: String) -> Rejected {
    let remedy = format!("send JSON, with content-type application/json, of the form that {} names", path::OPENAPI);
    Rejected::new(status, "the request's body", what, &remedy)
}

fn unfit(what: String) -> Rejected {
    unfit_as(StatusCode::UNPROCESSABLE_ENTITY, what)
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
        // An object: of a list serde would take the values by their order.
        match tokio::time::timeout(BODY, Json::<Object>::from_request(request, state)).await {
            Ok(Ok(Json(body))) => serde_json::from_value(body.into()).map(Self).map_err(|e| unfit(e.to_string())),
            Ok(Err(rejection)) => Err(unfit_as(rejection.status(), rejection.body_text())),
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

/// The parameters behind the `?`, by path and method, out of the API's description.
pub struct Known(HashMap<(String, Method), Vec<String>>);

impl Known {
    /// Those of all paths.
    pub fn of(api: &OpenApi) -> Self {
        let mut known = HashMap::new();
        for (path, item) in &api.paths.paths {
            let methods = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            for (method, operation) in methods {
                let parameters = operation.iter().flat_map(|operation| operation.parameters.iter().flatten());
                let query = parameters.filter_map(|parameter| match parameter {
                    RefOr::T(one) if one.parameter_in == ParameterIn::Query => Some(one.name.clone()),
                    _ => None,
                });
                known.insert((path.clone(), method), query.collect());
            }
        }
        Self(known)
    }
}

/// Nobody's misspelt `dry_run` is taken for none.
pub async fn known_parameters(State(known): State<Arc<Known>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    if let Some(parameters) = known.0.get(&(path, request.method().clone())) {
        let query = request.uri().query().unwrap_or_default();
        let mut given = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
        if let Some(unknown) = given.find(|name| !parameters.iter().any(|known| known == name)) {
            let what = format!("unknown parameter {unknown:?}");
            let near = dirigent_config::file::keys::nearest(&unknown, parameters.iter().map(String::as_str));
            let remedy = match (near, parameters.as_slice()) {
                (Some(near), _) => format!("did you mean {near}?"),
                (None, []) => "remove it: there are none here".to_owned(),
                (None, known) => format!("remove it; known are {}", known.join(", ")),
            };
            let place = "the address's parameters";
            return Rejected::new(StatusCode::BAD_REQUEST, place, what, &remedy).into_response();
        }
    }
    next.run(request).await
}

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

/// For whatever else is asked for where there are only metrics.
pub async fn only_metrics(method: Method, uri: Uri) -> Rejected {
    let status = if uri.path() == path::METRICS { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_FOUND };
    let remedy = format!("GET {} is all that there is on this port; the rest is the control API's", path::METRICS);
    Rejected::new(status, uri.path(), format!("{method} is not for this path"), &remedy)
}

/// For users of this host who could not open the control socket either.
pub fn no_reader() -> Response {
    let what = "only root and members of the control socket's group may see the page";
    let remedy = "open it as such a user, or set `group` in the configuration and join that group";
    Failure { code: code::KERNEL, ..Failure::new("[director.page]", what, remedy) }.into_response()
}

/// For whom there is no room.
pub fn busy() -> Response {
    let what = "too many connections are open already".to_owned();
    let remedy = "close some, or ask again in a moment";
    Rejected::new(StatusCode::SERVICE_UNAVAILABLE, "the control API", what, remedy).into_response()
}
