//! What the fuzz targets do with bytes, and `tests/exercise.rs` with random ones: a failed assertion is a find.

use dirigent_health::bfd::{self, Packet, Session, State};
use dirigent_health::check::{Http, Record, Regex, Request, Tls, Udp};
use dirigent_health::judge::{End, Stream, dns, file, http, icmp, smtp, udp};
use dirigent_health::{Outcome, Why};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Every judge, on the same bytes: none panics, and none minds in which pieces they come.
pub fn checks(data: &[u8]) {
    let Some((&[pieces, end], answer)) = data.split_first_chunk() else { return };
    let end = [None, Some(End::Clean), Some(End::Cut)][usize::from(end) % 3];
    for expected in expectations() {
        body_in_pieces(expected, answer, pieces, end);
    }
    same_in_pieces(|| smtp::Exchange::new("lb.example"), answer, pieces, end);

    for reply in [None, Some(""), Some("0x"), Some("xx01")] {
        let udp = Udp { reply: reply.map(str::to_owned), ..Udp::default() };
        bounded(&udp::Datagrams::new(&udp).unwrap().judge(answer));
    }
    let question = dns::Question::new("example.com.", Record::A).unwrap();
    for id in [0x1234, answer.first_chunk().map_or(0, |id| u16::from_be_bytes(*id))] {
        question.judge(id, answer).iter().for_each(bounded);
    }
    for (ipv6, header) in [(false, false), (false, true), (true, false)] {
        let sequence = u16::from(pieces);
        let _ = icmp::Echo { ipv6, ident: None, sequence, payload: [0; 16] }.judge(answer, header);
    }
    for (weight, reverse) in [(0, false), (0, true), (i32::MAX, false), (i32::MIN, true)] {
        bounded(&file::judge(Some(answer), weight, reverse));
    }
}

/// A session of BFD, whose neighbour, clock and operator do what the bytes say.
pub fn session(data: &[u8]) {
    let start = Instant::now();
    let Some((&[kind, own], mut left)) = data.split_first_chunk() else { return };
    let settings = |n: u8| bfd::Settings {
        min_rx_us: u32::from(n & 7) * 10_000,
        min_tx_us: u32::from(n >> 4) * 10_000,
        idle_tx_us: 1_000_000,
        multiplier: n & 15,
        passive: n & 8 != 0,
    };
    let mut session = Session::new(settings(kind), own.into(), start, 0);
    let mut now = start;
    while let Some((&[op, n], rest)) = left.split_first_chunk() {
        left = rest;
        let random = u64::from(n) << 56;
        let before = session.state();
        let actions = match op % 8 {
            0..4 => {
                let (packet, rest) = left.split_at(left.len().min(24));
                left = rest;
                let mut bytes = packet.to_vec();
                if let Some([first, flags, _, length]) = bytes.first_chunk_mut() {
                    // Most of them shall come through.
                    (*first, *flags, *length) = (0x20 | *first & 0x1f, *flags & !5, 24);
                }
                let _ = Packet::parse(packet);
                let Ok(packet) = Packet::parse(&bytes) else { continue };
                assert_eq!(packet.emit()[..], bytes, "a packet is what it says");
                session.on_packet(now, &packet, random)
            }
            4 | 5 => {
                now = session.deadline().unwrap_or(now).max(now);
                session.on_deadline(now, random)
            }
            6 => {
                now += Duration::from_millis(u64::from(n));
                if n % 2 == 0 { session.on_deadline(now, random) } else { session.hold_down(now, n % 4 == 1, random) }
            }
            _ => {
                session.reconfigure(now, settings(n), random);
                bfd::Actions::default()
            }
        };
        assert_eq!(actions.change, (before != session.state()).then_some((before, session.state())));
        if let Some(packet) = actions.send {
            assert_eq!(Packet::parse(&packet.emit()), Ok(packet));
            assert_eq!((packet.mine, packet.state), (session.discriminator(), session.state()));
            assert!(!(packet.poll && packet.last), "section 6.5");
            assert!(packet.state == State::Up || packet.desired_min_tx_us >= 1_000_000, "section 6.8.3");
            assert!(packet.yours != 0 || matches!(packet.state, State::Down | State::AdminDown), "section 6.8.6");
        }
        match actions.told {
            Some(Ok(_)) => assert_eq!(session.state(), State::Up),
            Some(Err(why)) => {
                assert_ne!(session.state(), State::Up);
                bounded(&Err(why));
            }
            None => {}
        }
    }
}

fn expectations() -> &'static [http::Expected] {
    static EXPECTED: OnceLock<Vec<http::Expected>> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let regex = Some(Regex { pattern: "^a.*z$".into(), ..Regex::default() });
        let digest = Some("d41d8cd98f00b204e9800998ecf8427e".to_owned());
        let tls = Http { tls: Some(Tls { close_notify: true, ..Tls::default() }), ..Http::default() };
        let of = |check: &Http, regex, digest| {
            http::Expected::new(check, &Request { regex, digest, ..Request::default() }).unwrap()
        };
        let plain = Http::default();
        vec![
            of(&plain, None, None),
            of(&plain, regex.clone(), None),
            of(&plain, None, digest.clone()),
            of(&tls, regex, digest),
        ]
    })
}

/// The same of a body, which a library takes out of an HTTP answer.
fn body_in_pieces(expected: &http::Expected, body: &[u8], seed: u8, end: Option<End>) {
    let status = [200, 204, 302, 503][usize::from(seed) % 4];
    let verdict = |pieces: usize| {
        let mut answer = http::Answer::new(expected.clone(), status);
        body.chunks(pieces.max(1)).for_each(|piece| answer.on_body(piece));
        if let Some(end) = end {
            answer.on_whole();
            answer.on_end(end);
        }
        answer.verdict().cloned()
    };
    let whole = verdict(body.len());
    assert_eq!(verdict(usize::from(seed)), whole);
    whole.iter().for_each(bounded);
}

/// The verdict on all at once is that on pieces, of a length that varies from `seed` on.
fn same_in_pieces<S: Stream>(make: impl Fn() -> S, answer: &[u8], seed: u8, end: Option<End>) {
    let converse = |lengths: &mut dyn Iterator<Item = usize>| {
        let (mut stream, mut left, mut sent) = (make(), answer, Vec::new());
        while !left.is_empty() {
            let length = lengths.next().unwrap_or(1).clamp(1, left.len());
            let (piece, rest) = left.split_at(length);
            stream.on_bytes(piece);
            sent.extend(stream.output());
            left = rest;
        }
        if let Some(end) = end {
            stream.on_end(end);
            assert!(stream.verdict().is_some(), "an end always decides");
        }
        stream.verdict().into_iter().for_each(bounded);
        (stream.verdict().cloned(), sent)
    };
    let whole = converse(&mut std::iter::repeat(usize::MAX));
    let mut length = usize::from(seed);
    let mut varied = std::iter::from_fn(|| {
        length = (length * 5 + 3) % 17;
        Some(length)
    });
    assert_eq!(converse(&mut varied), whole);
    assert_eq!(converse(&mut std::iter::repeat(1)), whole);
}

/// Reasons are for people: short, and harmless on a terminal.
fn bounded(outcome: &Outcome) {
    let check = |why: &Why| {
        let text = why.to_string();
        assert!(!text.is_empty() && text.len() < 2000 && !text.contains(char::is_control), "{text:?}");
    };
    outcome.as_ref().err().into_iter().for_each(check);
}
