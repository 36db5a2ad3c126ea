//! Why a check failed: words for the operator, bounded whatever the server sent.

use std::borrow::Cow;
use std::fmt;

/// Longest text of a server that a reason quotes, characters.
const QUOTE: usize = 80;

/// The reason of a failure: reads as the end of "the check failed: ".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Why(Cow<'static, str>);

impl Why {
    /// The attempt took longer than the timeout.
    pub const TIMEOUT: Self = Self(Cow::Borrowed("timeout"));

    /// Fixed words.
    pub const fn of(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Words made up: of an operating system's error, for instance.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Cow::Owned(text.into()))
    }

    /// `what`, and what the server sent, shortened and made harmless for a terminal.
    pub fn quoting(what: &str, bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes.get(..4 * QUOTE).unwrap_or(bytes));
        let mut quoted: String = text.chars().take(QUOTE).flat_map(char::escape_debug).collect();
        if text.chars().count() > QUOTE || bytes.len() > 4 * QUOTE {
            quoted.push('…');
        }
        Self::new(format!("{what} \"{quoted}\""))
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_short_and_harmless() {
        assert_eq!(Why::quoting("greeting is", b"554 no\x1b[2J").to_string(), "greeting is \"554 no\\u{1b}[2J\"");
        let long = Why::quoting("line", &[0xff; 100_000]).to_string();
        assert!(long.chars().count() < 100 && long.ends_with("…\""), "{long}");
    }
}
