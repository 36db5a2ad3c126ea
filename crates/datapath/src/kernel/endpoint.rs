//! The server's end of tunnels: loading and attaching its programs, which go on when the
//! command that did it has ended. An [`Instance`] of its own holds the pins.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dirigent_director::endpoint::{Outcome, TERMS_VERSION};

use super::attach::{Attachment, TcKind};
use super::error::Error;
use super::load::{Instance, Kernel, LoadOptions};
use super::select::Mode;
use super::stages::Features;
use super::table::Table;
use crate::object;

/// What the programs are to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Bit n: packets of `dirigent_director::records::tunnel`'s kind n are taken out.
    pub kinds: u32,
    /// GUE: UDP port.
    pub port: u16,
    /// The interface's MAC.
    pub mac: [u8; 6],
    /// Largest segment to be offered to IPv4 clients; 0: as it is.
    pub mss4: u16,
    /// Largest segment to be offered to IPv6 clients; 0: as it is.
    pub mss6: u16,
    /// Virtual addresses: whose packets are taken out.
    pub vips: Vec<IpAddr>,
    /// Whose packets are taken out; empty: everybody's.
    pub directors: Vec<IpAddr>,
}

impl Endpoint {
    /// Attaches the programs to an interface of the calling thread's namespace, or renews
    /// them there.
    pub fn attach(&self, instance: &Instance, interface: &str, tc: TcKind) -> Result<Attachment, Error> {
        let object = object::realserver().ok_or(Error::NoObject)?;
        let options =
            LoadOptions { instance: Some(instance), layout: TERMS_VERSION, map_sizes: &[], features: Features::NONE };
        let mut kernel = Kernel::load_object(object, &options)?;
        fill(&kernel, ["VIPS4", "VIPS6"], &self.vips)?;
        fill(&kernel, ["DIRECTORS4", "DIRECTORS6"], &self.directors)?;
        // Last: with the terms the programs begin.
        kernel.table::<u32, [u32; 6]>("SETTINGS")?.insert(0, self.terms())?;
        // What the real server answers is what it sends.
        kernel.see_answers(tc)?;
        let mut attached = kernel.attach(&[(interface, Mode::Tc)], tc)?;
        attached.pop().ok_or(Error::NotPinned)
    }

    /// Whether the programs of an instance, which are attached, do exactly this.
    pub fn in_force(&self, instance: &Instance) -> Result<bool, Error> {
        let terms = instance.open_table::<u32, [u32; 6]>("SETTINGS")?.get(&0)?;
        Ok(terms == Some(self.terms())
            && hold(instance, ["VIPS4", "VIPS6"], &self.vips)?
            && hold(instance, ["DIRECTORS4", "DIRECTORS6"], &self.directors)?)
    }

    /// The record `dirigent_director::endpoint::Terms`.
    fn terms(&self) -> [u32; 6] {
        let half = |a: u16, b: u16| {
            let ([a, b], [c, d]) = (a.to_ne_bytes(), b.to_ne_bytes());
            u32::from_ne_bytes([a, b, c, d])
        };
        let [a, b, c, d, e, f] = self.mac;
        let mac = |x, y| u16::from_ne_bytes([x, y]);
        let known = u16::from(!self.directors.is_empty());
        let head = [TERMS_VERSION, self.kinds, half(self.port.to_be(), mac(a, b)), half(mac(c, d), mac(e, f))];
        let [version, kinds, port, rest] = head;
        [version, kinds, port, rest, half(self.mss4, self.mss6), half(known, 0)]
    }
}

/// The addresses of each family.
fn families(addresses: &[IpAddr]) -> (Vec<[u8; 4]>, Vec<[u8; 16]>) {
    let v4 = addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(a.octets()) } else { None });
    let v6 = addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(a.octets()) } else { None });
    (v4.collect(), v6.collect())
}

/// Makes the two sets (IPv4, IPv6) hold these addresses.
fn fill(kernel: &Kernel, [name4, name6]: [&str; 2], addresses: &[IpAddr]) -> Result<(), Error> {
    let (v4, v6) = families(addresses);
    replace(&kernel.table::<[u8; 4], u32>(name4)?, v4)?;
    replace(&kernel.table::<[u8; 16], u32>(name6)?, v6)
}

/// Whether the two sets hold these addresses and no others.
fn hold(instance: &Instance, [name4, name6]: [&str; 2], addresses: &[IpAddr]) -> Result<bool, Error> {
    let (v4, v6) = families(addresses);
    Ok(same(&instance.open_table::<[u8; 4], u32>(name4)?, v4)?
        && same(&instance.open_table::<[u8; 16], u32>(name6)?, v6)?)
}

fn same<const N: usize>(set: &Table<[u8; N], u32>, wanted: Vec<[u8; N]>) -> Result<bool, Error> {
    let there: BTreeSet<_> = set.entries()?.into_iter().map(|(address, _)| address).collect();
    Ok(there == wanted.into_iter().collect())
}

fn replace<const N: usize>(set: &Table<[u8; N], u32>, wanted: Vec<[u8; N]>) -> Result<(), Error> {
    for (old, _) in set.entries()? {
        if !wanted.contains(&old) {
            set.remove(&old)?;
        }
    }
    wanted.into_iter().try_for_each(|address| set.insert(address, 1))
}

/// What the programs did: packets by outcome.
pub fn endpoint_counts(instance: &Instance) -> Result<Vec<(&'static str, u64)>, Error> {
    let table = instance.open_per_cpu_table::<u32, u64>("OUTCOMES")?;
    let count = |outcome: &Outcome| -> Result<(&'static str, u64), Error> {
        let per_cpu = table.get(&(*outcome as u32))?.unwrap_or_default();
        Ok((outcome.name(), per_cpu.into_iter().sum()))
    };
    Outcome::ALL.iter().map(count).collect()
}
