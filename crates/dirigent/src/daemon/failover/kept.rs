//! Which addresses this host holds for virtual routers, and until when it may: for the guard, and for the next daemon.

use crate::daemon::kept;
use crate::daemon::lock::DIRECTORY;
use crate::failure::Result;
use dirigent_failover::Time;
use dirigent_net::Netlink;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Of the file.
const VERSION: u32 = 1;

/// An address on a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    pub device: String,
    pub address: IpAddr,
    pub length: u8,
}

/// What a master holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The virtual router.
    pub router: String,
    pub addresses: Vec<Held>,
    /// When the addresses must be gone unless this was written anew, nanoseconds of CLOCK_BOOTTIME.
    pub until_ns: u64,
    /// When the last advert was sent.
    pub last_advert_ns: u64,
}

/// All that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct All {
    version: u32,
    /// The network namespace that the addresses are in.
    namespace: u64,
    /// The guard's process.
    pub guard: Option<u32>,
    pub holdings: Vec<Holding>,
}

impl All {
    /// Of this network namespace.
    pub fn new(guard: Option<u32>, holdings: Vec<Holding>) -> Self {
        Self { version: VERSION, namespace: namespace(), guard, holdings }
    }
}

/// The file of one director.
#[derive(Clone, Debug)]
pub struct Kept(PathBuf);

impl Kept {
    /// That of a director of this name.
    pub fn of(instance: &str) -> Self {
        Self(Path::new(DIRECTORY).join(format!("{instance}.failover.json")))
    }
    /// What was written last. What cannot be read, or is of another namespace, is as good as nothing.
    pub fn read(&self) -> Result<Option<All>> {
        let all: Option<All> = kept::read(&self.0)?;
        Ok(all.filter(|all| (all.version, all.namespace) == (VERSION, namespace())))
    }
    /// Writes it anew, in one step.
    pub fn write(&self, all: &All) -> Result<()> {
        kept::write(&self.0, all)?.commit()
    }
    /// Takes the addresses away that a daemon left, and forgets them. What was done, one sentence each.
    pub fn release(&self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        // One that cannot be read names nothing that could be released.
        for holding in self.read().ok().flatten().unwrap_or_default().holdings {
            for held in take_away(&holding.addresses) {
                done.push(format!("removed the virtual address {} from {}", held.address, held.device));
            }
        }
        kept::remove(&self.0)?;
        Ok(done)
    }
}

/// Takes addresses off their devices: those that were there.
pub fn take_away(addresses: &[Held]) -> Vec<Held> {
    let mut netlink = match Netlink::route() {
        Ok(netlink) => netlink,
        Err(error) => {
            tracing::error!("virtual addresses cannot be removed: {error}");
            return Vec::new();
        }
    };
    let mut gone = |held: &Held| match netlink.delete_address(&held.device, held.address, held.length) {
        Ok(was_there) => was_there,
        Err(error) => {
            // A device that is gone has taken its addresses along.
            tracing::warn!("{error}");
            false
        }
    };
    addresses.iter().filter(|held| gone(held)).cloned().collect()
}

fn namespace() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |m| m.ino())
}

/// The clock that virtual routers go by: it runs while the machine sleeps.
pub fn now() -> Time {
    // There is such a clock since Linux 2.6.39.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from).unwrap_or_default();
    Time::from_ns(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
