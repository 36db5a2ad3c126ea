//! What the fuzz targets check, on bytes at random and on their corpus.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "support/exercise.rs"]
mod exercise;

use proptest::prelude::*;
use std::path::Path;

const WORDS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n",
    b"3\r\nabz\r\n",
    b"0\r\n",
    b"220 a\r\n",
    b"250-b\r\n",
    b"250 b\r\n",
    b"221 c\r\n",
    b"\x12\x34\x81\x80\0\x01\0\0\0\0\0\0",
    b"abz",
    b"7\n",
];

proptest! {
    #[test]
    fn checks(data in prop::collection::vec(any::<u8>(), 0..400)) {
        exercise::checks(&data);
    }

    #[test]
    fn checks_nearly_right(head in any::<[u8; 2]>(), words in prop::collection::vec(prop::sample::select(WORDS), 0..12)) {
        exercise::checks(&[&head[..], &words.concat()].concat());
    }

    #[test]
    fn session(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        exercise::session(&data);
    }
}

#[test]
fn the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, run) in [("checks", exercise::checks as fn(&[u8])), ("bfd", exercise::session)] {
        let files: Vec<_> = std::fs::read_dir(corpus.join(target)).unwrap().collect();
        assert!(!files.is_empty());
        for file in files {
            run(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}
