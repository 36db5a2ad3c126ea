//! What the BPF object must hold, by name. Read twice: by the build script, which
//! refuses an object that lacks one of these, and by the loader, which links the stages.

/// The programs that the kernel or user space starts: ELF section (it decides the
/// program type) and function name.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("xdp", XDP_PROGRAM),
    ("xdp", "dirigent_expire"),
    ("xdp", LEARN),
    ("xdp", "dirigent_pass"),
    ("xdp", UNTRACED),
    ("classifier", "dirigent_ingress"),
    ("classifier", "dirigent_egress"),
    ("raw_tp", "dirigent_lost_exception"),
    ("raw_tp", "dirigent_lost_redirect"),
    ("raw_tp", "dirigent_lost_transmit"),
    ("raw_tp", "dirigent_lost_return"),
];

/// The program that enters connections of which other directors tell.
pub const LEARN: &str = "dirigent_learn";

/// The first program of XDP; the names of its later stages begin with it.
pub const XDP_PROGRAM: &str = "dirigent_xdp";

/// The later stages, in the order of `dirigent_director::direct::Stage`. Each is two
/// programs, one for each address family.
pub const STAGES: &[&str] = &[
    "slow",
    "open",
    "one_packet",
    "stranger",
    "refuse",
    "icmp",
    "icmp_open",
    "tunnel_error",
    "encapsulate",
    "cut",
    "rest",
    "sctp",
    "shorten",
    "over",
    "mark",
    "persist",
    "clear",
    "assign",
    "choose",
    "quic",
    "ftp",
    "claim",
    "probe",
    "tell",
];

/// The stages of XDP: what must be cut or shortened, and probes, it hands over.
const XDP_STAGES: &[&str] = &[
    "slow",
    "open",
    "one_packet",
    "stranger",
    "refuse",
    "icmp",
    "icmp_open",
    "tunnel_error",
    "encapsulate",
    "sctp",
    "over",
    "mark",
    "persist",
    "clear",
    "assign",
    "choose",
    "quic",
    "ftp",
    "claim",
    "tell",
];

/// Programs that go on where a first one left off: the map that holds them, the section,
/// what their names begin with, and which stages there are.
pub const STAGE_MAPS: &[(&str, &str, &str, &[&str])] = &[
    ("XDP_STAGES", "xdp", XDP_PROGRAM, XDP_STAGES),
    ("INGRESS_STAGES", "classifier", "dirigent_ingress", STAGES),
    ("EGRESS_STAGES", "classifier", "dirigent_egress", &["icmp", "sctp"]),
];

/// A program of a later stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageProgram {
    /// The map it is called through.
    pub map: &'static str,
    /// Its place there.
    pub place: u32,
    /// The stage.
    pub stage: &'static str,
    /// Its section in the object.
    pub section: &'static str,
    /// Its name.
    pub program: String,
}

/// All programs of later stages.
#[must_use]
pub fn stage_programs() -> Vec<StageProgram> {
    let mut all = Vec::new();
    for (map, section, prefix, present) in STAGE_MAPS {
        for (stage, place) in STAGES.iter().zip((0..).step_by(2)) {
            if present.contains(stage) {
                for (family, offset) in [(4, 0), (6, 1)] {
                    let program = format!("{prefix}_{stage}{family}");
                    all.push(StageProgram { map, place: place + offset, stage, section, program });
                }
            }
        }
    }
    all
}

/// The object of real servers: its programs, named as the director's so that they are
/// attached by the same code.
pub const REALSERVER_PROGRAMS: &[(&str, &str)] =
    &[("classifier", "dirigent_ingress"), ("classifier", "dirigent_egress")];

/// The maps of that object.
pub const REALSERVER_MAPS: &[&str] = &["SETTINGS", "VIPS4", "VIPS6", "DIRECTORS4", "DIRECTORS6", "OUTCOMES"];

/// The programs of `make bench`, beside a director's of XDP.
pub const BENCH_PROGRAMS: &[(&str, &str)] = &[
    ("xdp", "bench_director"),
    ("xdp", "bench_wrapper"),
    ("xdp", "bench_macswap"),
    ("xdp", "bench_ipip"),
    ("xdp", "bench_lru"),
    ("xdp", "bench_hash"),
    ("xdp", "bench_hash_renew"),
];

/// Their maps, beside a director's.
pub const BENCH_MAPS: &[&str] = &["ROUND", "FLOOR_SERVICES", "FLOOR_LRU", "FLOOR_HASH"];

/// The programs that packets go through while they are traced: the map that they are called through, their section, and
/// their names by their place there. They are loaded when somebody asks.
pub const TRACE_PROGRAMS: [(&str, &str, [&str; 3]); 3] = [
    (TRACE_XDP, "xdp", ["trace_xdp_before", "trace_xdp_first", "trace_xdp_after"]),
    ("TRACE_INGRESS", "classifier", ["trace_ingress_before", "trace_ingress_first", "trace_ingress_after"]),
    ("TRACE_EGRESS", "classifier", ["trace_egress_before", "trace_egress_first", "trace_egress_after"]),
];

/// The first program of XDP as if packets could not be traced: it is measured, and loaded for that only. (Its name is as long
/// as the real one's: to look it up by name is part of what is measured.)
pub const UNTRACED: &str = "untraced_xdp";

/// The map of those of XDP.
pub const TRACE_XDP: &str = "TRACE_XDP";

/// The maps of tracing, which each daemon has anew.
pub const TRACE_MAPS: &[&str] = &["LIVES", "WANTED", "BUDGET", "TOLD", TRACE_XDP, "TRACE_INGRESS", "TRACE_EGRESS"];

/// The maps that user space works with.
pub const MAPS: &[&str] = &[
    "CANDIDATES",
    "CONNS4",
    "CONNS6",
    "COUNTERS",
    "DATAGRAMS4",
    "DATAGRAMS6",
    "ERRORS",
    "KNOWN4",
    "KNOWN6",
    "LINKS",
    "LOCAL4",
    "LOCAL6",
    "LOCAL_NETS4",
    "LOCAL_NETS6",
    "MARK_RULES",
    "NEXT_HOPS",
    "NOTES",
    "PINS4",
    "PINS6",
    "REASONS",
    "SERVERS",
    "SERVICES",
    "SERVICES4",
    "SERVICES6",
    "SETTINGS",
    "SIEVE",
    "SLOTS",
    "SOURCES4",
    "SOURCES6",
];
