//! Hosts on a link, with directors and keepalived.
#![allow(dead_code, missing_docs, reason = "each test program uses a part of it")]

use dirigent_net::netns::Namespace;
use dirigent_net::raw::PacketSocket;
use dirigent_net::{Netlink, VethEnd};
use dirigent_testkit::{cpu, hosts};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const BIN: &str = env!("CARGO_BIN_EXE_dirigent");
pub const VIP: &str = "10.9.0.100";
pub const VIP6: &str = "fd09::100";
/// Upper limits are generous: the machine has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long an attacker goes on.
pub const FLOOD: Duration = Duration::from_secs(3);

/// Hosts `a`, `b`, a client `c`, a server `d` and one who looks on, `e`, on a switch.
pub struct Link {
    pub name: String,
    pub directory: PathBuf,
    children: Mutex<Vec<(String, Child)>>,
}

pub const HOSTS: [(&str, u8); 5] = [("a", 1), ("b", 2), ("c", 9), ("d", 3), ("e", 8)];

impl Link {
    pub fn up() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        clean_stale();
        let name = format!("vr{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = PathBuf::from(format!("/run/dirigent-test-{name}"));
        std::fs::create_dir_all(&directory).unwrap();
        let link = Self { name, directory, children: Mutex::default() };
        let switch = Namespace::create(&link.namespace("s")).unwrap();
        switch
            .run(|| {
                let mut netlink = Netlink::route().unwrap();
                netlink.add_bridge("br0", [2, 0, 0, 0, 9, 0], 1500).unwrap();
                netlink.set_up("br0", true).unwrap();
            })
            .unwrap();
        for (host, number) in HOSTS {
            let namespace = Namespace::create(&link.namespace(host)).unwrap();
            link.sh(host, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
            let file = namespace.file().unwrap();
            switch
                .run(|| {
                    let mut netlink = Netlink::route().unwrap();
                    let mac = Some([2, 0, 0, 0, 9, number]);
                    let inner = VethEnd { name: "eth0", mac, mtu: None, namespace: Some(file.as_fd()) };
                    let outer = VethEnd { name: host, mac: None, mtu: None, namespace: None };
                    netlink.add_veth(&outer, &inner).unwrap();
                    netlink.set_master(host, "br0").unwrap();
                    netlink.set_up(host, true).unwrap();
                })
                .unwrap();
            namespace
                .run(|| {
                    let mut netlink = Netlink::route().unwrap();
                    netlink.set_up("eth0", true).unwrap();
                    netlink.add_address("eth0", format!("10.9.0.{number}").parse().unwrap(), 24).unwrap();
                    netlink.add_address("eth0", format!("fd09::{number}").parse().unwrap(), 64).unwrap();
                })
                .unwrap();
        }
        link
    }

    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    pub fn instance(&self, host: &str) -> String {
        format!("{}{host}", self.name)
    }

    pub fn spawn(&self, host: &str, command: &mut Command) -> Child {
        Namespace::open(&self.namespace(host)).unwrap().spawn(command.stdin(Stdio::null())).unwrap()
    }

    pub fn sh(&self, host: &str, script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.spawn(host, &mut command).wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{script} on {host}: {}{}", text(&output.stderr), self.logs());
        text(&output.stdout)
    }

    pub fn holds(&self, host: &str, address: &str) -> bool {
        self.sh(host, "ip -o address show").contains(&format!(" {address}/"))
    }

    pub fn config(&self, host: &str, text: &str) -> PathBuf {
        let file = self.directory.join(format!("{host}.toml"));
        std::fs::write(&file, format!("version = 1\n{text}")).unwrap();
        file
    }

    pub fn log(&self, host: &str) -> PathBuf {
        self.directory.join(format!("{host}.log"))
    }

    pub fn logs(&self) -> String {
        let log = |(host, _): &(&str, u8)| {
            let text = std::fs::read_to_string(self.log(host)).unwrap_or_default();
            format!("\n--- {host}\n{text}")
        };
        HOSTS.iter().map(log).collect()
    }

    pub fn start(&self, host: &str, command: &mut Command) {
        self.start_as(host, host, command);
    }

    /// Under a name of its own, by which it can be sent a signal.
    pub fn start_as(&self, name: &str, host: &str, command: &mut Command) {
        let log = std::fs::File::options().create(true).append(true).open(self.log(host)).unwrap();
        let child = self.spawn(host, command.stdout(log.try_clone().unwrap()).stderr(log));
        self.children.lock().unwrap().push((name.to_owned(), child));
    }

    /// A director with these virtual routers.
    pub fn director(&self, host: &str, routers: &str) {
        let config = self.config(host, routers);
        let mut command = Command::new(BIN);
        command.args(["run", "--instance", &self.instance(host), "--config"]).arg(config);
        self.start(host, &mut command);
        self.until("the director is there", || self.dirigent(host, &["status", "--json"]).is_some());
    }

    pub fn dirigent(&self, host: &str, args: &[&str]) -> Option<String> {
        let mut command = Command::new(BIN);
        command.args(["--instance", &self.instance(host)]).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let output = self.spawn(host, &mut command).wait_with_output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn router(&self, host: &str, name: &str) -> Value {
        let all = self.dirigent(host, &["failover", "status", "--json"]).unwrap_or_else(|| panic!("{}", self.logs()));
        let all: Vec<Value> = serde_json::from_str(&all).unwrap();
        all.into_iter().find(|r| r["name"] == name).unwrap_or(Value::Null)
    }

    pub fn state(&self, host: &str, name: &str) -> String {
        self.router(host, name)["state"].as_str().unwrap_or_default().to_owned()
    }

    pub fn keepalived(&self, host: &str, text: &str) {
        let config = self.directory.join(format!("{host}.conf"));
        std::fs::write(&config, text).unwrap();
        let pid = |kind: &str| self.directory.join(format!("{host}.{kind}.pid"));
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"]).arg(config);
        command.arg("--pid").arg(pid("main")).arg("--vrrp_pid").arg(pid("vrrp"));
        self.start(host, &mut command);
    }

    /// Sends the host's process a signal, and waits for its end if it is one that ends it.
    pub fn signal(&self, host: &str, signal: &str) {
        let mut children = self.children.lock().unwrap();
        let at = children.iter().position(|(name, _)| name == host).unwrap();
        let pid = children[at].1.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        if ["-9", "-TERM"].contains(&signal) {
            children.remove(at).1.wait().unwrap();
        }
    }

    /// The virtual addresses on the server's loopback device, of which it tells nobody.
    pub fn serve_directly(&self) {
        self.sh(
            "d",
            &format!(
                "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
                 ip address add {VIP}/32 dev lo; ip address add {VIP6}/128 dev lo"
            ),
        );
    }

    /// Resident memory of a host's process, kB.
    pub fn resident(&self, host: &str) -> u64 {
        let children = self.children.lock().unwrap();
        let pid = children.iter().find(|(name, _)| name == host).unwrap().1.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Seconds of a CPU that a host's program has had.
    pub fn busy(&self, host: &str) -> f64 {
        let children = self.children.lock().unwrap();
        let pid = children.iter().find(|(name, _)| name == host).unwrap().1.id();
        cpu::scheduled(i32::try_from(pid).unwrap()).as_secs_f64()
    }

    /// Sends these frames again and again, by two threads, as fast as they can for [`FLOOD`]: how many a second that came to.
    pub fn flood(&self, host: &str, frames: &[Vec<u8>]) -> f64 {
        let namespace = Namespace::open(&self.namespace(host)).unwrap();
        let flood = || {
            let ifindex = Netlink::route().unwrap().index_of("eth0").unwrap();
            let socket = PacketSocket::sender().unwrap();
            let (begun, mut sent) = (Instant::now(), 0);
            while begun.elapsed() < FLOOD {
                sent += socket.send_all(ifindex, frames).unwrap();
            }
            sent as f64 / begun.elapsed().as_secs_f64()
        };
        std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| scope.spawn(|| namespace.run(flood).unwrap()));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        })
    }

    pub fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !so() {
            assert!(begun.elapsed() < PATIENCE, "{what}{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn ping(&self, address: &str) -> bool {
        let mut command = Command::new("ping");
        command.args(["-n", "-c1", "-W1", address]).stdout(Stdio::null()).stderr(Stdio::null());
        self.spawn("c", &mut command).wait().unwrap().success()
    }

    /// The host loses its carrier, or has it again.
    pub fn cut(&self, host: &str, cut: bool) {
        self.sh("s", &format!("ip link set dev {host} {}", if cut { "down" } else { "up" }));
    }

    /// Nobody hears the host any more, which does not see that; or all do again.
    pub fn split(&self, host: &str, split: bool) {
        self.sh("s", &format!("ip link set dev {host} {}", if split { "nomaster" } else { "master br0" }));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        hosts::end(self.children.get_mut().unwrap().iter_mut().map(|(_, child)| child));
        remove(&self.name);
    }
}

/// Takes a link away, with all that runs there.
fn remove(name: &str) {
    for host in ["a", "b", "c", "d", "e", "s"] {
        hosts::remove(&format!("{name}-{host}"), &format!("{name}{host}"));
    }
    let _ = std::fs::remove_dir_all(format!("/run/dirigent-test-{name}"));
}

/// Those whose test was killed.
fn clean_stale() {
    let Ok(all) = std::fs::read_dir("/run") else { return };
    for entry in all.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(name) = entry.strip_prefix("dirigent-test-") else { continue };
        let pid = name.strip_prefix("vr").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(name);
        }
    }
}

/// What a host's director tells, as it happens.
pub struct Events {
    process: Child,
    pub lines: Arc<Mutex<Vec<String>>>,
}

impl Events {
    pub fn of(link: &Link, host: &str) -> Self {
        let mut command = Command::new(BIN);
        command
            .args(["--instance", &link.instance(host), "events", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = link.spawn(host, &mut command);
        let (lines, out) = (Arc::new(Mutex::new(Vec::new())), process.stdout.take().unwrap());
        let to = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                to.lock().unwrap().push(line);
            }
        });
        // Until it listens.
        std::thread::sleep(Duration::from_millis(700));
        Self { process, lines }
    }
    pub fn has(&self, word: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.contains(word))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
