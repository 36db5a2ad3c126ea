//! What `scripts/bench-ipvs.py` has counted, and whether packets went the ways they should have.

use std::collections::BTreeMap;
use std::fmt;

use dirigent_director::Reason;
use serde::{Deserialize, Serialize};

/// Who takes packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// The kernel's.
    Ipvs,
    /// This director, by native XDP.
    Xdp,
    /// This director, by tc.
    Tc,
}

impl Path {
    /// All, in the order of columns.
    pub const ALL: [Self; 3] = [Self::Ipvs, Self::Xdp, Self::Tc];
    /// Those of this director.
    pub const OURS: [Self; 2] = [Self::Xdp, Self::Tc];
    /// As the scenario calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The families, as cases name them.
pub const FAMILIES: [&str; 2] = ["v4", "v6"];
/// Methods, as cases name them.
const METHODS: [&str; 3] = ["nat", "dr", "tun"];

/// Names of all cases.
#[must_use]
pub fn cases() -> Vec<String> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for method in METHODS {
            for protocol in ["tcp", "udp"] {
                all.push(format!("{method} {family} {protocol} request"));
                if method == "nat" {
                    all.push(format!("{method} {family} {protocol} reply"));
                }
            }
            all.push(format!("{method} {family} tcp new"));
        }
    }
    all
}

/// Fewer than so many packets are the host's own, such as reports of multicast groups, which arrive and are counted beside.
const OWN: u64 = 10;

/// What a path costs without a director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A packet that is dropped as early as the path can.
    Drop,
    /// One that is sent on without a look at it; by IPVS's path one that is routed.
    Bare,
}

impl Base {
    /// The case's name.
    #[must_use]
    pub fn case(self, family: &str) -> String {
        match self {
            Self::Drop => format!("drop {family}"),
            Self::Bare => format!("bare {family}"),
        }
    }
}

/// One case on one path.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Count {
    /// The path.
    pub path: Path,
    /// The case.
    pub case: String,
    /// Instructions a packet, sending and all: the middle of the rounds.
    pub insns: f64,
    /// Packets sent, those of warming up too.
    pub sent: u64,
    /// How many of them arrived behind the director.
    pub arrived: u64,
    /// How the director counted them.
    #[serde(default)]
    pub reasons: BTreeMap<String, u64>,
}

impl Count {
    /// Why it is worth nothing.
    fn fault(&self) -> Option<String> {
        let Self { path, case, sent, arrived, .. } = self;
        let astray = |what: String| Some(format!("{path}: {case}: {what}; this number means nothing"));
        let expected = if case.starts_with("drop ") { 0 } else { *sent };
        if !(expected..expected + OWN).contains(arrived) {
            return astray(format!("{arrived} of {expected} packets arrived"));
        }
        if *path == Path::Ipvs || !cases().contains(case) {
            return None;
        }
        let reason = if case.ends_with("reply") { Reason::Reply } else { Reason::Request };
        let counted = self.reasons.get(reason.name()).copied().unwrap_or_default();
        if counted != *sent || self.reasons.values().sum::<u64>() >= sent + OWN {
            return astray(format!("{sent} packets were sent, and counted: {:?}", self.reasons));
        }
        None
    }
}

/// All that was counted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Counted {
    /// The guest's kernel.
    pub kernel: String,
    /// See [`Count`].
    pub rows: Vec<Count>,
}

impl Counted {
    /// From the scenario's file.
    pub fn read(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    /// Instructions a packet, sending and all.
    pub fn total(&self, path: Path, case: &str) -> Result<f64, String> {
        let found = self.rows.iter().find(|row| row.path == path && row.case == case);
        found.map(|row| row.insns).ok_or_else(|| format!("{path}: {case} is missing"))
    }

    /// What makes the run worth nothing: packets that left their path.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.rows.iter().filter_map(Count::fault).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file in which a director costs so many instructions above the drop: IPVS's, and ours.
    pub fn recorded(of_ipvs: f64, ours: f64) -> String {
        let mut rows = Vec::new();
        for path in Path::ALL {
            let drop = if path == Path::Xdp { 6000.0 } else { 4000.0 };
            let mut row = |case: &str, insns: f64, arrived: u64| {
                let reason = if case.ends_with("reply") { "reply" } else { "request" };
                let reasons =
                    if path == Path::Ipvs { serde_json::json!({}) } else { serde_json::json!({ reason: 100 }) };
                rows.push(serde_json::json!({
                    "path": path, "case": case, "insns": insns, "low": insns, "high": insns + 0.5,
                    "sent": 100, "arrived": arrived, "reasons": reasons,
                }));
            };
            for family in FAMILIES {
                row(&Base::Drop.case(family), drop, 0);
                row(&Base::Bare.case(family), drop + 1200.0, 100);
            }
            for case in cases() {
                row(&case, drop + if path == Path::Ipvs { of_ipvs } else { ours }, 100);
            }
        }
        serde_json::json!({ "kernel": "6.1.0", "rows": rows }).to_string()
    }

    /// Of a file as the scenario wrote it on 30 November 2026.
    const RECORDED: &str = r#"{
 "kernel": "6.1.0-57-amd64",
 "rows": [
  {"path": "ipvs", "case": "drop v4", "insns": 4268.3, "low": 4264.8, "high": 4268.5, "sent": 19456, "arrived": 0},
  {"path": "xdp", "case": "bare v4", "insns": 7375.3, "low": 7375.1, "high": 7380.2, "sent": 19456, "arrived": 19457},
  {"path": "xdp", "case": "dr v4 tcp new", "insns": 13371.2, "low": 13354.2, "high": 13385.7, "sent": 4864,
   "arrived": 4864, "reasons": {"request": 4864}}
 ]
}"#;

    #[test]
    fn what_was_recorded_is_read() {
        let counted = Counted::read(RECORDED).unwrap();
        assert_eq!((&*counted.kernel, counted.rows.len()), ("6.1.0-57-amd64", 3));
        // One of the packets that arrived was the host's own.
        assert_eq!(counted.faults(), Vec::<String>::new());
        assert_eq!(counted.total(Path::Xdp, "dr v4 tcp new"), Ok(13371.2));
        assert!(Counted::read(&RECORDED.replace("\"insns\"", "\"ns\"")).unwrap_err().contains("insns"));
    }

    #[test]
    fn a_sound_run_has_no_faults() {
        let counted = Counted::read(&recorded(4000.0, 1900.0)).unwrap();
        assert_eq!(counted.faults(), Vec::<String>::new());
        assert_eq!(cases().len(), 22);
        assert_eq!(counted.total(Path::Tc, "tun v6 udp request"), Ok(5900.0));
        assert_eq!(counted.total(Path::Tc, "sctp"), Err("tc: sctp is missing".into()));
    }

    #[test]
    fn packets_that_left_their_path_are_faults() {
        let mut counted = Counted::read(&recorded(4000.0, 1900.0)).unwrap();
        let row = |counted: &Counted, path, case: &str| {
            counted.rows.iter().position(|row| row.path == path && row.case == case).unwrap()
        };
        let dropped = row(&counted, Path::Xdp, "drop v4");
        counted.rows[dropped].arrived = 10;
        // The host's own words.
        let beside = row(&counted, Path::Xdp, "drop v6");
        counted.rows[beside].arrived = 1;
        let lost = row(&counted, Path::Ipvs, "nat v4 tcp reply");
        counted.rows[lost].arrived = 99;
        // Forwarded, but by the host: it arrives all the same.
        let passed = row(&counted, Path::Tc, "nat v6 udp reply");
        counted.rows[passed].reasons = [("reply".to_owned(), 99), ("no_service".to_owned(), 1)].into();
        let told = row(&counted, Path::Xdp, "dr v4 udp request");
        counted.rows[told].reasons.insert("other_protocol".into(), 1);
        let faults = counted.faults();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("ipvs: nat v4 tcp reply: 99 of 100 packets arrived"), "{faults:?}");
        assert!(faults[1].starts_with("xdp: drop v4: 10 of 0 packets arrived"), "{faults:?}");
        assert!(faults[2].contains("\"no_service\": 1"), "{faults:?}");
    }
}
