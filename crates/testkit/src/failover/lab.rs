//! Two directors and two hosts of keepalived on one link, with clients and servers, each in a network namespace.
//!
//! ```text
//!   c client, p prober ─┐              ┌─ d servers of NAT
//!   e1, e2 servers ─────┤ front   back │
//!   k1, k2 keepalived ──┘  ├── a, b ───┘  directors
//! ```

use crate::hosts;
use dirigent_net::netns::Namespace;
use dirigent_net::{Mac, Netlink, RouteSpec, VethEnd};
use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Names begin so, and the number of the process that made them follows.
const PREFIX: &str = "bf";
/// Below a bridge: host, and the last byte of its MAC and addresses.
const FRONT: [(&str, u8); 8] = [("a", 1), ("b", 2), ("k1", 3), ("k2", 4), ("e1", 5), ("e2", 6), ("p", 8), ("c", 9)];
const BACK: [(&str, u8); 3] = [("a", 1), ("b", 2), ("d", 3)];
/// All, with the switch.
const HOSTS: [&str; 10] = ["a", "b", "k1", "k2", "e1", "e2", "p", "c", "d", "s"];
/// What virtual addresses may take to be where they belong.
const PATIENCE: Duration = Duration::from_secs(120);

/// The directors' virtual addresses.
pub const VIPS: [&str; 2] = ["10.9.0.100", "fd09::100"];
/// keepalived's.
pub const PLAIN: [&str; 2] = ["10.9.0.200", "fd09::200"];
/// Where the servers of NAT send what is not theirs.
const GATEWAYS: [&str; 2] = ["10.10.0.254", "fd10::254"];
/// The ports of services by method.
pub const METHODS: [(&str, u16); 3] = [("nat", 8001), ("dr", 8002), ("tun", 8003)];
/// The port of the programs on keepalived's hosts.
pub const PORT: u16 = 8000;

/// Two hosts, one master and one backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What runs there.
    pub who: Who,
    /// The one of higher priority.
    pub master: &'static str,
    /// The other one.
    pub backup: &'static str,
    /// Their virtual addresses, of IPv4 and IPv6.
    pub vips: [&'static str; 2],
}

/// What moves the addresses of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Dirigent.
    Dirigent,
    /// keepalived.
    Keepalived,
}

impl Who {
    /// For the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dirigent => "dirigent",
            Self::Keepalived => "keepalived",
        }
    }
}

/// Both pairs.
pub const PAIRS: [Pair; 2] = [
    Pair { who: Who::Dirigent, master: "a", backup: "b", vips: VIPS },
    Pair { who: Who::Keepalived, master: "k1", backup: "k2", vips: PLAIN },
];

/// How the lab is made.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The program.
    pub dirigent: PathBuf,
    /// From one advert to the next, whole centiseconds.
    pub interval: Duration,
    /// Connections are made known to the other director, if it can do that.
    pub sync: bool,
}

/// The lab, until dropped.
pub struct Lab {
    name: String,
    directory: PathBuf,
    wanted: Wanted,
    /// Whether directors tell each other of connections.
    pub sync: bool,
    children: Vec<(&'static str, Child)>,
}

impl Lab {
    /// Makes it; nobody has the virtual addresses yet.
    pub fn up(wanted: Wanted) -> Self {
        clean_stale();
        let name = format!("{PREFIX}{}", std::process::id());
        let directory = PathBuf::from(format!("/run/dirigent-bench-{name}"));
        fs::create_dir_all(&directory).expect("a directory in /run");
        let mut lab = Self { name, directory, wanted, sync: false, children: Vec::new() };
        lab.wire();
        lab.sync = lab.wanted.sync && lab.can_sync();
        lab
    }

    fn wire(&self) {
        let switch = Namespace::create(&self.namespace("s")).expect("a namespace");
        for host in HOSTS.iter().filter(|host| **host != "s") {
            Namespace::create(&self.namespace(host)).expect("a namespace");
            self.sh(
                host,
                "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
                 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            );
        }
        for (bridge, hosts, device, v4, v6) in
            [("front", &FRONT[..], "eth0", "10.9.0", "fd09"), ("back", &BACK[..], "eth1", "10.10.0", "fd10")]
        {
            let number = u8::from(bridge == "back");
            switch
                .run(|| {
                    let mut netlink = Netlink::route().expect("netlink");
                    netlink.add_bridge(bridge, [2, 0, 0, 9, number, 0], 1500).expect("a bridge");
                    netlink.set_up(bridge, true).expect("a bridge");
                })
                .expect("a namespace");
            for (host, last) in hosts {
                let namespace = Namespace::open(&self.namespace(host)).expect("a namespace");
                let (file, port) = (namespace.file().expect("a namespace"), format!("{host}-{device}"));
                switch
                    .run(|| {
                        let mut netlink = Netlink::route().expect("netlink");
                        let inner = VethEnd {
                            name: device,
                            mac: Some([2, 0, 0, 9, number, *last]),
                            mtu: None,
                            namespace: Some(file.as_fd()),
                        };
                        let outer = VethEnd { name: &port, mac: None, mtu: None, namespace: None };
                        netlink.add_veth(&outer, &inner).expect("a veth pair");
                        netlink.set_master(&port, bridge).expect("a bridge port");
                        netlink.set_up(&port, true).expect("a link");
                    })
                    .expect("a namespace");
                namespace
                    .run(|| {
                        let mut netlink = Netlink::route().expect("netlink");
                        netlink.set_up("lo", true).expect("a link");
                        netlink.set_up(device, true).expect("a link");
                        let mut add = |address: String, length| {
                            netlink
                                .add_address(device, address.parse().expect("an address"), length)
                                .expect("an address")
                        };
                        add(format!("{v4}.{last}"), 24);
                        add(format!("{v6}::{last}"), 64);
                        if *host == "d" {
                            // Two servers, who are one host: each connection is known at its own address only.
                            add(format!("{v4}.4"), 24);
                            add(format!("{v6}::4"), 64);
                            for gateway in GATEWAYS {
                                let gateway = gateway.parse().expect("an address");
                                netlink.add_route(&RouteSpec::default_via(gateway)).expect("a route");
                            }
                        }
                    })
                    .expect("a namespace");
            }
        }
        for host in ["e1", "e2"] {
            let (program, state) = (self.wanted.dirigent.display(), self.directory.join(host));
            let [v4, v6] = VIPS;
            self.sh(
                host,
                &format!(
                    "{program} realserver setup --mode tun --tunnel ipip --vip {v4} --vip {v6} --interface eth0 --yes --state {}",
                    state.display()
                ),
            );
        }
    }

    /// Whether the program makes connections known to another director.
    fn can_sync(&self) -> bool {
        let file = self.directory.join("probe.toml");
        fs::write(&file, "version = 1\n[sync]\ninterface = \"eth1\"\n").expect("a file");
        let said =
            Command::new(&self.wanted.dirigent).args(["check", "--config"]).arg(file).output().expect("dirigent");
        said.status.success() && !String::from_utf8_lossy(&said.stderr).contains("does not do it yet")
    }

    /// The name of a host's namespace.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// A host's MAC on the front link.
    pub fn mac(host: &str) -> Mac {
        let last = FRONT.iter().find(|(name, _)| *name == host).expect("a host on the front link").1;
        [2, 0, 0, 9, 0, last]
    }

    /// Runs a command on a host, and has what it prints.
    pub fn sh(&self, host: &str, script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = Namespace::open(&self.namespace(host)).and_then(|n| n.spawn(&mut command)).expect("a shell");
        let output = child.wait_with_output().expect("a shell");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script} on {host}: {error}{}", self.logs());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What everyone said.
    pub fn logs(&self) -> String {
        let log = |pair: &Pair, host: &str| {
            let text = fs::read_to_string(self.directory.join(format!("{host}.log"))).unwrap_or_default();
            format!("\n--- {host}, {}\n{text}", pair.who.name())
        };
        PAIRS.iter().flat_map(|pair| [log(pair, pair.master), log(pair, pair.backup)]).collect()
    }

    /// Starts pairs, and waits until their masters have the addresses.
    pub fn start_pairs(&mut self, pairs: &[Pair]) {
        pairs.iter().flat_map(|pair| [pair.master, pair.backup]).for_each(|host| self.start(host));
        pairs.iter().for_each(|pair| self.settle(*pair));
    }

    /// Ends what the hosts of a pair run.
    pub fn end(&mut self, pair: Pair) {
        for host in [pair.master, pair.backup] {
            self.signal(host, "-TERM");
        }
    }

    /// Starts what a host of a pair runs.
    pub fn start(&mut self, host: &'static str) {
        let pair = PAIRS.iter().find(|p| [p.master, p.backup].contains(&host)).expect("a host of a pair");
        let priority = if pair.master == host { 200 } else { 100 };
        let file = self.directory.join(format!("{host}.conf"));
        let mut command = match pair.who {
            Who::Dirigent => {
                fs::write(&file, self.director(priority)).expect("a file");
                let mut command = Command::new(&self.wanted.dirigent);
                command.args(["run", "--instance", &self.instance(host), "--config"]).arg(file);
                command
            }
            Who::Keepalived => {
                fs::write(&file, self.keepalived(priority)).expect("a file");
                let pid = |kind: &str| self.directory.join(format!("{host}.{kind}.pid"));
                let mut command = Command::new("keepalived");
                command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"]).arg(file);
                command.arg("--pid").arg(pid("main")).arg("--vrrp_pid").arg(pid("vrrp"));
                command
            }
        };
        let log = fs::File::options().create(true).append(true).open(self.directory.join(format!("{host}.log")));
        let log = log.expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let child = Namespace::open(&self.namespace(host)).and_then(|n| n.spawn(&mut command)).expect("a program");
        self.children.push((host, child));
    }

    fn instance(&self, host: &str) -> String {
        format!("{}{host}", self.name)
    }

    fn director(&self, priority: u8) -> String {
        let ms = self.wanted.interval.as_millis();
        let mut text = "version = 1\n[director]\nconnections = 65536\n[[router_group]]\nname = \"both\"\nmembers = [\"v4\", \"v6\"]\n".to_owned();
        for (n, (name, length)) in [("v4", 24), ("v6", 64)].into_iter().enumerate() {
            text += &format!(
                "[[router]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = 51\npriority = {priority}\n\
                 interval = \"{ms}ms\"\naddresses = [\"{}/{length}\"]\n\
                 excluded = [{{ address = \"{}/{length}\", device = \"eth1\" }}]\n",
                VIPS[n], GATEWAYS[n]
            );
        }
        // Without synchronisation a connection goes on where its hash leads to, if it can.
        let scheduler = if self.sync { "scheduler = \"rr\"" } else { "scheduler = \"mh\"\nstateless = true" };
        if self.sync {
            text += "[sync]\ninterface = \"eth1\"\nrouter = \"v4\"\n";
        }
        for (method, port) in METHODS {
            for (vip, servers) in [
                (
                    VIPS[0].to_owned(),
                    if method == "nat" { ["10.10.0.3", "10.10.0.4"] } else { ["10.9.0.5", "10.9.0.6"] },
                ),
                (
                    format!("[{}]", VIPS[1]),
                    if method == "nat" { ["[fd10::3]", "[fd10::4]"] } else { ["[fd09::5]", "[fd09::6]"] },
                ),
            ] {
                text += &format!("[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:{port}\"\n{scheduler}\n");
                for server in servers {
                    text += &format!("[[service.server]]\naddress = \"{server}:{port}\"\nmethod = \"{method}\"\n");
                }
            }
        }
        text
    }

    fn keepalived(&self, priority: u8) -> String {
        let seconds = self.wanted.interval.as_secs_f64();
        // With the priority of a director's virtual routers; on a busy machine the kernel would end it after 10 ms of that.
        let instance = |name: &str, address: &str| {
            format!(
                "vrrp_instance {name} {{\n interface eth0\n state BACKUP\n version 3\n virtual_router_id 61\n \
                 priority {priority}\n advert_int {seconds}\n virtual_ipaddress {{\n {address}\n }}\n}}\n"
            )
        };
        format!(
            "global_defs {{\n router_id bench\n vrrp_rt_priority 1\n vrrp_rlimit_rttime 1000000\n}}\nvrrp_sync_group both {{\n group {{\n v4\n v6\n }}\n}}\n{}{}",
            instance("v4", &format!("{}/24", PLAIN[0])),
            instance("v6", &format!("{}/64", PLAIN[1]))
        )
    }

    fn holds(&self, host: &str, address: &str) -> bool {
        self.sh(host, "ip -o address show dev eth0").contains(&format!(" {address}/"))
    }

    /// Waits until the master has all addresses of a pair, and the backup none.
    pub fn settle(&self, pair: Pair) {
        assert!(self.settles(pair, PATIENCE), "{} is not master of {:?}{}", pair.master, pair.vips, self.logs());
    }

    /// Whether it comes to that.
    pub fn settles(&self, pair: Pair, patience: Duration) -> bool {
        let begun = Instant::now();
        // A daemon that was started speaks for its addresses before it answers its operators.
        let ready = |host: &str| pair.who == Who::Keepalived || self.says(host, &["status"]).is_ok();
        let settled = || {
            pair.vips.iter().all(|vip| self.holds(pair.master, vip) && !self.holds(pair.backup, vip))
                && [pair.master, pair.backup].into_iter().all(ready)
        };
        while !settled() {
            if begun.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// What the operator of a director says.
    pub fn dirigent(&self, host: &str, words: &[&str]) {
        if let Err(error) = self.says(host, words) {
            panic!("{words:?} on {host}: {error}{}", self.logs());
        }
    }

    fn says(&self, host: &str, words: &[&str]) -> Result<(), String> {
        let mut command = Command::new(&self.wanted.dirigent);
        let output = command.args(["--instance", &self.instance(host)]).args(words).output().expect("dirigent");
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// The host loses all its carriers, or has them again. When that is done.
    pub fn cut(&self, host: &str, cut: bool) -> Instant {
        self.on_ports(host, |netlink, port, _| netlink.set_up(port, !cut))
    }

    /// Nobody hears the host any more, which does not see that; or all do again.
    pub fn split(&self, host: &str, split: bool) {
        let script = |port: &str, bridge: &str| {
            format!(
                "ip link set dev {port} {}\n",
                if split { "nomaster".to_owned() } else { format!("master {bridge}") }
            )
        };
        let all: String = ports(host).iter().map(|(port, bridge)| script(port, bridge)).collect();
        self.sh("s", &all);
    }

    fn on_ports(
        &self,
        host: &str,
        mut each: impl FnMut(&mut Netlink, &str, &str) -> dirigent_net::Result<()> + Send,
    ) -> Instant {
        let work = || {
            let mut netlink = Netlink::route().expect("netlink");
            let begun = Instant::now();
            for (port, bridge) in ports(host) {
                each(&mut netlink, &port, bridge).expect("a link");
            }
            begun
        };
        Namespace::open(&self.namespace("s")).and_then(|n| n.run(work)).expect("a namespace")
    }

    /// So many of a hundred adverts that come to a host are lost; with 0 none any more.
    pub fn lose_adverts(&self, host: &str, percent: u8) {
        let rule = |of: &str| format!("{of} numgen random mod 100 < {percent} drop");
        let (v4, v6) = (rule("ip protocol 112"), rule("ip6 nexthdr 112"));
        let script = match percent {
            0 => "nft delete table netdev lossy".to_owned(),
            _ => format!(
                "nft 'table netdev lossy {{ chain in {{ type filter hook ingress device eth0 priority 0; {v4}; {v6}; }}; }}'"
            ),
        };
        self.sh(host, &script);
    }

    /// Sends a signal to all processes of a host's daemon, but not to a director's guard; with SIGKILL and SIGTERM waits for
    /// its end.
    pub fn signal(&mut self, host: &str, signal: &str) -> Instant {
        let at = self.children.iter().position(|(name, _)| *name == host).expect("a daemon");
        let pid = self.children[at].1.id();
        let mut pids = vec![pid.to_string()];
        let keepalived = PAIRS.iter().any(|p| p.who == Who::Keepalived && [p.master, p.backup].contains(&host));
        if keepalived && signal != "-TERM" {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            // The children first: their parent would start others.
            pids.push(children.trim().to_owned());
        }
        pids.retain(|pid| !pid.is_empty());
        let begun = Instant::now();
        let sent = Command::new("kill").arg(signal).args(&pids).status().expect("kill");
        assert!(sent.success(), "kill {signal} {pids:?}");
        if ["-9", "-TERM"].contains(&signal) {
            let _ = self.children.remove(at).1.wait();
        }
        begun
    }
}

/// A host's ports on the switch, and their bridges.
fn ports(host: &str) -> Vec<(String, &'static str)> {
    let on = |hosts: &[(&str, u8)]| hosts.iter().any(|(name, _)| *name == host);
    let front = on(&FRONT).then(|| (format!("{host}-eth0"), "front"));
    let back = on(&BACK).then(|| (format!("{host}-eth1"), "back"));
    front.into_iter().chain(back).collect()
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for host in ["e1", "e2"] {
            let mut command = Command::new(&self.wanted.dirigent);
            command.args(["realserver", "undo", "--yes", "--state"]).arg(self.directory.join(host));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let undone = Namespace::open(&self.namespace(host)).and_then(|n| n.spawn(&mut command));
            let _ = undone.map(|mut child| child.wait());
        }
        hosts::end(self.children.iter_mut().map(|(_, child)| child));
        remove(&self.name);
    }
}

/// Takes a lab away, with all that runs there.
fn remove(name: &str) {
    for host in HOSTS {
        hosts::remove(&format!("{name}-{host}"), &format!("{name}{host}"));
    }
    let _ = fs::remove_dir_all(format!("/run/dirigent-bench-{name}"));
}

/// Those whose process was killed.
fn clean_stale() {
    for entry in fs::read_dir("/run").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = name.strip_prefix("dirigent-bench-") else { continue };
        let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(name);
        }
    }
}

/// The address of a text.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
