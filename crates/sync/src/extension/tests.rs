use super::*;
use crate::message::Packer;
use crate::record::{Ends, Flags, Recency, Record};
use proptest::prelude::*;

const STAMP: Stamp = Stamp { node: 5, boot: 0x0102_0304, number: 9, sent_ms: 1000 };

fn key() -> Key {
    Key::new(b"a secret of both nodes").unwrap()
}

fn records() -> Vec<u8> {
    let ends = Ends::v4(([203, 0, 113, 5].into(), 1), ([192, 0, 2, 10].into(), 80), ([10, 1, 0, 11].into(), 80));
    let (sequence, pe) = (None, None);
    let record = Record {
        protocol: 6,
        flags: Flags(0),
        state: 1,
        ends,
        fwmark: 0,
        timeout_seconds: 9,
        sequence,
        pe,
        recency: Some(Recency { idle_ms: 1, node: 0 }),
    };
    let mut packer = Packer::new(7, 1472, 0);
    assert!(packer.push(0, &record).is_none());
    packer.flush().unwrap()
}

#[test]
fn hello_in_bytes() {
    let hello = Hello { abilities: 3, epoch: 4, oldest: 1, next: 10, connections: 600 };
    let expected = [
        &[0, 7, 0, 84, 1, 0xd1, 0, 0][..],
        b"DIRG\x01\0\0\0",
        &[0, 0, 0, 5],
        &[0, 0, 0, 0, 1, 2, 3, 4],
        &[0, 0, 0, 0, 0, 0, 0, 9],
        &[0, 0, 0, 0, 0, 0, 3, 232],
        &[0, 0, 0, 3, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 4],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 10],
        &[0, 0, 0, 0, 0, 0, 2, 88],
    ]
    .concat();
    assert_eq!(emit(7, &STAMP, &Body::Hello(hello), None), expected);
    assert_eq!(parse(&expected, None), Ok(Seen::Message(STAMP, Body::Hello(hello))));
}

#[test]
fn a_kernel_finds_no_connections_in_a_message() {
    for body in bodies() {
        let bytes = emit(7, &STAMP, &body, None);
        let read = Datagram::parse(&bytes).unwrap();
        assert_eq!((read.version(), read.count(), read.records().count()), (Version::V0, 0, 0));
    }
}

#[test]
fn a_stamp_is_behind_what_a_kernel_reads() {
    let plain = records();
    assert_eq!(parse(&plain, None), Ok(Seen::Plain));
    for key in [None, Some(key())] {
        let mut stamped = plain.clone();
        stamp_records(&mut stamped, &STAMP, key.as_ref());
        assert!(stamped.len() <= plain.len() + stamp_room(key.as_ref()));
        assert_eq!(parse(&stamped, key.as_ref()), Ok(Seen::Records(STAMP)));
        let read: Vec<_> = Datagram::parse(&stamped).unwrap().records().collect();
        assert_eq!(read, Datagram::parse(&plain).unwrap().records().collect::<Vec<_>>());
    }
}

#[test]
fn with_a_key_every_bit_counts() {
    let key = key();
    let mut stamped = records();
    stamp_records(&mut stamped, &STAMP, Some(&key));
    for datagram in [stamped, emit(7, &STAMP, &Body::BulkBegin { bulk: 1, asked: vec![] }, Some(&key))] {
        assert!(parse(&datagram, Some(&key)).is_ok());
        for bit in 0..datagram.len() * 8 {
            let mut bad = datagram.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Some changes make it a kernel's datagram: those are not taken for ours.
            assert!(matches!(parse(&bad, Some(&key)), Err(_) | Ok(Seen::Plain)), "bit {bit}");
        }
        let other = Key::new(b"another secret, as long").unwrap();
        assert_eq!(parse(&datagram, Some(&other)), Err(Reason::Unauthentic));
        assert!(parse(&datagram, None).is_ok(), "who has no key does not look at tags");
    }
    let unsigned = emit(7, &STAMP, &Body::BulkBegin { bulk: 1, asked: vec![] }, None);
    assert_eq!(parse(&unsigned, Some(&key)), Err(Reason::Unauthentic));
}

#[test]
fn malformed() {
    for body in bodies() {
        let whole = emit(7, &STAMP, &body, None);
        for cut in 8..whole.len() {
            let mut short = whole[..cut].to_vec();
            sign(&mut short, None);
            assert_eq!(parse(&short, None), Err(Reason::Malformed), "{body:?} cut at {cut}");
        }
        let mut long = whole.clone();
        long.push(0);
        sign(&mut long, None);
        assert_eq!(parse(&long, None), Err(Reason::Malformed));
        for (at, value) in [(12, 2), (4, 99)] {
            let mut unknown = whole.clone();
            unknown[at] = value;
            assert_eq!(parse(&unknown, None), Err(Reason::Unknown));
        }
        let mut nobody = whole.clone();
        nobody[16..20].fill(0);
        assert_eq!(parse(&nobody, None), Err(Reason::Malformed));
    }
    let to = Origin { node: 1, boot: 1 };
    for ranges in [vec![], vec![Range { first: 2, last: 1 }], vec![Range { first: 0, last: 1 }]] {
        assert_eq!(parse(&emit(7, &STAMP, &Body::Nack { to, ranges }, None), None), Err(Reason::Malformed));
    }
    for hello in [Hello { oldest: 0, next: 5, ..Hello::default() }, Hello { oldest: 6, next: 5, ..Hello::default() }] {
        assert_eq!(parse(&emit(7, &STAMP, &Body::Hello(hello), None), None), Err(Reason::Malformed));
    }
}

fn bodies() -> Vec<Body> {
    let to = Origin { node: 1, boot: 2 };
    let key = record::Key {
        template: true,
        protocol: 17,
        client: "203.0.113.5:0".parse().unwrap(),
        service: "192.0.2.10:5060".parse().unwrap(),
        pe_data: b"call".as_slice().into(),
    };
    let v6 = record::Key {
        client: "[2001:db8::1]:7".parse().unwrap(),
        service: "[2001:db8::2]:8".parse().unwrap(),
        pe_data: [].into(),
        template: false,
        ..key.clone()
    };
    vec![
        Body::Hello(Hello { oldest: 1, next: 1, ..Hello::default() }),
        Body::Nack { to, ranges: vec![Range { first: 1, last: 2 }, Range { first: 7, last: 7 }] },
        Body::Gone { to, oldest: 77 },
        Body::BulkRequest { to, request: 3 },
        Body::BulkBegin { bulk: 4, asked: vec![to] },
        Body::BulkEnd { bulk: 4, count: 100_000 },
        Body::Delete(vec![key, v6]),
    ]
}

#[test]
fn both_ways() {
    for body in bodies() {
        for key in [None, Some(key())] {
            let bytes = emit(7, &STAMP, &body, key.as_ref());
            assert_eq!(parse(&bytes, key.as_ref()), Ok(Seen::Message(STAMP, body.clone())));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(which in 0usize..7, at in any::<prop::sample::Index>(), noise in any::<[u8; 4]>()) {
        let mut bytes = emit(7, &STAMP, &bodies()[which], None);
        let at = at.index(bytes.len() - 4);
        bytes[at..at + 4].copy_from_slice(&noise);
        let _ = parse(&bytes, None);
        let _ = parse(&noise, None);
    }
}
