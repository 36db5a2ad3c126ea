//! Broken input: whatever is wrong with a file is told with its place and a remedy, and nothing panics.
#![allow(clippy::panic, clippy::indexing_slicing, missing_docs)]

use dirigent_config::import::{Loader, ipvsadm, keepalived};
use dirigent_config::ipvsadm::names::NoNames;
use dirigent_config::{Diagnostic, file};

const TOML: &str = include_str!("broken/good.toml");
const KEEPALIVED: &str = include_str!("broken/good.conf");
const RULES: &str = include_str!("broken/good.rules");

struct NoFiles;

impl Loader for NoFiles {
    fn load(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("there is no such file".into())
    }
    fn environment(&self, _: &str) -> Option<String> {
        None
    }
}

fn told(text: &str, found: &[Diagnostic]) {
    let lines = text.lines().count().max(1);
    for one in found {
        let placed = one.file == "f" && (1..=lines + 1).contains(&one.line) && one.column > 0;
        assert!(placed && !one.message.is_empty() && !one.remedy.is_empty(), "{one:?} about\n{text}");
    }
}

/// Whether it is wrong.
fn toml(text: &str) -> bool {
    match file::parse("f", text) {
        Ok(model) => {
            assert_eq!(file::parse("f", &file::to_toml(&model)), Ok(model), "{text}");
            false
        }
        Err(found) => {
            assert!(!found.0.is_empty());
            told(text, &found.0);
            true
        }
    }
}

fn conf(text: &str) -> bool {
    let found = keepalived("f", text, "host", &NoFiles);
    told(text, &found.faults);
    assert!(found.refused.iter().all(|one| one.place.starts_with("f:") && !one.reason.is_empty()));
    assert_eq!(file::parse("f", &file::to_toml(&found.model)).as_ref(), Ok(&found.model), "{text}");
    found.strict().is_err()
}

fn rules(text: &str) -> bool {
    let table = ipvsadm(text, &NoNames);
    assert!(table.refused.iter().all(|one| one.place.starts_with("line ") && !one.reason.is_empty()), "{text}");
    !table.refused.is_empty()
}

/// A good file, whether a text of its kind is wrong, and what makes it so.
type Kind = (&'static str, fn(&str) -> bool, &'static str);

const KINDS: [Kind; 3] = [
    (TOML, toml, include_str!("broken/toml.txt")),
    (KEEPALIVED, conf, include_str!("broken/keepalived.txt")),
    (RULES, rules, include_str!("broken/ipvsadm.txt")),
];

#[test]
fn good_files_are_good() {
    assert!(!toml(TOML) && !conf(KEEPALIVED) && !rules(RULES));
}

/// Each line of the lists says which words of the good file are replaced by which.
#[test]
fn each_broken_input_is_refused() {
    let mut count = 0;
    for (good, wrong, list) in KINDS {
        for line in list.lines() {
            let (old, new) = line.split_once(" => ").unwrap_or_else(|| panic!("{line}"));
            assert!(good.contains(old), "{line}");
            let text = good.replacen(old, &new.replace(" ; ", "\n"), 1);
            assert!(wrong(&text), "{line} is accepted");
            count += 1;
        }
    }
    assert!(count >= 80, "{count}");
}

/// Files with something cut, doubled, swapped or replaced, always the same ones: accepted, or refused in words.
#[test]
fn mutations_are_accepted_or_refused_in_words() {
    const JUNK: [&str; 12] = ["\"", "{", "}", "[", "]", "=", "-1", "99999999999999999999", "\\", "ä", "$", "\0"];
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let (mut refused, mut all) = (0, 0);
    for (good, wrong, _) in KINDS {
        for _ in 0..400 {
            let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
            for _ in 0..=random(3) {
                let (at, other) = (random(lines.len()), random(lines.len()));
                let junk = JUNK[random(JUNK.len())];
                let mut words: Vec<String> = lines[at].split(' ').map(str::to_owned).collect();
                let word = random(words.len());
                match random(5) {
                    0 => _ = lines.remove(at),
                    1 => lines.insert(other, lines[at].clone()),
                    2 => lines.swap(at, other),
                    3 => {
                        words.remove(word);
                        lines[at] = words.join(" ");
                    }
                    _ => {
                        words[word] = junk.into();
                        lines[at] = words.join(" ");
                    }
                }
            }
            refused += usize::from(wrong(&lines.join("\n")));
            all += 1;
        }
    }
    assert!(refused >= 300, "only {refused} of {all} are broken");
}
