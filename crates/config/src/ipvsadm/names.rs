//! What names of hosts and ports stand for, and the other way round. This crate asks nobody: whoever uses it does.

use crate::model::Protocol;
use std::net::{IpAddr, Ipv4Addr};

/// Who knows names.
pub trait Names {
    /// The address of a host.
    fn host(&self, name: &str) -> Option<Ipv4Addr>;
    /// The port of a service, as /etc/services has it.
    fn port(&self, name: &str, protocol: Protocol) -> Option<u16>;
    /// The name of a host.
    fn of_host(&self, address: IpAddr) -> Option<String>;
    /// The name of a service.
    fn of_port(&self, port: u16, protocol: Protocol) -> Option<String>;
}

/// Knows none: numbers stay numbers.
#[derive(Clone, Copy, Debug)]
pub struct NoNames;

impl Names for NoNames {
    fn host(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }
    fn port(&self, _: &str, _: Protocol) -> Option<u16> {
        None
    }
    fn of_host(&self, _: IpAddr) -> Option<String> {
        None
    }
    fn of_port(&self, _: u16, _: Protocol) -> Option<String> {
        None
    }
}
