//! One packet by hand, what is refused, and properties.

use super::*;
use proptest::prelude::*;

const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GROUP: Ipv4Addr = crate::address::GROUP_V4;

fn key() -> Key {
    Key::new(b"secret").unwrap()
}

fn outer(destination: Ipv4Addr) -> Outer {
    Outer { source: SOURCE, destination, ttl: 255, id: 7, tos: 0xc0 }
}

fn open_fresh(packet: &[u8]) -> Result<Opened<'_>, AhError> {
    open(packet, &key(), &mut Sequence::default())
}

/// IPv4: TOS c0, 64 bytes, id 7, TTL 255, protocol 51. AH: next 112, 4 words, SPI = source, sequence
/// 42, ICV. The ICV is of another implementation (Python's hmac), over the packet with TOS, flags and
/// offset, checksum and ICV zero; the TTL stays.
#[rustfmt::skip]
const BY_HAND: [u8; 64] = [
    0x45, 0xc0, 0x00, 0x40, 0x00, 0x07, 0x00, 0x00, 0xff, 0x33, 0x18, 0xb0, 192, 0, 2, 1, 224, 0, 0, 18,
    0x70, 0x04, 0x00, 0x00, 192, 0, 2, 1, 0, 0, 0, 42,
    0x3e, 0xf0, 0x81, 0xfb, 0xa0, 0x27, 0x50, 0xb4, 0x84, 0xbf, 0x86, 0xe7,
    0x21, 0x33, 0x64, 0x01, 0x02, 0x01, 0xb6, 0x65, 192, 0, 2, 100, 0, 0, 0, 0, 0, 0, 0, 0,
];

#[test]
fn a_packet_by_hand() {
    let payload = &BY_HAND[44..];
    let opened = Opened { source: SOURCE, destination: GROUP, ttl: 255, payload };
    assert_eq!(open_fresh(&BY_HAND), Ok(opened));
    assert_eq!(seal(&outer(GROUP), payload, &key(), &mut Sequence::after(41)), Ok(BY_HAND.to_vec()));
}

/// As RFC 2402 has it, with the TTL zeroed.
#[test]
fn the_rfcs_icv_is_taken_too() {
    let mut packet = BY_HAND;
    packet[ICV].copy_from_slice(&[0xc0, 0xdb, 0x84, 0x96, 0x47, 0x25, 0x31, 0x19, 0x67, 0xd6, 0x2a, 0xaa]);
    assert!(open_fresh(&packet).is_ok());
}

#[test]
fn what_is_wrong_has_a_name() {
    let with = |at: usize, byte: u8| {
        let mut packet = BY_HAND;
        packet[at] = byte;
        open_fresh(&packet).unwrap_err().to_string()
    };
    assert_eq!(open_fresh(&BY_HAND[..43]).unwrap_err().to_string(), "43 bytes, fewer than the 44 of both headers");
    assert_eq!(with(0, 0x46), "first byte 0x46: not an IPv4 header of 20 bytes");
    assert_eq!(with(3, 0x41), "64 bytes, the IP header says 65");
    assert_eq!(with(6, 0x20), "a fragment");
    assert_eq!(with(9, 112), "protocol 112 around 112 instead of 51 around 112");
    assert_eq!(with(20, 6), "protocol 51 around 6 instead of 51 around 112");
    assert_eq!(with(21, 5), "an AH header of 5 words instead of 4");
    assert_eq!(with(27, 2), "SPI 192.0.2.2 instead of the sender's address 192.0.2.1");
    assert_eq!(with(63, 1), "a wrong integrity check value");
    let wrong = open(&BY_HAND, &Key::new(b"secres").unwrap(), &mut Sequence::default());
    assert_eq!(wrong, Err(AhError::Icv));
    assert_eq!(Key::new(b"123456789"), None);
}

#[test]
fn a_packet_is_taken_once() {
    let mut heard = Sequence::after(41);
    assert!(open(&BY_HAND, &key(), &mut heard).is_ok());
    assert_eq!(heard.last(), 42);
    assert_eq!(open(&BY_HAND, &key(), &mut heard), Err(AhError::Replay { got: 42, last: 42 }));
    // A forged one does not move the number.
    let mut forged = BY_HAND;
    forged[28] = 0xff;
    assert_eq!(open(&forged, &key(), &mut heard), Err(AhError::Icv));
    assert_eq!(heard.last(), 42);
    assert_eq!(seal(&outer(GROUP), &[], &key(), &mut Sequence::after(u32::MAX)), Err(AhError::Exhausted));
}

/// The new master goes on from what it heard, so the old one hears it.
#[test]
fn who_takes_over_goes_on_counting() {
    let (mut a, mut b) = (Sequence::after(1000), Sequence::default());
    let from_a = seal(&outer(GROUP), &[1; 16], &key(), &mut a).unwrap();
    open(&from_a, &key(), &mut b).unwrap();
    let from_b = seal(&outer(GROUP), &[1; 16], &key(), &mut b).unwrap();
    assert!(open(&from_b, &key(), &mut a).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_opened_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(open_fresh(&bytes).is_err());
    }

    /// All but the fields that routers may change: TOS, DF, checksum, to a unicast peer the TTL.
    #[test]
    fn a_flipped_bit_is_refused(bit in 0usize..64 * 8, unicast: bool) {
        let destination = if unicast { Ipv4Addr::new(192, 0, 2, 2) } else { GROUP };
        let mut packet = seal(&outer(destination), &BY_HAND[44..], &key(), &mut Sequence::default()).unwrap();
        let free = matches!(bit / 8, 1 | 10 | 11) || bit / 8 == 6 && bit % 8 >= 6 || unicast && bit / 8 == 8;
        packet[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(open_fresh(&packet).is_ok(), free, "bit {}", bit);
    }
}
