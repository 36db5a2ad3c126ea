//! Patterns for bodies.
//!
//! They are PCRE2's, by the library itself: patterns are the operator's, most of them written for keepalived, and no
//! crate in Rust knows that syntax whole. They are interpreted, not compiled to machine code: a daemon that may not
//! write to executable memory could not do that. PCRE2's own limits hold (10 million steps, 20 MB), so that a pattern
//! that explodes is a failure and no hang.

use crate::check::Regex;
use crate::why::Why;
use pcre2::bytes::{Regex as Compiled, RegexBuilder};

/// How an option of PCRE2 is had.
enum Way {
    /// The library's builder has it.
    Builder(fn(&mut RegexBuilder) -> &mut RegexBuilder),
    /// The pattern says so at its very beginning.
    Verb(&'static str),
    /// The pattern says so after that.
    Setting(&'static str),
    /// It changes no result here.
    Nothing,
}

/// Options by keepalived's names.
const OPTIONS: [(&str, Way); 14] = [
    ("auto_callout", Way::Nothing),
    ("caseless", Way::Builder(|b| b.caseless(true))),
    ("dotall", Way::Builder(|b| b.dotall(true))),
    ("dupnames", Way::Setting("(?J)")),
    ("extended", Way::Builder(|b| b.extended(true))),
    ("multiline", Way::Builder(|b| b.multi_line(true))),
    ("no_auto_capture", Way::Setting("(?n)")),
    ("no_auto_possess", Way::Verb("(*NO_AUTO_POSSESS)")),
    ("no_dotstar_anchor", Way::Verb("(*NO_DOTSTAR_ANCHOR)")),
    ("no_start_optimize", Way::Verb("(*NO_START_OPT)")),
    ("ucp", Way::Verb("(*UCP)")),
    ("ungreedy", Way::Setting("(?U)")),
    // Offsets are looked at here, not by the library.
    ("use_offset_limit", Way::Nothing),
    ("utf", Way::Builder(|b| b.utf(true))),
];

/// A pattern that is ready to match.
#[derive(Clone, Debug)]
pub struct Pattern {
    compiled: Compiled,
    invert: bool,
    min: usize,
    max: usize,
}

impl Pattern {
    /// Of these settings; the error says what PCRE2 does not like.
    pub fn new(regex: &Regex) -> Result<Self, Why> {
        let mut builder = RegexBuilder::new();
        let (mut verbs, mut settings) = (String::new(), String::new());
        for name in &regex.options {
            match OPTIONS.iter().find(|(known, _)| known == name) {
                Some((_, Way::Builder(set))) => {
                    set(&mut builder);
                }
                Some((_, Way::Verb(verb))) => verbs += verb,
                Some((_, Way::Setting(setting))) => settings += setting,
                Some((_, Way::Nothing)) => {}
                None => return Err(Why::new(format!("option {name:?} is not available"))),
            }
        }
        let (own, rest) = regex.pattern.split_at(verbs_at_the_start(&regex.pattern));
        let pattern = format!("{verbs}{own}{settings}{rest}");
        let compiled = builder.build(&pattern).map_err(|error| {
            // Where it is counts from the start of what the operator wrote.
            let shift = verbs.len() + if error.offset() > Some(verbs.len() + own.len()) { settings.len() } else { 0 };
            let at = error.offset().map_or(0, |at| at.saturating_sub(shift));
            Why::new(format!("{} at byte {at}", words(&error)))
        })?;
        let offset = |n: Option<u32>, none| n.map_or(none, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let (min, max) = (offset(regex.min_offset, 0), offset(regex.max_offset, usize::MAX));
        Ok(Self { compiled, invert: regex.invert, min, max })
    }

    /// Whether the body is as it should be.
    pub fn judge(&self, body: &[u8]) -> Result<(), Why> {
        // PCRE2 begins at an offset of the body or not at all.
        let found = if self.min > body.len() { Ok(None) } else { self.compiled.find_at(body, self.min) };
        match found {
            Err(error) => Err(Why::new(format!("the regex gave up: {}", words(&error)))),
            Ok(found) => match (found.is_some_and(|found| found.start() <= self.max), self.invert) {
                (true, false) | (false, true) => Ok(()),
                (false, false) => Err(Why::of("the body does not match the regex")),
                (true, true) => Err(Why::of("the body matches the regex")),
            },
        }
    }
}

/// What the library says, without who says it.
fn words(error: &pcre2::Error) -> String {
    let text = error.to_string();
    text.splitn(3, ": ").last().unwrap_or_default().to_owned()
}

/// How long the verbs are with which a pattern begins, such as `(*UTF)`: they must come first.
fn verbs_at_the_start(pattern: &str) -> usize {
    let mut at = 0;
    while let Some(rest) = pattern.get(at..).and_then(|rest| rest.strip_prefix("(*")) {
        let name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_' || c == '=';
        match rest.find(|c| !name(c)) {
            Some(end) if rest.get(end..).is_some_and(|rest| rest.starts_with(')')) => at += end + 3,
            _ => break,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::REGEX_OPTIONS;

    fn regex(pattern: &str, options: &[&str]) -> Regex {
        let options = options.iter().map(|o| o.to_string()).collect();
        Regex { pattern: pattern.into(), options, ..Regex::default() }
    }

    #[test]
    fn options_do_what_they_say() {
        for (pattern, option, body, without, with) in [
            ("ok", "caseless", "OK", false, true),
            ("a.b", "dotall", "a\nb", false, true),
            ("^b", "multiline", "a\nb", false, true),
            ("a b", "extended", "ab", false, true),
            (r"^.$", "utf", "ä", false, true),
            (r"^\w+$", "ucp", "\u{e4}", false, false),
            ("(?<n>a)|(?<n>b)", "dupnames", "b", false, true),
            (r"^(a)\1", "no_auto_capture", "aa", true, false),
            ("^(?>a+)a", "ungreedy", "aa", false, true),
            ("ok", "auto_callout", "ok", true, true),
            ("ok", "use_offset_limit", "ok", true, true),
            ("a+b", "no_auto_possess", "aab", true, true),
            (".*b", "no_dotstar_anchor", "ab", true, true),
            ("ab", "no_start_optimize", "ab", true, true),
        ] {
            let judge = |options: &[&str]| {
                Pattern::new(&regex(pattern, options)).is_ok_and(|p| p.judge(body.as_bytes()).is_ok())
            };
            assert_eq!((judge(&[]), judge(&[option])), (without, with), "{option}");
            // They may stand behind what the pattern itself begins with.
            assert!(Pattern::new(&regex("(*UTF)(*LIMIT_MATCH=1000)x", &[option])).is_ok(), "{option}");
        }
        let both = Pattern::new(&regex(r"^\w+$", &["utf", "ucp"])).unwrap();
        assert_eq!(both.judge("ä".as_bytes()), Ok(()));
        assert_eq!(OPTIONS.map(|(name, _)| name), REGEX_OPTIONS);
    }

    #[test]
    fn offsets() {
        // The match begins at 2, or at 5 if it may not before 3.
        for (min, max, matches) in [
            (None, None, true),
            (Some(2), Some(2), true),
            (None, Some(1), false),
            (Some(3), Some(4), false),
            (Some(3), Some(5), true),
            (Some(6), None, false),
            (Some(7), None, false),
            (Some(8), None, false),
            (Some(u32::MAX), Some(u32::MAX), false),
        ] {
            for invert in [false, true] {
                let regex = Regex { min_offset: min, max_offset: max, invert, ..regex("ok", &[]) };
                let verdict = Pattern::new(&regex).unwrap().judge(b"..ok.ok");
                assert_eq!(verdict.is_ok(), matches != invert, "{min:?} {max:?} {invert}");
            }
        }
        let at_the_end = Regex { min_offset: Some(2), ..regex("$", &[]) };
        assert_eq!(Pattern::new(&at_the_end).unwrap().judge(b"ok"), Ok(()));
    }

    #[test]
    fn faults_of_patterns() {
        let fault = |pattern, options: &[&str]| Pattern::new(&regex(pattern, options)).unwrap_err().to_string();
        assert_eq!(fault("a(b", &[]), "missing closing parenthesis at byte 3");
        assert_eq!(fault("a(b", &["no_auto_possess", "ungreedy"]), "missing closing parenthesis at byte 3");
        assert_eq!(fault("a", &["firstline"]), "option \"firstline\" is not available");
    }

    #[test]
    fn what_explodes_gives_up() {
        let began = std::time::Instant::now();
        let why = Pattern::new(&regex("(a+)+$", &[])).unwrap().judge(&[[b'a'; 40].as_slice(), b"b"].concat());
        assert_eq!(why.unwrap_err().to_string(), "the regex gave up: match limit exceeded");
        println!("it took {:?}", began.elapsed());
        // Not UTF-8.
        let why = Pattern::new(&regex("a", &["utf"])).unwrap().judge(b"\xffa").unwrap_err().to_string();
        assert!(why.starts_with("the regex gave up: UTF-8 error"), "{why}");
    }
}
