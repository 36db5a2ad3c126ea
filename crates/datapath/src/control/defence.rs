//! Defence against floods (ipvs-semantics §3.7): what is on, by mode and memory.

use dirigent_config::Defence;
use dirigent_director::records::{Settings, setting};

/// Whether a defence of this mode is on. Before memory was looked at, IPVS's 2 ("on, for now")
/// is on and its 1 is not.
fn is_on(mode: u8, low: Option<bool>) -> bool {
    match mode {
        0 => false,
        1 | 2 => low.unwrap_or(mode == 2),
        _ => true,
    }
}

/// Sets what packets and the sweep look at. `available`: pages that are free or hold buffers.
pub(super) fn settle(of: &Defence, available: Option<u64>, record: &mut Settings) {
    let threshold = u64::from(of.amemthresh);
    let low = available.map(|pages| pages < threshold);
    if is_on(of.secure_tcp, low) {
        record.flags |= setting::SECURE_TCP;
    }
    if is_on(of.drop_entry, low) {
        record.flags |= setting::DROP_ENTRY;
    }
    record.drop_rate = match (of.drop_packet, available) {
        (3, _) => of.am_droprate,
        // The scarcer, the more: all of them when nothing is left.
        (1 | 2, Some(pages)) if pages < threshold => (threshold / (threshold - pages)) as u32,
        _ => 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (secure_tcp, drop_entry, drop_rate) of all three in this mode.
    fn of(mode: u8, available: Option<u64>) -> (bool, bool, u32) {
        let of = Defence { drop_entry: mode, drop_packet: mode, secure_tcp: mode, ..Defence::default() };
        let mut record = Settings { flags: 0, ..Settings::default() };
        settle(&of, available, &mut record);
        let bit = |bit| record.flags & bit != 0;
        (bit(setting::SECURE_TCP), bit(setting::DROP_ENTRY), record.drop_rate)
    }

    #[test]
    fn modes_and_memory() {
        assert_eq!(of(0, Some(0)), (false, false, 0));
        assert_eq!(of(3, None), (true, true, 10));
        assert_eq!(of(3, Some(1 << 20)), (true, true, 10));
        // Automatic: 1024 pages are enough, fewer are not.
        for mode in [1, 2] {
            assert_eq!(of(mode, Some(1024)), (false, false, 0));
            assert_eq!(of(mode, Some(1023)), (true, true, 1024));
            assert_eq!(of(mode, Some(768)), (true, true, 4));
            assert_eq!(of(mode, Some(0)), (true, true, 1));
        }
        assert_eq!((of(1, None), of(2, None)), ((false, false, 0), (true, true, 0)));
    }
}
