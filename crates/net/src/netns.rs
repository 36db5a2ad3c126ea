//! Named network namespaces, compatible with `ip netns`: a namespace `x` is a bind mount on `/run/netns/x`.

use crate::error::{Context, Error, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

const DIRECTORY: &str = "/run/netns";
const BPFFS: &str = "/sys/fs/bpf";
const NOTHING: Option<&str> = None;

/// A named network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates a namespace with its loopback interface up.
    pub fn create(name: &str) -> Result<Self> {
        let namespace = Self::named(name)?;
        let path = namespace.path();
        let _lock = prepare_directory()?;
        OpenOptions::new().write(true).create_new(true).mode(0o000).open(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                Error::refused(
                    format!("network namespace {name} exists already"),
                    format!("choose another name, or remove it with `ip netns delete {name}`"),
                )
            } else {
                Error::System { place: format!("creating {}", path.display()), source: error }
            }
        })?;
        let made = on_thread(&format!("create {name}"), || {
            unshare(CloneFlags::CLONE_NEWNET).context(|| format!("creating network namespace {name}"))?;
            mount(Some("/proc/thread-self/ns/net"), &path, NOTHING, MsFlags::MS_BIND, NOTHING)
                .context(|| format!("naming network namespace {name} by a mount on {}", path.display()))?;
            crate::nl::Netlink::route()?.set_up("lo", true)
        });
        if let Err(error) = made.and_then(|inner| inner) {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(namespace)
    }

    /// An existing namespace.
    pub fn open(name: &str) -> Result<Self> {
        let namespace = Self::named(name)?;
        namespace.file()?;
        Ok(namespace)
    }

    /// Whether a namespace of that name exists.
    pub fn exists(name: &str) -> bool {
        Self::named(name).is_ok_and(|namespace| namespace.path().symlink_metadata().is_ok())
    }

    /// Removes the name; the namespace itself goes with its last process. False when there was none.
    pub fn delete(name: &str) -> Result<bool> {
        let path = Self::named(name)?.path();
        if path.symlink_metadata().is_err() {
            return Ok(false);
        }
        let _lock = prepare_directory()?;
        match umount2(&path, MntFlags::MNT_DETACH) {
            // EINVAL: the name is there, but no mount on it, as after a crash half-way.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context(|| format!("unmounting {}", path.display())),
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.context(|| format!("removing {}", path.display())).map(|()| true),
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The inode that identifies the namespace in `/proc/PID/ns/net`.
    pub fn inode(&self) -> Result<u64> {
        let metadata = self.file()?.metadata();
        Ok(metadata.context(|| format!("looking at network namespace {}", self.name))?.ino())
    }

    /// An open file that keeps the namespace alive and stands for it in system calls.
    pub fn file(&self) -> Result<File> {
        let path = self.path();
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::refused(
                format!("there is no network namespace {}", self.name),
                "see `ip netns list`; a lab's namespaces are made by `dirigent lab up`",
            ),
            _ => Error::System { place: format!("opening {}", path.display()), source },
        })
    }

    /// Runs `work` on a thread of its own inside the namespace. Threads and sockets that it makes belong there too.
    /// A panic in `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = self.file()?;
        on_thread(&self.name, || {
            setns(&file, CloneFlags::CLONE_NEWNET).context(|| format!("entering network namespace {}", self.name))?;
            Ok(work())
        })?
    }

    /// Like [`run`](Self::run), and `/sys` shows this namespace's devices, with the host's BPF file system still at
    /// `/sys/fs/bpf`.
    pub fn run_mounted<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        ensure_bpffs()?;
        self.run(|| {
            show_namespace_in_sys().context(|| format!("mounting /sys for network namespace {}", self.name))?;
            Ok(work())
        })?
    }

    /// Starts a command inside the namespace, with `/sys` as in [`run_mounted`](Self::run_mounted).
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_string_lossy().into_owned();
        let namespace = &self.name;
        self.run_mounted(|| {
            command.spawn().map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::refused(
                    format!("program {program} is not found"),
                    "install it, or give its path; `make setup` installs what the demo needs",
                ),
                _ => Error::System { place: format!("starting {program} in {namespace}"), source },
            })
        })?
    }

    fn named(name: &str) -> Result<Self> {
        let fits = !name.is_empty()
            && name.len() <= 64
            && !name.starts_with(['-', '.'])
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !fits {
            return Err(Error::refused(
                format!("{name:?} is no name for a network namespace"),
                "use up to 64 letters, digits, `-`, `_` and `.`, a letter or digit first",
            ));
        }
        Ok(Namespace { name: name.to_string() })
    }

    fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }
}

/// Mounts the BPF file system on `/sys/fs/bpf` unless it is there.
pub fn ensure_bpffs() -> Result<()> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let place = || format!("looking for the BPF file system at {BPFFS}");
    let is_there = || Ok(nix::sys::statfs::statfs(BPFFS).context(place)?.filesystem_type().0 as i64 == BPF_FS_MAGIC);
    if is_there()? {
        return Ok(());
    }
    // Two that start at once must not mount one over the other's.
    let _lock = lock(Path::new("/run"), "waiting for the lock on /run")?;
    if is_there()? {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .context(|| format!("mounting the BPF file system on {BPFFS}"))
}

/// In a mount namespace of the calling thread's own: a sysfs of the current network namespace over `/sys`, and the BPF
/// file system that was below it put back.
fn show_namespace_in_sys() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Slave, not private: namespaces deleted outside are let go of here too.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_SLAVE | MsFlags::MS_REC, NOTHING)?;
    let bpffs = nix::fcntl::open(
        BPFFS,
        nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NOTHING)?;
    let covered = format!("/proc/self/fd/{}", bpffs.as_raw_fd());
    mount(Some(covered.as_str()), BPFFS, NOTHING, MsFlags::MS_BIND, NOTHING)
}

/// Makes `/run/netns` as `ip netns` does: a shared mount, so that unmounting reaches everyone. Returns the lock that
/// `ip netns` takes too.
fn prepare_directory() -> Result<Flock<File>> {
    fs::create_dir_all(DIRECTORY).context(|| format!("creating {DIRECTORY}"))?;
    let lock = lock(Path::new(DIRECTORY), "waiting for the lock on /run/netns")?;
    let share = || mount(NOTHING, DIRECTORY, NOTHING, MsFlags::MS_SHARED | MsFlags::MS_REC, NOTHING);
    if share().is_err() {
        mount(Some(DIRECTORY), DIRECTORY, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)
            .context(|| format!("making {DIRECTORY} a mount point"))?;
        share().context(|| format!("sharing the mount {DIRECTORY}"))?;
    }
    Ok(lock)
}

/// An exclusive lock on a file or directory, let go of when dropped.
pub(crate) fn lock(path: &Path, place: &str) -> Result<Flock<File>> {
    let file = File::open(path).context(|| format!("opening {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context(|| place)
}

/// Runs `work` on a thread that ends with it, so that what it does to its namespaces touches nobody else.
fn on_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn_scoped(scope, work)
            .context(|| format!("starting a thread for {name}"))?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The inode of a process's network namespace, if the process is there and may be looked at.
pub(crate) fn inode_of_process(pid: i32) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for name in ["", "../x", "a/b", ".", "-x", &"x".repeat(65)] {
            assert!(Namespace::named(name).is_err(), "{name}");
        }
        assert!(Namespace::named("lab-server1").is_ok());
    }
}
