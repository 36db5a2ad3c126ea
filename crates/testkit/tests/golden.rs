//! The recordings that this version must match, and the rules that excuse steps.

use std::path::{Path, PathBuf};

use dirigent_testkit::golden::kernel::{InKernel, Path as KernelPath};
use dirigent_testkit::golden::recording::Recording;
use dirigent_testkit::golden::script::{Op, Script};
use dirigent_testkit::golden::{
    Bed, Executor, Report, Unsupported, memory::Memory, rules::RULES, run_directory, run_recording, run_script,
    run_states,
};

/// Recordings of each method, and of what goes with them.
const REQUIRED: [&str; 20] = [
    "nat-conntrack-4",
    "ops-nat-4",
    "schedule-icmp-4",
    "toobig-dr-4",
    "toobig-nat-4",
    "toobig-nat-6",
    "toobig-tun-6",
    "tun-icmp-4",
    "tun-nopmtu-4",
    "tun-pmtu-6",
    "tunnel-gre-csum-4in6",
    "tunnel-gre-csum-6in4",
    "tunnel-gue-csum-4in4",
    "tunnel-gue-remcsum-6in6",
    "tunnel-ipip-4in6",
    "xmit-dr-4",
    "xmit-dr-6",
    "xmit-nat-4",
    "xmit-nat-6",
    "xmit-tun-4",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The recordings of frames.
fn recordings() -> Option<PathBuf> {
    recordings_of("xmit")
}

/// The recordings stand beside the clone. Where they do not, the test says so, and CI
/// does not let it pass.
fn recordings_of(format: &str) -> Option<PathBuf> {
    let golden = match (std::env::var_os("DIRIGENT_GOLDEN"), std::env::var_os("DIRIGENT_ORACLE")) {
        (Some(golden), _) => PathBuf::from(golden),
        (None, Some(oracle)) => Path::new(&oracle).join("golden"),
        (None, None) => root().join("../shared/oracle/golden"),
    };
    let directory = golden.join(format);
    if directory.is_dir() {
        return Some(directory);
    }
    let word = format!("no recordings in {} (set DIRIGENT_GOLDEN)", directory.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{word}");
    eprintln!("SKIPPED: {word}");
    None
}

/// The whole directory: nothing in it fails.
fn nothing_fails(directory: &Path, executor: impl Executor + 'static) -> Report {
    let mut executors: Vec<Box<dyn Executor>> = vec![Box::new(executor)];
    let mut failures = String::new();
    let report = run_directory(directory, &mut executors, Unsupported::IsSkipped, &mut |ran| {
        if ran.failed > 0 {
            failures += &ran.to_string();
        }
    });
    let report = report.unwrap();
    assert_eq!(report.failed, 0, "{failures}");
    report
}

/// Nothing fails, and what must be in this version was run.
fn matches(executor: impl Executor + 'static) {
    let Some(directory) = recordings() else { return };
    let report = nothing_fails(&directory, executor);
    for name in REQUIRED {
        let ran = report.runs.iter().find(|ran| ran.recording == name);
        assert!(ran.is_some_and(|ran| ran.not_run.is_none() && ran.passed > 0), "{name} was not run");
    }
}

#[test]
fn recordings_match_in_memory() {
    matches(Memory::default());
}

#[test]
fn recordings_match_on_xdp() {
    matches(InKernel::new(KernelPath::Xdp));
}

#[test]
fn recordings_match_on_tc() {
    matches(InKernel::new(KernelPath::Tc));
}

/// Of the recordings of schedulers all are run, and nothing fails.
fn schedulers_match(executor: impl Executor + 'static) {
    let Some(directory) = recordings_of("sched") else { return };
    let report = nothing_fails(&directory, executor);
    assert!(report.runs.len() >= 225);
    for ran in &report.runs {
        assert!(ran.not_run.is_none() && ran.passed > 0, "{} was not run: {ran}", ran.recording);
    }
    for rule in ["reuse", "timer", "unhooked"] {
        assert!(report.excused.contains_key(rule), "nothing is excused by {rule} any more");
    }
}

#[test]
fn schedulers_match_in_memory() {
    schedulers_match(Memory::default());
}

#[test]
fn schedulers_match_on_xdp() {
    schedulers_match(InKernel::new(KernelPath::Xdp));
}

#[test]
fn schedulers_match_on_tc() {
    schedulers_match(InKernel::new(KernelPath::Tc));
}

/// Of the recordings of states all are run, and nothing fails.
fn states_match(executor: impl Executor + 'static) {
    let Some(directory) = recordings_of("states") else { return };
    let report = nothing_fails(&directory, executor);
    assert!(report.runs.len() >= 8);
    for ran in report.runs {
        assert!(ran.not_run.is_none() && ran.passed > 0, "{} was not run: {ran}", ran.recording);
    }
}

#[test]
fn states_match_in_memory() {
    states_match(Memory::default());
}

#[test]
fn states_match_on_xdp() {
    states_match(InKernel::new(KernelPath::Xdp));
}

#[test]
fn states_match_on_tc() {
    states_match(InKernel::new(KernelPath::Tc));
}

/// What the runner of states must not do: pass what differs. Each fact of each step, changed, fails.
#[test]
fn a_wrong_state_is_noticed() {
    let Some(directory) = recordings_of("states") else { return };
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(directory.join(name)).unwrap()).unwrap()
    };
    let change = |of: &serde_json::Value| match of {
        serde_json::Value::Bool(is) => (!is).into(),
        serde_json::Value::Null => "LISTEN".into(),
        serde_json::Value::Number(n) => (n.as_f64().unwrap() as i64 + 3).into(),
        _ => serde_json::Value::from("LAST_ACK"),
    };
    let mut tried = 0;
    for (name, fields) in [
        ("states-tcp-gate.json", &["state", "to", "timer", "passed", "active", "inactive"][..]),
        ("states-udp-masq.json", &["state", "to", "timer", "passed", "active", "inactive"]),
        ("states-lifetime.json", &["state", "timer"]),
    ] {
        for field in fields {
            let mut value = read(name);
            let steps = value["steps"].as_array_mut().unwrap();
            // Without an entry there is no time, and nothing to compare one with.
            steps.retain(|step| *field != "timer" || !step["timer"].is_null());
            steps.iter_mut().for_each(|step| step[*field] = change(&step[*field]));
            let steps = steps.len();
            let ran = run_states(&mut Memory::default(), &serde_json::from_value(value).unwrap(), Unsupported::Fails);
            assert_eq!((ran.failed, ran.passed, ran.excused()), (steps, 0, 0), "{name} {field}: {ran}");
            tried += 1;
        }
    }
    // The end earlier than the time says.
    let mut value = read("states-lifetime.json");
    let steps = value["steps"].as_array_mut().unwrap();
    steps.iter_mut().for_each(|step| step["gone_after"] = (step["timer"].as_f64().unwrap() - 2.0).into());
    let steps = steps.len();
    let ran = run_states(&mut Memory::default(), &serde_json::from_value(value).unwrap(), Unsupported::Fails);
    assert_eq!(ran.failed, steps, "{ran}");
    assert_eq!(tried, 14);
}

/// What ipvsadm prints, and all that it is not told: each file was run, and nothing fails.
fn texts_match(executor: impl Executor + 'static) {
    let Some(directory) = recordings_of("text") else { return };
    let report = nothing_fails(&directory, executor);
    let passed: Vec<_> = report.runs.iter().map(|ran| (ran.recording.as_str(), ran.passed, ran.excused())).collect();
    assert_eq!(report.runs.len(), 3, "{passed:?}");
    assert!(report.runs.iter().all(|ran| ran.not_run.is_none() && ran.passed > ran.excused()), "{passed:?}");
}

#[test]
fn texts_match_in_memory() {
    texts_match(Memory::default());
}

#[test]
fn texts_match_on_xdp() {
    texts_match(InKernel::new(KernelPath::Xdp));
}

#[test]
fn texts_match_on_tc() {
    texts_match(InKernel::new(KernelPath::Tc));
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
    // Several rules may be of one number.
    ids.dedup();
    assert_eq!(rows, ids);
}

fn recording(directory: &Path, name: &str) -> Recording {
    serde_json::from_str(&std::fs::read_to_string(directory.join(format!("{name}.json"))).unwrap()).unwrap()
}

/// What a runner must not do: pass what differs. With one byte of every recorded frame
/// changed, no step that has frames passes; with all frames taken away, neither.
#[test]
fn a_wrong_byte_is_noticed() {
    let Some(directory) = recordings() else { return };
    for name in REQUIRED {
        let as_recorded = run_recording(&mut Memory::default(), &recording(&directory, name), Unsupported::Fails);
        // Where a rule wants something else to come out, or nothing.
        let excused: Vec<usize> = as_recorded.excused.values().flatten().copied().collect();
        for take_away in [false, true] {
            let mut recording = recording(&directory, name);
            let with_frames: Vec<usize> =
                (0..recording.steps.len()).filter(|i| !recording.steps[*i].out.is_empty()).collect();
            for step in &mut recording.steps {
                for out in &mut step.out {
                    let last = out.frame.pop().unwrap();
                    out.frame.push(if last == '0' { '1' } else { '0' });
                }
                if take_away {
                    step.out.clear();
                }
            }
            let ran = run_recording(&mut Memory::default(), &recording, Unsupported::Fails);
            let failed: Vec<usize> = ran.mismatches.iter().map(|m| m.step).collect();
            for step in with_frames {
                assert!(failed.contains(&step) || excused.contains(&step), "{name} step {step} passed");
            }
        }
    }
}

fn script(directory: &Path, name: &str) -> Script {
    serde_json::from_str(&std::fs::read_to_string(directory.join(format!("{name}.json"))).unwrap()).unwrap()
}

/// What a recording of schedulers expects, made wrong in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Server,
    Count,
    Order,
    Row,
}

/// Whether there was something to make wrong.
fn make_wrong(step: &mut dirigent_testkit::golden::script::Step, wrong: Wrong) -> bool {
    match (wrong, &mut step.op, &mut step.load) {
        (Wrong::Server, Op::Open { to, .. } | Op::Packet { to, .. }, _) => {
            *to = if to.as_deref() == Some("rs9") { None } else { Some("rs9".into()) };
            true
        }
        (Wrong::Count, _, Some(load)) => match load.0.last_mut() {
            Some((_, counts)) => {
                counts[0][2] += 1;
                true
            }
            None => false,
        },
        (Wrong::Order, _, Some(load)) => {
            load.0.reverse();
            load.0.len() > 1
        }
        (Wrong::Row, Op::Table { conns }, _) => match conns.first_mut() {
            Some(row) => {
                row[1] = "LISTEN".into();
                true
            }
            None => false,
        },
        _ => false,
    }
}

/// No step passes, and no rule excuses it, if another server, count, order or row is
/// expected than was recorded.
#[test]
fn a_wrong_server_or_load_is_noticed() {
    let Some(directory) = recordings_of("sched") else { return };
    for name in
        ["change-wrr", "no-servers", "nodest-enc0", "reuse-mode1", "sched6-wlc-w1-2-3", "udp-expiry", "udp-mh-ops"]
    {
        for wrong in [Wrong::Server, Wrong::Count, Wrong::Order, Wrong::Row] {
            let mut script = script(&directory, name);
            let changed: Vec<usize> =
                (0..script.steps.len()).filter(|at| make_wrong(&mut script.steps[*at], wrong)).collect();
            let ran = run_script(&mut Memory::default(), &script, Unsupported::Fails);
            let failed: Vec<usize> = ran.mismatches.iter().map(|m| m.step).collect();
            for step in changed {
                assert!(failed.contains(&step), "{name} step {step} passed with a wrong {wrong:?}");
            }
        }
    }
}

/// Marks and prefixes as IPVS's users have them: what a rule by mark makes local is so for
/// marked packets only, and only as long as there is the rule and the mark.
#[test]
fn what_a_rule_by_mark_makes_local_is_so_for_marked_packets() {
    let Some(directory) = recordings_of("sched") else { return };
    let route = "# ip route add local 0.0.0.0/0 dev lo table 100";
    let rule = "# ip rule add fwmark 1 lookup 100";
    let executors: [Box<dyn Executor>; 3] = [
        Box::new(Memory::default()),
        Box::new(InKernel::new(KernelPath::Xdp)),
        Box::new(InKernel::new(KernelPath::Tc)),
    ];
    for mut executor in executors {
        for (lines, there) in [(&[route, rule][..], true), (&[route], false), (&[rule], false)] {
            let mut script = script(&directory, "dest-rr");
            script.setup.retain(|line| !line.contains("route add local"));
            script.setup.extend(lines.iter().map(ToString::to_string));
            let ran = run_script(&mut *executor, &script, Unsupported::Fails);
            assert_eq!(ran.failed == 0, there, "{lines:?}: {ran}");
            assert!(ran.passed + ran.failed > 100, "{ran}");
        }
        // Without its mark rule a destination is not the service's.
        let mut script = script(&directory, "dest-rr");
        script.setup.retain(|line| !line.contains("-d 198.51.100.0/24"));
        assert_ne!(run_script(&mut *executor, &script, Unsupported::Fails).failed, 0);
    }
}

/// A mismatch of a scheduler says what was done, what was expected and what came.
#[test]
fn a_mismatch_of_a_scheduler_is_told_readably() {
    let Some(directory) = recordings_of("sched") else { return };
    let mut script = script(&directory, "nodest-enc0");
    let at = script.steps.iter().position(|step| step.note == "SYN again, rs1 removed").unwrap();
    let Op::Open { to, .. } = &mut script.steps[at].op else { panic!("another step") };
    *to = Some("rs1".into());
    let ran = run_script(&mut Memory::default(), &script, Unsupported::Fails);
    assert_eq!((ran.failed, ran.excused()), (1, 0), "{ran}");
    let text = ran.to_string();
    for word in [
        "nodest-enc0 (memory) step 27: open 11.0.0.1:5000 SYN again, rs1 removed",
        "verdict Transmit (request)",
        "expected: rs1; rs3 weight 1 active 2 inactive 0, rs2",
        "got:      rs3; rs3 weight 1 active 2 inactive 0, rs2",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// A mismatch says all that is needed to look into it.
#[test]
fn a_mismatch_is_told_readably() {
    let Some(directory) = recordings() else { return };
    let mut recording = recording(&directory, "nat-conntrack-4");
    recording.steps[0].out[0].side = "c".into();
    let ran = run_recording(&mut Memory::default(), &recording, Unsupported::Fails);
    assert_eq!((ran.failed, ran.excused()), (1, 0), "{ran}");
    let text = ran.to_string();
    for word in ["nat-conntrack-4 (memory) step 0", "verdict Transmit (request)", "expected:", "got:"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// By default what this version has not got counts as failed.
#[test]
fn what_is_not_in_this_version_fails_unless_skipping_is_asked_for() {
    let text = r#"{"name": "x", "setup": ["ipvsadm -A -t 192.0.2.10:80 -s rr --pe sip -p"],
        "steps": [{"note": "", "in": "c", "frame": "00"}, {"note": "", "conns": []}]}"#;
    let recording: Recording = serde_json::from_str(text).unwrap();
    let ran = run_recording(&mut Memory::default(), &recording, Unsupported::Fails);
    assert_eq!((ran.failed, ran.skipped), (2, 0), "{ran}");
    assert!(ran.not_run.is_some(), "{ran}");
    let ran = run_recording(&mut Memory::default(), &recording, Unsupported::IsSkipped);
    assert_eq!((ran.passed, ran.failed, ran.skipped), (0, 0, 2), "{ran}");

    let text = r#"{"name": "x", "proto": "udp", "setup": ["ipvsadm -A -u 192.0.2.10:80 -s rr --pe sip -p"],
        "steps": [{"op": "sleep", "seconds": 1}]}"#;
    let script: Script = serde_json::from_str(text).unwrap();
    let ran = run_script(&mut Memory::default(), &script, Unsupported::Fails);
    assert_eq!((ran.failed, ran.skipped), (1, 0), "{ran}");
    let ran = run_script(&mut Memory::default(), &script, Unsupported::IsSkipped);
    assert_eq!((ran.failed, ran.skipped), (0, 1), "{ran}");
    assert!(ran.not_run.as_deref().unwrap_or_default().contains("persistence engine"), "{ran}");
}

/// What runs beside the real kernel (`make live`) found once is kept, in the same form.
#[test]
fn what_live_runs_found_stays_found() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let mut executors: Vec<Box<dyn Executor>> = vec![
        Box::new(Memory::default()),
        Box::new(InKernel::new(KernelPath::Xdp)),
        Box::new(InKernel::new(KernelPath::Tc)),
    ];
    let report = run_directory(&directory, &mut executors, Unsupported::Fails, &mut |ran| {
        assert_eq!((ran.failed, ran.excused()), (0, 0), "{ran}");
    });
    assert!(report.unwrap().passed > 3 * 250);
}

/// The next hop of a server follows the recording's routes, neighbours behind them too.
#[test]
fn routes_of_a_recording_lead_to_servers() {
    let hop = |routes: &[&str], server: &str| {
        let routes: Vec<String> = routes.iter().map(|r| (*r).to_owned()).collect();
        let hop = Bed::new(1500, 1500, &routes).unwrap().next_hop(server.parse().unwrap());
        (hop.state.load(), hop.ifindex, hop.mtu, hop.dst.bytes()[4..].to_vec())
    };
    use dirigent_director::records::hop::{NO_ROUTE, RESOLVED};
    assert_eq!(hop(&[], "10.1.0.11"), (RESOLVED, 3, 1500, vec![1, 1]));
    assert_eq!(hop(&["route replace 10.1.0.0/24 dev r0 mtu lock 1400"], "10.1.0.12"), (RESOLVED, 3, 1400, vec![1, 2]));
    assert_eq!(hop(&["route add 10.1.0.8/29 via 10.1.0.99"], "10.1.0.11"), (RESOLVED, 3, 1500, vec![1, 0x99]));
    assert_eq!(
        hop(&["-6 route add fd00:9::/64 via fd00:1::99 dev r0"], "fd00:9::11"),
        (RESOLVED, 3, 1500, vec![1, 0x99])
    );
    assert_eq!(hop(&["route del 10.1.0.0/24"], "10.1.0.11"), (RESOLVED, 2, 1500, vec![0, 0xfe]));
    assert_eq!(hop(&["route add unreachable 10.1.0.11"], "10.1.0.11").0, NO_ROUTE);
}
