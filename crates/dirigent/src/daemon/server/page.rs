//! The web page: files that are part of the program. What it shows it asks of the API.

use super::Shared;
use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;

/// Where the page is.
pub const PATH: &str = "/";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file below `assets/page`, with its address and kind.
macro_rules! file {
    ($name:literal, $kind:ident) => {
        (concat!("/page/", $name), $kind, include_str!(concat!("../../../assets/page/", $name)))
    };
}

/// All files: address, kind, content.
const FILES: &[(&str, &str, &str)] = &[
    (PATH, HTML, include_str!("../../../assets/page/index.html")),
    file!("page.css", CSS),
    file!("icon.svg", PICTURE),
    file!("main.js", SCRIPT),
    file!("ask.js", SCRIPT),
    file!("draw.js", SCRIPT),
    file!("words.js", SCRIPT),
    file!("series.js", SCRIPT),
    file!("head.js", SCRIPT),
    file!("topology.js", SCRIPT),
    file!("services.js", SCRIPT),
    file!("service.js", SCRIPT),
    file!("walk.js", SCRIPT),
    file!("findings.js", SCRIPT),
    file!("losses.js", SCRIPT),
    file!("history.js", SCRIPT),
    // What reasons mean, and what to do, in the words of the documentation.
    ("/page/drops.md", TEXT, include_str!("../../../../../docs/drops.md")),
];

/// Its routes. A newer daemon has a newer page: a browser asks each time.
pub fn routes() -> Router<Shared> {
    FILES.iter().fold(Router::new(), |routes, (path, kind, content)| {
        routes.route(path, get(async || ([(CONTENT_TYPE, *kind), (CACHE_CONTROL, "no-cache")], *content)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a file names is there, and nothing is named that is elsewhere.
    #[test]
    fn files_name_each_other_and_nothing_else() {
        let mut named = vec![PATH.to_owned()];
        for (path, kind, content) in FILES {
            if *kind == TEXT {
                continue;
            }
            for begin in ["\"./", "\"/page/"] {
                let names = content.split(begin).skip(1).filter_map(|rest| rest.split('"').next());
                named.extend(names.map(|name| format!("/page/{name}")));
            }
            let elsewhere = content.replace("http://www.w3.org/", "");
            assert!(!elsewhere.contains("://"), "{path} names another place");
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "new Function", " style="]
            {
                assert!(!content.contains(forbidden), "{path}: {forbidden}");
            }
        }
        named.sort();
        named.dedup();
        let mut there: Vec<_> = FILES.iter().map(|(path, ..)| (*path).to_owned()).collect();
        there.sort();
        assert_eq!(named, there);
    }

    #[test]
    fn no_script_or_style_stands_in_the_page_itself() {
        let html = FILES[0].2;
        assert!(html.contains("<script type=\"module\" src=\"/page/main.js\"></script>"));
        assert_eq!((html.matches("<script").count(), html.contains("<style")), (1, false));
        assert!(!html.split_whitespace().any(|word| word.starts_with("on") && word.contains('=')), "no handlers");
    }
}
