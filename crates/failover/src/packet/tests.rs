//! Packets written down by hand, and properties.

use super::*;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(list: &[&str]) -> Addresses {
    Addresses::V4(list.iter().map(|a| a.parse().unwrap()).collect())
}

fn v6(list: &[&str]) -> Addresses {
    Addresses::V6(list.iter().map(|a| a.parse().unwrap()).collect())
}

const NO_AUTH: Format = Format::V2 { auth: Auth::None };
const V3: Format = Format::V3Ipv4 { checksum_as_v2: false };

fn ends(format: Format) -> (IpAddr, IpAddr) {
    match format.family() {
        Family::V4 => (ip("192.0.2.1"), ip("224.0.0.18")),
        Family::V6 => (ip("fe80::1"), ip("ff02::12")),
    }
}

fn read(format: Format, payload: &[u8]) -> Result<Advert, ParseError> {
    let (source, destination) = ends(format);
    parse(&Received { source, destination, ttl: 255, payload }, &Rules::new(format))
}

fn write(format: Format, advert: &Advert) -> Result<Vec<u8>, EmitError> {
    let (source, destination) = ends(format);
    emit(advert, source, destination, format)
}

/// Each packet is read and written. Checksums are from a second implementation, outside this crate.
#[test]
fn packets_by_hand() {
    let second = Centis::SECOND;
    let advert = |version, vrid, priority, interval, addresses| Advert { version, vrid, priority, interval, addresses };
    let (two, three) = (Version::V2, Version::V3);
    let password = Format::V2 { auth: Auth::password(b"secret").unwrap() };
    let as_v2 = Format::V3Ipv4 { checksum_as_v2: true };
    #[rustfmt::skip]
    let cases = [
        // version 2 type 1, VRID 51, priority 100, 1 address | auth 0, 1 s, checksum | address | 8 bytes auth
        (NO_AUTH,  "21 33 64 01  00 01 b865  c0000264  0000000000000000",
            advert(two, 51, 100, second, v4(&["192.0.2.100"]))),
        // 2 addresses, auth 1, the password padded with zero
        (password, "21 33 64 02  01 01 b8b2  c0000264 c0000265  7365637265740000",
            advert(two, 51, 100, second, v4(&["192.0.2.100", "192.0.2.101"]))),
        // auth 2: the field is zero, the AH header says the rest
        (Format::V2 { auth: Auth::Ah }, "21 33 64 01  02 01 b665  c0000264  0000000000000000",
            advert(two, 51, 100, second, v4(&["192.0.2.100"]))),
        // version 3: 4 bits 0 and 100 cs; the checksum with (192.0.2.1, 224.0.0.18, 0, 112, 12)
        (V3,       "31 33 64 01  00 64 0572  c0000264",
            advert(three, 51, 100, second, v4(&["192.0.2.100"]))),
        (as_v2,    "31 33 64 01  00 64 a802  c0000264",
            advert(three, 51, 100, second, v4(&["192.0.2.100"]))),
        // IPv6: owner, 1 cs; the checksum with (fe80::1, ff02::12, 40, 0, 112)
        (Format::V3Ipv6, "31 33 ff 02  00 01 43c8  fe80000000000000 02005efffe000233  20010db800000000 0000000000000064",
            advert(three, 51, 255, Centis(1), v6(&["fe80::200:5eff:fe00:233", "2001:db8::64"]))),
    ];
    for (format, bytes, advert) in cases {
        assert_eq!(read(format, &hex(bytes)).as_ref(), Ok(&advert), "{bytes}");
        assert_eq!(write(format, &advert), Ok(hex(bytes)), "{bytes}");
    }
}

/// Sets the checksum right, so that what is wrong is the rest.
fn summed(format: Format, text: &str) -> Vec<u8> {
    let mut bytes = hex(text);
    let (source, destination) = ends(format);
    bytes[6..8].fill(0);
    let check = !sum(&bytes, source, destination, format);
    bytes[6..8].copy_from_slice(&check.to_ne_bytes());
    bytes
}

#[test]
fn what_is_wrong_has_a_name() {
    let good = "31336401 00640000 c0000264";
    #[rustfmt::skip]
    let cases = [
        (V3, "",                           "0 bytes, fewer than a header's 8"),
        (V3, "31336401 006400",            "7 bytes, fewer than a header's 8"),
        (V3, "21336401 00640000 c0000264", "version 2 instead of 3"),
        (V3, "32336401 00640000 c0000264", "type 2 instead of 1"),
        (V3, "31336402 00640000 c0000264", "12 bytes, but 2 addresses make 16"),
        (V3, "31336401 00640000 c0000264 00", "13 bytes, but 1 addresses make 12"),
        (V3, "31006401 00640000 c0000264", "virtual router 0"),
        (V3, "31336401 f0000000 c0000264", "an advert interval of 0"),
        (V3, "31336400 00640000",          "no addresses"),
        (NO_AUTH, "21336401 00000000 c0000264 0000000000000000", "an advert interval of 0"),
        (NO_AUTH, "21336401 01010000 c0000264 0000000000000000", "authentication of type 1 instead of 0"),
        (NO_AUTH, "21336401 00010000 c0000264", "12 bytes, but 1 addresses make 20"),
        (Format::V2 { auth: Auth::password(b"secret").unwrap() },
                  "21336401 01010000 c0000264 7365637265740001", "a wrong password"),
    ];
    for (format, text, want) in cases {
        let bytes = if hex(text).len() < 8 { hex(text) } else { summed(format, text) };
        assert_eq!(read(format, &bytes).unwrap_err().to_string(), want, "{text}");
    }
    assert_eq!(
        read(V3, &hex(good)).unwrap_err().to_string(),
        "checksum 0x0000 instead of 0x0572",
        "what it should be is said, for who has to find out which side is wrong"
    );
    // The right sum of the other reading of RFC 5798.
    assert_eq!(read(V3, &hex("31336401 0064a802 c0000264")), Err(ParseError::Checksum { got: 0xa802, want: 0x0572 }));
}

#[test]
fn a_ttl_below_255_is_for_unicast_peers() {
    let bytes = summed(V3, "31336401 00640000 c0000264");
    let (source, destination) = ends(V3);
    let with = |ttl, rules: &Rules| parse(&Received { source, destination, ttl, payload: &bytes }, rules);
    let (near, far) = (Rules::new(V3), Rules { ttl: 250..=253, ..Rules::new(V3) });
    assert_eq!(
        with(254, &near).unwrap_err().to_string(),
        "TTL 254 instead of 255 to 255: it may come from another network"
    );
    assert_eq!(with(255, &far), Err(ParseError::Ttl { got: 255, min: 250, max: 253 }));
    assert!(with(255, &near).is_ok() && with(250, &far).is_ok() && with(253, &far).is_ok());
}

#[test]
fn what_cannot_be_said_is_not_written() {
    let good = Advert {
        version: Version::V2,
        vrid: 1,
        priority: 1,
        interval: Centis::SECOND,
        addresses: v4(&["192.0.2.100"]),
    };
    assert!(write(NO_AUTH, &good).is_ok());
    assert_eq!(write(V3, &good), Err(EmitError::Format));
    assert_eq!(write(NO_AUTH, &Advert { addresses: v6(&[]), ..good.clone() }), Err(EmitError::Format));
    assert_eq!(write(NO_AUTH, &Advert { vrid: 0, ..good.clone() }), Err(EmitError::Vrid));
    assert_eq!(write(NO_AUTH, &Advert { interval: Centis(150), ..good.clone() }), Err(EmitError::Interval(150)));
    let three = Advert { version: Version::V3, interval: Centis(4096), ..good.clone() };
    assert_eq!(write(V3, &three), Err(EmitError::Interval(4096)));
    let many = Addresses::V4(vec![Ipv4Addr::LOCALHOST; 256]);
    assert_eq!(write(NO_AUTH, &Advert { addresses: many, ..good }), Err(EmitError::TooMany(256)));
    assert_eq!((Centis::new(0), Centis::new(25_501)), (None, None));
    assert_eq!(Auth::password(b"more than 8"), None);
    assert_eq!(format!("{:?}", Auth::password(b"secret").unwrap()), "Auth(type 1)");
}

fn formats() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(NO_AUTH),
        any::<[u8; 8]>().prop_map(|password| Format::V2 { auth: Auth::Password(password) }),
        Just(Format::V2 { auth: Auth::Ah }),
        any::<bool>().prop_map(|checksum_as_v2| Format::V3Ipv4 { checksum_as_v2 }),
        Just(Format::V3Ipv6),
    ]
}

fn adverts() -> impl Strategy<Value = (Format, Advert)> {
    let numbers = (1u8..=255, any::<u8>(), 1u16..=255, 1u16..=4095);
    let lists = proptest::collection::vec(any::<[u8; 16]>(), 1..20);
    (formats(), numbers, lists).prop_map(|(format, (vrid, priority, seconds, centis), list)| {
        let version = format.version();
        let interval = if version == Version::V2 { seconds * 100 } else { centis };
        let addresses = match format.family() {
            Family::V4 => Addresses::V4(list.iter().map(|a| Ipv4Addr::new(a[0], a[1], a[2], a[3])).collect()),
            Family::V6 => Addresses::V6(list.iter().map(|a| Ipv6Addr::from(*a)).collect()),
        };
        (format, Advert { version, vrid, priority, interval: Centis(interval), addresses })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read((format, advert) in adverts()) {
        let bytes = write(format, &advert).unwrap();
        prop_assert_eq!(read(format, &bytes), Ok(advert));
    }

    /// Also under checksums that are right, which random bytes seldom have.
    #[test]
    fn any_bytes_are_read_or_refused(
        format in formats(), kind in 0x20u8..0x40, mut bytes in proptest::collection::vec(any::<u8>(), 0..60), right: bool,
    ) {
        if let Some(first) = bytes.first_mut() { *first = kind; }
        if right && bytes.len() >= 8 {
            let count = bytes[3] % 4;
            bytes[3] = count;
            let (each, trailer) = widths(format);
            bytes.resize(8 + usize::from(count) * each + trailer, 1);
            let (source, destination) = ends(format);
            bytes[6..8].fill(0);
            let check = !sum(&bytes, source, destination, format);
            bytes[6..8].copy_from_slice(&check.to_ne_bytes());
        }
        if let Ok(advert) = read(format, &bytes) {
            let again = write(format, &advert).unwrap();
            prop_assert_eq!(read(format, &again), Ok(advert));
        }
    }

    /// A checksum of one's complement sees every single flip.
    #[test]
    fn a_flipped_bit_is_refused((format, advert) in adverts(), at in any::<prop::sample::Index>()) {
        let mut bytes = write(format, &advert).unwrap();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(read(format, &bytes).is_err(), "bit {}", bit);
    }

    /// With the pseudo header a packet from or to another address is refused too.
    #[test]
    fn the_pseudo_header_holds_the_addresses(priority: u8, bit in 0u32..32) {
        let advert = Advert { version: Version::V3, vrid: 1, priority, interval: Centis::SECOND, addresses: v4(&["192.0.2.9"]) };
        let payload = write(V3, &advert).unwrap();
        let source = Ipv4Addr::from_bits(Ipv4Addr::new(192, 0, 2, 1).to_bits() ^ (1 << bit)).into();
        let received = Received { source, destination: ip("224.0.0.18"), ttl: 255, payload: &payload };
        let refused = matches!(parse(&received, &Rules::new(V3)), Err(ParseError::Checksum { .. }));
        prop_assert!(refused);
    }
}

#[test]
fn addresses_compare_as_sets() {
    assert!(v4(&["192.0.2.1", "192.0.2.2"]).same(&v4(&["192.0.2.2", "192.0.2.1"])));
    assert!(!v4(&["192.0.2.1"]).same(&v4(&["192.0.2.1", "192.0.2.1"])));
    assert!(!v4(&[]).same(&v6(&[])));
}
