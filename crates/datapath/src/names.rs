//! What the BPF object must hold, by name. Read twice: by the build script, which
//! refuses an object that lacks one of these, and by the loader.

/// The programs: ELF section (it decides the program type) and function name.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("xdp", "dirigent_xdp"),
    ("classifier", "dirigent_ingress"),
    ("classifier", "dirigent_egress"),
];

/// The maps.
pub const MAPS: &[&str] = &["LAYOUT"];
