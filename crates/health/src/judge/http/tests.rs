use super::super::testing::{converse, cuts, end, nearly};
use super::*;
use crate::check::{Regex, Tls};
use proptest::prelude::*;

fn regex(pattern: &str) -> Option<Regex> {
    Some(Regex { pattern: pattern.into(), ..Regex::default() })
}

/// What is asked for by default.
fn plain() -> Request {
    Request::default()
}

/// MD5 of "message digest" (RFC 1321, appendix A.5).
fn digest() -> Request {
    Request { digest: Some("F96B697D7CB7938D525A2F31AAF161D0".into()), ..plain() }
}

fn matching(pattern: &str) -> Request {
    Request { regex: regex(pattern), ..plain() }
}

fn close_notify() -> (Http, Request) {
    let check = Http { tls: Some(Tls { sni: None, close_notify: true }), ..Http::default() };
    (check, plain())
}

fn exchange(check: &Http, asked: &Request) -> Exchange {
    Exchange::new(b"GET".to_vec(), Expected::new(check, asked).unwrap())
}

fn verdict(asked: &Request, answer: &str, end: Option<End>) -> String {
    let whole = converse(exchange(&Http::default(), asked), answer.as_bytes(), &[], end);
    let bytes = converse(exchange(&Http::default(), asked), answer.as_bytes(), &[1; 4096], end);
    assert_eq!(whole, bytes);
    word(whole.0)
}

fn word(outcome: Option<Outcome>) -> String {
    outcome.map_or("…".into(), |outcome| outcome.map_or_else(|why| why.to_string(), |_| "well".into()))
}

#[test]
fn requests_as_they_are_sent() {
    let request_ = |version, check_host: Option<&str>, own: Option<&str>, server: &str, tls: bool| {
        let virtual_host = check_host.map(str::to_owned);
        let check = Http { version, virtual_host, tls: tls.then(Tls::default), ..Http::default() };
        let asked = Request { path: "/a?b=c".into(), virtual_host: own.map(str::to_owned), ..plain() };
        String::from_utf8(request(&check, &asked, server.parse().unwrap())).unwrap()
    };
    assert_eq!(
        request_(HttpVersion::V10, None, None, "10.0.0.2:80", false),
        "GET /a?b=c HTTP/1.0\r\nHost: 10.0.0.2\r\nUser-Agent: dirigent\r\nAccept: */*\r\n\r\n"
    );
    assert_eq!(
        request_(HttpVersion::V10Close, Some("a.example"), None, "10.0.0.2:8080", false),
        "GET /a?b=c HTTP/1.0\r\nHost: a.example\r\nUser-Agent: dirigent\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let v11 = request_(HttpVersion::V11, Some("a.example"), Some("b.example"), "10.0.0.2:80", false);
    assert!(v11.starts_with("GET /a?b=c HTTP/1.1\r\nHost: b.example\r\n") && v11.ends_with("close\r\n\r\n"), "{v11}");
    for (server, tls, host) in [
        ("10.0.0.2:443", true, "10.0.0.2"),
        ("10.0.0.2:443", false, "10.0.0.2:443"),
        ("[fd00::2]:80", false, "[fd00::2]"),
        ("[fe80::2%3]:8080", false, "[fe80::2]:8080"),
    ] {
        let text = request_(HttpVersion::V10, None, None, server, tls);
        assert!(text.contains(&format!("Host: {host}\r\n")), "{text}");
    }
}

#[test]
fn parts() {
    let paths = |part| {
        let requests_ = ["/a", "/b"].map(|path| Request { path: path.into(), ..plain() });
        let check = Http { requests: requests_.into(), ..Http::default() };
        requests(&check, part).iter().map(|r| r.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(paths(None), ["/a", "/b"]);
    assert_eq!(paths(Some(1)), ["/b"]);
    assert_eq!(paths(Some(2)), ["/a", "/b"], "no such part: all, rather than none");
}

#[test]
fn status() {
    let redirects = Request { status: vec![(301, 302), (404, 404)], ..plain() };
    for (asked, answer, expected) in [
        (plain(), "HTTP/1.1 200 OK\r\n\r\n", "well"),
        (plain(), "HTTP/1.0 200\r\nServer: x\r\n\r\nbody", "well"),
        (plain(), "HTTP/1.1 299 \n\n", "well"),
        (plain(), "HTTP/1.1 300 Multiple Choices\r\n\r\n", "status 300"),
        (plain(), "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n", "status 503"),
        (redirects.clone(), "HTTP/1.1 301 Moved\r\n\r\n", "well"),
        (redirects.clone(), "HTTP/1.1 404 Not Found\r\n\r\n", "well"),
        (redirects, "HTTP/1.1 200 OK\r\n\r\n", "status 200"),
        // Interim answers (RFC 9110 section 15.2).
        (
            plain(),
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
            "well",
        ),
        (plain(), "HTTP/1.1 100 Continue\r\n\r\n", "…"),
        (plain(), "HTTP/1.1 101 Switching Protocols\r\n\r\n", "status 101"),
        // The verdict waits for the header's end.
        (plain(), "HTTP/1.1 200 OK\r\nServer: x\r\n", "…"),
        (plain(), "", "…"),
        (plain(), "HTTP/1.1 099 x\r\n", "not HTTP/1.x: \"HTTP/1.1 099 x\""),
        (plain(), "HTTP/1.1 2000 OK\r\n", "not HTTP/1.x: \"HTTP/1.1 2000 OK\""),
        (plain(), "HTTP/1.1 20x OK\r\n", "not HTTP/1.x: \"HTTP/1.1 20x OK\""),
        (plain(), "HTTP/2 200\r\n", "not HTTP/1.x: \"HTTP/2 200\""),
        (plain(), "HTTP/1.1\r\n", "not HTTP/1.x: \"HTTP/1.1\""),
        (plain(), "SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1.x: \"SSH-2.0-OpenSSH_9.2\""),
        (plain(), "\r\n", "not HTTP/1.x: \"\""),
    ] {
        assert_eq!(verdict(&asked, answer, None), expected, "{answer:?}");
    }
}

#[test]
fn ends() {
    for (answer, expected) in [
        ("", "closed without an answer"),
        ("HTTP", "the answer ended early"),
        ("HTTP/1.1 200 OK\r\n", "the answer ended early"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nmessage digest", "the answer ended early"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "the answer ended early"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nmessage digest", "the answer ended early"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\nmessage digest\r\n0\r\n", "the answer ended early"),
        ("HTTP/1.1 200 OK\r\n\r\nmessage digest", "well"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "the answer ended early"),
    ] {
        assert_eq!(verdict(&digest(), answer, Some(End::Cut)), expected, "{answer:?}");
    }
}

#[test]
fn bodies() {
    for (header, body, expected) in [
        ("", "message digest", "…"),
        ("Content-Length: 14\r\n", "message digest", "well"),
        ("content-length:14 \r\nContent-Length: 14\r\n", "message digest and more", "well"),
        ("Content-Length: 13\r\n", "message digest", "the body has another digest"),
        ("Content-Length: 15\r\n", "message digest", "…"),
        ("Content-Length: 0\r\n", "message digest", "the body has another digest"),
        ("Transfer-Encoding: chunked\r\n", "7\r\nmessage\r\n7;a=b\r\n digest\r\n0\r\n\r\n", "well"),
        // Chunks go before a length (RFC 9112 section 6.3).
        (
            "Content-Length: 3\r\nTransfer-Encoding: gzip, Chunked\r\n",
            "00e \nmessage digest\n0\nTrailer: x\n\n",
            "well",
        ),
        ("Transfer-Encoding: chunked\r\n", "e\r\nmessage digest\r\n0\r\nTrailer: x\r\n", "…"),
        ("Transfer-Encoding: chunked\r\n", "7\r\nmessage digest\r\n", "a chunk is longer than it says"),
        ("Transfer-Encoding: chunked\r\n", "x\r\n", "bad size of a chunk: \"x\""),
        ("Transfer-Encoding: chunked\r\n", "\r\n", "bad size of a chunk: \"\""),
        ("Transfer-Encoding: chunked\r\n", "10000000000000000\r\n", "bad size of a chunk: \"10000000000000000\""),
        ("Transfer-Encoding: chunked\r\n", "ffffffffffffffff\r\nx", "…"),
        ("Transfer-Encoding: gzip\r\nContent-Length: 14\r\n", "message digest", "…"),
        ("Content-Length: 14, 14\r\n", "", "bad Content-Length: \"14, 14\""),
        ("Content-Length: +14\r\n", "", "bad Content-Length: \"+14\""),
        ("Content-Length: \r\n", "", "bad Content-Length: \"\""),
        ("Content-Length: 14\r\nContent-Length: 15\r\n", "", "bad Content-Length: \"15\""),
        ("Content-Length: 18446744073709551616\r\n", "", "bad Content-Length: \"18446744073709551616\""),
        ("no colon\r\n folded: 1\r\n", "message digest", "…"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{header}\r\n{body}");
        assert_eq!(verdict(&digest(), &answer, None), expected, "{answer:?}");
    }
    // No body at all.
    let empty = Request { digest: Some("d41d8cd98f00b204e9800998ecf8427e".into()), ..plain() };
    assert_eq!(verdict(&empty, "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", None), "well");
}

#[test]
fn patterns_of_bodies() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nstatus\n";
    assert_eq!(verdict(&matching("^sta.us$"), answer, None), "well");
    assert_eq!(verdict(&matching("^x"), answer, None), "the body does not match the regex");
    let inverted = Request { regex: regex("x").map(|r| Regex { invert: true, ..r }), ..plain() };
    assert_eq!(verdict(&inverted, answer, None), "well");
    // A digest that fails is told first.
    let both = Request { regex: regex("x"), ..digest() };
    assert_eq!(verdict(&both, answer, None), "the body has another digest");
    let both = Request { regex: regex("^message"), ..digest() };
    assert_eq!(verdict(&both, "HTTP/1.1 200 OK\r\n\r\nmessage digest", Some(End::Clean)), "well");
}

#[test]
fn close_notify_is_wanted() {
    let (check, asked) = close_notify();
    let verdict = |answer: &str, end| word(converse(exchange(&check, &asked), answer.as_bytes(), &[3; 99], end).0);
    for answer in
        ["HTTP/1.1 200 OK\r\n\r\nab", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", "HTTP/1.1 204 No\r\n\r\n"]
    {
        assert_eq!(verdict(answer, None), "…");
        assert_eq!(verdict(answer, Some(End::Clean)), "well");
        assert_eq!(verdict(answer, Some(End::Cut)), "closed without close_notify");
    }
    assert_eq!(verdict("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", Some(End::Clean)), "the answer ended early");
    assert_eq!(verdict("HTTP/1.1 500 Oh\r\n\r\n", None), "status 500");
    // The request's own word goes first; without TLS there is none.
    let own = Request { close_notify: Some(false), ..plain() };
    assert!(!Expected::new(&check, &own).unwrap().close_notify);
    assert!(!Expected::new(&Http::default(), &Request { close_notify: Some(true), ..plain() }).unwrap().close_notify);
}

#[test]
fn what_cannot_be_expected() {
    let error = |asked: Request| Expected::new(&Http::default(), &asked).unwrap_err().to_string();
    assert_eq!(error(Request { digest: Some("abc".into()), ..plain() }), "the digest is no MD5");
    assert_eq!(error(matching("a(")), "missing closing parenthesis at byte 2");
}

/// Memory that an exchange holds, apart from itself.
fn held(exchange: &Exchange) -> usize {
    exchange.kept.capacity() + exchange.lines.rest().len() + exchange.output.capacity()
}

#[test]
fn endless_answers_cost_bounded_memory() {
    let feed = |asked: Request, begin: &str, again: &[u8]| {
        let mut exchange = exchange(&Http::default(), &asked);
        exchange.on_bytes(begin.as_bytes());
        let (mut most, mut times) = (0, 0);
        while exchange.verdict().is_none() && times < 1000 {
            exchange.on_bytes(again);
            most = most.max(held(&exchange));
            times += 1;
        }
        assert!(most <= 2 * BODY_KEPT + LINE, "{most} bytes");
        word(exchange.verdict)
    };
    let block = [b'x'; 16 << 10];
    let fields = b"Name: value\r\n".repeat(100);
    let header = "HTTP/1.1 200 OK\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    // The digest goes on as long as the server does; the regex is satisfied with the beginning.
    assert_eq!(feed(digest(), "HTTP/1.1 200 OK\r\n\r\n", &block), "…");
    assert_eq!(feed(matching("^x"), "HTTP/1.1 200 OK\r\n\r\n", &block), "well");
    assert_eq!(
        feed(matching("^y"), chunked, &[b"4000\r\n", &block[..], b"\r\n"].concat()),
        "the body does not match the regex"
    );
    let both = Request { regex: regex("^x"), ..digest() };
    assert_eq!(feed(both, "HTTP/1.1 200 OK\r\n\r\n", &block), "…");
    assert_eq!(feed(plain(), "", &block), "a line of the header is too long");
    assert_eq!(feed(plain(), header, &block), "a line of the header is too long");
    assert_eq!(feed(plain(), header, &fields), "the header is too long");
    assert_eq!(feed(plain(), "", b"HTTP/1.1 100 Continue\r\n\r\n".repeat(99).as_slice()), "the header is too long");
    assert_eq!(feed(digest(), &format!("{chunked}0\r\n"), &fields), "the header is too long");
    assert_eq!(feed(digest(), chunked, b"1\r\nx\r\n"), "…", "many chunks are no header");
}

const WORDS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 100 C\r\n",
    "HTTP/1.1 503 No\n",
    "Content-Length: 14\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Server: x\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "message digest",
    "e\r\n",
    "0\r\n",
    "3\r\n",
    "abc",
];

proptest! {
    #[test]
    fn pieces_do_not_matter(bytes in nearly(WORDS), cuts in cuts(), end in end(), kind in 0..5usize) {
        let (tls, asked) = close_notify();
        let check = if kind == 4 { tls } else { Http::default() };
        let asked = [plain(), digest(), matching("^m.*t$"), Request { regex: regex("m"), ..digest() }, asked][kind].clone();
        let whole = converse(exchange(&check, &asked), &bytes, &[], end);
        prop_assert_eq!(&converse(exchange(&check, &asked), &bytes, &cuts, end), &whole);
        prop_assert!(end.is_none() || whole.0.is_some(), "an end always decides");
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in cuts(), end in end()) {
        let whole = converse(exchange(&Http::default(), &digest()), &bytes, &[], end);
        prop_assert_eq!(converse(exchange(&Http::default(), &digest()), &bytes, &cuts, end), whole);
    }
}
