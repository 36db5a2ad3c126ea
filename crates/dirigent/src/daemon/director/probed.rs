//! Health checks along the clients' path: which servers they may go to, and the way there.

use super::{Director, ETHERNET_MTU};
use crate::daemon::health::{Along, Health};
use crate::failure::{Failure, Result};
use dirigent_config::{Method, Model};
use dirigent_datapath::control::{Aim, Flow, KernelStore, Pinned, Pins, Target};
use dirigent_datapath::kernel::Kernel;
use dirigent_net::ProbeNet;
use dirigent_net::probe::{Room, Sources};
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What the director has for them.
#[derive(Default)]
pub struct Probed {
    targets: HashSet<Target>,
    /// Those that the doctor looks at, until he has done.
    examined: HashSet<(Along, bool)>,
    /// What NAT servers are probed from; empty: the usual ones.
    sources: BTreeSet<IpAddr>,
    /// Where probes will be, if that was made before the right to make it was given up.
    room: Option<Room>,
    /// While there are targets.
    path: Option<Arc<ClientsPath>>,
}

impl Probed {
    /// Nothing yet.
    pub fn with(room: Option<Room>) -> Self {
        Self { room, ..Self::default() }
    }
    /// The addresses of the servers.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.targets.iter().map(|target| target.address)
    }
}

/// The way there, for who makes probes, on whatever thread.
pub struct ClientsPath {
    net: ProbeNet,
    pins: Mutex<Pins<KernelStore>>,
}

/// Leave for one probe, until it is dropped: after the probe's socket, whose last packets are to get there too.
pub struct Leave {
    path: Arc<ClientsPath>,
    pinned: Pinned,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut pins = self.path.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = pins.unpin(&self.pinned) {
            tracing::warn!("a probe's pins stay: {error}");
        }
    }
}

impl ClientsPath {
    fn open(instance: &str, kernel: &Kernel, room: Option<Room>) -> Result<Self> {
        let pins = Pins::new(KernelStore::new(kernel)?);
        let room = room.map_or_else(Room::make, Ok)?;
        Ok(Self { net: room.join(instance, ETHERNET_MTU)?, pins: Mutex::new(pins) })
    }

    fn pin(self: &Arc<Self>, protocol: u8, from: SocketAddr, vip: SocketAddr, to: &Aim) -> Result<Leave> {
        let flow = Flow::of_probe(protocol, from, vip);
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let pinned = pins.pin(&flow, to, self.net.outside().index)?;
        Ok(Leave { path: self.clone(), pinned })
    }

    /// A TCP socket, not connected, from which the virtual address leads to this server; it does not block
    /// (`tokio::net::TcpSocket::from_std_stream`).
    pub fn tcp(self: &Arc<Self>, from: IpAddr, vip: SocketAddr, to: &Aim) -> Result<(TcpStream, Leave)> {
        let socket = TcpStream::from(self.net.tcp(SocketAddr::new(from, 0))?);
        let from = socket.local_addr().map_err(|e| Failure::io("a probe's own address", &e))?;
        let leave = self.pin(TCP, from, vip, to)?;
        Ok((socket, leave))
    }

    /// The same for UDP.
    pub fn udp(self: &Arc<Self>, from: IpAddr, vip: SocketAddr, to: &Aim) -> Result<(UdpSocket, Leave)> {
        let socket = UdpSocket::from(self.net.udp(SocketAddr::new(from, 0))?);
        let from = socket.local_addr().map_err(|e| Failure::io("a probe's own address", &e))?;
        let leave = self.pin(UDP, from, vip, to)?;
        Ok((socket, leave))
    }
}

impl From<Along> for Target {
    fn from(Along { address, port, method }: Along) -> Self {
        Self { address, port, method }
    }
}

impl Director {
    /// The servers that this Model has checked along the real path are probed.
    pub(super) fn probe(&mut self, model: &Model) -> Result<()> {
        let targets: HashSet<Target> = self.along(model).into_iter().map(|(along, _)| along.into()).collect();
        if targets != self.probed.targets {
            self.set_probed(targets, BTreeSet::new())?;
        }
        self.show_ways(model);
        Ok(())
    }

    /// Tells the checks how they get there: neighbours and addresses of this host may have changed.
    pub(super) fn show_ways(&self, model: &Model) {
        let along = self.along(model).into_iter();
        let way = |(along, ipv6): (Along, bool)| Some(((along, ipv6), self.way_of_probes(&along.into(), ipv6)?));
        self.health.set_ways(self.clients_path(), along.filter_map(way).collect());
    }

    /// The servers that are probed: those that checks go to, and those that the doctor looks at.
    fn along(&self, model: &Model) -> HashSet<(Along, bool)> {
        Health::along(model).union(&self.probed.examined).copied().collect()
    }

    /// The doctor looks at these servers; at none: he has done.
    pub fn set_examined(&mut self, servers: HashSet<(Along, bool)>) -> Result<()> {
        self.probed.examined = servers;
        self.probe(&self.model.clone())
    }

    /// Says which servers are probed along the clients' path, in lists or not, and what NAT servers are probed from
    /// (nothing: what is usual). The namespace of the probes is made with the first and goes with the last.
    pub fn set_probed(&mut self, targets: HashSet<Target>, sources: BTreeSet<IpAddr>) -> Result<()> {
        if self.probed.path.is_none() && !targets.is_empty() {
            let path = ClientsPath::open(self.instance.name(), &self.kernel, self.probed.room.clone())?;
            let outside = path.net.outside().name.clone();
            tracing::info!("made the interface {outside} for health checks along the clients' path");
            self.probed.path = Some(Arc::new(path));
            self.interfaces.set_probes(Some(outside));
            self.network.watcher().refresh()?;
        }
        self.tables.set_targets(&targets)?;
        (self.probed.targets, self.probed.sources) = (targets, sources);
        if self.probed.targets.is_empty() {
            // The namespace goes with the last probe that is under way.
            self.probed.path = None;
            self.interfaces.set_probes(None);
        }
        self.set_destinations()?;
        self.follow_network(false)
    }

    /// The way for probes, while servers are probed.
    pub fn clients_path(&self) -> Option<Arc<ClientsPath>> {
        self.probed.path.clone()
    }

    /// What a probe of this server needs: where to, and the address that it comes from if the virtual one is IPv6 or
    /// not. `None`: it is not probed, or no way to it is known.
    pub fn way_of_probes(&self, target: &Target, ipv6: bool) -> Option<(Aim, IpAddr)> {
        let source = match target.method {
            Method::Nat => self.nat_sources().into_iter().find(|ip| ip.is_ipv6() == ipv6),
            _ => self.tables.source_towards(target.address).filter(|ip| ip.is_ipv6() == ipv6),
        };
        Some((self.tables.aim(target)?, source?))
    }

    fn nat_sources(&self) -> BTreeSet<IpAddr> {
        if self.probed.sources.is_empty() { Sources::usual().own } else { self.probed.sources.clone() }
    }

    /// The addresses that probes come from, as the network has them now.
    pub(super) fn settle_sources(&mut self) -> Result<()> {
        let Some(path) = &self.probed.path else { return Ok(()) };
        let direct = self.probed.targets.iter().filter(|target| target.method != Method::Nat);
        let of_host = direct.filter_map(|target| self.tables.source_towards(target.address)).collect();
        Ok(path.net.set_sources(&Sources { own: self.nat_sources(), of_host })?)
    }

    /// Whether the probes' link is there: it is not if somebody removed it.
    #[cfg(test)]
    fn probes_are_linked(&mut self) -> Result<bool> {
        let snapshot = super::snapshot(self.network.watcher())?;
        Ok(self.probed.path.as_ref().is_some_and(|path| snapshot.links.contains_key(&path.net.outside().index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_net::lab::{LabGuard, LabSpec};
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::time::{Duration, Instant};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpSocket;

    const SERVICE: &str = "version = 1\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:80\"\n\
        [[service.server]]\naddress = \"10.0.0.2:8080\"\n";

    /// What a server says to a probe; `None`: nothing in time.
    fn heard(runtime: &tokio::runtime::Runtime, director: &Director, target: &Target) -> Option<String> {
        let vip: SocketAddr = "192.0.2.10:80".parse().unwrap();
        let (aim, source) = director.way_of_probes(target, false)?;
        // First the leave, so that it is dropped last.
        let (socket, leave) = director.clients_path().unwrap().tcp(source, vip, &aim).unwrap();
        let said = runtime.block_on(async {
            let ask = async {
                let mut said = String::new();
                let stream = TcpSocket::from_std_stream(socket).connect(vip).await;
                stream.unwrap().read_to_string(&mut said).await.unwrap();
                said
            };
            tokio::time::timeout(Duration::from_secs(3), ask).await.ok()
        });
        drop(leave);
        said
    }

    /// A daemon's director with probes: of a server in its list, and of one that is not, as if health had taken it out.
    /// Needs root.
    #[test]
    fn the_director_makes_a_way_for_probes_and_takes_it_back() {
        let lab = LabGuard::up(&LabSpec::default()).unwrap();
        for server in ["server1", "server2"] {
            let listener = lab.run(server, || TcpListener::bind("0.0.0.0:8080")).unwrap().unwrap();
            std::thread::spawn(move || {
                listener.incoming().flatten().for_each(|mut stream| _ = stream.write_all(server.as_bytes()));
            });
        }
        let name = lab.name().to_owned();
        let in_director = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // As in the daemon's task: what hears others' claims needs it.
            let handle = runtime.handle().clone();
            let _entered = handle.enter();
            let file =
                dirigent_config::file::parse("f", &format!("{SERVICE}[director]\ninstance = \"{name}\"\n")).unwrap();
            let mut director = runtime.block_on(Director::start(None, Some(name.clone()), file, None)).unwrap();
            let target = |last| Target { address: IpAddr::from([10, 0, 0, last]), port: 8080, method: Method::Nat };
            let (one, two) = (target(2), target(3));
            assert!(director.way_of_probes(&one, false).is_none());
            director.set_probed(HashSet::from([one, two]), BTreeSet::new()).unwrap();
            assert!(director.probes_are_linked().unwrap());
            let outside = dirigent_net::probe::outside(&name);
            let status = director.status().unwrap();
            let used = status.interfaces.iter().find(|interface| interface.name == outside).expect("it is in use");
            assert_eq!(used.path, "tc", "{used:?}");
            assert_eq!(heard(&runtime, &director, &one).as_deref(), Some("server1"));
            assert_eq!(heard(&runtime, &director, &two).as_deref(), Some("server2"));
            // Another source, which the servers answer the same way.
            let other = BTreeSet::from([IpAddr::from([198, 18, 7, 7])]);
            director.set_probed(HashSet::from([two]), other.clone()).unwrap();
            assert!(director.way_of_probes(&one, false).is_none());
            assert_eq!(director.way_of_probes(&two, false).map(|(_, source)| source), other.first().copied());
            assert_eq!(heard(&runtime, &director, &two).as_deref(), Some("server2"));
            director.set_probed(HashSet::new(), BTreeSet::new()).unwrap();
            assert!(director.clients_path().is_none());
            let begun = Instant::now();
            while director.probes_are_linked().unwrap()
                || std::path::Path::new("/sys/class/net").join(&outside).exists()
            {
                assert!(begun.elapsed() < Duration::from_secs(5), "the link stays");
                std::thread::sleep(Duration::from_millis(20));
            }
            let instance = director.instance().clone();
            drop(director);
            super::super::remove(&instance).unwrap();
        };
        lab.namespace("director").unwrap().run_mounted(in_director).unwrap();
    }
}
