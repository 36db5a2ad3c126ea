//! The lab: client, router, director and servers in network namespaces of one machine, for tests, the demo and anyone who
//! wants to look. Everything made is recorded first, so that [`Lab::down`] cleans up after a crash at any moment.

mod build;
mod guard;
mod process;
pub mod spec;
mod state;
mod status;
mod topology;

pub use guard::LabGuard;
pub use process::{Identity, ProcessRecord};
pub use spec::{DEFAULT_NAME, Family, LabSpec, Mode};
pub use state::{DIRECTORY, Phase};
pub use status::{HostStatus, InterfaceStatus, LabStatus, ProcessStatus};

use crate::error::{Context, Error, Result};
use crate::netns::{self, Namespace};
use crate::nl::{Netlink, RouteSpec};
use state::State;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// A lab that is up.
#[derive(Debug, Clone)]
pub struct Lab {
    state: State,
}

/// What [`Lab::down`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownReport {
    /// There was a lab.
    pub existed: bool,
    /// How many processes were ended.
    pub ended: usize,
    /// Processes that were in the lab's namespaces without being recorded, and still run: number and name.
    pub left: Vec<(i32, String)>,
}

/// A process started in the background of a lab.
#[derive(Debug)]
pub struct Background {
    /// The process; dropping it neither waits for it nor ends it.
    pub child: Child,
    /// The file with its output and errors.
    pub log: PathBuf,
}

impl Lab {
    /// Builds a lab. If anything fails, what was made is removed again.
    pub fn up(spec: &LabSpec) -> Result<Self> {
        Self::build(spec, false)
    }

    fn build(spec: &LabSpec, owned: bool) -> Result<Self> {
        spec.check()?;
        let hosts = topology::Topology::of(spec).hosts.into_iter().map(|host| host.name);
        let mut state = State::new(spec, hosts, owned)?;
        let taken: Vec<_> = state.hosts.iter().filter(|h| Namespace::exists(&h.namespace)).collect();
        if let (None, Some(first)) = (State::load(&spec.name)?, taken.first()) {
            return Err(Error::refused(
                format!("network namespace {} exists, and is no lab's", first.namespace),
                format!("remove it with `ip netns delete {}`, or choose another --name", first.namespace),
            ));
        }
        state.create()?;
        if let Err(error) = netns::ensure_bpffs().and_then(|()| build::build(spec, &state)) {
            Self::down(&spec.name)?;
            return Err(error);
        }
        State::update(&spec.name, |recorded| recorded.phase = Phase::Up)?;
        state.phase = Phase::Up;
        Ok(Lab { state })
    }

    /// A lab that was built before, by this process or another.
    pub fn open(name: &str) -> Result<Self> {
        let remedy = || format!("build it with `dirigent lab up --name {name}`");
        let state = State::load(name)?.ok_or_else(|| Error::refused(format!("there is no lab {name}"), remedy()))?;
        if state.phase != Phase::Up {
            return Err(Error::refused(
                format!("lab {name} is not complete"),
                format!("wait for it, or run `dirigent lab down --name {name}` and build it again"),
            ));
        }
        Ok(Lab { state })
    }

    /// Ends the lab's processes, removes its namespaces and its record. Doing it twice, or to a lab half-built, is fine.
    pub fn down(name: &str) -> Result<DownReport> {
        let Some(state) = State::load(name)? else { return Ok(DownReport::default()) };
        let inodes: Vec<u64> =
            state.hosts.iter().filter_map(|h| Namespace::open(&h.namespace).ok()?.inode().ok()).collect();
        let ended = process::end_all(&state.processes, &inodes)?;
        let left = process::others(&inodes)?;
        for host in &state.hosts {
            Namespace::delete(&host.namespace)?;
        }
        State::remove(name)?;
        Ok(DownReport { existed: true, ended, left })
    }

    /// How a lab is doing; `None` when there is none of that name.
    pub fn status(name: &str) -> Result<Option<LabStatus>> {
        State::load(name)?.map(|state| LabStatus::of(&state)).transpose()
    }

    /// The names of all labs, also those half-built.
    pub fn list() -> Result<Vec<String>> {
        State::names()
    }

    /// Removes the labs of tests whose process is dead. Returns their names.
    pub fn clean_stale() -> Result<Vec<String>> {
        let mut cleaned = Vec::new();
        for name in State::names()? {
            let stale = match State::load(&name) {
                Ok(state) => state.is_some_and(|state| state.owned && !state.builder.is_alive()),
                // Of another version, perhaps: not ours to judge, and no reason to stop.
                Err(error) => {
                    tracing::warn!(lab = name, %error, "left alone");
                    false
                }
            };
            if stale {
                Self::down(&name)?;
                cleaned.push(name);
            }
        }
        Ok(cleaned)
    }

    /// Runs a command on a host in the foreground, with the caller's input and output, and waits for its end.
    pub fn exec(name: &str, host: &str, argv: &[String]) -> Result<ExitStatus> {
        let lab = Self::open(name)?;
        let mut child = lab.namespace(host)?.spawn(&mut command(argv)?)?;
        lab.record(host, "exec", &child, argv.to_vec(), None)?;
        let status = child.wait().context(|| format!("waiting for {}", argv.join(" ")))?;
        let pid = child.id() as i32;
        State::update(name, |state| state.processes.retain(|record| record.identity.pid != pid))?;
        Ok(status)
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.state.spec.name
    }

    /// What the lab was built from.
    pub fn spec(&self) -> &LabSpec {
        &self.state.spec
    }

    /// The hosts' names: `client`, `router`, `director`, `switch`, `server1`, …
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.state.hosts.iter().map(|record| record.host.as_str())
    }

    /// The namespace of a host.
    pub fn namespace(&self, host: &str) -> Result<Namespace> {
        Namespace::open(&self.state.namespace(host)?)
    }

    /// Runs a closure on a thread inside a host's namespace.
    pub fn run<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace(host)?.run(work)
    }

    /// Runs a command on a host, waits for its end and returns its output.
    pub fn output(&self, host: &str, argv: &[&str]) -> Result<Output> {
        self.output_with_input(host, argv, "")
    }

    /// The same with something on its standard input.
    pub fn output_with_input(&self, host: &str, argv: &[&str], input: &str) -> Result<Output> {
        let argv: Vec<String> = argv.iter().map(|arg| arg.to_string()).collect();
        let mut command = command(&argv)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.namespace(host)?.spawn(&mut command)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input closes it early; its exit status tells the rest.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().context(|| format!("waiting for {} on {host}", argv.join(" ")))
    }

    /// Starts a command in the background of a host; its output goes to a log file named after `label`. [`Lab::down`] ends
    /// it and what it started.
    pub fn start(&self, host: &str, label: &str, argv: &[&str]) -> Result<Background> {
        let argv: Vec<String> = argv.iter().map(|arg| arg.to_string()).collect();
        self.start_command(host, label, &mut command(&argv)?)
    }

    /// The same for a command with an environment or directory of its own. Its standard streams are replaced.
    pub fn start_command(&self, host: &str, label: &str, command: &mut Command) -> Result<Background> {
        let directory = state::log_directory(self.name());
        fs::create_dir_all(&directory).context(|| format!("creating {}", directory.display()))?;
        let log = directory.join(format!("{host}-{label}.log"));
        let place = || format!("opening {}", log.display());
        let output = File::options().create(true).append(true).open(&log).context(place)?;
        let errors = output.try_clone().context(place)?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let child = self.namespace(host)?.spawn(command)?;
        let arguments = std::iter::once(command.get_program()).chain(command.get_args());
        let argv = arguments.map(|arg| arg.to_string_lossy().into_owned()).collect();
        self.record(host, label, &child, argv, Some(log.clone()))?;
        Ok(Background { child, log })
    }

    fn record(&self, host: &str, label: &str, child: &Child, command: Vec<String>, log: Option<PathBuf>) -> Result<()> {
        // Gone already: nothing to record.
        let Some(identity) = Identity::of(child.id() as i32) else { return Ok(()) };
        let record = ProcessRecord { host: host.to_string(), label: label.to_string(), identity, command, log };
        State::update(self.name(), |state| {
            state.processes.retain(|old| old.identity.is_alive());
            state.processes.push(record);
        })
    }

    /// Ends the processes that were started on a host under a label, by SIGTERM and after a while by SIGKILL, and what they
    /// started. Returns how many that were; any process may call it, not only the one that started them.
    pub fn end(&self, host: &str, label: &str) -> Result<usize> {
        let inode = self.namespace(host)?.inode()?;
        let Some(state) = State::load(self.name())? else { return Ok(0) };
        let named = |record: &ProcessRecord| record.host == host && record.label == label;
        let records: Vec<_> = state.processes.into_iter().filter(named).collect();
        let ended = process::end_all(&records, &[inode])?;
        State::update(self.name(), |state| state.processes.retain(|record| !named(record)))?;
        Ok(ended)
    }

    /// Sets an interface of a host down, or up again with the addresses and routes that the kernel took away meanwhile
    /// (routes changed since the lab was built become what they were).
    pub fn set_link(&self, host: &str, interface: &str, up: bool) -> Result<()> {
        self.run(host, || build::set_link(self.spec(), host, interface, up))?
    }

    /// Lets server `k` answer around the director (its default route becomes the router), or through it again.
    pub fn set_server_route_around_director(&self, k: u8, around: bool) -> Result<()> {
        let gateway = if around { spec::ROUTER_INSIDE } else { spec::DIRECTOR_INSIDE };
        self.run(&format!("server{k}"), || {
            let mut netlink = Netlink::route()?;
            gateway.both().into_iter().try_for_each(|(ip, _)| netlink.replace_route(&RouteSpec::default_via(ip)))
        })?
    }

    /// Lets the router's firewall drop what belongs to no connection it knows (`ct state invalid drop`, counted), or
    /// removes that rule.
    pub fn drop_invalid_on_router(&self, on: bool) -> Result<()> {
        let table = "inet dirigent_lab";
        let rules = if on {
            format!(
                "table {table} {{\n  counter invalid {{ }}\n  chain forward {{\n    \
                 type filter hook forward priority 0; policy accept;\n    \
                 ct state invalid counter name invalid drop\n  }}\n}}\n"
            )
        } else {
            String::new()
        };
        // Adding before deleting makes deleting work whether it was there or not.
        let text = format!("add table {table}\ndelete table {table}\n{rules}");
        let output = self.output_with_input("router", &["nft", "-f", "-"], &text)?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::refused(
            format!("nft on the router: {}", String::from_utf8_lossy(&output.stderr).trim()),
            "the kernel needs nf_tables and connection tracking",
        ))
    }

    /// How many packets the router's firewall has dropped as invalid since [`Lab::drop_invalid_on_router`].
    pub fn invalid_drops_on_router(&self) -> Result<u64> {
        let output = self.output("router", &["nft", "list", "counter", "inet", "dirigent_lab", "invalid"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut words = text.split_ascii_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|number| number.parse().ok()).ok_or_else(|| {
            Error::refused("the router counts no invalid packets", "call drop_invalid_on_router(true) first")
        })
    }
}

fn command(argv: &[String]) -> Result<Command> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Error::refused("no command was given", "name one after the host: `lab exec HOST -- CMD`"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}
