//! What a server's answer means.
//!
//! Bytes go in as they come, in whatever pieces, and a verdict comes out. Nothing here holds more of them than it says,
//! however much a server sends; how long it may go on is [`crate::machine`]'s timeout.
//!
//! | check | its judge |
//! |---|---|
//! | http, https | [`http::Answer`]; one for each request |
//! | smtp | [`smtp::Exchange`], a [`Stream`] |
//! | dns | [`dns::Question`] |
//! | udp | [`udp::Datagrams`] |
//! | ping | [`icmp::Echo`] |
//! | script | [`script::judge`] |
//! | file | [`file::judge`] |
//! | tcp | none: that there is a connection is all |
//! | bfd | [`crate::bfd`] |

pub mod dns;
pub mod file;
pub mod http;
pub mod icmp;
mod lines;
pub mod pattern;
pub mod script;
pub mod smtp;
pub mod udp;

use crate::machine::Outcome;

/// How the server ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should: end of file; with TLS after close_notify.
    Clean,
    /// With TLS: end of file without close_notify.
    Cut,
}

/// A conversation over a connection (or over TLS on one), as its client.
///
/// The runner sends what [`Self::output`] has, gives what comes to [`Self::on_bytes`] or [`Self::on_end`], and stops
/// as soon as there is a [`Self::verdict`]; what comes later changes nothing.
pub trait Stream {
    /// Takes what is to be sent now; empty: nothing.
    fn output(&mut self) -> Vec<u8>;
    /// The server sent this.
    fn on_bytes(&mut self, bytes: &[u8]);
    /// The server sends nothing more.
    fn on_end(&mut self, end: End);
    /// What came of it, if that is known.
    fn verdict(&self) -> Option<&Outcome>;
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use proptest::prelude::*;

    /// The verdict on `bytes` in pieces as long as `cuts` says, over and over, and then the end; with all that was
    /// sent.
    pub fn converse<S: Stream>(
        mut stream: S,
        bytes: &[u8],
        cuts: &[usize],
        end: Option<End>,
    ) -> (Option<Outcome>, Vec<u8>) {
        let mut sent = stream.output();
        let mut left = bytes;
        for cut in cuts.iter().chain(std::iter::repeat(&usize::MAX)) {
            let (piece, rest) = left.split_at((*cut).min(left.len()));
            stream.on_bytes(piece);
            sent.extend(stream.output());
            left = rest;
            if left.is_empty() {
                break;
            }
        }
        if let Some(end) = end {
            stream.on_end(end);
            sent.extend(stream.output());
        }
        (stream.verdict().cloned(), sent)
    }

    /// Lengths of pieces.
    pub fn cuts() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(0..9usize, 0..200)
    }

    /// Bytes that are nearly a conversation: pieces of one, some of them spoilt.
    pub fn nearly(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            6 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..9),
        ];
        prop::collection::vec(word, 0..20).prop_map(|words| words.concat())
    }

    pub fn end() -> impl Strategy<Value = Option<End>> {
        prop::sample::select(vec![None, Some(End::Clean), Some(End::Cut)])
    }
}
