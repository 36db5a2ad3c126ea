//! Lines of a protocol, of bounded length, from bytes in any pieces.

/// Collects one line at a time.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    line: Vec<u8>,
    longest: usize,
}

/// What [`Lines::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A line without its end, CR LF or LF.
    Line(Vec<u8>),
    /// The bytes are used up.
    More,
    /// The line is longer than allowed.
    TooLong,
}

impl Lines {
    /// Of at most so many bytes, the end apart.
    pub fn new(longest: usize) -> Self {
        Self { line: Vec::new(), longest }
    }

    /// The next line; `bytes` is what is left then.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Taken {
        let end = bytes.iter().position(|b| *b == b'\n');
        let (piece, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        // One byte more: the CR that may come before the LF.
        if self.line.len() + piece.len() > self.longest + 1 {
            return Taken::TooLong;
        }
        self.line.extend_from_slice(piece);
        *bytes = rest.get(1..).unwrap_or_default();
        if end.is_none() {
            return Taken::More;
        }
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > self.longest { Taken::TooLong } else { Taken::Line(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_bounded_length() {
        let mut lines = Lines::new(4);
        let mut bytes = &b"abcd\r\n\nx\ry\nab"[..];
        for line in ["abcd", "", "x\ry"] {
            assert_eq!(lines.take(&mut bytes), Taken::Line(line.into()));
        }
        assert_eq!((lines.take(&mut bytes), bytes), (Taken::More, &b""[..]));
        assert_eq!(lines.line, b"ab");
        assert_eq!(lines.take(&mut &b"cd\r"[..]), Taken::More);
        assert_eq!(lines.take(&mut &b"\n"[..]), Taken::Line(b"abcd".to_vec()));
        assert_eq!(lines.take(&mut &b"abcde\n"[..]), Taken::TooLong);
        let mut lines = Lines::new(4);
        assert_eq!(lines.take(&mut &b"abcdef"[..]), Taken::TooLong);
    }

    #[test]
    fn an_endless_line_costs_nothing() {
        let mut lines = Lines::new(100);
        let mut most = 0;
        for _ in 0..100_000 {
            let _ = lines.take(&mut &b"0123456789"[..]);
            most = most.max(lines.line.capacity());
        }
        assert!(most < 1000, "{most}");
    }
}
