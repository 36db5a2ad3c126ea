//! Builds the BPF object (`bpf/`) and checks what came out.
//!
//! The object needs another compiler than the workspace: one that has the standard
//! library's sources, and a linker that knows BPF. `make setup` provides both and
//! writes where they are into the user's cache. This script runs cargo itself: the
//! `bpf/` crate is outside the workspace, gets its own target directory (so the two
//! cargos never wait for each other's lock) and an environment without what the outer
//! cargo set for its own compiler.
//!
//! Without the toolchain the crate still compiles, without an object: `object()`
//! returns nothing and the build says which command is missing.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

mod btf;
#[path = "src/names.rs"]
mod names;

/// How the BPF side is compiled: debug information because BTF is made from it; BPF
/// instruction set v3 (jumps on 32 bits, 32-bit registers), which all kernels since 5.1 have.
const RUSTFLAGS: &[&str] = &["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"];

fn main() -> ExitCode {
    // Cargo gives a build script no arguments, and the compiler's wrapper (below) those of the compiler.
    let mut arguments = env::args_os().skip(1);
    let result = match arguments.next() {
        Some(rustc) => compile_anywhere_alike(rustc, arguments),
        None => run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rustc-check-cfg=cfg(dirigent_no_bpf)");
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = here.ancestors().nth(2).ok_or("the crate is not where it was")?.to_path_buf();
    for watched in
        ["bpf/src", "bpf/Cargo.toml", "bpf/Cargo.lock", "crates/director", "crates/wire", "scripts/versions.env"]
    {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    for file in ["build.rs", "btf.rs", "src/names.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }

    let record = cache()?.join("toolchain.env");
    // Watched also while it is absent: the build after `make setup` must notice.
    println!("cargo::rerun-if-changed={}", record.display());
    for name in ["XDG_CACHE_HOME", "HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let Some(toolchain) = Toolchain::recorded(&record) else {
        println!("cargo::rustc-cfg=dirigent_no_bpf");
        println!(
            "cargo::warning=built WITHOUT the BPF programs: the BPF toolchain (a rustc with its library sources, \
             bpf-linker) is missing; `make setup` provides it. Everything that needs no kernel works."
        );
        return Ok(());
    };

    let versions = settings(&root.join("scripts/versions.env"))?;
    let target = versions.get("BPF_TARGET").ok_or("scripts/versions.env does not name BPF_TARGET")?;
    let built = build(&root.join("bpf"), &toolchain, target)?;
    let first = names::PROGRAMS.iter().map(|(section, program)| (*section, (*program).to_owned()));
    let stages = names::stage_programs().into_iter().map(|stage| (stage.section, stage.program));
    let traced = names::TRACE_PROGRAMS.iter();
    let traced = traced.flat_map(|(_, section, all)| all.iter().map(|program| (*section, (*program).to_owned())));
    let maps = names::MAPS.iter().chain(names::STAGE_MAPS.iter().map(|(map, ..)| map)).chain(names::TRACE_MAPS);
    let programs = first.chain(stages).chain(traced).collect();
    embed(&built.join("dirigent-bpf"), "dirigent.o", programs, maps.copied().collect())?;
    let programs = names::REALSERVER_PROGRAMS.iter().map(|(section, program)| (*section, (*program).to_owned()));
    let maps = names::REALSERVER_MAPS.to_vec();
    embed(&built.join("dirigent-realserver"), "realserver.o", programs.collect(), maps)?;
    let programs = names::BENCH_PROGRAMS.iter().map(|(section, program)| (*section, (*program).to_owned()));
    let maps = names::MAPS.iter().chain(names::BENCH_MAPS).copied();
    embed(&built.join("dirigent-bench"), "bench.o", programs.collect(), maps.collect())
}

/// Checks an object and puts it where the crate includes it.
fn embed(built: &Path, name: &str, programs: Vec<(&str, String)>, maps: Vec<&str>) -> Result<(), String> {
    let mut bytes = fs::read(built).map_err(|e| format!("{}: {e}", built.display()))?;
    check(&bytes, &programs, &maps).map_err(|e| format!("the BPF object {} was built, but {e}", built.display()))?;
    repair(&mut bytes).map_err(|e| format!("the BPF object {} was built, but {e}", built.display()))?;
    let out = PathBuf::from(variable("OUT_DIR")?).join(name);
    fs::write(&out, bytes).map_err(|e| format!("{}: {e}", out.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}

/// Where scripts/setup.sh keeps the toolchain.
fn cache() -> Result<PathBuf, String> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(&variable("HOME")?).join(".cache"),
    };
    Ok(base.join("dirigent/bpf"))
}

/// Reads `NAME=VALUE` lines, with or without quotes.
fn settings(file: &Path) -> Result<BTreeMap<String, String>, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect())
}

struct Toolchain {
    rustc: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    /// What `make setup` recorded, if it is still there.
    fn recorded(record: &Path) -> Option<Self> {
        let found = settings(record).ok()?;
        let toolchain = Self { rustc: found.get("RUSTC")?.into(), linker: found.get("LINKER")?.into() };
        (toolchain.rustc.exists() && toolchain.linker.exists()).then_some(toolchain)
    }
}

/// Runs cargo in `bpf/` and returns where the objects are.
fn build(bpf: &Path, toolchain: &Toolchain, target: &str) -> Result<PathBuf, String> {
    let target_dir = target_dir()?;
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_the_outer_cargo = text.starts_with("CARGO") && text != "CARGO_HOME"
            || text.starts_with("RUSTC")
            || text == "RUSTFLAGS"
            || text == "RUSTDOC"
            || text == "RUSTDOCFLAGS";
        if of_the_outer_cargo {
            cargo.env_remove(&name);
        }
    }
    let linker_variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    cargo
        .current_dir(bpf)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_WRAPPER", env::current_exe().map_err(|e| format!("where this build script is: {e}"))?)
        // The library's sources and the target are unstable features of a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(linker_variable, &toolchain.linker)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"))
        .env("CARGO_TERM_COLOR", "never")
        .args(["build", "--locked", "--release", "-Zbuild-std=core", "--target", target, "--target-dir"])
        .arg(&target_dir);
    let output = cargo.output().map_err(|e| format!("cannot run cargo for the BPF programs: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let mut message = format!("the BPF programs do not build:\n{said}");
        if said.contains("--locked") {
            message.push_str("\nbpf/Cargo.lock is out of date: run `cargo update -w` in bpf/ and commit the file");
        } else if said.contains("bpf-linker") || said.contains("rust-src") {
            message.push_str("\nif the compiler was upgraded since, `make setup` rebuilds the linker for it");
        }
        return Err(message);
    }
    // Cargo shows nothing of a build script that succeeds, and warnings are meant to be seen.
    let mut showing = false;
    for line in said.lines() {
        showing = line.starts_with("warning") || showing && !line.trim_start().starts_with(|c: char| c.is_uppercase());
        if showing {
            println!("cargo::warning={line}");
        }
    }
    Ok(target_dir.join(target).join("release"))
}

/// Runs the compiler as cargo wants it, but for the name that cargo tells crates apart by: of one outside of the
/// workspace of `bpf/` it is made from the path of the clone, and the optimizer's order of functions goes by it. The
/// objects of two clones would differ by some instructions, and one of them exceed what `bpf/budgets.txt` allows.
fn compile_anywhere_alike(rustc: OsString, arguments: impl Iterator<Item = OsString>) -> Result<(), String> {
    let of_package = |name| env::var(name).unwrap_or_default();
    let crate_id = format!("metadata={}-{}", of_package("CARGO_PKG_NAME"), of_package("CARGO_PKG_VERSION"));
    let arguments = arguments.map(|argument| match argument.to_str() {
        Some(text) if text.starts_with("metadata=") => crate_id.clone().into(),
        _ => argument,
    });
    Err(format!("{}: {}", rustc.display(), Command::new(&rustc).args(arguments).exec()))
}

/// One target directory beside the profiles' (`target/bpf`), so that `cargo build`,
/// `cargo build --release` and clippy share one build of the BPF side.
fn target_dir() -> Result<PathBuf, String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    // target/<profile>/build/<package>/out
    let shared = out
        .ancestors()
        .nth(2)
        .filter(|build| build.ends_with("build"))
        .and_then(|build| build.ancestors().nth(2))
        .map(|target| target.join("bpf"));
    Ok(shared.unwrap_or_else(|| out.join("bpf")))
}

/// Repairs the object's type information.
fn repair(bytes: &mut [u8]) -> Result<(), String> {
    let place = {
        let elf = object::File::parse(&*bytes).map_err(|e| format!("it is no ELF file: {e}"))?;
        elf.section_by_name(".BTF").and_then(|section| section.file_range()).ok_or("it has no section .BTF")?
    };
    let (start, size) = (usize::try_from(place.0), usize::try_from(place.1));
    let section = match (start, size) {
        (Ok(start), Ok(size)) => bytes.get_mut(start..start + size),
        _ => None,
    };
    btf::repair(section.ok_or("its .BTF section is outside the file")?)?;
    Ok(())
}

/// Refuses an object that would load as nothing, or would not load at all. Empty
/// objects have shipped elsewhere with every test green.
fn check(bytes: &[u8], programs: &[(&str, String)], maps: &[&str]) -> Result<(), String> {
    let elf = object::File::parse(bytes).map_err(|e| format!("it is no ELF file: {e}"))?;
    let section_of = |symbol: &object::Symbol<'_, '_>| {
        let section = elf.section_by_index(symbol.section_index()?).ok()?;
        Some(section.name().unwrap_or_default().to_owned())
    };
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    for symbol in elf.symbols() {
        let name = symbol.name().unwrap_or_default();
        let section = section_of(&symbol);
        if symbol.kind() == object::SymbolKind::Text && (name.contains("panic") || name.contains("core9panicking")) {
            wrong.push(format!(
                "it links the panic function {name}, which the kernel refuses: an index, a division or an unwrap in the \
                 packet path is not provably in range"
            ));
        }
        if symbol.is_undefined() && !name.is_empty() {
            wrong.push(format!("it refers to {name}, which is nowhere"));
        }
        if let Some(section) = section.filter(|_| symbol.size() > 0) {
            found.push((section, name.to_owned()));
        }
    }
    for section in elf.sections() {
        let name = section.name().unwrap_or_default();
        if name.starts_with(".text.unlikely") && section.size() > 0 {
            wrong.push(format!("it has a section {name}: cold code of panics, which the kernel refuses"));
        }
    }
    for (section, program) in programs {
        if !found.iter().any(|(s, n)| s == section && n == program) {
            wrong.push(format!("it has no program {program} in section {section}"));
        }
    }
    for map in maps {
        if !found.iter().any(|(s, n)| (s == ".maps" || s == "maps") && n == map) {
            wrong.push(format!("it has no map {map}"));
        }
    }
    for wanted in [".BTF", "license"] {
        if elf.section_by_name(wanted).is_none_or(|s| s.size() == 0) {
            wrong.push(format!("it has no section {wanted}"));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let entries = found.iter().filter(|(section, _)| !section.starts_with(".text") && !section.starts_with(".rodata"));
    wrong.push(format!("it has: {}", entries.map(|(s, n)| format!("{s}/{n}")).collect::<Vec<_>>().join(", ")));
    Err(wrong.join("\n"))
}
