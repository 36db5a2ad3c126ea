//! A table as data: columns, rows, their order, and which of them are wanted.

use std::cmp::Ordering;

/// A column.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub heading: &'static str,
    /// It has numbers: they line up at the right, and the largest come first.
    pub number: bool,
    /// Its least width, so that it stays where it is while numbers grow.
    pub width: usize,
    /// The columns of the highest rank go first where the terminal is too narrow; those of rank 0 stay.
    pub rank: u8,
}

impl Column {
    /// Of words.
    pub const fn words(heading: &'static str, width: usize, rank: u8) -> Self {
        Self { heading, number: false, width, rank }
    }
    /// Of numbers.
    pub const fn numbers(heading: &'static str, width: usize, rank: u8) -> Self {
        Self { heading, number: true, width, rank }
    }
}

/// How a cell is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Odd,
    /// As it should not be.
    Bad,
    /// Nothing to see here.
    Faint,
}

/// What rows are put in order by.
#[derive(Clone, Debug, PartialEq)]
enum Key {
    /// The text itself.
    Text,
    /// A number, or a row's place in the order that it came in.
    Number(f64),
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// What is shown.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
    key: Key,
}

impl Cell {
    /// Words, in the order of the alphabet.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain, key: Key::Text }
    }
    /// What is in the order of a number.
    pub fn number(text: impl Into<String>, number: f64) -> Self {
        Self { key: Key::Number(number), ..Self::text(text) }
    }
    /// The same, meant so.
    pub fn meant(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
    fn order(&self, other: &Self) -> Ordering {
        match (&self.key, &other.key) {
            (Key::Number(a), Key::Number(b)) => a.total_cmp(b),
            _ => self.text.cmp(&other.text),
        }
    }
}

/// A row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// What tells it from others, look after look.
    pub id: String,
    /// As many as there are columns.
    pub cells: Vec<Cell>,
    /// What is said of it when it is the one under the cursor.
    pub detail: String,
}

/// The order of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By which column.
    pub column: usize,
    /// The largest, or last, first.
    pub descending: bool,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Its columns.
    pub columns: &'static [Column],
    /// Its rows, as they came.
    pub rows: Vec<Row>,
    /// What is said where there is none.
    pub nothing: String,
    /// There are more rows than were asked for.
    pub more: bool,
}

impl Table {
    /// The rows that have a text somewhere in their words, in an order. Capitals do not matter.
    pub fn arranged(&self, sort: Sort, filter: &str) -> Vec<&Row> {
        let filter = filter.to_lowercase();
        let words = |row: &Row| {
            let cells = row.cells.iter().zip(self.columns).filter(|(_, column)| !column.number);
            cells.map(|(cell, _)| cell.text.to_lowercase()).any(|text| text.contains(&filter))
        };
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| filter.is_empty() || words(row)).collect();
        rows.sort_by(|a, b| match (a.cells.get(sort.column), b.cells.get(sort.column)) {
            (Some(a), Some(b)) if sort.descending => b.order(a),
            (Some(a), Some(b)) => a.order(b),
            _ => Ordering::Equal,
        });
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] =
        [Column::words("NAME", 4, 0), Column::words("STATE", 5, 1), Column::numbers("SIZE", 4, 2)];

    fn table() -> Table {
        let row = |place: f64, name: &str, state: &str, size: f64| Row {
            id: name.into(),
            cells: vec![Cell::number(name, place), Cell::text(state), Cell::number(format!("{size}"), size)],
            ..Row::default()
        };
        let rows =
            vec![row(0.0, "web:9", "Up", 100.0), row(1.0, "web:10", "down", 20.0), row(2.0, "dns:53", "up", 100.0)];
        Table { columns: &COLUMNS, rows, ..Table::default() }
    }

    fn names(column: usize, descending: bool, filter: &str) -> Vec<String> {
        table().arranged(Sort { column, descending }, filter).iter().map(|row| row.id.clone()).collect()
    }

    #[test]
    fn rows_are_in_the_order_of_a_column_and_equal_ones_as_they_came() {
        assert_eq!(names(0, false, ""), ["web:9", "web:10", "dns:53"], "names are in the order that they came in");
        assert_eq!(names(0, true, ""), ["dns:53", "web:10", "web:9"]);
        assert_eq!(names(1, false, ""), ["web:9", "web:10", "dns:53"], "words by the alphabet");
        assert_eq!(names(2, true, ""), ["web:9", "dns:53", "web:10"], "100 before 20");
        assert_eq!(names(2, false, ""), ["web:10", "web:9", "dns:53"]);
        assert_eq!(names(7, false, ""), ["web:9", "web:10", "dns:53"], "there is no such column");
    }

    #[test]
    fn a_filter_is_a_part_of_some_word() {
        assert_eq!(names(0, false, "WEB"), ["web:9", "web:10"]);
        assert_eq!(names(0, false, "up"), ["web:9", "dns:53"]);
        assert!(names(0, false, "100").is_empty(), "numbers change all the time");
        assert!(names(0, false, "nothing").is_empty());
    }
}
