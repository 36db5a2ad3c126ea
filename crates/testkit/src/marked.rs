//! Parts of documents that a command writes, or reads: they stand between `<!-- MARK from here -->` and `<!-- MARK to here -->`.

use std::path::Path;

/// What stands before, between and behind two marks, which are of the parts outside.
pub fn split<'t>(text: &'t str, mark: &str) -> Result<[&'t str; 3], String> {
    let [begin, end] = ["from", "to"].map(|way| format!("<!-- {mark} {way} here -->"));
    let place = |of: &str| text.find(of).ok_or_else(|| format!("it has no line {of}"));
    let (from, to) = (place(&begin)? + begin.len(), place(&end)?);
    match (text.get(..from), text.get(from..to), text.get(to..)) {
        (Some(before), Some(between), Some(behind)) => Ok([before, between, behind]),
        _ => Err(format!("{end} stands before {begin}")),
    }
}

/// The text with something else between two marks.
pub fn with(text: &str, mark: &str, tables: &str) -> Result<String, String> {
    let [before, _, behind] = split(text, mark)?;
    Ok(format!("{before}\n\n{tables}\n{behind}"))
}

/// Writes a document anew as `with` says, and says so.
pub fn rewrite(file: &Path, with: impl FnOnce(&str) -> Result<String, String>) -> Result<(), String> {
    let place = |e: String| format!("{}: {e}", file.display());
    let text = std::fs::read_to_string(file).map_err(|e| place(e.to_string()))?;
    std::fs::write(file, with(&text).map_err(place)?).map_err(|e| place(e.to_string()))?;
    println!("written to {}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_stays() {
        let text = "a\n<!-- it writes from here -->\nold\n<!-- it writes to here -->\nb\n";
        let once = with(text, "it writes", "| new |\n").unwrap();
        assert_eq!(once, text.replace("\nold\n", "\n\n| new |\n\n"));
        assert_eq!(with(&once, "it writes", "| new |\n").unwrap(), once);
        assert_eq!(with("nothing", "it writes", "x").unwrap_err(), "it has no line <!-- it writes from here -->");
        let astray = "<!-- it writes to here --><!-- it writes from here -->";
        assert!(with(astray, "it writes", "x").unwrap_err().contains("stands before"));
    }
}
