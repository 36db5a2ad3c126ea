//! Names as this system knows them: /etc/hosts and DNS, /etc/services.

use dirigent_config::Protocol;
use dirigent_config::ipvsadm::names::Names;
use dns_lookup::{AddrInfoHints, SockType, getaddrinfo, getnameinfo};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// `NI_NUMERICHOST`, `NI_NUMERICSERV`, `NI_NAMEREQD` and `NI_DGRAM` of getnameinfo(3).
mod flag {
    pub const NUMERIC_HOST: i32 = 1;
    pub const NUMERIC_SERVICE: i32 = 2;
    pub const NAME_REQUIRED: i32 = 8;
    pub const DATAGRAM: i32 = 16;
}

/// Asks the system; hosts once each.
#[derive(Default)]
pub struct SystemNames {
    hosts: RefCell<HashMap<IpAddr, Option<String>>>,
}

fn kind(protocol: Protocol) -> Option<SockType> {
    match protocol {
        Protocol::Tcp => Some(SockType::Stream),
        Protocol::Udp => Some(SockType::DGram),
        // The C library's resolver knows no services of SCTP.
        Protocol::Sctp => None,
    }
}

impl Names for SystemNames {
    fn host(&self, name: &str) -> Option<Ipv4Addr> {
        let found = getaddrinfo(Some(name), None, None).ok()?;
        found.flatten().find_map(|info| match info.sockaddr.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    }

    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let hints = AddrInfoHints { socktype: kind(protocol)?.into(), ..AddrInfoHints::default() };
        let mut found = getaddrinfo(None, Some(name), Some(hints)).ok()?;
        found.find_map(|info| Some(info.ok()?.sockaddr.port()))
    }

    fn of_host(&self, address: IpAddr) -> Option<String> {
        let mut hosts = self.hosts.borrow_mut();
        let ask = || {
            let flags = flag::NAME_REQUIRED | flag::NUMERIC_SERVICE;
            getnameinfo(&SocketAddr::new(address, 0), flags).ok().map(|(host, _)| host)
        };
        hosts.entry(address).or_insert_with(ask).clone()
    }

    fn of_port(&self, port: u16, protocol: Protocol) -> Option<String> {
        let datagram = if kind(protocol)? == SockType::DGram { flag::DATAGRAM } else { 0 };
        let place = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        getnameinfo(&place, flag::NUMERIC_HOST | datagram).ok().map(|(_, name)| name)
    }
}
