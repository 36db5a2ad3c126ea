//! What browsers may: the daemon's own page and nobody else's. A browser does what any page tells it, and names itself with its
//! user's rights; so it is asked where a request comes from, and answers are such that no other page makes use of them.

use super::Shared;
use super::peer::Peer;
use crate::failure::{Failure, code};
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;

/// Where a browser says a request comes from: `same-origin`, `none` (its user typed it), or another site.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// And what for: `document` is a page of its own.
const FOR: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Of every answer: scripts, styles, pictures and answers come from here only, nothing is made a script of that was text, nobody
/// frames it, and no other site gets it.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        ),
    ),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Whether a browser sends this: each names at least where a change comes from.
pub fn sends(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.contains_key(SITE)
}

/// Refuses what another site has a browser ask.
pub async fn own_page_only(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let mut answer = match stranger(&peer, request.method(), request.uri().path(), request.headers()) {
        Some(failure) => failure.into_response(),
        None if changes_by_reading_page(&shared, &peer, &request) => {
            let what = "browsers may only read, and change nothing";
            let remedy = "use `dirigent` on the command line, or set `operate = true` in [director.page]";
            denied("[director.page]", what, remedy).into_response()
        }
        None => next.run(request).await,
    };
    answer.headers_mut().extend(HEADERS.map(|(name, value)| (Some(name), value)));
    answer
}

fn changes_by_reading_page(shared: &Shared, peer: &Peer, request: &Request) -> bool {
    let browses = matches!(peer, Peer::Browser { .. }) || sends(request.headers());
    browses && !shared.operators.browse && !is_safe(request.method())
}

/// Whether it changes nothing.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn denied(place: &str, what: impl Into<String>, remedy: impl Into<String>) -> Failure {
    Failure { code: code::KERNEL, ..Failure::new(place, what, remedy) }
}

/// Why it is not answered: the name that it is asked by, or the site that it comes from, is not ours.
fn stranger(peer: &Peer, method: &Method, path: &str, headers: &HeaderMap) -> Option<Failure> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(&HOST).unwrap_or_default();
    let plain = matches!(peer, Peer::Browser { .. });
    // Any name may be made to lead here (DNS rebinding), and then its page is of the same origin. TLS proves the name.
    if plain && !is_loopback(host) {
        let what = format!("asked for as {host:?}, which is no name of this host's own");
        return Some(denied("[director.page]", what, "ask for 127.0.0.1, [::1] or localhost"));
    }
    let scheme = if plain { "http" } else { "https" };
    let own = |origin: &str| origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) == Some(host);
    if let Some(origin) = text(&ORIGIN).filter(|origin| !own(origin)) {
        let what = format!("the request comes from another site, {origin:?}");
        return Some(denied("the request", what, "open the daemon's own page, and ask from there"));
    }
    let from = text(&SITE).unwrap_or("none");
    // A link to the page may stand anywhere.
    let follows = path == super::page::PATH && is_safe(method) && text(&FOR) == Some("document");
    if !["same-origin", "none"].contains(&from) && !follows {
        let what = format!("the request comes from another site ({from})");
        return Some(denied("the request", what, "open the daemon's own page, and ask from there"));
    }
    None
}

/// `localhost`, or an address of this host's own; the port is anybody's, for `ssh -L` may have another one.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = || name.trim_start_matches('[').trim_end_matches(']').parse().ok();
    name.eq_ignore_ascii_case("localhost") || address().is_some_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Peer = Peer::Browser { uid: None };

    fn refused(peer: &Peer, method: Method, path: &str, headers: &[(&str, &str)]) -> Option<String> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        stranger(peer, &method, path, &headers).map(|failure| failure.to_string())
    }

    #[test]
    fn plain_http_is_asked_for_by_names_of_this_host_only() {
        for host in ["127.0.0.1:8090", "localhost", "LOCALHOST:9000", "[::1]:8090", "127.9.9.9"] {
            assert_eq!(refused(&PLAIN, Method::GET, "/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "",
            "evil.example:8090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "192.0.2.1",
            "a b",
            "127.0.0.1@e",
        ] {
            let said = refused(&PLAIN, Method::GET, "/", &[("host", host)]);
            // What stands before an @ is no host.
            assert!(said.is_some_and(|said| said.contains("localhost")), "{host}");
        }
        assert!(refused(&PLAIN, Method::GET, "/", &[]).is_some());
        let remote = Peer::Remote { names: Vec::new(), address: [192, 0, 2, 1].into() };
        assert_eq!(refused(&remote, Method::GET, "/v1/status", &[("host", "director.example")]), None);
    }

    #[test]
    fn other_sites_get_nothing_done_or_told() {
        let host = ("host", "localhost:8090");
        let from = |site| refused(&PLAIN, Method::GET, "/v1/status", &[host, ("sec-fetch-site", site)]);
        assert_eq!((from("same-origin"), from("none")), (None, None));
        assert!(from("cross-site").is_some() && from("same-site").is_some());
        let of = |origin| refused(&PLAIN, Method::POST, "/v1/doctor", &[host, ("origin", origin)]);
        assert_eq!(of("http://localhost:8090"), None);
        for other in ["null", "https://localhost:8090", "http://localhost", "http://evil.example", ""] {
            assert!(of(other).is_some_and(|said| said.contains("another site")), "{other}");
        }
        let follow = |method, path, dest| {
            refused(&PLAIN, method, path, &[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-dest", dest)])
        };
        assert_eq!(follow(Method::GET, "/", "document"), None);
        assert!(follow(Method::GET, "/", "iframe").is_some());
        assert!(follow(Method::POST, "/", "document").is_some());
        assert!(follow(Method::GET, "/v1/status", "document").is_some());
        // With a certificate that the browser shows by itself.
        let remote = Peer::Remote { names: Vec::new(), address: [192, 0, 2, 1].into() };
        let tls = |origin| refused(&remote, Method::POST, "/v1/detach", &[("host", "d.example"), ("origin", origin)]);
        assert_eq!(tls("https://d.example"), None);
        assert!(tls("https://evil.example").is_some() && tls("http://d.example").is_some());
        // Programs say nothing of the kind.
        assert_eq!(refused(&remote, Method::POST, "/v1/detach", &[("host", "d.example")]), None);
    }
}
