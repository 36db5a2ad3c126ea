//! The tables as the API tells them: read from the pinned maps, with or without a daemon.

mod choice;

use crate::daemon::health::View;
use crate::daemon::rates::Averages;
use crate::daemon::size::Size;
use crate::daemon::{in_use, naming, with_xdp};
use crate::explain::{self, Question};
use crate::failure::{Failure, Result};
use crate::walk;
use dirigent_api::{Connections, ConnectionsOf, Explanation, Interface, Room, Service, Stats, StatsOf, Status, Walk};
use dirigent_datapath::control::report::{Growth, Report, Whose};
use dirigent_datapath::control::{self, KernelStore, Store as _};
use dirigent_datapath::kernel::{Attached, Hook, Instance};
use dirigent_director::records::map;
use dirigent_net::Snapshot;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads one director's tables.
pub struct Reader {
    instance: Instance,
    store: KernelStore,
    /// The daemon's, if it is the daemon that reads.
    rates: Option<Arc<Averages>>,
    health: Option<View>,
}

/// The sizes of a director's tables, if it has any.
pub fn size(instance: &Instance) -> Option<Size> {
    let [connections, services, servers, slots] =
        [map::CONNS4, map::SERVICES, map::SERVERS, map::SLOTS].map(|name| instance.entries(name).ok());
    Some(Size::of_entries(connections?, control::Room { services: services?, servers: servers?, slots: slots? }))
}

impl Reader {
    /// Opens the pins.
    pub fn open(instance: &Instance) -> Result<Self> {
        let store = KernelStore::open(instance)?;
        Ok(Self { instance: instance.clone(), store, rates: None, health: None })
    }

    /// With what only the daemon knows: how fast counters grow, and servers' health.
    pub fn with_daemon(self, rates: Arc<Averages>, health: View) -> Self {
        Self { rates: Some(rates), health: Some(health), ..self }
    }

    fn report(&self) -> Report<'_, KernelStore> {
        Report::of(&self.store, self.rates.as_deref().map(|rates| rates as &dyn Growth))
    }

    /// All services with their servers, also removed ones that still have connections, and those that are down.
    pub fn services(&self) -> Result<Vec<Service>> {
        let mut services = self.report().services()?;
        if let Some(health) = &self.health {
            health.add_to(&mut services);
        }
        Ok(services)
    }

    /// The first of the connections that are wanted: without a limit all.
    pub fn connections(&self, of: &ConnectionsOf) -> Result<Connections> {
        let services = |name: &str| {
            let keys = self.store.places()?.into_iter().filter_map(|(spot, _)| spot.key());
            naming::one_of(keys.map(|key| (key, key)), name)
        };
        let service = of.service.as_deref().map(services).transpose()?;
        let server = of.server.as_deref().map(naming::server_at).transpose()?;
        Ok(self.report().connections(of.limit.unwrap_or(usize::MAX), &Whose { service, server })?)
    }

    /// What would become of a packet.
    pub fn explain(&self, question: &Question) -> Result<Explanation> {
        explain::explain(&self.store, &with_xdp(&self.instance)?, question)
    }

    /// The way of a service's requests and answers.
    pub fn walk(&self, question: &walk::Question) -> Result<Walk> {
        walk::walk(&self.services()?, &self.store, &with_xdp(&self.instance)?, question)
    }

    /// The counters of everything, and of the services that are wanted.
    pub fn stats(&self, of: &StatsOf) -> Result<Stats> {
        let services = match &of.service {
            _ if of.services == Some(false) => Vec::new(),
            None => self.services()?,
            Some(name) => vec![naming::listed_service(&self.services()?, name)?.clone()],
        };
        let (services, matching) = choice::choose(services, of);
        Ok(Stats { services, matching, ..self.report().totals()? })
    }

    /// Whose tables these are.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// How many services and servers there is room for.
    pub fn room(&self) -> control::Room {
        self.store.room()
    }

    /// Where the packet path is attached.
    pub fn interfaces(&self) -> Result<Vec<Interface>> {
        Ok(interfaces(&in_use(&self.instance)?))
    }

    /// What can be told without the daemon.
    pub fn status(&self) -> Result<Status> {
        let services = self.services()?;
        let servers = services.iter().flat_map(|service| &service.servers);
        let used = servers.map(|s| u64::from(s.active) + u64::from(s.inactive)).sum();
        let size = size(&self.instance);
        let room =
            Room { connections: size.map_or(0, |size| size.connections), bytes: size.map_or(0, Size::bytes), used };
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.name().to_owned(),
            interfaces: self.interfaces()?,
            connections: room,
            timeouts: self.report().timeouts()?,
            ..Status::default()
        })
    }
}

/// From the pins; the names are those of the asker's namespace, if the interface is there.
fn interfaces(all: &[Attached]) -> Vec<Interface> {
    let snapshot = Snapshot::take().ok();
    let mut found: BTreeMap<u32, Interface> = BTreeMap::new();
    for one in all.iter().filter(|one| one.alive) {
        let link = snapshot.as_ref().and_then(|s| s.links.get(&one.ifindex));
        let name = link.map(|link| link.name.clone()).unwrap_or_default();
        let entry = found.entry(one.ifindex).or_insert_with(|| Interface {
            name,
            index: one.ifindex,
            path: "tc".into(),
            reasons: Vec::new(),
        });
        if one.hook == Hook::Xdp {
            entry.path = "xdp".into();
        }
    }
    found.into_values().collect()
}

impl From<control::Error> for Failure {
    fn from(error: control::Error) -> Self {
        match error {
            control::Error::Kernel(error) => error.into(),
            control::Error::Full { key, .. } => {
                let remedy = format!(
                    "set {key} in [director] higher, and start the director anew after `dirigent stop --detach`, which \
                     ends all connections"
                );
                Self::new("", error.to_string(), remedy)
            }
            other => Self::new("", other.to_string(), ""),
        }
    }
}
