//! What the BPF object must hold, by name. Read twice: by the build script, which
//! refuses an object that lacks one of these, and by the loader, which pins the maps.

/// The programs: ELF section (it decides the program type) and function name.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("xdp", "dirigent_xdp"),
    ("xdp", "dirigent_expire"),
    ("classifier", "dirigent_ingress"),
    ("classifier", "dirigent_egress"),
];

/// The maps.
pub const MAPS: &[&str] = &[
    "CANDIDATES",
    "CONNS4",
    "CONNS6",
    "COUNTERS",
    "ERRORS",
    "KNOWN4",
    "KNOWN6",
    "LINKS",
    "LOCAL4",
    "LOCAL6",
    "NEXT_HOPS",
    "REASONS",
    "SERVERS",
    "SERVICES",
    "SERVICES4",
    "SERVICES6",
    "SETTINGS",
    "SLOTS",
];
