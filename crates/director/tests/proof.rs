//! docs/proof.md names tests and commands: each must be there.
#![expect(clippy::panic, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// All Rust sources below a directory, with their text.
fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.clone(), read(&path)));
        }
    }
}

/// Number and evidence of each row.
fn rows() -> Vec<(String, String)> {
    let text = read(&root().join("docs/proof.md"));
    let rows = text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| #") && !l.starts_with("| -"));
    let cells = |row: &str| {
        let cells: Vec<_> = row.trim().trim_matches('|').split('|').map(str::trim).collect();
        match cells.as_slice() {
            [number, _, evidence] => ((*number).to_owned(), (*evidence).to_owned()),
            _ => panic!("not three cells: {row}"),
        }
    };
    rows.map(cells).collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether the function exists: `crate::module::name` in crates/crate, bpf or fuzz, in a
/// file of which every module in between is part of the path.
fn exists(test: &str, all: &[(PathBuf, String)]) -> bool {
    let parts: Vec<_> = test.split("::").collect();
    let [krate, modules @ .., name] = parts.as_slice() else { return false };
    let home = match *krate {
        "bpf" | "fuzz" => root().join(krate),
        _ => root().join("crates").join(krate),
    };
    let function = format!("fn {name}(");
    all.iter().filter(|(path, _)| path.starts_with(&home)).any(|(path, text)| {
        let inside = path.strip_prefix(&home).unwrap_or(path).with_extension("");
        let has = |module: &&str| inside.iter().any(|part| part == *module) || text.contains(&format!("mod {module} "));
        text.contains(&function) && modules.iter().all(has)
    })
}

#[test]
fn every_row_names_what_exists() {
    let mut all = Vec::new();
    for dir in ["crates", "bpf", "fuzz"] {
        sources(&root().join(dir), &mut all);
    }
    let makefile = read(&root().join("Makefile"));
    let mut wrong = Vec::new();
    for (number, evidence) in rows() {
        for word in quoted(&evidence) {
            let there = if let Some(command) = word.strip_prefix("make ") {
                let target = command.split_whitespace().next().unwrap_or_default();
                makefile.lines().any(|line| line.starts_with(&format!("{target}:")))
            } else if word.contains("::") {
                exists(word, &all)
            } else {
                // A file of the project, or a command that begins with one.
                word.split_whitespace().next().is_some_and(|file| root().join(file).exists())
            };
            if !there {
                wrong.push(format!("{number}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/proof.md names what does not exist:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_has_evidence_or_says_that_it_has_none() {
    let rows = rows();
    assert!(!rows.is_empty());
    for (i, (number, evidence)) in rows.iter().enumerate() {
        let says = ["not yet", "instruction"].iter().any(|mark| evidence.contains(mark));
        assert!(says || quoted(evidence).next().is_some(), "{number}: neither evidence nor a mark");
        assert!(rows.iter().skip(i + 1).all(|(other, _)| other != number), "{number} stands twice");
    }
}
