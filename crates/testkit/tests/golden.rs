//! The recordings that this version must match, and the rules that excuse steps.

use std::path::{Path, PathBuf};

use dirigent_testkit::golden::kernel::{InKernel, Path as KernelPath};
use dirigent_testkit::golden::recording::Recording;
use dirigent_testkit::golden::{Executor, memory::Memory, rules::RULES, run_recording};

/// Recordings of NAT, and of what goes with it.
const REQUIRED: [&str; 7] = [
    "nat-conntrack-4", "ops-nat-4", "schedule-icmp-4", "toobig-nat-4", "toobig-nat-6", "xmit-nat-4", "xmit-nat-6",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The recordings stand beside the clone; where they do not, the test says so.
fn recordings() -> Option<PathBuf> {
    let oracle = std::env::var_os("DIRIGENT_ORACLE").map_or_else(|| root().join("../shared/oracle"), PathBuf::from);
    let directory = oracle.join("golden/xmit");
    if directory.is_dir() {
        return Some(directory);
    }
    eprintln!("SKIPPED: no recordings in {} (set DIRIGENT_ORACLE)", directory.display());
    None
}

fn matches(executor: &mut dyn Executor) {
    let Some(directory) = recordings() else { return };
    for name in REQUIRED {
        let text = std::fs::read_to_string(directory.join(format!("{name}.json"))).unwrap();
        let recording: Recording = serde_json::from_str(&text).unwrap();
        let report = run_recording(executor, &recording, true);
        assert_eq!(report.failed, 0, "{}", report.text);
        assert!(report.passed > 0);
    }
}

#[test]
fn recordings_match_in_memory() {
    matches(&mut Memory::default());
}

#[test]
fn recordings_match_on_xdp() {
    matches(&mut InKernel::new(KernelPath::Xdp));
}

#[test]
fn recordings_match_on_tc() {
    matches(&mut InKernel::new(KernelPath::Tc));
}

/// A rule without a row would excuse in silence; a row without a rule promises nothing.
#[test]
fn every_rule_has_a_row_and_every_row_a_rule() {
    let text = std::fs::read_to_string(root().join("docs/differences.md")).unwrap();
    let (rules, _) = text.split_once("## Differences that no recording shows").unwrap();
    let rows = rules.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let mut rows: Vec<&str> = rows.filter(|id| *id != "Rule").collect();
    let mut ids: Vec<&str> = RULES.iter().map(|rule| rule.id).collect();
    rows.sort_unstable();
    ids.sort_unstable();
    assert_eq!(rows, ids);
}

/// What a runner must not do: pass what differs. A recording with one wrong byte fails.
#[test]
fn a_wrong_byte_is_noticed() {
    let Some(directory) = recordings() else { return };
    let text = std::fs::read_to_string(directory.join("nat-conntrack-4.json")).unwrap();
    let mut recording: Recording = serde_json::from_str(&text).unwrap();
    let frame = &mut recording.steps[0].out[0].frame;
    let last = frame.pop().unwrap();
    frame.push(if last == '0' { '1' } else { '0' });
    let report = run_recording(&mut Memory::default(), &recording, true);
    assert_eq!((report.failed, report.excused()), (1, 0), "{}", report.text);
    assert!(report.text.contains("expected:"));
}
