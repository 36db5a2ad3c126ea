//! The director that a daemon holds: the Model in force, the kernel's tables and programs, and the network around them.

use super::config;
use super::interfaces::Interfaces;
use super::size::Size;
use super::tables::{Sweeper, Tables};
use super::vip::{self, Vips};
use super::{network, snapshot};
use crate::failure::{Failure, Result};
use crate::report::{self, Reader};
use dirigent_api::{Changed, Daemon, Problem, Status};
use dirigent_config::{Model, Plan};
use dirigent_datapath::control::KernelStore;
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
    kernel: Kernel,
    tables: Tables,
    sweeper: Option<Sweeper>,
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
        let kept = report::size(&instance);
        let kept_maps = kept.map(Size::maps);
        if let (None, Some(maps)) = (settings.connections, &kept_maps) {
            // A default that came out differently is no reason to complain.
            options.map_sizes = maps;
        }
        let mut kernel = Kernel::load(&options)?;
        if let Err(error) = kernel.count_losses() {
            tracing::warn!("frames that XDP loses after the verdict are not counted: {error}");
        }
        let actual = kept.unwrap_or(size);
        tracing::info!("{}", actual.sentence(settings.connections == Some(actual.connections)));
        if kernel.took_over() {
            tracing::info!("took over the programs and maps of {}, with their connections", instance.name());
        }
        let vips = Vips::open(instance.name())?;
        let mut director = Self {
            network: HopKeeper::start()?,
            file: file.to_owned(),
            named,
            vips,
            tables: Tables::open(&kernel, &model)?,
            sweeper: None,
            instance,
            kernel,
            interfaces: Interfaces::default(),
            since: Instant::now(),
            problem: None,
        };
        director.begin()?;
        Ok(director)
    }

    fn begin(&mut self) -> Result<()> {
        self.set_destinations()?;
        if self.kernel.took_over() {
            let now = snapshot(self.network.watcher())?;
            self.interfaces.take_over(&mut self.kernel, &self.instance, self.tables.model(), &now)?;
        }
        self.follow_network(false)?;
        // Last: without the programs the host itself would answer its packets.
        self.vips.follow(self.tables.model())?;
        self.announce();
        let sweeper = Sweeper::start(KernelStore::new(&self.kernel)?);
        self.sweeper = Some(sweeper.map_err(|e| Failure::io("starting the sweep", &e))?);
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
        let servers: usize = self.tables.model().services().iter().map(|s| s.servers.len()).sum();
        let used = self.interfaces.all().map(|(_, u)| format!("{} ({})", u.attachment.interface, u.attachment.path));
        let on = used.collect::<Vec<_>>().join(", ");
        let on = if on.is_empty() { "no interface yet".to_owned() } else { on };
        format!("forwarding {} services to {servers} servers on {on}", self.tables.model().services().len())
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
        if update.changes.iter().any(|change| matches!(change, Change::Link(_))) {
            self.vips.renew();
        }
        self.follow_network(false)
    }

    /// This host's addresses, and the interfaces: known to the tables before programs see their packets.
    fn follow_network(&mut self, strictly: bool) -> Result<()> {
        let snapshot = snapshot(self.network.watcher())?;
        self.tables.set_local(network::local(&snapshot, &config::virtual_addresses(self.tables.model())))?;
        let planned = self.interfaces.planned(self.tables.model(), &snapshot);
        self.tables.set_links(network::links(&planned, &snapshot))?;
        self.interfaces.follow(&mut self.kernel, self.tables.model(), &snapshot, strictly)?;
        self.tables.set_links(network::links(&self.interfaces.indexes(), &snapshot))
    }

    fn set_destinations(&mut self) -> Result<()> {
        let servers = config::servers(self.tables.model());
        self.network.set_destinations(&servers)?;
        // All, not only the new ones: a server that came back has a new place in the tables.
        for (ip, hop) in self.network.hops() {
            self.tables.set_hop(*ip, hop)?;
        }
        Ok(())
    }

    /// What comes now and then.
    pub fn tidy(&mut self) {
        if let Err(failure) = self.tables.collect() {
            tracing::error!("freeing what removed servers held: {failure}");
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
        let plan = Plan::between(self.tables.model(), &new);
        let notes = fixed(self.tables.model(), &new);
        let operations: Vec<_> = plan.ops.iter().map(ToString::to_string).collect();
        let interfaces_differ = self.tables.model().settings().interfaces != new.settings().interfaces
            || self.tables.model().settings().mode != new.settings().mode;
        self.tables.apply(&plan)?;
        self.set_destinations()?;
        self.follow_network(interfaces_differ)?;
        self.vips.follow(self.tables.model())?;
        self.announce();
        Ok(Changed { operations, notes })
    }

    /// Removes all from the kernel.
    pub fn detach(&mut self) -> Result<Changed> {
        self.sweeper = None;
        let gone = kernel::detach_all(&self.instance)?;
        let mut operations: Vec<_> =
            gone.iter().map(|a| format!("detached {} of interface {}", a.hook, a.ifindex)).collect();
        operations.push("removed the maps, with all connections and counters".to_owned());
        operations.extend(vip::release_recorded(self.instance.name())?);
        Ok(Changed { operations, notes: Vec::new() })
    }

    fn problems(&mut self) -> Result<Vec<Problem>> {
        let snapshot = snapshot(self.network.watcher())?;
        let mut problems = config::unheld(self.tables.model(), &snapshot);
        for name in self.tables.model().settings().interfaces.iter().flatten() {
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
            virtual_addresses: vip::report(self.tables.model(), &snapshot),
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
