//! A terminal's screen, drawn: what `tmux capture-pane -e` prints, as SVG. Its size depends on columns and rows alone.

use std::num::NonZeroU16;

use svg::Document;
use svg::node::element::{Group, Rectangle, Style, Text};
use vt100::{Cell, Color, Parser};

/// A cell's width and height, and the letters' size, in the drawing's units.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 18.0;
const LETTER: f64 = 14.0;
/// Around all of it.
const MARGIN: f64 = 12.0;
/// From a line's top to the foot of its letters.
const FOOT: f64 = 13.5;
/// Of letters without a colour, and behind them.
const INK: &str = "#d8dee9";
const PAPER: &str = "#1b1f27";
/// The sixteen that have names: black, red, green, yellow, blue, magenta, cyan, white; and bright.
const NAMED: [&str; 16] = [
    "#3b4252", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d8dee9", //
    "#7f8796", "#ff7b86", "#b5e08f", "#ffd78a", "#82c4ff", "#dc94f0", "#73d2de", "#ffffff",
];

/// How a run of cells looks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    ink: String,
    paper: Option<String>,
    bold: bool,
    underlined: bool,
}

impl Look {
    fn of(cell: &Cell) -> Self {
        let (mut ink, mut paper) = (colour(cell.fgcolor()), colour(cell.bgcolor()));
        if cell.inverse() {
            let behind = paper.take().unwrap_or_else(|| PAPER.to_owned());
            paper = Some(ink.take().unwrap_or_else(|| INK.to_owned()));
            ink = Some(behind);
        }
        let ink = ink.unwrap_or_else(|| INK.to_owned());
        Self { ink, paper, bold: cell.bold(), underlined: cell.underline() }
    }
}

fn colour(colour: Color) -> Option<String> {
    match colour {
        Color::Default => None,
        Color::Idx(index @ 0..16) => Some(NAMED[usize::from(index)].to_owned()),
        // The cube, and the greys.
        Color::Idx(index @ 16..232) => {
            let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
            let [red, green, blue] = [36, 6, 1].map(|part| level((index - 16) / part % 6));
            Some(format!("#{red:02x}{green:02x}{blue:02x}"))
        }
        Color::Idx(index) => Some(format!("#{0:02x}{0:02x}{0:02x}", 8 + 10 * (index - 232))),
        Color::Rgb(red, green, blue) => Some(format!("#{red:02x}{green:02x}{blue:02x}")),
    }
}

/// The drawing of a screen of so many columns and rows, with a title for those who do not see it.
pub fn svg(screen: &str, columns: NonZeroU16, rows: NonZeroU16, title: &str) -> String {
    let mut parser = Parser::new(rows, columns, 0);
    // Its lines end as files' do; a terminal has to be told to go to the left as well.
    parser.process(screen.trim_end_matches('\n').replace('\n', "\r\n").as_bytes());
    let (width, height) =
        (f64::from(columns.get()) * WIDTH + 2.0 * MARGIN, f64::from(rows.get()) * HEIGHT + 2.0 * MARGIN);
    let all = Rectangle::new().set("width", width).set("height", height).set("rx", 6).set("fill", PAPER);
    let mut papers = Group::new();
    let mut letters = Group::new();
    for row in 0..rows.get() {
        let cells: Vec<&Cell> = (0..columns.get()).filter_map(|column| parser.screen().cell(row, column)).collect();
        let y = MARGIN + f64::from(row) * HEIGHT;
        let mut column = 0;
        for run in cells.chunk_by(|a, b| Look::of(a) == Look::of(b)) {
            let look = Look::of(run[0]);
            let (x, wide) = (MARGIN + column as f64 * WIDTH, run.len() as f64 * WIDTH);
            column += run.len();
            if let Some(paper) = &look.paper {
                let behind = Rectangle::new().set("x", rounded(x)).set("y", rounded(y)).set("width", rounded(wide));
                papers = papers.add(behind.set("height", HEIGHT).set("fill", paper.as_str()));
            }
            let text: String = run.iter().map(|cell| if cell.has_contents() { cell.contents() } else { " " }).collect();
            letters = words(letters, &text, &look, x, y + FOOT);
        }
    }
    let style = Style::new(format!("text{{font:{LETTER}px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace}}"));
    let document = Document::new().set("viewBox", (0, 0, rounded(width), rounded(height)));
    let document = document.set("width", rounded(width)).set("height", rounded(height));
    let document = document.set("role", "img").set("aria-label", title);
    format!("{}\n", document.add(style).add(all).add(papers).add(letters))
}

/// Each word where its cells are, whatever the reader's letters are like.
fn words(mut to: Group, text: &str, look: &Look, x: f64, y: f64) -> Group {
    let letters: Vec<char> = text.chars().collect();
    let mut at = 0;
    // Two blanks part columns; one is a part of a text.
    while at < letters.len() {
        let blank = |n: usize| letters.get(n).is_none_or(|letter| *letter == ' ');
        if blank(at) {
            at += 1;
            continue;
        }
        let end = (at..letters.len()).find(|n| blank(*n) && blank(n + 1)).unwrap_or(letters.len());
        let word: String = letters[at..end].iter().collect();
        let mut element = Text::new(word).set("x", rounded(x + at as f64 * WIDTH)).set("y", rounded(y));
        element = element.set("textLength", rounded((end - at) as f64 * WIDTH)).set("fill", look.ink.as_str());
        if look.bold {
            element = element.set("font-weight", "bold");
        }
        if look.underlined {
            element = element.set("text-decoration", "underline");
        }
        to = to.add(element);
        at = end;
    }
    to
}

/// To a tenth, so that the file is small.
fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(screen: &str, columns: u16, rows: u16) -> String {
        svg(screen, columns.try_into().unwrap(), rows.try_into().unwrap(), "a test")
    }

    #[test]
    fn words_are_where_their_cells_are_in_their_colours() {
        let drawn = drawn("\x1b[1mab c\x1b[0m  \x1b[31mred\x1b[0m\n\x1b[7m<&>\x1b[0m x\n", 20, 3);
        let has = |part: &str| assert!(drawn.contains(part), "{part} is not in\n{drawn}");
        has("viewBox=\"0 0 192 78\"");
        has("aria-label=\"a test\"");
        let text = |part: &str| {
            let element =
                drawn.split("<text").find(|element| element.contains(part)).unwrap_or_else(|| panic!("{part}"));
            element.to_owned()
        };
        let bold = text("ab c");
        assert!(
            bold.contains("font-weight=\"bold\"") && bold.contains("x=\"12\"") && bold.contains("y=\"25.5\""),
            "{bold}"
        );
        assert!(bold.contains("textLength=\"33.6\""), "four cells: {bold}");
        let red = text("red");
        assert!(red.contains(&format!("fill=\"{}\"", NAMED[1])) && red.contains("x=\"62.4\""), "{red}");
        let inverse = text("&lt;&amp;&gt;");
        assert!(inverse.contains(&format!("fill=\"{PAPER}\"")) && inverse.contains("y=\"43.5\""), "{inverse}");
        has(&format!("fill=\"{INK}\" height=\"18\""));
    }

    #[test]
    fn all_colours_have_a_place() {
        for (index, wanted) in [(1, "#e06c75"), (16, "#000000"), (231, "#ffffff"), (232, "#080808"), (255, "#eeeeee")] {
            assert_eq!(colour(Color::Idx(index)).as_deref(), Some(wanted));
        }
        assert_eq!(colour(Color::Rgb(1, 2, 255)).as_deref(), Some("#0102ff"));
        assert_eq!(colour(Color::Default), None);
    }

    #[test]
    fn the_size_is_that_of_the_terminal() {
        let of = |screen: &str| drawn(screen, 80, 24).lines().next().unwrap().to_owned();
        assert_eq!(of("short"), of(&"long ".repeat(1000)));
    }
}
