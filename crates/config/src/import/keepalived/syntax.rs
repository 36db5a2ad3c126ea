//! keepalived.conf's text to a tree of keywords: comments, quotes, blocks, includes, variables, conditions, generators.

use super::{Loader, Said};
use std::collections::HashMap;
use std::rc::Rc;

/// Includes within includes, and variables within variables.
const DEPTH: usize = 32;
/// Lines that generators may make, and steps that expansion may take.
const MOST_LINES: usize = 1_000_000;
/// Longest line after expansion, bytes.
const LONGEST: usize = 1 << 20;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Rc<str>,
    pub line: usize,
}

/// A keyword with what follows it.
#[derive(Clone, Debug)]
pub struct Node {
    pub keyword: String,
    pub values: Vec<String>,
    pub place: Place,
    /// Its block, if it has one.
    pub block: Option<Vec<Node>>,
}

impl Node {
    /// What its block holds.
    pub fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
    /// Its value number `at`.
    pub fn value(&self, at: usize) -> Option<&str> {
        self.values.get(at).map(String::as_str)
    }
}

/// The tree of a file and of those that it includes.
pub fn read(file: &str, text: &str, id: &str, loader: &dyn Loader, said: &mut Said) -> Vec<Node> {
    let mut reader = Reader { id, loader, said, variables: HashMap::new(), open: vec![Open::default()], lines: 0 };
    reader.text(&Rc::from(file), text, 0);
    let Reader { mut open, said, .. } = reader;
    while open.len() > 1 {
        if let Some(place) = open.last().and_then(|o| o.place.clone()) {
            said.fault(&place, "the block that begins here has no end", "add a line with }");
        }
        close(&mut open);
    }
    open.pop().map(|o| o.nodes).unwrap_or_default()
}

/// A block that is being read.
#[derive(Default)]
struct Open {
    nodes: Vec<Node>,
    place: Option<Place>,
}

fn close(open: &mut Vec<Open>) {
    let Some(inner) = open.pop() else { return };
    if let Some(node) = open.last_mut().and_then(|o| o.nodes.last_mut()) {
        node.block = Some(inner.nodes);
    }
}

struct Reader<'a> {
    id: &'a str,
    loader: &'a dyn Loader,
    said: &'a mut Said,
    variables: HashMap<String, String>,
    open: Vec<Open>,
    lines: usize,
}

impl Reader<'_> {
    fn text(&mut self, file: &Rc<str>, text: &str, depth: usize) {
        let mut lines = text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            let place = Place { file: file.clone(), line: at + 1 };
            let line = uncommented(line).trim();
            if let Some((name, value)) = definition(line) {
                let mut value = value.to_owned();
                // The lines of a definition that goes on.
                while let Some(begun) = value.trim_end().strip_suffix('\\').map(|v| v.trim_end().to_owned()) {
                    let Some((_, next)) = lines.next() else { break };
                    value = if begun.is_empty() { String::new() } else { begun + "\n" };
                    value += uncommented(next).trim();
                }
                self.variables.insert(name.to_owned(), value);
                continue;
            }
            self.line(&place, line, depth);
        }
    }

    fn line(&mut self, place: &Place, line: &str, depth: usize) {
        self.lines += 1;
        if depth > DEPTH || self.lines > MOST_LINES {
            if self.lines <= MOST_LINES + 1 {
                self.said.fault(place, "files, generators or variables go too deep, or are too many", "include less");
            }
            self.lines = self.lines.max(MOST_LINES + 1);
            return;
        }
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        if first.starts_with("include") && ["", "r", "m", "w", "b", "a"].contains(&first.get(7..).unwrap_or("?")) {
            return self.include(place, line.get(first.len()..).unwrap_or_default().trim(), first, depth);
        }
        if let Some(condition) = first.strip_prefix('@') {
            let (id, not) = condition.strip_prefix('^').map_or((condition, false), |id| (id, true));
            if (id == self.id) != not {
                self.line(place, line.get(first.len()..).unwrap_or_default().trim(), depth + 1);
            }
            return;
        }
        if line.starts_with("~SEQ") || line.starts_with("~LST") {
            return self.generate(place, line, depth);
        }
        let Some(line) = self.expand(line, place) else {
            return self.said.fault(place, "variables make this line endless", "define none of them by itself");
        };
        // Long lines count for several.
        self.lines += line.len() / 256;
        for line in line.split('\n') {
            if line.trim_start().starts_with('~') && depth <= DEPTH {
                self.line(place, line.trim(), depth + 1);
            } else {
                self.words(place, line);
            }
        }
    }

    fn include(&mut self, place: &Place, pattern: &str, keyword: &str, depth: usize) {
        let pattern = pattern.trim_matches(['"', '\'']);
        match self.loader.load(pattern, &place.file) {
            Ok(files) => {
                if files.is_empty() && keyword != "include" {
                    self.said.fault(place, format!("{pattern:?} names no file"), "correct the name");
                }
                for (name, text) in files {
                    if depth >= DEPTH {
                        return self.said.fault(place, "files include each other", "remove one of the includes");
                    }
                    self.text(&Rc::from(name), &text, depth + 1);
                }
            }
            Err(why) => self.said.fault(place, format!("cannot include {pattern:?}: {why}"), "correct the name"),
        }
    }

    /// `~SEQ(var, start, step, end) line`, `~LST(var, a, b) line`, `~LST({x,y}, {1,2}, {3,4}) line`.
    fn generate(&mut self, place: &Place, line: &str, depth: usize) {
        let made = generated(line);
        let Some((names, rows, rest)) = made else {
            let remedy = "write ~SEQ(name, first, step, last) or ~LST(name, one, two)";
            return self.said.fault(place, "this generator cannot be understood", remedy);
        };
        for row in rows {
            let before: Vec<_> = names.iter().map(|name| self.variables.get(name).cloned()).collect();
            for (name, value) in names.iter().zip(row) {
                self.variables.insert(name.clone(), value);
            }
            self.line(place, rest, depth + 1);
            for (name, value) in names.iter().zip(before) {
                match value {
                    Some(value) => _ = self.variables.insert(name.clone(), value),
                    None => _ = self.variables.remove(name),
                }
            }
            if self.lines > MOST_LINES {
                return;
            }
        }
    }

    /// The line with its variables' values; None if that does not end.
    fn expand(&self, line: &str, place: &Place) -> Option<String> {
        let mut line = line.to_owned();
        for _ in 0..DEPTH {
            let mut out = String::new();
            let mut rest = line.as_str();
            let mut any = false;
            while let Some(at) = rest.find('$') {
                let (before, from) = rest.split_at(at);
                out += before;
                let after = from.get(1..).unwrap_or_default();
                let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
                let bare = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                let (name, behind) = braced.unwrap_or_else(|| after.split_at(bare));
                let ends = braced.is_some() || behind.is_empty() || behind.starts_with([' ', '\t', '\n']);
                match self.variable(name, place).filter(|_| ends) {
                    Some(value) => {
                        any = true;
                        out += &value;
                        rest = behind;
                        if out.len() > LONGEST {
                            return None;
                        }
                    }
                    None => {
                        out.push('$');
                        rest = after;
                    }
                }
            }
            out += rest;
            if out.len() > LONGEST {
                return None;
            }
            if !any {
                return Some(out);
            }
            line = out;
        }
        None
    }

    fn variable(&self, name: &str, place: &Place) -> Option<String> {
        match name {
            "_PWD" => Some(place.file.rsplit_once('/').map_or(".", |(directory, _)| directory).to_owned()),
            "_HASH" => Some("#".into()),
            "_BANG" => Some("!".into()),
            _ => match name.strip_prefix("_ENV ") {
                Some(name) => self.loader.environment(name.trim()),
                None => self.variables.get(name).cloned(),
            },
        }
    }

    fn words(&mut self, place: &Place, line: &str) {
        let Some(words) = words(line) else {
            return self.said.fault(place, "a quote has no end", "add the other quote");
        };
        let mut begun = false;
        for word in words {
            let deep = self.open.len() > DEPTH;
            let Some(top) = self.open.last_mut() else { return };
            match word {
                Token::Open => {
                    begun = false;
                    if deep {
                        return self.said.fault(place, "blocks go too deep", "close those before");
                    }
                    if top.nodes.last().is_none_or(|node| node.block.is_some()) {
                        self.said.fault(place, "{ without a keyword in front", "remove it");
                        top.nodes.push(Node { keyword: "{".into(), values: vec![], place: place.clone(), block: None });
                    }
                    self.open.push(Open { nodes: Vec::new(), place: Some(place.clone()) });
                }
                Token::Close => {
                    if self.open.len() > 1 {
                        close(&mut self.open);
                    } else {
                        self.said.fault(place, "} without a { before", "remove it, or add the { that it ends");
                    }
                    begun = false;
                }
                Token::Word(text) => match top.nodes.last_mut().filter(|_| begun) {
                    Some(node) => node.values.push(text),
                    None => {
                        top.nodes.push(Node { keyword: text, values: vec![], place: place.clone(), block: None });
                        begun = true;
                    }
                },
            }
        }
    }
}

/// A line without its comment.
fn uncommented(line: &str) -> &str {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#' | '!') => return line.get(..at).unwrap_or_default(),
            _ => {}
        }
    }
    line
}

/// `$NAME=value`.
fn definition(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('$')?.split_once('=')?;
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (good && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some((name, value))
}

type Generated<'l> = (Vec<String>, Vec<Vec<String>>, &'l str);

fn generated(line: &str) -> Option<Generated<'_>> {
    let (head, rest) = line.split_once('(')?;
    let mut depth = 0u32;
    let mut items = vec![String::new()];
    let mut end = None;
    for (at, c) in rest.char_indices() {
        match c {
            ')' if depth == 0 => {
                end = Some(at);
                break;
            }
            ',' if depth == 0 => items.push(String::new()),
            _ => {
                depth = match c {
                    '{' => depth + 1,
                    '}' => depth.saturating_sub(1),
                    _ => depth,
                };
                items.last_mut()?.push(c);
            }
        }
    }
    let rest = rest.get(end? + 1..)?.trim();
    let items: Vec<String> = items.into_iter().map(|i| i.trim().to_owned()).collect();
    let (first, values) = items.split_first()?;
    let row = |item: &str| -> Vec<String> {
        match item.strip_prefix('{').and_then(|i| i.strip_suffix('}')) {
            Some(inner) => inner.split(',').map(|v| v.trim().to_owned()).collect(),
            None => vec![item.to_owned()],
        }
    };
    if head == "~LST" {
        return Some((row(first), values.iter().map(|v| row(v)).collect(), rest));
    }
    let hex = match head {
        "~SEQ" => false,
        "~SEQx" => true,
        _ => return None,
    };
    let numbers: Option<Vec<i64>> = values.iter().map(|v| v.parse().ok()).collect();
    let (from, step, to) = match numbers?[..] {
        [to] => (1, 1, to),
        [from, to] => (from, if from <= to { 1 } else { -1 }, to),
        [from, step, to] => (from, step, to),
        _ => return None,
    };
    let many = to.checked_sub(from)?.checked_div(step).filter(|n| (0..100_000).contains(n))?;
    let value = |n: i64| {
        let value = from + n * step;
        vec![if hex { format!("{value:x}") } else { value.to_string() }]
    };
    Some((vec![first.clone()], (0..=many).map(value).collect(), rest))
}

enum Token {
    Word(String),
    Open,
    Close,
}

/// The words of a line; None if a quote has no end. Backslashes stay: few keywords know them.
fn words(line: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' => {
                let text = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\\' => {
                            text.push('\\');
                            text.push(chars.next()?);
                        }
                        other if other == c => break,
                        // An argument with blanks in a script's text keeps its quotes.
                        other => text.push(other),
                    }
                }
            }
            '{' | '}' => {
                out.extend(word.take().map(Token::Word));
                out.push(if c == '{' { Token::Open } else { Token::Close });
            }
            c if c.is_whitespace() => out.extend(word.take().map(Token::Word)),
            c => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word.map(Token::Word));
    Some(out)
}

/// What backslashes stand for, in keywords that know them.
pub fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(next) = chars.next() else { break };
        out.push(match next {
            'a' => '\x07',
            'b' => '\x08',
            'E' => '\x1b',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            other => other,
        });
    }
    out
}

/// The words of a script's text: blanks separate, quotes hold together.
pub fn script_words(text: &str) -> Vec<String> {
    let words = words(text).unwrap_or_default().into_iter().map(|token| match token {
        Token::Word(word) => unescaped(&word),
        Token::Open => "{".into(),
        Token::Close => "}".into(),
    });
    words.collect()
}
