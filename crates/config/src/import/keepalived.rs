//! keepalived.conf as a Model.
//!
//! What keepalived would do by a virtual_server is what the Model says, its defaults included. What has no counterpart
//! is told with its place and the reason; what is wrong is told with what to do about it, where keepalived would go
//! on without the line.

mod checkers;
mod keywords;
mod service;
mod syntax;
#[cfg(test)]
mod tests;
mod values;
mod vrrp;

use super::Refused;
use crate::error::{Diagnostic, Diagnostics};
use crate::file::keys::nearest;
use crate::health::{Bfd, Target};
use crate::model::Model;
use crate::settings::Settings;
use syntax::{Node, Place};
use values::{boolean, rights};

/// What a configuration asks of its host while it is read.
pub trait Loader {
    /// The files that an include names, by name and text: `pattern` may have wildcards, and is relative to the
    /// directory of `from`. An error: one cannot be read.
    fn load(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String>;
    /// A variable of the environment.
    fn environment(&self, name: &str) -> Option<String>;
}

/// What came of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keepalived {
    /// What could be translated.
    pub model: Model,
    /// What has no counterpart.
    pub refused: Vec<Refused>,
    /// What is wrong.
    pub faults: Vec<Diagnostic>,
}

impl Keepalived {
    /// The Model with what has no counterpart, if nothing is wrong.
    pub fn strict(self) -> Result<(Model, Vec<Refused>), Diagnostics> {
        if self.faults.is_empty() { Ok((self.model, self.refused)) } else { Err(Diagnostics(self.faults)) }
    }
}

/// What is said about a file.
#[derive(Debug, Default)]
struct Said {
    refused: Vec<Refused>,
    faults: Vec<Diagnostic>,
}

impl Said {
    fn fault(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        let (message, remedy) = (message.into(), remedy.into());
        self.faults.push(Diagnostic { file: place.file.to_string(), line: place.line, column: 1, message, remedy });
    }
    /// A keyword has no counterpart, or not quite this one.
    fn note(&mut self, node: &Node, reason: impl Into<String>) {
        let place = format!("{}:{}", node.place.file, node.place.line);
        let mut rule = node.keyword.clone();
        node.values.iter().for_each(|value| rule += &format!(" {value}"));
        self.refused.push(Refused { place, rule, reason: reason.into() });
    }
    fn unknown(&mut self, node: &Node, of: &str, known: &[&'static str]) {
        if node.keyword == "{" {
            // That has been told of.
            return;
        }
        let place = if of.is_empty() { "at the top of the file".into() } else { format!("in {of}") };
        let lower: Vec<String> = known.iter().map(|word| word.to_lowercase()).collect();
        let near = nearest(&node.keyword, lower.iter().map(String::as_str));
        let remedy = match known.iter().find(|word| Some(word.to_lowercase().as_str()) == near) {
            Some(near) => format!("did you mean {near}?"),
            None => "remove it, or move it to where it belongs".into(),
        };
        self.fault(&node.place, format!("unknown keyword {:?} {place}", node.keyword), remedy);
    }
}

/// What all virtual servers share.
#[derive(Debug, Default)]
struct Globals {
    /// Whose rights scripts have.
    user: (Option<String>, Option<String>),
    log_all_failures: Option<bool>,
    files: Vec<checkers::FileOf>,
    bfd: Vec<(String, Target, Bfd)>,
    /// What is for all virtual routers.
    vrrp: vrrp::Defaults,
}

/// Whether a text is rather keepalived.conf than dirigent.toml: a block of keepalived's begins in it, and no key of
/// TOML's is set in front.
#[must_use]
pub fn is_keepalived(name: &str, text: &str) -> bool {
    if name.rsplit('/').next() == Some("keepalived.conf") {
        return true;
    }
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!'])) {
        let word = line.split([' ', '\t', '{']).next().unwrap_or_default();
        let block = keywords::TOP_KNOWN.contains(&word) || keywords::reason(word, keywords::TOP).is_some();
        let own = block || line.starts_with(['$', '@', '~']) || word.starts_with("include");
        if (own && !line.contains(" = ")) || line.starts_with('[') || line.contains('=') {
            return own && !line.starts_with('[') && !line.contains(" = ");
        }
    }
    false
}

/// Reads a file. `name` is its name for the messages; `id` is what lines beginning with `@` name, the host's name
/// before its first dot.
#[must_use]
pub fn keepalived(name: &str, text: &str, id: &str, loader: &dyn Loader) -> Keepalived {
    let mut said = Said::default();
    let nodes = syntax::read(name, text, id, loader, &mut said);
    let mut globals = Globals::default();
    let mut settings = Settings::default();
    for node in &nodes {
        match node.keyword.as_str() {
            "global_defs" => global_defs(node, &mut globals, &mut settings, &mut said),
            "track_file" | "vrrp_track_file" => globals.files.extend(checkers::track_file(node, &mut said)),
            "bfd_instance" => globals.bfd.extend(checkers::bfd_instance(node, &mut said)),
            // After these, wherever they stand.
            "virtual_server" | "virtual_server_group" => {}
            word if vrrp::BLOCKS.contains(&word) => {}
            word => match keywords::reason(word, keywords::TOP) {
                Some(why) => said.note(node, why),
                None => {
                    let all = keywords::TOP.iter().map(|(name, _)| *name).chain(keywords::TOP_KNOWN.iter().copied());
                    said.unknown(node, "", &all.collect::<Vec<_>>());
                }
            },
        }
    }
    let services = service::services(&nodes, &globals, &mut said);
    // Each service and the settings have been looked at.
    let failover = vrrp::failover(&nodes, &globals, &globals.files, &mut said);
    let model = Model::whole(settings, services, Vec::new(), failover).unwrap_or_else(|violations| {
        // Each has been told of with its place; if one was not, it is now.
        if said.faults.is_empty() {
            let place = Place { file: name.into(), line: 1 };
            violations.iter().for_each(|v| said.fault(&place, v.to_string(), v.remedy()));
        }
        Model::default()
    });
    let Said { refused, mut faults } = said;
    faults.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    faults.dedup();
    Keepalived { model, refused, faults }
}

fn global_defs(node: &Node, globals: &mut Globals, settings: &mut Settings, said: &mut Said) {
    for n in node.inside() {
        match n.keyword.as_str() {
            "script_user" => {
                globals.user = rights(&n.values);
                if globals.user.0.as_deref() == Some("root") {
                    said.note(n, values::NOT_AS_ROOT);
                }
            }
            "checker_log_all_failures" => globals.log_all_failures = boolean(n, said),
            "lvs_timeouts" => {
                let before = settings.clone();
                checkers::lvs_timeouts(n, settings, said);
                if let Some(violation) = settings.violations().first() {
                    said.fault(&n.place, violation.to_string(), violation.remedy());
                    *settings = before;
                }
            }
            _ if globals.vrrp.take(n, said) => {}
            word => match keywords::reason(word, keywords::GLOBAL) {
                Some(why) => said.note(n, why),
                None => {
                    let all = keywords::GLOBAL.iter().map(|(name, _)| *name);
                    let all: Vec<_> = all.chain(keywords::GLOBAL_KNOWN.iter().copied()).collect();
                    said.unknown(n, "global_defs", &all);
                }
            },
        }
    }
}
