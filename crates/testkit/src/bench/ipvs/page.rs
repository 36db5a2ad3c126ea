//! docs/performance.md: the tables that the command writes, and the exceptions that people explain there.

use super::report::{Row, words};

/// What the command writes stands between one of these and the next [`END`].
pub const TABLES: &str = "<!-- ipvs: tables -->";
/// See [`TABLES`]: that of `--profile`.
pub const PROFILE: &str = "<!-- ipvs: profile -->";
/// What people write.
const EXCEPTIONS: &str = "<!-- ipvs: exceptions -->";
const END: &str = "<!-- ipvs: end -->";

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

/// What stands between a mark and the next [`END`].
fn between<'t>(text: &'t str, mark: &str) -> Result<&'t str, String> {
    let found = text.split_once(mark).and_then(|(_, rest)| rest.split_once(END));
    found.map(|(inside, _)| inside).ok_or_else(|| format!("no {mark} with {END} below it"))
}

impl Page {
    /// From the page's text.
    pub fn read(text: &str) -> Result<Self, String> {
        for mark in [TABLES, PROFILE] {
            between(text, mark)?;
        }
        let exceptions = between(text, EXCEPTIONS)?.lines().filter_map(Exception::parse).collect::<Result<_, _>>()?;
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

    /// The page with other tables at this mark.
    #[must_use]
    pub fn with(&self, mark: &str, tables: &str) -> String {
        let between = between(&self.text, mark).unwrap_or_default();
        self.text.replacen(&format!("{mark}{between}{END}"), &format!("{mark}\n{tables}{END}"), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Speed\n<!-- ipvs: tables -->\nold\n<!-- ipvs: end -->\nwords\n<!-- ipvs: profile -->\n<!-- ipvs: end -->\n\
                        <!-- ipvs: exceptions -->\n\
                        | path | cases | at most | what costs |\n|---|---|---|---|\n\
                        | tc | nat new | 0.8 | Two entries. |\n\n<!-- ipvs: end -->\nmore\n";

    #[test]
    fn only_the_tables_are_written() {
        let page = Page::read(PAGE).unwrap();
        assert_eq!(page.with(TABLES, "| new |\n"), PAGE.replace("old", "| new |"));
        let profile = "<!-- ipvs: profile -->\n";
        assert_eq!(page.with(PROFILE, "| p |\n"), PAGE.replace(profile, &format!("{profile}| p |\n")));
        assert_eq!(page.exceptions().collect::<Vec<_>>(), ["| tc | nat new | 0.8 | Two entries. |"]);
    }

    #[test]
    fn a_page_without_its_marks_and_lines_of_another_form_are_refused() {
        for mark in [TABLES, PROFILE, EXCEPTIONS] {
            assert!(Page::read(&PAGE.replace(mark, "")).unwrap_err().starts_with("no <!-- ipvs:"));
        }
        for line in ["| tc | nat new | 0.8 |  |", "| tc | nat new | much | Two. |", "| tc | 0.8 | Two. |"] {
            let error = Page::read(&PAGE.replace("| tc | nat new | 0.8 | Two entries. |", line)).unwrap_err();
            assert!(error.contains("what costs"), "{error}");
        }
    }

    #[test]
    fn the_page_of_this_tree_can_be_written() {
        let page = include_str!("../../../../../docs/performance.md");
        for mark in [TABLES, PROFILE] {
            let text = Page::read(page).unwrap().with(mark, "| none |\n");
            assert!(Page::read(&text).is_ok() && text != page);
        }
    }
}
