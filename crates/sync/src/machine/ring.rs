//! The numbered datagrams that a master can send again.

use std::collections::VecDeque;

/// The latest datagrams, without a gap between their numbers.
#[derive(Debug)]
pub(super) struct Ring {
    /// The number of the first in `kept`; of the next one if there is none.
    oldest: u64,
    kept: VecDeque<Vec<u8>>,
    bytes: usize,
    max_datagrams: usize,
    max_bytes: usize,
}

impl Ring {
    pub(super) fn new(max_datagrams: usize, max_bytes: usize) -> Self {
        Self { oldest: 1, kept: VecDeque::new(), bytes: 0, max_datagrams, max_bytes }
    }
    /// The number of the oldest datagram that is kept, of the next one if none is.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }
    /// The number that the next datagram has.
    pub(super) fn next(&self) -> u64 {
        self.oldest.saturating_add(self.kept.len() as u64)
    }
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
    /// Keeps the datagram that has the number [`Ring::next`].
    pub(super) fn push(&mut self, datagram: Vec<u8>) {
        self.bytes += datagram.len();
        self.kept.push_back(datagram);
        while self.kept.len() > self.max_datagrams || self.bytes > self.max_bytes {
            let Some(gone) = self.kept.pop_front() else { return };
            self.bytes -= gone.len();
            self.oldest += 1;
        }
    }
    /// The datagram with that number.
    pub(super) fn get(&self, number: u64) -> Option<&[u8]> {
        let at = usize::try_from(number.checked_sub(self.oldest)?).ok()?;
        self.kept.get(at).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut ring = Ring::new(3, 10);
        assert_eq!((ring.oldest(), ring.next(), ring.get(1)), (1, 1, None));
        for n in 1..=4 {
            ring.push(vec![n; 2]);
        }
        assert_eq!((ring.oldest(), ring.next(), ring.bytes()), (2, 5, 6));
        assert_eq!((ring.get(1), ring.get(2), ring.get(5)), (None, Some(&[2, 2][..]), None));
        ring.push(vec![5; 9]);
        assert_eq!((ring.oldest(), ring.next(), ring.bytes()), (5, 6, 9));
        ring.push(vec![6; 11]);
        assert_eq!((ring.oldest(), ring.next(), ring.bytes()), (7, 7, 0));
    }
}
