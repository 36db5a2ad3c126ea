//! docs/drops.md against the enum it documents, both ways.
#![expect(clippy::panic, clippy::expect_used, reason = "a test")]

use dirigent_director::verdict::{Reason, ReasonKind};
use std::path::Path;

/// Name, kind, meaning and remedy of each row of docs/drops.md.
fn rows() -> Vec<[String; 4]> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/drops.md");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
        cells.collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("not four cells: {line}"))
    };
    rows.map(cells).collect()
}

fn kind(reason: Reason) -> &'static str {
    match reason.kind() {
        ReasonKind::Forwarded => "forwarded",
        ReasonKind::Passed => "passed",
        ReasonKind::Answered => "answered",
        ReasonKind::Dropped => "dropped",
    }
}

#[test]
fn every_reason_is_documented() {
    let rows = rows();
    let missing = Reason::ALL.iter().filter(|r| !rows.iter().any(|[name, ..]| name == r.name()));
    let missing: Vec<_> = missing.map(|r| r.name()).collect();
    assert!(missing.is_empty(), "docs/drops.md has no row for {missing:?}");
}

#[test]
fn every_documented_reason_exists_with_its_kind() {
    for [name, stated, meaning, remedy] in rows() {
        let reason = Reason::ALL.iter().find(|r| r.name() == name);
        let reason = reason.unwrap_or_else(|| panic!("docs/drops.md has `{name}`, verdict.rs has not"));
        assert_eq!(kind(*reason), stated, "the kind of `{name}`");
        assert!(meaning.ends_with('.') && remedy.ends_with('.'), "`{name}`: a meaning and a remedy, as sentences");
    }
}

#[test]
fn rows_stand_in_the_order_of_the_counters() {
    let place = |name: &String| Reason::ALL.iter().position(|r| r.name() == name).expect("known");
    let order: Vec<_> = rows().iter().map(|[name, ..]| place(name)).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(order.len(), Reason::ALL.len(), "a reason stands twice or is missing");
}
