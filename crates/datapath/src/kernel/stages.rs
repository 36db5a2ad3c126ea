//! Which of the later stages are loaded: the verifier takes seconds for all of them, and most directors have a use for half.

use std::ops::{BitOr, BitOrAssign};

use aya::Ebpf;

use super::{error::Error, load, table::Table};
use crate::names;

/// What packets need stages of their own for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features(u8);

impl Features {
    /// What every director has a use for.
    pub const NONE: Self = Self(0);
    /// SCTP.
    pub const SCTP: Self = Self(1);
    /// FTP, whose data connections belong to their control connections.
    pub const FTP: Self = Self(2);
    /// Packets that are scheduled alone.
    pub const ONE_PACKET: Self = Self(4);
    /// Persistence.
    pub const PERSISTENCE: Self = Self(8);
    /// Servers behind tunnels.
    pub const TUNNELS: Self = Self(16);
    /// Other directors are told of connections.
    pub const SYNC: Self = Self(32);
    /// ICMP errors open connections.
    pub const ICMP: Self = Self(64);
    /// All.
    pub const ALL: Self = Self(127);

    /// Whether all of these are among them.
    #[must_use]
    pub fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

impl BitOr for Features {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Features {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// The stages that only some directors' packets come to: what [`names::STAGES`] calls them. (What becomes of packets that
/// come to one all the same is `dirigent_director::direct::Stage::missing`'s to say.)
const OPTIONAL: &[(&str, Features)] = &[
    ("sctp", Features::SCTP),
    ("ftp", Features::FTP),
    ("claim", Features::FTP),
    ("one_packet", Features::ONE_PACKET),
    ("persist", Features::PERSISTENCE),
    ("assign", Features::PERSISTENCE),
    ("encapsulate", Features::TUNNELS),
    ("tunnel_error", Features::TUNNELS),
    ("tell", Features::SYNC),
    ("icmp_open", Features::ICMP),
];

/// What a program is loaded for: nothing in particular if every director's packets may come to it.
pub(super) fn feature(program: &str) -> Features {
    if program == names::LEARN {
        return Features::SYNC;
    }
    let stages = names::stage_programs();
    let stage = stages.iter().find(|stage| stage.program == program);
    stage.map_or(Features::NONE, |stage| feature_of(stage.stage))
}

fn feature_of(stage: &str) -> Features {
    let found = OPTIONAL.iter().find(|(name, _)| *name == stage);
    found.map_or(Features::NONE, |(_, feature)| *feature)
}

/// What an earlier daemon had stages for: its connections may need them still.
pub(super) fn linked(ebpf: &Ebpf) -> Result<Features, Error> {
    let mut features = Features::NONE;
    for stage in names::stage_programs() {
        let feature = feature_of(stage.stage);
        if feature == Features::NONE {
            continue;
        }
        let Some(map) = ebpf.map(stage.map) else { continue };
        // The kernel shows a program by its number.
        let programs = Table::<u32, u32>::new(stage.map, load::duplicate(stage.map, map)?)?;
        if programs.get(&stage.place)?.is_some() {
            features |= feature;
        }
    }
    Ok(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_stages_exist_and_each_feature_has_some() {
        assert!(OPTIONAL.iter().all(|(stage, _)| names::STAGES.contains(stage)));
        let all = OPTIONAL.iter().fold(Features::NONE, |all, (_, feature)| all | *feature);
        assert_eq!(all, Features::ALL);
        assert_eq!(feature("dirigent_xdp_claim6"), Features::FTP);
        assert_eq!(feature("dirigent_egress_sctp4"), Features::SCTP);
        assert_eq!(feature("dirigent_learn"), Features::SYNC);
        for always in ["dirigent_xdp", "dirigent_ingress_slow4", "dirigent_expire"] {
            assert_eq!(feature(always), Features::NONE, "{always}");
        }
        assert!(Features::ALL.contain(Features::FTP | Features::SYNC) && !Features::FTP.contain(Features::ALL));
    }
}
