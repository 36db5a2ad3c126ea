//! The tables of metrics and of the log's events against all that names them: documentation, dashboard, alert rules, and the
//! lines of the log themselves.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

use dirigent_api::log;
use dirigent_api::metrics::{ALL, Kind, Row};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Rows of docs/metrics.md with so many cells, the first of which is a name.
fn documented(cells: usize) -> Vec<Vec<String>> {
    let text = read("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect());
    rows.filter(|row: &Vec<String>| row.len() == cells).collect()
}

fn quoted(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { "–".to_owned() } else { quoted.join(", ") }
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let known = ALL.iter().map(|row| {
        vec![format!("`{}`", row.name), row.kind.name().to_owned(), quoted(row.labels), row.help.to_owned()]
    });
    assert_eq!(documented(4), known.collect::<Vec<_>>());
}

/// Prometheus's conventions: what only grows ends in `_total` and nothing else does; base units; no label twice.
#[test]
fn names_keep_the_conventions() {
    let mut seen = HashSet::new();
    for Row { name, kind, help, labels } in ALL {
        assert!(seen.insert(name), "{name} is there twice");
        let owner = ["dirigent_", "process_", "node_ipvs_"].iter().find(|prefix| name.starts_with(**prefix));
        assert!(
            owner.is_some() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
            "{name}"
        );
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        for unit in ["milli", "micro", "_ms", "minutes", "kilobytes", "percent", "bits"] {
            assert!(!name.contains(unit), "{name} is not in base units");
        }
        assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
        assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len(), "{name}");
        // Those are the scraper's own.
        assert!(!labels.iter().any(|label| ["job", "instance", "le", "quantile"].contains(label)), "{name}");
    }
}

/// Words of a text that are names of metrics by their looks.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| ["dirigent_", "process_", "node_"].iter().any(|prefix| word.starts_with(prefix))).collect()
}

/// Every metric that an expression names is in the table, and every label that it names is one of theirs.
fn check(expression: &str) {
    let named = metrics(expression);
    let mut labels: BTreeSet<&str> = ["job", "instance", "severity"].into();
    for name in &named {
        let row = ALL.iter().find(|row| row.name == *name);
        labels.extend(row.unwrap_or_else(|| panic!("there is no {name}: {expression}")).labels);
    }
    let inside = |open: &str, close: char| {
        let parts = expression.split(open).skip(1);
        parts.map(move |part| part.split(close).next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let matched = inside("{", '}');
    let matched =
        matched.iter().flat_map(|all| all.split(", ")).map(|one| one.split(['=', '!']).next().unwrap_or_default());
    let grouped = [inside("by (", ')'), inside("on (", ')')].concat();
    let grouped = grouped.iter().flat_map(|all| all.split(", "));
    for label in matched.chain(grouped).filter(|label| !label.is_empty()) {
        assert!(labels.contains(label), "there is no label {label}: {expression}");
    }
}

/// All values of a key, wherever it is.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(entries) => {
            found.extend(entries.get(key));
            entries.values().for_each(|value| all(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| all(value, key, found)),
        _ => {}
    }
}

/// By Grafana's model: a schema, panels with places that do not overlap, each with what it asks for.
#[test]
fn the_dashboard_is_one_and_asks_for_what_there_is() {
    let board: Value = serde_json::from_str(&read("packaging/grafana/dirigent.json")).unwrap();
    assert!(board["schemaVersion"].as_u64().is_some_and(|version| version >= 36), "{}", board["schemaVersion"]);
    assert!(board["uid"].as_str().is_some_and(|uid| !uid.is_empty() && uid.len() <= 40));
    assert_eq!(board["title"], "Dirigent");
    // One that is imported gets an id of its own.
    assert!(board["id"].is_null());
    let variables = board["templating"]["list"].as_array().unwrap();
    let variables: Vec<_> = variables.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "job", "instance", "service"]);
    let (mut ids, mut taken, mut asked) = (HashSet::new(), HashSet::new(), 0);
    for panel in board["panels"].as_array().unwrap() {
        let (title, place) = (panel["title"].as_str().unwrap(), &panel["gridPos"]);
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| place[key].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies over another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            ["stat", "timeseries", "state-timeline", "table"].contains(&panel["type"].as_str().unwrap()),
            "{title}"
        );
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} asks for nothing");
        let mut letters = HashSet::new();
        for target in targets {
            assert!(letters.insert(target["refId"].as_str().unwrap()), "{title}");
            asked += 1;
        }
    }
    assert!(asked > 30, "{asked}");
    let (mut sources, mut expressions, mut definitions) = (Vec::new(), Vec::new(), Vec::new());
    all(&board, "datasource", &mut sources);
    for source in sources {
        let wanted = ["${datasource}", "-- Grafana --"];
        assert!(source["uid"].as_str().is_some_and(|uid| wanted.contains(&uid)), "{source}");
    }
    all(&board, "expr", &mut expressions);
    for expression in expressions {
        let text = expression.as_str().unwrap();
        assert!(!metrics(text).is_empty(), "{text}");
        check(text);
        for variable in
            text.split('$').skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        {
            let known = variables.iter().copied().chain(["__rate_interval"]).any(|name| Some(name) == variable);
            assert!(known, "{variable:?} is no variable: {text}");
        }
    }
    all(&board, "definition", &mut definitions);
    definitions.iter().for_each(|definition| check(definition.as_str().unwrap()));
    assert_eq!(definitions.len(), 3);
}

/// The value of a key in a file of rules, where each stands in a line of its own.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).collect()
}

/// What they mean `promtool test rules` says (`dirigent::metrics`): of each alert here it is asked.
#[test]
fn alerts_ask_for_what_there_is_and_each_is_tried() {
    let rules = read("packaging/prometheus/dirigent.rules.yml");
    let alerts = values(&rules, "alert");
    assert!(alerts.len() > 10, "{alerts:?}");
    for key in ["expr", "severity", "summary", "description"] {
        assert_eq!(values(&rules, key).len(), alerts.len(), "each alert has {key}");
    }
    values(&rules, "expr").into_iter().for_each(check);
    for severity in values(&rules, "severity") {
        assert!(["critical", "warning", "info"].contains(&severity), "{severity}");
    }
    let tests = read("packaging/prometheus/dirigent.rules.test.yml");
    metrics(&tests).into_iter().for_each(check);
    let (calm, tests) = tests.split_once("exp_samples: []").unwrap();
    let tested = values(tests, "alertname");
    for alert in alerts {
        assert!(tested.contains(&alert) || tests.contains(&format!("alertname=\"{alert}\"")), "{alert} is not tried");
    }
    // All that alerts look at is there while nothing is wrong.
    assert_eq!(metrics(calm), values(&rules, "expr").into_iter().flat_map(metrics).collect());
    // And every reason that they and the documentation name.
    let page = read("docs/drops.md");
    for reason in tests.split("reason=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(page.contains(&format!("| `{reason}` | dropped |")), "{reason}");
    }
}

/// All Rust sources below a directory.
fn sources(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// The macros of `tracing` that name an event: the event, and the other fields.
fn written() -> BTreeMap<String, BTreeSet<BTreeSet<String>>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let mut files = Vec::new();
    for krate in fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path()) {
        sources(&krate.join("src"), &mut files);
    }
    for (path, text) in files {
        for line in text.split("tracing::").skip(1).filter_map(|rest| rest.split_once('(')).map(|(_, inside)| inside) {
            let Some(rest) = line.trim_start().strip_prefix("event = \"") else { continue };
            let (event, rest) = rest.split_once('"').unwrap();
            // The sentence begins at the next piece that is none: a quote.
            let mut fields = BTreeSet::new();
            for piece in rest.split(',').map(str::trim).filter(|piece| !piece.is_empty()) {
                if piece.starts_with('"') {
                    break;
                }
                let name = piece.split('=').next().unwrap_or_default().trim().trim_start_matches(['%', '?']);
                fields.insert(name.to_owned());
            }
            assert!(!fields.is_empty(), "{}: {event}", path.display());
            found.entry(event.to_owned()).or_default().insert(fields);
        }
    }
    found
}

/// Each event of the log is written with its fields wherever it is written, and documented; nothing else is.
#[test]
fn events_of_the_log_are_written_and_documented_as_the_table_says() {
    let fields = |one: &log::Logged| one.fields.iter().map(|field| (*field).to_owned()).collect::<BTreeSet<_>>();
    let known = log::ALL.iter().map(|one| (one.event.to_owned(), [fields(one)].into())).collect::<BTreeMap<_, _>>();
    assert_eq!(known.len(), log::ALL.len(), "one is there twice");
    assert_eq!(written(), known);
    let rows: Vec<_> = documented(3).into_iter().map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect();
    let names: Vec<_> = rows.iter().map(|(name, fields, _)| (name.clone(), fields.clone())).collect();
    assert_eq!(names, log::ALL.iter().map(|one| (format!("`{}`", one.event), quoted(one.fields))).collect::<Vec<_>>());
    // Those of the stream say so, and have its fields.
    let name = |event: &Value| event["event"].as_str().unwrap().to_owned();
    let of_stream: Vec<_> = stream().iter().map(name).collect();
    for (event, _, meaning) in &rows {
        let told = of_stream.iter().any(|name| *event == format!("`{name}`"));
        assert_eq!(told, meaning.ends_with("In the stream too."), "{event}");
    }
    for event in stream() {
        let mut keys: BTreeSet<_> = event.as_object().unwrap().keys().cloned().collect();
        keys.remove("event");
        let logged = log::ALL.iter().find(|one| one.event == name(&event)).unwrap();
        assert_eq!(fields(logged), keys, "{event}");
    }
}

/// One of each kind that the stream of events tells and the log too.
fn stream() -> Vec<Value> {
    use dirigent_api::Event;
    let text = String::new;
    let events = [
        Event::Applied { generation: 1, by: text(), what: text(), operations: 1 },
        Event::Server { address: text(), up: true, why: text() },
        Event::Health { service: text(), server: text(), up: true, why: text() },
        Event::Quorum { service: text(), up: true },
        Event::Role { role: text(), why: text() },
        Event::Alarm { router: text(), what: text() },
        Event::Suspected { service: text(), server: text(), cause: text(), what: text(), over: true },
    ];
    events.iter().map(|event| serde_json::to_value(event).unwrap()).collect()
}
