//! The BPF object, built by this crate's build script and embedded here.

/// Why there may be no object, and the remedy.
pub const MISSING: &str = "this build of dirigent holds no BPF programs, because the BPF toolchain was missing \
     when it was compiled; run `make setup`, then build again";

/// The object, or nothing if the BPF toolchain was missing at build time
/// (then [`MISSING`] is what to tell the user).
#[must_use]
pub fn object() -> Option<&'static [u8]> {
    embedded()
}

/// The object of real servers, or nothing, likewise.
#[must_use]
pub fn realserver() -> Option<&'static [u8]> {
    embedded_realserver()
}

/// The object of `make bench`, or nothing, likewise.
#[must_use]
pub fn bench() -> Option<&'static [u8]> {
    embedded_bench()
}

#[cfg(not(dirigent_no_bpf))]
fn embedded() -> Option<&'static [u8]> {
    // The ELF reader wants the file's tables aligned, as they are in the file.
    static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dirigent.o"));
    Some(OBJECT)
}

#[cfg(dirigent_no_bpf)]
fn embedded() -> Option<&'static [u8]> {
    None
}

#[cfg(not(dirigent_no_bpf))]
fn embedded_realserver() -> Option<&'static [u8]> {
    static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/realserver.o"));
    Some(OBJECT)
}

#[cfg(dirigent_no_bpf)]
fn embedded_realserver() -> Option<&'static [u8]> {
    None
}

#[cfg(not(dirigent_no_bpf))]
fn embedded_bench() -> Option<&'static [u8]> {
    static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.o"));
    Some(OBJECT)
}

#[cfg(dirigent_no_bpf)]
fn embedded_bench() -> Option<&'static [u8]> {
    None
}
