//! The Internet checksum (RFC 1071) and its incremental form (RFC 1624).
//!
//! Sums run over 16-bit words as they lie in memory: the one's complement sum
//! does not depend on byte order (RFC 1071 §2(B)), so nothing is swapped.
//! A *delta* is the one's complement difference new − old of the covered words,
//! folded to 16 bits; deltas add up by [`add`].

/// Folds a sum of 16-bit words into 16 bits with end-around carry.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// One's complement addition of two folded sums or deltas.
#[inline(always)]
pub const fn add(a: u16, b: u16) -> u16 {
    fold(a as u32 + b as u32)
}

/// The delta of one word that changes from `old` to `new` (words as in memory).
#[inline(always)]
pub const fn delta(old: u16, new: u16) -> u16 {
    fold(!old as u32 + new as u32)
}

/// The opposite delta.
#[inline(always)]
pub const fn negate(delta: u16) -> u16 {
    !delta
}

/// The checksum field after the words it covers changed by `delta`
/// (RFC 1624, equation 3): HC' = ~(~HC + ~m + m').
#[inline(always)]
pub const fn apply(check: u16, delta: u16) -> u16 {
    !fold(!check as u32 + delta as u32)
}

/// The same after two changes.
#[inline(always)]
pub const fn apply_both(check: u16, a: u16, b: u16) -> u16 {
    !fold(!check as u32 + a as u32 + b as u32)
}

/// The sum of eight words: an IPv6 address.
#[inline(always)]
pub const fn sum8(w: &[u16; 8]) -> u16 {
    fold(w[0] as u32 + w[1] as u32 + w[2] as u32 + w[3] as u32 + w[4] as u32 + w[5] as u32 + w[6] as u32 + w[7] as u32)
}

/// The folded sum over bytes, an odd last byte padded with zero. For user space
/// and tests: the packet path sums through its packet trait.
pub fn sum_bytes(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    let mut pairs = bytes.chunks_exact(2);
    for pair in &mut pairs {
        if let [a, b] = *pair {
            sum += u32::from(u16::from_ne_bytes([a, b]));
        }
        // Stay clear of overflow whatever the length.
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if let [last] = *pairs.remainder() {
        sum += u32::from(u16::from_ne_bytes([last, 0]));
    }
    fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;

    /// RFC 1071 §3, the example's eight bytes.
    #[test]
    fn sums_the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(u16::from_be(sum_bytes(&bytes)), 0xddf2);
    }

    /// RFC 1624 §4, the example where the older equation goes wrong.
    #[test]
    fn updates_the_example_of_rfc_1624() {
        let d = delta(0x5555u16.to_be(), 0x3285u16.to_be());
        assert_eq!(apply(0xdd2fu16.to_be(), d), 0x0000u16.to_be());
    }

    proptest! {
        #[test]
        fn incremental_equals_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..80),
            at in 0usize..40, new in any::<u16>(),
        ) {
            prop_assume!(bytes.iter().any(|b| *b != 0));
            let at = ((at * 2) % (bytes.len() - 1)) & !1;
            let check = !sum_bytes(&bytes);
            let old = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_ne_bytes());
            prop_assume!(bytes.iter().any(|b| *b != 0));
            // 0 and !0 are the same number in one's complement.
            let norm = |c: u16| if c == 0xffff { 0 } else { c };
            prop_assert_eq!(norm(apply(check, delta(old, new))), norm(!sum_bytes(&bytes)));
        }

        #[test]
        fn two_changes_at_once_are_two_changes(check in any::<u16>(), a in any::<u16>(), b in any::<u16>()) {
            prop_assert_eq!(apply_both(check, a, b), apply(check, add(a, b)));
        }

        #[test]
        fn a_delta_and_its_opposite_cancel(check in any::<u16>(), old in any::<u16>(), new in any::<u16>()) {
            let d = delta(old, new);
            let back = apply(apply(check, d), negate(d));
            let norm = |c: u16| if c == 0xffff { 0 } else { c };
            prop_assert_eq!(norm(back), norm(check));
        }
    }
}
