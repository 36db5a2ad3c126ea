//! Configuration out of other programs': keepalived's, ipvsadm's tables; mark rules of netfilter's, iptables' and nft's.
//!
//! What the director cannot do, because only netfilter knows it, is refused rule by rule,
//! with the reason; the rest is translated.

mod draft;
mod iptables;
mod ipvsadm;
mod keepalived;
mod nft;
#[cfg(test)]
mod tests;

use crate::mark::MarkRule;
use std::fmt;

pub use iptables::{Family, iptables};
pub use ipvsadm::{Table, ipvsadm};
pub use keepalived::{Keepalived, Loader, is_keepalived, keepalived};
pub use nft::nft;

/// What came of a set of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Those that could be translated, in the order in which packets meet them.
    pub rules: Vec<MarkRule>,
    /// Those that could not, in the order of the text.
    pub refused: Vec<Refused>,
}

/// A rule that cannot be translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where it stands: a line; or nft's table, chain and handle.
    pub place: String,
    /// The rule, as far as the text has it in one line.
    pub rule: String,
    /// Why not.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)?;
        if !self.rule.is_empty() {
            write!(f, ": {}", self.rule)?;
        }
        Ok(())
    }
}

/// A rule of a chain that packets go through before IPVS would see them.
#[derive(Clone, Debug)]
struct Found {
    place: String,
    rule: String,
    does: Does,
}

/// What a rule does to marks.
#[derive(Clone, Debug)]
enum Does {
    /// It sets them.
    Marks(Vec<MarkRule>),
    /// It sets them, and packets that it matches meet no later rule of the chain.
    MarksAndEnds(Vec<MarkRule>),
    /// Packets that it matches meet no later rule of the chain.
    Ends,
    /// Nothing.
    Nothing,
    /// Who knows; and why it cannot be translated.
    Refused(String),
}

impl Imported {
    /// Takes the rules of a chain in.
    fn chain(&mut self, rules: Vec<Found>) {
        let marks = |found: &Found| !matches!(found.does, Does::Ends | Does::Nothing);
        let last = rules.iter().rposition(marks);
        for (at, Found { place, rule, does }) in rules.into_iter().enumerate() {
            let followed = last.is_some_and(|last| at < last);
            let ends = "it ends the chain for its packets, while the director goes through all rules";
            let refusal = match does {
                Does::Marks(rules) => {
                    self.rules.extend(rules);
                    None
                }
                Does::MarksAndEnds(rules) if !followed => {
                    self.rules.extend(rules);
                    None
                }
                Does::MarksAndEnds(_) => Some(ends.to_owned()),
                Does::Ends if followed => Some(ends.to_owned()),
                Does::Ends | Does::Nothing => None,
                Does::Refused(reason) => Some(reason),
            };
            self.refused.extend(refusal.map(|reason| Refused { place, rule, reason }));
        }
    }
}

/// Why a rule cannot be translated.
type Reason = String;
