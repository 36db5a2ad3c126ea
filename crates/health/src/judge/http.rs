//! What an HTTP answer means: its status, its body, and how the connection ended.
//!
//! HTTP itself is a library's (hyper) on the runner's side; here is what of it counts. Without a digest, a regex or an end
//! to look at, the verdict stands with the status.

use super::End;
use super::pattern::Pattern;
use crate::check::{Http, Request};
use crate::machine::{Outcome, Weight};
use crate::why::Why;
use md5::{Digest, Md5};
use std::net::SocketAddr;

/// Bytes of a body that are kept for a regex; what comes later is not matched. A digest is of all of it.
pub const BODY_KEPT: usize = 1 << 20;

/// What the answer must be: made once, and used for each attempt.
#[derive(Clone, Debug)]
pub struct Expected {
    status: Vec<(u16, u16)>,
    digest: Option<[u8; 16]>,
    pattern: Option<Pattern>,
    close_notify: bool,
}

impl Expected {
    /// By this request of the check; the error is that of a pattern.
    pub fn new(check: &Http, request: &Request) -> Result<Self, Why> {
        let status = if request.status.is_empty() { vec![(200, 299)] } else { request.status.clone() };
        let digest = match &request.digest {
            Some(text) => {
                let bytes = super::udp::hex(text).and_then(|bytes| bytes.try_into().ok());
                Some(bytes.ok_or(Why::of("the digest is no MD5"))?)
            }
            None => None,
        };
        let pattern = request.regex.as_ref().map(Pattern::new).transpose()?;
        let tls = check.tls.as_ref();
        let close_notify = tls.is_some_and(|tls| request.close_notify.unwrap_or(tls.close_notify));
        Ok(Self { status, digest, pattern, close_notify })
    }

    /// Whether the end of the connection counts.
    pub fn wants_end(&self) -> bool {
        self.close_notify
    }
}

/// The requests of an attempt: all, or the part that a recovery is at.
pub fn requests(check: &Http, part: Option<u32>) -> &[Request] {
    let all = check.requests.as_slice();
    let one = part.and_then(|part| usize::try_from(part).ok()).and_then(|part| all.get(part..)?.get(..1));
    one.unwrap_or(all)
}

/// The Host header of a request to a server at this address (RFC 9110 section 7.2): the port only if it is not the
/// scheme's.
pub fn host(check: &Http, request: &Request, server: SocketAddr) -> String {
    if let Some(own) = request.virtual_host.as_ref().or(check.virtual_host.as_ref()) {
        return own.clone();
    }
    let address = match server {
        SocketAddr::V4(server) => server.ip().to_string(),
        // Without a scope, which means nothing to the server.
        SocketAddr::V6(server) => format!("[{}]", server.ip()),
    };
    let default = if check.tls.is_some() { 443 } else { 80 };
    if server.port() == default { address } else { format!("{address}:{}", server.port()) }
}

/// An answer as it comes in.
#[derive(Debug)]
pub struct Answer {
    expected: Expected,
    md5: Md5,
    kept: Vec<u8>,
    verdict: Option<Outcome>,
}

impl Answer {
    /// One with this status.
    pub fn new(expected: Expected, status: u16) -> Self {
        let well = expected.status.iter().any(|(first, last)| (*first..=*last).contains(&status));
        let looked_at = expected.digest.is_some() || expected.pattern.is_some() || expected.close_notify;
        let verdict = match (well, looked_at) {
            (false, _) => Some(Err(Why::new(format!("status {status}")))),
            (true, false) => Some(Ok(Weight::Keep)),
            (true, true) => None,
        };
        Self { expected, md5: Md5::new(), kept: Vec::new(), verdict }
    }

    /// A piece of its body.
    pub fn on_body(&mut self, piece: &[u8]) {
        if self.verdict.is_some() {
            return;
        }
        if self.expected.digest.is_some() {
            self.md5.update(piece);
        }
        if self.expected.pattern.is_some() {
            let room = BODY_KEPT.saturating_sub(self.kept.len()).min(piece.len());
            self.kept.extend_from_slice(piece.get(..room).unwrap_or_default());
            // The rest would change nothing, and may be endless.
            if self.expected.digest.is_none() && !self.expected.close_notify && self.kept.len() >= BODY_KEPT {
                self.verdict = Some(self.body());
            }
        }
    }

    /// The body is whole.
    pub fn on_whole(&mut self) {
        if self.verdict.is_none() {
            let body = self.body();
            if body.is_err() || !self.expected.close_notify {
                self.verdict = Some(body);
            }
        }
    }

    /// The connection came to its end after a whole answer.
    pub fn on_end(&mut self, end: End) {
        self.verdict.get_or_insert(match end {
            End::Clean => Ok(Weight::Keep),
            End::Cut => Err(Why::of("closed without close_notify")),
        });
    }

    /// What came of it, if that is known.
    pub fn verdict(&self) -> Option<&Outcome> {
        self.verdict.as_ref()
    }

    /// The body as it is known now.
    fn body(&self) -> Outcome {
        if self.expected.digest.is_some_and(|digest| self.md5.clone().finalize().as_slice() != digest) {
            return Err(Why::of("the body has another digest"));
        }
        match &self.expected.pattern {
            Some(pattern) => pattern.judge(&self.kept).map(|()| Weight::Keep),
            None => Ok(Weight::Keep),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::cuts;
    use super::*;
    use crate::check::{Regex, Tls};
    use proptest::prelude::*;

    fn check(request: Request, close_notify: bool) -> Http {
        let tls = Some(Tls { close_notify, ..Tls::default() });
        Http { requests: vec![request], tls, ..Http::default() }
    }

    fn answer(request: Request, close_notify: bool, status: u16) -> Answer {
        let check = check(request.clone(), close_notify);
        Answer::new(Expected::new(&check, &request).unwrap(), status)
    }

    fn said(answer: &Answer) -> String {
        match answer.verdict() {
            None => "…".into(),
            Some(Ok(_)) => "well".into(),
            Some(Err(why)) => why.to_string(),
        }
    }

    #[test]
    fn statuses() {
        for (wanted, status, expected) in [
            (vec![], 200, "well"),
            (vec![], 299, "well"),
            (vec![], 301, "status 301"),
            (vec![], 199, "status 199"),
            (vec![(401, 401), (500, 503)], 200, "status 200"),
            (vec![(401, 401), (500, 503)], 401, "well"),
            (vec![(401, 401), (500, 503)], 503, "well"),
        ] {
            let request = Request { status: wanted.clone(), ..Request::default() };
            assert_eq!(said(&answer(request, false, status)), expected, "{wanted:?} {status}");
        }
    }

    /// RFC 1321 appendix A.5.
    const ABC: &str = "900150983cd24fb0d6963f7d28e17f72";

    #[test]
    fn bodies() {
        let digest = |digest: &str| Request { digest: Some(digest.into()), ..Request::default() };
        let regex = |pattern: &str, invert| {
            let regex = Some(Regex { pattern: pattern.into(), invert, ..Regex::default() });
            Request { regex, ..Request::default() }
        };
        for (request, body, expected) in [
            (digest(ABC), "abc", "well"),
            (digest(&ABC.to_uppercase()), "abc", "well"),
            (digest(ABC), "abd", "the body has another digest"),
            (regex("b+c$", false), "abbc", "well"),
            (regex("b+c$", false), "abcd", "the body does not match the regex"),
            (regex("b+c$", true), "abcd", "well"),
            (regex("b+c$", true), "abc", "the body matches the regex"),
            (Request { regex: regex("a", false).regex, ..digest(ABC) }, "abc", "well"),
            (Request { regex: regex("x", false).regex, ..digest(ABC) }, "abc", "the body does not match the regex"),
        ] {
            let mut answer = answer(request, false, 200);
            answer.on_body(body.as_bytes());
            assert_eq!(said(&answer), "…", "{body}");
            answer.on_whole();
            assert_eq!(said(&answer), expected, "{body}");
            answer.on_body(b"more");
            assert_eq!(said(&answer), expected, "nothing changes it");
        }
    }

    #[test]
    fn ends() {
        for (end, expected) in [(End::Clean, "well"), (End::Cut, "closed without close_notify")] {
            let mut answer = answer(Request::default(), true, 200);
            answer.on_whole();
            assert_eq!(said(&answer), "…");
            answer.on_end(end);
            assert_eq!(said(&answer), expected);
        }
        // A request may have its own.
        let own = Request { close_notify: Some(false), ..Request::default() };
        assert_eq!(said(&answer(own, true, 200)), "well");
    }

    #[test]
    fn an_endless_body_costs_bounded_memory() {
        let regex = Some(Regex { pattern: "x".into(), ..Regex::default() });
        let mut answer = answer(Request { regex, ..Request::default() }, false, 200);
        let piece = [b'a'; 100_000];
        for _ in 0..20 {
            answer.on_body(&piece);
        }
        assert_eq!(said(&answer), "the body does not match the regex");
        assert!(answer.kept.capacity() <= 2 * BODY_KEPT);
    }

    #[test]
    fn hosts() {
        let request = |host: Option<&str>| Request { virtual_host: host.map(str::to_owned), ..Request::default() };
        for (own, general, tls, server, expected) in [
            (None, None, false, "10.0.0.2:80", "10.0.0.2"),
            (None, None, false, "10.0.0.2:443", "10.0.0.2:443"),
            (None, None, true, "10.0.0.2:443", "10.0.0.2"),
            (None, None, true, "[fd00::2]:80", "[fd00::2]:80"),
            (None, None, false, "[fd00::2]:80", "[fd00::2]"),
            (None, Some("b.example"), false, "10.0.0.2:8080", "b.example"),
            (Some("a.example"), Some("b.example"), false, "10.0.0.2:8080", "a.example"),
        ] {
            let check =
                Http { virtual_host: general.map(str::to_owned), tls: tls.then(Tls::default), ..Http::default() };
            assert_eq!(host(&check, &request(own), server.parse().unwrap()), expected);
        }
    }

    #[test]
    fn a_recovery_asks_one_at_a_time() {
        let requests_of = |part| {
            let paths = ["/a", "/b"].map(|path| Request { path: path.into(), ..Request::default() });
            let check = Http { requests: paths.into(), ..Http::default() };
            requests(&check, part).iter().map(|r| r.path.clone()).collect::<Vec<_>>()
        };
        assert_eq!(requests_of(None), ["/a", "/b"]);
        assert_eq!(requests_of(Some(1)), ["/b"]);
        assert_eq!(requests_of(Some(7)), ["/a", "/b"]);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(body in prop::collection::vec(any::<u8>(), 0..300), cuts in cuts(), pattern in "[a-c]{1,3}") {
            let request = || {
                let regex = Some(Regex { pattern: pattern.clone(), ..Regex::default() });
                Request { regex, digest: Some(ABC.into()), ..Request::default() }
            };
            let mut whole = answer(request(), false, 200);
            whole.on_body(&body);
            whole.on_whole();
            let mut pieces = answer(request(), false, 200);
            let mut left = &body[..];
            for cut in cuts {
                let (piece, rest) = left.split_at(cut.min(left.len()));
                pieces.on_body(piece);
                left = rest;
            }
            pieces.on_body(left);
            pieces.on_whole();
            prop_assert_eq!(pieces.verdict(), whole.verdict());
        }
    }
}
