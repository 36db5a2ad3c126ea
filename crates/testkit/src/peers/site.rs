//! A lab of one contestant: client, router, director, servers; the same for all but for what runs on the director.

use super::contestant::{self, BULK, Contestant, LIMIT, Program, Setting, WEB};
use super::{CLIENT_CPU, SERVER_CPU};
use crate::command::succeeds;
use crate::cpu::{self, Account};
use dirigent_net::Namespace;
use dirigent_net::ethtool::{Offloads, set_offloads};
use dirigent_net::lab::{DIRECTORY, Lab, Mode as Method};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Labs are called so, then comes the number of the process that made them.
const PREFIX: &str = "peers";
/// How long a contestant may take until its service answers, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Debian's file of nginx's stream module.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A contestant's lab, until dropped.
pub struct Site {
    /// Who runs in it.
    pub contestant: Contestant,
    /// How its links are.
    pub setting: Setting,
    dirigent: PathBuf,
    lab: Lab,
    account: Account,
}

impl Site {
    /// Builds it, and waits until the service answers.
    pub fn up(dirigent: &Path, contestant: Contestant, setting: Setting) -> Result<Self, String> {
        let name = format!("{PREFIX}{}-{}-{}", std::process::id(), setting.name(), contestant.name.replace(' ', "-"));
        let method = match contestant.method() {
            Method::Dr => "dr",
            Method::Tun => "tun",
            _ => "nat",
        };
        let mut command = Command::new(dirigent);
        command.args(["lab", "up", "--no-daemon", "--name", &name, "--mode", method]);
        command.args(["--servers", &contestant::SERVERS.to_string()]);
        match setting {
            // For all alike, so that all have the same links: native XDP wants a program at their other ends.
            Setting::Frames => command.args(["--no-offloads", "--path", "xdp"]),
            Setting::Offloads => command.args(["--path", "tc"]),
        };
        succeeds(&mut command)?;
        let lab = Lab::open(&name).map_err(|e| e.to_string())?;
        let mut site = Self { contestant, setting, dirigent: dirigent.to_owned(), lab, account: Account::of([]) };
        site.furnish()?;
        Ok(site)
    }

    fn furnish(&mut self) -> Result<(), String> {
        let cpus = |cpu: usize| cpu.to_string();
        let iperf3 = ["taskset", "-c", &cpus(SERVER_CPU), "iperf3", "-s", "-p", &BULK.to_string()];
        self.start("server1", "iperf3", &iperf3)?;
        self.on("client", "sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1")?;
        // Before the director's programs, which may use both.
        for process in self.processes()?.iter().filter(|(host, _)| host.starts_with("server")) {
            cpu::pin(process.1, &[SERVER_CPU])?;
        }
        self.furnish_director()?;
        self.wait()?;
        if self.setting == Setting::Frames {
            // XDP programs have switched GRO on again.
            for host in self.lab.hosts().map(str::to_owned).collect::<Vec<_>>() {
                let off = || {
                    let links = dirigent_net::Netlink::route()?.links()?;
                    let veths = links.iter().filter(|link| link.kind.as_deref() == Some("veth"));
                    veths.map(|link| &link.name).try_for_each(|name| set_offloads(name, Offloads::OFF))
                };
                self.lab.run(&host, off).and_then(|off| off).map_err(|e| format!("{host}: {e}"))?;
            }
        }
        self.account = Account::of(self.processes()?.into_iter().map(|(_, pid)| pid));
        Ok(())
    }

    fn furnish_director(&self) -> Result<(), String> {
        let vip = contestant::vip();
        let both = format!("{CLIENT_CPU},{SERVER_CPU}");
        let hold = || {
            let ports = "sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1";
            self.on("director", &format!("ip address add {vip}/32 dev lo; {ports}"))
        };
        match self.contestant.program {
            Program::Routing => {
                self.on("director", &format!("ip route add {vip}/32 via {}", contestant::server(1)))?;
                self.on("server1", &format!("ip address add {vip}/32 dev lo"))
            }
            Program::Dirigent(path, method) => {
                let file = self.write("dirigent.toml", &contestant::dirigent(path, method))?;
                let (program, name) = (self.dirigent.to_string_lossy(), self.lab.name());
                let run = ["taskset", "-c", &both, &program, "run", "--config", &file, "--instance", name];
                // The label that `dirigent lab down` ends first.
                self.start("director", "daemon", &run)
            }
            Program::Nftables => {
                let output = self.lab.output_with_input("director", &["nft", "-f", "-"], &contestant::nftables());
                let output = output.map_err(|e| e.to_string())?;
                match output.status.success() {
                    true => Ok(()),
                    false => Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr))),
                }
            }
            Program::Haproxy => {
                hold()?;
                let file = self.write("haproxy.cfg", &contestant::haproxy())?;
                self.start("director", "haproxy", &["taskset", "-c", &both, "haproxy", "-db", "-f", &file])
            }
            Program::Nginx => {
                hold()?;
                let pid = self.path("director-nginx.pid");
                let file = self.write("nginx.conf", &contestant::nginx(STREAM_MODULE, &pid.to_string_lossy()))?;
                self.start("director", "nginx", &["taskset", "-c", &both, "nginx", "-e", "stderr", "-c", &file])
            }
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        Path::new(DIRECTORY).join(self.lab.name()).join(format!("peers-{file}"))
    }

    fn write(&self, file: &str, text: &str) -> Result<String, String> {
        let path = self.path(file);
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn start(&self, host: &str, label: &str, argv: &[&str]) -> Result<(), String> {
        self.lab.start(host, label, argv).map(drop).map_err(|e| e.to_string())
    }

    fn on(&self, host: &str, script: &str) -> Result<(), String> {
        self.output(host, &["sh", "-ec", script]).map(drop)
    }

    /// What a command prints on a host.
    pub fn output(&self, host: &str, argv: &[&str]) -> Result<String, String> {
        let output = self.lab.output(host, argv).map_err(|e| e.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            // iperf3 says on its output what went wrong.
            false => Err(format!("{}: {}{}", argv.join(" "), text(&output.stderr).trim(), text(&output.stdout).trim())),
        }
    }

    fn processes(&self) -> Result<Vec<(String, i32)>, String> {
        let status = Lab::status(self.lab.name()).map_err(|e| e.to_string())?;
        let processes = status.into_iter().flat_map(|status| status.processes);
        Ok(processes.filter(|p| p.running).map(|p| (p.host, p.identity.pid)).collect())
    }

    /// Until a client reaches each service of TCP.
    fn wait(&self) -> Result<(), String> {
        let begun = Instant::now();
        for port in [WEB, BULK] {
            let to = SocketAddr::from((contestant::vip(), port));
            let connects = || TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok();
            while !self.lab.run("client", connects).map_err(|e| e.to_string())? {
                if begun.elapsed() > PATIENCE {
                    return Err(format!(
                        "{}, {}: nothing at {to}{}",
                        self.contestant.name,
                        self.setting.name(),
                        self.logs()
                    ));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    fn logs(&self) -> String {
        let status = Lab::status(self.lab.name()).ok().flatten();
        let processes = status.iter().flat_map(|status| &status.processes).filter(|p| p.host == "director");
        let logs = processes.filter_map(|p| fs::read_to_string(p.log.as_ref()?).ok());
        logs.map(|log| format!("\n{}", log.trim_end())).collect()
    }

    /// The namespace of a host.
    pub fn namespace(&self, host: &str) -> Result<Namespace, String> {
        self.lab.namespace(host).map_err(|e| e.to_string())
    }

    /// What its programs, and what is started for a measurement, take of the CPUs.
    pub fn cpu(&self) -> Duration {
        self.account.taken()
    }

    /// Whether it is the one that the others are measured by.
    pub fn is_limit(&self) -> bool {
        self.contestant == LIMIT
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(error) = down(&self.dirigent, self.lab.name()) {
            eprintln!("peers: {error}");
        }
    }
}

fn down(dirigent: &Path, lab: &str) -> Result<(), String> {
    succeeds(Command::new(dirigent).args(["lab", "down", "--name", lab]))
}

/// Takes away the labs of those who were killed.
pub fn clean_stale(dirigent: &Path) -> Result<(), String> {
    for name in Lab::list().map_err(|e| e.to_string())? {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            down(dirigent, &name)?;
        }
    }
    Ok(())
}
