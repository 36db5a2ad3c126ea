//! What the doctor asks the director, and what he tells it.

use super::Director;
use crate::daemon::interfaces::{Used, bare};
use crate::failure::Result;
use crate::netfilter::Netfilter;
use dirigent_config::{Server, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

impl Director {
    /// What is configured.
    pub fn configured(&self) -> &dirigent_config::Model {
        &self.model
    }

    /// Bytes of the largest packet on the way to a server, and of the largest of a client's, if that is known.
    pub fn carries(&self, key: &ServiceKey, server: &Server) -> Option<(u32, u32)> {
        self.tables.carries(key, server.address, server.port).ok().flatten()
    }

    /// This host's address on the way to a server.
    pub fn source_towards(&self, server: IpAddr) -> Option<IpAddr> {
        self.tables.source_towards(server)
    }

    /// The interfaces in use, those apart that the director made.
    fn clients(&self) -> impl Iterator<Item = (&u32, &Used)> {
        let inside = self.model.settings().mark_device_inside();
        let own = self.interfaces.own(inside.as_deref());
        let own = [own.marked, own.probes].map(|name| name.map(str::to_owned));
        let is_own = move |used: &Used| own.iter().flatten().any(|name| *name == used.attachment.interface);
        self.interfaces.all().filter(move |(_, used)| !is_own(used))
    }

    /// Their numbers.
    pub fn clients_interfaces(&self) -> Vec<u32> {
        self.clients().map(|(index, _)| *index).collect()
    }

    /// Of those, the ones that lack a program of ours, and which.
    pub fn bare_interfaces(&self) -> Result<BTreeMap<u32, Vec<String>>> {
        bare(&self.instance, self.kernel.sees_answers(), self.clients())
    }

    /// Why XDP is not used on devices that it is meant for.
    pub fn without_xdp(&self) -> Vec<(u32, String)> {
        let why = |(index, used): (&u32, &Used)| Some((*index, used.attachment.without_xdp.clone()?));
        self.clients().filter_map(why).collect()
    }

    /// What the kernel cannot do, and is done without.
    pub fn lacking(&self) -> Vec<String> {
        self.lacking.clone()
    }

    /// Nobody else answers for these virtual addresses.
    pub fn unclaimed(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.suspicions.unclaimed(addresses);
    }

    /// Netfilter's rules are these now.
    pub fn set_netfilter(&mut self, netfilter: Netfilter) {
        self.netfilter = netfilter;
    }
}
