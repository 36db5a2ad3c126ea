//! ICMP echo (RFC 792, RFC 4443).

use crate::machine::{Outcome, Weight};
use dirigent_wire::checksum::sum_bytes;

/// Type of echo requests and replies, by family.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

/// An echo that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// ICMPv6.
    pub ipv6: bool,
    /// Identifier. None: the kernel's business, which has its own in sockets for echo (`SOCK_DGRAM`), and gives each
    /// only its replies.
    pub ident: Option<u16>,
    /// Sequence number: another one for each attempt, or a late reply answers the wrong question.
    pub sequence: u16,
    /// What is to come back: random, or a forger could know it.
    pub payload: [u8; 16],
}

impl Echo {
    /// The request. ICMPv6's checksum, over addresses that are not known here, is left to the kernel (RFC 3542
    /// section 3.1).
    pub fn request(&self) -> Vec<u8> {
        let (kind, _) = if self.ipv6 { V6 } else { V4 };
        let mut out = vec![kind, 0, 0, 0];
        out.extend(self.ident.unwrap_or(0).to_be_bytes());
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.payload);
        if !self.ipv6 {
            let sum = !sum_bytes(&out);
            out.splice(2..4, sum.to_ne_bytes());
        }
        out
    }

    /// A message came in, with its IPv4 header if the socket gives that (`SOCK_RAW`). None: it is not the reply to
    /// this request; others get it as well.
    pub fn judge(&self, message: &[u8], with_ipv4_header: bool) -> Option<Outcome> {
        let message = if with_ipv4_header { ipv4_payload(message)? } else { message };
        let (_, kind) = if self.ipv6 { V6 } else { V4 };
        let (&[found, code, _, _, i1, i2, s1, s2], payload) = message.split_first_chunk()?;
        let ours = (found, code) == (kind, 0)
            && self.ident.is_none_or(|ident| ident == u16::from_be_bytes([i1, i2]))
            && self.sequence == u16::from_be_bytes([s1, s2])
            && payload == self.payload
            // The kernel checks ICMPv6's, and ICMP's for sockets for echo; not for raw ones.
            && (self.ipv6 || sum_bytes(message) == 0xffff);
        ours.then_some(Ok(Weight::Keep))
    }
}

fn ipv4_payload(packet: &[u8]) -> Option<&[u8]> {
    let length = usize::from(packet.first()? & 0xf) * 4;
    if length < 20 { None } else { packet.get(length..) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAYLOAD: [u8; 16] = *b"abcdefghijklmnop";

    fn echo(ipv6: bool, ident: Option<u16>) -> Echo {
        Echo { ipv6, ident, sequence: 0x0102, payload: PAYLOAD }
    }

    #[test]
    fn requests() {
        let v4 = echo(false, Some(0xabcd)).request();
        // The words but the checksum's sum up to 0x0800 + 0xabcd + 0x0102 + 0x6162 + … + 0x6f70 = 0x3f817.
        assert_eq!(v4, [&[8, 0, 0x07, 0xe5, 0xab, 0xcd, 1, 2][..], &PAYLOAD].concat());
        assert_eq!(echo(true, Some(0xabcd)).request(), [&[128, 0, 0, 0, 0xab, 0xcd, 1, 2][..], &PAYLOAD].concat());
        assert_eq!(&echo(true, None).request()[4..6], [0, 0]);
    }

    #[test]
    fn replies() {
        let (v4, v6) = (echo(false, Some(0xabcd)), echo(true, Some(0xabcd)));
        // A reply differs from its request by the type: 0 for 8.
        let reply4 = [&[0, 0, 0x0f, 0xe5, 0xab, 0xcd, 1, 2][..], &PAYLOAD].concat();
        let reply6 = [&[129, 0, 0x12, 0x34, 0xab, 0xcd, 1, 2][..], &PAYLOAD].concat();
        let well = Some(Ok(Weight::Keep));
        assert_eq!((v4.judge(&reply4, false), v6.judge(&reply6, false)), (well.clone(), well.clone()));
        let header = [&[0x46][..], &[0; 23]].concat();
        assert_eq!(v4.judge(&[&header[..], &reply4].concat(), true), well);
        assert_eq!(v4.judge(&header, true), None);
        assert_eq!(v4.judge(&[&[0x44][..], &[0; 15], &reply4].concat(), true), None);
        assert_eq!(v4.judge(&reply4, true), None);
        for (echo, reply) in [(&v4, &reply4), (&v6, &reply6)] {
            // Each byte counts but those of ICMPv6's checksum.
            for at in 0..reply.len() {
                let mut other = reply.clone();
                other[at] ^= 1;
                assert_eq!(echo.judge(&other, false).is_none(), !echo.ipv6 || !(2..4).contains(&at), "{at}");
                assert_eq!(echo.judge(&reply[..at], false), None);
            }
            assert_eq!(echo.judge(&[&reply[..], &[0]].concat(), false), None);
        }
        assert_eq!(v4.judge(&v4.request(), false), None, "our own, on the loopback");
        // The kernel's identifier.
        assert_eq!(echo(true, None).judge(&reply6, false), well);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64), header in any::<bool>(), ipv6 in any::<bool>()) {
            prop_assert_eq!(echo(ipv6, None).judge(&bytes, header), None);
        }
    }
}
