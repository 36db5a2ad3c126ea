//! One peer as a backup sees it: which of its numbered datagrams have come, what is missing, and
//! whether all its connections are known.
//!
//! ```text
//!        hello of a new start          begin, in order             end, in order: no loss, count right
//! (none) ────────────────────► Wanted ─────────────────► Receiving ───────────────────► Whole
//!                               ▲  asks each second        │ loss, wrong count,           │
//!                               └──────────────────────────┴ nothing for 10 s ◄───────────┘ loss
//! ```

use super::BackupConfig;
use super::lag::Lag;
use crate::extension::{Hello, MAX_RANGES, Origin, Range, ability};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Most datagrams that are asked for at once.
const ASK: u64 = 1024;

/// What a peer is to be asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Again(Vec<Range>),
    All { request: u32 },
}

/// How far the peer's connections are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Catching {
    /// Nothing is going on.
    Idle,
    /// A bulk is asked for, last at that time.
    Wanted { asked_ms: Option<u64> },
    /// It is coming in.
    Receiving { bulk: u32, mark: u32, count: u64, clean: bool, heard_ms: u64 },
}

/// A datagram that waits for those before it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) sent_ms: u64,
    pub(super) bytes: Vec<u8>,
}

/// Counters of one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Losses {
    pub(super) gaps: u64,
    pub(super) repaired: u64,
    pub(super) lost: u64,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) origin: Origin,
    pub(super) from: SocketAddr,
    pub(super) heard_ms: u64,
    pub(super) hello: Hello,
    pub(super) lag: Lag,
    pub(super) losses: Losses,
    pub(super) whole: bool,
    pub(super) sync_id: u8,
    /// Of what it says outside the sequence.
    spoken: u64,
    /// The next number to be applied, and one beyond the greatest that is known to have been sent.
    next: u64,
    end: u64,
    /// `next` at the last hello: a later hello that says less is of a numbering that began anew.
    next_at_hello: u64,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    /// Since when `next` is missing, when it was asked for, how often.
    gap: Option<(u64, Option<u64>, u32)>,
    catching: Catching,
    request: u32,
}

impl Peer {
    /// A peer whose first hello this is.
    pub(super) fn new(origin: Origin, from: SocketAddr, number: u64, hello: Hello, sync_id: u8, now_ms: u64) -> Self {
        let able = hello.abilities & ability::BULK != 0;
        Self {
            origin,
            from,
            heard_ms: now_ms,
            hello,
            lag: Lag::default(),
            losses: Losses::default(),
            whole: false,
            sync_id,
            spoken: number,
            next: hello.next,
            end: hello.next,
            next_at_hello: hello.next,
            held: BTreeMap::new(),
            held_bytes: 0,
            gap: None,
            catching: if able { Catching::Wanted { asked_ms: None } } else { Catching::Idle },
            request: 1,
        }
    }

    /// Whether a message outside the sequence is newer than those before.
    pub(super) fn newer(&mut self, number: u64) -> bool {
        let newer = number > self.spoken;
        self.spoken = self.spoken.max(number);
        newer
    }

    pub(super) fn on_hello(&mut self, now_ms: u64, hello: Hello, config: &BackupConfig) {
        self.hello = hello;
        if hello.next < self.next_at_hello {
            // Another numbering under the same start: a forger's, or a peer that was set back.
            self.lose(self.end.saturating_sub(self.next).max(1));
            self.held.clear();
            self.held_bytes = 0;
            (self.next, self.end, self.gap) = (hello.next, hello.next, None);
        }
        self.next_at_hello = self.next;
        self.expect(now_ms, hello.next, config);
    }

    /// Numbers below `end` have been sent.
    fn expect(&mut self, now_ms: u64, end: u64, config: &BackupConfig) {
        self.end = self.end.max(end);
        // More than can be asked for and kept: it is lost.
        if self.end - self.next > config.window {
            self.skip_to(self.end);
        }
        self.look(now_ms);
    }

    /// A numbered datagram arrived. Says whether it is to be kept; those that are next are then
    /// taken with [`Peer::take`].
    pub(super) fn on_number(&mut self, now_ms: u64, number: u64, held: Held, config: &BackupConfig) -> Arrived {
        // Nothing could follow the last number that there is.
        if number < self.next || number == u64::MAX || self.held.contains_key(&number) {
            return Arrived::Old;
        }
        let again = number + 1 < self.end;
        if number - self.next > config.window {
            // As if everything before it was lost.
            self.end = self.end.max(number);
            self.skip_to(number);
        }
        let full = self.held.len() >= config.hold_datagrams
            || self.held_bytes.saturating_add(held.bytes.len()) > config.hold_bytes;
        if full && number != self.next {
            self.expect(now_ms, number + 1, config);
            return Arrived::NoRoom;
        }
        if again && self.gap.is_some_and(|(_, asked, _)| asked.is_some()) {
            self.losses.repaired += 1;
        } else {
            self.lag.arrived(now_ms, held.sent_ms);
        }
        self.held_bytes += held.bytes.len();
        self.held.insert(number, held);
        self.end = self.end.max(number + 1);
        self.look(now_ms);
        Arrived::Kept
    }

    /// The next datagram in order, if it is here.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<Held> {
        let held = self.held.remove(&self.next)?;
        self.held_bytes -= held.bytes.len();
        self.next += 1;
        self.gap = None;
        self.lag.delivered(held.sent_ms);
        if let Catching::Receiving { heard_ms, .. } = &mut self.catching {
            *heard_ms = now_ms;
        }
        self.look(now_ms);
        Some(held)
    }

    /// Sees whether there is a gap.
    fn look(&mut self, now_ms: u64) {
        let missing = self.next < self.end && !self.held.contains_key(&self.next);
        match (missing, self.gap) {
            (true, None) => self.gap = Some((now_ms, None, 0)),
            (false, Some(_)) => self.gap = None,
            _ => {}
        }
    }

    /// What was held is given up as far as `to`: what is there of it stays, in order.
    fn skip_to(&mut self, to: u64) {
        let there = self.held.range(..to).count() as u64;
        self.lose((to - self.next).saturating_sub(there));
        // Those in between are applied with their gaps: it is news, even if not all.
        let first = self.held.keys().next().copied().unwrap_or(to);
        self.next = first.min(to);
        self.gap = None;
    }

    fn lose(&mut self, count: u64) {
        if count == 0 {
            return;
        }
        self.losses.lost = self.losses.lost.saturating_add(count);
        self.whole = false;
        if let Catching::Receiving { clean, .. } = &mut self.catching {
            *clean = false;
        } else {
            self.want();
        }
    }

    /// A bulk is needed that has not been asked for before.
    fn want(&mut self) {
        if self.hello.abilities & ability::BULK != 0 {
            self.request = self.request.wrapping_add(1);
            self.catching = Catching::Wanted { asked_ms: None };
        }
    }

    /// The peer says that nothing below this number can be sent again.
    pub(super) fn on_gone(&mut self, oldest: u64) {
        if oldest > self.next && oldest <= self.end {
            self.skip_gap(oldest);
        }
    }

    /// Gives up what is missing below `to`, up to the first that is there.
    fn skip_gap(&mut self, to: u64) {
        let first = self.held.keys().next().copied().unwrap_or(self.end);
        self.skip_to(first.min(to));
    }

    /// A bulk begins; connections that it tells of get that mark, or a greater one. Another's bulk
    /// does not serve one who has asked: what was learned from this node may not be in it.
    pub(super) fn on_begin(&mut self, now_ms: u64, bulk: u32, mark: u32, ours: bool) {
        if !ours && !self.whole {
            return;
        }
        self.catching = Catching::Receiving { bulk, mark, count: 0, clean: true, heard_ms: now_ms };
    }
    pub(super) fn on_records(&mut self, records: u64) {
        if let Catching::Receiving { count, .. } = &mut self.catching {
            *count += records;
        }
    }
    /// If all is known by now, the mark that what is left has: the rest is no more.
    pub(super) fn on_end(&mut self, number: u32, total: u64) -> Option<u32> {
        match self.catching {
            Catching::Receiving { bulk, mark, count, clean: true, .. } if bulk == number && count == total => {
                self.catching = Catching::Idle;
                self.whole = true;
                return Some(mark);
            }
            Catching::Receiving { .. } => self.want(),
            // Of a bulk whose begin this node did not hear: if it wants one, its own is to come.
            Catching::Idle | Catching::Wanted { .. } => {}
        }
        None
    }

    /// What is to be asked for now.
    pub(super) fn poll(&mut self, now_ms: u64, config: &BackupConfig) -> Vec<Ask> {
        let mut asks = Vec::new();
        self.look(now_ms);
        if let Some((since, asked, times)) = self.gap
            && Self::gap_due(since, asked, config) <= now_ms
        {
            if times == 0 {
                self.losses.gaps += 1;
            }
            let able = self.hello.abilities & ability::REPAIR != 0;
            if able && times < config.repair_tries {
                self.gap = Some((since, Some(now_ms), times + 1));
                asks.push(Ask::Again(self.missing()));
            } else {
                self.skip_gap(self.end);
                self.look(now_ms);
            }
        }
        match self.catching {
            Catching::Receiving { heard_ms, clean, .. } if now_ms >= Self::stopped_ms(heard_ms, clean, config) => {
                self.want();
            }
            _ => {}
        }
        if let Catching::Wanted { asked_ms } = &mut self.catching
            && asked_ms.is_none_or(|at| now_ms >= at.saturating_add(config.request_ms))
        {
            *asked_ms = Some(now_ms);
            asks.push(Ask::All { request: self.request });
        }
        asks
    }

    /// When [`Peer::poll`] has something to do.
    pub(super) fn due_ms(&self, config: &BackupConfig) -> Option<u64> {
        let gap = self.gap.map(|(since, asked, _)| Self::gap_due(since, asked, config));
        let catching = match self.catching {
            Catching::Idle => None,
            Catching::Wanted { asked_ms } => Some(asked_ms.map_or(0, |at| at.saturating_add(config.request_ms))),
            Catching::Receiving { heard_ms, clean, .. } => Some(Self::stopped_ms(heard_ms, clean, config)),
        };
        [gap, catching].into_iter().flatten().min()
    }

    /// When a bulk without news is taken to have stopped. If something of it was lost, that may have
    /// been its end.
    fn stopped_ms(heard_ms: u64, clean: bool, config: &BackupConfig) -> u64 {
        heard_ms.saturating_add(if clean { config.bulk_timeout_ms } else { config.request_ms })
    }

    fn gap_due(since: u64, asked: Option<u64>, config: &BackupConfig) -> u64 {
        asked.map_or(since.saturating_add(config.reorder_ms), |at| at.saturating_add(config.repair_ms))
    }

    /// The first ranges that are missing.
    fn missing(&self) -> Vec<Range> {
        let mut ranges = Vec::new();
        let mut next = self.next;
        let mut left = ASK;
        for there in self.held.keys().copied().chain([self.end]) {
            if ranges.len() >= MAX_RANGES || left == 0 {
                break;
            }
            if there > next {
                let last = (there - 1).min(next.saturating_add(left - 1));
                left -= last - next + 1;
                ranges.push(Range { first: next, last });
            }
            next = there.saturating_add(1);
        }
        ranges
    }

    /// Whether nothing is known to be missing.
    pub(super) fn in_step(&self) -> bool {
        self.next >= self.end
    }
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

/// What became of a numbered datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrived {
    Kept,
    Old,
    NoRoom,
}
