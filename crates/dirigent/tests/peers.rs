//! A small sample of `make bench-peers`: two contestants, some cases, one round. Needs root.

mod common;

use common::BIN;
use dirigent_testkit::marked;
use dirigent_testkit::peers::{Options, run};
use dirigent_testkit::peers::{page, plot};
use std::path::Path;

#[test]
fn ours_and_routing_are_measured_side_by_side() {
    let only = vec!["frames xdp dr stream,datagrams,latency".to_owned()];
    let options = Options { dirigent: BIN.into(), rounds: 1, seconds: 1, only };
    let report = run(&options, &mut |_, _, _| ()).unwrap();
    let rows = serde_json::to_value(report.saved()).unwrap()["rows"].as_array().unwrap().clone();
    // What goes through and CPU time of two cases, and three times to answer; routing is always beside.
    assert_eq!(rows.len(), 2 * (2 * 2 + 3), "{rows:#?}");
    for row in rows {
        assert!(row["best"].as_f64().is_some_and(|value| value > 0.0), "{row}");
        assert!(row["ratio"].as_f64().is_some_and(|value| value > 0.0), "{row}");
    }
    assert!(page::tables(&report).contains("| xdp dr |") && plot::rates(&report).lines().any(|line| line == "xdp dr"));
}

/// The documents have the marks that a run looks for, a table each, and the pictures that are shown.
#[test]
fn documents_have_room_for_the_tables() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for file in ["README.md", "docs/peers.md"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let replaced = marked::with(&text, page::TABLES, "nothing\n").unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(text.lines().count() > replaced.lines().count() + 5, "{file} has no table: make bench-peers");
    }
    let text = std::fs::read_to_string(root.join("docs/peers.md")).unwrap();
    for picture in text.split("](").filter_map(|rest| rest.split_once(')')).filter(|(file, _)| file.ends_with(".svg")) {
        assert!(root.join("docs").join(picture.0).exists(), "{}", picture.0);
    }
    assert_eq!(text.matches(".svg)").count(), 3);
}
