//! The table operations that [`super::Control`] is made of.

use std::net::IpAddr;

use dirigent_director::family::{V4, V6};
use dirigent_director::probe::Pin;
use dirigent_director::records::{
    Counters, Known, Lesson, Link, MarkRule, NextHop, Note, Noted, Server, Service, Settings, server_flag,
};

use super::Error;
use crate::keys::{Flow, Spot, address};
use crate::memory::{LocalNet, SourceNet};

/// An entry of a connection table, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub flow: Flow,
    /// State, flags and tag.
    pub word: u64,
    /// Of a template: its connections, see [`dirigent_director::persist::Link`].
    pub link: u64,
    /// Time of this direction's last packet.
    pub last_seen: u32,
    /// Packets of this direction.
    pub packets: u32,
    /// Index of the server.
    pub server: u32,
    /// Index of the service.
    pub service: u32,
    /// The address that is written into packets.
    pub address: IpAddr,
    /// The port that is written into packets.
    pub port: u16,
    /// One of [`dirigent_director::records::kind`].
    pub kind: u8,
    /// Bits of [`dirigent_director::records::conn_flag`].
    pub flags: u8,
    /// Firewall mark of the first packet.
    pub mark: u32,
    /// Which part of the client's address is in its template's key.
    pub mask: u32,
    /// Tag of its template.
    pub template: u32,
    /// Of a template: ticks it lives.
    pub timeout: u32,
    /// Of a request entry or template: a [`dirigent_director::sync::Told`].
    pub extra: u32,
}

/// How an attempt to expire an entry ended: [`dirigent_director::records::Candidate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Connections that are gone now.
    pub gone: u64,
    /// Those that had a packet in time.
    pub alive: u64,
}

/// What is to become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Not,
    /// It ends, if it had no packet meanwhile.
    IfIdle,
    /// It ends.
    AtOnce,
    /// Its server failed: [`dirigent_director::reset::begin`].
    Reset,
}

/// How much fits into the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Services.
    pub services: u32,
    /// Servers.
    pub servers: u32,
    /// Slots of lists and mh tables.
    pub slots: u32,
}

/// Tables that can be written. Writes of what packets look at are whole: a packet sees
/// the old or the new value.
pub trait Store {
    /// How much fits.
    fn room(&self) -> Room;
    /// Ticks a second.
    fn hz(&self) -> u32;
    /// The packet path's time, ticks.
    fn now(&self) -> u32;

    /// The settings; version 0 if there are none yet.
    fn settings(&self) -> Result<Settings, Error>;
    /// Writes the settings.
    fn put_settings(&mut self, settings: &Settings) -> Result<(), Error>;

    /// All virtual services: place and index. (Not the places that stand for their whole
    /// addresses, which are set and removed with them.)
    fn places(&self) -> Result<Vec<(Spot, u32)>, Error>;
    /// Adds or (`None`) removes one.
    fn set_place(&mut self, spot: &Spot, index: Option<u32>) -> Result<(), Error>;
    /// A service.
    fn service(&self, index: u32) -> Result<Service, Error>;
    /// Writes all of a service but its list and cursor.
    fn put_service_rules(&mut self, index: u32, service: &Service) -> Result<(), Error>;
    /// Switches a service's list, at once.
    fn set_list(&mut self, index: u32, list: u64) -> Result<(), Error>;
    /// Sets the scheduler's state if it is still `old`; says whether it was.
    fn swap_cursor(&mut self, index: u32, old: u64, new: u64) -> Result<bool, Error>;

    /// A server.
    fn server(&self, index: u32) -> Result<Server, Error>;
    /// The indexes of servers whose records are in use, in a list or not.
    fn used_servers(&self) -> Result<Vec<u32>, Error>;
    /// Writes all of a server but its connection count.
    fn put_server(&mut self, index: u32, server: &Server) -> Result<(), Error>;
    /// A server's next hop.
    fn next_hop(&self, index: u32) -> Result<NextHop, Error>;
    /// Writes it, such that no CPU sees half a MAC.
    fn put_next_hop(&mut self, index: u32, hop: &NextHop) -> Result<(), Error>;
    /// Sum of a server's counters.
    fn counters(&self, index: u32) -> Result<Counters, Error>;
    /// Sets a server's counters to zero.
    fn zero_counters(&mut self, index: u32) -> Result<(), Error>;
    /// What a server has counted less what of it counts as nothing.
    fn counted(&self, index: u32) -> Result<Counters, Error> {
        Ok(self.counters(index)?.since(self.origin(index)?))
    }
    /// The same of all these servers, in ascending order.
    fn counted_of(&self, servers: &[u32]) -> Result<Vec<Counters>, Error> {
        servers.iter().map(|index| self.counted(*index)).collect()
    }
    /// What of a server's counters counts as nothing.
    fn origin(&self, index: u32) -> Result<Counters, Error>;
    /// Writes it.
    fn put_origin(&mut self, index: u32, origin: &Counters) -> Result<(), Error>;
    /// What a service counts besides its servers; behind the last service, what is counted
    /// besides services.
    fn base(&self, index: u32) -> Result<Counters, Error>;
    /// Writes it.
    fn put_base(&mut self, index: u32, base: &Counters) -> Result<(), Error>;

    /// `len` slots from `base`.
    fn slots(&self, base: u32, len: u32) -> Result<Vec<u32>, Error>;
    /// Writes slots.
    fn put_slots(&mut self, base: u32, slots: &[u32]) -> Result<(), Error>;

    /// What lblc and lblcr noted of destinations.
    fn notes(&self) -> Result<Vec<(Noted, Note)>, Error>;
    /// Forgets one.
    fn forget_note(&mut self, of: &Noted) -> Result<(), Error>;

    /// Adds to the bits of an address: [`dirigent_director::sieve`].
    fn add_to_sieve(&mut self, address: IpAddr, bits: u8) -> Result<(), Error>;
    /// Sets all bits of all addresses.
    fn open_sieve(&mut self) -> Result<(), Error>;

    /// The NAT servers by place.
    fn known(&self) -> Result<Vec<(Spot, Known)>, Error>;
    /// Adds, replaces or (`None`) removes one.
    fn set_known(&mut self, spot: &Spot, known: Option<Known>) -> Result<(), Error>;
    /// This host's addresses.
    fn locals(&self) -> Result<Vec<IpAddr>, Error>;
    /// Adds or removes one.
    fn set_local(&mut self, address: IpAddr, present: bool) -> Result<(), Error>;
    /// The prefixes that are this host's.
    fn local_nets(&self) -> Result<Vec<LocalNet>, Error>;
    /// Adds or removes one.
    fn set_local_net(&mut self, net: &LocalNet, present: bool) -> Result<(), Error>;
    /// The prefixes of clients, and whether these may open connections.
    fn sources(&self) -> Result<Vec<(SourceNet, bool)>, Error>;
    /// Adds, replaces or (`None`) removes one.
    fn set_source(&mut self, net: &SourceNet, may: Option<bool>) -> Result<(), Error>;
    /// `len` mark rules from `base`.
    fn mark_rules(&self, base: u32, len: u32) -> Result<Vec<MarkRule>, Error>;
    /// Writes mark rules where no packet looks.
    fn put_mark_rules(&mut self, base: u32, rules: &[MarkRule]) -> Result<(), Error>;
    /// The interfaces in use, by number.
    fn links(&self) -> Result<Vec<(u32, Link)>, Error>;
    /// Writes an interface; the default one is not in use.
    fn put_link(&mut self, ifindex: u32, link: &Link) -> Result<(), Error>;
    /// Adds an IPv4 pin; says whether its key was free.
    fn add_pin4(&mut self, pin: &Pin<V4>) -> Result<bool, Error>;
    /// Adds an IPv6 pin; says whether its key was free.
    fn add_pin6(&mut self, pin: &Pin<V6>) -> Result<bool, Error>;
    /// Removes a pin, if it is there.
    fn remove_pin(&mut self, flow: &Flow) -> Result<(), Error>;
    /// All pins, with the record of the server that they are about.
    fn pins(&self) -> Result<Vec<(Flow, u32)>, Error>;
    /// Packets by reason.
    fn reasons(&self) -> Result<Vec<u64>, Error>;

    /// Index of the virtual service of a place.
    fn place(&self, spot: &Spot) -> Result<Option<u32>, Error>;
    /// Does these lessons in their order, and writes what came of each.
    fn learn(&mut self, lessons: &mut [Lesson]) -> Result<(), Error>;

    /// One entry.
    fn entry(&self, flow: &Flow) -> Result<Option<Entry>, Error>;
    /// Shows all entries of a family.
    fn walk(&self, v6: bool, see: &mut dyn FnMut(Entry)) -> Result<(), Error>;
    /// Walks over all entries and expires those that `due` names, if they are idle and the
    /// packet path agrees, or at once. `pause` is called every few thousand entries.
    fn sweep(
        &mut self,
        due: &mut dyn FnMut(&Self, &Entry) -> Result<Due, Error>,
        pause: &mut dyn FnMut(),
    ) -> Result<Expired, Error>
    where
        Self: Sized;
}

/// The address of a real server's record.
pub fn server_address(server: &Server) -> IpAddr {
    address(&server.addr, server.flags.load() & server_flag::IPV6 != 0)
}
