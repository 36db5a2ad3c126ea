use super::*;
use proptest::prelude::*;

fn record() -> Record {
    Record {
        protocol: 6,
        flags: Flags(0x0083),
        state: 1,
        ends: Ends::v4(([203, 0, 113, 5].into(), 4001), ([192, 0, 2, 10].into(), 81), ([10, 1, 0, 11].into(), 81)),
        fwmark: 0,
        timeout_seconds: 900,
        sequence: None,
        pe: None,
        recency: None,
    }
}

fn pack(records: &[Record], max_len: usize) -> Vec<Vec<u8>> {
    let mut packer = Packer::new(7, max_len, Packer::FLUSH_AFTER_MS);
    let mut out: Vec<_> = records.iter().filter_map(|r| packer.push(0, r)).collect();
    out.extend(packer.flush());
    out
}

fn unpack(datagram: &[u8]) -> Vec<Result<Record, Reason>> {
    Datagram::parse(datagram).unwrap().records().collect()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// What kernel 6.1 sent of this connection (recordings/master.json, states-4).
const KERNELS: &str = "0007002c01010000000600240000008300010fa1005100510000000000000384cb007105c000020a0a01000b";

#[test]
fn both_ways_as_the_kernel_writes_it() {
    assert_eq!(pack(&[record()], 1472), [hex(KERNELS)]);
    assert_eq!(unpack(&hex(KERNELS)), [Ok(record())]);
}

#[test]
fn options_and_padding_both_ways() {
    let sequence = Sequence {
        requests: Shift { init: 1, delta: 2, previous: 3 },
        replies: Shift { init: 4, delta: u32::MAX, previous: 6 },
    };
    let full = Record {
        flags: Flags(0x1700),
        sequence: Some(sequence),
        pe: Pe::new(b"sip", b"call"),
        recency: Some(Recency { idle_ms: 258, node: 5 }),
        ..record()
    };
    let datagram = pack(&[full.clone(), record()], 1472).remove(0);
    let expected = [
        "0007 0080 0201 0000",
        "00 06 0053 00001700 0001 0fa1 0051 0051 00000000 00000384 cb007105 c000020a 0a01000b",
        "0118 000000010000000200000003 00000004ffffffff00000006",
        "0204 63616c6c 0303 736970 6408 00000102 00000005 00",
        "00 06 0024 00000083 0001 0fa1 0051 0051 00000000 00000384 cb007105 c000020a 0a01000b",
    ];
    assert_eq!(datagram, hex(&expected.concat().replace(' ', "")));
    assert_eq!(unpack(&datagram), [Ok(full), Ok(record())]);
}

/// A datagram of one record with these options.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut datagram = hex(KERNELS);
    datagram.extend(options);
    let (size, length) = (datagram.len() as u16, (V4_BYTES + options.len()) as u16);
    datagram[2..4].copy_from_slice(&size.to_be_bytes());
    datagram[10..12].copy_from_slice(&length.to_be_bytes());
    // Another record, to see what becomes of it.
    let second = hex(KERNELS);
    append(&mut datagram, &second[8..]);
    datagram[4] = 2;
    datagram
}

#[test]
fn options_that_are_dropped_and_how_much_goes_with_them() {
    let sequence = [&[1u8, 24][..], &[0; 24]].concat();
    let cases: &[(&[u8], Option<Reason>)] = &[
        (&sequence, None),
        (&[&[0x41, 24][..], &[0; 24]].concat(), None),
        (&[0x7f, 1, 0], None),
        (&[0x64, 2, 0, 0], None), // our own of another length is skipped
        (&[3, 3, b's', b'i', b'p'], None),
        (&[7, 1, 0], Some(Reason::OptionUnknown)),
        (&[0x24, 4, 0, 0, 0, 0], Some(Reason::OptionUnknown)),
        (&[2, 1, 0], Some(Reason::PeUnnamed)),
        (&[0x7f], Some(Reason::OptionShort)),
        (&[0x7f, 0], Some(Reason::OptionLength)),
        (&[0x7f, 2, 0], Some(Reason::OptionLength)),
        (&[1, 23].into_iter().chain([0; 23]).collect::<Vec<_>>(), Some(Reason::OptionSequence)),
        (&[&sequence[..], &sequence].concat(), Some(Reason::OptionSequence)),
        (&[2, 1, 0, 2, 1, 0], Some(Reason::OptionPeData)),
        (&[3, 1, 0, 3, 1, 0], Some(Reason::OptionPeName)),
        (&[3, 17].into_iter().chain([b'x'; 17]).collect::<Vec<_>>(), Some(Reason::OptionPeName)),
    ];
    for (options, expected) in cases {
        let got = unpack(&with_options(options));
        assert_eq!(got[0].as_ref().err(), expected.as_ref(), "{options:02x?}");
        match expected.map(Reason::scope) {
            None | Some(Scope::Record) => assert_eq!(got[1], Ok(record()), "{options:02x?}"),
            Some(_) => assert_eq!(got.len(), 1, "{options:02x?}"),
        }
    }
}

#[test]
fn records_that_are_dropped_and_how_much_goes_with_them() {
    let change = |at: usize, bytes: &[u8]| {
        let mut datagram = with_options(&[]);
        datagram[at..at + bytes.len()].copy_from_slice(bytes);
        unpack(&datagram)
    };
    let both = vec![Ok(record()), Ok(record())];
    assert_eq!(change(0, &[]), both);
    let rest: &[(usize, &[u8], Reason)] = &[
        (8, &[2], Reason::RecordType),
        (8, &[3], Reason::RecordLength), // bit 0 says IPv6, for which 36 bytes are not enough
        (10, &[0x10, 0x24], Reason::RecordVersion),
        (10, &[0, 35], Reason::RecordLength),
        (10, &[0, 0], Reason::RecordLength),
        (10, &[0, 200], Reason::RecordOverruns),
        (10, &[0xf0, 200], Reason::RecordOverruns),
    ];
    for (at, bytes, reason) in rest {
        assert_eq!(change(*at, bytes), [Err(*reason)]);
    }
    for (at, bytes, reason) in [(9, &[1][..], Reason::Protocol), (16, &[0, 11], Reason::State)] {
        assert_eq!(change(at, bytes), [Err(reason), Ok(record())]);
    }
    // A template may have any protocol, but not any state.
    assert!(change(9, &[1, 0, 36, 0, 0, 0x10, 0, 0, 1])[0].is_ok());
    assert_eq!(change(12, &[0, 0, 0x10, 0, 0, 2]), [Err(Reason::State), Ok(record())]);
    // More counted than there are.
    let mut datagram = with_options(&[]);
    datagram[4] = 3;
    assert_eq!(unpack(&datagram), [Ok(record()), Ok(record()), Err(Reason::RecordShort)]);
}

#[test]
fn headers() {
    let parse = |bytes: &[u8]| Datagram::parse(bytes).map(|d| (d.version(), d.sync_id(), d.count()));
    assert_eq!(parse(&[]), Err(Reason::Short));
    assert_eq!(parse(&[0, 7, 0]), Err(Reason::Short));
    assert_eq!(parse(&[0, 7, 0, 4]), Ok((Version::V0, 7, 0)));
    assert_eq!(parse(&[0, 7, 0, 5]), Err(Reason::Size));
    assert_eq!(parse(&[0, 7, 0, 8, 3, 1, 0, 0]), Ok((Version::V1, 7, 3)));
    // Anything else in version, reserved field or first byte is tried as version 0.
    assert_eq!(parse(&[0, 7, 0, 8, 3, 2, 0, 0]), Ok((Version::V0, 7, 0)));
    assert_eq!(parse(&[0, 7, 0, 8, 3, 1, 0, 1]), Ok((Version::V0, 7, 0)));
    assert_eq!(parse(&[2, 7, 0, 8, 3, 1, 0, 0]), Ok((Version::V0, 7, 2)));
}

#[test]
fn version_0_as_the_kernel_writes_it() {
    // recordings/master.json, version-0: a connection and its template.
    let text =
        "020700340006138800500050cb007105c000020a0a01000b000000010006000000500050cb007105c000020a0a01000b11000001";
    let ends = |client| {
        let client = ([203, 0, 113, 5].into(), client);
        Ends::v4(client, ([192, 0, 2, 10].into(), 80), ([10, 1, 0, 11].into(), 80))
    };
    let connection = Record { flags: Flags(0), timeout_seconds: 0, ends: ends(5000), ..record() };
    let template = Record { flags: Flags(0x1100), ends: ends(0), ..connection.clone() };
    assert_eq!(unpack(&hex(text)), [Ok(connection.clone()), Ok(template.clone())]);
    // Sequence data follow if flagged, in host byte order.
    let mut bytes = hex(text);
    bytes[24..26].copy_from_slice(&[0x06, 0]);
    for word in (1u32..=6).rev() {
        bytes.splice(28..28, word.to_ne_bytes());
    }
    bytes[3] += 24;
    let sequence = Some(Sequence {
        requests: Shift { init: 1, delta: 2, previous: 3 },
        replies: Shift { init: 4, delta: 5, previous: 6 },
    });
    assert_eq!(unpack(&bytes), [Ok(Record { flags: Flags(0x600), sequence, ..connection.clone() }), Ok(template)]);
    for cut in 4..bytes.len() {
        let mut short = bytes[..cut].to_vec();
        short[3] = cut as u8;
        let whole = [52, 76].iter().filter(|end| cut >= **end).count();
        let got = unpack(&short);
        assert_eq!(got.len(), whole + 1);
        assert_eq!(got[whole], Err(Reason::OldRecordShort), "{cut}");
    }
}

#[test]
fn datagrams_are_filled_and_flushed() {
    // 40 records of 36 bytes and the header are 1448; one more is 1484.
    let records: Vec<_> = (0..41).map(|i| Record { fwmark: i, ..record() }).collect();
    let sizes: Vec<_> = pack(&records, 1472).iter().map(|d| (d.len(), d[4])).collect();
    assert_eq!(sizes, [(1448, 40), (44, 1)]);
    // The count has 8 bits.
    let records = vec![record(); 300];
    let sizes: Vec<_> = pack(&records, 65535).iter().map(|d| (d.len(), d[4])).collect();
    assert_eq!(sizes, [(8 + 255 * 36, 255), (8 + 45 * 36, 45)]);
    // One that does not fit enlarges its own datagram.
    let sizes: Vec<_> = pack(&[record(), record()], 20).iter().map(|d| (d.len(), d[4])).collect();
    assert_eq!(sizes, [(44, 1), (44, 1)]);
    // Two seconds after the first one.
    let mut packer = Packer::new(7, 1472, Packer::FLUSH_AFTER_MS);
    assert_eq!((packer.due_ms(), packer.poll(1 << 40)), (None, None));
    assert_eq!(packer.push(1000, &record()), None);
    assert_eq!(packer.push(2999, &record()), None);
    assert_eq!((packer.due_ms(), packer.poll(2999)), (Some(3000), None));
    assert_eq!(packer.poll(3000).map(|d| d[4]), Some(2));
    assert_eq!((packer.due_ms(), packer.poll(9000)), (None, None));
}

#[test]
fn what_is_appended_is_found_and_not_read() {
    for options in [vec![], vec![0x7f, 1, 0]] {
        let mut datagram = with_options(&options);
        assert_eq!(Datagram::parse(&datagram).unwrap().trailer(), Some(&[][..]));
        append(&mut datagram, b"more");
        let read = Datagram::parse(&datagram).unwrap();
        assert_eq!(read.trailer(), Some(&b"more"[..]));
        assert_eq!(read.records().count(), 2);
        assert!(read.records().all(|r| r.is_ok()));
    }
}

pub(crate) fn any_record() -> impl Strategy<Value = Record> {
    let word = any::<u32>;
    let shift = || (word(), word(), word()).prop_map(|(init, delta, previous)| Shift { init, delta, previous });
    let sequence = (shift(), shift()).prop_map(|(requests, replies)| Sequence { requests, replies });
    let pe = (prop::collection::vec(any::<u8>(), 1..=16), prop::collection::vec(any::<u8>(), 1..=255))
        .prop_map(|(name, data)| Pe::new(&name, &data).unwrap());
    let ends = (any::<bool>(), any::<[[u8; 16]; 3]>(), any::<[u16; 3]>()).prop_map(|(v6, a, p)| {
        let v4 = |i: usize| (<[u8; 4]>::try_from(&a[i][..4]).unwrap().into(), p[i]);
        let long = |i: usize| (a[i].into(), p[i]);
        if v6 { Ends::v6(long(0), long(1), long(2)) } else { Ends::v4(v4(0), v4(1), v4(2)) }
    });
    let known = prop_oneof![Just((6u8, 11u16)), Just((17, 1)), Just((132, 14)), Just((50, 1)), Just((51, 1))];
    let state = (known, any::<u16>(), any::<bool>(), any::<u8>()).prop_map(|((protocol, states), s, template, any)| {
        if template { (any, s % 2, Flags::TEMPLATE) } else { (protocol, s % states, 0) }
    });
    let recency = (word(), word()).prop_map(|(idle_ms, node)| Recency { idle_ms, node });
    let options = (prop::option::of(sequence), prop::option::of(pe), prop::option::of(recency));
    (state, ends, word(), word(), word(), options).prop_map(
        |((protocol, state, template), ends, flags, fwmark, timeout_seconds, (sequence, pe, recency))| {
            let flags = Flags(flags & !(Flags::HASHED | Flags::TEMPLATE) | template);
            Record { protocol, flags, state, ends, fwmark, timeout_seconds, sequence, pe, recency }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in prop::collection::vec(any_record(), 1..60), max_len in 50usize..3000) {
        let datagrams = pack(&records, max_len);
        let mut read = Vec::new();
        for datagram in &datagrams {
            prop_assert_eq!(Datagram::parse(datagram).unwrap().trailer(), Some(&[][..]));
            let got = unpack(datagram).into_iter().collect::<Result<Vec<_>, _>>().unwrap();
            prop_assert!(datagram.len() <= max_len || got.len() == 1);
            // The same bytes again.
            prop_assert_eq!(&pack(&got, MAX_BYTES)[0], datagram);
            read.extend(got);
        }
        prop_assert_eq!(read, records);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), version in 0u8..3) {
        if bytes.len() >= 8 {
            let size = (bytes.len() as u16).to_be_bytes();
            bytes[2..4].copy_from_slice(&size);
            if version == 1 {
                let count = bytes[4];
                bytes[..1].fill(0);
                bytes[4..8].copy_from_slice(&[count, 1, 0, 0]);
            }
        }
        if let Ok(datagram) = Datagram::parse(&bytes) {
            prop_assert!(datagram.records().count() <= usize::from(datagram.count()));
            let _ = datagram.trailer();
        }
    }

    /// A datagram cut at any byte: those before the cut are read, the one that is cut takes the
    /// rest with it, for the reason that the place says.
    #[test]
    fn a_cut_drops_the_rest(records in prop::collection::vec(any_record(), 1..6), at in any::<prop::sample::Index>()) {
        let whole = pack(&records, MAX_BYTES).remove(0);
        prop_assert_eq!(Datagram::parse(&whole[..whole.len() - 1]).err(), Some(Reason::Size));
        let cut = 8 + at.index(whole.len() - 8);
        let mut short = whole[..cut].to_vec();
        short[2..4].copy_from_slice(&(cut as u16).to_be_bytes());
        // Where each record begins and ends.
        let mut start = 8;
        let mut read = 0;
        let reason = loop {
            let length = usize::from(u16::from_be_bytes([whole[start + 2], whole[start + 3]]) & LENGTH_MASK);
            if cut < start + V4_BYTES {
                break Reason::RecordShort;
            }
            if cut < start + length {
                break Reason::RecordOverruns;
            }
            read += 1;
            start += length + padding(length);
        };
        let got = unpack(&short);
        prop_assert_eq!(got.len(), read + 1);
        prop_assert!(got[..read].iter().all(|r| r.is_ok()));
        prop_assert_eq!(got[read].clone(), Err(reason));
    }
}
