//! Documents that tell what commands print tell what they print now. Needs root.

mod common;

use common::BIN;
use dirigent_testkit::story::retold;
use std::path::Path;

#[test]
fn the_story_of_replies_is_as_commands_tell_it() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/why-replies-must-return.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let told = retold(&text, Path::new(BIN), &format!("td{}-story", std::process::id())).unwrap();
    for (number, (is, would)) in text.lines().zip(told.lines()).enumerate() {
        assert_eq!(is, would, "line {} of {}: `make stories` writes it anew\n{told}", number + 1, file.display());
    }
    assert_eq!(text, told, "`make stories` writes it anew");
}
