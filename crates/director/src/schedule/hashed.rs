//! What sh and dh share: IPVS's table of 256 buckets and its hash (ipvs-semantics §4.7).

/// Buckets: IPVS's default.
pub const BUCKETS: u32 = 256;

/// The bucket of a folded address, with a port (0: none), looking from `offset` on.
/// 0x61C88647 is 2^32 divided by the golden ratio, as Linux's `hash_32`.
#[inline(always)]
pub fn bucket(addr: u32, port: u32, offset: u32) -> u32 {
    let hash = port.wrapping_add(addr).wrapping_mul(0x61c8_8647) >> 24;
    offset.wrapping_add(hash) & (BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of ipvs-semantics §4.7.
    #[test]
    fn hashes_as_the_kernel() {
        let addr = |a: [u8; 4]| u32::from_be_bytes(a);
        assert_eq!(bucket(addr([192, 168, 1, 1]), 0, 0), 136);
        assert_eq!(bucket(addr([192, 168, 1, 2]), 0, 0), 234);
        assert_eq!(bucket(addr([10, 0, 0, 1]), 0, 0), 39);
        assert_eq!(bucket(addr([10, 0, 0, 1]), 40000, 0), 203);
    }
}
