//! The director that a daemon holds: the Model in force, the kernel's tables and programs, and the network around them.

use super::config;
use super::interfaces::Interfaces;
use super::size::Size;
use super::tables::Tables;
use super::vip::{self, Vips};
use super::{network, snapshot};
use crate::failure::Result;
use crate::report::Reader;
use dirigent_api::{Changed, Daemon, Problem, Status};
use dirigent_config::{Model, Plan};
use dirigent_datapath::kernel::{self, Instance, Kernel, LoadOptions};
use dirigent_director::records::LAYOUT_VERSION;
use dirigent_net::{Change, HopKeeper, Update};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A director with its daemon.
pub struct Director {
    /// The network, whose changes are waited for.
    pub network: HopKeeper,
    file: PathBuf,
    /// The name from the command line, which wins over the file's.
    named: Option<String>,
    instance: Instance,
    model: Model,
    kernel: Kernel,
    tables: Tables,
    interfaces: Interfaces,
    vips: Vips,
    since: Instant,
    /// What went wrong when the network last changed.
    problem: Option<Problem>,
}

impl Director {
    /// Loads or takes over, writes the tables, and only then attaches: the first packet finds everything in place.
    pub async fn start(file: &Path, named: Option<String>, model: Model) -> Result<Self> {
        let settings = model.settings();
        let instance = Instance::new(&settings.instance)?;
        let size = Size::of(settings.connections)?;
        let maps = size.maps();
        let mut options = LoadOptions { instance: Some(&instance), layout: LAYOUT_VERSION, map_sizes: &maps };
        let taken = Reader::open(&instance).ok();
        let kept = taken.as_ref().and_then(|reader| reader.size());
        let maps_kept = kept.map(|size| size.maps());
        if let (None, Some(maps)) = (settings.connections, &maps_kept) {
            // A default that came out differently is no reason to complain.
            options.map_sizes = maps;
        }
        let kernel = Kernel::load(&options)?;
        let actual = kept.unwrap_or(size);
        tracing::info!("{}", actual.sentence(settings.connections == Some(actual.connections)));
        let tables = Tables::open(&instance, &kernel)?;
        let mut director = Self {
            network: HopKeeper::start()?,
            file: file.to_owned(),
            named,
            vips: Vips::open(instance.name())?,
            instance,
            model: Model::default(),
            kernel,
            tables,
            interfaces: Interfaces::default(),
            since: Instant::now(),
            problem: None,
        };
        if director.kernel.took_over() {
            tracing::info!("took over the programs and maps of {}, with their connections", director.instance.name());
        }
        director.begin(model)?;
        Ok(director)
    }

    fn begin(&mut self, model: Model) -> Result<()> {
        self.tables.begin(&model)?;
        self.model = model;
        self.vips.follow(&self.model)?;
        // Changes of its own making are part of what is there.
        self.network = HopKeeper::start()?;
        self.set_destinations()?;
        self.follow_network(true)?;
        self.announce();
        for problem in self.problems()? {
            tracing::warn!("{problem}");
        }
        Ok(())
    }

    /// The name.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// What it does, for the log.
    pub fn summary(&self) -> String {
        let servers: usize = self.model.services().iter().map(|s| s.servers.len()).sum();
        let used = self.interfaces.all().map(|(_, u)| format!("{} ({})", u.attachment.interface, u.attachment.path));
        let on = used.collect::<Vec<_>>().join(", ");
        let on = if on.is_empty() { "no interface yet".to_owned() } else { on };
        format!("forwarding {} services to {servers} servers on {on}", self.model.services().len())
    }

    /// What changed in the network is carried into the tables. What cannot be is told, and tried again with the next change.
    pub fn network_changed(&mut self, update: &Update) {
        let outcome = self.carry(update);
        self.problem = outcome.err().map(|failure| {
            tracing::error!("following a change of the network: {failure}");
            Problem::new("network", failure.to_string(), "it is tried again with the next change")
        });
    }

    fn carry(&mut self, update: &Update) -> Result<()> {
        for (ip, hop) in &update.hops {
            tracing::info!("the next hop of {ip}: {:?} by interface {}", hop.state, hop.ifindex);
            self.tables.set_hop(*ip, hop)?;
        }
        let beyond = |change: &Change| !matches!(change, Change::Neighbour(..));
        if !update.changes.iter().any(beyond) && self.problem.is_none() {
            return Ok(());
        }
        if update.changes.iter().any(|change| matches!(change, Change::AddressGone(..) | Change::LinkGone(_))) {
            self.vips.hold()?;
        }
        self.follow_network(false)
    }

    /// Interfaces, their addresses, and this host's.
    fn follow_network(&mut self, strictly: bool) -> Result<()> {
        let snapshot = snapshot(self.network.watcher())?;
        let vips = config::virtual_addresses(&self.model).into_iter().map(|(ip, _)| ip);
        self.tables.set_local(network::local(&snapshot, vips))?;
        // Known to the tables before their first packet, so before the programs are attached.
        let known = self.interfaces.follow(&mut self.kernel, &self.model, &snapshot, strictly);
        self.tables.set_links(network::links(&self.interfaces, &snapshot))?;
        known.map(|_| ())
    }

    fn set_destinations(&mut self) -> Result<()> {
        let servers = config::servers(&self.model);
        self.network.set_destinations(&servers)?;
        // All, not only the new ones: a server that came back has a new place in the tables.
        for (ip, hop) in self.network.hops() {
            self.tables.set_hop(*ip, hop)?;
        }
        Ok(())
    }

    /// A chunk of the walk over all connections.
    pub fn sweep(&mut self) {
        if let Err(failure) = self.tables.sweep(&self.kernel) {
            tracing::error!("expiring connections: {failure}");
        }
    }

    /// New virtual addresses are announced on all interfaces in use.
    pub fn announce(&mut self) {
        if self.vips.is_due() {
            self.vips.announce(self.interfaces.all().map(|(_, used)| used.attachment.interface.as_str()));
        }
    }

    /// From the Model in force to the file's.
    pub fn reload(&mut self) -> Result<Changed> {
        let new = config::load(&self.file, self.named.clone())?;
        let plan = Plan::between(&self.model, &new);
        let notes = fixed(&self.model, &new);
        let operations: Vec<_> = plan.ops.iter().map(ToString::to_string).collect();
        let interfaces_differ = self.model.settings().interfaces != new.settings().interfaces
            || self.model.settings().mode != new.settings().mode;
        self.tables.apply(&plan, &mut self.model)?;
        self.vips.follow(&self.model)?;
        self.set_destinations()?;
        self.follow_network(interfaces_differ)?;
        self.announce();
        Ok(Changed { operations, notes })
    }

    /// Removes all from the kernel.
    pub fn detach(&mut self) -> Result<Changed> {
        let gone = kernel::detach_all(&self.instance)?;
        let mut operations: Vec<_> =
            gone.iter().map(|a| format!("detached {} of interface {}", a.hook, a.ifindex)).collect();
        operations.push("removed the maps, with all connections and counters".to_owned());
        operations.extend(vip::release_recorded(self.instance.name())?);
        Ok(Changed { operations, notes: Vec::new() })
    }

    fn problems(&mut self) -> Result<Vec<Problem>> {
        let snapshot = snapshot(self.network.watcher())?;
        let mut problems = config::unheld(&self.model, &snapshot);
        for name in self.model.settings().interfaces.iter().flatten() {
            if snapshot.link_named(name).is_none() {
                let remedy = "the daemon attaches to it when it appears";
                problems.push(Problem::new(format!("interface {name}"), "it does not exist", remedy));
            }
        }
        for (ip, hop) in self.network.hops() {
            if hop.state == dirigent_net::NextHopState::NoRoute {
                let remedy = "add a route to it, or remove it from the configuration";
                problems.push(Problem::new(format!("server {ip}"), "no route leads to it", remedy));
            }
        }
        problems.extend(self.problem.clone());
        Ok(problems)
    }

    /// For the API.
    pub fn status(&mut self) -> Result<Status> {
        let reader = Reader::open(&self.instance)?;
        let snapshot = snapshot(self.network.watcher())?;
        let interface = |(index, used): (&u32, &super::interfaces::Used)| dirigent_api::Interface {
            name: used.attachment.interface.clone(),
            index: *index,
            path: used.attachment.path.to_string(),
            reasons: used.why.iter().chain([&used.attachment.reason]).cloned().collect(),
        };
        Ok(Status {
            daemon: Some(Daemon {
                pid: std::process::id(),
                uptime_s: self.since.elapsed().as_secs(),
                config: self.file.display().to_string(),
                took_over: self.kernel.took_over(),
            }),
            interfaces: self.interfaces.all().map(interface).collect(),
            virtual_addresses: vip::report(&self.model, &snapshot),
            problems: self.problems()?,
            ..reader.status()?
        })
    }
}

/// Settings that only a new start brings about.
fn fixed(old: &Model, new: &Model) -> Vec<String> {
    let (old, new) = (old.settings(), new.settings());
    let differs = [
        (old.instance != new.instance, "instance"),
        (old.connections != new.connections, "connections"),
        (old.socket != new.socket, "socket"),
        (old.group != new.group, "group"),
    ];
    let changed = differs.into_iter().filter(|(differs, _)| *differs);
    changed.map(|(_, key)| format!("{key} takes effect with `dirigent stop --detach` and a new start")).collect()
}
