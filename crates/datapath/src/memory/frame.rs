//! A frame in memory, as XDP or tc would see it.

use dirigent_director::ftp::Line;
use dirigent_director::packet::{L4, Packet, Plainly};
use dirigent_director::tunnel::Outer;
use dirigent_wire::{Be16, Header, checksum, eth::EthHeads};
use zerocopy::IntoBytes as _;

use super::Incoming;

/// Room in front of a frame, for what is added there.
const HEADROOM: usize = 256;

/// The bytes of a frame with room in front. They begin at an even address, as frames
/// do in the kernel, so that 16-bit fields are aligned.
#[derive(Clone, Debug)]
pub struct Buffer {
    words: Vec<u64>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A copy of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let end = HEADROOM + bytes.len();
        let mut buffer = Self { words: vec![0; end.div_ceil(8)], start: HEADROOM, end };
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }
    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.words.as_bytes().get(self.start..self.end).unwrap_or_default()
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.words.as_mut_bytes().get_mut(self.start..self.end).unwrap_or_default()
    }
    fn len(&self) -> usize {
        self.end - self.start
    }
    /// Takes `n` bytes away in front.
    fn cut_front(&mut self, n: usize) -> bool {
        let fits = n <= self.len();
        self.start += if fits { n } else { 0 };
        fits
    }
    /// Adds `n` bytes in front, of whatever was there.
    fn grow_front(&mut self, n: usize) -> bool {
        match self.start.checked_sub(n) {
            Some(start) => {
                self.start = start;
                true
            }
            None => false,
        }
    }
}

/// A frame under way. `EASY`: the first stage looks at it; `LAST`: it plays tc, which
/// must finish, not XDP, which may hand over.
#[derive(Clone, Debug)]
pub struct Frame<const EASY: bool, const LAST: bool> {
    buffer: Buffer,
    ingress: u32,
    gso_size: u32,
    stripped_tag: Option<u16>,
    mark: u32,
    /// Copies left to a later run, with their words.
    pub(super) forks: Vec<(u64, Vec<u8>)>,
}

impl<const LAST: bool> Frame<true, LAST> {
    /// A frame as it came in.
    #[must_use]
    pub fn new(packet: &Incoming<'_>) -> Self {
        let Incoming { frame, ingress, gso_size, stripped_tag, mark } = *packet;
        Self { buffer: Buffer::new(frame), ingress, gso_size, stripped_tag, mark, forks: Vec::new() }
    }
    /// The same frame in a later stage.
    #[must_use]
    pub fn later(self) -> Frame<false, LAST> {
        let Self { buffer, ingress, gso_size, stripped_tag, mark, forks } = self;
        Frame { buffer, ingress, gso_size, stripped_tag, mark, forks }
    }
}

impl<const EASY: bool, const LAST: bool> Frame<EASY, LAST> {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.bytes()
    }
    /// Its mark.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark
    }
}

impl<const E: bool, const L: bool> Packet for Frame<E, L> {
    type Words = Plainly;
    const EASY: bool = E;
    const LAST: bool = L;

    fn len(&self) -> u32 {
        self.buffer.len() as u32
    }
    fn gso_size(&self) -> u32 {
        self.gso_size
    }
    fn ingress(&self) -> u32 {
        self.ingress
    }
    fn stripped_tag(&self) -> Option<u16> {
        self.stripped_tag
    }
    /// As tc: XDP cannot.
    fn take_mark(&mut self) -> u32 {
        if L { std::mem::take(&mut self.mark) } else { 0 }
    }
    fn get<H: Header>(&self, off: usize) -> Option<&H> {
        let bytes = self.buffer.bytes().get(off..off.checked_add(H::LEN)?)?;
        H::ref_from_bytes(bytes).ok()
    }
    fn get_mut<H: Header>(&mut self, off: usize) -> Option<&mut H> {
        let bytes = self.buffer.bytes_mut().get_mut(off..off.checked_add(H::LEN)?)?;
        H::mut_from_bytes(bytes).ok()
    }
    fn pull(&mut self, _: u32) {}
    fn patch_l4(&mut self, at: usize, addr_delta: u16, port_delta: u16, l4: L4, _: bool) -> bool {
        let Some(field) = self.get_mut::<Be16>(at) else { return false };
        if l4 == L4::Udp && field.raw() == 0 {
            return true; // none, and none it stays: as the kernel's helper does
        }
        l4.patch(field, addr_delta, port_delta);
        true
    }
    fn sum(&self, off: usize, len: u32) -> Option<u16> {
        let bytes = self.buffer.bytes().get(off..off.checked_add(len as usize)?)?;
        Some(checksum::sum_bytes(bytes))
    }
    fn load(&self, off: usize, len: u32, to: &mut Line) -> bool {
        let (from, to) = (self.buffer.bytes().get(off..off.saturating_add(len as usize)), to.0.get_mut(..len as usize));
        let (Some(from), Some(to)) = (from, to) else { return false };
        to.copy_from_slice(from);
        true
    }
    fn store(&mut self, off: usize, len: u32, from: &Line) -> bool {
        let to = self.buffer.bytes_mut().get_mut(off..off.saturating_add(len as usize));
        let (Some(to), Some(from)) = (to, from.0.get(..len as usize)) else { return false };
        to.copy_from_slice(from);
        true
    }
    fn pop_tag(&mut self) -> bool {
        if self.stripped_tag.take().is_some() {
            return true;
        }
        let Some(heads) = self.get::<EthHeads>(0).copied() else { return false };
        let Some(at) = self.get_mut::<EthHeads>(4) else { return false };
        *at = heads;
        self.buffer.cut_front(4)
    }
    fn reshape(&mut self, keep: u32, grow: u32) -> bool {
        let end = self.buffer.start + keep as usize;
        self.buffer.end = self.buffer.end.min(end);
        self.buffer.grow_front(grow as usize)
    }
    fn grow(&mut self, bytes: u32, outer: Outer) -> bool {
        if self.gso_size != 0 && outer.smaller_segments {
            self.gso_size = self.gso_size.saturating_sub(bytes);
        }
        self.buffer.grow_front(bytes as usize)
    }
    fn adjust(&mut self, header: u32, change: i32) -> bool {
        let at = 14 + header as usize;
        let mut bytes = self.bytes().to_vec();
        let (less, more) = if change < 0 { (change.unsigned_abs() as usize, 0) } else { (0, change as usize) };
        if at + less > bytes.len() {
            return false;
        }
        bytes.splice(at..at + less, std::iter::repeat_n(0, more));
        self.buffer = Buffer::new(&bytes);
        true
    }
    fn fork(&mut self, word: u64) -> bool {
        self.forks.push((word, self.bytes().to_vec()));
        true
    }
}
