//! The pictures of docs/peers.md, for light and dark pages alike.

use super::case::{Case, Column};
use super::contestant::{Contestant, LIMIT, Setting};
use super::report::{Report, Row, number};
use svg::Document;
use svg::node::element::{Circle, Group, Line, Rectangle, Style, Text};

const STYLE: &str = "text{fill:#444}.ours{fill:#2f7fb8}.peer{fill:#a89a8a}.limit{fill:#6b8f5e}.mark{stroke:#c4571b;stroke-width:2}\
    .base{stroke:#999}.late{fill:none;stroke-width:2}.late.ours{stroke:#2f7fb8}.late.peer{stroke:#a89a8a}.late.limit{stroke:#6b8f5e}\
    @media(prefers-color-scheme:dark){text{fill:#ccc}.ours{fill:#5aa9de}.peer{fill:#8d8175}.limit{fill:#8fb881}.mark{stroke:#f09050}\
    .base{stroke:#777}.late{fill:none}.late.ours{stroke:#5aa9de}.late.peer{stroke:#8d8175}.late.limit{stroke:#8fb881}}";
/// Of a panel, and of a row in it.
const WIDTH: f64 = 420.0;
const ROW: f64 = 19.0;
const HEAD: f64 = 34.0;
/// Where bars begin, and how long that of plain routing is.
const LEFT: f64 = 76.0;
const FULL: f64 = 170.0;
/// No bar is longer.
const LONGEST: f64 = 1.45;
const COLUMNS: usize = 2;

fn document(width: f64, height: f64) -> Document {
    let view = Document::new().set("viewBox", (0.0, 0.0, width, height)).set("font-family", "sans-serif");
    view.set("role", "img").add(Style::new(STYLE))
}

fn label(text: impl Into<String>, x: f64, y: f64, size: u32) -> Text {
    Text::new(text).set("x", x).set("y", y).set("font-size", size)
}

fn line(x: [f64; 2], y: [f64; 2], class: &str) -> Line {
    Line::new().set("x1", x[0]).set("x2", x[1]).set("y1", y[0]).set("y2", y[1]).set("class", class)
}

fn class(contestant: Contestant) -> &'static str {
    match contestant {
        LIMIT => "limit",
        ours if ours.is_ours() => "ours",
        _ => "peer",
    }
}

/// What goes through, as bars.
pub fn rates(report: &Report) -> String {
    bars(report, |column| matches!(column, Column::Rate(_)), "Longer is better.")
}

/// CPU time, as bars.
pub fn cpu(report: &Report) -> String {
    bars(report, |column| matches!(column, Column::Cpu(_)), "Shorter is better.")
}

fn bars(report: &Report, wanted: impl Fn(&Column) -> bool, what: &str) -> String {
    let columns = || Column::all().filter(&wanted);
    let all = Setting::ALL.into_iter().flat_map(|setting| columns().map(move |column| (setting, column)));
    let panels: Vec<(String, Vec<Row>)> = all
        .map(|(setting, column)| (title(setting, column), report.column(setting, column)))
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    let lines: Vec<f64> = panels
        .chunks(COLUMNS)
        .map(|panels| panels.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0) as f64 * ROW + HEAD + 14.0)
        .collect();
    let height = lines.iter().sum::<f64>() + 30.0;
    let mut picture = document(WIDTH * COLUMNS as f64, height);
    let mut y = 0.0;
    for (panels, down) in panels.chunks(COLUMNS).zip(&lines) {
        for (n, (title, rows)) in panels.iter().enumerate() {
            let at = format!("translate({} {y})", n as f64 * WIDTH);
            picture = picture.add(panel(title, rows).set("transform", at));
        }
        y += down;
    }
    let words = format!(
        "{what} The line is plain routing, in the same round. Numbers: the middle round, and what it is of plain routing."
    );
    picture.add(label(words, 12.0, height - 10.0, 12)).to_string() + "\n"
}

fn title(setting: Setting, column: Column) -> String {
    let how = if setting == Setting::Offloads { ", offloads" } else { "" };
    let title = column.title();
    format!("{}{how} ({})", title.strip_prefix("CPU: ").unwrap_or(&title), column.unit())
}

fn panel(title: &str, rows: &[Row]) -> Group {
    let (end, bottom) = (LEFT + FULL, HEAD + rows.len() as f64 * ROW);
    let mut group = Group::new().add(label(title, 12.0, 20.0, 13).set("font-weight", "bold")).add(line(
        [LEFT; 2],
        [HEAD - 6.0, bottom],
        "base",
    ));
    for (n, row) in rows.iter().enumerate() {
        let y = HEAD + n as f64 * ROW;
        let length = FULL * row.ratio.unwrap_or(0.0).clamp(0.0, LONGEST);
        let bar = Rectangle::new().set("x", LEFT).set("y", y - 3.0).set("width", length).set("height", ROW - 5.0);
        let more = if row.ratio.is_some_and(|ratio| ratio > LONGEST) { "… " } else { "" };
        let ratio = row.ratio.map(|ratio| format!(", {}", number(ratio))).unwrap_or_default();
        group = group
            .add(label(row.contestant.name, LEFT - 6.0, y + 8.0, 12).set("text-anchor", "end"))
            .add(bar.set("class", class(row.contestant)))
            .add(label(format!("{more}{}{ratio}", number(row.median)), LEFT + length.max(FULL) + 6.0, y + 8.0, 11));
    }
    group.add(line([end; 2], [HEAD - 6.0, bottom], "mark"))
}

/// Decades of the axis, microseconds.
const DECADES: [(f64, &str); 6] =
    [(10.0, "10 µs"), (100.0, "100 µs"), (1e3, "1 ms"), (1e4, "10 ms"), (1e5, "100 ms"), (1e6, "1 s")];

/// Times to answer: a dot for p50, a ring for p99, a bar for p99.9, along an axis of decades.
pub fn latency(report: &Report) -> String {
    let columns: Vec<_> = Column::all().filter(|column| column.case() == Case::Latency).collect();
    let limits = columns.first().map(|column| report.column(Setting::Frames, *column)).unwrap_or_default();
    let of = |contestant| columns.iter().filter_map(move |c| report.row(Setting::Frames, *c, contestant));
    let times = || limits.iter().flat_map(|row| of(row.contestant)).map(|row| row.median);
    let [least, most] = [times().fold(f64::MAX, f64::min), times().fold(0.0, f64::max)];
    let first = DECADES.iter().rposition(|(us, _)| *us <= least).unwrap_or(0);
    let last = DECADES.iter().position(|(us, _)| *us >= most).unwrap_or(DECADES.len() - 1).max(first + 1);
    let decades = DECADES.get(first..=last).unwrap_or(&DECADES);
    let width = WIDTH * COLUMNS as f64;
    let x = |us: f64| LEFT + (width - LEFT - 60.0) * (us / decades[0].0).log10().max(0.0) / (decades.len() - 1) as f64;
    let bottom = HEAD + limits.len() as f64 * ROW;
    let height = bottom + 50.0;
    let mut picture = document(width, height);
    for (us, name) in decades {
        picture = picture
            .add(line([x(*us); 2], [HEAD - 12.0, bottom], "base"))
            .add(label(*name, x(*us), bottom + 14.0, 11).set("text-anchor", "middle"));
    }
    for (n, row) in limits.iter().enumerate() {
        let (y, kind) = (HEAD + n as f64 * ROW + 4.0, class(row.contestant));
        let name = label(row.contestant.name, LEFT - 10.0, y + 4.0, 12).set("text-anchor", "end");
        let at: Vec<f64> = of(row.contestant).map(|row| x(row.median)).collect();
        let [p50, p99, p999] = at.as_slice() else { continue };
        let late = format!("late {kind}");
        picture = picture
            .add(name)
            .add(line([*p50, *p999], [y; 2], "base"))
            .add(Circle::new().set("cx", *p50).set("cy", y).set("r", 4.5).set("class", kind))
            .add(Circle::new().set("cx", *p99).set("cy", y).set("r", 4.5).set("class", late.as_str()))
            .add(line([*p999; 2], [y - 6.0, y + 6.0], &late));
    }
    let words = "Time to answer: within it half of the requests (dot), 99 % (ring), 99.9 % (bar); the middle round.";
    picture.add(label(words, 12.0, height - 10.0, 12)).to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::full;
    use super::*;

    #[test]
    fn every_contestant_has_a_bar_in_every_panel_that_is_for_it() {
        let report = full();
        for picture in [rates(&report), cpu(&report)] {
            assert_eq!(picture.matches("<rect").count(), 5 * 10 + 9 + 3 * 7);
            assert_eq!(picture.lines().filter(|line| *line == "haproxy").count(), 5 + 3);
            assert_eq!(picture.matches("prefers-color-scheme:dark").count(), 1);
        }
    }

    #[test]
    fn bars_are_as_long_as_their_ratio_says_and_no_longer_than_there_is_room() {
        let panel = panel("x", &full().column(Setting::Frames, Column::Cpu(Case::Requests))).to_string();
        let widths = panel.split("width=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        let widths: Vec<f64> = widths.collect();
        assert_eq!(widths[0], FULL);
        assert!(widths[1..].iter().all(|width| (*width - FULL * LONGEST).abs() < 0.1), "{widths:?}");
        assert!(panel.contains("… 2000, 10.0"), "{panel}");
    }

    #[test]
    fn times_stand_in_their_order_on_the_axis() {
        let report = full();
        let picture = latency(&report);
        assert_eq!(picture.matches("<circle").count(), 20);
        assert!(picture.contains("100 µs") && picture.contains("10 ms") && !picture.contains("100 ms"), "{picture}");
        let dots = picture.split("cx=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        let dots: Vec<f64> = dots.collect();
        assert!(dots.chunks(2).all(|two| two[0] <= two[1]) && dots[18] > dots[0], "{dots:?}");
    }
}
