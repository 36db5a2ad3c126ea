//! The bpf(2) calls that aya does not offer: what a pinned link is attached to,
//! detaching it at once, and map access by bytes and in batches.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

// enum bpf_cmd
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const OBJ_GET: libc::c_int = 7;
const PROG_TEST_RUN: libc::c_int = 10;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const LINK_DETACH: libc::c_int = 34;

/// One call with the given attributes.
///
/// # Safety
/// Every address in `attr` must be valid for what `command` does with it, for the
/// lengths that the command takes.
unsafe fn bpf<A>(command: libc::c_int, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are a live, exclusively borrowed value of the given size;
    // what they point to is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(bytes: &[T]) -> u64 {
    bytes.as_ptr() as u64
}

fn address_mut<T>(bytes: &mut [T]) -> u64 {
    bytes.as_mut_ptr() as u64
}

#[repr(C)]
#[derive(Default)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens what is pinned at a path.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjGet { pathname: address(text.as_bytes_with_nul()), ..ObjGet::default() };
    // SAFETY: the path is a live string with its terminator.
    let fd = unsafe { bpf(OBJ_GET, &mut attr)? };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

fn info<const N: usize>(fd: BorrowedFd<'_>) -> io::Result<[u32; N]> {
    let mut words = [0u32; N];
    let info_len = u32::try_from(size_of_val(&words)).map_err(io::Error::other)?;
    let mut attr = GetInfo { bpf_fd: number(fd), info_len, info: address_mut(&mut words) };
    // SAFETY: the kernel writes at most info_len bytes, the size of the array. The
    // structures' own pointers are zero, so it follows none.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(words)
}

/// What a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// Its number.
    pub id: u32,
    /// The program behind it.
    pub program: u32,
    /// The interface it is attached to; 0 once that interface is gone.
    pub ifindex: u32,
}

/// What a pinned XDP or tcx link is attached to.
pub(super) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // struct bpf_link_info: type, id, prog_id, padding, then a union that begins with
    // the ifindex for XDP and for tcx alike.
    let [_, id, program, _, ifindex, _, _, _] = info::<8>(fd)?;
    Ok(LinkInfo { id, program, ifindex })
}

/// What a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapInfo {
    /// BPF_MAP_TYPE_*.
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Entries at most.
    pub entries: u32,
}

/// What a map is.
pub(super) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    // struct bpf_map_info: type, id, key_size, value_size, max_entries, ...
    let [kind, _, key, value, entries, _] = info::<6>(fd)?;
    Ok(MapInfo { kind, key, value, entries })
}

/// Bytes of kernel memory that a map takes, as `/proc` says of its descriptor.
pub(super) fn map_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", number(fd)))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).ok_or_else(|| io::Error::other("the kernel does not tell memlock"))
}

#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Takes a link off its interface now, whoever else holds it.
pub(super) fn detach_link(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetach { link_fd: number(fd) };
    // SAFETY: the attributes hold no address.
    unsafe { bpf(LINK_DETACH, &mut attr)? };
    Ok(())
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Runs a program once on these bytes; returns its value. What it leaves of them is not read.
pub(super) fn run_once(program: BorrowedFd<'_>, data: &[u8]) -> io::Result<u32> {
    let data_size_in = u32::try_from(data.len()).map_err(io::Error::other)?;
    let mut attr =
        TestRun { prog_fd: number(program), data_size_in, data_in: address(data), repeat: 1, ..TestRun::default() };
    // SAFETY: the data is live for its length; nothing is asked to be written.
    unsafe { bpf(PROG_TEST_RUN, &mut attr)? };
    Ok(attr.retval)
}

#[repr(C)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}

/// A map with the sizes that the kernel will read and write, asked of the kernel itself.
#[derive(Debug)]
pub(super) struct RawMap {
    fd: OwnedFd,
    /// Its shape.
    pub info: MapInfo,
    /// Bytes that a lookup writes: the value, or one rounded-up value for each possible CPU.
    pub value_bytes: usize,
}

impl RawMap {
    /// Takes a map; `cpus` is the number of possible CPUs for per-CPU maps, else 1.
    pub(super) fn new(fd: OwnedFd, cpus: usize) -> io::Result<Self> {
        use std::os::fd::AsFd as _;
        let info = map_info(fd.as_fd())?;
        let value = info.value as usize;
        let value_bytes = if cpus > 1 || per_cpu(info.kind) { value.next_multiple_of(8) * cpus } else { value };
        Ok(Self { fd, info, value_bytes })
    }

    fn element(&self, key: &[u8], value_or_next: u64, flags: u64) -> io::Result<Element> {
        if key.len() != self.info.key as usize {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Element { map_fd: self.fd.as_raw_fd().cast_unsigned(), pad: 0, key: address(key), value_or_next, flags })
    }

    /// Whether a value was there; it is written to `value`.
    pub(super) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        if value.len() != self.value_bytes {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut attr = self.element(key, address_mut(value), 0)?;
        // SAFETY: key and value are live and have the sizes that the kernel gave for this map.
        match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Writes an entry; `flags` are BPF_ANY, BPF_NOEXIST, BPF_EXIST.
    pub(super) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        if value.len() != self.value_bytes {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut attr = self.element(key, address(value), flags)?;
        // SAFETY: key and value are live and have the sizes that the kernel gave for this map.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr)? };
        Ok(())
    }

    /// Whether there was an entry to remove.
    pub(super) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        let mut attr = self.element(key, 0, 0)?;
        // SAFETY: the key is live and has the size that the kernel gave for this map.
        match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The key after the given one (or the first), written to `next`.
    pub(super) fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        if next.len() != self.info.key as usize {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut attr = self.element(key.unwrap_or(next), address(next), 0)?;
        if key.is_none() {
            attr.key = 0;
        }
        attr.value_or_next = address_mut(next);
        // SAFETY: both keys are live and have the size that the kernel gave for this map;
        // no key at all asks for the first.
        match unsafe { bpf(MAP_GET_NEXT_KEY, &mut attr) } {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn batch(&self, count: usize, keys: u64, values: u64) -> io::Result<Batch> {
        Ok(Batch {
            count: u32::try_from(count).map_err(io::Error::other)?,
            map_fd: self.fd.as_raw_fd().cast_unsigned(),
            keys,
            values,
            ..Batch::default()
        })
    }

    /// Reads the entries after `cursor` into `keys` and `values`, which have room for as
    /// many; moves the cursor. Returns how many, and whether these were the last.
    pub(super) fn lookup_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        let key = self.info.key as usize;
        if key == 0 || key > size_of_val(&cursor.place) || self.value_bytes == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let room = (keys.len() / key).min(values.len() / self.value_bytes);
        let mut next = cursor.place;
        let mut attr = self.batch(room, address_mut(keys), address_mut(values))?;
        attr.in_batch = if cursor.begun { address(&cursor.place) } else { 0 };
        attr.out_batch = address_mut(&mut next);
        // SAFETY: both buffers are live and have room for `count` entries of the sizes that
        // the kernel gave for this map; the cursor has room for a key, the most it takes.
        let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
        let last = match result {
            Ok(_) => false,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
            Err(e) => return Err(e),
        };
        cursor.place = next;
        cursor.begun = true;
        Ok((attr.count as usize, last))
    }

    /// Writes many entries in one call; returns how many were written before an error.
    pub(super) fn update_batch(&self, keys: &[u8], values: &[u8], flags: u64) -> Result<(), (usize, io::Error)> {
        let key = self.info.key as usize;
        if key == 0 || self.value_bytes == 0 || keys.len() / key != values.len() / self.value_bytes {
            return Err((0, io::Error::from_raw_os_error(libc::EINVAL)));
        }
        if keys.is_empty() {
            return Ok(());
        }
        let mut attr = self.batch(keys.len() / key, address(keys), address(values)).map_err(|e| (0, e))?;
        attr.elem_flags = flags;
        // SAFETY: both buffers are live and hold `count` entries of the sizes that the
        // kernel gave for this map.
        match unsafe { bpf(MAP_UPDATE_BATCH, &mut attr) } {
            Ok(_) => Ok(()),
            Err(e) => Err((attr.count as usize, e)),
        }
    }
}

/// Whether values of this map type come once for each CPU.
pub(super) fn per_cpu(kind: u32) -> bool {
    // PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, PERCPU_CGROUP_STORAGE
    matches!(kind, 5 | 6 | 10 | 21)
}

/// Where a walk over a map is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    place: [u64; 16],
    begun: bool,
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// How many CPUs the machine may have: the number of values in a per-CPU map.
pub(super) fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(path, e)| io::Error::new(e.kind(), format!("{path}: {e}")))
}

const BPFFS_MAGIC: u32 = 0xcafe_4a11;

/// Whether a directory is on a BPF file system.
pub(super) fn is_bpffs(path: &str) -> bool {
    let Ok(path) = CString::new(path) else { return false };
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path is a live string, and the structure has room for the answer.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: all zero bytes are a valid statfs, and the call has filled it in.
    let magic = unsafe { stat.assume_init() }.f_type;
    u32::try_from(magic & 0xffff_ffff) == Ok(BPFFS_MAGIC)
}

/// Mounts a BPF file system.
pub(super) fn mount_bpffs(path: &str) -> io::Result<()> {
    let kind = c"bpf";
    let target = CString::new(path)?;
    // SAFETY: four live strings; the file system needs no more data.
    let result = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, c"mode=0755".as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
