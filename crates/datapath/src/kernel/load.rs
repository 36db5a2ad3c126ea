//! Loading the object: with pinned maps for a director, without for tests.

use std::{
    fs, io,
    num::NonZero,
    os::fd::{AsFd as _, OwnedFd},
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};

use super::{
    error::{Error, Source},
    losses,
    shape::{Shape, shapes},
    stages::{self, Features},
    sys::{self, MapInfo, RawMap},
    table::{Mapped, PerCpuTable, Table},
};
use crate::{names, object};

const BPFFS: &str = "/sys/fs/bpf";

/// The one-entry map whose first word is the layout version of all maps.
pub const LAYOUT_MAP: &str = "SETTINGS";

/// The name under which one director's maps and attachments are pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(String);

impl Instance {
    /// Checks the name.
    pub fn new(name: &str) -> Result<Self, Error> {
        let good =
            (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if good { Ok(Self(name.to_owned())) } else { Err(Error::InstanceName(name.to_owned())) }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The directory of all its pins.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        Path::new(BPFFS).join("dirigent").join(&self.0)
    }

    /// Where a map is pinned.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory().join("maps").join(name)
    }

    /// The directory of the attachments.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.directory().join("links")
    }

    /// The other directors of this machine, by their pins.
    pub(super) fn others(&self) -> Vec<Self> {
        let names = fs::read_dir(Path::new(BPFFS).join("dirigent")).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| *name != self.0).filter_map(|name| Self::new(&name).ok()).collect()
    }

    /// Whether there are pinned maps: a director forwards, or did.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.map(LAYOUT_MAP).exists()
    }

    /// How many entries there is room for in a pinned map.
    pub fn entries(&self, name: &str) -> Result<u32, Error> {
        let path = self.map(name);
        let info = sys::open_pin(&path).and_then(|fd| sys::map_info(fd.as_fd()));
        info.map(|info| info.entries).map_err(|e| Error::path(path, e))
    }

    /// Bytes of kernel memory that all pinned maps take.
    pub fn bytes(&self) -> Result<u64, Error> {
        let maps = self.directory().join("maps");
        let entries = fs::read_dir(&maps).map_err(|e| Error::path(&maps, e))?;
        entries.flatten().map(|entry| entry.path()).try_fold(0, |sum, path| {
            let bytes = sys::open_pin(&path).and_then(|fd| sys::map_bytes(fd.as_fd()));
            bytes.map(|bytes| sum + bytes).map_err(|e| Error::path(path, e))
        })
    }

    /// Opens a pinned map, without loading anything: for commands that only look.
    pub fn open_table<K, V>(&self, name: &str) -> Result<Table<K, V>, Error> {
        let path = self.map(name);
        let fd = sys::open_pin(&path).map_err(|e| Error::path(path, e))?;
        Table::new(name, fd)
    }

    /// Opens a pinned array and maps it into memory, without loading anything.
    pub fn open_mapped<V: zerocopy::FromBytes>(&self, name: &str) -> Result<Mapped<V>, Error> {
        let path = self.map(name);
        let fd = sys::open_pin(&path).map_err(|e| Error::path(path, e))?;
        Mapped::new(name, &fd)
    }

    /// Opens a pinned per-CPU map, without loading anything.
    pub fn open_per_cpu_table<K, V>(&self, name: &str) -> Result<PerCpuTable<K, V>, Error> {
        let path = self.map(name);
        let fd = sys::open_pin(&path).map_err(|e| Error::path(path, e))?;
        PerCpuTable::new(name, fd)
    }
}

/// How to load.
#[derive(Clone, Debug)]
pub struct LoadOptions<'a> {
    /// Where to pin; nothing for programs that are only run on frames and end with the process.
    /// Those are all loaded at once; of pinned ones, XDP's only when an interface wants them.
    pub instance: Option<&'a Instance>,
    /// The layout version of the records in the maps.
    pub layout: u32,
    /// Entries of maps, where the object's own number is not wanted. Maps that are taken
    /// over keep theirs.
    pub map_sizes: &'a [(&'a str, u32)],
    /// What packets need stages for, as far as it is known: see [`Kernel::need`].
    pub features: Features,
}

/// The loaded programs and maps.
#[derive(Debug)]
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    pub(super) instance: Option<Instance>,
    took_over: bool,
    /// Whether XDP's half of the programs is loaded and linked.
    xdp_loaded: bool,
    /// Whether what this host sends is seen on all interfaces.
    pub(super) sees_answers: bool,
    /// What stages are loaded and linked for.
    features: Features,
    notes: Vec<String>,
    /// Why lost frames cannot be counted.
    pub(super) uncounted: Option<Error>,
    /// Whose turn it is with `CANDIDATES`.
    pub(super) turn: Arc<Mutex<()>>,
}

/// Pins the program that only passes, for the other end of a veth link: its driver takes
/// XDP frames back only when it has a program itself. Whoever attaches it removes the pin.
pub fn pin_pass(pin: &Path) -> Result<(), Error> {
    const PASS: &str = "dirigent_pass";
    mount(&mut Vec::new())?;
    let object = object::object().ok_or(Error::NoObject)?;
    let mut ebpf = EbpfLoader::new().load(object).map_err(|e| Error::load("the BPF object", e))?;
    let program: &mut aya::programs::Xdp = ebpf
        .program_mut(PASS)
        .ok_or_else(|| Error::Program { program: PASS.to_owned(), kind: "XDP" })?
        .try_into()
        .map_err(|_| Error::Program { program: PASS.to_owned(), kind: "XDP" })?;
    uninterrupted(|| program.load()).map_err(|e| Error::load(PASS, e))?;
    program.pin(pin).map_err(|e| Error::path(pin, std::io::Error::other(e)))
}

impl Kernel {
    /// Loads the embedded object. With an instance whose maps are pinned already, those
    /// are used, entries and counters and all, and [`Kernel::attach`] then replaces the
    /// programs of its attachments one by one without losing a packet.
    pub fn load(options: &LoadOptions<'_>) -> Result<Self, Error> {
        let object = object::object().ok_or(Error::NoObject)?;
        Self::load_object(object, options)
    }

    /// As [`Kernel::load`], for an object of one's own.
    pub fn load_object(object: &[u8], options: &LoadOptions<'_>) -> Result<Self, Error> {
        let mut notes = Vec::new();
        let mut took_over = false;
        let mut loader = EbpfLoader::new();
        let parsed = aya_obj::Object::parse(object).map_err(|e| Error::load("the BPF object", e))?;
        for (name, entries) in options.map_sizes {
            loader.map_max_entries(name, *entries);
        }
        if let Some(instance) = options.instance {
            mount(&mut notes)?;
            took_over = instance.exists();
            if took_over {
                check_layout(instance, options.layout)?;
                check_shapes(&parsed, instance, options.map_sizes, &mut notes)?;
            }
            for directory in [instance.directory().join("maps"), instance.links()] {
                fs::create_dir_all(&directory).map_err(|e| Error::path(directory, e))?;
            }
            for name in tables(&parsed) {
                loader.map_pin_path(name, instance.map(name));
            }
        }
        let (constant, uncounted) = match losses::constant() {
            Ok(constant) => (constant, None),
            Err(error) => ([0; 4], Some(error)),
        };
        // A real server's object loses nothing by XDP, and has no such constant.
        loader.override_global(losses::CONSTANT, &constant[..], false);
        let loaded = Self::programs_and_maps(&mut loader, object, options);
        let (ebpf, features) = match (loaded, options.instance) {
            (Ok(loaded), _) => loaded,
            (Err(error), Some(instance)) if !took_over => {
                // A start that failed half-way leaves nothing for the next one to trip over.
                remove_maps(instance);
                return Err(error);
            }
            (Err(error), _) => return Err(error),
        };
        let kernel = Self {
            ebpf,
            instance: options.instance.cloned(),
            took_over,
            xdp_loaded: options.instance.is_none(),
            sees_answers: false,
            features,
            notes,
            uncounted,
            turn: Arc::default(),
        };
        // Last: a version there says that all maps are.
        Layout::of(kernel.map_fd(LAYOUT_MAP)?)?.write(options.layout)?;
        for note in &kernel.notes {
            tracing::info!("{note}");
        }
        Ok(kernel)
    }

    fn programs_and_maps(
        loader: &mut EbpfLoader<'_>,
        object: &[u8],
        options: &LoadOptions<'_>,
    ) -> Result<(Ebpf, Features), Error> {
        let mut ebpf = loader.load(object).map_err(|e| Error::load(sizes(options), e))?;
        let features = options.features | stages::linked(&ebpf)?;
        // XDP's are half of what the verifier has to walk through, and many directors have no use for them.
        let at_once = |name: &str| {
            (options.instance.is_none() || !forwards_by_xdp(name))
                && !traces(name)
                && features.contain(stages::feature(name))
        };
        load_and_link(&mut ebpf, at_once)?;
        Ok((ebpf, features))
    }

    /// Loads what only XDP needs, if it is not loaded yet.
    pub(super) fn load_xdp(&mut self) -> Result<(), Error> {
        if !self.xdp_loaded {
            let features = self.features;
            load_and_link(&mut self.ebpf, |name| forwards_by_xdp(name) && features.contain(stages::feature(name)))?;
            self.xdp_loaded = true;
        }
        Ok(())
    }

    /// Loads the stages that packets need for these, if they are not loaded yet. To be called before a service, or
    /// whatever else needs them, is in the tables; they stay, since its connections do.
    pub fn need(&mut self, features: Features) -> Result<(), Error> {
        if self.has(features) {
            return Ok(());
        }
        let (wanted, xdp) = (self.features | features, self.xdp_loaded);
        let further = |name: &str| {
            let feature = stages::feature(name);
            feature != Features::NONE && wanted.contain(feature) && (xdp || !forwards_by_xdp(name))
        };
        load_and_link(&mut self.ebpf, further)?;
        self.features = wanted;
        Ok(())
    }

    /// Loads what packets go through while they are traced, if it is not loaded yet.
    pub(super) fn load_trace(&mut self) -> Result<(), Error> {
        // Without an interface that wants it, XDP's would find no stages to go on in.
        let wanted = |map: &str| self.xdp_loaded || map != names::TRACE_XDP;
        let parts = names::TRACE_PROGRAMS.iter().filter(|(map, ..)| wanted(map));
        let all: Vec<_> =
            parts.flat_map(|(map, _, programs)| (0..).zip(programs).map(|(at, name)| (*map, at, *name))).collect();
        load_programs(self.ebpf.programs_mut().filter(|(name, _)| all.iter().any(|(.., program)| program == name)))?;
        all.into_iter().try_for_each(|(map, place, program)| link(&mut self.ebpf, program, map, place))
    }

    /// Loads the first program of XDP as if packets could not be traced, to be run on frames; returns its name.
    pub fn load_untraced(&mut self) -> Result<&'static str, Error> {
        load_programs(self.ebpf.programs_mut().filter(|(name, _)| *name == names::UNTRACED))?;
        Ok(names::UNTRACED)
    }

    /// Whether the stages that packets need for these are loaded.
    #[must_use]
    pub fn has(&self, features: Features) -> bool {
        self.features.contain(features)
    }

    /// Whether pinned maps were there and are now used.
    #[must_use]
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// What the operator should know about the loading, as sentences.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// A map, typed. The sizes of key and value are checked against the kernel's.
    pub fn table<K, V>(&self, name: &str) -> Result<Table<K, V>, Error> {
        Table::new(name, self.map_fd(name)?)
    }

    /// A per-CPU map, typed.
    pub fn per_cpu_table<K, V>(&self, name: &str) -> Result<PerCpuTable<K, V>, Error> {
        PerCpuTable::new(name, self.map_fd(name)?)
    }

    /// A mappable array in this process's memory, shared with the programs.
    pub fn mapped<V: zerocopy::FromBytes>(&self, name: &str) -> Result<Mapped<V>, Error> {
        Mapped::new(name, &self.map_fd(name)?)
    }

    /// A duplicate of a map's descriptor, for example to map it into memory.
    pub fn map_fd(&self, name: &str) -> Result<OwnedFd, Error> {
        let map = self
            .ebpf
            .map(name)
            .ok_or_else(|| Error::Map { map: name.to_owned(), reason: "is not in the BPF object".to_owned() })?;
        duplicate(name, map)
    }

    /// Bytes of kernel memory that a map takes.
    pub fn map_bytes(&self, name: &str) -> Result<u64, Error> {
        let fd = self.map_fd(name)?;
        sys::map_bytes(fd.as_fd()).map_err(|e| Error::system(format!("the size of map {name}"), e))
    }

    /// How many instructions the verifier walked through to accept a program (its limit
    /// is a million).
    pub fn verified_instructions(&self, program: &str) -> Result<Option<u32>, Error> {
        let found = self.ebpf.program(program);
        let found = found.ok_or_else(|| Error::Program { program: program.to_owned(), kind: "loaded" })?;
        let info = found.info().map_err(|e| Error::load(format!("the question about program {program}"), e))?;
        Ok(info.verified_instruction_count())
    }

    pub(super) fn xdp(&mut self, name: &str) -> Result<&mut Xdp, Error> {
        match self.ebpf.program_mut(name) {
            Some(Program::Xdp(xdp)) => Ok(xdp),
            _ => Err(Error::Program { program: name.to_owned(), kind: "XDP" }),
        }
    }

    pub(super) fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier, Error> {
        match self.ebpf.program_mut(name) {
            Some(Program::SchedClassifier(tc)) => Ok(tc),
            _ => Err(Error::Program { program: name.to_owned(), kind: "tc" }),
        }
    }
}

/// A duplicate of a map's descriptor.
pub(super) fn duplicate(name: &str, map: &aya::maps::Map) -> Result<OwnedFd, Error> {
    let fd = data(map).fd().as_fd().try_clone_to_owned();
    fd.map_err(|e| Error::system(format!("duplicating the descriptor of map {name}"), e))
}

/// Whether a program is XDP's first, or a later stage of it: of no use where tc takes the packets.
fn forwards_by_xdp(program: &str) -> bool {
    program.starts_with(names::XDP_PROGRAM)
}

/// Whether packets go through a program only while they are traced, or never.
fn traces(program: &str) -> bool {
    program == names::UNTRACED || names::TRACE_PROGRAMS.iter().any(|(_, _, all)| all.contains(&program))
}

/// Has programs verified and, if they are later stages, called by the first ones.
fn load_and_link(ebpf: &mut Ebpf, which: impl Fn(&str) -> bool) -> Result<(), Error> {
    load_programs(ebpf.programs_mut().filter(|(name, _)| which(name)))?;
    link_stages(ebpf, which)
}

/// Has the kernel verify and compile programs, on all CPUs: it takes seconds on one. Those that are loaded are left.
fn load_programs<'a>(programs: impl Iterator<Item = (&'a str, &'a mut Program)>) -> Result<(), Error> {
    let left = Mutex::new(programs.filter(|(_, program)| program.fd().is_err()).collect::<Vec<_>>());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || std::iter::from_fn(next).try_for_each(|(name, program)| load_program(name, program));
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cpus).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn load_program(name: &str, program: &mut Program) -> Result<(), Error> {
    let loaded = match program {
        Program::Xdp(xdp) => uninterrupted(|| xdp.load()),
        Program::SchedClassifier(tc) => uninterrupted(|| tc.load()),
        Program::RawTracePoint(trace) => uninterrupted(|| trace.load()),
        _ => return Err(Error::Program { program: name.to_owned(), kind: "XDP or tc" }),
    };
    loaded.map_err(|e| Error::load(format!("program {name}"), e))
}

/// A signal to this thread, a stop among them, makes the kernel give up a verification with EAGAIN: it is begun anew, as
/// often as a host that is stopped again and again may ask for.
fn uninterrupted(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    const TIMES: usize = 200;
    let interrupted = |result: &Result<(), ProgramError>| matches!(result, Err(ProgramError::LoadError { io_error, .. }) if io_error.raw_os_error() == Some(libc::EAGAIN));
    (1..TIMES).map(|_| load()).find(|result| !interrupted(result)).unwrap_or_else(load)
}

/// The maps that are pinned: all but the compiler's own (constants, which belong to the
/// code that was loaded with them) and those of tracing.
fn tables(object: &aya_obj::Object) -> impl Iterator<Item = &str> {
    use aya_obj::EbpfSectionKind as Kind;
    let pinned = |map: &aya_obj::Map| matches!(map.section_kind(), Kind::Maps | Kind::BtfMaps);
    let all = object.maps.iter().filter(move |(_, map)| pinned(map)).map(|(name, _)| name.as_str());
    all.filter(|name| !names::TRACE_MAPS.contains(name))
}

/// What the kernel's verifier says of one program.
#[derive(Debug)]
pub struct Verified {
    /// The program.
    pub program: String,
    /// What it is made of.
    pub shape: Shape,
    /// How many instructions the verifier walked through (its limit is a million), where
    /// the kernel tells; or the refusal, with the verifier's log.
    pub result: Result<Option<u32>, Error>,
}

/// Has the kernel check each program of the embedded objects by itself, however many it
/// refuses. For those who change the programs.
pub fn verify() -> Result<Vec<Verified>, Error> {
    let mut all = verify_object(object::object().ok_or(Error::NoObject)?, "")?;
    all.extend(verify_object(object::realserver().ok_or(Error::NoObject)?, "real server: ")?);
    Ok(all)
}

fn verify_object(object: &[u8], whose: &str) -> Result<Vec<Verified>, Error> {
    let shapes = shapes(object)?;
    let mut loader = EbpfLoader::new();
    // The sizes do not matter to the verifier, but to memory.
    loader.map_max_entries("CONNS4", 1024).map_max_entries("CONNS6", 1024);
    let mut ebpf = loader.load(object).map_err(|e| Error::load("the BPF object", e))?;
    let mut all = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        let unknown = || Error::Program { program: name.to_owned(), kind: "linked" };
        let shape = *shapes.get(name).ok_or_else(unknown)?;
        let count = load_program(name, program).and_then(|()| {
            let info = program.info().map_err(|e| Error::load(format!("the question about program {name}"), e))?;
            Ok(info.verified_instruction_count())
        });
        all.push(Verified { program: format!("{whose}{name}"), shape, result: count });
    }
    all.sort_by(|a, b| a.program.cmp(&b.program));
    Ok(all)
}

/// Puts these programs of later stages into the maps that the first ones call them through.
/// Where an earlier daemon's are in place, each is replaced in one step: its first
/// programs then call the new stages, which read the packet anew.
fn link_stages(ebpf: &mut Ebpf, which: impl Fn(&str) -> bool) -> Result<(), Error> {
    for stage in names::stage_programs().into_iter().filter(|stage| which(&stage.program)) {
        if ebpf.map(stage.map).is_none() {
            continue; // a real server's object, which the build script saw to be without stages
        }
        link(ebpf, &stage.program, stage.map, stage.place)?;
    }
    Ok(())
}

/// Has programs call another one by its place in a map.
fn link(ebpf: &mut Ebpf, program: &str, map: &str, place: u32) -> Result<(), Error> {
    let fail = |source: Source| Error::load(format!("program {program} as place {place} of {map}"), source);
    let found = ebpf.program(program).ok_or_else(|| Error::Program { program: program.to_owned(), kind: "stage" })?;
    let fd = found.fd().map_err(|e| fail(e.into()))?.try_clone().map_err(|e| fail(e.into()))?;
    let missing = || Error::Map { map: map.to_owned(), reason: "is not in the BPF object".to_owned() };
    let mut array = ProgramArray::try_from(ebpf.map_mut(map).ok_or_else(missing)?).map_err(|e| fail(e.into()))?;
    array.set(place, &fd, 0).map_err(|e| fail(e.into()))
}

/// aya's map types all wrap the same data.
fn data(map: &aya::maps::Map) -> &MapData {
    use aya::maps::Map as M;
    match map {
        M::Array(d)
        | M::ArrayOfMaps(d)
        | M::BloomFilter(d)
        | M::CgroupArray(d)
        | M::CgroupStorage(d)
        | M::CgrpStorage(d)
        | M::CpuMap(d)
        | M::DevMap(d)
        | M::DevMapHash(d)
        | M::HashMap(d)
        | M::HashOfMaps(d)
        | M::InodeStorage(d)
        | M::LpmTrie(d)
        | M::LruHashMap(d)
        | M::PerCpuArray(d)
        | M::PerCpuCgroupStorage(d)
        | M::PerCpuHashMap(d)
        | M::PerCpuLruHashMap(d)
        | M::PerfEventArray(d)
        | M::ProgramArray(d)
        | M::Queue(d)
        | M::ReusePortSockArray(d)
        | M::RingBuf(d)
        | M::SockHash(d)
        | M::SockMap(d)
        | M::SkStorage(d)
        | M::Stack(d)
        | M::StackTraceMap(d)
        | M::Unsupported(d)
        | M::XskMap(d) => d,
    }
}

fn sizes(options: &LoadOptions<'_>) -> String {
    let sizes: Vec<_> = options.map_sizes.iter().map(|(name, entries)| format!("{name} {entries}")).collect();
    match sizes.is_empty() {
        true => "the BPF object".to_owned(),
        false => format!("the BPF object (with entries: {})", sizes.join(", ")),
    }
}

/// Makes sure that there is a BPF file system to pin in.
fn mount(notes: &mut Vec<String>) -> Result<(), Error> {
    if sys::is_bpffs(BPFFS) {
        return Ok(());
    }
    sys::mount_bpffs(BPFFS).map_err(|source| Error::Bpffs { path: BPFFS, source })?;
    notes.push(format!("mounted a BPF file system at {BPFFS}, which had none: the programs and maps are pinned there"));
    Ok(())
}

/// The map that holds the version. Only its first word is known to be where it was:
/// the rest may be of another version.
struct Layout(RawMap);

impl Layout {
    fn of(fd: OwnedFd) -> Result<Self, Error> {
        RawMap::new(fd, 1).map(Self).map_err(Self::fail)
    }

    fn fail(e: io::Error) -> Error {
        Error::system(format!("the layout version in map {LAYOUT_MAP}"), e)
    }

    fn value(&self) -> Result<Vec<u8>, Error> {
        let mut value = vec![0; self.0.value_bytes];
        self.0.lookup(&0u32.to_ne_bytes(), &mut value).map_err(Self::fail)?;
        Ok(value)
    }

    fn read(&self) -> Result<u32, Error> {
        Ok(self.value()?.first_chunk().map_or(0, |word| u32::from_ne_bytes(*word)))
    }

    fn write(&self, version: u32) -> Result<(), Error> {
        let mut value = self.value()?;
        if let Some(word) = value.first_chunk_mut() {
            *word = version.to_ne_bytes();
        }
        self.0.update(&0u32.to_ne_bytes(), &value, 0).map_err(Self::fail)
    }
}

fn check_layout(instance: &Instance, expected: u32) -> Result<(), Error> {
    let path = instance.map(LAYOUT_MAP);
    let found = Layout::of(sys::open_pin(&path).map_err(|e| Error::path(path, e))?)?.read()?;
    // 0: a start that did not finish; the shapes are compared in any case.
    if found == 0 || found == expected {
        return Ok(());
    }
    Err(Error::Layout { instance: instance.name().to_owned(), found, expected })
}

/// Compares pinned maps with what the object declares. aya would use whatever is pinned.
fn check_shapes(
    object: &aya_obj::Object,
    instance: &Instance,
    wanted: &[(&str, u32)],
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    for name in tables(object) {
        let Some(declared) = object.maps.get(name) else { continue };
        let path = instance.map(name);
        let fd = match sys::open_pin(&path) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::path(path, e)),
        };
        let found = sys::map_info(fd.as_fd()).map_err(|e| Error::path(&path, e))?;
        let declared = MapInfo {
            kind: declared.map_type(),
            key: declared.key_size(),
            value: declared.value_size(),
            entries: declared.max_entries(),
        };
        if (found.kind, found.key, found.value) != (declared.kind, declared.key, declared.value) {
            return Err(Error::MapShape { map: name.to_owned(), found: shape(found), expected: shape(declared) });
        }
        let entries = wanted.iter().find(|(map, _)| *map == name).map_or(declared.entries, |(_, entries)| *entries);
        if found.entries != entries {
            notes.push(format!(
                "map {name} was taken over with room for {} entries, not {entries}: a table that is in use cannot be \
                 resized; `dirigent stop --detach` and a new start would",
                found.entries
            ));
        }
    }
    Ok(())
}

fn shape(map: MapInfo) -> String {
    format!("type {}, keys of {} and values of {} bytes", map.kind, map.key, map.value)
}

/// Removes the pins of an instance's maps and its directories.
pub(super) fn remove_maps(instance: &Instance) {
    let maps = instance.directory().join("maps");
    for entry in fs::read_dir(&maps).into_iter().flatten().flatten() {
        if let Err(e) = fs::remove_file(entry.path()) {
            tracing::warn!("{}: {e}", entry.path().display());
        }
    }
    for directory in [maps, instance.links(), instance.directory()] {
        if let Err(e) = fs::remove_dir(&directory)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{}: {e}", directory.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_are_directories_that_bpffs_takes() {
        for good in ["default", "lab-1", "T_2", "a"] {
            assert!(Instance::new(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "a.b", "a/b", "ä", &"x".repeat(33)] {
            assert!(Instance::new(bad).is_err(), "{bad}");
        }
    }
}
