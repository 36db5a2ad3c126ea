//! What this host holds for virtual routers, and until when it may: for the guard, and for the next daemon.

use super::PacketPath;
use super::programs::{Closed, Route};
use crate::daemon::kept;
use crate::daemon::lock::DIRECTORY;
use crate::failure::Result;
use dirigent_failover::Time;
use dirigent_net::virtual_mac::{self, VirtualMac};
use dirigent_net::{AddressOptions, Mac, Netlink};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longer the packet path is not waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// Of the file.
const VERSION: u32 = 1;

/// An address on a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    pub device: String,
    pub address: IpAddr,
    pub length: u8,
    #[serde(default)]
    pub options: AddressOptions,
}

/// A device with a virtual MAC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub name: String,
    /// The interface that it is on.
    pub on: String,
    pub mac: Mac,
    pub group: u32,
}

impl Device {
    fn hold(&self, netlink: &mut Netlink) -> dirigent_net::Result<bool> {
        let Self { name, on, mac, group } = self;
        VirtualMac { name, on, mac: *mac, group: *group }.hold(netlink)
    }

    /// Until the packet path has heard of it from the kernel, which takes milliseconds. What is for another MAC than a
    /// standard one it never takes.
    fn wait_for(&self, path: &PacketPath) {
        let begun = Instant::now();
        while virtual_mac::is_standard(self.mac) && !path.taken.has(&self.on, &self.mac) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// All that this host has as a virtual router's master, and gives up with that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Belongings {
    pub addresses: Vec<Held>,
    pub devices: Vec<Device>,
    /// Packets for the addresses are not the host's.
    pub closed: Option<Closed>,
    pub routes: Vec<Route>,
    /// An interface whose `promote_secondaries` was off.
    pub promoted: Option<String>,
}

impl Belongings {
    /// Those that another list has not.
    pub fn but(self, wanted: &Self) -> Self {
        let same_device = |one: &Device| wanted.devices.iter().any(|other| other.name == one.name);
        Self {
            addresses: self.addresses.into_iter().filter(|held| !wanted.addresses.contains(held)).collect(),
            devices: self.devices.into_iter().filter(|device| !same_device(device)).collect(),
            closed: self.closed.filter(|closed| wanted.closed.as_ref().is_none_or(|w| w.table != closed.table)),
            routes: self.routes.into_iter().filter(|route| !wanted.routes.contains(route)).collect(),
            promoted: self.promoted.filter(|promoted| wanted.promoted.as_ref() != Some(promoted)),
        }
    }

    /// Nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Puts all on. What cannot be is said, and the rest is put on.
    pub fn put_on(&self, netlink: &mut Netlink, router: &str, path: &PacketPath) {
        let say = |error: &dyn std::fmt::Display| tracing::error!("virtual router {router}: {error}");
        // First what keeps others away.
        if let Some(Err(failure)) = self.closed.as_ref().map(Closed::close) {
            say(&failure);
        }
        self.put_on_devices(netlink, path, &|error| say(&error));
        if let Some(Err(error)) = self.promoted.as_ref().map(|interface| promote(interface, true)) {
            say(&error);
        }
        for held in &self.addresses {
            if let Err(error) = held.put_on(netlink, path) {
                say(&error);
            }
        }
        for route in &self.routes {
            if let Err(failure) = route.add() {
                say(&failure);
            }
        }
    }

    /// Makes the devices that are not there.
    pub fn put_on_devices(&self, netlink: &mut Netlink, path: &PacketPath, say: &dyn Fn(dirigent_net::Error)) {
        for device in &self.devices {
            match device.hold(netlink) {
                Ok(true) => device.wait_for(path),
                Ok(false) => {}
                Err(error) => say(error),
            }
        }
    }

    /// Takes the addresses off, and nothing else: those that were there.
    pub fn take_addresses(&self, netlink: &mut Netlink) -> Vec<Held> {
        let mut gone = |held: &Held| {
            let Held { device, address, length, options } = held;
            match netlink.delete_address_with(device, *address, *length, options) {
                Ok(was_there) => was_there,
                Err(error) => {
                    // A device that is gone has taken its addresses along.
                    tracing::warn!("{error}");
                    false
                }
            }
        };
        self.addresses.iter().filter(|held| gone(held)).cloned().collect()
    }

    /// Takes away what there is beside addresses, which are gone. What was done, one sentence each.
    pub fn take_rest(&self, netlink: &mut Netlink) -> Vec<String> {
        let mut done = Vec::new();
        for route in self.routes.iter().rev() {
            if route.delete() {
                done.push(format!("removed the {route}"));
            }
        }
        for device in &self.devices {
            match virtual_mac::release(netlink, &device.name) {
                Ok(true) => done.push(format!("removed the device {}", device.name)),
                Ok(false) => {}
                Err(error) => tracing::error!("{error}"),
            }
        }
        if self.closed.as_ref().is_some_and(Closed::open) {
            done.push("packets for its addresses are the host's again".to_owned());
        }
        if let Some(interface) = &self.promoted
            && let Err(error) = promote(interface, false)
        {
            tracing::error!("{error}");
        }
        done
    }
}

fn promote(interface: &str, on: bool) -> dirigent_net::Result<bool> {
    dirigent_net::sysctl::set_if_there(&promote_secondaries(interface), if on { "1" } else { "0" })
}

/// Whether an interface's secondary addresses go with its primary one.
pub fn drops_secondaries(interface: &str) -> bool {
    dirigent_net::sysctl::get(&promote_secondaries(interface)).is_ok_and(|value| value == "0")
}

fn promote_secondaries(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/promote_secondaries")
}

impl Held {
    /// Puts it on. False when it was there.
    pub fn put_on(&self, netlink: &mut Netlink, path: &PacketPath) -> dirigent_net::Result<bool> {
        // Before the host itself could answer.
        path.locals.set(self.address, true);
        let added = netlink.add_address_with(&self.device, self.address, self.length, &self.options);
        if added.is_err() {
            path.locals.set(self.address, false);
        }
        added
    }
}

/// What a master holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The virtual router.
    pub router: String,
    #[serde(flatten)]
    pub belongings: Belongings,
    /// When the addresses must be gone unless this was written anew, nanoseconds of CLOCK_BOOTTIME.
    pub until_ns: u64,
    /// When the last advert was sent.
    pub last_advert_ns: u64,
    /// With AH: its number.
    #[serde(default)]
    pub sequence: u32,
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
            let mut netlink = Netlink::route()?;
            for held in holding.belongings.take_addresses(&mut netlink) {
                done.push(format!("removed the virtual address {} from {}", held.address, held.device));
            }
            done.extend(holding.belongings.take_rest(&mut netlink));
        }
        kept::remove(&self.0)?;
        Ok(done)
    }
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
