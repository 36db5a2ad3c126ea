//! Reads keys out of TOML tables and collects what is wrong, with its place.

use super::{duration, keys};
use crate::error::Diagnostic;
use std::collections::HashSet;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// Everything that is wrong so far.
pub struct Report<'t> {
    text: &'t str,
    found: Vec<(usize, String, String)>,
    /// Lines that have had their objection.
    closed: HashSet<usize>,
}

impl<'t> Report<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, found: Vec::new(), closed: HashSet::new() }
    }
    /// Notes an objection at a byte of the text.
    pub fn add(&mut self, at: usize, message: impl Into<String>, remedy: impl Into<String>) {
        if self.closed.is_empty() || !self.closed.contains(&self.place(at).0) {
            self.found.push((at, message.into(), remedy.into()));
        }
    }
    /// Notes one unless there is one at that place already.
    pub fn add_unless_told(&mut self, at: usize, message: impl Into<String>, remedy: impl Into<String>) {
        if !self.found.iter().any(|(told, ..)| *told == at) {
            self.add(at, message, remedy);
        }
    }
    /// The same, which takes nothing more about the lines objected to so far.
    pub fn on_other_lines(mut self) -> Self {
        self.closed = self.found.iter().map(|(at, ..)| self.place(*at).0).collect();
        self
    }
    /// Whether an objection so far is about the header of a table, so that the
    /// keys after it seem to be another table's.
    pub fn misplaced(&self) -> bool {
        let lines: Vec<&str> = self.text.lines().collect();
        let line = |at| self.place(at).0.checked_sub(1).and_then(|n| lines.get(n)).copied().unwrap_or_default();
        self.found.iter().any(|(at, ..)| line(*at).trim_start().starts_with('['))
    }
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
    /// Line and column of a byte, from 1.
    pub fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
    /// All objections by place, each once.
    pub fn finish(mut self, file: &str) -> Vec<Diagnostic> {
        self.found.sort();
        self.found.dedup();
        let place = |at| self.place(at);
        let diagnostic = |(at, message, remedy): &(usize, String, String)| {
            let (line, column) = place(*at);
            Diagnostic { file: file.into(), line, column, message: message.clone(), remedy: remedy.clone() }
        };
        self.found.iter().map(diagnostic).collect()
    }
}

/// A table of the file.
#[derive(Clone, Copy)]
pub struct Table<'a, 't> {
    name: keys::Table,
    entries: &'a DeTable<'t>,
    /// Where it begins.
    pub at: usize,
}

impl<'a, 't> Table<'a, 't> {
    /// The table, after objecting to its unknown keys.
    pub fn open(name: keys::Table, entries: &'a DeTable<'t>, at: usize, report: &mut Report) -> Self {
        for key in entries.keys() {
            let word: &str = key.get_ref();
            if name.keys.iter().any(|k| k.name == word) {
                continue;
            }
            let at = key.span().start;
            let place =
                if name.header.is_empty() { "at the top of the file".into() } else { format!("in {}", name.header) };
            let message = format!("unknown key {word:?} {place}");
            let belongs = |word: &str| {
                let home = keys::TABLES.iter().find(|t| t.keys.iter().any(|k| k.name == word))?;
                Some(if home.header.is_empty() { "the top of the file" } else { home.header })
            };
            let names = |table: &keys::Table| table.keys.iter().map(|k| k.name);
            let remedy = if let Some(home) = belongs(word) {
                format!("it belongs to {home}")
            } else if let Some(near) = keys::nearest(word, names(&name)) {
                format!("did you mean {near}?")
            } else if let Some(near) = keys::nearest(word, keys::TABLES.iter().flat_map(names)) {
                format!("did you mean {near}? It belongs to {}", belongs(near).unwrap_or_default())
            } else {
                format!("remove it; known are {}", names(&name).collect::<Vec<_>>().join(", "))
            };
            report.add(at, message, remedy);
        }
        Self { name, entries, at }
    }

    /// Its header.
    pub fn header(&self) -> &'static str {
        self.name.header
    }
    /// Whether it may have the key.
    pub fn knows(&self, key: &str) -> bool {
        self.name.keys.iter().any(|k| k.name == key)
    }
    /// The value of a key and where it begins.
    pub fn get(&self, key: &str) -> Option<(&'a DeValue<'t>, usize)> {
        debug_assert!(self.name.keys.iter().any(|k| k.name == key), "{key} is not in keys.rs");
        self.entries.get(key).map(|v| (v.get_ref(), v.span().start))
    }
    /// Where the value of a key begins, or else the table.
    pub fn place(&self, key: &str) -> usize {
        self.entries.get(key).map_or(self.at, |v| v.span().start)
    }

    pub fn string(&self, key: &str, report: &mut Report) -> Option<(&'a str, usize)> {
        let (value, at) = self.get(key)?;
        let text = value.as_str();
        if text.is_none() {
            let remedy = format!("put it in quotes: {key} = \"…\"");
            report.add(at, format!("{key} is {}, not a string", kind(value)), remedy);
        }
        text.map(|t| (t, at))
    }
    pub fn boolean(&self, key: &str, report: &mut Report) -> Option<bool> {
        let (value, at) = self.get(key)?;
        if value.as_bool().is_none() {
            report.add(
                at,
                format!("{key} is {}, not true or false", kind(value)),
                "write true or false, without quotes",
            );
        }
        value.as_bool()
    }
    /// An integer within bounds.
    pub fn integer(&self, key: &str, min: u64, max: u64, report: &mut Report) -> Option<u64> {
        let (value, at) = self.get(key)?;
        let remedy = format!("use a whole number from {min} to {max}, without quotes");
        let Some(number) = value.as_integer() else {
            report.add(at, format!("{key} is {}, not an integer", kind(value)), remedy);
            return None;
        };
        let inside = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| (min..=max).contains(n));
        if inside.is_none() {
            report.add(at, format!("{key} is {}", number.as_str()), remedy);
        }
        inside
    }
    pub fn integer32(&self, key: &str, min: u32, max: u32, report: &mut Report) -> Option<u32> {
        self.integer(key, min.into(), max.into(), report).and_then(|n| u32::try_from(n).ok())
    }
    pub fn duration(&self, key: &str, report: &mut Report) -> Option<Duration> {
        const REMEDY: &str = "write a number with its unit: \"500ms\", \"300s\", \"15m\", \"2h\", \"1d\"";
        let (value, at) = self.get(key)?;
        let Some(text) = value.as_str() else {
            report.add(at, format!("{key} is {}, not a duration", kind(value)), REMEDY);
            return None;
        };
        let parsed = duration::parse(text);
        if parsed.is_none() {
            report.add(at, format!("{key} is {text:?}, not a duration"), REMEDY);
        }
        parsed
    }
    /// One of some words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&'static str, T)], report: &mut Report) -> Option<T> {
        let (word, at) = self.string(key, report)?;
        let found = choices.iter().find(|(name, _)| *name == word);
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            report.add(at, format!("{key} is {word:?}"), one_of(word, &names));
        }
        found.map(|(_, value)| *value)
    }
    pub fn array(&self, key: &str, report: &mut Report) -> Option<&'a DeArray<'t>> {
        let (value, at) = self.get(key)?;
        if value.as_array().is_none() {
            report.add(at, format!("{key} is {}, not a list", kind(value)), format!("put it in brackets: {key} = […]"));
        }
        value.as_array()
    }
    /// Strings of a list, each with its place; None if something else is among them.
    pub fn strings(&self, key: &str, report: &mut Report) -> Option<Vec<(&'a str, usize)>> {
        let array = self.array(key, report)?;
        let string = |item: &'a Spanned<DeValue<'t>>| {
            let (value, at) = (item.get_ref(), item.span().start);
            if value.as_str().is_none() {
                report.add(at, format!("{key} holds {}, not a string", kind(value)), "put it in quotes");
            }
            value.as_str().map(|text| (text, at))
        };
        let strings: Vec<_> = array.iter().map(string).collect();
        strings.into_iter().collect()
    }
    /// A table within.
    pub fn table(&self, key: &str, name: keys::Table, report: &mut Report) -> Option<Table<'a, 't>> {
        let (value, at) = self.get(key)?;
        let Some(entries) = value.as_table() else {
            report.add(
                at,
                format!("{key} is {}, not a table", kind(value)),
                format!("begin it with a line {}", name.header),
            );
            return None;
        };
        Some(Table::open(name, entries, at, report))
    }
    /// Tables within.
    pub fn tables(&self, key: &str, name: keys::Table, report: &mut Report) -> Vec<Table<'a, 't>> {
        let Some((value, at)) = self.get(key) else { return Vec::new() };
        let remedy = format!("begin each with a line {}", name.header);
        let Some(array) = value.as_array() else {
            report.add(at, format!("{key} is {}, not a list of tables", kind(value)), remedy);
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in array.iter() {
            let (value, at) = (item.get_ref(), item.span().start);
            match value.as_table() {
                Some(entries) => out.push(Table::open(name, entries, at, report)),
                None => report.add(at, format!("{key} holds {}, not a table", kind(value)), remedy.as_str()),
            }
        }
        out
    }
}

/// The remedy for a word that is not among the possible ones.
pub fn one_of(word: &str, names: &[&'static str]) -> String {
    match keys::nearest(word, names.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("use \"{}\"", names.join("\", \"")),
    }
}

/// What a value is, for a person.
pub fn kind(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
