//! docs/performance.md: the tables that the command writes, and the exceptions that people explain there.

use super::report::{Row, words};
use crate::marked::{split, with};

/// What the command writes: it stands between two marks, which begin so.
pub const TABLES: &str = "make bench-ipvs writes";
/// The same of `--profile`.
pub const PROFILE: &str = "make bench-ipvs ARGS=--profile writes";
/// What people write for it.
const EXCEPTIONS: &str = "make bench-ipvs reads";

/// The page.
#[derive(Clone, Debug)]
pub struct Page {
    text: String,
    exceptions: Vec<Exception>,
}

/// Cases whose goal is missed, and explained.
#[derive(Clone, Debug)]
struct Exception {
    /// As it stands there.
    line: String,
    /// Name of the path.
    path: String,
    /// Words that all stand in the case's name.
    words: Vec<String>,
    /// At most so much of IPVS's.
    at_most: f64,
}

impl Exception {
    /// `| path | words of the case | at most | what costs |`; nothing for the table's head.
    fn parse(line: &str) -> Option<Result<Self, String>> {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if line.trim().is_empty() || line.starts_with("|-") || cells.first() == Some(&"path") {
            return None;
        }
        let wrong = || format!("{line:?}: not `| path | words of the case | at most | what costs |`");
        Some(match cells.as_slice() {
            [path, case, at_most, why] if !why.is_empty() => at_most.parse().map_err(|_| wrong()).map(|at_most| Self {
                line: line.to_owned(),
                path: (*path).to_owned(),
                words: words(case).map(str::to_owned).collect(),
                at_most,
            }),
            _ => Err(wrong()),
        })
    }
    fn covers(&self, row: &Row) -> bool {
        self.path == row.path.name() && self.words.iter().all(|word| words(&row.case).any(|one| one == word))
    }
}

impl Page {
    /// From the page's text.
    pub fn read(text: &str) -> Result<Self, String> {
        for mark in [TABLES, PROFILE] {
            split(text, mark)?;
        }
        let [_, exceptions, _] = split(text, EXCEPTIONS)?;
        let exceptions = exceptions.lines().filter_map(Exception::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), exceptions })
    }

    /// The explanation of a goal that is missed; else what is wrong about it.
    pub fn excuse(&self, row: &Row) -> Result<&str, String> {
        let at = format!("{}: {}: {:.2} of IPVS's", row.path, row.case, row.ratio);
        let found: Vec<&Exception> = self.exceptions.iter().filter(|one| one.covers(row)).collect();
        match found.iter().find(|one| row.ratio <= one.at_most) {
            Some(enough) => Ok(&enough.line),
            None => Err(match found.first() {
                Some(less) => format!("{at}, and {:.2} is explained", less.at_most),
                None => format!("{at}, the goal is {:.2}, and nothing is explained", row.goal),
            }),
        }
    }

    /// All lines that explain something.
    pub fn exceptions(&self) -> impl Iterator<Item = &str> {
        self.exceptions.iter().map(|one| &*one.line)
    }

    /// The page with other tables between these marks.
    pub fn with(&self, mark: &str, tables: &str) -> Result<String, String> {
        with(&self.text, mark, tables)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A page with these exceptions.
    pub fn page(exceptions: &str) -> String {
        let marked = |mark: &str, text: &str| format!("<!-- {mark} from here -->\n\n{text}\n<!-- {mark} to here -->\n");
        let head = "| path | cases | at most | what costs |\n|---|---|---|---|\n";
        let exceptions = marked(EXCEPTIONS, &format!("{head}{exceptions}"));
        format!("# Speed\n{}words\n{}{exceptions}more\n", marked(TABLES, "old\n"), marked(PROFILE, "older\n"))
    }

    const LINE: &str = "| tc | nat new | 0.8 | Two entries. |";

    #[test]
    fn only_the_tables_are_written() {
        let text = page(&format!("{LINE}\n"));
        let read = Page::read(&text).unwrap();
        assert_eq!(read.with(TABLES, "| new |\n").unwrap(), text.replace("old\n", "| new |\n"));
        assert_eq!(read.with(PROFILE, "| new |\n").unwrap(), text.replace("older\n", "| new |\n"));
        assert_eq!(read.exceptions().collect::<Vec<_>>(), [LINE]);
    }

    #[test]
    fn a_page_without_its_marks_and_lines_of_another_form_are_refused() {
        for mark in [TABLES, PROFILE, EXCEPTIONS] {
            for way in ["from", "to"] {
                let error = Page::read(&page(LINE).replace(&format!("<!-- {mark} {way} "), "")).unwrap_err();
                assert_eq!(error, format!("it has no line <!-- {mark} {way} here -->"));
            }
        }
        for line in ["| tc | nat new | 0.8 |  |", "| tc | nat new | much | Two. |", "| tc | 0.8 | Two. |"] {
            let error = Page::read(&page(line)).unwrap_err();
            assert!(error.contains("what costs"), "{error}");
        }
    }

    #[test]
    fn the_page_of_this_tree_can_be_written() {
        let page = include_str!("../../../../../docs/performance.md");
        for mark in [TABLES, PROFILE] {
            let text = Page::read(page).unwrap().with(mark, "| none |\n").unwrap();
            assert!(Page::read(&text).is_ok() && text != page);
        }
    }
}
