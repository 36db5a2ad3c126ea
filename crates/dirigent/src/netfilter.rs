//! Netfilter's rules as they are now, asked of its own programs. Nothing of them is changed.

use dirigent_api::Problem;
use dirigent_config::Model;
use dirigent_config::ruleset::{self, Asked, Chains, Ruleset};
use std::io::ErrorKind;
use std::process::Command;

/// The rules of this network namespace.
#[derive(Clone, Debug, Default)]
pub struct Netfilter {
    rules: Ruleset,
    chains: Chains,
    /// Why some could not be read.
    unread: Vec<Problem>,
}

impl Netfilter {
    /// Asks `iptables-save`, `ip6tables-save` and `nft`, as far as they are installed.
    pub fn read() -> Self {
        let mut all = Self::default();
        let mut iptables = false;
        for (program, what) in [("iptables-save", "iptables"), ("ip6tables-save", "ip6tables")] {
            if let Some(text) = all.ask(program, &[]) {
                iptables = true;
                all.rules = std::mem::take(&mut all.rules).and(ruleset::iptables(what, &text));
            }
        }
        if let Some(text) = all.ask("nft", &["-j", "list", "ruleset"]) {
            all.chains = Chains::read(&text);
            match ruleset::nft(&text, iptables) {
                Ok(rules) => all.rules = std::mem::take(&mut all.rules).and(rules),
                Err(what) => all.unread.push(unread("nft", what)),
            }
        }
        all
    }

    /// What it says; nothing if it is not installed or may not.
    fn ask(&mut self, program: &str, arguments: &[&str]) -> Option<String> {
        let output = match Command::new(program).args(arguments).output() {
            Ok(output) => output,
            // Not allowed is also what is nowhere, where a directory of PATH is not to be looked into.
            Err(e) if e.kind() == ErrorKind::NotFound || !is_installed(program) => {
                tracing::debug!("{program} is not installed: its rules are not looked at");
                return None;
            }
            Err(e) => {
                self.unread.push(unread(program, e.to_string()));
                return None;
            }
        };
        if output.status.success() {
            return Some(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        self.unread.push(unread(program, said.lines().next().unwrap_or("it failed").to_owned()));
        None
    }

    /// The rule that surely drops this on an interface, and its words.
    pub fn drops(&self, asked: Asked, interface: &str) -> Option<(String, String)> {
        self.chains.drops(asked, interface)
    }

    /// Of rules that no longer see the traffic of this Model's services.
    pub fn warnings(&self, model: &Model) -> Vec<Problem> {
        let unread = if model.services().is_empty() { &[][..] } else { &self.unread };
        self.rules.warnings(model).into_iter().chain(unread.iter().cloned()).collect()
    }
}

/// Whether a directory of PATH that can be looked into has it.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

fn unread(program: &str, what: String) -> Problem {
    let what = format!("whether netfilter has rules about service traffic could not be read: {what}");
    let remedy = format!("run it as root, or look yourself: packets of services do not pass the rules of {program}");
    Problem::new(program, what, remedy)
}
