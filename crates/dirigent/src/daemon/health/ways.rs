//! The ways along which checks go that go where clients' packets do.

use super::job::Along;
use crate::daemon::{ClientsPath, Leave};
use dirigent_datapath::control::Aim;
use dirigent_health::Why;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock};

/// The way to one server: for whom, and from which address.
pub type Way = (Aim, IpAddr);

/// What is known of them.
#[derive(Default)]
struct Known {
    path: Option<Arc<ClientsPath>>,
    /// By server, and whether the virtual address is IPv6.
    to: HashMap<(Along, bool), Way>,
}

/// As the director last had them.
#[derive(Clone, Default)]
pub struct Ways(Arc<RwLock<Known>>);

impl Ways {
    /// They are these from now on.
    pub fn set(&self, path: Option<Arc<ClientsPath>>, to: HashMap<(Along, bool), Way>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Known { path, to };
    }

    fn find(&self, vip: SocketAddr, along: &Along) -> Result<(Arc<ClientsPath>, Way), Why> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let way = known.to.get(&(*along, vip.is_ipv6())).copied();
        known.path.clone().zip(way).ok_or(Why::of("no way leads to the server"))
    }

    /// A socket whose packets go to this server, not connected.
    pub fn tcp(&self, vip: SocketAddr, along: &Along) -> Result<(TcpStream, Leave), Why> {
        let (path, (aim, from)) = self.find(vip, along)?;
        path.tcp(from, vip, &aim).map_err(|e| Why::new(e.to_string()))
    }

    /// The same for UDP.
    pub fn udp(&self, vip: SocketAddr, along: &Along) -> Result<(UdpSocket, Leave), Why> {
        let (path, (aim, from)) = self.find(vip, along)?;
        path.udp(from, vip, &aim).map_err(|e| Why::new(e.to_string()))
    }
}
