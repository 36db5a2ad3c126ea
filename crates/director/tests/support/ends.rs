//! The server's end of tunnels in memory, and what holds for any frame. Used by the tests
//! and by the fuzz target.

use dirigent_director::endpoint::{EndTables, Outcome, Terms, receive, send};
use dirigent_director::packet::Packet;
use dirigent_wire::{Addr4, Addr6, checksum};

/// What the server is told.
pub struct Ends {
    /// None: nothing yet.
    pub terms: Option<Terms>,
    /// Virtual addresses.
    pub vips: ([u8; 4], [u8; 16]),
    /// Directors.
    pub directors: ([u8; 4], [u8; 16]),
}

impl EndTables for Ends {
    fn terms(&self) -> Option<&Terms> {
        self.terms.as_ref()
    }
    fn vip4(&self, addr: &Addr4) -> bool {
        addr.bytes() == self.vips.0
    }
    fn vip6(&self, addr: &Addr6) -> bool {
        addr.bytes() == self.vips.1
    }
    fn director4(&self, addr: &Addr4) -> bool {
        addr.bytes() == self.directors.0
    }
    fn director6(&self, addr: &Addr6) -> bool {
        addr.bytes() == self.directors.1
    }
    fn forget(&self, value: u32) -> u32 {
        value
    }
}

/// Runs a frame in or out, and holds what is true of any: what is not this program's is
/// untouched; what came out of a tunnel is what was in it, for a virtual address; what was
/// clamped differs in a segment size and its checksum, which is right if it was.
pub fn hold<P: Packet>(
    ends: &Ends,
    frame: &[u8],
    out: bool,
    make: impl Fn(&[u8]) -> P,
    bytes: impl Fn(&P) -> Vec<u8>,
) -> (Outcome, Vec<u8>) {
    let mut p = make(frame);
    let outcome = if out { send(&mut p, ends) } else { receive(&mut p, ends) };
    let after = bytes(&p);
    match outcome {
        Outcome::Passed | Outcome::Fragment => {
            // A priority tag may be taken out of what comes in (RFC 3168 knows nothing of it, 802.1Q §9.6 does).
            let untagged = [&frame[..12.min(frame.len())], frame.get(16..).unwrap_or_default()].concat();
            assert!(after == frame || !out && after == untagged, "{outcome:?} and changed");
        }
        Outcome::Decapsulated => {
            assert!(!out && after.len() < frame.len() && after[..12] == frame[..12]);
            let (dst, vip, marks) = match after[12..14] {
                [8, 0] => (&after[30..34], &ends.vips.0[..], &[15, 24, 25][..]),
                [0x86, 0xdd] => (&after[38..54], &ends.vips.1[..], &[15][..]),
                _ => panic!("of no family"),
            };
            assert_eq!(dst, vip);
            let within = &frame[frame.len() - (after.len() - 14)..];
            let same = |at: usize| after[at] == within[at - 14] || marks.contains(&at);
            assert!((14..after.len()).all(same), "changed inside");
            assert!(after[12] != 8 || header_holds(&after[14..]), "the inner header's checksum");
        }
        Outcome::Clamped => {
            assert!(out && after.len() == frame.len());
            let l4 = if after[12] == 8 { 34 } else { 54 };
            let changed: Vec<_> = (0..frame.len()).filter(|i| after[*i] != frame[*i]).collect();
            let sizes: Vec<_> = changed.iter().filter(|i| !(l4 + 16..l4 + 18).contains(*i)).collect();
            assert!(sizes.iter().all(|i| **i >= l4 + 22) && sizes.last().is_none_or(|i| **i <= sizes[0] + 1));
            assert_eq!(l4_holds(frame, l4), l4_holds(&after, l4), "the checksum");
        }
        Outcome::Stranger | Outcome::Malformed | Outcome::Congested => assert!(!out && after.len() >= frame.len() - 4),
        Outcome::Failed => panic!("in memory anything can be rewritten"),
    }
    (outcome, after)
}

fn header_holds(ip: &[u8]) -> bool {
    checksum::sum_bytes(&ip[..usize::from(ip[0] & 15) * 4]) == 0xffff
}

/// Whether the TCP checksum is right.
pub fn l4_holds(frame: &[u8], l4: usize) -> bool {
    let (addresses, end) = match frame[12] {
        8 => (&frame[26..34], 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]))),
        _ => (&frame[22..54], 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]))),
    };
    let segment = &frame[l4..end];
    let pseudo = [addresses, &[0, 6], &(segment.len() as u16).to_be_bytes()].concat();
    checksum::add(checksum::sum_bytes(&pseudo), checksum::sum_bytes(segment)) == 0xffff
}
