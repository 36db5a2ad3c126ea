//! The screen, drawn of what is known and what is wanted of it.

use super::header::{self, Part};
use super::look::Known;
use super::state::{Place, State};
use super::table::{Column, Row, Table, Tone};
use super::words;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use std::time::Instant;

/// The least that anything can be read on: columns, and rows.
const LEAST: (u16, u16) = (40, 14);
/// Lines below the table: two about the row under the cursor, the latest event, keys.
const BELOW: u16 = 4;
/// Lines between header and rows: a title, headings.
const BETWEEN: u16 = 2;

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skin {
    /// It has colours, and they are wanted.
    pub colour: bool,
    /// It has more than ASCII.
    pub unicode: bool,
}

impl Skin {
    fn style(self, tone: Tone) -> Style {
        let style = Style::default();
        match (tone, self.colour) {
            (Tone::Plain, _) | (Tone::Faint | Tone::Good, false) => style,
            (Tone::Good, true) => style.fg(Color::Green),
            (Tone::Odd, true) => style.fg(Color::Yellow),
            (Tone::Bad, true) => style.fg(Color::Red),
            (Tone::Faint, true) => style.fg(Color::DarkGray),
            (Tone::Odd | Tone::Bad, false) => style.add_modifier(Modifier::BOLD),
        }
    }
    fn heading(self) -> Style {
        let bold = Style::default().add_modifier(Modifier::BOLD);
        if self.colour { bold.fg(Color::Cyan) } else { bold.add_modifier(Modifier::UNDERLINED) }
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const CURSOR: Style = Style::new().add_modifier(Modifier::REVERSED);

/// What is on the screen now.
pub struct Screen<'a> {
    /// What is wanted.
    pub state: &'a State,
    /// What is known.
    pub known: &'a Known,
    /// The table of where one is.
    pub table: &'a Table,
    /// Those of its rows that are wanted, in order.
    pub rows: &'a [&'a Row],
    /// The time.
    pub now: Instant,
    /// What the terminal can show.
    pub skin: Skin,
}

/// How many rows fit on a screen of that height.
pub fn page(state: &State, known: &Known, now: Instant, height: u16) -> usize {
    let above = header::lines(state, known, now).len();
    usize::from(height.saturating_sub(BETWEEN + BELOW)).saturating_sub(above)
}

impl Screen<'_> {
    /// Draws all of it.
    pub fn draw(&self, to: &mut Buffer) {
        let area = *to.area();
        if area.width < LEAST.0 || area.height < LEAST.1 {
            let (width, height) = LEAST;
            let text = format!("{}x{} is too small; {width}x{height} will do", area.width, area.height);
            put(to, area.x, area.y, &text, Style::default());
        } else if self.state.help {
            self.help(to);
        } else {
            let table = self.header(to);
            self.rows(to, table, page(self.state, self.known, self.now, area.height));
            self.below(to);
        }
        self.degrade(to);
    }

    /// To what the terminal can show.
    fn degrade(&self, to: &mut Buffer) {
        for cell in to.content.iter_mut().filter(|cell| !self.skin.unicode && !cell.symbol().is_ascii()) {
            let plain = plain(cell.symbol());
            cell.set_symbol(plain);
        }
    }

    /// The whole table as text: as wide as is wanted, or as it needs.
    pub fn text(&self, width: Option<u16>) -> String {
        let header = header::lines(self.state, self.known, self.now);
        let lines = header.iter().map(|line| line.iter().map(|(text, _)| text.chars().count()).sum::<usize>());
        let widest = lines.chain([whole_width(&longest(self.table, self.rows)), self.title().chars().count()]).max();
        let width = width.unwrap_or_else(|| widest.unwrap_or_default().try_into().unwrap_or(u16::MAX));
        let lines = header.len() + usize::from(BETWEEN) + self.rows.len().max(1);
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, lines.try_into().unwrap_or(u16::MAX)));
        let above = self.header(&mut buffer);
        self.rows(&mut buffer, above, self.rows.len());
        self.degrade(&mut buffer);
        let mut text = String::new();
        for line in buffer.content.chunks(width.max(1).into()) {
            let line: String = line.iter().map(|cell| cell.symbol()).collect();
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    /// Says where the table begins.
    fn header(&self, to: &mut Buffer) -> u16 {
        let lines = header::lines(self.state, self.known, self.now);
        let mut y = to.area().y;
        for line in &lines {
            self.parts(to, y, line);
            y += 1;
        }
        y
    }

    fn parts(&self, to: &mut Buffer, y: u16, parts: &[Part]) {
        let mut x = to.area().x;
        for (text, tone) in parts {
            let room = to.area().right().saturating_sub(x);
            x = put(to, x, y, &cut(text, room.into()), self.skin.style(*tone));
        }
    }

    /// Where one is, and what of it is shown in which order.
    fn title(&self) -> String {
        let Self { table, rows, .. } = self;
        let (level, sort) = (self.state.level(), self.state.sort());
        let mut title = self.state.way().join(" > ");
        let (shown, all) = (rows.len(), table.rows.len());
        let more = if table.more { " or more" } else { "" };
        title += &match shown == all {
            true => format!("  ({all}{more})"),
            false => format!("  ({shown} of {all}{more})"),
        };
        if self.state.typing || !level.filter.is_empty() {
            // The mark is where the next letter goes.
            title += &format!("  filter: {}{}", level.filter, if self.state.typing { "_" } else { "" });
        }
        let by = table.columns.get(sort.column).map_or("", |column| column.heading);
        title + &format!("  by {by} {}", if sort.descending { "↓" } else { "↑" })
    }

    /// Title, headings and the rows that fit.
    fn rows(&self, to: &mut Buffer, y: u16, page: usize) {
        let area = *to.area();
        let Self { table, rows, .. } = self;
        let level = self.state.level();
        put(to, area.x, y, &self.title(), BOLD);
        let fields = layout(table, rows, area.width);
        for field in &fields {
            let heading = field.column.heading;
            put_in(to, area.x, y + 1, field, heading, self.skin.heading());
        }
        if rows.is_empty() {
            let filtered = if table.rows.is_empty() { table.nothing.as_str() } else { "no row has the filter's text" };
            put(to, area.x, y + 2, filtered, self.skin.style(Tone::Faint));
        }
        for (number, row) in rows.iter().enumerate().skip(level.first).take(page) {
            let y = y + BETWEEN + (number - level.first) as u16;
            for (field, cell) in fields.iter().filter_map(|field| Some((field, row.cells.get(field.number)?))) {
                put_in(to, area.x, y, field, &cell.text, self.skin.style(cell.tone));
            }
            if number == level.cursor {
                to.set_style(Rect::new(area.x, y, area.width, 1), CURSOR);
            }
        }
    }

    /// About the row under the cursor, the latest event, and the keys.
    fn below(&self, to: &mut Buffer) {
        let area = *to.area();
        let y = area.bottom().saturating_sub(BELOW);
        let about = match (&self.state.note, self.rows.get(self.state.level().cursor)) {
            (Some(note), _) => Some((note.as_str(), self.skin.style(Tone::Bad))),
            (None, Some(row)) => Some((row.detail.as_str(), Style::default())),
            (None, None) => None,
        };
        if let Some((text, style)) = about {
            for (line, y) in wrapped(text, area.width.into(), 2).iter().zip(y..) {
                put(to, area.x, y, line, style);
            }
        }
        if let Some((at, event)) = self.known.events.front().filter(|_| self.state.level().place != Place::Events) {
            let text = format!("{} ago  {event}", words::age(self.now, *at));
            put(to, area.x, y + 2, &cut(&text, area.width.into()), self.skin.style(Tone::Faint));
        }
        let keys: &[(&str, &str)] = match self.state.typing {
            true => &[("Enter", "keep the filter"), ("Esc", "drop it")],
            false => &KEYS,
        };
        let mut x = area.x;
        for (key, what) in keys {
            x = put(to, x, y + 3, key, BOLD);
            x = put(to, x, y + 3, &format!(" {what}  "), self.skin.style(Tone::Faint));
        }
    }

    fn help(&self, to: &mut Buffer) {
        let area = *to.area();
        put(to, area.x, area.y, "Keys", self.skin.heading());
        for ((keys, what), y) in HELP.iter().zip(area.y + 1..area.bottom()) {
            put(to, area.x, y, keys, BOLD);
            put(to, area.x + 18, y, what, Style::default());
        }
    }
}

const KEYS: [(&str, &str); 8] = [
    ("Enter", "open"),
    ("Esc", "back"),
    ("/", "filter"),
    ("s", "sort"),
    ("d", "drops"),
    ("e", "events"),
    ("?", "help"),
    ("q", "quit"),
];

/// No more of them than the least screen has lines for.
const HELP: [(&str, &str); 13] = [
    ("Up Down j k", "one row"),
    ("PgUp PgDn", "one page"),
    ("Home End g G", "first, last row"),
    ("Enter", "servers, then their connections"),
    ("Esc Backspace", "back; or drop the filter"),
    ("/", "only rows with a text"),
    ("s > <", "next, previous column to sort by"),
    ("r", "sort the other way"),
    ("d", "drops: what was lost, and why"),
    ("e", "events"),
    ("p Space", "pause, and go on"),
    ("+ -", "look less, more often"),
    ("q Ctrl-C", "quit; Ctrl-L draws all anew"),
];

/// What stands for a character on a terminal that has only ASCII.
fn plain(symbol: &str) -> &'static str {
    match symbol {
        "…" => "~",
        "↑" => "^",
        "↓" => "v",
        "→" => ">",
        _ => "?",
    }
}

/// Writes until the end of the line; says where it stopped.
fn put(to: &mut Buffer, x: u16, y: u16, text: &str, style: Style) -> u16 {
    let area = *to.area();
    if x >= area.right() || y >= area.bottom() {
        return x;
    }
    to.set_stringn(x, y, text, (area.right() - x).into(), style).0
}

/// Writes into a field, on the side where its column lines up.
fn put_in(to: &mut Buffer, x: u16, y: u16, field: &Field, text: &str, style: Style) {
    let text = cut(text, field.width);
    let before = if field.column.number { field.width - text.chars().count().min(field.width) } else { 0 };
    let at = (field.at + before).try_into().unwrap_or(u16::MAX);
    put(to, x.saturating_add(at), y, &text, style);
}

/// No more than so many characters; what is cut off leaves a mark.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width || width == 0 {
        return text.chars().take(width).collect();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A text in lines between whose words it is broken; the last one ends where there is no room.
fn wrapped(text: &str, width: usize, lines: usize) -> Vec<String> {
    let mut out = vec![String::new()];
    for word in text.split(' ') {
        let full = out.len() == lines;
        let Some(line) = out.last_mut() else { break };
        let needs = line.chars().count() + usize::from(!line.is_empty()) + word.chars().count();
        if needs > width && !full && !line.is_empty() {
            out.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.iter().map(|line| cut(line, width)).collect()
}

/// Where a column is.
struct Field {
    column: &'static Column,
    /// Which of the table's.
    number: usize,
    at: usize,
    width: usize,
    /// The width with which nothing of it is cut.
    whole: usize,
}

/// How wide each column is when nothing of it is cut.
fn longest(table: &Table, rows: &[&Row]) -> Vec<usize> {
    let of = |(number, column): (usize, &Column)| {
        let cells = rows.iter().filter_map(|row| row.cells.get(number)).map(|cell| cell.text.chars().count());
        cells.max().unwrap_or_default().max(column.heading.chars().count()).max(column.width)
    };
    table.columns.iter().enumerate().map(of).collect()
}

/// How wide the table is then.
fn whole_width(longest: &[usize]) -> usize {
    longest.iter().map(|width| width + 2).sum::<usize>().saturating_sub(2)
}

/// The columns that a width has room for. Words may be cut: of the first column to less than half of the width, of others to
/// a fifth; numbers are not. What is over is given to those that were cut.
fn layout(table: &Table, rows: &[&Row], width: u16) -> Vec<Field> {
    let width = usize::from(width);
    let longest = longest(table, rows);
    let field = |number: usize, column: &'static Column, whole: usize| {
        let words = if number == 0 { width * 45 / 100 } else { width / 5 };
        let least = if column.number { whole } else { whole.min(column.width.max(words)) };
        Field { column, number, at: 0, width: least, whole }
    };
    let of_rank = |rank: u8| -> Vec<Field> {
        let columns = table.columns.iter().zip(&longest).enumerate().filter(|(_, (column, _))| column.rank <= rank);
        columns.map(|(number, (column, whole))| field(number, column, *whole)).collect()
    };
    let needs = |fields: &[Field], gap: usize| {
        fields.iter().map(|field| field.width).sum::<usize>() + gap * fields.len().saturating_sub(1)
    };
    let highest = table.columns.iter().map(|column| column.rank).max().unwrap_or_default();
    let mut ways = (0..=highest).rev().flat_map(|rank| [2, 1].map(|gap| (of_rank(rank), gap)));
    let fit = ways.find(|(fields, gap)| needs(fields, *gap) <= width);
    let (mut fields, gap) = fit.unwrap_or_else(|| (of_rank(0), 1));
    let mut over = width.saturating_sub(needs(&fields, gap));
    let mut at = 0;
    for field in &mut fields {
        let more = over.min(field.whole.saturating_sub(field.width));
        over -= more;
        field.width += more;
        field.at = at;
        at += field.width + gap;
    }
    fields
}
