//! `dirigent lab`: a network of namespaces with real servers and the daemon in it.

mod capture;
mod compare;
mod files;
mod packet;
mod traffic;
mod walk;

use crate::ask::Target;
use crate::cli::{LabCommand, LabMode, LabUp};
use crate::client;
use crate::failure::{Failure, Result};
use crate::print;
use crate::realserver;
use dirigent_api::{Status, path};
use dirigent_datapath::kernel::{self, Instance};
use dirigent_net::Namespace;
use dirigent_net::lab::{Lab, LabSpec, Mode, spec};
use hyper::Method;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the daemon and the servers of a lab may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// Labels of the lab's processes.
const DAEMON: &str = "daemon";

/// Carries a command out.
pub async fn run(command: LabCommand) -> Result<ExitCode> {
    match command {
        LabCommand::Up(up) => build(up).await?,
        LabCommand::Down(lab) => down(&lab.name)?,
        LabCommand::Status { lab, print } => status(&lab.name, print.json)?,
        LabCommand::Exec { lab, host, command } => return exec(&lab.name, &host, &command),
        LabCommand::Walk { lab, family, around, print } => {
            let lab = Lab::open(&lab.name)?;
            let family = family.map_or(lab.spec().family, Into::into);
            walk::run(&lab, family, around, print.json)?;
        }
        LabCommand::Compare { labs, family } => {
            let labs: Vec<_> = labs.iter().map(|name| Lab::open(name)).collect::<Result<_, _>>()?;
            compare::run(&labs, family.into())?;
        }
        LabCommand::Traffic(lab) => traffic::run(&Lab::open(&lab.name)?).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The socket of a lab's daemon.
fn socket(name: &str) -> PathBuf {
    Target::new(Some(name.to_owned()), None).socket
}

async fn build(up: LabUp) -> Result<()> {
    need_root()?;
    let spec = wanted(&up);
    let instance = Instance::new(&spec.name)?;
    let foreign = Lab::status(&spec.name)?.is_none() && instance.exists();
    if foreign {
        let remedy =
            format!("choose another --name, or remove it with `dirigent --instance {} stop --detach`", spec.name);
        return Err(Failure::new("", format!("there is a director {}, which is no lab's", spec.name), remedy));
    }
    let tunnel = files::Tunnel { kind: &up.tunnel, family: up.tunnel_family.map(Into::into) };
    let config = files::config(&spec, up.config.as_deref(), up.path, tunnel)?;
    let lab = Lab::up(&spec)?;
    let furnished = furnish(&lab, &up, &config).await;
    if let Err(failure) = furnished {
        // What went wrong matters more than a failed clean-up after it.
        if let Err(second) = down(&spec.name) {
            tracing::warn!("{second}");
        }
        return Err(failure);
    }
    print!("{}", Lab::status(lab.name())?.map(|status| status.to_string()).unwrap_or_default());
    let name = lab.name();
    println!("try:  dirigent lab exec --name {name} client -- curl http://{}/", files::host(spec.vip()));
    println!("      dirigent --instance {name} service list");
    if config.mode == dirigent_config::Mode::Xdp && spec.offloads {
        eprintln!(
            "with native XDP on virtual links clients get no answer while offloads leave checksums open: add --no-offloads"
        );
    }
    Ok(())
}

fn wanted(up: &LabUp) -> LabSpec {
    let mode = match up.mode {
        LabMode::Nat => Mode::Nat,
        LabMode::Dr => Mode::Dr,
        LabMode::Tun => Mode::Tun,
    };
    LabSpec {
        name: up.lab.name.clone(),
        mode,
        family: up.family.into(),
        servers: up.servers,
        one_arm: up.one_arm,
        offloads: !up.no_offloads,
        // The configuration has the daemon hold it.
        hold_vip: false,
        ..LabSpec::default()
    }
}

/// Servers first, so that they are ready when the daemon forwards.
async fn furnish(lab: &Lab, up: &LabUp, config: &files::Config) -> Result<()> {
    let file = files::write(lab.name(), "dirigent.toml", &config.text)?;
    for k in 1..=lab.spec().servers {
        let host = format!("server{k}");
        let nginx = files::nginx(lab.name(), &host)?;
        lab.start(&host, "http", &["nginx", "-e", "stderr", "-c", &nginx])?;
        if lab.spec().mode == Mode::Nat {
            lab.start(&host, "echo", &["socat", "-T5", "UDP6-LISTEN:7,fork,ipv6only=0", "PIPE"])?;
            continue;
        }
        set_up_server(lab, &host, &up.tunnel)?;
        // Bound to the virtual addresses, which are those that it answers from.
        for (vip, _) in spec::VIP.both() {
            let (label, kind) = if vip.is_ipv4() { ("echo", "UDP4") } else { ("echo6", "UDP6") };
            let address = format!("{kind}-LISTEN:7,fork,reuseaddr,bind={}", files::host(vip));
            lab.start(&host, label, &["socat", "-T5", &address, "PIPE"])?;
        }
    }
    for k in 1..=lab.spec().servers {
        let host = format!("server{k}");
        wait_for(lab, &host, "http", "its port 8080", || {
            lab.run(&host, || std::net::TcpStream::connect(("127.0.0.1", 8080)).is_ok()).unwrap_or(false)
        })?;
    }
    if config.mode == dirigent_config::Mode::Xdp {
        pass_at_the_other_ends(lab)?;
    }
    if !up.no_daemon {
        start_daemon(lab, &file).await?;
    }
    Ok(())
}

/// The file that says what was changed on a server.
fn record(lab: &str, host: &str) -> PathBuf {
    Path::new(dirigent_net::lab::DIRECTORY).join(lab).join(format!("{host}-realserver.json"))
}

/// Makes a server one of direct routing or tunnelling, by the command that a user has.
fn set_up_server(lab: &Lab, host: &str, tunnel: &str) -> Result<()> {
    let exe = std::env::current_exe().map_err(|e| Failure::io("finding this program", &e))?;
    let (exe, record) = (exe.to_string_lossy().into_owned(), record(lab.name(), host).to_string_lossy().into_owned());
    let vips = spec::VIP.both().map(|(vip, _)| vip.to_string());
    let mode = if lab.spec().mode == Mode::Dr { "dr" } else { "tun" };
    let mut argv = vec![exe.as_str(), "realserver", "setup", "--mode", mode, "--yes", "--state", &record];
    vips.iter().for_each(|vip| argv.extend(["--vip", vip.as_str()]));
    if mode == "tun" {
        argv.extend(["--tunnel", tunnel]);
    }
    let output = lab.output(host, &argv)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Failure::new(host, String::from_utf8_lossy(&output.stderr).trim_end(), "")),
    }
}

/// veth takes XDP frames from its peer only if it has an XDP program itself.
fn pass_at_the_other_ends(lab: &Lab) -> Result<()> {
    let pin = Path::new("/sys/fs/bpf").join(format!("dirigent-{}-pass", lab.name()));
    kernel::pin_pass(&pin)?;
    let path = pin.to_string_lossy();
    let ends: &[(&str, &str)] =
        if lab.spec().one_arm { &[("switch", "director")] } else { &[("router", "outside0"), ("switch", "director")] };
    let attached = ends.iter().try_for_each(|(host, device)| {
        lab.output(host, &["ip", "link", "set", "dev", device, "xdpdrv", "pinned", &path]).map(|_| ())
    });
    // The devices hold the program from here on.
    std::fs::remove_file(&pin).map_err(|e| Failure::io(pin.display().to_string(), &e))?;
    Ok(attached?)
}

/// Starts the daemon on the director and waits until it forwards.
async fn start_daemon(lab: &Lab, config: &str) -> Result<()> {
    let exe = std::env::current_exe().map_err(|e| Failure::io("finding this program", &e))?;
    let exe = exe.to_string_lossy().into_owned();
    let socket = socket(lab.name()).to_string_lossy().into_owned();
    let argv = [exe.as_str(), "run", "--config", config, "--instance", lab.name(), "--socket", &socket];
    let mut daemon = lab.start("director", DAEMON, &argv)?;
    let start = Instant::now();
    loop {
        if let Ok(Some(_)) = client::call::<Status>(Path::new(&socket), Method::GET, path::STATUS).await {
            return Ok(());
        }
        let ended = daemon.child.try_wait().map_err(|e| Failure::io("waiting for the daemon", &e))?;
        if ended.is_some() || start.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(&daemon.log).unwrap_or_default();
            let what = if ended.is_some() { "the daemon ended" } else { "the daemon is not ready" };
            return Err(Failure::new("director", format!("{what}; its log:\n{}", log.trim_end()), ""));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a process of the lab does its work.
fn wait_for(lab: &Lab, host: &str, label: &str, what: &str, ready: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() > PATIENCE {
            let log = Path::new(dirigent_net::lab::DIRECTORY).join(lab.name()).join(format!("{host}-{label}.log"));
            let log = std::fs::read_to_string(log).unwrap_or_default();
            return Err(Failure::new(host, format!("{label} does not open {what}; its log:\n{}", log.trim_end()), ""));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The daemon ends first, then its pins go while their interfaces are still there, then the rest: the record of the lab
/// goes last, so that a `down` that is interrupted can be repeated.
fn down(name: &str) -> Result<()> {
    need_root()?;
    let Some(status) = Lab::status(name)? else {
        println!("there is no lab {name}");
        return Ok(());
    };
    for process in status.processes.iter().filter(|p| p.label == DAEMON) {
        if let Ok(lab) = Lab::open(name) {
            lab.end(&process.host, DAEMON)?;
        }
    }
    let instance = Instance::new(name)?;
    if instance.directory().exists() {
        let director = status.hosts.iter().find(|host| host.host == "director" && host.present);
        let detached = match director.and_then(|host| Namespace::open(&host.namespace).ok()) {
            Some(namespace) => namespace.run(|| kernel::detach_all(&instance))?,
            None => kernel::detach_all(&instance),
        };
        detached?;
    }
    for host in status.hosts.iter().filter(|host| host.host.starts_with("server")) {
        let namespace = Namespace::open(&host.namespace).ok().filter(|_| host.present);
        realserver::forget(&record(name, &host.host), namespace.as_ref())?;
    }
    let report = Lab::down(name)?;
    for file in [socket(name), crate::daemon::lock_path(name), crate::daemon::vip::file(name)] {
        if let Err(e) = std::fs::remove_file(&file)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Failure::io(file.display().to_string(), &e));
        }
    }
    crate::daemon::forget(name)?;
    println!("lab {name} is gone ({} processes ended)", report.ended);
    for (pid, program) in report.left {
        eprintln!("warning: process {pid} ({program}) still runs in what was the lab's network");
    }
    Ok(())
}

fn status(name: &str, json: bool) -> Result<()> {
    let Some(status) = Lab::status(name)? else {
        let labs = Lab::list()?;
        let remedy = match labs.is_empty() {
            true => format!("build it with `dirigent lab up --name {name}`"),
            false => format!("there are: {}", labs.join(" ")),
        };
        return Err(Failure::new("", format!("there is no lab {name}"), remedy));
    };
    if json { print::json(&status) } else { print::text(&status.to_string()) }
}

/// Runs the command where it finds this very program, and the lab and its director by default. Its exit code is ours.
fn exec(name: &str, host: &str, command: &[String]) -> Result<ExitCode> {
    need_root()?;
    let own =
        std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.display().to_string())).unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut argv = vec!["env".to_owned(), format!("PATH={own}:{path}")];
    argv.extend(["DIRIGENT_INSTANCE", "DIRIGENT_LAB"].map(|variable| format!("{variable}={name}")));
    argv.extend_from_slice(command);
    let status = Lab::exec(name, host, &argv)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

fn need_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let failure = Failure::new("", "a lab needs root: it makes network namespaces", "run it as root");
    Err(Failure { code: crate::failure::code::KERNEL, ..failure })
}
