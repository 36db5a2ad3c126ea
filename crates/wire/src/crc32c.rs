//! CRC32c (RFC 9260 appendix A), as far as the packet path needs it: what it changes by when
//! a port does.
//!
//! A CRC is linear: those of two packets of one length differ by the CRC (begun with 0, not
//! inverted) of their difference, whatever else is in them. So the change needs no look at the
//! packet, and a wrong CRC stays as wrong as it was. The difference is one half of the first
//! word; the rest are zeros, and n zero bytes multiply by x^(8n). Two tables have these powers
//! for the low and the high byte of n.
//!
//! Polynomials over GF(2) modulo Castagnoli's, bit-reversed: the highest bit of a word is
//! the coefficient of x^0.

/// Castagnoli's polynomial without x^32.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// Times x.
#[inline(always)]
const fn shift(a: u32) -> u32 {
    a >> 1 ^ (POLYNOMIAL & (a & 1).wrapping_neg())
}

/// What the byte at the register's end makes of the rest when it leaves: times x^8.
static STEP: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut value, mut bit) = (i as u32, 0);
        while bit < 8 {
            value = shift(value);
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
        {
            table[i] = value;
        }
        i += 1;
    }
    table
};

/// The product before it is reduced. Bits are multiplied as integers that have three bits of
/// room between each two, so that carries reach no other: no loop and no branch, which the
/// verifier would follow both ways at each bit.
#[inline(always)]
const fn carryless(a: u32, b: u32) -> u64 {
    const EVERY_4TH: u64 = 0x1111_1111_1111_1111;
    let (a, b) = (a as u64, b as u64);
    let (a0, a1, a2, a3) = (a & EVERY_4TH, a & EVERY_4TH << 1, a & EVERY_4TH << 2, a & EVERY_4TH << 3);
    let (b0, b1, b2, b3) = (b & EVERY_4TH, b & EVERY_4TH << 1, b & EVERY_4TH << 2, b & EVERY_4TH << 3);
    let c0 = a0.wrapping_mul(b0) ^ a1.wrapping_mul(b3) ^ a2.wrapping_mul(b2) ^ a3.wrapping_mul(b1);
    let c1 = a0.wrapping_mul(b1) ^ a1.wrapping_mul(b0) ^ a2.wrapping_mul(b3) ^ a3.wrapping_mul(b2);
    let c2 = a0.wrapping_mul(b2) ^ a1.wrapping_mul(b1) ^ a2.wrapping_mul(b0) ^ a3.wrapping_mul(b3);
    let c3 = a0.wrapping_mul(b3) ^ a1.wrapping_mul(b2) ^ a2.wrapping_mul(b1) ^ a3.wrapping_mul(b0);
    c0 & EVERY_4TH | c1 & EVERY_4TH << 1 | c2 & EVERY_4TH << 2 | c3 & EVERY_4TH << 3
}

/// The product.
#[inline(always)]
const fn multiply(a: u32, b: u32) -> u32 {
    // Reversed, x^0 stands at the highest bit: the product of two such, at the last but one.
    let product = carryless(a, b) << 1;
    let (mut high, mut i) = (product as u32, 0);
    while i < 4 {
        #[expect(clippy::indexing_slicing, reason = "a byte is an index of 256")]
        {
            high = high >> 8 ^ STEP[(high & 255) as usize];
        }
        i += 1;
    }
    (product >> 32) as u32 ^ high
}

/// The powers of `step`, from 0.
const fn powers<const N: usize>(step: u32) -> [u32; N] {
    let mut table = [ONE; N];
    let mut i = 1;
    while i < N {
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
        {
            table[i] = multiply(table[i - 1], step);
        }
        i += 1;
    }
    table
}

/// x^(8n): what n zero bytes do.
static BYTES: [u32; 256] = powers(ONE >> 8);
/// x^(8 · 256 n).
static PAGES: [u32; 257] = powers(multiply(powers::<256>(ONE >> 8)[255], ONE >> 8));

/// What is to be exclusive-ored into the CRC field, read as little-endian as it is sent, of
/// `len` bytes (SCTP header and chunks) of which one port changes from `old` to `new`, bytes as
/// in memory. `source`: the first of the two ports.
#[inline(always)]
pub fn port_change(old: u16, new: u16, source: bool, len: u32) -> u32 {
    // The destination port comes last in the first word, which times x^32 is followed by
    // len - 4 bytes; the source port is two bytes farther away from the end.
    let by = if source { len + 2 } else { len } as usize;
    let (Some(pages), Some(bytes)) = (PAGES.get(by >> 8 & 511), BYTES.get(by & 255)) else { return 0 };
    let difference = u32::from(u16::from_le(old ^ new)) << 16;
    multiply(difference, multiply(*pages, *bytes))
}

/// The CRC of these bytes, plainly. For user space and tests.
pub fn of(bytes: &[u8]) -> u32 {
    let mut crc = !0;
    for byte in bytes {
        crc ^= u32::from(*byte);
        let mut i = 0;
        while i < 8 {
            crc = shift(crc);
            i += 1;
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;

    /// RFC 3720 appendix B.4.
    #[test]
    fn sums_the_examples_of_rfc_3720() {
        assert_eq!(of(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(of(&[0xff; 32]).to_le_bytes(), [0x43, 0xab, 0xa8, 0x62]);
        assert_eq!(of(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_changed_port_changes_the_crc_by_what_is_computed(
            len in prop_oneof![12usize..2000, 65_400usize..65_536], seed in any::<u8>(),
            new in any::<[u8; 2]>(), source in any::<bool>(),
        ) {
            let mut bytes: std::vec::Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            let before = of(&bytes);
            let at = if source { 0 } else { 2 };
            let old = [bytes[at], bytes[at + 1]];
            bytes[at..at + 2].copy_from_slice(&new);
            let change = port_change(u16::from_ne_bytes(old), u16::from_ne_bytes(new), source, len as u32);
            prop_assert_eq!(before ^ change, of(&bytes));
        }
    }
}
