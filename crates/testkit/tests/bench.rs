//! `make bench` in small: every case runs, every packet keeps to its path. Times are not
//! looked at here.

use std::path::Path;

use dirigent_testkit::bench::{Options, against, cases, changes, live, page, run};

fn small() -> Options {
    Options { rounds: 2, packets: 500, connections: 256, cpu: 0, servers: 16 }
}

#[test]
fn every_case_is_measured_and_every_packet_keeps_to_its_path() {
    let mut steps = 0;
    let report = run(&small(), "", &mut |_, _, _| steps += 1).unwrap();
    for case in cases::all(&small()) {
        let row =
            report.rows.iter().find(|row| row.name == case.name).unwrap_or_else(|| panic!("{} is missing", case.name));
        assert!(row.min_ns > 0.0 && row.min_ns <= row.median_ns, "{row:?}");
        assert_eq!(row.ratio.is_none(), case.goals.is_empty(), "{row:?}");
    }
    assert!(steps > 2, "nothing was said of the progress");
}

#[test]
fn live_connections_are_opened_swept_forwarded_and_ended() {
    let mut steps = Vec::new();
    let live = live::run(&small(), 5000, &mut |what, _, _| steps.push(what.to_owned())).unwrap();
    assert_eq!((live.connections, live.idle, live.beside_sweep.rounds), (5000, 0, 2));
    // Two elements of 128 bytes, at least.
    assert!(live.bytes_a_connection > 256.0 && live.bytes_a_connection < 1024.0, "{live}");
    // All but those that were in use are gone, or there would be an error.
    assert!(live.expiring == 5000 && live.beside_expiry.rounds > 1, "{live}");
    let times = [live.filled_s, live.sweep_s, live.paced_sweep_s, live.ended_s];
    let forwarding = [live.beside_sweep, live.beside_expiry];
    assert!(times.iter().all(|time| *time > 0.0), "{live}");
    assert!(forwarding.iter().all(|of| of.alone_ns > 0.0 && of.beside_ns > 0.0), "{live}");
    steps.dedup();
    assert_eq!(steps.len(), 7, "{steps:?}");
    let error = live::run(&small(), 1 << 28, &mut |_, _, _| ()).unwrap_err();
    assert!(error.contains("--live"), "{error}");
}

#[test]
fn the_configuration_changes_beside_packets() {
    let changes = changes::run(&small(), &mut |_, _, _| ()).unwrap();
    assert_eq!(changes.rows.iter().map(|row| &*row.name).collect::<Vec<_>>(), changes::CASES);
    // Each round beside changes has at least the one that it waited for.
    for row in &changes.rows {
        assert!(row.changes >= 1.0 && row.beside.rounds == 1 && row.beside.ratio > 0.0, "{row:?}");
    }
}

#[test]
fn another_program_is_measured_in_the_same_rounds() {
    let program = Path::new(env!("CARGO_BIN_EXE_bench"));
    let report = against::run(program, &small(), "dr v4 tcp request, 1", &mut |_, _, _| ()).unwrap();
    let names: Vec<_> = report.rows.iter().map(|row| &*row.name).collect();
    assert!(names.contains(&"hot floor") && names.contains(&"dr v4 tcp request, 1"), "{names:?}");
    assert!(report.only_ours.is_empty() && report.only_theirs.is_empty(), "{report}");
    assert!(report.rows.iter().all(|row| row.ours_ns > 0.0 && row.theirs_ns > 0.0), "{report}");
}

#[test]
fn a_packet_that_leaves_its_path_fails_the_run() {
    // 2,000 new connections, and tables for 256 known ones: four times as many.
    let options = Options { rounds: 1, packets: 10_000, connections: 256, cpu: 0, servers: 16 };
    let error = run(&options, "dr v4 wrr tcp new", &mut |_, _, _| ()).unwrap_err();
    assert!(error.starts_with("dr v4 wrr tcp new: ") && error.contains("left their path"), "{error}");
}

#[test]
fn the_page_asks_for_nothing_that_is_not_measured() {
    let Some(golden) = std::env::var_os("DIRIGENT_GOLDEN") else {
        println!("SKIPPED: no DIRIGENT_GOLDEN, beside which the page would be");
        return;
    };
    let path = std::path::Path::new(&golden).join("../../reference/performance.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(page::differences(&page), Vec::<String>::new());
}
