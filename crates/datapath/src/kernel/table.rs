//! Maps as typed tables: records in, records out, batches for tables of millions.
//!
//! Values may hold shared words (atomics), which is why they are taken by value.

use std::{io, marker::PhantomData, os::fd::OwnedFd, ptr::NonNull};

use zerocopy::{FromBytes, IntoBytes};

use super::{
    error::Error,
    sys::{self, Cursor, RawMap},
};

const ANY: u64 = 0;
const NO_EXIST: u64 = 1;

/// A hash or array map.
#[derive(Debug)]
pub struct Table<K, V> {
    raw: RawMap,
    name: String,
    types: PhantomData<fn(K, V)>,
}

impl<K, V> Table<K, V> {
    pub(super) fn new(name: &str, fd: OwnedFd) -> Result<Self, Error> {
        let raw = open::<K, V>(name, fd, 1)?;
        if sys::per_cpu(raw.info.kind) {
            return Err(Error::Map { map: name.to_owned(), reason: "is a per-CPU map".to_owned() });
        }
        Ok(Self { raw, name: name.to_owned(), types: PhantomData })
    }

    /// How many entries there is room for.
    #[must_use]
    pub fn max_entries(&self) -> u32 {
        self.raw.info.entries
    }

    fn error(&self, doing: &str, e: io::Error) -> Error {
        Error::system(format!("{doing} map {}", self.name), e)
    }
}

impl<K: IntoBytes + FromBytes, V: IntoBytes + FromBytes> Table<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Result<Option<V>, Error>
    where
        K: zerocopy::Immutable,
    {
        let mut value = V::new_zeroed();
        let found = self.raw.lookup(key.as_bytes(), value.as_mut_bytes()).map_err(|e| self.error("reading", e))?;
        Ok(found.then_some(value))
    }

    /// Writes an entry, new or not.
    pub fn insert(&self, mut key: K, mut value: V) -> Result<(), Error> {
        self.raw.update(key.as_mut_bytes(), value.as_mut_bytes(), ANY).map_err(|e| self.error("writing", e))
    }

    /// Writes a new entry; false if the key is there already.
    pub fn insert_new(&self, mut key: K, mut value: V) -> Result<bool, Error> {
        match self.raw.update(key.as_mut_bytes(), value.as_mut_bytes(), NO_EXIST) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(e) => Err(self.error("writing", e)),
        }
    }

    /// Removes an entry; false if there was none.
    pub fn remove(&self, key: &K) -> Result<bool, Error>
    where
        K: zerocopy::Immutable,
    {
        self.raw.delete(key.as_bytes()).map_err(|e| self.error("removing from", e))
    }

    /// Writes many entries with as few calls as possible.
    pub fn insert_all(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), Error> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (mut key, mut value) in entries {
            keys.extend_from_slice(key.as_mut_bytes());
            values.extend_from_slice(value.as_mut_bytes());
        }
        self.raw
            .update_batch(&keys, &values, ANY)
            .map_err(|(done, e)| self.error(&format!("writing many entries ({done} were written) to"), e))
    }

    /// Starts a walk. Entries that come or go during it may be missed or seen twice; all
    /// others are seen once.
    pub fn walk(&self, chunk: usize) -> Walk<'_, K, V> {
        self.walk_on(Cursor::default(), chunk)
    }

    /// Goes on with a walk from where another one was.
    pub(crate) fn walk_on(&self, cursor: Cursor, chunk: usize) -> Walk<'_, K, V> {
        Walk { table: self, cursor, chunk: chunk.max(1), done: false, keys: Vec::new(), values: Vec::new() }
    }

    /// All entries. For tables that fit into memory twice; else [`Table::walk`].
    pub fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        let mut all = Vec::new();
        let mut walk = self.walk(4096);
        while walk.next_chunk(|key, value| all.push((key, value)))? {}
        Ok(all)
    }
}

/// A walk over a table in chunks; it may pause between them for as long as it likes.
#[derive(Debug)]
pub struct Walk<'a, K, V> {
    table: &'a Table<K, V>,
    cursor: Cursor,
    chunk: usize,
    done: bool,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl<K: FromBytes, V: FromBytes> Walk<'_, K, V> {
    /// Where it is, if not at the end.
    pub(crate) fn cursor(self) -> Option<Cursor> {
        (!self.done).then_some(self.cursor)
    }

    /// Hands the next entries to `see`, about as many as the chunk size; false at the end.
    pub fn next_chunk(&mut self, mut see: impl FnMut(K, V)) -> Result<bool, Error> {
        if self.done {
            return Ok(false);
        }
        let raw = &self.table.raw;
        let (key_size, value_size) = (raw.info.key as usize, raw.value_bytes);
        loop {
            self.keys.resize(self.chunk * key_size, 0);
            self.values.resize(self.chunk * value_size, 0);
            match raw.lookup_batch(&mut self.cursor, &mut self.keys, &mut self.values) {
                Ok((count, last)) => {
                    self.done = last;
                    let keys = self.keys.chunks_exact(key_size).take(count);
                    for (key, value) in keys.zip(self.values.chunks_exact(value_size)) {
                        if let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) {
                            see(key, value);
                        }
                    }
                    return Ok(true);
                }
                // One hash bucket holds more than the chunk.
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && self.chunk < (1 << 24) => self.chunk *= 2,
                Err(e) => return Err(self.table.error("walking over", e)),
            }
        }
    }
}

/// An array in this process's memory as well as the kernel's (`BPF_F_MMAPABLE`).
///
/// Records may be read and their shared words changed here while programs do the same.
/// Fields that are no shared words must not be written by anyone while this is read.
#[derive(Debug)]
pub struct Mapped<V> {
    start: NonNull<V>,
    stride: usize,
    entries: usize,
    bytes: usize,
}

// SAFETY: it hands out shared references only, like a slice of V.
unsafe impl<V: Sync> Send for Mapped<V> {}
// SAFETY: as above.
unsafe impl<V: Sync> Sync for Mapped<V> {}

impl<V: FromBytes> Mapped<V> {
    pub(super) fn new(name: &str, fd: &OwnedFd) -> Result<Self, Error> {
        use std::os::fd::{AsFd as _, AsRawFd as _};
        const { assert!(align_of::<V>() <= 8, "elements are aligned to 8 bytes") };
        let fail = |e| Error::system(format!("mapping map {name} into memory"), e);
        let info = sys::map_info(fd.as_fd()).map_err(fail)?;
        const BPF_MAP_TYPE_ARRAY: u32 = 2;
        if info.kind != BPF_MAP_TYPE_ARRAY || info.value as usize != size_of::<V>() {
            return Err(Error::Map {
                map: name.to_owned(),
                reason: format!("is no array of {} bytes but {info:?}", size_of::<V>()),
            });
        }
        let stride = (info.value as usize).next_multiple_of(8);
        let entries = info.entries as usize;
        let bytes = stride * entries;
        // SAFETY: a new mapping at an address that the kernel chooses; it refuses maps that
        // are not mappable, and lengths beyond the array.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(fail(io::Error::last_os_error()));
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| fail(io::Error::other("no address")))?;
        Ok(Self { start, stride, entries, bytes })
    }

    /// The record at an index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&V> {
        let index = index as usize;
        if index >= self.entries {
            return None;
        }
        // SAFETY: within the mapping, which lives as long as self; elements are 8-aligned,
        // any bytes are a V, and its changing fields are shared words.
        Some(unsafe { self.start.byte_add(index * self.stride).as_ref() })
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there are none (the kernel makes no such array).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

impl<V> Drop for Mapped<V> {
    fn drop(&mut self) {
        // SAFETY: the mapping that new() made, and no reference into it outlives self.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A map that holds each value once for each CPU.
#[derive(Debug)]
pub struct PerCpuTable<K, V> {
    raw: RawMap,
    name: String,
    types: PhantomData<fn(K, V)>,
}

impl<K, V> PerCpuTable<K, V> {
    pub(super) fn new(name: &str, fd: OwnedFd) -> Result<Self, Error> {
        let cpus = sys::possible_cpus().map_err(|e| Error::system("counting CPUs", e))?;
        let raw = open::<K, V>(name, fd, cpus)?;
        if !sys::per_cpu(raw.info.kind) {
            return Err(Error::Map { map: name.to_owned(), reason: "is no per-CPU map".to_owned() });
        }
        Ok(Self { raw, name: name.to_owned(), types: PhantomData })
    }

    /// How many entries there is room for.
    #[must_use]
    pub fn max_entries(&self) -> u32 {
        self.raw.info.entries
    }
}

impl<K: IntoBytes + FromBytes, V: IntoBytes + FromBytes> PerCpuTable<K, V> {
    fn slot(&self) -> usize {
        (self.raw.info.value as usize).next_multiple_of(8)
    }

    /// Each CPU's value of a key; nothing if there is no such key.
    pub fn get(&self, key: &K) -> Result<Option<Vec<V>>, Error>
    where
        K: zerocopy::Immutable,
    {
        let mut bytes = vec![0; self.raw.value_bytes];
        let found = self
            .raw
            .lookup(key.as_bytes(), &mut bytes)
            .map_err(|e| Error::system(format!("reading map {}", self.name), e))?;
        let values = bytes.chunks_exact(self.slot()).filter_map(|slot| V::read_from_prefix(slot).ok());
        Ok(found.then(|| values.map(|(value, _)| value).collect()))
    }

    /// Shows each CPU's value of the first keys of a map whose batches come in their order, as those of an array do, with
    /// as few calls as possible.
    pub(crate) fn first(&self, count: usize, mut see: impl FnMut(&mut dyn Iterator<Item = V>)) -> Result<(), Error> {
        const CHUNK: usize = 1024;
        let (key, value) = (size_of::<K>(), self.raw.value_bytes);
        let (mut cursor, mut left) = (Cursor::default(), count.min(self.raw.info.entries as usize));
        let (mut keys, mut values) = (vec![0; CHUNK * key], vec![0; CHUNK * value]);
        while left > 0 {
            let wanted = left.min(CHUNK);
            keys.truncate(wanted * key);
            values.truncate(wanted * value);
            let (got, last) = self
                .raw
                .lookup_batch(&mut cursor, &mut keys, &mut values)
                .map_err(|e| Error::system(format!("reading map {}", self.name), e))?;
            for bytes in values.chunks_exact(value).take(got) {
                let slots = bytes.chunks_exact(self.slot()).filter_map(|slot| V::read_from_prefix(slot).ok());
                see(&mut slots.map(|(value, _)| value));
            }
            left = if last { 0 } else { left - got.min(left) };
        }
        Ok(())
    }

    /// Sets every CPU's value of a key to the same.
    pub fn set_all(&self, mut key: K, mut value: V) -> Result<(), Error> {
        let mut bytes = vec![0; self.raw.value_bytes];
        for slot in bytes.chunks_exact_mut(self.slot()) {
            if let Some(place) = slot.get_mut(..size_of::<V>()) {
                place.copy_from_slice(value.as_mut_bytes());
            }
        }
        self.raw
            .update(key.as_mut_bytes(), &bytes, ANY)
            .map_err(|e| Error::system(format!("writing map {}", self.name), e))
    }

    /// Sets each CPU's value of a key, in the order of [`Self::get`]; those for which none is given become zero.
    pub fn set(&self, mut key: K, values: &mut [V]) -> Result<(), Error> {
        let mut bytes = vec![0; self.raw.value_bytes];
        for (slot, value) in bytes.chunks_exact_mut(self.slot()).zip(values) {
            if let Some(place) = slot.get_mut(..size_of::<V>()) {
                place.copy_from_slice(value.as_mut_bytes());
            }
        }
        self.raw
            .update(key.as_mut_bytes(), &bytes, ANY)
            .map_err(|e| Error::system(format!("writing map {}", self.name), e))
    }

    /// The keys that there are (of an array: all indices).
    pub fn keys(&self) -> Result<Vec<K>, Error> {
        let fail = |e| Error::system(format!("walking over map {}", self.name), e);
        let mut keys = Vec::new();
        let mut next = vec![0; self.raw.info.key as usize];
        let mut more = self.raw.next_key(None, &mut next).map_err(fail)?;
        // A map that changes under the walk may send it back to its start.
        while more && keys.len() < self.raw.info.entries as usize {
            keys.extend(K::read_from_bytes(&next).ok());
            let key = next.clone();
            more = self.raw.next_key(Some(&key), &mut next).map_err(fail)?;
        }
        Ok(keys)
    }
}

/// Takes a map and refuses one whose keys or values are not of the given types' sizes.
fn open<K, V>(name: &str, fd: OwnedFd, cpus: usize) -> Result<RawMap, Error> {
    let raw = RawMap::new(fd, cpus).map_err(|e| Error::system(format!("asking about map {name}"), e))?;
    let (key, value) = (raw.info.key as usize, raw.info.value as usize);
    if (key, value) != (size_of::<K>(), size_of::<V>()) {
        let reason = format!(
            "has keys of {key} and values of {value} bytes, but the types here have {} and {}",
            size_of::<K>(),
            size_of::<V>()
        );
        return Err(Error::Map { map: name.to_owned(), reason });
    }
    Ok(raw)
}
