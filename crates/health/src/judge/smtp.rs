//! SMTP (RFC 5321): the greeting, HELO and QUIT.
//!
//! HELO, as keepalived has it: every server knows it, and its answer is one line.

use super::lines::{Lines, Taken};
use super::{End, Stream};
use crate::machine::{Outcome, Weight};
use crate::why::Why;

/// Longest line of a reply, bytes: RFC 5321 section 4.5.3.1.5 allows 512, some servers send more.
const LINE: usize = 2048;

/// Most lines of a reply.
const MOST_LINES: u32 = 100;

/// What was said last, and what it is to be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Helo,
    Quit,
}

impl Said {
    fn wanted(self) -> u16 {
        match self {
            Self::Nothing => 220,
            Self::Helo => 250,
            Self::Quit => 221,
        }
    }
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "the greeting is",
            Self::Helo => "the answer to HELO is",
            Self::Quit => "the answer to QUIT is",
        }
    }
}

/// The conversation.
#[derive(Clone, Debug)]
pub struct Exchange {
    helo: String,
    said: Said,
    output: Vec<u8>,
    lines: Lines,
    /// Lines of this reply before the last, and its code.
    before: u32,
    code: Option<u16>,
    verdict: Option<Outcome>,
}

impl Exchange {
    /// One that gives this name.
    pub fn new(helo: &str) -> Self {
        let (said, lines) = (Said::Nothing, Lines::new(LINE));
        Self { helo: helo.to_owned(), said, output: Vec::new(), lines, before: 0, code: None, verdict: None }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Why> {
        let wrong = || Why::quoting(self.said.name(), line);
        let (code, last) = reply(line).ok_or_else(wrong)?;
        // All lines of a reply have the same code (section 4.2.1).
        if code != *self.code.get_or_insert(code) || code != self.said.wanted() {
            return Err(wrong());
        }
        if !last {
            self.before += 1;
            return if self.before < MOST_LINES { Ok(()) } else { Err(Why::of("a reply of too many lines")) };
        }
        (self.before, self.code) = (0, None);
        // Only now: who speaks before the greeting's last line is taken for a spammer by some servers.
        match self.said {
            Said::Nothing => self.say(Said::Helo, &format!("HELO {}\r\n", self.helo)),
            Said::Helo => self.say(Said::Quit, "QUIT\r\n"),
            Said::Quit => self.verdict = Some(Ok(Weight::Keep)),
        }
        Ok(())
    }

    fn say(&mut self, said: Said, text: &str) {
        self.said = said;
        self.output.extend_from_slice(text.as_bytes());
    }
}

/// The code of a line, and whether it is the reply's last.
fn reply(line: &[u8]) -> Option<(u16, bool)> {
    let (code, rest) = line.split_at_checked(3)?;
    let last = match rest.first() {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return None,
    };
    let digits = code.iter().all(u8::is_ascii_digit).then_some(code)?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, last))
}

impl Stream for Exchange {
    fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn on_bytes(&mut self, mut bytes: &[u8]) {
        while self.verdict.is_none() && !bytes.is_empty() {
            let step = match self.lines.take(&mut bytes) {
                Taken::Line(line) => self.line(&line),
                Taken::More => Ok(()),
                Taken::TooLong => Err(Why::of("a line of a reply is too long")),
            };
            if let Err(why) = step {
                self.verdict = Some(Err(why));
            }
        }
    }

    fn on_end(&mut self, _: End) {
        let why = match self.said {
            Said::Nothing => "closed before the greeting",
            Said::Helo => "closed before the answer to HELO",
            Said::Quit => "closed before the answer to QUIT",
        };
        self.verdict.get_or_insert(Err(Why::of(why)));
    }

    fn verdict(&self) -> Option<&Outcome> {
        self.verdict.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{converse, cuts, end, nearly};
    use super::*;
    use proptest::prelude::*;

    fn verdict(server: &str, end: Option<End>) -> (String, String) {
        let (outcome, sent) = converse(Exchange::new("lb.example"), server.as_bytes(), &[], end);
        let outcome = outcome.map_or("…".into(), |o| o.map_or_else(|why| why.to_string(), |_| "well".into()));
        (outcome, String::from_utf8(sent).unwrap())
    }

    #[test]
    fn conversations() {
        const HELO: &str = "HELO lb.example\r\n";
        const BOTH: &str = "HELO lb.example\r\nQUIT\r\n";
        for (server, expected, sent) in [
            // As in RFC 5321, appendix D.1.
            (
                "220 foo.com Simple Mail Transfer Service Ready\r\n250 foo.com greets bar.com\r\n\
                 221 foo.com Service closing transmission channel\r\n",
                "well",
                BOTH,
            ),
            ("220-teaser\r\n220-more\r\n220 foo\r\n250-foo\r\n250-8BITMIME\r\n250 SIZE\r\n221\r\n", "well", BOTH),
            ("220\n250\n221\n", "well", BOTH),
            ("220-teaser\r\n", "…", ""),
            ("220 foo\r\n", "…", HELO),
            ("220 foo\r\n250 foo\r\n", "…", BOTH),
            ("554 No SMTP service here\r\n", "the greeting is \"554 No SMTP service here\"", ""),
            ("421 busy\r\n", "the greeting is \"421 busy\"", ""),
            ("220 foo\r\n550 go away\r\n", "the answer to HELO is \"550 go away\"", HELO),
            ("220 foo\r\n250 foo\r\n250 what\r\n", "the answer to QUIT is \"250 what\"", BOTH),
            ("220-foo\r\n250 foo\r\n", "the greeting is \"250 foo\"", ""),
            ("HTTP/1.1 400 Bad Request\r\n", "the greeting is \"HTTP/1.1 400 Bad Request\"", ""),
            ("2200\r\n", "the greeting is \"2200\"", ""),
            ("22\r\n", "the greeting is \"22\"", ""),
            ("+20 x\r\n", "the greeting is \"+20 x\"", ""),
            ("\r\n", "the greeting is \"\"", ""),
        ] {
            assert_eq!(verdict(server, None), (expected.into(), sent.into()), "{server:?}");
        }
        assert_eq!(verdict("", Some(End::Clean)).0, "closed before the greeting");
        assert_eq!(verdict("220 a\r\n", Some(End::Clean)).0, "closed before the answer to HELO");
        assert_eq!(verdict("220 a\r\n250 b\r\n", Some(End::Clean)).0, "closed before the answer to QUIT");
    }

    #[test]
    fn endless_replies_cost_bounded_memory() {
        let line = "x".repeat(LINE - 4);
        assert_eq!(verdict(&format!("220 {line}\r\n"), None).0, "…");
        assert_eq!(verdict(&format!("220 {line}x\r\n"), None).0, "a line of a reply is too long");
        assert_eq!(verdict(&"220-x\r\n".repeat(10_000), None).0, "a reply of too many lines");
        assert_eq!(verdict(&format!("{}220 x\r\n", "220-x\r\n".repeat(99)), None).0, "…");
        assert_eq!(verdict(&"x".repeat(1 << 20), None).0, "a line of a reply is too long");
    }

    const WORDS: &[&str] =
        &["220 a\r\n", "220-", "250 b\r\n", "250-c\n", "221 bye\r\n", "\r\n", "\r", "554 no\r\n", "220"];

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in nearly(WORDS), cuts in cuts(), end in end()) {
            let whole = converse(Exchange::new("x"), &bytes, &[], end);
            prop_assert_eq!(&converse(Exchange::new("x"), &bytes, &cuts, end), &whole);
            prop_assert!(end.is_none() || whole.0.is_some());
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in cuts()) {
            let whole = converse(Exchange::new("x"), &bytes, &[], None);
            prop_assert_eq!(converse(Exchange::new("x"), &bytes, &cuts, None), whole);
        }
    }
}
