//! The daemon without root: a user of its own, and the four capabilities that the packet path and the network take.

use crate::daemon;
use crate::failure::{Failure, Result, code};
use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use dirigent_datapath::kernel::Instance;
use dirigent_net::probe::Room;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, User, chown, geteuid, initgroups, setresgid, setresuid};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// BPF: programs and maps. NET_ADMIN: attaching them, addresses, neighbours, devices. PERFMON: programs that look into the
/// kernel's structures (losses), and pointers in BPF. NET_RAW: announcements of addresses.
const NEEDED: [Capability; 4] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON, Capability::CAP_NET_RAW];

/// The namespace for health checks along the clients' path takes a right that nothing else does: it is made before that is
/// given up. None: who started this did not give it, and such checks are refused.
pub fn room() -> Option<Room> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false) {
        return None;
    }
    Room::make().inspect_err(|error| tracing::warn!("no health check can go the clients' way: {error}")).ok()
}

/// Does this on the calling thread and on that of the room: each thread has rights of its own.
fn on_each(room: Option<&Room>, work: fn() -> Result<(), CapsError>) -> Result<()> {
    let fail = |e: CapsError| Failure::new("capabilities", e.to_string(), "start it with all of root's rights");
    if let Some(room) = room {
        room.run(work)?.map_err(fail)?;
    }
    work().map_err(fail)
}

/// Gives CAP_SYS_ADMIN up. Before any other thread is started.
pub fn give_up_admin(room: Option<&Room>) -> Result<()> {
    on_each(room, || {
        for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
            caps::drop(None, set, Capability::CAP_SYS_ADMIN)?;
        }
        Ok(())
    })
}

/// The user of that name.
fn user(name: &str) -> Result<User> {
    let place = "--user";
    let found = User::from_name(name).map_err(|e| Failure::io(place, &e.into()))?;
    let remedy = format!("create it: `useradd --system --user-group --shell /usr/sbin/nologin {name}`");
    found.ok_or_else(|| Failure::new(place, format!("there is no user {name}"), remedy))
}

fn root() -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let failure = Failure::new("--user", "only root can hand a director to another user", "run it as root");
    Err(Failure { code: code::KERNEL, ..failure })
}

/// Makes the directories that a daemon of that user needs, and hands it what an earlier one of the same name left.
/// What was done, one sentence each.
pub fn prepare(instance: &str, name: &str) -> Result<Vec<String>> {
    root()?;
    let user = user(name)?;
    let instance = Instance::new(instance)?;
    dirigent_net::netns::ensure_bpffs()?;
    let pins = instance.directory();
    let all_pins = pins.parent().map(Path::to_owned).unwrap_or_default();
    let mut done = Vec::new();
    reach(&all_pins, &mut done)?;
    for directory in [all_pins.clone(), PathBuf::from(daemon::DIRECTORY), daemon::state_directory()] {
        fs::create_dir_all(&directory).map_err(|e| Failure::io(directory.display().to_string(), &e))?;
        own(&directory, &user, &mut done)?;
        if directory == all_pins {
            continue;
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let his = file.strip_prefix(instance.name()).is_some_and(|rest| rest.starts_with('.'));
            if his && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                own(&entry.path(), &user, &mut done)?;
            }
        }
    }
    if pins.exists() {
        own_all(&pins, &user, &mut done)?;
    }
    Ok(done)
}

/// systemd mounts the BPF file system for root's eyes only; its directories need be passed through, not read.
fn reach(pins: &Path, done: &mut Vec<String>) -> Result<()> {
    let Some(mount) = pins.parent() else { return Ok(()) };
    let fail = |e| Failure::io(mount.display().to_string(), &e);
    let mode = fs::metadata(mount).map_err(fail)?.permissions().mode();
    if mode & 0o001 == 0 {
        fs::set_permissions(mount, fs::Permissions::from_mode(mode | 0o001)).map_err(fail)?;
        done.push(format!("let everybody pass through {} (o+x), to what is his own there", mount.display()));
    }
    Ok(())
}

fn own(path: &Path, user: &User, done: &mut Vec<String>) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let fail = |e| Failure::io(path.display().to_string(), &e);
    let now = fs::symlink_metadata(path).map_err(fail)?;
    if (now.uid(), now.gid()) != (user.uid.as_raw(), user.gid.as_raw()) {
        chown(path, Some(user.uid), Some(user.gid)).map_err(|e| fail(e.into()))?;
        done.push(format!("gave {} to {}", path.display(), user.name));
    }
    Ok(())
}

fn own_all(path: &Path, user: &User, done: &mut Vec<String>) -> Result<()> {
    own(path, user, done)?;
    if !fs::symlink_metadata(path).is_ok_and(|data| data.is_dir()) {
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(|e| Failure::io(path.display().to_string(), &e))?;
    entries.flatten().try_for_each(|entry| own_all(&entry.path(), user, done))
}

/// This process becomes that user's, with the four capabilities and no way to more. Before any other thread is started: each
/// has its own.
pub fn become_user(name: &str, room: Option<&Room>) -> Result<()> {
    root()?;
    let user = user(name)?;
    let io = |e: nix::errno::Errno| Failure::io("--user", &e.into());
    on_each(room, || {
        for capability in caps::all() {
            // What this kernel does not know, or a container took before, is not there to be dropped.
            if !NEEDED.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
        caps::securebits::set_keepcaps(true)
    })?;
    // Virtual routers ask for the lowest real-time priority, which root's successor may then have.
    if let Err(error) = setrlimit(Resource::RLIMIT_RTPRIO, 1, 1) {
        tracing::debug!("no real-time priority for {}: {error}", user.name);
    }
    let login = std::ffi::CString::new(user.name.clone()).map_err(|e| Failure::new("--user", e.to_string(), ""))?;
    initgroups(&login, user.gid).map_err(io)?;
    setresgid(user.gid, user.gid, user.gid).map_err(io)?;
    // Of all threads: the C library sees to that.
    setresuid(user.uid, user.uid, user.uid).map_err(io)?;
    on_each(room, || {
        let needed = CapsHashSet::from(NEEDED);
        // Effective ones went with root's number; ambient ones are for programs that the daemon asks, such as nft.
        for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted, CapSet::Ambient] {
            caps::set(None, set, &needed)?;
        }
        nix::sys::prctl::set_no_new_privs().map_err(|e| CapsError::from(e.to_string()))
    })?;
    debug_assert_ne!(geteuid(), Uid::from_raw(0));
    Ok(())
}
