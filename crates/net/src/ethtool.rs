//! What only the ethtool ioctl tells or changes: a device's driver, and its offloads.

use crate::error::{Context, Error, Result, libc};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsRawFd, OwnedFd};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GTSO: u32 = 0x1e;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_GGSO: u32 = 0x23;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;

/// `struct ethtool_value`: a command and a 32-bit value.
#[repr(C)]
#[derive(Clone, Copy)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
#[derive(Clone, Copy)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

mod ioctl {
    use super::libc;
    nix::ioctl_readwrite_bad!(ethtool, libc::SIOCETHTOOL, libc::ifreq);
}

/// The offloads that matter to a packet rewritten in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums are left to the device.
    pub tx_checksum: bool,
    /// TCP segmentation is left to the device.
    pub tso: bool,
    /// The stack hands over packets larger than the MTU.
    pub gso: bool,
    /// Received packets are merged.
    pub gro: bool,
}

impl Offloads {
    /// None of them.
    pub const OFF: Offloads = Offloads { tx_checksum: false, tso: false, gso: false, gro: false };
}

/// The name of the driver that a device's ethtool reports ("veth", "ixgbe", …); `None` if it reports none.
pub fn driver(interface: &str) -> Result<Option<String>> {
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    match call(interface, &mut info) {
        Ok(()) => Ok(Some(crate::nl::codec::read_str(&info.driver)).filter(|name| !name.is_empty())),
        Err(nix::errno::Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("asking for the driver of {interface}")),
    }
}

/// Which offloads of an interface are on.
pub fn offloads(interface: &str) -> Result<Offloads> {
    let get = |command| -> Result<bool> {
        let mut value = Value { command, data: 0 };
        call(interface, &mut value).context(|| format!("reading the offloads of {interface}"))?;
        Ok(value.data != 0)
    };
    Ok(Offloads {
        tx_checksum: get(ETHTOOL_GTXCSUM)?,
        tso: get(ETHTOOL_GTSO)?,
        gso: get(ETHTOOL_GGSO)?,
        gro: get(ETHTOOL_GGRO)?,
    })
}

/// Switches the offloads of an interface.
pub fn set_offloads(interface: &str, wanted: Offloads) -> Result<()> {
    // Segmentation needs checksums: off before them, on after them.
    let mut steps = [
        (ETHTOOL_STXCSUM, wanted.tx_checksum, "tx checksums"),
        (ETHTOOL_SGSO, wanted.gso, "gso"),
        (ETHTOOL_STSO, wanted.tso, "tso"),
        (ETHTOOL_SGRO, wanted.gro, "gro"),
    ];
    if !wanted.tx_checksum {
        steps.reverse();
    }
    for (command, on, name) in steps {
        let mut value = Value { command, data: on.into() };
        match call(interface, &mut value) {
            Ok(()) => {}
            // A device that cannot do it has it off.
            Err(nix::errno::Errno::EOPNOTSUPP) if !on => {}
            Err(errno) => {
                let word = if on { "on" } else { "off" };
                return Err(errno).context(|| format!("switching {name} of {interface} {word}"));
            }
        }
    }
    let now = offloads(interface)?;
    if now != wanted {
        return Err(Error::refused(
            format!("the offloads of {interface} are {now:?} though {wanted:?} was asked for"),
            format!("see `ethtool -k {interface}` for those that are fixed"),
        ));
    }
    Ok(())
}

fn call<T: Copy>(interface: &str, data: &mut T) -> nix::Result<()> {
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    if interface.len() >= name.len() {
        return Err(nix::errno::Errno::ENODEV);
    }
    for (slot, byte) in name.iter_mut().zip(interface.bytes()) {
        *slot = byte as libc::c_char;
    }
    let data: *mut T = data;
    let mut request = libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data.cast() } };
    // SAFETY: the kernel reads the command in the first word of `data` and writes at most the struct that belongs to that
    // command, which is the type the callers above pass; both outlive the call.
    unsafe { ioctl::ethtool(socket.as_raw_fd(), &mut request) }.map(|_| ())
}
