//! A datagram, and what comes back.

use crate::check::Udp;
use crate::machine::{Outcome, Weight};
use crate::why::Why;
use std::time::Duration;

/// What is sent and what must come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagrams {
    payload: Option<Vec<u8>>,
    /// Bits that count, and what they must be. None: nothing need come.
    reply: Option<Vec<(u8, u8)>>,
    min: usize,
    max: usize,
}

impl Datagrams {
    /// By these settings.
    pub fn new(udp: &Udp) -> Result<Self, Why> {
        let bad = |key: &str| Why::new(format!("the {key} is not hexadecimal"));
        let payload = udp.payload.as_deref().map(|text| hex(text).ok_or_else(|| bad("payload"))).transpose()?;
        let reply = udp.reply.as_deref().map(|text| masked(text).ok_or_else(|| bad("reply"))).transpose()?;
        Ok(Self { payload, reply, min: udp.min_reply.into(), max: udp.max_reply.into() })
    }

    /// What to send; without a configured payload these random bytes.
    pub fn payload(&self, random: [u8; 16]) -> Vec<u8> {
        self.payload.clone().unwrap_or_else(|| random.to_vec())
    }

    /// Where no reply is needed: how long to wait for an ICMP error, after which the server counts as well. An error
    /// takes as long as an answer would; the rest of the timeout is left for the runner to tell in time.
    pub fn patience(&self, timeout: Duration) -> Option<Duration> {
        self.reply.is_none().then(|| timeout - timeout / 4)
    }

    /// A datagram came from the server. A reply must begin as wanted, and may be longer within the bounds.
    pub fn judge(&self, datagram: &[u8]) -> Outcome {
        let Some(reply) = &self.reply else { return Ok(Weight::Keep) };
        let length = datagram.len();
        if !(self.min..=self.max).contains(&length) {
            return Err(Why::new(format!("the reply has {length} bytes")));
        }
        let alike = reply.iter().zip(datagram).all(|((mask, value), byte)| byte & mask == *value);
        if alike && length >= reply.len() { Ok(Weight::Keep) } else { Err(Why::quoting("the reply is", datagram)) }
    }
}

/// Bytes of hexadecimal digits, two each.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    masked(text)?.into_iter().map(|(mask, value)| (mask == 0xff).then_some(value)).collect()
}

/// The same with `x` for digits that may be any.
fn masked(text: &str) -> Option<Vec<(u8, u8)>> {
    let nibble = |digit: u8| match digit {
        b'x' => Some((0, 0)),
        _ => char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok()).map(|n| (0xf, n)),
    };
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let [high, low] = *pair else { return None };
        let ((m1, v1), (m2, v2)) = (nibble(high)?, nibble(low)?);
        Some((m1 << 4 | m2, v1 << 4 | v2))
    };
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagrams(payload: Option<&str>, reply: Option<&str>, min: u16, max: u16) -> Result<Datagrams, Why> {
        let (payload, reply) = (payload.map(str::to_owned), reply.map(str::to_owned));
        Datagrams::new(&Udp { payload, reply, min_reply: min, max_reply: max })
    }

    #[test]
    fn payloads() {
        let own = datagrams(Some("00ffA5"), None, 0, 255).unwrap();
        assert_eq!(own.payload([7; 16]), [0, 0xff, 0xa5]);
        assert_eq!(datagrams(None, None, 0, 255).unwrap().payload([7; 16]), [7; 16]);
        assert_eq!(datagrams(Some(""), None, 0, 255).unwrap().payload([7; 16]), [0u8; 0]);
        for bad in ["0", "0x", "zz", "0 1", "ä"] {
            assert_eq!(datagrams(Some(bad), None, 0, 255), Err(Why::of("the payload is not hexadecimal")), "{bad}");
        }
        assert_eq!(datagrams(None, Some("0"), 0, 255), Err(Why::of("the reply is not hexadecimal")));
    }

    #[test]
    fn replies() {
        for (reply, min, max, datagram, expected) in [
            (Some(""), 0, 255, &b""[..], "well"),
            (Some(""), 1, 255, b"", "the reply has 0 bytes"),
            (Some(""), 0, 2, b"abc", "the reply has 3 bytes"),
            (Some("6162"), 0, 255, b"ab", "well"),
            (Some("6162"), 0, 255, b"abc", "well"),
            (Some("6162"), 0, 2, b"abc", "the reply has 3 bytes"),
            (Some("6162"), 0, 255, b"a", "the reply is \"a\""),
            (Some("6162"), 0, 255, b"aB", "the reply is \"aB\""),
            (Some("x1xx6x"), 0, 255, b"qzo", "well"),
            (Some("x1xx6x"), 0, 255, b"qzz", "the reply is \"qzz\""),
            // Nothing is wanted: whatever comes shows life.
            (None, 5, 6, b"", "well"),
        ] {
            let found = datagrams(None, reply, min, max).unwrap().judge(datagram);
            let found = found.map_or_else(|why| why.to_string(), |_| "well".into());
            assert_eq!(found, expected, "{reply:?} {min}-{max}");
        }
    }

    #[test]
    fn silence_is_well_where_nothing_is_wanted() {
        let patience = |reply| datagrams(None, reply, 0, 255).unwrap().patience(Duration::from_secs(4));
        assert_eq!((patience(None), patience(Some(""))), (Some(Duration::from_secs(3)), None));
        assert!(datagrams(None, None, 0, 9).unwrap().patience(Duration::MAX).is_some());
    }

    proptest! {
        #[test]
        fn a_reply_matches_itself_and_no_other(bytes in prop::collection::vec(any::<u8>(), 1..40), at in any::<prop::sample::Index>()) {
            let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            let judge = datagrams(Some(&text), Some(&text), 0, 255).unwrap();
            prop_assert_eq!(&judge.payload([0; 16]), &bytes);
            prop_assert!(judge.judge(&bytes).is_ok());
            let mut other = bytes.clone();
            other[at.index(bytes.len())] ^= 0x10;
            prop_assert!(judge.judge(&other).is_err());
            prop_assert!(judge.judge(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
